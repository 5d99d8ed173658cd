//! Statements on the statistics of populations: what a refit starts from, and what it leaves.

use std::collections::BTreeMap;

use shrinkd_core::PopulationName;
use shrinkd_model::Sketches;

use super::StoreError;
use super::cells::{self, CellRow};
use super::columns::{Column, Columns, NONE, boolean, float, integer, json, text};
use super::database::Transaction;
use super::query::{Row, record, values};
use crate::refit::{Judged, MOST_CHANGES, Publication, RefitState, Unpublished};
use crate::row::{Counters, Statistics};

/// How long a population whose publish is postponed waits for its next refit, s. Where batches have been far behind, a pass begins as
/// soon as none of them has changed anything for so long.
const POSTPONED: f64 = 0.5;

/// The same where another pass of the population is under way, whose end makes the refit due at once. Thousands of populations may
/// be waiting for theirs: refits meanwhile would only keep them waiting longer.
const UNTIL_PASS_ENDS: f64 = 600.0;

/// How long one that could not be refitted waits, s.
const FAILED: f64 = 10.0;

/// The populations as their latest refits have left them, without cells, and how many changes they have in the log.
pub(super) async fn read_populations(
    on: &mut Transaction,
    populations: &[String],
    floor: i64,
) -> Result<BTreeMap<PopulationName, RefitState>, StoreError> {
    let sql = format!(
        "select p.population_id, p.has_cells, p.changes, p.experiments, p.effects,
                cast(p.block_sizes as text) as block_sizes,
                coalesce(p.refit_due_at <= {{now}}, false) as is_due, p.refit_due_at is not null as has_waited,
                (select count(*)
                 from (select 1 from block_changes as c
                       where c.population_id = p.population_id
                           and c.transaction_id >= case when p.refit_due_at is null then $2 else 0 end
                       limit {MOST_CHANGES} + 1) as c) as logged,
                p.publish_cursor is not null as is_publishing,
                p.unpublished - p.pass_unpublished as waiting, {{s since p.unpublished_at}} as waited,
                (select f.message from current_population_fits as f
                 where f.population_id = p.population_id and f.correlation = 'modelled') as message,
                f.status, coalesce(f.mu_mean, f.mu_median) as mu, f.mu_sd, f.tau_median, f.log_tau_sd, f.icc_mean,
                f.icc_sd, f.direction
         from populations as p
         left join population_fits as f
             on f.population_id = p.population_id and f.fit_id = p.published_fit_id and f.correlation = 'modelled'
         where p.population_id {{any $1}}"
    );
    let counters = record!(Counters: changes, experiments, effects);
    let judged =
        record!(Judged: status, mu, mu_sd, tau = "tau_median", log_tau_sd, icc = "icc_mean", icc_sd, direction);
    let read = |row: &Row| {
        let is_published = row.get::<Option<String>>("status")?.is_some();
        let mut sketches = Sketches::default();
        let sizes: BTreeMap<u32, i64> = row.json("populations", "block_sizes")?;
        sizes.into_iter().for_each(|(variants, blocks)| sketches.count(variants, blocks));
        let state = RefitState {
            statistics: Statistics { counters: counters(row)?, sketches },
            has_cells: row.get("has_cells")?,
            is_due: row.get("is_due")?,
            has_waited: row.get("has_waited")?,
            logged: row.get("logged")?,
            published: if is_published { Some(judged(row)?) } else { None },
            is_publishing: row.get("is_publishing")?,
            message: row.get("message")?,
            unpublished: Unpublished {
                waiting: row.get("waiting")?,
                waited: row.get("waited")?,
                ..Unpublished::default()
            },
            ..RefitState::default()
        };
        Ok((row.get("population_id")?, state))
    };
    let states = on.query("refit: read populations", sql, values![populations.to_vec(), floor]).all(read).await?;
    Ok(states.into_iter().collect())
}

/// Adds the cells of those populations that have some.
pub(super) async fn read_cells(
    on: &mut Transaction,
    states: &mut BTreeMap<PopulationName, RefitState>,
) -> Result<(), StoreError> {
    let with_cells: Vec<String> =
        states.iter().filter(|(_, state)| state.has_cells).map(|(name, _)| name.to_string()).collect();
    if with_cells.is_empty() {
        return Ok(());
    }
    for (population, sketches) in cells::read(on, with_cells).await? {
        if let Some(state) = states.get_mut(&population) {
            state.statistics.sketches.merge(&sketches);
        }
    }
    Ok(())
}

