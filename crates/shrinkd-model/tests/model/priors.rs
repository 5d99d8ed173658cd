//! Every prior at every scale: the posterior agrees with direct quadrature in log tau, and nothing that exists is null.

use std::f64::consts::FRAC_1_SQRT_2;

use shrinkd_model::{
    Component, DirectLikelihood, Likelihood, Posterior, PosteriorError, PriorMu, PriorTau, Priors, Sketch,
    SketchLikelihood, Summary, quadrature,
};

type Quantile = fn(&Summary) -> Option<f64>;

/// The levels of a summary's quantiles, and where it has them.
const LEVELS: [(f64, Quantile); 5] =
    [(0.025, |s| s.q025), (0.25, |s| s.q25), (0.5, |s| s.median), (0.75, |s| s.q75), (0.975, |s| s.q975)];

/// Gauss-Legendre nodes on [-1, 1] and their weights.
fn legendre() -> Vec<(f64, f64)> {
    const N: usize = 20;
    let p = |x: f64| {
        let (mut before, mut now) = (1.0, x);
        for k in 1..N {
            let k = k as f64;
            (before, now) = (now, ((2.0 * k + 1.0) * x * now - k * before) / (k + 1.0));
        }
        (now, N as f64 * (x * now - before) / (x * x - 1.0))
    };
    (0..N)
        .map(|i| {
            let mut x = (std::f64::consts::PI * (i as f64 + 0.75) / (N as f64 + 0.5)).cos();
            (0..20).for_each(|_| x -= p(x).0 / p(x).1);
            (x, 2.0 / ((1.0 - x * x) * p(x).1.powi(2)))
        })
        .collect()
}

/// The posterior by its definition: mu in closed form, log tau by adaptive Gauss-Legendre panels from where nothing is
/// left of the posterior to where nothing is again.
struct Reference<'a, L> {
    likelihood: &'a L,
    priors: Priors,
    rule: Vec<(f64, f64)>,
    low: f64,
    high: f64,
    peak: f64,
}

/// Density of log tau, and mean and sd of mu given tau.
struct At {
    log_density: f64,
    tau: f64,
    mean: f64,
    sd: f64,
}

