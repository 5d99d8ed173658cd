//! The fit as JSON. From version 0.2 on names are a contract: keys may be added, none is renamed or removed.

mod diagnostics;

use std::io::{self, Write};

use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};
use shrinkd_core::{Counts, Experiment, PopulationName};
use shrinkd_model::{
    Analysis, BlockAnalysis, Correlation, Heterogeneity, IccPosterior, IccStatus, KnappHartung, Posterior, Request,
    Summary, TauDistribution,
};

use super::estimates::for_each_effect;
use super::report::{FittedPopulation, Report};
use diagnostics::DiagnosticsDocument;

/// Writes the whole report as one JSON object on a line.
pub(super) fn write(out: &mut impl Write, report: &Report) -> io::Result<()> {
    serde_json::to_writer(&mut *out, &Document(report))?;
    writeln!(out)
}

struct Document<'a>(&'a Report);

impl Serialize for Document<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Report { request, counts, holdouts, pending, populations } = self.0;
        let mut map = serializer.serialize_map(None)?;
        let populations: Vec<PopulationDocument<'_>> =
            populations.iter().map(|(name, fitted)| PopulationDocument::new(name, fitted, request)).collect();
        map.serialize_entry("populations", &populations)?;
        map.serialize_entry("input", counts as &Counts)?;
        map.serialize_entry("holdouts", holdouts)?;
        let pending: Vec<PendingDocument<'_>> = pending
            .iter()
            .map(|(experiment_id, name, why)| PendingDocument {
                experiment_id,
                population: name.to_string(),
                reason: why.reason.as_str(),
                detail: &why.detail,
            })
            .collect();
        map.serialize_entry("pending", &pending)?;
        map.end()
    }
}

#[derive(Serialize)]
struct PendingDocument<'a> {
    experiment_id: &'a str,
    population: String,
    reason: &'a str,
    detail: &'a str,
}

#[derive(Serialize)]
struct PopulationDocument<'a> {
    population: String,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    warnings: &'a [String],
    correlation: &'static str,
    method: &'static str,
    prior_mu: Option<String>,
    prior_tau: Option<String>,
    prior_icc: Option<String>,
    experiments: usize,
    effects: u64,
    log_evidence: Option<f64>,
    mu: SummaryDocument,
    tau: SummaryDocument,
    icc: Option<IccDocument>,
    heterogeneity: Option<HeterogeneityDocument>,
    correlation_mu_tau: Option<f64>,
    tau_shortest95_low: Option<f64>,
    tau_shortest95_high: Option<f64>,
    prob_tau_negligible: Option<f64>,
    tau_modes: Vec<ModeDocument>,
    predictive: SummaryDocument,
    fits: Vec<FitDocument>,
    diagnostics: DiagnosticsDocument,
    blocks: Blocks<'a>,
    estimates: Estimates<'a>,
}

