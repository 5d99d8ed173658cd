//! A rebuild: recomputes everything that follows from the reported statistics, with this build and this configuration.
//!
//! First, one transaction assigns every block to its population, sums up its statistics, and writes the estimates of the blocks
//! that changed. Readers see none of it before the commit, and a rebuild that fails leaves the store as it was. Then every
//! population is fitted and published, while other workers may be running.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shrinkd_core::{ExperimentKind, Grouping, PopulationName, Reason, Refusal, pack, remeasure, with_successes};
use shrinkd_model::Member;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use super::WorkerError;
use super::batch::{self, StepTimes};
use super::fold::FoldError;
use super::supervise::{loops, owner};
use crate::config::Config;
use crate::estimate::BlockEstimates;
use crate::refit::{RefitState, apply, needs_cells};
use crate::row::{
    BlockRow, BlockToEstimate, Changes, PublishedFit, RawEstimate, Statistics, StoreSettings, StoredBlock,
    StoredExperiment, TakenChanges, TakenCount,
};
use crate::store::{RawEstimates, Rebuild, Store, StoreError};
use crate::telemetry::Telemetry;

/// Experiments that are read, recomputed and written at a time.
const PAGE: usize = 1_000;

/// Blocks of a population that are read at a time.
const BLOCKS: i64 = 20_000;

/// The first arithmetic version that keeps successes as counts.
const FIRST_WITH_SUCCESSES: u8 = 2;

/// How often the progress of other workers is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The result of a rebuild.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebuilt {
    /// The settings that the store had before. `None` if it was empty.
    pub replaced: Option<StoreSettings>,
    /// Populations that have blocks.
    pub populations: u64,
    /// Populations that were deleted, because they have no blocks any more.
    pub emptied_populations: u64,
    pub blocks: BlockCounts,
}

/// Counts of blocks, including sums of parts that cannot be estimated yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BlockCounts {
    pub all: u64,
    /// Blocks that moved to another population.
    pub moved: u64,
    /// Blocks whose figures changed.
    pub recomputed: u64,
    /// Blocks that this build refuses to estimate. They are pending, with the reason.
    pub refused: u64,
}

/// The progress of a rebuild.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    Experiments { done: u64, of: u64 },
    Published { done: u64, of: u64 },
}

/// Rebuilds a store, which must have been opened with [`Store::connect_to_rebuild`].
///
/// # Errors
/// If the store fails, or stored statistics cannot be read. Before the commit, nothing has changed then. After it, the
/// workers fit and publish what is left.
pub async fn rebuild(store: Store, config: &Arc<Config>, progress: impl Fn(Progress)) -> Result<Rebuilt, WorkerError> {
    let mut rebuilt = rebuild_blocks(&store, config, &progress).await?;
    rebuilt.populations = publish_all(&store, config, &progress).await?;
    Ok(rebuilt)
}

/// The transaction: blocks, statistics, and the estimates of the blocks that changed.
async fn rebuild_blocks(store: &Store, config: &Config, progress: &impl Fn(Progress)) -> Result<Rebuilt, WorkerError> {
    let (grouping, limit) = (Arc::new(config.grouping()), config.limits.max_populations);
    let (mut transaction, replaced) = store.begin_rebuild().await?;
    let before = transaction.count_populations().await?;
    let lacks_successes = replaced.as_ref().is_some_and(|replaced| replaced.arithmetic_version < FIRST_WITH_SUCCESSES);
    let of = transaction.count_experiments().await?;
    let mut blocks = BlockCounts::default();
    let (mut done, mut after, mut counted) = (0, String::new(), BTreeMap::new());
    loop {
        progress(Progress::Experiments { done, of });
        let page = transaction.experiments_after(&after, PAGE).await?;
        let Some(last) = page.keys().next_back().cloned() else { break };
        let estimates = transaction.raw_estimates(&after, &last).await?;
        after = last;
        done += page.len() as u64;
        let own = Arc::clone(&grouping);
        let computed = tokio::task::spawn_blocking(move || {
            let mut changes = Changes::default();
            for (experiment_id, stored) in page {
                let counts = (&mut counted, &mut blocks);
                recompute(&experiment_id, stored, lacks_successes, &estimates, &own, &mut changes, counts)?;
            }
            Ok::<_, FoldError>((changes, counted, blocks))
        });
        let changes;
        (changes, counted, blocks) = computed.await??;
        batch::write(&mut transaction.batch, changes, true, &mut StepTimes::new(Instant::now())).await?;
    }
    sum_statistics(&mut transaction, counted).await?;
    let emptied_populations = transaction.finish().await?;
    let populations = transaction.count_populations().await?;
    if populations > limit.max(before) {
        return Err(WorkerError::TooManyPopulations { populations, limit });
    }
    transaction.commit().await?;
    Ok(Rebuilt { replaced, populations: 0, emptied_populations, blocks })
}

