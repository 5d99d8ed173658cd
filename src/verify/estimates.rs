//! Checks of estimates: each variant of each block has one row, which equals what its fit gives and is close enough to exact.

use std::collections::BTreeMap;
use std::sync::Arc;

use shrinkd_core::{Measured, PopulationName};
use shrinkd_model::{BlockPosterior, Node};

use super::blocks::stored_block;
use super::report::{Check, Report, figure, is_same};
use crate::estimate::BlockEstimates;
use crate::refit::Judged;
use crate::row::audit::{AuditedBlock, AuditedEstimate};
use crate::row::{BlockToEstimate, EstimateRow, FitStatus, PublishedFit};
use crate::store::audit::{estimate_figures, estimate_words, posterior_mean, raw_figure_count};

/// The tolerance of a figure that follows from its fit, relative to the figure or to the posterior sd, whichever is larger.
const RELATIVE: f64 = 1e-9;

/// What the estimates of a population are compared with.
pub(super) struct Expected {
    pub population: PopulationName,
    pub published_fit_id: Option<i64>,
    /// Whether rows may still have an earlier fit.
    pub is_publish_due: bool,
    /// Whether rows of blocks may be missing, or be of an earlier commit, because they are left to a pass.
    pub has_unpublished: bool,
    /// The fits that rows refer to; `None` if the history has no such fit.
    pub fits: BTreeMap<i64, Option<Arc<PublishedFit>>>,
    /// The fit of the cells; `None` if a refit or publish is due, so that estimates may lag behind.
    pub exact: Option<Exact>,
    pub tolerance: f64,
}

/// The fit of a population's cells.
pub(super) struct Exact {
    pub judged: Judged,
    /// With the correlation modelled.
    pub nodes: Vec<Node>,
}

/// A block and the rows of its experiment.
pub(super) type BlockWithRows = (AuditedBlock, Vec<AuditedEstimate>);

impl Expected {
    /// Checks the estimates of some blocks.
    pub fn check(&self, blocks: &[BlockWithRows]) -> Report {
        let mut report = Report::default();
        for (block, rows) in blocks {
            self.check_block(block, rows, &mut report);
        }
        report
    }

    /// Reports a row without a block.
    pub fn orphan(&self, row: &AuditedEstimate, report: &mut Report) {
        report.compared(Check::Estimates, 1);
        let at = format!("{} {} {}", self.population, row.experiment_id, row.variant);
        report.differs(Check::Estimates, at, "row", "a row", "none: no block has this variant");
    }

    fn check_block(&self, block: &AuditedBlock, rows: &[AuditedEstimate], report: &mut Report) {
        // A block that cannot be read has been reported already. A sum of parts that cannot be estimated yet has no rows.
        let measured = match (stored_block(block), &block.block) {
            (None, Some(_)) => return,
            (None, None) => return rows.iter().for_each(|row| self.orphan(row, report)),
            (Some(measured), _) => measured,
        };
        let to_estimate = BlockToEstimate {
            population: self.population.clone(),
            experiment_id: block.experiment_id.clone(),
            revision: block.revision as u64,
            measured,
            properties: block.properties,
            shipped_variant: block.shipped_variant.clone(),
        };
        let measured = &to_estimate.measured;
        let mut rows: BTreeMap<&str, &AuditedEstimate> = rows.iter().map(|row| (row.variant.as_str(), row)).collect();
        let mut by_fit: BTreeMap<i64, Vec<EstimateRow>> = BTreeMap::new();
        let exact = self.exact.as_ref().filter(|exact| exact.judged.status == FitStatus::Fitted);
        let exact =
            exact.map(|exact| (BlockPosterior::new(&measured.block, &exact.nodes), self.bound(exact, measured)));
        for (i, variant) in measured.variants.iter().enumerate() {
            let at = format!("{} {} {variant}", self.population, block.experiment_id);
            let row = rows.remove(variant.as_str());
            if self.has_unpublished && row.is_none_or(|row| row.commit_id != block.commit_id) {
                report.postponed(Check::Estimates, 1);
                report.postponed(Check::Distances, 1);
                continue;
            }
            report.compared(Check::Estimates, 1);
            let Some(row) = row else {
                report.differs(Check::Estimates, at, "row", "no row", "the estimate of this variant");
                continue;
            };
            self.check_provenance(&at, block, row, report);
            if let Some(Some(fit)) = self.fits.get(&row.fit_id) {
                let estimates = || BlockEstimates::new(&to_estimate, block.commit_id, fit).rows;
                let expected = by_fit.entry(row.fit_id).or_insert_with(estimates);
                check_row(&at, row, &expected[i], report);
            }
            self.check_distance(
                &at,
                row,
                exact.as_ref().map(|(posterior, bound)| (posterior.estimate(i), *bound)),
                report,
            );
        }
        rows.values().for_each(|row| self.orphan(row, report));
    }

