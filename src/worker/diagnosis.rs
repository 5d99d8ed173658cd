//! The diagnostics of a population that need every block, accumulated in one pass.

use shrinkd_core::{Measured, PopulationName};
use shrinkd_model::{
    BlockPass, Calibration, Correlation, DataScale, Diagnostics, Fit, LeaveOneOut, MedianError, Method, MixUp,
    Prediction, Priors, Quantity, Sketch, SketchLikelihood, Thresholds, available_threads, map_chunks,
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
    /// With the correlation modelled.
    sketch: Sketch,
    likelihoods: [SketchLikelihood; 2],
    scale: DataScale,
    priors: Priors,
    /// With the correlation modelled.
    fit: Fit,
    cells: CellDiagnostics,
    /// The posterior median of tau, at which blocks are evaluated.
    tau: f64,
    pass: BlockPass,
    predictions: Vec<Prediction>,
    median_error: Option<MedianError>,
    mix_ups: u64,
    /// The first of them, with experiment and variant.
    named_mix_ups: Vec<(String, String, MixUp)>,
    experiments: u64,
    decided: u64,
    shipped: u64,
}

impl Diagnosis {
    /// `None` if one of the two models has no posterior, because there is nothing to compare then.
    pub fn new(state: RefitState, priors: Priors<Quantity>) -> Option<Diagnosis> {
        let [modelled, ignored] =
            [Correlation::Modelled, Correlation::Ignored].map(|correlation| state.sketches.of(correlation));
        let likelihoods = [SketchLikelihood::new(modelled), SketchLikelihood::new(ignored)];
        let scale = DataScale::new(ignored)?;
        let priors = priors.resolve(Some(&scale)).ok()?;
        let fit = Fit::new(&likelihoods[0], &priors, Method::Quadrature).ok()?;
        let naive = Fit::new(&likelihoods[1], &priors, Method::Quadrature).ok()?;
        let cells = Diagnostics::new((modelled, &likelihoods[0], &fit.posterior), (&likelihoods[1], &naive.posterior));
        Some(Diagnosis {
            tau: fit.posterior.tau.median?,
            sketch: modelled.clone(),
            likelihoods,
            scale,
            priors,
            fit,
            cells,
            pass: BlockPass::default(),
            predictions: Vec::new(),
            median_error: MedianError::new(ignored),
            mix_ups: 0,
            named_mix_ups: Vec::new(),
            experiments: 0,
            decided: 0,
            shipped: 0,
        })
    }

    pub fn add(&mut self, blocks: &[BlockToPublish], estimates: &[BlockEstimates]) {
        let leave_one_out = LeaveOneOut::new(&self.sketch, &self.priors, &self.fit);
        let predicted = map_chunks(blocks, CHUNK, available_threads(), |blocks| {
            let predict = |to_publish: &BlockToPublish| {
                let block = &to_publish.block.measured.block;
                leave_one_out.predict(block, &block.components().ok()?)
            };
            blocks.iter().map(predict).collect::<Vec<_>>()
        });
        let predicted: Vec<Option<Vec<Prediction>>> = predicted.into_iter().flatten().collect();
        for (BlockToPublish { block, .. }, predictions) in blocks.iter().zip(&predicted) {
            self.look_for_mix_ups(block, predictions.as_deref());
        }
        self.predictions.extend(predicted.into_iter().flatten().flatten());
        for (BlockToPublish { block, decision, .. }, estimates) in blocks.iter().zip(estimates) {
            self.pass.add(&block.measured.block, self.tau * self.tau, &estimates.modelled, &estimates.naive);
            self.experiments += 1;
            self.decided += u64::from(decision.is_some());
            self.shipped += u64::from(decision.as_deref() == Some("shipped"));
        }
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

    /// Logs what was likely sent in another unit.
    fn warn_of_mix_ups(&self, population: &PopulationName) {
        let all = self.median_error.filter(|_| self.mix_ups == 0);
        if let Some(mix_up) = all.and_then(|median| median.judge_population(&self.fit.posterior, &self.scale)) {
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
        let (verdict, verdict_rests_on, verdict_value) = thresholds.verdict(&self.cells, &self.pass);
        let pass = PassDiagnostics {
            experiments: self.experiments,
            design_effect: self.pass.design_effect(),
            largest_correlation: self.pass.largest_correlation(),
            largest_estimate_shift: self.pass.largest_estimate_shift(),
            sign_calls: self.pass.sign_calls(),
            sign_flips: self.pass.sign_flips(),
            sign_flip_share: self.pass.sign_flip_share(),
            hausman_z: self.pass.hausman_z(&self.likelihoods[0], &self.likelihoods[1], self.tau * self.tau),
            calibration: Calibration::new(&self.predictions),
            mix_ups: self.mix_ups,
            shipped_share: (self.decided > 0).then(|| self.shipped as f64 / self.experiments as f64),
            verdict,
            verdict_rests_on,
            verdict_value,
        };
        Some((self.cells, pass))
    }
}