/// Writes the counts of populations, and the cells of those that are too large to be summed from their blocks.
async fn sum_statistics(
    transaction: &mut Rebuild,
    counts: BTreeMap<PopulationName, Statistics>,
) -> Result<(), WorkerError> {
    let mut small = BTreeMap::new();
    for (population, statistics) in counts {
        if !needs_cells(statistics.counters.experiments) {
            small.insert(population, RefitState { statistics, ..RefitState::default() });
            continue;
        }
        let mut states =
            BTreeMap::from([(population.clone(), RefitState { has_cells: true, ..RefitState::default() })]);
        let mut after = String::new();
        loop {
            let (changes, last) = transaction.blocks_after(&population, &after, BLOCKS).await?;
            let Some(last) = last else { break };
            after = last;
            let count = TakenCount { changes: changes.len() as i64, unpublished: 0 };
            let counts = BTreeMap::from([(population.clone(), count)]);
            let taken = TakenChanges { changes, counts, input_offsets: Vec::new() };
            states = tokio::task::spawn_blocking(move || apply(&mut states, taken).map(|()| states))
                .await?
                .map_err(StoreError::unfit)?;
        }
        transaction.write_statistics(&states).await?;
    }
    Ok(transaction.write_statistics(&small).await?)
}

/// Recomputes the blocks of an experiment. All of them are counted, but only those that differ from the stored ones, or whose
/// estimates do, are written. Pending sums are always written, because the text of their reason may differ.
/// Where the store `lacks_successes`, the moments as which it kept them become counts again.
fn recompute(
    experiment_id: &str,
    stored: StoredExperiment,
    lacks_successes: bool,
    estimates: &RawEstimates,
    grouping: &Grouping,
    changes: &mut Changes,
    (populations, counts): (&mut BTreeMap<PopulationName, Statistics>, &mut BlockCounts),
) -> Result<(), FoldError> {
    let damaged = |source| FoldError::Damaged { experiment_id: experiment_id.to_owned(), source };
    for held in stored.blocks {
        let StoredBlock { key, statistics, revision, .. } = &held;
        let counted = if lacks_successes { with_successes(statistics).map_err(damaged)? } else { None };
        let statistics = counted.unwrap_or_else(|| statistics.clone());
        let measured = remeasure(key.scale, &statistics).map_err(damaged)?;
        let measured = measured.and_then(|measured| {
            let chosen = grouping.chosen_variant(experiment_id, &measured.variants);
            let member = Member::new(measured.block.clone(), chosen);
            let refused =
                |error| Refusal::new(Reason::ImplausibleScale, format!("does not fit the statistics: {error}"));
            member.map(|_| measured).map_err(refused)
        });
        let is_experiment = stored.latest.kind == ExperimentKind::Experiment;
        let population = is_experiment.then(|| grouping.population(key.clone(), Some(&stored.latest.labels)));
        let block = StoredBlock {
            key: key.clone(),
            population: population.clone(),
            revision: *revision,
            statistics,
            properties: held.properties,
            block: measured.as_ref().ok().map(pack),
        };
        counts.all += 1;
        counts.moved += u64::from(population != held.population);
        counts.recomputed += u64::from(block.block != held.block);
        counts.refused += u64::from(held.block.is_some() && block.block.is_none());
        let pending = match (measured, population) {
            (Err(refusal), _) => Some(refusal),
            (Ok(_), None) if block == held => continue,
            (Ok(_), None) => None,
            (Ok(measured), Some(population)) => {
                let Statistics { counters, sketches } = populations.entry(population.clone()).or_default();
                counters.changes += 1;
                counters.experiments += 1;
                counters.effects += measured.block.len() as i64;
                sketches.count(measured.block.len() as u32, 1);
                let experiment_id = experiment_id.to_owned();
                let to_estimate = BlockToEstimate {
                    population,
                    experiment_id,
                    revision: *revision,
                    measured,
                    properties: held.properties,
                    shipped_variant: stored.latest.shipped_variant.clone(),
                };
                let of = held.population.as_ref().map(PopulationName::to_string).unwrap_or_default();
                let written = estimates.get(&(of, to_estimate.experiment_id.clone()));
                if block == held && written == Some(&raw_estimates(&to_estimate)) {
                    continue;
                }
                changes.changed.push(to_estimate);
                None
            }
        };
        changes.blocks.push(BlockRow { experiment_id: experiment_id.to_owned(), block, pending });
    }
    Ok(())
}

/// The parts of a block's estimates that do not depend on a fit, in the order of the variants' names.
fn raw_estimates(block: &BlockToEstimate) -> Vec<RawEstimate> {
    let rows = BlockEstimates::new(block, 0, &PublishedFit::none()).rows;
    let mut raw: Vec<RawEstimate> = rows.iter().map(RawEstimate::from).collect();
    raw.sort_by(|x, y| x.variant.cmp(&y.variant));
    raw
}

/// Fits every population and rewrites all of its estimates. Returns the number of populations once all of them are published,
/// by this process or by other workers.
async fn publish_all(store: &Store, config: &Arc<Config>, progress: &impl Fn(Progress)) -> Result<u64, WorkerError> {
    let (refit, publish) = loops(store, config, &owner(), &Telemetry::default());
    let mut left: Vec<PopulationName> =
        store.current_populations().await?.into_iter().map(|current| current.population).collect();
    let of = left.len() as u64;
    let never = CancellationToken::new();
    for (population, done) in left.iter().zip(0..) {
        progress(Progress::Published { done, of });
        while !refit.refit_and_republish(population).await? {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        publish.publish_due(Some(OffsetDateTime::now_utc()), &never).await?;
    }
    // Other workers may have taken some of the passes, and still be busy with them.
    loop {
        let publishing = store.publishing_populations().await?;
        left.retain(|population| publishing.contains(population));
        if left.is_empty() {
            return Ok(of);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
        publish.publish_due(Some(OffsetDateTime::now_utc()), &never).await?;
    }
}
