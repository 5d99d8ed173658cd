//! The analysis of a population: its fits, every effect, every block, and what the correlation did to it.

use std::borrow::Cow;

use super::best::{BestProbabilities, prob_best};
use super::diagnostics::{
    BlockDiagnostics, Calibration, Consequences, Diagnostics, LeaveOneOuts, Measure, Miscalibration, Misfit,
    Prediction, Selection, Thresholds, Verdict, set_q_values,
};
use super::fit::{Correlation, Distance, Fit, Method};
use super::icc::IccLikelihood;
use super::likelihood::{Likelihood, SketchLikelihood, Terms};
use super::mix_up::{MedianError, MixUp};
use super::parallel::map_chunks;
use super::pass::BlockPass;
use super::population::{CHUNK, Member, Sketches};
use super::posterior::{Heterogeneity, Node, Posterior, PosteriorError, laplace, variational};
use super::prior::{DataScale, Priors, Quantity};
use super::shrinkage::{BlockPosterior, ControlShift, Estimate, Intervals};

/// What to compute for a population.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    pub correlation: Correlation,
    pub method: Method,
    /// In the effects' unit, or in units taken from the data: see [`Priors::resolve`].
    pub priors: Priors<Quantity>,
    /// Whether to compute P(best in experiment).
    pub is_best_wanted: bool,
    pub thresholds: Thresholds,
    pub threads: usize,
}

impl Default for Request {
    /// The exact posterior with the correlation modelled, under flat priors, on one thread.
    fn default() -> Request {
        Request {
            correlation: Correlation::Modelled,
            method: Method::Quadrature,
            priors: Priors::default(),
            is_best_wanted: false,
            thresholds: Thresholds::default(),
            threads: 1,
        }
    }
}

/// The analysis of a population.
#[derive(Debug, Clone, PartialEq)]
pub struct Analysis {
    /// The priors of all fits, in the effects' unit.
    pub priors: Priors,
    /// The units that the raw effects set.
    pub scale: Option<DataScale>,
    /// The fit under the model of correlation asked for.
    pub fit: Fit,
    /// The posterior under each model of correlation that has one, in the order of [`Correlation::ALL`].
    pub posteriors: [Option<Posterior>; Correlation::COUNT],
    /// What is reported with a point estimate under each of them.
    pub heterogeneity: [Option<Heterogeneity>; Correlation::COUNT],
    /// How far `laplace` and `variational` are from exact under the model of correlation asked for, where that exists.
    pub distances: Option<[Option<Distance>; 2]>,
    pub comparison: Option<Comparison>,
    pub calibration: Option<Calibration>,
    /// The likely cause where predictions are not borne out; `None` where they are.
    pub miscalibration: Option<Miscalibration>,
    pub selection: Option<Selection>,
    /// Whether the population as a whole looks as if it had been sent in another unit.
    pub mix_up: Option<MixUp>,
    /// One for each member, in their order.
    pub blocks: Vec<BlockAnalysis>,
}

/// Whether correlation mattered, judged by the exact posteriors of the two models.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    pub diagnostics: Diagnostics,
    pub consequences: Consequences,
    pub misfit: Misfit,
    pub hausman_z: Option<f64>,
    pub verdict: Verdict,
    /// The measure that the verdict rests on, and its value.
    pub rests_on: (Measure, f64),
}

/// The analysis of one block.
#[derive(Debug, Clone, PartialEq)]
pub struct BlockAnalysis {
    /// One for each variant that the model of correlation estimates; see [`Member::variants`]. Empty without a posterior.
    pub effects: Vec<EffectAnalysis>,
    pub control_shift: Option<ControlShift>,
    pub diagnostics: Option<BlockDiagnostics>,
    pub best: Option<BestProbabilities>,
}

/// The analysis of one effect.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EffectAnalysis {
    pub estimate: Estimate,
    pub intervals: Intervals,
    /// The posterior mean that the naive model gives; `None` where that has no posterior.
    pub naive_mean: Option<f64>,
    pub prediction: Option<Prediction>,
    /// What looks as if it had been sent in another unit.
    pub mix_up: Option<MixUp>,
}

impl EffectAnalysis {
    fn is_finite(&self) -> bool {
        let EffectAnalysis { estimate, intervals: Intervals { ci80, ci95 }, .. } = *self;
        [estimate.mean, estimate.sd, ci80.0, ci80.1, ci95.0, ci95.1].into_iter().all(f64::is_finite)
    }
}

