//! The posterior of (mu, tau, icc) against quadrature over the likelihood of the blocks themselves, which are decomposed at every
//! icc that it visits: neither sketches nor interpolation have a part in it.

use std::path::Path;

use shrinkd_model::{
    Block, IccLikelihood, LARGEST_ICC, Member, Posterior, PriorIcc, Priors, Sketches, Summary, quadrature_with_icc,
};

use crate::random::Random;
use crate::reference::block;

fn population(name: &str) -> Vec<Block> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/alike").join(name).with_extension("ndjson");
    let events = std::fs::read_to_string(path).expect("readable");
    events.lines().map(|line| block(&serde_json::from_str(line).expect("JSON"))).collect()
}

/// Blocks of one to four variants whose true effects have this icc.
fn simulated(blocks: usize, tau: f64, icc: f64, seed: u64) -> Vec<Block> {
    let mut random = Random(seed);
    let block = |_| {
        let n = 1 + (4.0 * random.uniform()) as usize;
        let se = 0.5 + random.uniform();
        let (control, idea) = (se * random.normal(), tau * icc.sqrt() * random.normal());
        let d: Vec<f64> = (0..n).map(|_| se * se * (0.5 + random.uniform())).collect();
        let effect =
            |d: &f64| 0.3 + idea + control + tau * (1.0 - icc).sqrt() * random.normal() + d.sqrt() * random.normal();
        let effects = d.iter().map(effect).collect();
        Block::shared_control(effects, d, se * se).expect("a block")
    };
    (0..blocks).map(block).collect()
}

fn sketches(blocks: &[Block]) -> Sketches {
    let members: Vec<Member> = blocks.iter().map(|block| Member::new(block.clone(), 0).expect("a member")).collect();
    Sketches::of_members(&members, 1).expect("in range")
}

fn with_icc(mu: &str, tau: &str, icc: PriorIcc) -> Priors {
    Priors { mu: mu.parse().expect("a prior"), tau: tau.parse().expect("a prior"), icc }
}

fn posterior(blocks: &[Block], priors: &Priors) -> Posterior {
    let likelihood = IccLikelihood::new(&sketches(blocks)).expect("several variants");
    quadrature_with_icc(&likelihood, priors).expect("proper").0
}

/// Nodes and weights of Legendre panels.
fn legendre(low: f64, high: f64, panels: usize) -> Vec<(f64, f64)> {
    const X: [f64; 5] =
        [0.1488743389816312, 0.4333953941292472, 0.6794095682990244, 0.8650633666889845, 0.9739065285171717];
    const W: [f64; 5] =
        [0.2955242247147529, 0.2692667193099963, 0.219086362515982, 0.1494513491505806, 0.0666713443086881];
    let half = 0.5 * (high - low) / panels as f64;
    let centre = |i: usize| low + half * (2 * i + 1) as f64;
    let at = |i: usize| {
        X.iter().zip(W).flat_map(move |(x, w)| [(centre(i) - half * x, half * w), (centre(i) + half * x, half * w)])
    };
    (0..panels).flat_map(at).collect()
}

/// Weight, mu's mean and variance, tau and icc on a grid.
struct Direct {
    points: Vec<[f64; 5]>,
}

