//! The diagnostics of a population that need every block, accumulated in one pass.

use std::borrow::Cow;

use shrinkd_core::{Grouping, Measured, PopulationName, ShippedDecisions};
use shrinkd_model::{
    BlockPass, BlockPosterior, Calibration, Correlation, DataScale, Diagnostics, Fit, LeaveOneOuts, MedianError,
    Member, Method, Miscalibration, MixUp, Prediction, Priors, Quantity, Selection, SketchLikelihood, Sketches,
    Thresholds, Verdict, available_threads, map_chunks,
};
use tracing::{info, warn};

use crate::estimate::BlockEstimates;
use crate::refit::RefitState;
use crate::row::{BlockToEstimate, BlockToPublish, CellDiagnostics, PassDiagnostics};

/// How many blocks a thread estimates at a time.
pub(super) const CHUNK: usize = 64;

/// Number of likely mix-ups of a population that are logged one by one.
const NAMED_MIX_UPS: usize = 5;

/// The diagnostics of a population, accumulated block by block.
pub(super) struct Diagnosis {
    grouping: Grouping,
    shipped_decisions: ShippedDecisions,
    sketches: Sketches,
    scale: DataScale,
    priors: Priors,
    /// In the order of [`Correlation::ALL`]; those with the correlation modelled and ignored exist.
    fits: [Option<Fit>; Correlation::COUNT],
    /// Whether the first two of them are one.
    has_independent_effects: bool,
    cells: CellDiagnostics,
    pass: BlockPass,
    median_error: Option<MedianError>,
    mix_ups: u64,
    has_mix_ups_of_units: bool,
    /// The first of them, with experiment and variant.
    named_mix_ups: Vec<(String, String, MixUp)>,
    experiments: u64,
    decided: u64,
    shipped: u64,
}

impl Diagnosis {
    /// `None` if the block model or the naive one has no posterior, because there is nothing to compare then.
    pub fn new(
        state: RefitState,
        priors: Priors<Quantity>,
        grouping: Grouping,
        shipped_decisions: ShippedDecisions,
    ) -> Option<Diagnosis> {
        let sketches = state.statistics.sketches;
        let likelihoods = Correlation::ALL.map(|correlation| SketchLikelihood::new(&sketches.of(correlation)));
        let scale = DataScale::new(&sketches.of(Correlation::Ignored))?;
        let priors = priors.resolve(Some(&scale)).ok()?;
        let fits = sketches.map_distinct(&priors.icc, |correlation| {
            Fit::of(&sketches, correlation, &likelihoods[correlation as usize], &priors, Method::Quadrature).ok()
        });
        let [Some(fit), _, Some(naive), _] = &fits else { return None };
        let [likelihood, _, naive_likelihood, _] = &likelihoods;
        let cells = Diagnostics::new(&sketches, (likelihood, &fit.posterior), (naive_likelihood, &naive.posterior));
        Some(Diagnosis {
            grouping,
            shipped_decisions,
            has_independent_effects: fit.has_independent_effects(),
            pass: BlockPass::new(fit)?,
            median_error: MedianError::new(&sketches.of(Correlation::Ignored)),
            sketches,
            scale,
            priors,
            fits,
            cells,
            mix_ups: 0,
            has_mix_ups_of_units: false,
            named_mix_ups: Vec::new(),
            experiments: 0,
            decided: 0,
            shipped: 0,
        })
    }

    pub fn add(&mut self, blocks: &[BlockToPublish], estimates: &[BlockEstimates]) {
        let Some(empty) = self.fits[Correlation::Modelled as usize].as_ref().and_then(BlockPass::new) else { return };
        let fits = self.fits.each_ref().map(Option::as_ref);
        let leave_one_outs = LeaveOneOuts::new(&self.sketches, &self.priors, fits);
        let estimated: Vec<_> = blocks.iter().zip(estimates).collect();
        let chunks = map_chunks(&estimated, CHUNK, available_threads(), |blocks| {
            let mut pass = empty.clone();
            let predictions = blocks.iter().map(|(to_publish, estimates)| {
                self.add_block(&leave_one_outs, &to_publish.block, estimates, &mut pass)
            });
            (predictions.collect::<Vec<_>>(), pass)
        });
        let mut predictions = Vec::with_capacity(blocks.len());
        for (of_chunk, pass) in chunks {
            predictions.extend(of_chunk);
            self.pass.merge(&pass);
        }
        for (BlockToPublish { block, decision, .. }, predictions) in blocks.iter().zip(predictions) {
            self.look_for_mix_ups(block, predictions.as_deref());
            self.experiments += 1;
            self.decided += u64::from(decision.is_some());
            let is_shipped = |decision: &String| self.shipped_decisions.contains(decision);
            self.shipped += u64::from(decision.as_ref().is_some_and(is_shipped));
        }
    }