impl<'a> PopulationDocument<'a> {
    fn new(name: &PopulationName, fitted: &'a FittedPopulation, request: &Request) -> PopulationDocument<'a> {
        let analysis = fitted.analysis.as_ref().ok();
        let posterior = analysis.map(|analysis| &analysis.fit.posterior);
        let summary =
            |pick: fn(&Posterior) -> &Summary| posterior.map(pick).map(SummaryDocument::from).unwrap_or_default();
        let prior = |text: String| (!request.method.is_point()).then_some(text);
        let distribution =
            posterior.map(|posterior| &posterior.tau_distribution).filter(|_| !request.method.is_point());
        let shortest = distribution.map(TauDistribution::shortest95);
        PopulationDocument {
            population: name.to_string(),
            status: fitted.status().as_str(),
            message: fitted.analysis.as_ref().err().map(ToString::to_string),
            warnings: &fitted.warnings,
            correlation: request.correlation.as_str(),
            method: request.method.as_str(),
            prior_mu: prior(analysis.map_or(request.priors.mu.to_string(), |analysis| analysis.priors.mu.to_string())),
            prior_tau: prior(
                analysis.map_or(request.priors.tau.to_string(), |analysis| analysis.priors.tau.to_string()),
            ),
            prior_icc: prior(request.priors.icc.to_string()),
            experiments: fitted.experiments(),
            effects: fitted.effects(request.correlation),
            log_evidence: posterior.and_then(|posterior| posterior.log_evidence),
            mu: summary(|posterior| &posterior.mu),
            tau: summary(|posterior| &posterior.tau),
            icc: posterior.and_then(|posterior| posterior.icc.as_ref()).map(IccDocument::new),
            heterogeneity: analysis.and_then(|analysis| heterogeneity(analysis, request.correlation)),
            correlation_mu_tau: posterior.and_then(|posterior| posterior.correlation),
            tau_shortest95_low: shortest.map(|ends| ends.0),
            tau_shortest95_high: shortest.map(|ends| ends.1),
            prob_tau_negligible: analysis.and_then(|analysis| Some(distribution?.negligible(analysis.scale?.se))),
            tau_modes: posterior.map(modes).unwrap_or_default(),
            predictive: analysis.map(|analysis| SummaryDocument::from(&analysis.fit.predictive)).unwrap_or_default(),
            fits: analysis.map(|analysis| fits(fitted, analysis)).unwrap_or_default(),
            diagnostics: DiagnosticsDocument::new(fitted, analysis),
            blocks: Blocks { fitted, analysis },
            estimates: Estimates { fitted, analysis, correlation: request.correlation },
        }
    }
}

/// The intraclass correlation.
#[derive(Serialize)]
struct IccDocument {
    #[serde(flatten)]
    summary: SummaryDocument,
    status: Option<&'static str>,
    prob_above_090: f64,
    log_bayes_factor: f64,
    log_bayes_factor_half: f64,
    tau_within_median: f64,
    tau_shared_median: f64,
}

impl IccDocument {
    fn new(posterior: &IccPosterior) -> IccDocument {
        IccDocument {
            summary: SummaryDocument::from(&posterior.icc),
            status: posterior.status().map(IccStatus::as_str),
            prob_above_090: posterior.prob_above_090,
            log_bayes_factor: posterior.log_bayes_factor,
            log_bayes_factor_half: posterior.log_bayes_factor_half,
            tau_within_median: posterior.tau_within_median,
            tau_shared_median: posterior.tau_shared_median,
        }
    }
}

#[derive(Serialize, Default)]
struct SummaryDocument {
    mean: Option<f64>,
    median: Option<f64>,
    sd: Option<f64>,
    q025: Option<f64>,
    q25: Option<f64>,
    q75: Option<f64>,
    q975: Option<f64>,
}

impl From<&Summary> for SummaryDocument {
    fn from(summary: &Summary) -> SummaryDocument {
        let Summary { mean, median, sd, q025, q25, q75, q975 } = *summary;
        SummaryDocument { mean, median, sd, q025, q25, q75, q975 }
    }
}

/// What is reported with a point estimate.
#[derive(Serialize)]
struct HeterogeneityDocument {
    mu_se: Option<f64>,
    mu_ci95: [Option<f64>; 2],
    knapp_hartung: KnappHartungDocument,
    q: f64,
    q_df: u64,
    q_p: f64,
    tau_ci95: (f64, f64),
    i_squared: f64,
    h_squared: f64,
}

#[derive(Serialize)]
struct KnappHartungDocument {
    se: f64,
    ci95: (f64, f64),
}

fn heterogeneity(analysis: &Analysis, correlation: Correlation) -> Option<HeterogeneityDocument> {
    let mu = analysis.posteriors[correlation as usize].as_ref()?.mu;
    let Heterogeneity { q, q_df, q_p, tau_ci95, i_squared, h_squared, knapp_hartung } =
        analysis.heterogeneity[correlation as usize]?;
    let KnappHartung { se, ci95 } = knapp_hartung;
    Some(HeterogeneityDocument {
        mu_se: mu.sd,
        mu_ci95: [mu.q025, mu.q975],
        knapp_hartung: KnappHartungDocument { se, ci95 },
        q,
        q_df,
        q_p,
        tau_ci95,
        i_squared,
        h_squared,
    })
}

#[derive(Serialize)]
struct ModeDocument {
    tau: f64,
    relative_log_density: f64,
}

fn modes(posterior: &Posterior) -> Vec<ModeDocument> {
    let mode =
        |mode: &shrinkd_model::Mode| ModeDocument { tau: mode.tau, relative_log_density: mode.relative_log_density };
    posterior.modes.iter().map(mode).collect()
}

/// mu and tau under one model of correlation.
#[derive(Serialize)]
struct FitDocument {
    correlation: &'static str,
    effects: u64,
    mu: SummaryDocument,
    tau: SummaryDocument,
    heterogeneity: Option<HeterogeneityDocument>,
    /// See [`Misfit`](shrinkd_model::Misfit).
    risk: Option<f64>,
    score: Option<f64>,
}

fn fits(fitted: &FittedPopulation, analysis: &Analysis) -> Vec<FitDocument> {
    let misfit = analysis.comparison.as_ref().map(|comparison| comparison.misfit);
    let document = |(correlation, posterior): (Correlation, &Option<Posterior>)| FitDocument {
        correlation: correlation.as_str(),
        effects: fitted.effects(correlation),
        mu: posterior.as_ref().map(|p| SummaryDocument::from(&p.mu)).unwrap_or_default(),
        tau: posterior.as_ref().map(|p| SummaryDocument::from(&p.tau)).unwrap_or_default(),
        heterogeneity: heterogeneity(analysis, correlation),
        risk: misfit.and_then(|misfit| misfit.risk(correlation)),
        score: misfit.and_then(|misfit| misfit.score(correlation)),
    };
    Correlation::ALL.into_iter().zip(&analysis.posteriors).map(document).collect()
}

#[derive(Serialize)]
struct BlockDocument<'a> {
    experiment_id: &'a str,
    effects: usize,
    control_shift: Option<f64>,
    control_shift_sd: Option<f64>,
    control_shift_z: Option<f64>,
    control_shift_q: Option<f64>,
    is_control_anomaly: bool,
    information: Option<f64>,
    information_bound: Option<f64>,
    information_share: Option<f64>,
    mu_influence: Option<f64>,
    within_q: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prob_best_control: Option<f64>,
}

