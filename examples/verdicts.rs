//! Draws portfolios of known kinds and counts the verdicts on them, as the tables of `docs/verdicts.md`:
//! `make verdicts` (500 portfolios of each kind; `REPLICATES=100` for fewer). Fails where a kind does not keep its bound.
//!
//! Everything is in units of the standard error of a raw effect, whose square is the control's variance and the treatment's
//! together. Priors are flat.

use std::env;
use std::error::Error;
use std::fmt::{self, Display};
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use shrinkd::simulate::Draws;
use shrinkd::study::Article;
use shrinkd_model::{Analysis, Block, Design, Member, Request, Sketches, Verdict, available_threads, map_chunks};

const SEED: u64 = 12;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let replicates: u64 = env::args().nth(1).map_or(Ok(500), |argument| argument.parse())?;
    let mut out = io::stdout().lock();
    let mut missed = 0;
    writeln!(
        out,
        "| kind | portfolio | experiments | tau | effects | sqrt(DEFF) | negligible | noticeable | material | misfit | bound |"
    )?;
    writeln!(out, "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")?;
    let kinds = kinds();
    for (i, kind) in kinds.iter().enumerate() {
        if io::stderr().is_terminal() {
            eprint!("\r\x1b[K{} of {}: {}, {kind}, {} experiments", i + 1, kinds.len(), kind.name, kind.experiments);
        }
        let counts = kind.count(replicates)?;
        missed += usize::from(!kind.bound.is_kept(&counts));
        let Kind { name, experiments, tau, truths, bound, .. } = kind;
        let [negligible, noticeable, material, misfit] = counts.shares.map(percent);
        writeln!(
            out,
            "| {name} | {kind} | {experiments} | {tau} | {truths} | {:.3} | {negligible} | {noticeable} | {material} | {misfit} | {bound}{} |",
            counts.median_deff.sqrt(),
            if bound.is_kept(&counts) { "" } else { ": **missed**" },
        )?;
    }
    if io::stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }

    writeln!(out, "\n| the article's table | verdict | rests on | value | expected |")?;
    writeln!(out, "| --- | --- | --- | --- | --- |")?;
    for (number, table) in (1..).zip(Article::new()?.tables) {
        let expected = if number == 1 { Verdict::Negligible } else { Verdict::Material };
        let found = table.correlation;
        missed += usize::from(found.verdict != expected);
        writeln!(
            out,
            "| {number}, {} | {} | {} | {:.3} | {expected} |",
            table.title,
            found.verdict,
            found.rests_on.as_str(),
            found.value
        )?;
    }
    if missed > 0 {
        eprintln!("error: {missed} of the bounds are missed");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// Portfolios to draw, and what is expected of the verdicts on them.
#[derive(Debug, Clone, Copy)]
struct Kind {
    name: &'static str,
    experiments: usize,
    /// The share of experiments with `variants` variants; the others have one.
    several: f64,
    variants: usize,
    /// The control's part of a raw effect's sampling variance.
    rho: f64,
    mu: f64,
    /// The standard deviation of the true effects, if they have their nominal spread.
    tau: f64,
    /// Whether the variances of experiments differ by a factor of up to 16.
    has_unequal_sizes: bool,
    truths: Truths,
    /// The correlation of the true effects of one experiment.
    alike: f64,
    /// By how many of its standard errors the first experiment's control is too low; drawn like the others if `None`.
    control_error: Option<f64>,
    /// The control's variance as it is sent, of the true one.
    sent: f64,
    bound: Bound,
}

/// The distribution of the true effects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Truths {
    Normal,
    /// Student's t with 3 degrees of freedom, scaled to the standard deviation tau.
    Student,
    /// The same in units of tau, so that the standard deviation is `sqrt(3)` tau.
    UnscaledStudent,
}

/// What is expected of the shares of verdicts.
#[derive(Debug, Clone, Copy)]
enum Bound {
    AtMost(f64, Verdict),
    AtLeast(f64, Verdict),
    None,
}

/// The verdicts on many portfolios of one kind.
struct Counts {
    /// In the order of [`Verdict::ALL`].
    shares: [f64; 4],
    median_deff: f64,
}

/// An honest portfolio: what is sent is true, and the model's assumptions hold.
const HONEST: Kind = Kind {
    name: "honest",
    experiments: 80,
    several: 0.0,
    variants: 1,
    rho: 0.5,
    mu: 0.25,
    tau: 1.0,
    has_unequal_sizes: false,
    truths: Truths::Normal,
    alike: 0.0,
    control_error: None,
    sent: 1.0,
    bound: Bound::None,
};

