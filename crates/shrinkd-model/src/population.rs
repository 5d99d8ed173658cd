//! A population: the blocks that share (mu, tau), their sketches under the three models of correlation, and their analysis.

use std::borrow::Cow;

use super::best::{BestProbabilities, prob_best};
use super::block::{Block, BlockError};
use super::diagnostics::{
    BlockDiagnostics, BlockPass, Calibration, Diagnostics, LeaveOneOut, Measure, Prediction, Thresholds, Verdict,
    set_q_values,
};
use super::fit::{Correlation, Distance, Fit, Method};
use super::likelihood::{Likelihood, SketchLikelihood, Terms};
use super::mix_up::{MedianError, MixUp};
use super::parallel::map_chunks;
use super::posterior::{Heterogeneity, Node, Posterior, PosteriorError, laplace, quadrature, variational};
use super::prior::{DataScale, Priors, Quantity};
use super::shrinkage::{BlockPosterior, ControlShift, Estimate, Intervals};
use super::sketch::{Cell, OutOfRange, Sketch};
use super::spectrum::Component;

/// A block in its population: decomposed once, with the variant that represents it under [`Correlation::OnePerExperiment`].
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    block: Block,
    components: Vec<Component>,
    chosen: usize,
}

/// Why a block cannot join a population.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum MemberError {
    #[error(transparent)]
    Block(#[from] BlockError),
    #[error(transparent)]
    OutOfRange(#[from] OutOfRange),
}

impl Member {
    /// Decomposes a block that variant `chosen` represents under [`Correlation::OnePerExperiment`].
    ///
    /// # Errors
    /// Where the block has no spectral form, or a component does not fit the sketch under some model of correlation.
    pub fn new(block: Block, chosen: usize) -> Result<Member, MemberError> {
        let components = block.components()?;
        let member = Member { chosen: chosen.min(block.len() - 1), block, components };
        for component in member.components.iter().copied().chain((0..member.block.len()).map(|i| member.alone(i))) {
            Sketch::check(&component)?;
        }
        Ok(member)
    }

    /// A member whose components were computed before, and are not checked again.
    pub fn restore(block: Block, components: Vec<Component>, chosen: usize) -> Member {
        Member { chosen: chosen.min(block.len() - 1), block, components }
    }

    /// The components of the block itself.
    pub fn own_components(&self) -> &[Component] {
        &self.components
    }

    /// The block as it was measured.
    pub fn block(&self) -> &Block {
        &self.block
    }

    /// The block under a model of correlation.
    pub fn under(&self, correlation: Correlation) -> Cow<'_, Block> {
        match correlation {
            Correlation::Modelled => Cow::Borrowed(&self.block),
            Correlation::Ignored => Cow::Owned(self.block.independent()),
            Correlation::OnePerExperiment => Cow::Owned(self.block.single(self.chosen)),
        }
    }

    /// Which of the block's variants have estimates under a model of correlation.
    pub fn variants(&self, correlation: Correlation) -> std::ops::Range<usize> {
        match correlation {
            Correlation::Modelled | Correlation::Ignored => 0..self.block.len(),
            Correlation::OnePerExperiment => self.chosen..self.chosen + 1,
        }
    }

    /// The components of the block under a model of correlation.
    pub fn components(&self, correlation: Correlation) -> Vec<Component> {
        match correlation {
            Correlation::Modelled => self.components.clone(),
            _ => self.variants(correlation).map(|i| self.alone(i)).collect(),
        }
    }

    /// Effect `i` as a component of its own.
    fn alone(&self, i: usize) -> Component {
        Component { lambda: self.block.sampling_variance(i), a: 1.0, b: self.block.effects()[i] }
    }
}

/// A population's sketches under the three models of correlation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sketches {
    by_correlation: [Sketch; 3],
}

impl Sketches {
    /// The sketches of these members, added up in parts on several threads, the number of which changes no bit.
    ///
    /// # Errors
    /// As [`Sketches::add`].
    pub fn of_members(members: &[Member], threads: usize) -> Result<Sketches, OutOfRange> {
        let parts = map_chunks(members, CHUNK, threads, |members| {
            let mut part = Sketches::default();
            members.iter().try_for_each(|member| part.add(member)).map(|()| part)
        });
        parts.into_iter().try_fold(Sketches::default(), |mut total, part| {
            total.merge(&part?);
            Ok(total)
        })
    }

    /// Adds a block under every model of correlation.
    ///
    /// # Errors
    /// None for a [`Member`], which was checked when it was made.
    pub fn add(&mut self, member: &Member) -> Result<(), OutOfRange> {
        self.apply(member, Sketch::add)
    }

    /// Subtracts a block under every model of correlation.
    ///
    /// # Errors
    /// None for a [`Member`], which was checked when it was made.
    pub fn subtract(&mut self, member: &Member) -> Result<(), OutOfRange> {
        self.apply(member, Sketch::subtract)
    }