impl<'a, L: Likelihood> Reference<'a, L> {
    fn new(likelihood: &'a L, priors: Priors) -> Reference<'a, L> {
        let mut reference = Reference { likelihood, priors, rule: legendre(), low: 0.0, high: 0.0, peak: 0.0 };
        // Twice as dense as the panels' nodes.
        let grid = (-12_000..=12_000).map(|k| 0.0125 * f64::from(k));
        let seen: Vec<(f64, f64)> = grid
            .map(|x| (x, reference.at(x)))
            .map(|(x, at)| (x, at.log_density))
            .filter(|(_, log_density)| log_density.is_finite())
            .collect();
        reference.peak = seen.iter().map(|(_, y)| *y).fold(f64::NEG_INFINITY, f64::max);
        // The second moment reaches farther than the density.
        let moment = |x: f64, y: f64| y + 2.0 * x;
        let moment_peak = seen.iter().map(|&(x, y)| moment(x, y)).fold(f64::NEG_INFINITY, f64::max);
        let is_in = |&&(x, y): &&(f64, f64)| y > reference.peak - 40.0 || moment(x, y) > moment_peak - 40.0;
        let inside: Vec<f64> = seen.iter().filter(is_in).map(|(x, _)| *x).collect();
        reference.low = inside.first().expect("a posterior") - 0.0125;
        reference.high = inside.last().expect("a posterior") + 0.0125;
        reference
    }

    fn at(&self, x: f64) -> At {
        let tau = x.exp();
        let terms = self.likelihood.at(tau * tau);
        let centre = self.likelihood.centre();
        let (precision, prior_mean) = match self.priors.mu {
            PriorMu::Flat => (0.0, 0.0),
            PriorMu::Fixed { mu } => (1e30, mu - centre),
            PriorMu::Normal { mean, sd } => (1.0 / (sd * sd), mean - centre),
        };
        let (a, b) = (terms.a + precision, terms.b + precision * prior_mean);
        let m = b / a;
        let misfit = terms.c - 2.0 * m * terms.b + m * m * terms.a + precision * (m - prior_mean).powi(2);
        let log_density = self.priors.tau.log_density(tau) + x - 0.5 * (terms.log_det + a.ln() + misfit);
        At { log_density, tau, mean: centre + m, sd: a.sqrt().recip() }
    }

    /// Integrals of functions against the unnormalised density, each halved until both halves agree with the whole to 1e-9.
    fn integrals<const K: usize>(&self, (low, high): (f64, f64), f: &dyn Fn(&At) -> [f64; K]) -> [f64; K] {
        let panel = |low: f64, high: f64| {
            let mut sums = [0.0; K];
            for (node, weight) in &self.rule {
                let at = self.at(0.5 * (low + high) + 0.5 * (high - low) * node);
                let mass = 0.5 * (high - low) * weight * (at.log_density - self.peak).exp();
                sums.iter_mut().zip(f(&at)).for_each(|(sum, value)| *sum += mass * value);
            }
            sums
        };
        let count = ((high - low) / 0.25).ceil().max(1.0) as usize;
        let edge = |i: usize| low + (high - low) * i as f64 / count as f64;
        let mut pending: Vec<(f64, f64, [f64; K])> =
            (0..count).map(|i| (edge(i), edge(i + 1), panel(edge(i), edge(i + 1)))).collect();
        let scale = pending.iter().fold([0.0; K], |sum, part| std::array::from_fn(|k| sum[k] + part.2[k].abs()));
        let mut total = [0.0; K];
        while let Some((low, high, whole)) = pending.pop() {
            let middle = 0.5 * (low + high);
            let halves = [panel(low, middle), panel(middle, high)];
            let sum: [f64; K] = std::array::from_fn(|k| halves[0][k] + halves[1][k]);
            if high - low < 1e-3 || (0..K).all(|k| (sum[k] - whole[k]).abs() <= 1e-9 * scale[k]) {
                (0..K).for_each(|k| total[k] += sum[k]);
            } else {
                pending.push((low, middle, halves[0]));
                pending.push((middle, high, halves[1]));
            }
        }
        total
    }

    /// The largest error of the summaries of mu and tau, in posterior sds (where there is none, in quarters of the 95%
    /// interval).
    fn worst(&self, posterior: &Posterior) -> f64 {
        // About the means that were found, so that the squares do not cancel.
        let about = [&posterior.tau, &posterior.mu].map(|summary| summary.mean.or(summary.median).expect("a centre"));
        let [mass, tau, tau_squared, mu, mu_squared] = self.integrals((self.low, self.high), &|at| {
            let (tau, mu) = (at.tau - about[0], at.mean - about[1]);
            [1.0, tau, tau * tau, mu, mu * mu + at.sd * at.sd]
        });
        let (tau_mean, mu_mean) = (about[0] + tau / mass, about[1] + mu / mass);
        let tau_sd = (tau_squared / mass - (tau / mass).powi(2)).sqrt();
        let mu_sd = (mu_squared / mass - (mu / mass).powi(2)).sqrt();
        let mut worst = 0.0_f64;
        let mut check = |what: &str, error: f64| {
            let error = if error.is_nan() { f64::INFINITY } else { error.abs() };
            if error >= 1e-7 {
                println!("   {what} {error:e}");
            }
            worst = worst.max(error);
        };
        let unit = |summary: &Summary| {
            summary.sd.unwrap_or_else(|| 0.25 * (summary.q975.expect("a quantile") - summary.q025.expect("a quantile")))
        };
        let (tau_unit, mu_unit) = (unit(&posterior.tau), unit(&posterior.mu));
        for (got, want, unit) in [
            (posterior.tau.mean, tau_mean, tau_unit),
            (posterior.tau.sd, tau_sd, tau_unit),
            (posterior.mu.mean, mu_mean, mu_unit),
            (posterior.mu.sd, mu_sd, mu_unit),
        ] {
            if let Some(got) = got {
                check("a moment", (got - want) / unit);
            }
        }
        for (level, of) in LEVELS {
            let quantile = of(&posterior.tau).expect("a quantile of tau");
            let x = quantile.ln().clamp(self.low, self.high);
            let [below] = self.integrals((self.low, x), &|_| [1.0]);
            let density = (self.at(x).log_density - self.peak).exp() / quantile;
            check("a quantile of tau", (below - level * mass) / density / tau_unit);
            let quantile = of(&posterior.mu).expect("a quantile of mu");
            let [below, density] = self.integrals((self.low, self.high), &|at| {
                let z = (quantile - at.mean) / at.sd;
                [
                    0.5 * libm::erfc(-z * FRAC_1_SQRT_2),
                    (-0.5 * z * z).exp() / (2.0 * std::f64::consts::PI).sqrt() / at.sd,
                ]
            });
            check("a quantile of mu", (below - level * mass) / density / mu_unit);
        }
        worst
    }
}

/// Random numbers by a counter (splitmix64; Steele, Lea & Flood, OOPSLA 2014).
struct Random(u64);

impl Random {
    fn uniform(&mut self, low: f64, high: f64) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let unit = (z ^ (z >> 31)) as f64 / u64::MAX as f64;
        low + (high - low) * unit
    }

