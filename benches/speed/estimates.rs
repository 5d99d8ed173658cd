//! Shrunken estimates from blocks in memory.

use shrinkd_model::{Block, BlockPosterior, Covariance, Direction, Estimate, Node, prob_best};

use crate::stopwatch::{Aim, Baseline, Item, Stopwatch};
use crate::{data, fit};

const EFFECTS: usize = 9_999;
const CONTESTS: usize = 100;
/// Variants of a block with a dense covariance.
const DENSE: usize = 8;

const AIM_ESTIMATE: f64 = 1e-6;
const AIM_INTERVALS: f64 = 5e-6;
const AIM_BEST: f64 = 50e-6;
const AIM_BEST_DENSE: f64 = 2e-3;

pub fn measure(stopwatch: &mut Stopwatch) {
    for variants in [1, 3] {
        let blocks = data::blocks(EFFECTS / variants, variants);
        let (posterior, nodes) = fit::condensed(&data::sketch(&data::components(&blocks)));
        stopwatch.heading(&format!("an effect of a block of {variants}, averaged over {} nodes", nodes.len()));
        let (mu, tau) = (posterior.mu.mean.expect("a mean"), posterior.tau.mean.expect("a mean"));
        let item = Item { what: &format!("plug-in mean alone, {variants}"), count: EFFECTS, aim: Aim::None };
        let seconds = stopwatch.time(&item, || (), |()| plug_in_means(&blocks, mu, tau));
        let baseline = Baseline { name: "plug-in mean", seconds };

        let what = format!("mean, sd, P(theta > 0), {variants}");
        let item = Item { what: &what, count: EFFECTS, aim: Aim::SecondsAnd(AIM_ESTIMATE, &baseline) };
        stopwatch.time(&item, || (), |()| blocks.iter().map(|block| estimates(block, &nodes)).sum::<f64>());
        let what = format!("the same and both intervals, {variants}");
        let item = Item { what: &what, count: EFFECTS, aim: Aim::SecondsAnd(AIM_INTERVALS, &baseline) };
        stopwatch.time(&item, || (), |()| blocks.iter().map(|block| intervals(block, &nodes)).sum::<f64>());
        if variants == 3 {
            let item = Item { what: "P(best), a block of 3", count: CONTESTS, aim: Aim::Seconds(AIM_BEST) };
            let best = |block| prob_best(block, &nodes, Direction::Increase).map_or(f64::NAN, |best| best.control);
            let shared = stopwatch.time(&item, || (), |()| blocks[..CONTESTS].iter().map(best).sum::<f64>());
            let dense: Vec<Block> = data::blocks(CONTESTS, DENSE).iter().map(as_dense).collect();
            let baseline = Baseline { name: "P(best), a block of 3", seconds: shared };
            let item = Item {
                what: "P(best), a dense block of 8",
                count: CONTESTS,
                aim: Aim::SecondsAnd(AIM_BEST_DENSE, &baseline),
            };
            stopwatch.time(&item, || (), |()| dense.iter().map(best).sum::<f64>());
        }
    }
}

/// The same block, with its covariance as a matrix.
fn as_dense(block: &Block) -> Block {
    let n = block.len();
    let matrix = (0..n * n).map(|at| block.sampling_covariance(at / n, at % n)).collect();
    Block::dense(block.effects().to_vec(), matrix).expect("a block")
}

/// Shrinks every effect on its own towards a given mu, as the simplest service would.
fn plug_in_means(blocks: &[Block], mu: f64, tau: f64) -> f64 {
    let mut sum = 0.0;
    for block in blocks {
        let Covariance::SharedControl { treatment_variances, control_variance, .. } = block.covariance() else {
            continue;
        };
        for (effect, d) in block.effects().iter().zip(treatment_variances) {
            sum += mu + tau * tau / (d + control_variance + tau * tau) * (effect - mu);
        }
    }
    sum
}

fn estimates(block: &Block, nodes: &[Node]) -> f64 {
    let posterior = BlockPosterior::new(block, nodes);
    let total = |Estimate { mean, sd, prob_positive, .. }| mean + sd + prob_positive;
    (0..block.len()).map(|i| total(posterior.estimate(i))).sum()
}

fn intervals(block: &Block, nodes: &[Node]) -> f64 {
    let posterior = BlockPosterior::new(block, nodes);
    let both = |i| {
        let estimate = posterior.estimate(i);
        let intervals = posterior.intervals(i, &estimate);
        estimate.prob_positive + intervals.ci80.0 + intervals.ci80.1 + intervals.ci95.0 + intervals.ci95.1
    };
    (0..block.len()).map(both).sum()
}
