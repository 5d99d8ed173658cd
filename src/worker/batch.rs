//! The transaction of a batch, whether its records come from a source or are replayed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use shrinkd_core::{Grouping, PopulationName};
use shrinkd_model::{available_threads, map_chunks};

use super::WorkerError;
use super::admission::{Admission, named_populations};
use super::fold::{Folded, fold, named_experiments};
use super::publish::warn_of_failures;
use super::source::Record;
use crate::estimate::BlockEstimates;
use crate::row::{Changes, EstimateRow, PublishedFit};
use crate::store::{Ingest, Written};

/// How many blocks a thread estimates at a time.
const CHUNK: usize = 64;

/// Reads the stored state of the records' experiments and folds the records into it. `is_ours` as for [`fold`].
pub(super) async fn read_and_fold(
    transaction: &mut Ingest,
    records: &Arc<Vec<Record>>,
    grouping: &Arc<Grouping>,
    max_populations: u64,
    is_ours: impl Fn(&Record) -> Option<i64> + Send + 'static,
    steps: &mut StepTimes,
) -> Result<Folded, WorkerError> {
    let stored = transaction.experiments(&named_experiments(records, &is_ours)).await?;
    let named = named_populations(records, &stored, grouping, &is_ours);
    let admission = Admission::new(transaction.new_populations(&named, max_populations).await?);
    steps.record("read");
    let (records, grouping) = (Arc::clone(records), Arc::clone(grouping));
    let folded = tokio::task::spawn_blocking(move || fold(&records, stored, &grouping, admission, is_ours)).await??;
    steps.record("fold");
    Ok(folded)
}

/// Writes the changes of a batch, and the estimates of the changed blocks if they are not left to a pass. Those that no longer
/// stand for anything go in any case.
pub(super) async fn write(
    transaction: &mut Ingest,
    changes: Changes,
    writes_estimates: bool,
    steps: &mut StepTimes,
) -> Result<Written, WorkerError> {
    let changes = Arc::new(changes);
    let changed = changes.changed.iter().map(|block| block.population.clone());
    let populations: BTreeSet<PopulationName> = changed.chain(changes.new_populations.iter().cloned()).collect();
    let populations = Vec::from_iter(populations);
    if !populations.is_empty() {
        transaction.put_populations(&populations).await?;
    }
    if !writes_estimates {
        let mut written = transaction.write_changes(&changes, false).await?;
        steps.record("write");
        written.extend(transaction.write_estimates(&changes, &[]).await?);
        free(changes);
        return Ok(written);
    }
    let fits = match populations.is_empty() {
        true => BTreeMap::new(),
        false => transaction.published_fits(&populations).await?,
    };
    steps.record("fits");
    let (own, commit_id) = (Arc::clone(&changes), transaction.commit_id());
    let estimates = tokio::task::spawn_blocking(move || estimate(&own, &fits, commit_id));
    let mut written = transaction.write_changes(&changes, true).await?;
    steps.record("write");
    let estimates = estimates.await?;
    warn_of_failures(estimates.iter());
    steps.record("estimate");
    written.extend(transaction.write_estimates(&changes, &estimates).await?);
    steps.record("write estimates");
    free((changes, estimates));
    Ok(written)
}

/// Frees what a batch has made on another thread: it is a third of the loop's own time, for which the next batch need not wait.
pub(super) fn free(garbage: impl Send + 'static) {
    drop(tokio::task::spawn_blocking(move || drop(garbage)));
}

/// The estimates of all changed blocks, sorted by key, because every writer locks rows in that order.
fn estimate(changes: &Changes, fits: &BTreeMap<PopulationName, PublishedFit>, commit_id: i64) -> Vec<EstimateRow> {
    let none = PublishedFit::none();
    let pages = map_chunks(&changes.changed, CHUNK, available_threads(), |blocks| {
        let rows = blocks.iter().flat_map(|block| {
            let fit = fits.get(&block.population).unwrap_or(&none);
            BlockEstimates::new(block, commit_id, fit).rows
        });
        rows.collect::<Vec<_>>()
    });
    let mut rows: Vec<EstimateRow> = pages.into_iter().flatten().collect();
    rows.sort_by(|x, y| {
        (&x.population, &x.experiment_id, &x.variant).cmp(&(&y.population, &y.experiment_id, &y.variant))
    });
    rows
}

/// How long each step of a batch took, for the log.
pub(super) struct StepTimes {
    last: Instant,
    times: Vec<(&'static str, Duration)>,
}

impl StepTimes {
    pub fn new(started: Instant) -> StepTimes {
        StepTimes { last: started, times: Vec::new() }
    }

    /// Records the time since the previous step.
    pub fn record(&mut self, step: &'static str) {
        let now = Instant::now();
        self.times.push((step, now - self.last));
        self.last = now;
    }
}

impl std::fmt::Display for StepTimes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let steps: Vec<String> =
            self.times.iter().map(|(step, time)| format!("{step} {} ms", time.as_millis())).collect();
        f.write_str(&steps.join(", "))
    }
}