    fn log_uniform(&mut self, low: f64, high: f64) -> f64 {
        self.uniform(low.ln(), high.ln()).exp()
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[(self.uniform(0.0, from.len() as f64) as usize).min(from.len() - 1)]
    }

    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform(-0.5, 0.5)).sum()
    }

    /// Effects with standard errors about 1, alike or over some decades, with a true spread from none to 100.
    fn population(&mut self, most: f64) -> Vec<Component> {
        let count = self.log_uniform(1.0, most + 1.0) as usize;
        let decades = self.pick(&[0.0, 0.3, 1.0, 2.0]);
        let (mu, tau) = (self.pick(&[0.0, 0.5, 100.0]), self.pick(&[0.0, 0.1, 1.0, 100.0]));
        (0..count)
            .map(|_| {
                let lambda = self.log_uniform(10_f64.powf(-decades), 10_f64.powf(decades));
                Component { lambda, a: 1.0, b: mu + (lambda + tau * tau).sqrt() * self.normal() }
            })
            .collect()
    }

    fn prior_mu(&mut self) -> PriorMu {
        let sd = self.log_uniform(1e-3, 1e3);
        let mean = self.uniform(-2.0, 2.0) * sd.max(1.0);
        self.pick(&[PriorMu::Flat, PriorMu::Normal { mean, sd }])
    }

    /// A prior of tau with a scale from 1e-12 to 1e6 standard errors.
    fn prior_tau(&mut self) -> PriorTau {
        let scale = self.log_uniform(1e-12, 1e6);
        let df = self.pick(&[0.5, 1.5, 2.5, 4.0, 30.0, 1e6]);
        let shape = self.pick(&[0.25, 1.0, 10.0]);
        let sd = self.pick(&[0.01, 0.5, 3.0]);
        self.pick(&[
            PriorTau::HalfNormal { scale },
            PriorTau::HalfCauchy { scale },
            PriorTau::HalfT { df, scale },
            PriorTau::DuMouchel { scale },
            PriorTau::UniformShrinkage { scale },
            PriorTau::InverseGamma { shape, scale: scale * scale },
            PriorTau::LogNormal { mean: scale.ln(), sd },
        ])
    }
}

fn sketched(components: &[Component]) -> SketchLikelihood {
    let mut sketch = Sketch::new();
    sketch.add(components).expect("in range");
    SketchLikelihood::new(&sketch)
}

/// The smallest exponent p of the posterior's tail `tau^-p`, by the theory.
fn tail_exponent(priors: &Priors, effects: usize) -> f64 {
    let likelihood = effects as f64 - if priors.mu == PriorMu::Flat { 1.0 } else { 0.0 };
    likelihood
        + match priors.tau {
            PriorTau::Flat => 0.0,
            PriorTau::Fixed { .. } | PriorTau::HalfNormal { .. } | PriorTau::LogNormal { .. } => f64::INFINITY,
            PriorTau::HalfCauchy { .. } | PriorTau::DuMouchel { .. } => 2.0,
            PriorTau::UniformShrinkage { .. } => 3.0,
            PriorTau::InverseGamma { shape, .. } => 2.0 * shape + 1.0,
            PriorTau::HalfT { df, .. } => df + 1.0,
        }
}

