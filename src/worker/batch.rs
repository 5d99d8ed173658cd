//! What happens within the transaction of a batch, whether it comes from a source or is replayed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use shrinkd_core::{Grouping, PopulationName};
use shrinkd_model::{available_threads, map_chunks};

use super::WorkerError;
use super::fold::{Folded, fold, named_experiments};
use super::source::Record;
use crate::estimate::BlockEstimates;
use crate::row::{Changes, EstimateRow, PublishedFit};
use crate::store::{Ingest, Written};

/// Blocks whose estimates one thread computes at a time.
const CHUNK: usize = 64;

/// Reads what is stored of the experiments that records name, and folds the records in. `is_ours` as for [`fold`].
pub(super) async fn read_and_fold(
    transaction: &mut Ingest,
    records: &Arc<Vec<Record>>,
    grouping: &Arc<Grouping>,
    is_ours: impl Fn(&Record) -> Option<i64> + Send + 'static,
    steps: &mut Steps,
) -> Result<Folded, WorkerError> {
    let stored = transaction.experiments(&named_experiments(records, &is_ours)).await?;
    steps.end("read");
    let (records, grouping) = (Arc::clone(records), Arc::clone(grouping));
    let folded = tokio::task::spawn_blocking(move || fold(&records, stored, &grouping, is_ours)).await??;
    steps.end("fold");
    Ok(folded)
}

/// Writes what a batch changes, and the estimates of the changed blocks.
pub(super) async fn write(
    transaction: &mut Ingest,
    changes: Changes,
    steps: &mut Steps,
) -> Result<Written, WorkerError> {
    let changes = Arc::new(changes);
    let populations: BTreeSet<PopulationName> = changes.changed.iter().map(|block| block.population.clone()).collect();
    let fits = match populations.is_empty() {
        true => BTreeMap::new(),
        false => transaction.published_fits(&populations).await?,
    };
    steps.end("fits");
    let (own, commit_id) = (Arc::clone(&changes), transaction.commit_id());
    let estimates = tokio::task::spawn_blocking(move || estimate(&own, &fits, commit_id));
    let mut written = transaction.write_changes(&changes).await?;
    steps.end("write");
    let estimates = estimates.await?;
    steps.end("estimate");
    written.extend(transaction.write_estimates(&changes, &estimates).await?);
    steps.end("write estimates");
    Ok(written)
}

/// The estimates of all changed blocks, in the order of their keys: every writer locks rows in that order.
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
pub(super) struct Steps {
    last: Instant,
    taken: Vec<(&'static str, Duration)>,
}

impl Steps {
    pub fn new(started: Instant) -> Steps {
        Steps { last: started, taken: Vec::new() }
    }

    /// A step has ended now.
    pub fn end(&mut self, step: &'static str) {
        let now = Instant::now();
        self.taken.push((step, now - self.last));
        self.last = now;
    }
}

impl std::fmt::Display for Steps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let steps: Vec<String> =
            self.taken.iter().map(|(step, taken)| format!("{step} {} ms", taken.as_millis())).collect();
        f.write_str(&steps.join(", "))
    }
}
