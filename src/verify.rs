//! The audit of a store: everything that can be derived is recomputed and compared, in one snapshot.
//!
//! | check | what must hold |
//! | --- | --- |
//! | `blocks` | each block equals what its statistics give, bit for bit; its experiment exists, and its population is that of the grouping |
//! | `cells`, `counters` | with what is still in the log of changes, they equal the sums of the blocks, bit for bit |
//! | `fits` | the latest fits equal those of the cells, bit for bit |
//! | `estimates` | each variant of each block has exactly one row, which equals what its fit gives, and there are no others |
//! | `distances` | no estimate is further from the fit of the cells than [`furthest_from_exact`] |
//! | `offsets` | each partition continues at an offset that its source has |
//!
//! Fits and distances cannot be judged while a refit or a whole publish of the population is due. They are counted as
//! postponed then, so the audit can run beside workers at any time; likewise rows that are missing or of another commit, where
//! batches have left estimates to a pass that is due. So they are where the latest fit has failed, which is a
//! remark.
//!
//! [`furthest_from_exact`]: crate::refit::furthest_from_exact

mod blocks;
mod estimates;
mod fits;
mod offsets;
mod report;

use std::collections::BTreeMap;
use std::sync::Arc;

use shrinkd_core::{Grouping, PopulationName};
use shrinkd_model::{Correlation, available_threads, map_chunks};

pub use offsets::{Reach, file_reach};
pub use report::{Check, Difference, Report, SHOWN, Tally};

use crate::config::SettingsOf;
use crate::refit::{Fits, MOST_WITHOUT_CELLS, fit_settings, needs_cells};
use crate::row::audit::{AuditedBlock, AuditedEstimate, AuditedFit, Registered};
use crate::row::{FitStatus, PublishedFit, Statistics};
use crate::store::{Audit, StoreError};
use blocks::Blocks;
use estimates::{BlockWithRows, Exact, Expected};

/// How many blocks, or changes of the log, are held in memory at a time.
const PAGE: usize = 1_000;

/// How many blocks a thread checks at a time.
const CHUNK: usize = 64;

/// The settings with which the store should have been filled.
#[derive(Clone)]
pub struct Rules {
    pub settings: SettingsOf,
    pub grouping: Grouping,
    /// See [`PublishConfig::tolerance`](crate::config::PublishConfig).
    pub tolerance: f64,
}

/// Why an audit could not be finished.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("a computation panicked or was cancelled: {0} (a bug)")]
    Computation(#[from] tokio::task::JoinError),
}

/// Reports the progress of an audit: blocks checked so far, and in total.
pub type Progress<'a> = &'a (dyn Fn(u64, u64) + Sync);

/// Runs all checks except that of the offsets, for which see [`Report::check_offsets`].
///
/// # Errors
/// If the store cannot be read.
pub async fn verify(audit: &mut Audit, rules: &Rules, progress: Progress<'_>) -> Result<Report, VerifyError> {
    let mut report = Report::default();
    let ids = audit.population_ids().await?;
    // Each block is read twice: for the cells, and for the estimates.
    let all = 2 * u64::try_from(audit.count_blocks().await?).unwrap_or(0);
    for experiment_id in audit.without_population().await? {
        report.differs(Check::Blocks, experiment_id, "population_id", "none", "a population: it is no holdout");
    }
    let mut walk = Walk { audit, rules, progress, done: 0, all };
    for id in ids {
        report.merge(walk.population(&id).await?);
    }
    Ok(report)
}

/// An audit in progress, population by population.
struct Walk<'a> {
    audit: &'a mut Audit,
    rules: &'a Rules,
    progress: Progress<'a>,
    done: u64,
    all: u64,
}

