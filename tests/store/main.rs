//! The promises of the store, each tested on SQLite and on PostgreSQL.

#[path = "../common/mod.rs"]
mod common;

mod catch_up;
mod cells;
mod changes;
mod copy;
mod finite;
mod ingest;
mod ingest_loop;
mod limits;
mod loops;
mod opening;
mod partitions;
mod passes;
mod poison;
mod publish;
mod reading;
mod rebuild;
mod refit;
mod replay;
mod sqlite;
mod tombstones;
mod treatments;
mod view;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};

use shrinkd::estimate::BlockEstimates;
use shrinkd::row::{Changes, EstimateRow, PublishedFit, StoreSettings, StoredExperiment};
use shrinkd::store::{Ingest, Store, StoreError};
use shrinkd::stream::{Advance, Claim, NextOffset, Topic};
use shrinkd::worker::admission::Admission;
use shrinkd::worker::fold::{Folded, fold, named_experiments};
use shrinkd::worker::source::Record;
use shrinkd_core::{Counts, Grouping, PopulationName, decode};

use common::database::settings;
use common::promises;

fn topic() -> Topic {
    Topic {
        cluster_id: "cluster".to_owned(),
        name: "experiments".to_owned(),
        id: "made-once".to_owned(),
        partitions: 6,
    }
}

/// A record of a message; an experiment's messages have its id for a key.
fn record(partition: i32, offset: i64, message: &str) -> Record {
    let bytes = message.as_bytes();
    Record {
        partition,
        offset,
        produced_at: Some(time::OffsetDateTime::UNIX_EPOCH),
        key: None,
        payload: Some(bytes.to_vec()),
        payload_bytes: bytes.len(),
        message: decode(bytes),
    }
}

/// An event with one result of effects under a shared control.
fn event(experiment_id: &str, revision: u64, metric: &str, estimates: &[f64]) -> String {
    let effects: Vec<String> = estimates
        .iter()
        .enumerate()
        .map(|(i, estimate)| format!(r#"{{"variant":"v{i}","estimate":{estimate},"variance":0.5}}"#))
        .collect();
    let effects = effects.join(",");
    let result = format!(r#"{{"metric":"{metric}","effects":[{effects}],"control_variance":0.2}}"#);
    message(experiment_id, revision, &result)
}

fn message(experiment_id: &str, revision: u64, results: &str) -> String {
    format!(
        r#"{{"schema_version":1,"experiment_id":"{experiment_id}","revision":{revision},"completed_at":"2026-11-01T12:00:00.123456789+01:00","decision":"shipped","labels":{{"team":"search"}},"results":[{results}]}}"#
    )
}

fn retraction(experiment_id: &str, revision: u64, metric: &str) -> String {
    message(experiment_id, revision, &format!(r#"{{"metric":"{metric}","status":"retracted"}}"#))
}

fn tombstone(experiment_id: &str) -> String {
    format!(r#"{{"schema_version":1,"experiment_id":"{experiment_id}","retracted":true}}"#)
}

fn population(metric: &str) -> PopulationName {
    format!("{metric}/all/absolute").parse().expect("a name")
}

/// Other settings than those of [`settings`].
fn settings_by_team() -> StoreSettings {
    let grouping = Grouping { labels: vec!["team".to_owned()], ..Grouping::default() };
    StoreSettings { grouping, ..settings() }
}

/// What a worker does with batches, and what it remembers of its partitions.
struct Worker {
    store: Store,
    claims: BTreeMap<i32, Claim>,
}

impl Worker {
    /// One that has taken the partitions over.
    async fn claim(store: &Store, partitions: &[i32]) -> Worker {
        let claims = store.claim(&topic(), partitions, "worker").await.expect("the claim is granted");
        Worker { store: store.clone(), claims: claims.into_iter().map(|claim| (claim.partition, claim)).collect() }
    }

    /// Where a batch of these records moves their partitions.
    fn advances(&self, records: &[Record]) -> Vec<Advance> {
        let mut ends: BTreeMap<i32, i64> = BTreeMap::new();
        for record in records {
            let end = ends.entry(record.partition).or_default();
            *end = (*end).max(record.offset + 1);
        }
        let advance = |(partition, end)| {
            let Claim { partition_id, epoch, next_offset, .. } = self.claims[&partition];
            Advance { partition, partition_id, epoch, from: next_offset, to: NextOffset(end) }
        };
        ends.into_iter().map(advance).collect()
    }

    /// Begins a batch, folds it and writes it, but does not commit it.
    async fn write(&self, records: Vec<Record>) -> Result<(Ingest, Changes, Counts), StoreError> {
        self.write_with(records, true).await
    }

    /// The same, where the estimates may be left to a pass.
    async fn write_with(
        &self,
        records: Vec<Record>,
        writes_estimates: bool,
    ) -> Result<(Ingest, Changes, Counts), StoreError> {
        let mut ingest = self.store.begin_ingest(&self.advances(&records)).await?;
        let is_ours = |record: &Record| Some(self.claims[&record.partition].partition_id);
        let stored = ingest.experiments(&named_experiments(&records, is_ours)).await?;
        let Folded { changes, counts, .. } =
            fold(&records, stored, &Grouping::default(), Admission::default(), is_ours).expect("sound blocks");
        ingest.write_changes(&changes, writes_estimates).await?;
        let populations: BTreeSet<PopulationName> =
            changes.changed.iter().map(|block| block.population.clone()).collect();
        let populations = Vec::from_iter(populations);
        ingest.put_populations(&populations).await?;
        let fits = ingest.published_fits(&populations).await?;
        let none = PublishedFit::none();
        let rows: Vec<EstimateRow> = changes
            .changed
            .iter()
            .filter(|_| writes_estimates)
            .flat_map(|block| {
                BlockEstimates::new(block, ingest.commit_id(), fits.get(&block.population).unwrap_or(&none)).rows
            })
            .collect();
        ingest.write_estimates(&changes, &rows).await?;
        Ok((ingest, changes, counts))
    }

    /// Takes a batch in.
    async fn ingest(&mut self, records: Vec<Record>) -> Counts {
        self.ingest_with(records, true).await
    }

    /// The same, where the estimates may be left to a pass.
    async fn ingest_with(&mut self, records: Vec<Record>, writes_estimates: bool) -> Counts {
        let advances = self.advances(&records);
        let (ingest, _, counts) = self.write_with(records, writes_estimates).await.expect("the batch is written");
        ingest.commit().await.expect("the batch is committed");
        for Advance { partition, to, .. } in advances {
            self.claims.get_mut(&partition).expect("an own partition").next_offset = Some(to);
        }
        counts
    }

    /// What is stored of experiments, read in a batch that is given up.
    async fn stored(&self, experiment_ids: &[&str]) -> BTreeMap<String, StoredExperiment> {
        let ids = experiment_ids.iter().map(|&id| id.to_owned()).collect();
        let mut ingest = self.store.begin_ingest(&[]).await.expect("a batch");
        ingest.experiments(&ids).await.expect("the experiments")
    }
}
