//! Draws populations in which the variants of one experiment are alike, and shows how estimates cover that know of it and that do
//! not, as the tables and the figure of `docs/alike.md`:
//! `make alike` (500 populations of each kind; `REPLICATES=100` for fewer). Fails where a bound is not kept.
//!
//! Everything is in units of the standard error of a raw effect. The control's variance is half of that of a raw effect, as where it
//! gets as much traffic as each variant. Priors of mu and tau are flat.

mod figure;
mod tables;

use std::error::Error;
use std::fmt::{self, Display};
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::{array, env, fs};

use shrinkd::simulate::Draws;
use shrinkd_model::{
    Analysis, Block, BlockAnalysis, BlockPosterior, Correlation, Fit, Member, Method, PriorIcc, PriorMu, PriorTau,
    Priors, Request, SketchLikelihood, Sketches, available_threads, map_chunks,
};

use tables::TABLES;

const SEED: u64 = 13;
const EXPERIMENTS: usize = 80;
const VARIANTS: usize = 3;
const MU: f64 = 0.25;
/// Of the mean of a control, and of a treatment.
const VARIANCE: f64 = 0.5;
/// By how many of its standard errors a bad control is too low.
const CONTROL_ERROR: f64 = 6.0;
const TAUS: [f64; 2] = [0.5, 1.0];
/// Those of the tables.
const ICCS: [f64; 4] = [0.0, 0.3, 0.5, 0.8];
/// Those of the figure.
const FIGURE_ICCS: [f64; 10] = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9];

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let replicates: u64 = arguments.next().map_or(Ok(500), |argument| argument.parse())?;
    let figure = arguments.next();
    let iccs = if figure.is_some() { &FIGURE_ICCS[..] } else { &ICCS };
    let kinds: Vec<Kind> = TAUS.iter().flat_map(|&tau| iccs.iter().map(move |&icc| Kind { tau, icc })).collect();
    let mut rows: Vec<Row> = Vec::with_capacity(kinds.len());
    for kind in &kinds {
        if io::stderr().is_terminal() {
            eprint!("\r\x1b[K{} of {}: tau {}, icc {}", rows.len() + 1, kinds.len(), kind.tau, kind.icc);
        }
        rows.push((*kind, kind.scores(replicates)?));
    }
    if io::stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
    if let Some(path) = figure {
        fs::write(path, figure::draw(&rows))?;
    }
    rows.retain(|(kind, _)| kind.is_in_tables());
    let mut out = io::stdout().lock();
    let mut missed = 0;
    for table in TABLES {
        missed += table.write(&rows, &mut out)?;
    }
    if missed > 0 {
        eprintln!("error: {missed} of the bounds are missed");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// Populations to draw.
#[derive(Debug, Clone, Copy)]
struct Kind {
    /// The standard deviation of the true effects.
    tau: f64,
    /// The intraclass correlation of the true effects of one experiment.
    icc: f64,
}

/// A population and its true effects, those of one experiment after those of the other.
struct Population {
    members: Vec<Member>,
    sketches: Sketches,
    truths: Vec<f64>,
}

/// What is taken of the true effects of one experiment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Model {
    /// Their icc is fitted, under a uniform prior.
    Uniform,
    /// They are independent.
    None,
    /// They are independent, and so are their errors.
    Ignored,
    OnePerExperiment,
    /// Their icc is known.
    Oracle,
}

/// The estimates of many populations of one kind by one model.
#[derive(Debug, Clone, Copy, Default)]
struct Score {
    populations: f64,
    mu_covered: f64,
    effects: f64,
    effects_covered: f64,
    squared_error: f64,
    /// That of the oracle, for the same effects.
    oracle_squared_error: f64,
    /// Of experiments that have nothing wrong with them.
    false_flags: f64,
    /// Populations in which the control that is bad is flagged.
    found: f64,
}

