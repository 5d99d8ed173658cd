//! Write amplification: rows written per effect while one population grows, and the distance of published estimates from exact.
//! It uses the decisions and estimates of the product, without a database.

use shrinkd::config::PopulationSettings;
use shrinkd::estimate::BlockEstimates;
use shrinkd::refit::{Fits, Judged};
use shrinkd::row::{BlockToEstimate, FitStatus, PublishedFit};
use shrinkd::simulate::Draws;
use shrinkd_core::{ControlVarianceSource, Measured, PopulationName, Properties, ResultKey, Scale};
use shrinkd_model::{
    Block, BlockPosterior, Correlation, Direction, Member, Priors, Sketches, available_threads, map_chunks,
};

use crate::Outcome;
use crate::report::{Table, heading, progress};

/// Effects between two refits.
const REFIT: usize = 100;
/// The defaults of the configuration.
const TOLERANCE: f64 = 0.01;
const MIN_EXPERIMENTS: u64 = 5;

const MU: f64 = 0.5;
const TAU: f64 = 1.0;

/// How many blocks a thread estimates at a time.
const CHUNK: usize = 256;

/// A block and its published estimates.
struct Row {
    block: BlockToEstimate,
    /// Posterior means, one for each variant; empty in a cold start.
    published: Vec<f64>,
}

/// The largest distance from exact, in posterior sds, and the largest share that any is of its bound.
#[derive(Debug, Clone, Copy, Default)]
struct Distance {
    sds: f64,
    of_bound: f64,
}

#[derive(Default)]
struct History {
    rows_written: usize,
    publishes: usize,
    /// Of estimates that a refit leaves in place.
    standing: Distance,
    /// Of estimates that a publish replaces.
    replaced: Distance,
}

pub fn measure(effects: usize) -> Outcome<()> {
    heading(&format!(
        "Write amplification: {effects} effects in one population, refit every {REFIT}, tolerance {TOLERANCE}"
    ));
    let mut table = Table::new(&[
        "history",
        "publishes",
        "rows written/effect",
        "largest distance, sds",
        "of its bound",
        "just before a publish, sds",
        "of its bound",
    ]);
    for (variants, se) in [(1, 1.0), (1, 3.0), (3, 1.0), (3, 3.0)] {
        progress(&format!("amplification: {variants} variant(s), se = {se} tau"));
        let history = simulate(effects, variants, se * TAU)?;
        let amplification = history.rows_written as f64 / effects as f64;
        let aim = if se == 1.0 { " (aim 4)" } else { "" };
        table.row(&[
            &format!("{variants} variant(s), se = {se} tau"),
            &history.publishes.to_string(),
            &format!("{amplification:.2}{aim}"),
            &format!("{:.4}", history.standing.sds),
            &format!("{:.2}", history.standing.of_bound),
            &format!("{:.4}", history.replaced.sds),
            &format!("{:.2}", history.replaced.of_bound),
        ]);
    }
    table.print();
    println!(
        "  the bound of a row is tolerance (sqrt(n) + sqrt(r'V^-1 r)), for n = 1 tolerance (1 + |z|); distances at every refit"
    );
    Ok(())
}