impl Analysis {
    /// Fits the population under every model of correlation, estimates every effect and diagnoses every block.
    ///
    /// # Errors
    /// [`PosteriorError`] where the model of correlation asked for has no posterior, or an estimate is not finite.
    pub fn new(members: &[Member], sketches: &Sketches, request: &Request) -> Result<Analysis, PosteriorError> {
        let likelihoods = Correlation::ALL.map(|correlation| SketchLikelihood::new(&sketches.of(correlation)));
        let likelihood = &likelihoods[request.correlation as usize];
        let scale = DataScale::new(&sketches.of(Correlation::Ignored));
        let priors = request.priors.resolve(scale.as_ref())?;
        let fits_by = |method| {
            sketches.map_distinct(&priors.icc, |it| Fit::of(sketches, it, &likelihoods[it as usize], &priors, method))
        };
        let fits = fits_by(request.method);
        let posteriors = Correlation::ALL.map(|it| fits[it as usize].as_ref().ok().map(|fit| fit.posterior.clone()));
        let heterogeneity =
            Correlation::ALL.map(|it| fits[it as usize].as_ref().ok().and_then(|fit| fit.heterogeneity));
        let exact: [Option<Fit>; Correlation::COUNT] = match request.method {
            Method::Quadrature => fits.each_ref().map(|fit| fit.as_ref().ok().cloned()),
            _ => fits_by(Method::Quadrature).map(Result::ok),
        };
        // The approximations are of (mu, tau), with an icc of 0.
        let exact_of_two = exact[request.correlation as usize].as_ref().filter(|exact| exact.has_independent_effects());
        let distances = exact_of_two.map(|exact| {
            [laplace(likelihood, &priors), variational(likelihood, &priors)]
                .map(|approximate| Some(Distance::new(&approximate.ok()?, &exact.posterior)))
        });
        let fit = fits[request.correlation as usize].clone()?;
        let median_error = MedianError::new(&sketches.of(Correlation::Ignored));
        let modelled = exact[Correlation::Modelled as usize].as_ref();
        let pass = modelled.and_then(BlockPass::new);
        let context = Context {
            request,
            median_error,
            exact_nodes: exact.each_ref().map(|fit| fit.as_ref().map(|fit| &*fit.nodes).unwrap_or_default()),
            nodes: fits.each_ref().map(|fit| fit.as_ref().map(|fit| &*fit.nodes).unwrap_or_default()),
            leave_one_outs: LeaveOneOuts::new(sketches, &priors, exact.each_ref().map(Option::as_ref)),
            diagnosis: modelled
                .and_then(|fit| Diagnosis::new(fit, sketches, &likelihoods[Correlation::Modelled as usize])),
        };
        let chunks = map_chunks(members, CHUNK, request.threads, |members| {
            let mut pass = pass.clone();
            let blocks: Vec<BlockAnalysis> =
                members.iter().map(|member| context.block(member, pass.as_mut())).collect();
            (blocks, pass)
        });
        let mut pass = pass.clone();
        let mut blocks = Vec::with_capacity(members.len());
        for (chunk, chunk_pass) in chunks {
            blocks.extend(chunk);
            if let Some((pass, chunk_pass)) = pass.as_mut().zip(chunk_pass) {
                pass.merge(&chunk_pass);
            }
        }
        if !blocks.iter().flat_map(|block| &block.effects).all(EffectAnalysis::is_finite) {
            return Err(PosteriorError::NotFinite { figure: "an estimate" });
        }
        set_q_values(blocks.iter_mut().filter_map(|block| block.diagnostics.as_mut()));

        let comparison = modelled.zip(exact[Correlation::Ignored as usize].as_ref()).zip(pass.as_ref());
        let comparison = comparison.map(|((modelled, ignored), pass)| {
            let [block_model, _, naive, _] = &likelihoods;
            let diagnostics =
                Diagnostics::new(sketches, (block_model, &modelled.posterior), (naive, &ignored.posterior));
            let (verdict, measure, value) = pass.verdict(&request.thresholds);
            let hausman_z = pass.consequences.hausman_z(sketches, block_model, naive);
            let BlockPass { consequences, misfit, .. } = pass.clone();
            Comparison { diagnostics, consequences, misfit, hausman_z, verdict, rests_on: (measure, value) }
        });
        let are_alike = blocks.iter().flat_map(|block| &block.effects).all(|effect| effect.mix_up.is_none());
        let mix_up = median_error.zip(scale).filter(|_| are_alike);
        let mix_up = mix_up.and_then(|(median_error, scale)| median_error.judge_population(&fit.posterior, &scale));
        let calibration = pass.as_ref().and_then(|pass| Calibration::new(&pass.calibration));
        let mix_ups = blocks.iter().flat_map(|block| &block.effects).filter_map(|effect| effect.mix_up);
        let has_mix_ups = mix_ups.chain(mix_up).any(|mix_up| mix_up.is_of_units());
        let selection = pass.and_then(|pass| Selection::new(&sketches.of(Correlation::Ignored), &pass.selection));
        let is_selected = selection.as_ref().is_some_and(Selection::is_suspected);
        let is_misfit = comparison.as_ref().is_some_and(|comparison| comparison.verdict == Verdict::Misfit);
        let known = Miscalibration::known(is_selected, has_mix_ups, is_misfit);
        Ok(Analysis {
            priors,
            scale,
            fit,
            posteriors,
            heterogeneity,
            distances,
            comparison,
            calibration,
            miscalibration: calibration.and_then(|calibration| calibration.cause(known)),
            selection,
            mix_up,
            blocks,
        })
    }
}

