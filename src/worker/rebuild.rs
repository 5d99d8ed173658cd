//! A rebuild: everything that is computed from what was sent, computed anew by this build and under this configuration.
//!
//! First one transaction puts every block into its population again, adds up new cells, and writes the estimates of the
//! blocks that changed: until its commit everybody sees the store as it was, and when it does not come to that, so it
//! stays. Then every population is fitted and published whole, beside whatever workers are running.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shrinkd_core::{Grouping, PopulationName, Reason, Refusal, pack, remeasure};
use shrinkd_model::Member;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use super::WorkerError;
use super::batch::{self, Steps};
use super::fold::FoldError;
use super::supervise::{loops, owner};
use crate::config::Config;
use crate::estimate::BlockEstimates;
use crate::row::{
    BlockRow, BlockToEstimate, Changes, PublishedFit, RawEstimate, StoreSettings, StoredBlock, StoredExperiment,
};
use crate::store::{RawEstimates, Store};
use crate::telemetry::Telemetry;

/// Experiments of a page: what is read, computed and written at a time.
const PAGE: usize = 1_000;

/// Populations whose cells are held in memory until they are written, of some 100 kB each.
const HELD_POPULATIONS: usize = 1_000;

/// The pause before a look at what other workers do.
const PAUSE: Duration = Duration::from_millis(100);

/// What a rebuild did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebuilt {
    /// What the store was filled with before; `None` where nobody had filled it.
    pub replaced: Option<StoreSettings>,
    /// Those that have blocks now.
    pub populations: u64,
    /// Those that have none any more: they are gone.
    pub emptied_populations: u64,
    pub blocks: BlockCounts,
}

/// What became of blocks, and of sums of parts that cannot be estimated yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BlockCounts {
    pub all: u64,
    /// Whose population is another.
    pub moved: u64,
    /// Whose figures are others.
    pub recomputed: u64,
    /// That could be estimated before, and under this build cannot: they are pending, with the reason.
    pub refused: u64,
}

/// How far a rebuild has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    Experiments { done: u64, of: u64 },
    Published { done: u64, of: u64 },
}

/// Rebuilds a store that was opened for it.
///
/// # Errors
/// Where the store fails, or stored statistics cannot be read. Before the commit nothing has changed then; after it the
/// workers fit and publish what is left.
pub async fn rebuild(store: Store, config: &Arc<Config>, progress: impl Fn(Progress)) -> Result<Rebuilt, WorkerError> {
    let mut rebuilt = rebuild_blocks(&store, config.grouping(), &progress).await?;
    rebuilt.populations = publish_whole(&store, config, &progress).await?;
    Ok(rebuilt)
}

/// The transaction: blocks, cells, counters, and the estimates of what changed.
async fn rebuild_blocks(
    store: &Store,
    grouping: Grouping,
    progress: &impl Fn(Progress),
) -> Result<Rebuilt, WorkerError> {
    let grouping = Arc::new(grouping);
    let (mut transaction, replaced) = store.begin_rebuild().await?;
    let of = transaction.count_experiments().await?;
    let mut blocks = BlockCounts::default();
    let (mut done, mut after, mut cells) = (0, String::new(), BTreeMap::new());
    loop {
        progress(Progress::Experiments { done, of });
        let page = transaction.experiments_after(&after, PAGE).await?;
        let Some(last) = page.keys().next_back().cloned() else { break };
        let estimates = transaction.raw_estimates(&after, &last).await?;
        after = last;
        done += page.len() as u64;
        let own = Arc::clone(&grouping);
        let computed = tokio::task::spawn_blocking(move || {
            let mut changes = Changes { cells, ..Changes::default() };
            for (experiment_id, stored) in page {
                recompute(&experiment_id, stored, &estimates, &own, &mut changes, &mut blocks)?;
            }
            Ok::<_, FoldError>((changes, blocks))
        });
        let mut changes;
        (changes, blocks) = computed.await??;
        // Cells are added up in memory as long as they are not too many: each write of a cell is a new version of its row.
        cells = match changes.cells.len() {
            ..HELD_POPULATIONS => std::mem::take(&mut changes.cells),
            _ => BTreeMap::new(),
        };
        batch::write(&mut transaction.batch, changes, &mut Steps::new(Instant::now())).await?;
    }
    let rest = Changes { cells, ..Changes::default() };
    transaction.batch.write_changes(&rest).await?;
    let emptied_populations = transaction.finish().await?;
    transaction.commit().await?;
    Ok(Rebuilt { replaced, populations: 0, emptied_populations, blocks })
}