fn simulate(effects: usize, variants: usize, se: f64) -> Outcome<History> {
    let key = ResultKey { metric: "metric".to_owned(), segment: "all".to_owned(), scale: Scale::Absolute };
    let population = PopulationName::from(key);
    let settings = PopulationSettings {
        priors: Priors::default(),
        min_experiments: MIN_EXPERIMENTS,
        direction: Direction::Increase,
    };
    let mut draws = Draws::new(1, variants as u64);
    let mut history = History::default();
    let mut rows: Vec<Row> = Vec::new();
    let mut sketches = Sketches::default();
    let mut judged: Option<Judged> = None;
    let mut fit = PublishedFit::none();
    let mut until_refit = 0;
    while rows.len() * variants < effects {
        let block = block(variants, se, &mut draws)?;
        let names = (0..variants).map(|variant| format!("v{variant}")).collect();
        sketches.add(&Member::new(block.clone(), 0)?)?;
        let raw_variances = (0..block.len()).map(|i| block.sampling_variance(i)).collect();
        let measured = Measured {
            variants: names,
            block,
            raw_variances,
            is_continuity_corrected: false,
            control_variance_source: ControlVarianceSource::Arms,
        };
        let block = BlockToEstimate {
            population: population.clone(),
            experiment_id: format!("exp-{:06}", rows.len()),
            revision: 1,
            measured,
            properties: Properties::default(),
            shipped_variant: None,
        };
        let published = estimate(&block, &fit);
        rows.push(Row { block, published });
        history.rows_written += variants;
        until_refit += variants;
        if until_refit < REFIT {
            continue;
        }
        until_refit -= REFIT;
        let refitted = Fits::new(&sketches, rows.len() as i64, &settings);
        let current = PublishedFit {
            fit_id: fit.fit_id + 1,
            status: refitted.judged.status,
            direction: Some(settings.direction),
            nodes: refitted.fits[Correlation::Modelled as usize].nodes.clone(),
            naive_nodes: refitted.fits[Correlation::Ignored as usize].nodes.clone(),
        };
        let largest = distance(&rows, &current, &refitted.judged);
        if !refitted.judged.has_moved(judged.as_ref(), TOLERANCE) {
            history.standing = history.standing.max(largest);
            continue;
        }
        history.replaced = history.replaced.max(largest);
        fit = current;
        judged = Some(refitted.judged);
        history.publishes += 1;
        history.rows_written += rows.len() * variants;
        publish(&mut rows, &fit);
    }
    Ok(history)
}

/// A block whose effects all have this standard error. With several variants, the control contributes half of the variance.
fn block(variants: usize, se: f64, draws: &mut Draws) -> Outcome<Block> {
    let control_variance = if variants > 1 { se * se / 2.0 } else { 0.0 };
    let variance = se * se - control_variance;
    let control_error = draws.normal(0.0, control_variance.sqrt());
    let effects = (0..variants).map(|_| draws.normal(MU, (TAU * TAU + variance).sqrt()) - control_error).collect();
    Ok(Block::shared_control(effects, vec![variance; variants], control_variance)?)
}

/// The published posterior means of a block.
fn estimate(block: &BlockToEstimate, fit: &PublishedFit) -> Vec<f64> {
    let estimates = BlockEstimates::new(block, 0, fit);
    estimates.rows.iter().filter_map(|row| row.shrunk.map(|shrunk| shrunk.posterior_mean)).collect()
}

fn publish(rows: &mut [Row], fit: &PublishedFit) {
    let estimated = map_chunks(rows, CHUNK, available_threads(), |rows| {
        rows.iter().map(|row| estimate(&row.block, fit)).collect::<Vec<_>>()
    });
    for (row, published) in rows.iter_mut().zip(estimated.into_iter().flatten()) {
        row.published = published;
    }
}

/// The distance of the published rows from those of the current fit. Rows of a cold start are no estimates, and are skipped.
fn distance(rows: &[Row], fit: &PublishedFit, judged: &Judged) -> Distance {
    if fit.status != FitStatus::Fitted {
        return Distance::default();
    }
    let chunks = map_chunks(rows, CHUNK, available_threads(), |rows| {
        let distances = rows.iter().filter(|row| !row.published.is_empty()).map(|row| {
            let block = &row.block.measured.block;
            let posterior = BlockPosterior::new(block, &fit.nodes);
            let bound = judged.furthest_from_exact(TOLERANCE, block);
            let distance = |(i, published): (usize, &f64)| {
                let exact = posterior.estimate(i);
                (published - exact.mean).abs() / exact.sd
            };
            let sds = row.published.iter().enumerate().map(distance).fold(0.0, f64::max);
            Distance { sds, of_bound: sds / bound }
        });
        distances.fold(Distance::default(), Distance::max)
    });
    chunks.into_iter().fold(Distance::default(), Distance::max)
}

impl Distance {
    fn max(self, other: Distance) -> Distance {
        Distance { sds: self.sds.max(other.sds), of_bound: self.of_bound.max(other.of_bound) }
    }
}
