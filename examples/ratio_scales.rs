//! Prints bias, coverage and error on every scale, where conversions are few and many, as the table of
//! `docs/ratio-scales.md`:
//! `make ratio-scales` (500 replicates of each row, some ten minutes on two cores; `REPLICATES=100` for fewer).
//!
//! Each replicate is a population of experiments with a control and three treatments, sent as successes or, on `relative`,
//! also as the effects and variances that a platform would compute of them (delta method). True effects are normal about mu
//! with a standard deviation of 0.05: lifts on `relative` and, in units of the control's rate, on `absolute`, their
//! logarithms on `log_ratio`, and the logarithms of odds ratios on `log_odds`.

use std::env;
use std::error::Error;
use std::io::{self, IsTerminal, Write};

use shrinkd::simulate::Draws;
use shrinkd_core::{Arm, ArmStatistics, Arms, Effects, Measurement, Scale, Uncertainty, measure};
use shrinkd_model::{
    BlockPosterior, Correlation, Fit, Member, Method, Priors, SketchLikelihood, Sketches, available_threads, map_chunks,
};

const SEED: u64 = 11;
const CONVERSIONS: [f64; 5] = [40.0, 100.0, 400.0, 1_000.0, 10_000.0];
const EXPERIMENTS: [usize; 2] = [50, 200];
/// Units of each treatment for one of the control.
const TRAFFIC: [f64; 2] = [1.0, 0.2];
const MU: [f64; 3] = [-0.4, 0.0, 0.3];
const TAU: f64 = 0.05;
const TREATMENTS: usize = 3;
/// Of the control.
const RATE: f64 = 0.05;