    /// Adds the sketches of other blocks.
    pub fn merge(&mut self, other: &Sketches) {
        for (mine, theirs) in self.by_correlation.iter_mut().zip(&other.by_correlation) {
            mine.merge(theirs);
        }
    }

    /// Adds one cell of the sketch under a model of correlation.
    pub fn add_cell(&mut self, correlation: Correlation, octave: i16, cell: &Cell) {
        self.by_correlation[correlation as usize].add_cell(octave, cell);
    }

    /// The sketch under one model of correlation.
    pub fn of(&self, correlation: Correlation) -> &Sketch {
        &self.by_correlation[correlation as usize]
    }

    fn apply(
        &mut self,
        member: &Member,
        change: impl Fn(&mut Sketch, &[Component]) -> Result<(), OutOfRange>,
    ) -> Result<(), OutOfRange> {
        let [modelled, ignored, one] = &mut self.by_correlation;
        change(modelled, &member.components)?;
        for i in 0..member.block.len() {
            change(ignored, &[member.alone(i)])?;
        }
        change(one, &[member.alone(member.chosen)])
    }
}

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
    pub posteriors: [Option<Posterior>; 3],
    /// What is reported with a point estimate under each of them.
    pub heterogeneity: [Option<Heterogeneity>; 3],
    /// How far `laplace` and `variational` are from exact under the model of correlation asked for, where that exists.
    pub distances: Option<[Option<Distance>; 2]>,
    pub comparison: Option<Comparison>,
    pub calibration: Option<Calibration>,
    /// Whether the population as a whole looks as if it had been sent in another unit.
    pub mix_up: Option<MixUp>,
    /// One for each member, in their order.
    pub blocks: Vec<BlockAnalysis>,
}

/// Whether correlation mattered, judged by the exact posteriors of the two models.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    pub diagnostics: Diagnostics,
    pub pass: BlockPass,
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

impl BlockAnalysis {
    fn predictions(&self) -> Vec<Prediction> {
        self.effects.iter().filter_map(|effect| effect.prediction).collect()
    }
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

/// Blocks per unit of work: sums are formed within it, so that its size affects the last bits of the result.
const CHUNK: usize = 256;

impl Analysis {
    /// Fits the population under every model of correlation, estimates every effect and diagnoses every block.
    ///
    /// # Errors
    /// [`PosteriorError`] where the model of correlation asked for has no posterior, or an estimate is not finite.
    pub fn new(members: &[Member], sketches: &Sketches, request: &Request) -> Result<Analysis, PosteriorError> {
        let likelihoods = Correlation::ALL.map(|correlation| SketchLikelihood::new(sketches.of(correlation)));
        let likelihood = &likelihoods[request.correlation as usize];
        let scale = DataScale::new(sketches.of(Correlation::Ignored));
        let priors = request.priors.resolve(scale.as_ref())?;
        let mut fits: Vec<Result<Fit, PosteriorError>> =
            likelihoods.iter().map(|likelihood| Fit::new(likelihood, &priors, request.method)).collect();
        let posteriors = [0, 1, 2].map(|i| fits[i].as_ref().ok().map(|fit| fit.posterior.clone()));
        let heterogeneity = [0, 1, 2].map(|i| fits[i].as_ref().ok().and_then(|fit| fit.heterogeneity));
        let nodes = [0, 1].map(|i| fits[i].as_ref().map(|fit| fit.nodes.clone()).unwrap_or_default());
        let fit = fits.swap_remove(request.correlation as usize)?;

        let exact = match request.method {
            Method::Quadrature => posteriors.clone(),
            _ => likelihoods.each_ref().map(|likelihood| quadrature(likelihood, &priors).ok()),
        };
        let at_tau = exact[Correlation::Modelled as usize].as_ref().and_then(|posterior| posterior.tau.median);
        let distances = exact[request.correlation as usize].as_ref().map(|exact| {
            [laplace(likelihood, &priors), variational(likelihood, &priors)]
                .map(|approximate| Some(Distance::new(&approximate.ok()?, exact)))
        });
        let [modelled, ignored, _] = exact;

        let median_error = MedianError::new(sketches.of(Correlation::Ignored));
        let context = Context {
            request,
            median_error,
            fit: &fit,
            nodes: &nodes,
            leave_one_out: LeaveOneOut::new(sketches.of(request.correlation), &priors, &fit),
            diagnosis: at_tau.map(|tau| Diagnosis {
                t: tau * tau,
                population: likelihoods[Correlation::Modelled as usize].at(tau * tau),
                centre: likelihoods[Correlation::Modelled as usize].centre(),
            }),
        };
        let chunks = map_chunks(members, CHUNK, request.threads, |members| {
            let mut pass = BlockPass::default();
            let blocks: Vec<BlockAnalysis> = members.iter().map(|member| context.block(member, &mut pass)).collect();
            (blocks, pass)
        });
        let mut pass = BlockPass::default();
        let mut blocks = Vec::with_capacity(members.len());
        for (chunk, chunk_pass) in chunks {
            blocks.extend(chunk);
            pass.merge(&chunk_pass);
        }
        if !blocks.iter().flat_map(|block| &block.effects).all(EffectAnalysis::is_finite) {
            return Err(PosteriorError::NotFinite { figure: "an estimate" });
        }
        set_q_values(blocks.iter_mut().filter_map(|block| block.diagnostics.as_mut()));

        let comparison = modelled.zip(ignored).zip(at_tau).map(|((modelled, ignored), tau)| {
            let [block_model, naive, _] = &likelihoods;
            let diagnostics =
                Diagnostics::new((sketches.of(Correlation::Modelled), block_model, &modelled), (naive, &ignored));
            let (verdict, measure, value) = request.thresholds.verdict(&diagnostics, &pass);
            let hausman_z = pass.hausman_z(block_model, naive, tau * tau);
            Comparison { diagnostics, pass, hausman_z, verdict, rests_on: (measure, value) }
        });
        let predictions: Vec<Vec<Prediction>> = blocks.iter().map(BlockAnalysis::predictions).collect();
        let are_alike = blocks.iter().flat_map(|block| &block.effects).all(|effect| effect.mix_up.is_none());
        let mix_up = median_error.zip(scale).filter(|_| are_alike);
        let mix_up = mix_up.and_then(|(median_error, scale)| median_error.judge_population(&fit.posterior, &scale));
        let calibration = Calibration::new(predictions.iter().map(Vec::as_slice));
        Ok(Analysis {
            priors,
            scale: DataScale::new(sketches.of(Correlation::Ignored)),
            fit,
            posteriors,
            heterogeneity,
            distances,
            comparison,
            calibration,
            mix_up,
            blocks,
        })
    }
}

/// What every block of a population is analysed against.
struct Context<'a> {
    request: &'a Request,
    median_error: Option<MedianError>,
    fit: &'a Fit,
    /// Of the block model and of the naive one; empty where there is no posterior.
    nodes: &'a [Vec<Node>; 2],
    leave_one_out: LeaveOneOut<'a>,
    diagnosis: Option<Diagnosis>,
}