/// What the row of a population says after a refit.
pub(super) struct Noted {
    pub population: PopulationName,
    pub has_cells: bool,
    pub counters: Counters,
    /// As JSON.
    pub block_sizes: String,
    /// `None` where it was not fitted.
    pub fit_settings: Option<String>,
    /// In how many seconds its next refit is due even if nothing changes.
    pub due_in: Option<f64>,
    /// Changes whose estimates are left to a pass, which this refit has seen first.
    pub new_unpublished: i64,
    /// The fit that is published with it.
    pub published_fit_id: Option<i64>,
    /// Whether a pass is to begin with the first block.
    pub begins_pass: bool,
}

const NOTED_KEY: &[Column<Noted>] = &[text("population_id", |row| Some(row.population.to_string().into()))];

const GIVEN: &[Column<Noted>] = &[
    text("fit_settings", |row| row.fit_settings.as_deref().map(Into::into)),
    float("due_in", |row| row.due_in),
    integer("new_unpublished", |row| Some(row.new_unpublished)),
    integer("published_fit_id", |row| row.published_fit_id),
    boolean("begins_pass", |row| Some(row.begins_pass)),
];

const NOTED: &[Column<Noted>] = &[
    boolean("has_cells", |row| Some(row.has_cells)),
    integer("changes", |row| Some(row.counters.changes)),
    integer("experiments", |row| Some(row.counters.experiments)),
    integer("effects", |row| Some(row.counters.effects)),
    json("block_sizes", |row| Some(row.block_sizes.as_str().into())),
];

pub(super) fn due_in(publication: &Publication, state: &RefitState) -> Option<f64> {
    match publication {
        Publication::Postponed if state.is_publishing => Some(UNTIL_PASS_ENDS),
        Publication::Postponed => Some(POSTPONED),
        Publication::Failed { .. } => Some(FAILED),
        Publication::NotDue | Publication::Due(_) | Publication::Pass => None,
    }
}

/// Where a population cannot be refitted, a pass writes what batches have left to it all the same.
pub(super) fn begins_pass(publication: &Publication, state: &RefitState) -> bool {
    match publication {
        Publication::Due(_) | Publication::Pass => true,
        Publication::Failed { is_pass_due } => *is_pass_due && !state.is_publishing,
        Publication::NotDue | Publication::Postponed => false,
    }
}

impl Noted {
    pub fn new(population: &PopulationName, state: &RefitState) -> Noted {
        Noted {
            population: population.clone(),
            has_cells: state.has_cells,
            counters: state.statistics.counters,
            block_sizes: block_sizes(&state.statistics.sketches),
            fit_settings: None,
            due_in: None,
            new_unpublished: state.unpublished.new,
            published_fit_id: None,
            begins_pass: false,
        }
    }
}

/// How many blocks there are of each number of variants from two on, as JSON.
fn block_sizes(sketches: &Sketches) -> String {
    serde_json::to_string(sketches.sizes()).unwrap_or_else(|_| "{}".to_owned())
}

pub(super) async fn note(on: &mut Transaction, rows: &[Noted]) -> Result<(), StoreError> {
    let sql = "update populations as p
               set {set from n}, fit_settings = coalesce(n.fit_settings, p.fit_settings), changed_at = {clock},
                   refit_due_at = {s from now n.due_in}, unpublished = p.unpublished + n.new_unpublished,
                   unpublished_at = case when n.new_unpublished > 0 and p.unpublished_at is null then {now}
                                         else p.unpublished_at end,
                   published_fit_id = coalesce(n.published_fit_id, p.published_fit_id),
                   publish_cursor = case when n.begins_pass then '' else p.publish_cursor end,
                   pass_owner = case when n.begins_pass then null else p.pass_owner end,
                   pass_touched_at = case when n.begins_pass then null else p.pass_touched_at end
               from n where p.population_id = n.population_id";
    Columns(&[NOTED_KEY, GIVEN], &[NOTED]).execute(on, "refit: note", rows, sql, NONE).await.map(drop)
}

/// Writes the statistics of populations, each of which has to be fitted after that: counts, and cells of those that have some.
pub(super) async fn write_statistics(
    on: &mut Transaction,
    states: &BTreeMap<PopulationName, RefitState>,
) -> Result<(), StoreError> {
    let rows: Vec<Noted> =
        states.iter().map(|(name, state)| Noted { due_in: Some(0.0), ..Noted::new(name, state) }).collect();
    note(on, &rows).await?;
    let cells: Vec<CellRow> = states.iter().flat_map(|(name, state)| cells_to_write(name, state)).collect();
    cells::write(on, &cells).await.map(drop)
}

/// The cells of a population that are not stored as they are now, part by part.
pub(super) fn cells_to_write(population: &PopulationName, state: &RefitState) -> Vec<CellRow> {
    if !state.has_cells {
        return Vec::new();
    }
    let changed = state.changed_parts.iter().map(|&part| {
        let moments = state.statistics.sketches.cells_to_bytes(part);
        CellRow { population: population.clone(), part, moments }
    });
    changed.collect()
}