impl Kind {
    /// One for each model, in the order of [`Model::ALL`].
    fn scores(&self, replicates: u64) -> Result<[Score; 5], Box<dyn Error>> {
        let streams: Vec<u64> = (0..replicates).collect();
        let scores = map_chunks(&streams, 1, available_threads(), |streams| {
            streams
                .iter()
                .map(|&stream| self.replicate(stream).map_err(|e| e.to_string()))
                .collect::<Result<Vec<_>, _>>()
        });
        let scores = scores.into_iter().collect::<Result<Vec<_>, _>>()?.concat();
        Ok(array::from_fn(|model| scores.iter().fold(Score::default(), |sum, scores| sum.add(&scores[model]))))
    }

    /// One population, fitted by each model.
    fn replicate(&self, stream: u64) -> Result<[Score; 5], Box<dyn Error>> {
        let (sound, spoilt) = (self.draw(stream, None)?, self.draw(stream, Some(CONTROL_ERROR))?);
        let oracle = sound.estimates(Model::Oracle, self.icc)?;
        let mut scores = [Score::new(&oracle, &oracle); 5];
        for (score, model) in scores.iter_mut().zip(Model::ALL) {
            if model != Model::Oracle {
                *score = Score::new(&sound.estimates(model, self.icc)?, &oracle);
            }
            if self.is_in_tables() && model.has_flags() {
                score.false_flags = sound.flags(model)?.into_iter().map(count).sum();
                score.found = count(spoilt.flags(model)?[0]);
            }
        }
        Ok(scores)
    }

    /// Flags are counted in these alone, because they take most of the time.
    fn is_in_tables(&self) -> bool {
        ICCS.contains(&self.icc)
    }

    /// A population, in which the first control is off if there is a `control_error`, and all else is the same.
    fn draw(&self, stream: u64, control_error: Option<f64>) -> Result<Population, Box<dyn Error>> {
        let mut draws = Draws::new(SEED, stream);
        let (mut members, mut truths) = (Vec::new(), Vec::new());
        for index in 0..EXPERIMENTS {
            let shared = draws.normal(MU, self.tau * self.icc.sqrt());
            let error = draws.normal(0.0, VARIANCE.sqrt());
            let error = match control_error {
                Some(control_error) if index == 0 => -control_error * VARIANCE.sqrt(),
                _ => error,
            };
            let mut effects = Vec::with_capacity(VARIANTS);
            for _ in 0..VARIANTS {
                let truth = draws.normal(shared, self.tau * (1.0 - self.icc).sqrt());
                effects.push(draws.normal(truth, VARIANCE.sqrt()) - error);
                truths.push(truth);
            }
            let block = Block::shared_control(effects, vec![VARIANCE; VARIANTS], VARIANCE)?;
            members.push(Member::new(block, 0)?);
        }
        Ok(Population { sketches: Sketches::of_members(&members, 1)?, members, truths })
    }
}

/// What one model makes of a population.
struct Estimates {
    is_mu_covered: bool,
    effects: Vec<Effect>,
}

/// The estimate of one effect.
struct Effect {
    /// Among all effects of the population.
    index: usize,
    squared_error: f64,
    is_covered: bool,
}

impl Population {
    fn estimates(&self, model: Model, icc: f64) -> Result<Estimates, Box<dyn Error>> {
        let correlation = model.correlation();
        let likelihood = SketchLikelihood::new(&self.sketches.of(correlation));
        let fit = Fit::of(&self.sketches, correlation, &likelihood, &model.priors(icc), Method::Quadrature)?;
        let mut effects = Vec::new();
        for (k, member) in self.members.iter().enumerate() {
            let posterior = BlockPosterior::new(&member.under(correlation), &fit.nodes);
            for (i, variant) in member.variants(correlation).enumerate() {
                let (index, estimate) = (VARIANTS * k + variant, posterior.estimate(i));
                let (low, high) = posterior.intervals(i, &estimate).ci95;
                let truth = self.truths[index];
                let squared_error = (estimate.mean - truth).powi(2);
                effects.push(Effect { index, squared_error, is_covered: (low..=high).contains(&truth) });
            }
        }
        let mu = fit.posterior.mu;
        let (low, high) = mu.q025.zip(mu.q975).ok_or("mu has no posterior")?;
        Ok(Estimates { is_mu_covered: (low..=high).contains(&MU), effects })
    }