fn main() -> Result<(), Box<dyn Error>> {
    let replicates: u64 = env::args().nth(1).map_or(Ok(500), |argument| argument.parse())?;
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "| sent | conversions | experiments | traffic | mu | bias of mu | coverage of mu | coverage of theta | RMSE of theta | refused |"
    )?;
    writeln!(out, "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")?;
    for form in [
        Form::Successes(Scale::Absolute),
        Form::Successes(Scale::Relative),
        Form::Effects,
        Form::Successes(Scale::LogRatio),
        Form::Successes(Scale::LogOdds),
    ] {
        for conversions in CONVERSIONS {
            for experiments in EXPERIMENTS {
                for traffic in TRAFFIC {
                    for mu in MU {
                        let design = Design { form, conversions, experiments, traffic, mu };
                        if io::stderr().is_terminal() {
                            eprint!("\r{form}, {conversions} conversions, {experiments} experiments, mu {mu}    ");
                        }
                        writeln!(out, "{}", design.row(replicates))?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// How results are sent, and on which scale.
#[derive(Debug, Clone, Copy)]
enum Form {
    Successes(Scale),
    /// On `relative`.
    Effects,
}

/// What one row of the table is about.
#[derive(Debug, Clone, Copy)]
struct Design {
    form: Form,
    /// Expected in the control of each experiment.
    conversions: f64,
    experiments: usize,
    traffic: f64,
    mu: f64,
}

/// What one replicate adds to a row.
#[derive(Debug, Default, Clone, Copy)]
struct Score {
    replicates: f64,
    error: f64,
    covered: f64,
    effects: f64,
    squared_error: f64,
    effects_covered: f64,
    results: f64,
    refused: f64,
}

impl Design {
    fn row(&self, replicates: u64) -> String {
        let streams: Vec<u64> = (0..replicates).collect();
        let scores = map_chunks(&streams, 8, available_threads(), |streams| {
            streams.iter().map(|&stream| self.replicate(stream)).fold(Score::default(), Score::add)
        });
        let Score { replicates, error, covered, effects, squared_error, effects_covered, results, refused } =
            scores.into_iter().fold(Score::default(), Score::add);
        let Design { form, conversions, experiments, traffic, mu } = self;
        format!(
            "| {form} | {conversions} | {experiments} | {traffic} | {mu} | {:+.4} | {:.3} | {:.3} | {:.4} | {:.1}% |",
            error / replicates,
            covered / replicates,
            effects_covered / effects,
            (squared_error / effects).sqrt(),
            100.0 * refused / results
        )
    }

    /// One population, fitted under flat priors. Effects on `absolute` are in units of the control's rate.
    fn replicate(&self, stream: u64) -> Score {
        let mut draws = Draws::new(SEED, stream);
        let scale = self.form.scale();
        let unit = if scale == Scale::Absolute { RATE } else { 1.0 };
        let (mut sketches, mut blocks) = (Sketches::default(), Vec::new());
        let mut score = Score { results: self.experiments as f64, ..Score::default() };
        for _ in 0..self.experiments {
            let truths: Vec<f64> = (0..TREATMENTS).map(|_| draws.normal(self.mu, TAU)).collect();
            let arms = self.arms(&truths, &mut draws);
            let measurement = match self.form {
                Form::Successes(_) => Measurement::Arms(arms),
                Form::Effects => Measurement::Effects(effects(&arms)),
            };
            let measured = measure(scale, &measurement).ok();
            let member = measured.filter(|measured| measured.variants.len() == TREATMENTS);
            let Some(member) = member.and_then(|measured| Member::new(measured.block, 0).ok()) else {
                score.refused += 1.0;
                continue;
            };
            if sketches.add(&member).is_ok() {
                blocks.push((member, truths));
            }
        }
        let likelihood = SketchLikelihood::new(&sketches.of(Correlation::Modelled));
        let Ok(fit) = Fit::new(&likelihood, &Priors::default(), Method::Quadrature) else { return score };
        let (Some(mean), Some(low), Some(high)) = (fit.posterior.mu.mean, fit.posterior.mu.q025, fit.posterior.mu.q975)
        else {
            return score;
        };
        score.replicates = 1.0;
        score.error = mean / unit - self.mu;
        score.covered = f64::from(u8::from((low / unit..=high / unit).contains(&self.mu)));
        for (member, truths) in &blocks {
            let posterior = BlockPosterior::new(member.block(), &fit.nodes);
            for (i, truth) in truths.iter().enumerate() {
                let estimate = posterior.estimate(i);
                let (low, high) = posterior.intervals(i, &estimate).ci95;
                score.effects += 1.0;
                score.squared_error += (estimate.mean / unit - truth).powi(2);
                score.effects_covered += f64::from(u8::from((low / unit..=high / unit).contains(truth)));
            }
        }
        score
    }

    fn arms(&self, truths: &[f64], draws: &mut Draws) -> Arms {
        let units = (self.conversions / RATE).round();
        let mut arm = |variant: String, units: f64, rate: f64| {
            let n = units.round() as u64;
            Arm { variant, statistics: ArmStatistics::Successes { n, successes: binomial(n, rate, draws) } }
        };
        let control = arm("control".to_owned(), units, RATE);
        let rate = |truth: f64| match self.form.scale() {
            Scale::Absolute | Scale::Relative => RATE * (1.0 + truth),
            Scale::LogRatio => RATE * truth.exp(),
            Scale::LogOdds => {
                let odds = RATE / (1.0 - RATE) * truth.exp();
                odds / (1.0 + odds)
            }
        };
        let treatment = |(i, truth): (usize, &f64)| arm(format!("t{i}"), units * self.traffic, rate(*truth));
        Arms { treatments: truths.iter().enumerate().map(treatment).collect(), control: Some(control) }
    }
}

impl Form {
    fn scale(self) -> Scale {
        match self {
            Form::Successes(scale) => scale,
            Form::Effects => Scale::Relative,
        }
    }
}

impl std::fmt::Display for Form {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Form::Successes(scale) => write!(f, "successes, {scale}"),
            Form::Effects => write!(f, "effects, relative"),
        }
    }
}

/// The lifts of arms that were sent as successes, with the variances of the delta method.
fn effects(arms: &Arms) -> Effects {
    let rate_and_variance = |arm: &Arm| match arm.statistics {
        ArmStatistics::Successes { n, successes } => {
            let rate = successes as f64 / n as f64;
            (rate, rate * (1.0 - rate) / (n as f64 - 1.0))
        }
        _ => (f64::NAN, f64::NAN),
    };
    let (control, control_variance) = arms.control.as_ref().map_or((f64::NAN, f64::NAN), rate_and_variance);
    let c = control_variance / control.powi(2);
    let lifts = || arms.treatments.iter().map(|arm| (arm, rate_and_variance(arm)));
    Effects {
        variants: lifts().map(|(arm, _)| arm.variant.clone()).collect(),
        estimates: lifts().map(|(_, (rate, _))| rate / control - 1.0).collect(),
        uncertainty: Uncertainty::SharedControl {
            variances: lifts().map(|(_, (rate, own))| own / control.powi(2) + (rate / control).powi(2) * c).collect(),
            control_variance: c,
        },
    }
}

impl Score {
    fn add(self, other: Score) -> Score {
        Score {
            replicates: self.replicates + other.replicates,
            error: self.error + other.error,
            covered: self.covered + other.covered,
            effects: self.effects + other.effects,
            squared_error: self.squared_error + other.squared_error,
            effects_covered: self.effects_covered + other.effects_covered,
            results: self.results + other.results,
            refused: self.refused + other.refused,
        }
    }
}

/// A binomial number: the distribution function is inverted outwards from the mode.
fn binomial(n: u64, p: f64, draws: &mut Draws) -> u64 {
    let count = n as f64;
    let mode = ((count + 1.0) * p).floor().clamp(0.0, count);
    let log_choose = libm::lgamma(count + 1.0) - libm::lgamma(mode + 1.0) - libm::lgamma(count - mode + 1.0);
    let at_mode = (log_choose + mode * p.ln() + (count - mode) * (-p).ln_1p()).exp();
    let odds = p / (1.0 - p);
    let (mut low, mut high) = ((mode, at_mode), (mode, at_mode));
    let mut left = draws.uniform() - at_mode;
    while left > 0.0 && (low.1 > 0.0 || high.1 > 0.0) {
        high = (high.0 + 1.0, high.1 * odds * (count - high.0) / (high.0 + 1.0));
        left -= high.1;
        if left <= 0.0 {
            return high.0 as u64;
        }
        low = (low.0 - 1.0, low.1 * low.0 / odds / (count - low.0 + 1.0));
        left -= low.1;
        if left <= 0.0 {
            return low.0 as u64;
        }
    }
    mode as u64
}