/// Says what this build and this grouping make of an experiment: all of it in cells, the rest where it is not what is
/// stored, or where its estimates are not those of its blocks. What is pending is always written: its reason is in words.
fn recompute(
    experiment_id: &str,
    stored: StoredExperiment,
    estimates: &RawEstimates,
    grouping: &Grouping,
    changes: &mut Changes,
    counts: &mut BlockCounts,
) -> Result<(), FoldError> {
    for held in stored.blocks {
        let StoredBlock { key, statistics, revision, .. } = &held;
        let measured = remeasure(key.scale, statistics)
            .map_err(|source| FoldError::Damaged { experiment_id: experiment_id.to_owned(), source })?;
        let member = measured.and_then(|measured| {
            let chosen = grouping.chosen_variant(experiment_id, &measured.variants);
            let member = Member::new(measured.block.clone(), chosen);
            let refused =
                |error| Refusal::new(Reason::ImplausibleScale, format!("does not fit the statistics: {error}"));
            member.map(|member| (measured, member)).map_err(refused)
        });
        let population = grouping.population(key.clone(), Some(&stored.latest.labels));
        let block = StoredBlock {
            key: key.clone(),
            population: population.clone(),
            revision: *revision,
            statistics: statistics.clone(),
            block: member.as_ref().ok().map(|(measured, _)| pack(measured)),
            components: member.as_ref().ok().map(|(_, member)| pack(member.own_components())),
        };
        counts.all += 1;
        counts.moved += u64::from(population != held.population);
        counts.recomputed += u64::from((&block.block, &block.components) != (&held.block, &held.components));
        counts.refused += u64::from(held.block.is_some() && block.block.is_none());
        let pending = match member {
            Err(refusal) => Some(refusal),
            Ok((measured, member)) => {
                let cells = changes.cells.entry(population.clone()).or_default();
                cells.add(&member).map_err(|error| FoldError::Member {
                    experiment_id: experiment_id.to_owned(),
                    source: error.into(),
                })?;
                let experiment_id = experiment_id.to_owned();
                let to_estimate = BlockToEstimate { population, experiment_id, revision: *revision, measured };
                let written = estimates.get(&(held.population.to_string(), to_estimate.experiment_id.clone()));
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

/// Fits every population and has all of its rows written anew; returns how many there are, once all of that is done,
/// whoever did it.
async fn publish_whole(store: &Store, config: &Arc<Config>, progress: &impl Fn(Progress)) -> Result<u64, WorkerError> {
    let (refit, publish) = loops(store, config, &owner(), &Telemetry::default());
    let mut left: Vec<PopulationName> =
        store.current_populations().await?.into_iter().map(|current| current.population).collect();
    let of = left.len() as u64;
    let never = CancellationToken::new();
    for (population, done) in left.iter().zip(0..) {
        progress(Progress::Published { done, of });
        while !refit.refit_whole(population).await? {
            tokio::time::sleep(PAUSE).await;
        }
        publish.publish_due(OffsetDateTime::now_utc(), &never).await?;
    }
    // Other workers may have taken some of the passes, and be at them still.
    loop {
        let mut publishing = Vec::new();
        for population in left {
            if store.population_state(&population).await?.is_publishing {
                publishing.push(population);
            }
        }
        left = publishing;
        if left.is_empty() {
            return Ok(of);
        }
        tokio::time::sleep(PAUSE).await;
        publish.publish_due(OffsetDateTime::now_utc(), &never).await?;
    }
}