fn kinds() -> Vec<Kind> {
    let taus = [0.5, 1.0];
    let mut kinds = Vec::new();
    let two = Kind { name: "30% two-variant", several: 0.3, variants: 2, ..HONEST };
    for experiments in [40, 80, 300] {
        for tau in taus {
            let two = Kind { experiments, tau, ..two };
            let (rho, bound) = (two.rho_for(1.04 * 1.04), Bound::AtMost(0.03, Verdict::Material));
            kinds.push(Kind { rho, bound, ..two });
            kinds.push(Kind { rho, bound, has_unequal_sizes: true, ..two });
            kinds.push(two);
        }
        kinds.push(Kind { experiments, tau: 0.5, mu: 1.0, ..two });
    }
    for experiments in [40, 80, 300] {
        for tau in taus {
            let bound = Bound::AtMost(0.01, Verdict::Material);
            let little = Kind { name: "DEFF 1.01", experiments, variants: 2, tau, bound, ..HONEST };
            let all = Kind { several: 1.0, ..little };
            kinds.push(Kind { rho: all.rho_for(1.01), ..all });
            // As many experiments with two variants as an equal allocation allows.
            let some = (1..experiments)
                .map(|two| Kind { several: two as f64 / experiments as f64, ..little })
                .take_while(|some| some.rho_for(1.01) >= some.rho);
            kinds.extend(some.last());
        }
    }
    for tau in taus {
        let bound = Bound::AtLeast(0.95, Verdict::Material);
        let three = Kind { name: "three-variant", experiments: 50, several: 1.0, variants: 3, tau, ..HONEST };
        kinds.push(Kind { bound, ..three });
        kinds.push(Kind { has_unequal_sizes: true, ..three });
    }
    for experiments in [20, 40, 80, 300] {
        for (several, variants) in [(0.0, 1), (0.3, 3), (1.0, 3)] {
            for truths in [Truths::Normal, Truths::Student, Truths::UnscaledStudent] {
                for tau in taus {
                    let bound = match variants {
                        1 => Bound::AtLeast(1.0, Verdict::Negligible),
                        _ => Bound::AtMost(0.02, Verdict::Misfit),
                    };
                    kinds.push(Kind { experiments, several, variants, truths, tau, bound, ..HONEST });
                }
            }
        }
    }
    let three = Kind { several: 1.0, variants: 3, ..HONEST };
    let some_three = Kind { several: 0.3, ..three };
    for (experiments, least) in [(80, 0.5), (300, 0.95)] {
        let alike = Kind { name: "alike", experiments, alike: 0.8, ..three };
        kinds.push(Kind { bound: Bound::AtLeast(least, Verdict::Misfit), ..alike });
        kinds.push(Kind { tau: 0.5, ..alike });
        kinds.push(Kind { several: 0.3, ..alike });
    }
    for experiments in [40, 80, 300] {
        for control_error in [4.0, 6.0] {
            for tau in taus {
                let control_error = Some(control_error);
                kinds.push(Kind { name: "bad control", experiments, control_error, tau, ..some_three });
            }
        }
    }
    for experiments in [80, 300] {
        for tau in taus {
            let understated = Kind { name: "understated control", experiments, tau, sent: 0.5, ..three };
            kinds.push(understated);
            kinds.push(Kind { several: 0.3, ..understated });
        }
    }
    kinds
}

impl Kind {
    /// The rho that gives a design effect of `deff` where sizes are equal: its excess over 1 is proportional to rho.
    fn rho_for(&self, deff: f64) -> f64 {
        let design = Design { variants: self.sizes().collect(), rho: HONEST.rho, tau: self.tau };
        design.rho * (deff - 1.0) / (design.design_effect() - 1.0)
    }

    /// The number of variants of each experiment.
    fn sizes(&self) -> impl Iterator<Item = usize> {
        let with_several = (self.several * self.experiments as f64).round() as usize;
        (0..self.experiments).map(move |index| if index < with_several { self.variants } else { 1 })
    }

    fn count(&self, replicates: u64) -> Result<Counts, Box<dyn Error>> {
        let streams: Vec<u64> = (0..replicates).collect();
        let judged = map_chunks(&streams, 8, available_threads(), |streams| {
            streams.iter().map(|&stream| self.judge(stream).map_err(|e| e.to_string())).collect::<Result<Vec<_>, _>>()
        });
        let judged = judged.into_iter().collect::<Result<Vec<_>, _>>()?.concat();
        let share = |verdict| judged.iter().filter(|(found, _)| *found == verdict).count() as f64 / replicates as f64;
        let mut deffs: Vec<f64> = judged.iter().map(|(_, deff)| *deff).collect();
        deffs.sort_by(f64::total_cmp);
        let median_deff = deffs.get(deffs.len() / 2).copied().ok_or("there is nothing to count in 0 portfolios")?;
        Ok(Counts { shares: Verdict::ALL.map(share), median_deff })
    }