/// What every block of a population is analysed against.
struct Context<'a> {
    request: &'a Request,
    median_error: Option<MedianError>,
    /// Of the exact fits, in the order of [`Correlation::ALL`]; empty where there is no posterior.
    exact_nodes: [&'a [Node]; Correlation::COUNT],
    /// Of the fits that are asked for, likewise.
    nodes: [&'a [Node]; Correlation::COUNT],
    leave_one_outs: LeaveOneOuts<'a>,
    diagnosis: Option<Diagnosis>,
}

/// The t = tau^2 and icc at which blocks are diagnosed, those of the exact posterior medians, and the population's sums there.
struct Diagnosis {
    t: f64,
    icc: f64,
    population: Terms,
    centre: f64,
}

impl Diagnosis {
    fn new(fit: &Fit, sketches: &Sketches, likelihood: &SketchLikelihood) -> Option<Diagnosis> {
        let t = fit.posterior.tau.median?.powi(2);
        let icc = fit.icc_median();
        if icc == 0.0 {
            return Some(Diagnosis { t, icc, population: likelihood.at(t), centre: likelihood.centre() });
        }
        let all = IccLikelihood::new(sketches)?;
        let likelihood = all.at(icc);
        Some(Diagnosis { t, icc, population: likelihood.at(t), centre: likelihood.centre() })
    }
}

/// A block's posteriors and estimates under every model of correlation that has nodes.
struct Estimates {
    posteriors: [Option<BlockPosterior>; Correlation::COUNT],
    estimates: [Vec<Estimate>; Correlation::COUNT],
}

impl Estimates {
    fn new(member: &Member, nodes: [&[Node]; Correlation::COUNT]) -> Estimates {
        let of = |correlation: Correlation| {
            let nodes = nodes[correlation as usize];
            (!nodes.is_empty()).then(|| BlockPosterior::new(&member.under(correlation), nodes))
        };
        let modelled = of(Correlation::Modelled);
        let control_only = match nodes[Correlation::ControlOnly as usize] == nodes[Correlation::Modelled as usize] {
            true => modelled.clone(),
            false => of(Correlation::ControlOnly),
        };
        let posteriors = [modelled, control_only, of(Correlation::Ignored), of(Correlation::OnePerExperiment)];
        let estimates = posteriors
            .each_ref()
            .map(|posterior| posterior.as_ref().map(BlockPosterior::estimates).unwrap_or_default());
        Estimates { posteriors, estimates }
    }
}

impl Context<'_> {
    fn block(&self, member: &Member, pass: Option<&mut BlockPass>) -> BlockAnalysis {
        let Request { correlation, method, .. } = *self.request;
        let exact = Estimates::new(member, self.exact_nodes);
        let modelled = self.leave_one_outs.predict(member, Correlation::Modelled);
        let scores = self.leave_one_outs.scores(member, modelled.as_ref());
        let diagnostics = self.diagnosis.as_ref().and_then(|at| {
            let components = match at.icc {
                0.0 => Cow::Borrowed(member.own_components()),
                icc => Cow::Owned(member.block().components_at(icc).ok()?),
            };
            let (sums, block) = (&at.population, member.block());
            Some(BlockDiagnostics::new(block, &components, (at.t, at.icc), sums, at.centre, modelled.as_ref()))
        });
        let left_out = match correlation {
            _ if method.is_point() => None,
            Correlation::Modelled => modelled,
            _ => self.leave_one_outs.predict(member, correlation),
        };
        let predictions = left_out.map(|left_out| left_out.predictions).unwrap_or_default();
        if let Some(pass) = pass {
            // The predictions are of every variant of the block, whichever are estimated.
            let kept = predictions.get(member.variants(correlation)).unwrap_or_default();
            pass.add(member, exact.estimates.each_ref().map(Vec::as_slice), scores, kept);
        }
        let Estimates { posteriors, estimates } = match method {
            Method::Quadrature => exact,
            _ => Estimates::new(member, self.nodes),
        };
        let Some(posterior) = &posteriors[correlation as usize] else {
            return BlockAnalysis { effects: Vec::new(), control_shift: None, diagnostics, best: None };
        };
        let naive = &estimates[Correlation::Ignored as usize];
        let effects = estimates[correlation as usize].iter().zip(member.variants(correlation)).enumerate();
        let effects = effects.map(|(i, (&estimate, variant))| {
            let prediction = predictions.get(variant).copied();
            EffectAnalysis {
                estimate,
                intervals: posterior.intervals(i, &estimate),
                naive_mean: naive.get(variant).map(|naive| naive.mean),
                prediction,
                mix_up: self.median_error.and_then(|typical| typical.judge(member.block(), variant, prediction)),
            }
        });
        BlockAnalysis {
            effects: effects.collect(),
            control_shift: posterior.control_shift,
            diagnostics,
            // The block was decomposed when it became a member; should its rotation fail here, there is no such probability.
            best: self
                .request
                .is_best_wanted
                .then(|| {
                    let nodes = self.nodes[correlation as usize];
                    prob_best(&member.under(correlation), nodes, member.direction()).ok()
                })
                .flatten(),
        }
    }
}
