//! Measurements with hostile numbers to blocks, components, sketches, fits and estimates.

use shrinkd_core::{
    Arm, ArmStatistics, Arms, Effects, Measured, Measurement, Scale, Uncertainty, measure, pack, unpack,
};
use shrinkd_model::{
    Block, BlockPosterior, Correlation, Covariance, Fit, Member, Method, Node, PriorMu, PriorTau, Priors,
    SketchLikelihood, Sketches,
};

use super::choices::Choices;
use super::decode::check_refusal;

pub fn holds(bytes: &[u8]) {
    check_sketches(&members(&mut Choices::new(bytes)));
}

/// The same blocks as a population: it has a posterior or a reason why not. Too slow for a fuzz target.
pub fn population_holds(bytes: &[u8]) {
    let choices = &mut Choices::new(bytes);
    let members = members(choices);
    check_fit(&members, choices);
}

fn members(choices: &mut Choices<'_>) -> Vec<Member> {
    let mut members = Vec::new();
    for _ in 0..1 + choices.below(4) {
        let scale = choices.pick(&Scale::ALL);
        match measure(scale, &measurement(choices)) {
            Ok(measured) => {
                check_estimates(&measured.block, &[node(choices), node(choices)]);
                members.push(check_block(measured, choices));
            }
            Err(refusal) => check_refusal(&refusal),
        }
    }
    members
}

fn measurement(choices: &mut Choices<'_>) -> Measurement {
    let n = if choices.one_in(32) { choices.below(200) } else { 1 + choices.below(6) };
    let variants: Vec<String> = (0..n).map(|i| format!("v{i:03}")).collect();
    let kind = choices.byte() % 4;
    if kind == 0 {
        let treatments = variants.into_iter().map(|variant| Arm { variant, statistics: statistics(choices) }).collect();
        let control = Some(Arm { variant: "control".to_owned(), statistics: statistics(choices) });
        return Measurement::Arms(Arms { control, treatments });
    }
    // Half of the numbers of a block are of one unit, as they are in life; the others of any.
    let unit = choices.plausible();
    let number = |choices: &mut Choices<'_>| {
        if choices.one_in(8) { choices.number() } else { choices.modest() * unit }
    };
    let estimates = (0..n).map(|_| number(choices)).collect();
    let uncertainty = match kind {
        1 => Uncertainty::Covariance { matrix: covariance(n.min(24), unit * unit, choices) },
        _ => {
            // Variances that repeat, or nearly do, are the hard ones to decompose.
            let first = number(choices).abs() * unit;
            let variance = |choices: &mut Choices<'_>| match choices.byte() % 4 {
                0 => first,
                1 => first * (1.0 + f64::from(choices.byte()) * f64::EPSILON),
                2 => number(choices).abs() * unit,
                _ => number(choices),
            };
            let control_variance = if choices.one_in(4) { 0.0 } else { variance(choices) };
            let share = choices.pick(&[1.0, 0.0, 1e-12, 1e6]);
            let variances = (0..n).map(|_| control_variance * share + variance(choices)).collect();
            match choices.byte() % 4 {
                0 => Uncertainty::ScaledVariances { variances, control_variance },
                1 => Uncertainty::TreatmentVariances { variances, control_variance },
                _ => Uncertainty::SharedControl { variances, control_variance },
            }
        }
    };
    let mut effects = Effects { variants, estimates, uncertainty };
    if kind == 1 {
        effects.variants.truncate(24);
        effects.estimates.truncate(24);
    }
    Measurement::Effects(effects)
}

fn statistics(choices: &mut Choices<'_>) -> ArmStatistics {
    let n = choices.pick(&[2, 3, 10, 1_000, 1_000_000, 1 << 53, (1 << 53) + 1, i64::MAX as u64, 0, 1]);
    if choices.one_in(3) {
        return ArmStatistics::Successes { n, successes: choices.pick(&[0, 1, 2, 40, n / 3, n - n / 4, n]).min(n) };
    }
    let mean = if choices.one_in(4) { choices.number() } else { 100.0 * choices.modest() };
    if choices.one_in(4) {
        ArmStatistics::Summary { n: Some(n), mean, standard_error: choices.number() }
    } else {
        let variance = if choices.one_in(4) { choices.number() } else { choices.modest().abs() };
        ArmStatistics::Moments { n, mean, m2: n.saturating_sub(1) as f64 * variance }
    }
}

/// `L L'` with few or many directions, so that it may be singular or nearly so, and at times a number that spoils it.
fn covariance(n: usize, scale: f64, choices: &mut Choices<'_>) -> Vec<f64> {
    let directions = choices.below(n + 1);
    let factor: Vec<f64> = (0..n * directions).map(|_| choices.modest()).collect();
    let ridge = choices.pick(&[1.0, 0.0, 1e-15, 1e-12, 1e-6]);
    let mut matrix = vec![0.0; n * n];
    for i in 0..n {
        for j in 0..n {
            let product: f64 = (0..directions).map(|k| factor[i * directions + k] * factor[j * directions + k]).sum();
            matrix[i * n + j] = scale * (product + if i == j { ridge } else { 0.0 });
        }
    }
    if choices.one_in(8) && !matrix.is_empty() {
        let at = choices.below(matrix.len());
        matrix[at] = choices.number();
    }
    matrix
}

/// A point of a posterior as a fit could have it.
fn node(choices: &mut Choices<'_>) -> Node {
    let tau = if choices.one_in(4) { 0.0 } else { choices.plausible() };
    Node { weight: 0.5, tau, icc: 0.0, mu_mean: choices.modest() * tau, mu_variance: choices.plausible() }
}

