//! The diagnostics of a population that need every block, accumulated in one pass.

use shrinkd_core::{Grouping, Measured, PopulationName, ShippedDecisions};
use shrinkd_model::{
    BlockPosterior, Calibration, Consequences, Correlation, DataScale, Diagnostics, Estimate, Fit, LeaveOneOuts,
    LeftOut, MedianError, Member, Method, Misfit, MixUp, Prediction, Priors, Quantity, Selection, SelectionCounts,
    SketchLikelihood, Sketches, Thresholds, Verdict, available_threads, map_chunks,
};
use tracing::warn;

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
    /// In the order of [`Correlation::ALL`]; the first two exist.
    fits: [Option<Fit>; 3],
    cells: CellDiagnostics,
    consequences: Consequences,
    misfit: Misfit,
    /// One list for each experiment.
    predictions: Vec<Vec<Prediction>>,
    selection: SelectionCounts,
    median_error: Option<MedianError>,
    mix_ups: u64,
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
        let sketches = state.sketches;
        let likelihoods = Correlation::ALL.map(|correlation| SketchLikelihood::new(sketches.of(correlation)));
        let scale = DataScale::new(sketches.of(Correlation::Ignored))?;
        let priors = priors.resolve(Some(&scale)).ok()?;
        let fits = likelihoods.each_ref().map(|likelihood| Fit::new(likelihood, &priors, Method::Quadrature).ok());
        let [Some(fit), Some(naive), _] = &fits else { return None };
        let cells = Diagnostics::new(
            (sketches.of(Correlation::Modelled), &likelihoods[0], &fit.posterior),
            (&likelihoods[1], &naive.posterior),
        );
        Some(Diagnosis {
            grouping,
            shipped_decisions,
            consequences: Consequences::new(&fit.nodes, fit.posterior.tau.median?),
            misfit: Misfit::default(),
            median_error: MedianError::new(sketches.of(Correlation::Ignored)),
            sketches,
            scale,
            priors,
            fits,
            cells,
            predictions: Vec::new(),
            selection: SelectionCounts::default(),
            mix_ups: 0,
            named_mix_ups: Vec::new(),
            experiments: 0,
            decided: 0,
            shipped: 0,
        })
    }

    pub fn add(&mut self, blocks: &[BlockToPublish], estimates: &[BlockEstimates]) {
        let leave_one_outs = LeaveOneOuts::new(&self.sketches, &self.priors, &self.fits);
        let left_out = map_chunks(blocks, CHUNK, available_threads(), |blocks| {
            let leave_out = |to_publish: &BlockToPublish| self.leave_out(&leave_one_outs, &to_publish.block);
            blocks.iter().map(leave_out).collect::<Vec<_>>()
        });
        let left_out: Vec<Alone> = left_out.into_iter().flatten().collect();
        for ((to_publish, estimates), alone) in blocks.iter().zip(estimates).zip(left_out) {
            let (BlockToPublish { block, decision, .. }, Alone { chosen, one, left_out }) = (to_publish, alone);
            let effects = &block.measured.block;
            let modelled = left_out[Correlation::Modelled as usize].as_ref();
            self.look_for_mix_ups(block, modelled.map(|left_out| &*left_out.predictions));
            self.predictions.extend(modelled.map(|left_out| left_out.predictions.clone()));
            self.selection.add_block(effects);
            self.consequences.add(effects, &estimates.modelled, &estimates.naive);
            self.misfit.add(effects, chosen, [&estimates.modelled, &estimates.naive, &one], &left_out);
            self.experiments += 1;
            self.decided += u64::from(decision.is_some());
            let is_shipped = |decision: &String| self.shipped_decisions.contains(decision);
            self.shipped += u64::from(decision.as_ref().is_some_and(is_shipped));
        }
    }

    fn leave_out(&self, leave_one_outs: &LeaveOneOuts<'_>, block: &BlockToEstimate) -> Alone {
        let Measured { variants, block: effects, .. } = &block.measured;
        let chosen = self.grouping.chosen_variant(&block.experiment_id, variants);
        // A block that is stored was a member of its population.
        let Ok(member) = Member::new(effects.clone(), chosen) else { return Alone::default() };
        let one = self.fits[Correlation::OnePerExperiment as usize]
            .as_ref()
            .map(|fit| BlockPosterior::new(&member.under(Correlation::OnePerExperiment), &fit.nodes).estimates());
        Alone { chosen, one: one.unwrap_or_default(), left_out: leave_one_outs.predict(&member) }
    }

    fn look_for_mix_ups(&mut self, block: &BlockToEstimate, predictions: Option<&[Prediction]>) {
        let Some(median_error) = self.median_error else { return };
        let Measured { variants, block: effects, .. } = &block.measured;
        for (i, variant) in variants.iter().enumerate() {
            let prediction = predictions.and_then(|predictions| predictions.get(i).copied());
            let Some(mix_up) = median_error.judge(effects, i, prediction) else { continue };
            self.mix_ups += 1;
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
    fn warn_of_mix_ups(&self, population: &PopulationName) {
        if let Some(mix_up) = self.mix_up_of_all() {
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
        self.warn_of_mix_ups(population);
        let Diagnosis { consequences, misfit, .. } = &self;
        let (verdict, verdict_rests_on, verdict_value) = thresholds.verdict(consequences, misfit);
        let has_mix_ups = self.mix_ups > 0 || self.mix_up_of_all().is_some();
        let calibration = Calibration::new(&self.predictions);
        let cause = calibration.and_then(|calibration| calibration.cause(has_mix_ups, verdict == Verdict::Misfit));
        if let Some(cause) = cause {
            warn!(%population, cause = cause.as_str(), "predictions are not borne out: {cause}");
        }
        let selection = Selection::new(self.sketches.of(Correlation::Ignored), &self.selection);
        if let Some(selection) = selection.filter(Selection::is_suspected) {
            warn!(%population, log_lr = selection.log_lr, eta = selection.eta, "{selection}");
        }
        let likelihood = |correlation| SketchLikelihood::new(self.sketches.of(correlation));
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
            hausman_z: consequences.hausman_z(&likelihood(Correlation::Modelled), &likelihood(Correlation::Ignored)),
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

/// What the other experiments say of a block.
#[derive(Default)]
struct Alone {
    /// The variant that represents it under [`Correlation::OnePerExperiment`], and its estimate under that fit.
    chosen: usize,
    one: Vec<Estimate>,
    left_out: [Option<LeftOut>; 3],
}