    /// Checks the block and the fit that a row refers to.
    fn check_provenance(&self, at: &str, block: &AuditedBlock, row: &AuditedEstimate, report: &mut Report) {
        for (what, stored, expected) in
            [("block_revision", row.block_revision, block.revision), ("commit_id", row.commit_id, block.commit_id)]
        {
            if stored != expected {
                report.differs(Check::Estimates, at, what, stored, expected);
            }
        }
        let published = self.published_fit_id.unwrap_or(0);
        if row.fit_id != published && !self.is_publish_due {
            report.differs(Check::Estimates, at, "fit_id", row.fit_id, format!("{published}, the published fit"));
        } else if matches!(self.fits.get(&row.fit_id), None | Some(None)) {
            report.differs(Check::Estimates, at, "fit_id", row.fit_id, "a fit of the history that can be read");
        }
    }

    /// Checks the distance of a row from the fit of the cells, in posterior sds.
    fn check_distance(
        &self,
        at: &str,
        row: &AuditedEstimate,
        exact: Option<(shrinkd_model::Estimate, f64)>,
        report: &mut Report,
    ) {
        let Some(Exact { judged, .. }) = &self.exact else {
            return report.postponed(Check::Distances, 1);
        };
        report.compared(Check::Distances, 1);
        if row.status != judged.status.as_str() {
            return report.differs(Check::Distances, at, "status", &row.status, judged.status.as_str());
        }
        let (Some((exact, bound)), Some(mean)) = (exact, posterior_mean(row)) else { return };
        let distance = (mean - exact.mean).abs() / exact.sd;
        report.largest_share = report.largest_share.max(distance / bound);
        // NaN is beyond every bound.
        if distance.is_nan() || distance > bound {
            let expected = format!("{:?}, to {bound:.3} posterior sds (it is {distance:.3} away)", exact.mean);
            report.differs(Check::Distances, at, "posterior_mean", figure(Some(mean)), expected);
        }
    }

    fn bound(&self, exact: &Exact, measured: &Measured) -> f64 {
        exact.judged.furthest_from_exact(self.tolerance, &measured.block)
    }
}

fn word(word: Option<&str>) -> &str {
    word.unwrap_or("null")
}

fn check_row(at: &str, row: &AuditedEstimate, expected: &EstimateRow, report: &mut Report) {
    for (stored, (name, expected)) in row.words.iter().zip(estimate_words(expected)) {
        if *stored != expected {
            report.differs(Check::Estimates, at, name, word(stored.as_deref()), word(expected.as_deref()));
        }
    }
    let sd = expected.shrunk.map_or(0.0, |shrunk| shrunk.posterior_sd);
    for (i, (stored, (name, expected))) in row.figures.iter().zip(estimate_figures(expected)).enumerate() {
        let is_near = match (*stored, expected) {
            (Some(x), Some(y)) if i >= raw_figure_count() => (x - y).abs() <= RELATIVE * x.abs().max(y.abs()).max(sd),
            (x, y) => is_same(x, y),
        };
        if !is_near {
            report.differs(Check::Estimates, at, name, figure(*stored), figure(expected));
        }
    }
}