    /// Adds a block to a pass. What the other experiments predict for its effects, if they do.
    fn add_block(
        &self,
        leave_one_outs: &LeaveOneOuts<'_>,
        block: &BlockToEstimate,
        estimates: &BlockEstimates,
        pass: &mut BlockPass,
    ) -> Option<Vec<Prediction>> {
        let Measured { variants, block: effects, .. } = &block.measured;
        let chosen = self.grouping.chosen_variant(&block.experiment_id, variants);
        // A block that is stored was a member of its population.
        let direction = estimates.rows.first().and_then(|row| row.direction).unwrap_or_default();
        let member = Member::new(effects.clone(), chosen).ok()?.with_direction(direction);
        let of = |correlation: Correlation| {
            let fit = self.fits[correlation as usize].as_ref();
            fit.map(|fit| BlockPosterior::new(&member.under(correlation), &fit.nodes).estimates()).unwrap_or_default()
        };
        let control_only = match self.has_independent_effects || member.block().len() == 1 {
            true => Cow::Borrowed(&estimates.modelled),
            false => Cow::Owned(of(Correlation::ControlOnly)),
        };
        let one = of(Correlation::OnePerExperiment);
        let left_out = leave_one_outs.predict(&member, Correlation::Modelled);
        let scores = leave_one_outs.scores(&member, left_out.as_ref());
        let predictions = left_out.map(|left_out| left_out.predictions);
        let estimates = [&*estimates.modelled, &*control_only, &*estimates.naive, &*one];
        pass.add(&member, estimates, scores, predictions.as_deref().unwrap_or_default());
        predictions
    }

    fn look_for_mix_ups(&mut self, block: &BlockToEstimate, predictions: Option<&[Prediction]>) {
        let Some(median_error) = self.median_error else { return };
        let Measured { variants, block: effects, .. } = &block.measured;
        for (i, variant) in variants.iter().enumerate() {
            let prediction = predictions.and_then(|predictions| predictions.get(i).copied());
            let Some(mix_up) = median_error.judge(effects, i, prediction) else { continue };
            self.mix_ups += 1;
            self.has_mix_ups_of_units |= mix_up.is_of_units();
            if self.named_mix_ups.len() < NAMED_MIX_UPS {
                self.named_mix_ups.push((block.experiment_id.clone(), variant.clone(), mix_up));
            }
        }
    }

    /// Whether the population as a whole looks as if it had been sent in another unit.
    fn mix_up_of_all(&self) -> Option<MixUp> {
        let median = self.median_error.filter(|_| self.mix_ups == 0)?;
        let fit = self.fits[Correlation::Modelled as usize].as_ref()?;
        median.judge_population(&fit.posterior, &self.scale)
    }

    /// Logs what was likely sent in another unit.
    fn warn_of_mix_ups(&self, population: &PopulationName, of_all: Option<MixUp>) {
        if let Some(mix_up) = of_all {
            warn!(%population, %mix_up, "a likely mix-up of the whole population");
        }
        for (experiment_id, variant, mix_up) in &self.named_mix_ups {
            warn!(%population, experiment_id, variant, %mix_up, "a likely mix-up; nothing is left out");
        }
        if let Some(more) = self.mix_ups.checked_sub(NAMED_MIX_UPS as u64).filter(|more| *more > 0) {
            warn!(%population, more, "there are more likely mix-ups");
        }
    }

    /// The diagnostics, once all blocks were added; `None` without any.
    pub fn finish(
        self,
        population: &PopulationName,
        thresholds: &Thresholds,
    ) -> Option<(CellDiagnostics, PassDiagnostics)> {
        if self.experiments == 0 {
            return None;
        }
        let mix_up_of_all = self.mix_up_of_all();
        self.warn_of_mix_ups(population, mix_up_of_all);
        let BlockPass { consequences, misfit, selection, calibration } = &self.pass;
        let (verdict, verdict_rests_on, verdict_value) = self.pass.verdict(thresholds);
        let calibration = Calibration::new(calibration);
        let selection = Selection::new(&self.sketches.of(Correlation::Ignored), selection);
        let is_selected = selection.as_ref().is_some_and(Selection::is_suspected);
        let has_mix_ups = self.has_mix_ups_of_units || mix_up_of_all.is_some();
        let known = Miscalibration::known(is_selected, has_mix_ups, verdict == Verdict::Misfit);
        let cause = calibration.and_then(|calibration| calibration.cause(known));
        if let Some(cause) = cause {
            // One in a hundred honest populations is out of a bound.
            info!(%population, cause = cause.as_str(), "predictions are not borne out: {cause}");
        }
        if let Some(selection) = selection.filter(Selection::is_suspected) {
            warn!(%population, log_lr = selection.log_lr, eta = selection.eta, "{selection}");
        }
        let likelihood = |correlation| SketchLikelihood::new(&self.sketches.of(correlation));
        let pass = PassDiagnostics {
            experiments: self.experiments,
            deff: consequences.deff(),
            deff_control: consequences.deff_control(),
            naive_coverage: consequences.naive_coverage(),
            rmse_excess: consequences.rmse_excess(),
            changed_decisions: consequences.changed_decisions(),
            changed_decision_share: consequences.changed_decision_share(),
            value_given_up: consequences.value_given_up(),
            risk: Correlation::ALL.map(|correlation| misfit.risk(correlation)),
            score: Correlation::ALL.map(|correlation| misfit.score(correlation)),
            largest_correlation: consequences.largest_correlation(),
            largest_estimate_shift: consequences.largest_estimate_shift(),
            sign_calls: consequences.sign_calls(),
            sign_flips: consequences.sign_flips(),
            sign_flip_share: consequences.sign_flip_share(),
            hausman_z: consequences.hausman_z(
                &self.sketches,
                &likelihood(Correlation::Modelled),
                &likelihood(Correlation::Ignored),
            ),
            calibration,
            calibration_cause: cause,
            selection,
            mix_ups: self.mix_ups,
            shipped_share: (self.decided > 0).then(|| self.shipped as f64 / self.experiments as f64),
            verdict,
            verdict_rests_on,
            verdict_value,
        };
        Some((self.cells, pass))
    }
}