    /// Whether each experiment's control is flagged.
    fn flags(&self, model: Model) -> Result<Vec<bool>, Box<dyn Error>> {
        let request = Request { priors: model.priors(0.0), ..Request::default() };
        let analysis = Analysis::new(&self.members, &self.sketches, &request)?;
        let is_flagged = |block: &BlockAnalysis| block.diagnostics.is_some_and(|it| it.is_control_anomaly());
        Ok(analysis.blocks.iter().map(is_flagged).collect())
    }
}

impl Model {
    const ALL: [Model; 5] = [Model::Uniform, Model::None, Model::Ignored, Model::OnePerExperiment, Model::Oracle];

    fn correlation(self) -> Correlation {
        match self {
            Model::Uniform | Model::None | Model::Oracle => Correlation::Modelled,
            Model::Ignored => Correlation::Ignored,
            Model::OnePerExperiment => Correlation::OnePerExperiment,
        }
    }

    /// Of populations with this true icc.
    fn priors<Q>(self, icc: f64) -> Priors<Q> {
        let icc = match self {
            Model::Uniform => PriorIcc::Uniform,
            Model::Oracle => PriorIcc::Fixed { icc },
            Model::None | Model::Ignored | Model::OnePerExperiment => PriorIcc::None,
        };
        Priors { mu: PriorMu::Flat, tau: PriorTau::Flat, icc }
    }

    /// Whether its flags of controls are counted.
    fn has_flags(self) -> bool {
        matches!(self, Model::Uniform | Model::None)
    }
}

impl Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Model::Uniform => "uniform",
            Model::None => "none",
            Model::Ignored => "ignored",
            Model::OnePerExperiment => "one per experiment",
            Model::Oracle => "oracle",
        })
    }
}

impl Score {
    /// Of one population.
    fn new(estimates: &Estimates, oracle: &Estimates) -> Score {
        let sum = |figure: fn(&Effect, &Effect) -> f64| {
            estimates.effects.iter().map(|effect| figure(effect, &oracle.effects[effect.index])).sum()
        };
        Score {
            populations: 1.0,
            mu_covered: count(estimates.is_mu_covered),
            effects: estimates.effects.len() as f64,
            effects_covered: sum(|effect, _| count(effect.is_covered)),
            squared_error: sum(|effect, _| effect.squared_error),
            oracle_squared_error: sum(|_, oracle| oracle.squared_error),
            ..Score::default()
        }
    }

    fn add(&self, other: &Score) -> Score {
        Score {
            populations: self.populations + other.populations,
            mu_covered: self.mu_covered + other.mu_covered,
            effects: self.effects + other.effects,
            effects_covered: self.effects_covered + other.effects_covered,
            squared_error: self.squared_error + other.squared_error,
            oracle_squared_error: self.oracle_squared_error + other.oracle_squared_error,
            false_flags: self.false_flags + other.false_flags,
            found: self.found + other.found,
        }
    }

    fn coverage_of_theta(&self) -> f64 {
        self.effects_covered / self.effects
    }

    fn coverage_of_mu(&self) -> f64 {
        self.mu_covered / self.populations
    }

    /// By how much the root mean squared error of the true effects is larger than the oracle's.
    fn rmse_excess(&self) -> f64 {
        (self.squared_error / self.oracle_squared_error).sqrt() - 1.0
    }

    /// Controls of a population that are flagged although nothing is wrong with them.
    fn false_flags(&self) -> f64 {
        self.false_flags / self.populations
    }

    /// The share of bad controls that are flagged.
    fn found(&self) -> f64 {
        self.found / self.populations
    }
}

fn count(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

/// One row of each table.
type Row = (Kind, [Score; 5]);