    /// The verdict on one portfolio, and its design effect.
    fn judge(&self, stream: u64) -> Result<(Verdict, f64), Box<dyn Error>> {
        let members = self.draw(stream)?;
        let analysis = Analysis::new(&members, &Sketches::of_members(&members, 1)?, &Request::default())?;
        let comparison = analysis.comparison.ok_or("a model has no posterior")?;
        Ok((comparison.verdict, comparison.consequences.deff_control()))
    }

    fn draw(&self, stream: u64) -> Result<Vec<Member>, Box<dyn Error>> {
        let mut draws = Draws::new(SEED, stream);
        let mut members = Vec::with_capacity(self.experiments);
        for (index, n) in self.sizes().enumerate() {
            let size = if self.has_unequal_sizes { libm::exp2(draws.between(-2.0, 2.0)) } else { 1.0 };
            let (control, treatment) = (size * self.rho, size * (1.0 - self.rho));
            let shared = self.truths.draw(&mut draws);
            let truths: Vec<f64> = (0..n)
                .map(|_| {
                    let own = self.truths.draw(&mut draws);
                    self.mu + self.tau * (self.alike.sqrt() * shared + (1.0 - self.alike).sqrt() * own)
                })
                .collect();
            let error = match self.control_error {
                Some(error) if index == 0 => -error * control.sqrt(),
                _ => draws.normal(0.0, control.sqrt()),
            };
            let effects = truths.iter().map(|truth| draws.normal(*truth, treatment.sqrt()) - error).collect();
            let block = Block::shared_control(effects, vec![treatment; n], self.sent * control)?;
            members.push(Member::new(block, (draws.uniform() * n as f64) as usize)?);
        }
        Ok(members)
    }
}

impl Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.several, self.variants) {
            (0.0, _) => write!(f, "one variant")?,
            (1.0, n) => write!(f, "{n} variants")?,
            (several, n) => write!(f, "{n} variants in {}%", 100.0 * several)?,
        }
        if self.rho != HONEST.rho {
            write!(f, ", rho = {}", (1e4 * self.rho).round() / 1e4)?;
        }
        if self.mu != HONEST.mu {
            write!(f, ", mu = {}", self.mu)?;
        }
        if self.has_unequal_sizes {
            write!(f, ", unequal sizes")?;
        }
        if self.alike > 0.0 {
            write!(f, ", correlated by {}", self.alike)?;
        }
        if let Some(error) = self.control_error {
            write!(f, ", one control off by {error}")?;
        }
        if self.sent < 1.0 {
            write!(f, ", control's variance sent times {}", self.sent)?;
        }
        Ok(())
    }
}

impl Truths {
    /// A deviate in units of tau.
    fn draw(self, draws: &mut Draws) -> f64 {
        let normal = draws.standard_normal();
        if self == Truths::Normal {
            return normal;
        }
        let chi_squared: f64 = (0..3).map(|_| draws.standard_normal().powi(2)).sum();
        let student = normal / (chi_squared / 3.0).sqrt();
        if self == Truths::Student { student / 3.0_f64.sqrt() } else { student }
    }
}

impl Display for Truths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Truths::Normal => "normal",
            Truths::Student => "t3",
            Truths::UnscaledStudent => "t3, unscaled",
        })
    }
}

impl Bound {
    fn is_kept(self, counts: &Counts) -> bool {
        match self {
            Bound::AtMost(most, verdict) => counts.shares[verdict as usize] <= most,
            Bound::AtLeast(least, verdict) => counts.shares[verdict as usize] >= least,
            Bound::None => true,
        }
    }
}

impl Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bound::AtMost(most, verdict) => write!(f, "{verdict} <= {}", percent(*most)),
            Bound::AtLeast(1.0, verdict) => write!(f, "{verdict} 100%"),
            Bound::AtLeast(least, verdict) => write!(f, "{verdict} >= {}", percent(*least)),
            Bound::None => Ok(()),
        }
    }
}

fn percent(share: f64) -> String {
    let percent = 100.0 * share;
    if (percent - percent.round()).abs() < 1e-9 { format!("{percent:.0}%") } else { format!("{percent:.1}%") }
}