/// The t = tau^2 at which blocks are diagnosed, the exact posterior median of tau, and the population's sums there.
struct Diagnosis {
    t: f64,
    population: Terms,
    centre: f64,
}

impl Context<'_> {
    fn block(&self, member: &Member, pass: &mut BlockPass) -> BlockAnalysis {
        let correlation = self.request.correlation;
        let block = member.under(correlation);
        let [modelled, naive] = [(Correlation::Modelled, &self.nodes[0]), (Correlation::Ignored, &self.nodes[1])].map(
            |(correlation, nodes)| (!nodes.is_empty()).then(|| BlockPosterior::new(&member.under(correlation), nodes)),
        );
        let one = (correlation == Correlation::OnePerExperiment).then(|| BlockPosterior::new(&block, &self.fit.nodes));
        let [estimates, naive_estimates] = [&modelled, &naive].map(|posterior| {
            let all = |posterior: &BlockPosterior| -> Vec<Estimate> {
                (0..member.block.len()).map(|i| posterior.estimate(i)).collect()
            };
            posterior.as_ref().map(all).unwrap_or_default()
        });
        let diagnostics = self.diagnosis.as_ref().map(|at| {
            pass.add(&member.block, at.t, &estimates, &naive_estimates);
            BlockDiagnostics::new(&member.block, &member.components, at.t, &at.population, at.centre)
        });
        let (posterior, own_estimates) = match correlation {
            Correlation::Modelled => (&modelled, estimates),
            Correlation::Ignored => (&naive, naive_estimates.clone()),
            Correlation::OnePerExperiment => (&one, one.iter().map(|posterior| posterior.estimate(0)).collect()),
        };
        let Some(posterior) = posterior else {
            return BlockAnalysis { effects: Vec::new(), control_shift: None, diagnostics, best: None };
        };
        let predictions = match self.request.method.is_point() {
            true => None,
            false => self.leave_one_out.predict(&block, &member.components(correlation)),
        };
        let effects = own_estimates.iter().zip(member.variants(correlation)).enumerate();
        let effects = effects.map(|(i, (&estimate, variant))| {
            let prediction = predictions.as_ref().and_then(|predictions| predictions.get(i).copied());
            EffectAnalysis {
                estimate,
                intervals: posterior.intervals(i, &estimate),
                naive_mean: naive_estimates.get(variant).map(|naive| naive.mean),
                prediction,
                mix_up: self.median_error.and_then(|typical| typical.judge(&member.block, variant, prediction)),
            }
        });
        BlockAnalysis {
            effects: effects.collect(),
            control_shift: posterior.control_shift,
            diagnostics,
            // The block was decomposed when it became a member; should its rotation fail here, there is no such probability.
            best: self.request.is_best_wanted.then(|| prob_best(&block, &self.fit.nodes).ok()).flatten(),
        }
    }
}