/// Every figure that exists is there and finite, and no other.
fn assert_sound(posterior: &Posterior, priors: &Priors, effects: usize, label: &str) {
    let p = tail_exponent(priors, effects);
    for (summary, is_mu) in [(&posterior.mu, true), (&posterior.tau, false)] {
        let always = is_mu && priors.mu != PriorMu::Flat;
        assert_eq!(summary.mean.is_some(), always || p > 2.0, "{label}: {posterior:?}");
        assert_eq!(summary.sd.is_some(), always || p > 3.0, "{label}: {posterior:?}");
        let quantiles = [summary.q025, summary.q25, summary.median, summary.q75, summary.q975];
        let quantiles = quantiles.map(|q| q.unwrap_or(f64::NAN));
        assert!(quantiles.iter().all(|q| q.is_finite()) && quantiles.is_sorted(), "{label}: {posterior:?}");
        assert!(summary.mean.is_none_or(f64::is_finite) && summary.sd.is_none_or(f64::is_finite), "{label}");
    }
    let is_proper = priors.mu != PriorMu::Flat && priors.tau != PriorTau::Flat;
    assert_eq!(posterior.log_evidence.is_some_and(f64::is_finite), is_proper, "{label}: {posterior:?}");
    assert!(posterior.correlation.is_none_or(f64::is_finite), "{label}: {posterior:?}");
    let total: f64 = posterior.nodes.iter().map(|node| node.weight).sum();
    assert!((total - 1.0).abs() < 1e-12, "{label}: {total}");
}

/// Random fits, compared with direct quadrature or only looked at: the largest error by family.
fn sweep(fits: usize, most_effects: f64, seed: u64, is_compared: bool) -> std::collections::BTreeMap<String, f64> {
    let mut random = Random(seed);
    let mut worst = std::collections::BTreeMap::new();
    for fit in 0..fits {
        let components = random.population(most_effects);
        let priors = Priors { mu: random.prior_mu(), tau: random.prior_tau(), ..Priors::default() };
        let label = format!("fit {fit}: {} effects, mu {}, tau {}", components.len(), priors.mu, priors.tau);
        let likelihood = sketched(&components);
        let posterior = quadrature(&likelihood, &priors);
        if tail_exponent(&priors, components.len()) <= 1.0 {
            assert_eq!(posterior, Err(PosteriorError::Improper { effects: components.len() as u64 }), "{label}");
            continue;
        }
        let posterior = posterior.unwrap_or_else(|error| panic!("{label}: {error}"));
        assert_sound(&posterior, &priors, components.len(), &label);
        if is_compared {
            let error = if components.len() <= 100 {
                Reference::new(&DirectLikelihood::new(components), priors).worst(&posterior)
            } else {
                Reference::new(&likelihood, priors).worst(&posterior)
            };
            println!("{label}: {error:.1e}");
            let family = priors.tau.to_string().split(':').next().unwrap_or_default().to_owned();
            let entry = worst.entry(family).or_insert(0.0_f64);
            *entry = entry.max(error);
        }
    }
    worst
}

#[test]
fn every_prior_at_every_scale_gives_what_direct_quadrature_gives() {
    let worst = sweep(60, 50.0, 1, true);
    println!("{worst:?}");
    assert!(worst.values().all(|&error| error < 1e-6), "{worst:?}");
}

#[test]
#[ignore = "takes some minutes"]
fn every_prior_at_every_scale_gives_what_direct_quadrature_gives_for_up_to_5_000_effects() {
    let worst = sweep(1_000, 5_000.0, 3, true);
    println!("{worst:?}");
    assert!(worst.values().all(|&error| error < 1e-6), "{worst:?}");
}

#[test]
fn no_figure_that_exists_is_null() {
    sweep(5_000, 200.0, 2, false);
}