impl<'a> BlockDocument<'a> {
    fn new(experiment: &'a Experiment, block: &BlockAnalysis) -> BlockDocument<'a> {
        let diagnostics = block.diagnostics.as_ref();
        BlockDocument {
            experiment_id: &experiment.experiment_id,
            effects: experiment.variants.len(),
            control_shift: block.control_shift.map(|shift| shift.mean),
            control_shift_sd: block.control_shift.map(|shift| shift.sd),
            control_shift_z: diagnostics.and_then(|d| d.control_shift_z),
            control_shift_q: diagnostics.and_then(|d| d.control_shift_q),
            is_control_anomaly: diagnostics.is_some_and(|d| d.is_control_anomaly()),
            information: diagnostics.map(|d| d.information),
            information_bound: diagnostics.and_then(|d| d.information_bound),
            information_share: diagnostics.map(|d| d.information_share),
            mu_influence: diagnostics.and_then(|d| d.mu_influence),
            within_q: diagnostics.and_then(|d| d.within_q),
            prob_best_control: block.best.as_ref().map(|best| best.control),
        }
    }
}

/// One object per block, serialized without collecting them first.
struct Blocks<'a> {
    fitted: &'a FittedPopulation,
    analysis: Option<&'a Analysis>,
}

impl Serialize for Blocks<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let blocks = self.analysis.map(|analysis| analysis.blocks.as_slice()).unwrap_or_default();
        let rows = self.fitted.population.experiments.iter().zip(blocks);
        serializer.collect_seq(rows.map(|(experiment, block)| BlockDocument::new(experiment, block)))
    }
}

/// One object per effect, likewise.
struct Estimates<'a> {
    fitted: &'a FittedPopulation,
    analysis: Option<&'a Analysis>,
    correlation: Correlation,
}

impl Serialize for Estimates<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut rows = serializer.serialize_seq(None)?;
        if let Some(analysis) = self.analysis {
            for_each_effect(self.fitted, analysis, self.correlation, |row| rows.serialize_element(&row))?;
        }
        rows.end()
    }
}
