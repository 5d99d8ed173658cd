//! Statements on experiments and their blocks.

use std::borrow::Cow;
use std::collections::BTreeMap;

use shrinkd_core::{Latest, Properties, ResultKey};

use super::StoreError;
use super::columns::{Column, Columns, NONE, bytes, float, integer, json, text, time};
use super::copy::Target;
use super::database::Transaction;
use super::query::{Row, Value, record, values};
use crate::row::{BlockRow, Changes, ExperimentRow, StoredBlock, StoredExperiment};

/// What is stored of the experiments that `condition` selects. For a batch they are locked, and so are their blocks, both in the
/// order of the keys.
pub(super) async fn read(
    on: &mut Transaction,
    condition: &str,
    values: Vec<Value<'_>>,
    is_batch: bool,
) -> Result<BTreeMap<String, StoredExperiment>, StoreError> {
    let lock = if is_batch { "{for update}" } else { "" };
    let sql = format!(
        "select experiment_id, revision, decision, cast(labels as text) as labels, completed_at, kind, started_at,
                shipped_variant, retractions
         from experiments {condition} {lock}"
    );
    let found = on.query("ingest: read experiments", sql, values).all(read_experiment).await?;
    let mut experiments: BTreeMap<String, StoredExperiment> = found.into_iter().collect();
    if experiments.is_empty() {
        return Ok(experiments);
    }
    let ids: Vec<String> = experiments.keys().cloned().collect();
    let sql = format!(
        "select experiment_id, metric, segment, scale, population_id, revision, statistics, direction, coverage, block
         from blocks where experiment_id {{any $1}} order by experiment_id, metric, segment, scale {lock}"
    );
    for (experiment_id, block) in on.query("ingest: read blocks", sql, values![ids]).all(read_block).await? {
        if let Some(experiment) = experiments.get_mut(&experiment_id) {
            experiment.blocks.push(block);
        }
    }
    Ok(experiments)
}

fn read_experiment(row: &Row) -> Result<(String, StoredExperiment), StoreError> {
    let latest = record!(Latest: revision, decision, completed_at, kind, started_at, shipped_variant;
            labels: |row: &Row| row.json("experiments", "labels"));
    let (latest, retractions) = (latest(row)?, row.get("retractions")?);
    Ok((row.get("experiment_id")?, StoredExperiment { latest, retractions, blocks: Vec::new() }))
}

fn read_block(row: &Row) -> Result<(String, StoredBlock), StoreError> {
    let key = record!(ResultKey: metric, segment, scale);
    let block = record!(StoredBlock:
        population = "population_id", revision, statistics, block; key: key, properties: read_properties);
    Ok((row.get("experiment_id")?, block(row)?))
}

/// What a block says of its effects.
pub(super) fn read_properties(row: &Row) -> Result<Properties, StoreError> {
    record!(Properties: direction, coverage)(row)
}

const EXPERIMENTS: Columns<ExperimentRow> = Columns(
    &[&[text("experiment_id", |row| Some(row.experiment_id.as_str().into()))]],
    &[&[
        integer("revision", |row| Some(row.latest.revision as i64)),
        text("decision", |row| row.latest.decision.as_deref().map(Cow::from)),
        // A map from text to text has no value that JSON could not hold.
        json("labels", |row| {
            Some(serde_json::to_string(&row.latest.labels).unwrap_or_else(|_| "{}".to_owned()).into())
        }),
        time("completed_at", |row| Some(row.latest.completed_at)),
        text("kind", |row| Some(row.latest.kind.as_str().into())),
        time("started_at", |row| row.latest.started_at),
        text("shipped_variant", |row| row.latest.shipped_variant.as_deref().map(Cow::from)),
        bytes("retractions", |row| row.retractions.as_deref().map(Cow::from)),
    ]],
);

const FORGOTTEN: Columns<String> = Columns::of(&[&[text("experiment_id", |id| Some(id.into()))]]);

const WITHDRAWN: Columns<(String, ResultKey)> = Columns::of(&[&[
    text("experiment_id", |(experiment_id, _)| Some(experiment_id.into())),
    text("metric", |(_, key)| Some(key.metric.as_str().into())),
    text("segment", |(_, key)| Some(key.segment.as_str().into())),
    text("scale", |(_, key)| Some(key.scale.as_str().into())),
]]);

const BLOCK_KEY: &[Column<BlockRow>] = &[
    text("experiment_id", |row| Some(row.experiment_id.as_str().into())),
    text("metric", |row| Some(row.block.key.metric.as_str().into())),
    text("segment", |row| Some(row.block.key.segment.as_str().into())),
    text("scale", |row| Some(row.block.key.scale.as_str().into())),
];
const BLOCK: &[Column<BlockRow>] = &[
    text("population_id", |row| row.block.population.as_ref().map(|population| population.to_string().into())),
    integer("revision", |row| Some(row.block.revision as i64)),
    bytes("statistics", |row| Some(row.block.statistics.as_slice().into())),
    text("direction", |row| row.block.properties.direction.map(|direction| direction.as_str().into())),
    float("coverage", |row| row.block.properties.coverage),
    bytes("block", |row| row.block.block.as_deref().map(Cow::from)),
    text("pending_reason", |row| row.pending.as_ref().map(|refusal| refusal.reason.as_str().into())),
    text("pending_detail", |row| row.pending.as_ref().map(|refusal| refusal.detail.as_str().into())),
];

/// Puts in what is new, replaces what changed, and deletes what was withdrawn. Returns how many blocks were written.
pub(super) async fn write(on: &mut Transaction, changes: &Changes, commit_id: i64) -> Result<u64, StoreError> {
    // Rows that were not there when they were read must not have come in between: a plain insert finds out.
    let sql = "insert into experiments ({columns}) select {columns} from n";
    let target = Target::table("experiments");
    EXPERIMENTS.insert(on, "ingest: new experiments", &changes.new_experiments, target, sql).await?;
    let sql = "update experiments as e set {set from n} from n where e.experiment_id = n.experiment_id";
    EXPERIMENTS.execute(on, "ingest: experiments", &changes.experiments, sql, NONE).await?;
    let sql = "delete from blocks where (experiment_id, metric, segment, scale) in (select {columns} from n)";
    WITHDRAWN.execute(on, "ingest: withdraw blocks", &changes.withdrawn_blocks, sql, NONE).await?;
    let sql = "delete from experiments where experiment_id in (select experiment_id from n)";
    FORGOTTEN.execute(on, "ingest: forget experiments", &changes.forgotten_experiments, sql, NONE).await?;
    let sql = "insert into blocks ({columns}, commit_id) select {columns}, $1 from n where true
               on conflict (experiment_id, metric, segment, scale) do update
               set {set from excluded}, commit_id = excluded.commit_id";
    let blocks = Columns(&[BLOCK_KEY], &[BLOCK]);
    let ids = changes.new_ids();
    let is_new = |row: &&BlockRow| ids.contains(row.experiment_id.as_str());
    let (new, stored): (Vec<&BlockRow>, Vec<&BlockRow>) = changes.blocks.iter().partition(is_new);
    let target = Target { table: "blocks", constants: &[("commit_id", commit_id.into())] };
    let put_in = blocks.insert_or(on, "ingest: new blocks", &new, target, sql).await?;
    Ok(put_in + blocks.execute(on, "ingest: blocks", &stored, sql, &[commit_id.into()]).await?)
}