impl Walk<'_> {
    async fn population(&mut self, id: &str) -> Result<Report, VerifyError> {
        let population = self.audit.population(id).await?;
        let blocks = self.blocks(id).await?;
        let mut report = Report::default();
        let changes = self.changes(id, &mut report).await?;
        fits::check_cells(id, &population, &changes, &blocks, &mut report);
        let registered = population.registered.clone().unwrap_or_default();
        let mut counters = registered.counters;
        counters.add(&changes.counters);
        fits::check_counters(id, &registered, &changes, &blocks, &mut report);
        let Ok(name) = id.parse::<PopulationName>() else {
            report.differs(Check::Blocks, id, "population_id", id, "the name of a population");
            report.merge(blocks.report);
            return Ok(report);
        };
        // A population whose only blocks are sums that cannot be estimated yet needs no row.
        if population.registered.is_none() && (counters.changes != 0 || blocks.experiments > 0) {
            report.differs(Check::Counters, id, "populations", "no row", "the row of the population");
        }
        if needs_cells(registered.counters.experiments) && !registered.has_cells {
            report.differs(
                Check::Cells,
                id,
                "has_cells",
                false,
                format!("true beyond {MOST_WITHOUT_CELLS} experiments"),
            );
        }
        // If no refit is due, the latest fit is the fit of the cells under these settings.
        let has_these_settings = self.has_these_settings(&name, &registered, &mut report);
        let is_fitted = changes.counters.changes == 0 && !registered.is_refit_due && has_these_settings;
        let experiments = counters.experiments;
        let fresh = self.refit(&name, experiments, &blocks).await?;
        // A fit that failed in one build, or for the store's sake, need not fail here.
        let failed = population.fits.iter().find(|fit| fit.status == FitStatus::Failed.as_str());
        let is_fitted = is_fitted && failed.is_none();
        if let Some(AuditedFit { message, .. }) = failed {
            let why = message.as_deref().unwrap_or("no reason is stored");
            report.remarks.push(format!("{name} could not be fitted, and keeps its earlier estimates: {why}"));
        }
        match is_fitted {
            true if counters.changes == 0 => {}
            true => fits::check_fits(id, &population, &fresh, registered.published_fit_id, experiments, &mut report),
            false => report.postponed(Check::Fits, Correlation::ALL.len()),
        }
        report.merge(blocks.report);
        let exact = (is_fitted && !registered.is_publish_due)
            .then(|| Exact { judged: fresh.judged, nodes: fresh.fits[Correlation::Modelled as usize].nodes.clone() });
        let Registered { unpublished, pass_unpublished, is_refit_due, is_publish_due, .. } = registered;
        if !(0..=unpublished).contains(&pass_unpublished) {
            report.differs(Check::Counters, id, "pass_unpublished", pass_unpublished, format!("0 to {unpublished}"));
        }
        if unpublished > 0 && !is_refit_due && !is_publish_due {
            report.differs(Check::Counters, id, "unpublished", unpublished, "0: neither a refit nor a pass is due");
        }
        report.merge(self.estimates(id, name, &registered, exact).await?);
        Ok(report)
    }

    /// Whether the latest fit was made with the settings that the configuration has.
    fn has_these_settings(&self, name: &PopulationName, registered: &Registered, report: &mut Report) -> bool {
        let own = fit_settings(&(self.rules.settings)(name), self.rules.tolerance);
        match &registered.fit_settings {
            Some(stored) if *stored != own => {
                report.remarks.push(format!(
                    "{name} was fitted with `{stored}`, but the configuration has `{own}`: a worker refits at its start"
                ));
                false
            }
            _ => true,
        }
    }

    /// What the changes that no refit has seen yet add to the statistics of a population.
    async fn changes(&mut self, id: &str, report: &mut Report) -> Result<Statistics, VerifyError> {
        let (mut sum, mut after) = (Statistics::default(), (0, 0));
        loop {
            let page = self.audit.changes_after(id, after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(sum) };
            after = (last.transaction_id, last.change_id);
            fits::add_changes(id, &page, &mut sum, report);
        }
    }

    /// Checks the blocks of a population, and sums them.
    async fn blocks(&mut self, id: &str) -> Result<Blocks, VerifyError> {
        let mut all = Blocks::default();
        let mut after = String::new();
        loop {
            let (page, is_last) = self.page(id, &after).await?;
            let Some(last) = page.last() else { return Ok(all) };
            after.clone_from(&last.experiment_id);
            let (id, grouping) = (id.to_owned(), self.rules.grouping.clone());
            let parts = tokio::task::spawn_blocking(move || {
                map_chunks(&page, CHUNK, available_threads(), |blocks| Blocks::of(&id, blocks, &grouping))
            });
            parts.await?.into_iter().for_each(|part| all.merge(part));
            if is_last {
                return Ok(all);
            }
        }
    }

    /// The next blocks, without splitting an experiment, and whether they are the last.
    async fn page(&mut self, id: &str, after: &str) -> Result<(Vec<AuditedBlock>, bool), VerifyError> {
        let mut page = self.audit.blocks_after(id, after, PAGE).await?;
        let is_last = page.len() < PAGE;
        if !is_last && let Some(last) = page.last().map(|block| block.experiment_id.clone()) {
            // A population has one block per experiment. If damage left more, they have to be on the same page.
            let whole = page.iter().position(|block| block.experiment_id == last).unwrap_or(0);
            page.truncate(if whole > 0 { whole } else { page.len() });
        }
        self.done += page.len() as u64;
        (self.progress)(self.done, self.all.max(self.done));
        Ok((page, is_last))
    }

    /// Fits the sum of the blocks.
    async fn refit(&self, name: &PopulationName, experiments: i64, blocks: &Blocks) -> Result<Fits, VerifyError> {
        let sketches = blocks.sketches.clone();
        let settings = (self.rules.settings)(name);
        Ok(tokio::task::spawn_blocking(move || Fits::new(&sketches, experiments, &settings)).await?)
    }

    async fn estimates(
        &mut self,
        id: &str,
        name: PopulationName,
        registered: &Registered,
        exact: Option<Exact>,
    ) -> Result<Report, VerifyError> {
        let mut report = Report::default();
        let mut expected = Expected {
            population: name,
            published_fit_id: registered.published_fit_id,
            is_publish_due: registered.is_publish_due,
            has_unpublished: registered.unpublished > 0 || registered.is_log_unpublished,
            fits: BTreeMap::from([(0, Some(Arc::new(PublishedFit::none())))]),
            exact,
            tolerance: self.rules.tolerance,
        };
        let mut after = String::new();
        loop {
            let (page, is_last) = self.page(id, &after).await?;
            let to = page.last().map(|block| block.experiment_id.clone()).filter(|_| !is_last);
            let rows = self.audit.estimates_between(id, &after, to.as_deref()).await?;
            for row in &rows {
                if !expected.fits.contains_key(&row.fit_id) {
                    let fit = self.fit(&expected.population, row.fit_id, &mut report).await?;
                    expected.fits.insert(row.fit_id, fit);
                }
            }
            let (page, orphans) = join(page, rows);
            orphans.iter().for_each(|row| expected.orphan(row, &mut report));
            let judged = tokio::task::spawn_blocking(move || {
                let parts = map_chunks(&page, CHUNK, available_threads(), |blocks| expected.check(blocks));
                (parts, expected)
            });
            let parts;
            (parts, expected) = judged.await?;
            parts.into_iter().for_each(|part| report.merge(part));
            match to {
                Some(to) => after = to,
                None => return Ok(report),
            }
        }
    }

    /// A fit of the history. A damaged one is reported as a difference, and does not end the audit.
    async fn fit(
        &mut self,
        name: &PopulationName,
        fit_id: i64,
        report: &mut Report,
    ) -> Result<Option<Arc<PublishedFit>>, VerifyError> {
        match self.audit.published_fit(name, fit_id).await {
            Ok(fit) => Ok(fit.map(Arc::new)),
            Err(StoreError::Damaged { column, detail }) => {
                report.differs(Check::Fits, format!("{name} fit {fit_id}"), column, detail, "a fit that can be read");
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Pairs each block with the rows of its experiment, and returns the rows without a block. Both are sorted by experiment.
fn join(blocks: Vec<AuditedBlock>, rows: Vec<AuditedEstimate>) -> (Vec<BlockWithRows>, Vec<AuditedEstimate>) {
    let mut by_experiment: BTreeMap<String, Vec<AuditedEstimate>> = BTreeMap::new();
    for row in rows {
        by_experiment.entry(row.experiment_id.clone()).or_default().push(row);
    }
    let with_rows = |block: AuditedBlock| {
        let rows = by_experiment.remove(&block.experiment_id).unwrap_or_default();
        (block, rows)
    };
    let blocks = blocks.into_iter().map(with_rows).collect();
    (blocks, by_experiment.into_values().flatten().collect())
}