impl Direct {
    fn new(blocks: &[Block], priors: &Priors, icc_panels: usize, x: (f64, f64, usize)) -> Direct {
        let mut points = Vec::new();
        let at_zero = blocks.iter().flat_map(|b| b.components().expect("components"));
        let scale = at_zero.map(|c| c.lambda).fold(f64::INFINITY, f64::min).sqrt();
        let tau_nodes = legendre(x.0, x.1, x.2);
        for (s, weight) in legendre(0.0, ((1.0 + 3.0 * LARGEST_ICC) / (1.0 - LARGEST_ICC)).ln(), icc_panels) {
            let icc = s.exp_m1() / (s.exp() + 3.0);
            let slope = 0.25 * (1.0 - icc) * (1.0 + 3.0 * icc);
            let components: Vec<_> = blocks.iter().flat_map(|b| b.components_at(icc).expect("components")).collect();
            let log_det: f64 = blocks
                .iter()
                .map(|b| (b.len() as f64 - 1.0) * (1.0 - icc).ln() + (1.0 + (b.len() as f64 - 1.0) * icc).ln())
                .sum();
            let log_prior_icc = match priors.icc {
                PriorIcc::Beta { a, b } => (a - 1.0) * icc.ln() + (b - 1.0) * (1.0 - icc).ln(),
                _ => 0.0,
            };
            for (x, x_weight) in &tau_nodes {
                let tau = scale * x.sinh();
                let (mut l, mut a, mut b, mut c) = (log_det, 0.0, 0.0, 0.0);
                for component in &components {
                    let v = component.lambda + tau * tau;
                    l += v.ln();
                    a += component.a * component.a / v;
                    b += component.a * component.b / v;
                    c += component.b * component.b / v;
                }
                let (m0, p0) = match priors.mu {
                    shrinkd_model::PriorMu::Normal { mean, sd } => (mean, 1.0 / (sd * sd)),
                    _ => (0.0, 0.0),
                };
                let (a, b, c) = (a + p0, b + p0 * m0, c + p0 * m0 * m0);
                let log = -0.5 * (l + a.ln() + c - b * b / a) + priors.tau.log_density(tau) + log_prior_icc;
                points.push([log + (weight * slope * x_weight * x.cosh()).ln(), b / a, 1.0 / a, tau, icc]);
            }
        }
        let peak = points.iter().map(|p| p[0]).fold(f64::NEG_INFINITY, f64::max);
        points.iter_mut().for_each(|p| p[0] = (p[0] - peak).exp());
        let total: f64 = points.iter().map(|p| p[0]).sum();
        points.iter_mut().for_each(|p| p[0] /= total);
        Direct { points }
    }

    fn mean(&self, f: impl Fn(&[f64; 5]) -> f64) -> f64 {
        self.points.iter().map(|p| p[0] * f(p)).sum()
    }

    /// Mean and sd of mu, tau and icc.
    fn moments(&self) -> [(f64, f64); 3] {
        let mu = self.mean(|p| p[1]);
        let mu_sd = self.mean(|p| p[2] + (p[1] - mu).powi(2)).sqrt();
        let of = |i: usize| {
            let mean = self.mean(|p| p[i]);
            (mean, self.mean(|p| (p[i] - mean).powi(2)).sqrt())
        };
        [(mu, mu_sd), of(3), of(4)]
    }
}

/// Asserts that means and sds are those of the grid, in posterior sds.
fn assert_near(name: &str, posterior: &Posterior, direct: &Direct, tolerance: f64) {
    let icc = posterior.icc.expect("it is not known");
    let summaries: [(&str, &Summary); 3] = [("mu", &posterior.mu), ("tau", &posterior.tau), ("icc", &icc.icc)];
    for ((what, summary), (mean, sd)) in summaries.into_iter().zip(direct.moments()) {
        let apart = ((summary.mean.expect("a mean") - mean) / sd).abs();
        let sds_apart = (summary.sd.expect("an sd") / sd - 1.0).abs();
        eprintln!("{name} {what}: {apart:.1e} {sds_apart:.1e}");
        assert!(apart < tolerance && sds_apart < tolerance, "{name}, {what}: {summary:?} for {mean} +- {sd}");
    }
}

#[test]
fn means_and_sds_are_those_of_quadrature_over_the_blocks() {
    let flat = with_icc("flat", "flat", PriorIcc::Uniform);
    for name in ["konstantopoulos2011", "experiment_level_small"] {
        let blocks = population(name);
        let direct = Direct::new(&blocks, &flat, 12, (0.0, 12.0, 36));
        assert_near(name, &posterior(&blocks, &flat), &direct, 5e-6);
    }
}

#[test]
fn so_they_are_of_simulated_populations() {
    for (k, tau, icc) in [(10, 1.0, 0.5), (50, 0.5, 0.0), (50, 1.0, 0.8), (400, 0.7, 0.5)] {
        let blocks = simulated(k, tau, icc, k as u64);
        let priors = with_icc("normal:0,2", "half-normal:1", PriorIcc::Uniform);
        let direct = Direct::new(&blocks, &priors, 16, (0.0, 5.0, 24));
        assert_near(&format!("{k} {tau} {icc}"), &posterior(&blocks, &priors), &direct, 5e-6);
    }
}
