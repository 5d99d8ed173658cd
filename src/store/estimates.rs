//! Statements on `effect_estimates`. A new column is named here once, and filled in `crate::estimate`.

use std::collections::{HashMap, HashSet};

use super::StoreError;
use super::columns::{Column, Columns, NONE, boolean, float, integer, text};
use super::copy::Target;
use super::database::Transaction;
use super::query::{Row, record};
use crate::row::{EstimateRow, RawEstimate, RetiredEstimate, ShrunkEstimate};

const KEY: &[Column<EstimateRow>] = &[
    text("population_id", |row| Some(row.population.to_string().into())),
    text("experiment_id", |row| Some(row.experiment_id.as_str().into())),
    text("variant", |row| Some(row.variant.as_str().into())),
];

const COMMIT: &[Column<EstimateRow>] = &[integer("commit_id", |row| Some(row.commit_id))];

/// What follows from the block alone.
pub(super) const RAW: &[Column<EstimateRow>] = &[
    integer("block_revision", |row| Some(row.block_revision as i64)),
    float("raw_estimate", |row| Some(row.raw_estimate)),
    float("raw_se", |row| Some(row.raw_se)),
    boolean("is_continuity_corrected", |row| Some(row.is_continuity_corrected)),
    boolean("lift_too_large_for_relative", |row| Some(row.lift_too_large_for_relative)),
    float("coverage", |row| Some(row.coverage)),
    boolean("is_shipped", |row| row.is_shipped),
    float("treatment_variance", |row| row.treatment_variance),
    float("control_variance", |row| row.control_variance),
    text("control_variance_source", |row| Some(row.control_variance_source.as_str().into())),
];

/// What follows from the fit, and may change with it.
pub(super) const FITTED: &[Column<EstimateRow>] = &[
    integer("fit_id", |row| Some(row.fit_id)),
    text("status", |row| Some(row.status.as_str().into())),
    text("direction", |row| row.direction.map(|direction| direction.as_str().into())),
    float("posterior_mean", |row| shrunk(row, |shrunk| Some(shrunk.posterior_mean))),
    float("posterior_sd", |row| shrunk(row, |shrunk| Some(shrunk.posterior_sd))),
    float("ci80_low", |row| shrunk(row, |shrunk| Some(shrunk.ci80.0))),
    float("ci80_high", |row| shrunk(row, |shrunk| Some(shrunk.ci80.1))),
    float("ci95_low", |row| shrunk(row, |shrunk| Some(shrunk.ci95.0))),
    float("ci95_high", |row| shrunk(row, |shrunk| Some(shrunk.ci95.1))),
    float("prob_positive", |row| shrunk(row, |shrunk| Some(shrunk.prob_positive))),
    float("lfsr", |row| shrunk(row, |shrunk| Some(shrunk.lfsr))),
    float("shrinkage_factor", |row| shrunk(row, |shrunk| Some(shrunk.shrinkage_factor))),
    float("weight_of_mu", |row| shrunk(row, |shrunk| Some(shrunk.weight_of_mu))),
    float("naive_posterior_mean", |row| shrunk(row, |shrunk| shrunk.naive_posterior_mean)),
    float("prob_best", |row| shrunk(row, |shrunk| shrunk.prob_best)),
    float("control_shift", |row| shrunk(row, |shrunk| shrunk.control_shift)),
    float("control_shift_sd", |row| shrunk(row, |shrunk| shrunk.control_shift_sd)),
];

fn shrunk(row: &EstimateRow, figure: fn(&ShrunkEstimate) -> Option<f64>) -> Option<f64> {
    row.shrunk.as_ref().and_then(figure)
}

/// The same, to read what a row holds.
pub(super) const RAW_COLUMNS: Columns<EstimateRow> = Columns(&[], &[RAW]);

/// What a row says of its block alone.
pub(super) fn read_raw(row: &Row) -> Result<RawEstimate, StoreError> {
    record!(RawEstimate: variant, block_revision;
        words: |row| RAW_COLUMNS.read_words(row), figures: |row| RAW_COLUMNS.read_figures(row))(row)
}

/// The same, of a row that is not written yet.
impl From<&EstimateRow> for RawEstimate {
    fn from(row: &EstimateRow) -> RawEstimate {
        RawEstimate {
            variant: row.variant.clone(),
            block_revision: row.block_revision as i64,
            words: RAW_COLUMNS.words(row),
            figures: RAW_COLUMNS.figures(row),
        }
    }
}

/// Puts in or replaces the rows of blocks that one commit changed; none of those of new experiments (their ids) should be there.
pub(super) async fn upsert(on: &mut Transaction, rows: &[EstimateRow], new: &HashSet<&str>) -> Result<u64, StoreError> {
    let sql = "insert into effect_estimates ({columns}, computed_at) select {columns}, {now} from n where true
               on conflict (population_id, experiment_id, variant) do update
               set {set from excluded}, computed_at = excluded.computed_at";
    let estimates = Columns(&[KEY], &[COMMIT, RAW, FITTED]);
    let is_new = |row: &&EstimateRow| new.contains(row.experiment_id.as_str());
    let (new, stored): (Vec<&EstimateRow>, Vec<&EstimateRow>) = rows.iter().partition(is_new);
    let target = Target::table("effect_estimates");
    let put_in = estimates.insert_or(on, "ingest: new estimates", &new, target, sql).await?;
    Ok(put_in + estimates.stage(on, "ingest: estimates", &stored, sql, NONE).await?)
}