/// The components are the block seen from other axes: as many, with the same trace and the same lengths, and the same to
/// the last bit when the block comes back from a store.
fn check_block(measured: Measured, choices: &mut Choices<'_>) -> Member {
    let Measured { block, .. } = measured;
    let n = block.len();
    assert_eq!(unpack::<Block>("block", &pack(&block)).as_ref(), Ok(&block));
    let member = Member::new(block.clone(), choices.below(200)).expect("what is measured fits a population");
    let components = member.own_components();
    assert_eq!(components.len(), n);
    assert!(components.iter().all(|c| c.lambda > 0.0 && c.lambda.is_finite() && c.a.is_finite() && c.b.is_finite()));
    let near = |sum: f64, expected: f64, what: &str| {
        let error = (sum - expected).abs();
        assert!(error <= 1e-9 * expected.abs(), "{what}: {sum:e}, not {expected:e}, of {block:?}");
    };
    near(components.iter().map(|c| c.a * c.a).sum(), n as f64, "the length of 1");
    near(components.iter().map(|c| c.lambda).sum(), (0..n).map(|i| block.sampling_variance(i)).sum(), "the trace");
    // In units of the largest effect, but for effects so small that a float has not all of its digits left.
    let scale = block.effects().iter().fold(1e-290, |scale: f64, effect| scale.max(effect.abs()));
    let square = |x: f64| (x / scale) * (x / scale);
    near(
        1.0 + components.iter().map(|c| square(c.b)).sum::<f64>(),
        1.0 + block.effects().iter().map(|&effect| square(effect)).sum::<f64>(),
        "the length of the effects",
    );
    member
}

fn check_sketches(members: &[Member]) {
    let sum = Sketches::of_members(members, 1).expect("members fit");
    let mut backwards = Sketches::default();
    members.iter().rev().for_each(|member| backwards.add(member).expect("members fit"));
    assert_eq!(sum, backwards, "the order of blocks cannot matter");
    let effects: usize = members.iter().map(|member| member.block().len()).sum();
    assert_eq!(sum.of(Correlation::Modelled).effects(), effects as u64);
    members.iter().for_each(|member| backwards.subtract(member).expect("members fit"));
    assert_eq!(backwards, Sketches::default(), "what is added and subtracted leaves no trace");
}

/// Estimates are finite, shrinkage factors and probabilities between 0 and 1, intervals in order.
fn check_estimates(block: &Block, nodes: &[Node]) {
    let posterior = BlockPosterior::new(block, nodes);
    for i in 0..block.len() {
        let estimate = posterior.estimate(i);
        let context = || format!("{estimate:?} of effect {i} of {block:?} at {nodes:?}");
        assert!(estimate.mean.is_finite() && estimate.sd.is_finite() && estimate.sd >= 0.0, "{}", context());
        let shares = [estimate.prob_positive, estimate.shrinkage_factor, estimate.lfsr()];
        assert!(shares.iter().all(|share| (-1e-12..=1.0 + 1e-12).contains(share)), "{}", context());
        let intervals = posterior.intervals(i, &estimate);
        let ends = [intervals.ci95.0, intervals.ci80.0, intervals.ci80.1, intervals.ci95.1];
        let slack = 1e-9 * estimate.sd + 4.0 * f64::EPSILON * estimate.mean.abs();
        assert!(ends.iter().all(|end| end.is_finite()), "{intervals:?} of {}", context());
        assert!(ends.windows(2).all(|pair| pair[0] <= pair[1] + slack), "{intervals:?} of {}", context());
    }
    if let Some(shift) = posterior.control_shift {
        assert!(shift.mean.is_finite() && shift.sd.is_finite(), "{shift:?} of {block:?} at {nodes:?}");
        assert!(matches!(block.covariance(), Covariance::SharedControl { .. }));
    }
}

/// Where there is a posterior its figures are finite.
fn check_fit(members: &[Member], choices: &mut Choices<'_>) {
    let sketches = Sketches::of_members(members, 1).expect("members fit");
    let likelihood = SketchLikelihood::new(&sketches.of(Correlation::Modelled));
    let scale = choices.plausible();
    let normal = PriorMu::Normal { mean: 0.0, sd: scale };
    let (mu, tau) = match choices.byte() % 9 {
        0 => (PriorMu::Flat, PriorTau::Flat),
        1 => (normal, PriorTau::HalfNormal { scale }),
        2 => (PriorMu::Flat, PriorTau::HalfCauchy { scale }),
        3 => (PriorMu::Flat, PriorTau::DuMouchel { scale }),
        4 => (normal, PriorTau::UniformShrinkage { scale }),
        5 => (PriorMu::Flat, PriorTau::InverseGamma { shape: 0.5, scale }),
        6 => (normal, PriorTau::LogNormal { mean: scale.ln(), sd: 1.0 }),
        7 => (PriorMu::Fixed { mu: scale }, PriorTau::HalfT { df: 4.0, scale }),
        _ => (PriorMu::Fixed { mu: scale }, PriorTau::Fixed { tau: 0.0 }),
    };
    let priors = Priors { mu, tau, ..Priors::default() };
    let method = choices.pick(&[
        Method::Quadrature,
        Method::Laplace,
        Method::Variational,
        Method::Reml,
        Method::Ml,
        Method::Dl,
        Method::Pm,
    ]);
    let Ok(fit) = Fit::new(&likelihood, &priors, method) else { return };
    for summary in [fit.posterior.mu, fit.posterior.tau] {
        let figures = [summary.mean, summary.sd, summary.q025, summary.q25, summary.median, summary.q75, summary.q975];
        assert!(figures.iter().flatten().all(|figure| figure.is_finite()), "{summary:?} of {members:?}, {priors:?}");
    }
    if let (false, Some(member)) = (fit.nodes.is_empty(), members.first()) {
        check_estimates(member.block(), &fit.nodes);
    }
}