/// Rewrites the figures of rows whose block is still the one that they were computed from and whose fit is older. A row
/// that a retraction has removed stays away.
pub(super) async fn rewrite(on: &mut Transaction, rows: &[EstimateRow]) -> Result<u64, StoreError> {
    let sql = "update effect_estimates as e set {set from n}, computed_at = {now} from n
               where e.population_id = n.population_id and e.experiment_id = n.experiment_id and e.variant = n.variant
                 and e.commit_id = n.commit_id and e.fit_id < n.fit_id";
    Columns(&[KEY, COMMIT], &[FITTED]).execute(on, "publish: estimates", rows, sql, NONE).await
}

/// A block that rows were computed from.
struct Computed {
    population: String,
    experiment_id: String,
    commit_id: i64,
    fit_id: i64,
    rows: i64,
}

const COMPUTED: Columns<Computed> = Columns::of(&[&[
    text("population_id", |block| Some(block.population.as_str().into())),
    text("experiment_id", |block| Some(block.experiment_id.as_str().into())),
    integer("commit_id", |block| Some(block.commit_id)),
    integer("fit_id", |block| Some(block.fit_id)),
    integer("variants", |block| Some(block.rows)),
]]);

/// Puts in the rows of blocks that are still those that they were computed from, and replaces those of another commit or an earlier
/// fit. The rows of a block stand together.
///
/// A block that a batch retracts or replaces meanwhile is locked by that batch or by this, in the same order: whichever comes first,
/// what the block says last is what stays. Blocks whose rows are as they should be are not locked.
pub(super) async fn put(on: &mut Transaction, rows: &[EstimateRow]) -> Result<u64, StoreError> {
    fn block(row: &EstimateRow) -> (String, String) {
        (row.population.to_string(), row.experiment_id.clone())
    }
    let computed = rows.chunk_by(|x, y| x.experiment_id == y.experiment_id && x.population == y.population);
    let computed = computed.filter_map(|rows| {
        let EstimateRow { commit_id, fit_id, .. } = *rows.first()?;
        let (population, experiment_id) = block(rows.first()?);
        Some(Computed { population, experiment_id, commit_id, fit_id, rows: rows.len() as i64 })
    });
    // What stands of each block is looked up once, before it is locked.
    let sql = "select b.population_id, b.experiment_id, n.stored > 0 as has_rows
               from (select n.population_id, n.experiment_id, n.commit_id, n.variants, count(e.variant) as stored,
                            sum(case when e.commit_id = n.commit_id and e.fit_id >= n.fit_id then 1 else 0 end) as sound
                     from n left join effect_estimates as e
                         on e.population_id = n.population_id and e.experiment_id = n.experiment_id
                     group by n.population_id, n.experiment_id, n.commit_id, n.variants) as n
               join blocks as b on b.population_id = n.population_id and b.experiment_id = n.experiment_id
                   and b.commit_id = n.commit_id
               where b.block is not null and n.sound < n.variants
               order by b.experiment_id, b.metric, b.segment, b.scale {for share of b}";
    let read = |row: &Row| Ok(((row.get("population_id")?, row.get("experiment_id")?), row.get("has_rows")?));
    let locked = COMPUTED.fetch(on, "publish: lock blocks", &computed.collect::<Vec<_>>(), sql, NONE, read).await?;
    let locked: HashMap<(String, String), bool> = locked.into_iter().collect();
    let (mut stored, mut new) = (Vec::new(), Vec::new());
    for row in rows {
        match locked.get(&block(row)) {
            Some(true) => stored.push(row),
            Some(false) => new.push(row),
            None => {}
        }
    }
    let sql = "insert into effect_estimates as e ({columns}, computed_at) select {columns}, {now} from n where true
               on conflict (population_id, experiment_id, variant) do update
               set {set from excluded}, computed_at = excluded.computed_at
               where e.commit_id <> excluded.commit_id or e.fit_id < excluded.fit_id";
    let estimates = Columns(&[KEY], &[COMMIT, RAW, FITTED]);
    let target = Target::table("effect_estimates");
    let put_in = estimates.insert_or(on, "publish: missing estimates", &new, target, sql).await?;
    Ok(put_in + estimates.stage(on, "publish: estimates of an earlier commit", &stored, sql, NONE).await?)
}

const RETIRED: Columns<RetiredEstimate> = Columns::of(&[&[
    text("population_id", |row| Some(row.population.to_string().into())),
    text("experiment_id", |row| Some(row.experiment_id.as_str().into())),
    text("variant", |row| Some(row.variant.as_str().into())),
]]);

/// Removes rows that no longer stand for anything.
pub(super) async fn retire(on: &mut Transaction, rows: &[RetiredEstimate]) -> Result<(), StoreError> {
    let sql = "delete from effect_estimates where (population_id, experiment_id, variant) in (select {columns} from n)";
    RETIRED.execute(on, "ingest: retire estimates", rows, sql, NONE).await.map(drop)
}
