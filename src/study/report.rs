//! The results of a study, as they are serialized to JSON.

use serde::{Serialize, Serializer};
use shrinkd_model::{Correlation, Measure, Verdict};

use super::performance::{Performance, Score};
use super::replicate::{Located, Replicate, ScoredFit};
use crate::simulate::{Population, Scenario};

/// The results, scenario by scenario.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    pub seed: u64,
    pub replicates: usize,
    pub scenarios: Vec<ScenarioReport>,
}

/// One scenario: its sizes, its true values, the verdict on correlation, and the results of each model of correlation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ScenarioReport {
    /// `None` for a design of one's own, which is named `custom`.
    #[serde(serialize_with = "scenario_name")]
    pub scenario: Option<Scenario>,
    #[serde(skip)]
    pub population: Population,
    pub experiments: usize,
    pub effects: usize,
    /// Share of an effect's sampling variance that is the control's: the correlation of the errors of two effects.
    pub rho: f64,
    pub truth: Truth,
    pub correlation: VerdictReport,
    pub fits: Vec<FitReport>,
}

/// The true values of the parameters.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Truth {
    pub mu: f64,
    pub tau: f64,
}

/// The verdict on correlation: whether treating the variants as independent changes the conclusions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct VerdictReport {
    /// The verdict on the first replicate; the measure that decides it and its value are of the same replicate.
    #[serde(serialize_with = "verdict_name")]
    pub verdict: Verdict,
    #[serde(serialize_with = "measure_name")]
    pub rests_on: Measure,
    pub value: f64,
    /// Number of replicates with each verdict.
    pub replicates: VerdictCounts,
}

/// Number of replicates by verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct VerdictCounts {
    pub negligible: usize,
    pub noticeable: usize,
    pub material: usize,
    pub misfit: usize,
}

/// The results of one model of correlation in one scenario.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FitReport {
    #[serde(serialize_with = "correlation_name")]
    pub correlation: Correlation,
    pub mu: ParameterReport,
    pub tau: ParameterReport,
    /// Of the posterior means and 95% intervals of the effects that the model of correlation keeps.
    pub theta: Performance,
}

/// One parameter: its posterior in the first replicate, and the performance of its posterior median and 95% interval over
/// all replicates.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ParameterReport {
    pub median: f64,
    pub sd: Option<f64>,
    #[serde(flatten)]
    pub performance: Performance,
}

impl ScenarioReport {
    /// Summarizes a scenario's replicates, of which there must be at least one.
    pub(super) fn new(scenario: Option<Scenario>, population: Population, replicates: &[Replicate]) -> ScenarioReport {
        let truth = Truth { mu: population.mu, tau: population.tau };
        // The study takes true effects as independent, as they are: the model of control only is that of the first rows.
        let models = Correlation::ALL.into_iter().filter(|correlation| *correlation != Correlation::ControlOnly);
        let fits = models.map(|correlation| {
            let fits: Vec<ScoredFit> =
                replicates.iter().map(|replicate| replicate.fits[correlation as usize]).collect();
            FitReport::new(correlation, &fits, truth)
        });
        ScenarioReport {
            scenario,
            population,
            experiments: population.experiments,
            effects: population.effects(),
            rho: population.rho(),
            truth,
            correlation: VerdictReport::new(replicates),
            fits: fits.collect(),
        }
    }

    /// The name of the scenario, or of a design of one's own.
    pub fn name(&self) -> &'static str {
        name(self.scenario)
    }
}

impl VerdictReport {
    fn new(replicates: &[Replicate]) -> VerdictReport {
        let count = |verdict| replicates.iter().filter(|replicate| replicate.verdict == verdict).count();
        let (rests_on, value) = replicates[0].rests_on;
        VerdictReport {
            verdict: replicates[0].verdict,
            rests_on,
            value,
            replicates: VerdictCounts {
                negligible: count(Verdict::Negligible),
                noticeable: count(Verdict::Noticeable),
                material: count(Verdict::Material),
                misfit: count(Verdict::Misfit),
            },
        }
    }
}

impl FitReport {
    fn new(correlation: Correlation, fits: &[ScoredFit], truth: Truth) -> FitReport {
        let parameter = |of: fn(&ScoredFit) -> Located, truth| {
            let located: Vec<Located> = fits.iter().map(of).collect();
            ParameterReport::new(&located, truth)
        };
        let thetas: Vec<Score> = fits.iter().map(|fit| fit.theta).collect();
        FitReport {
            correlation,
            mu: parameter(|fit| fit.mu, truth.mu),
            tau: parameter(|fit| fit.tau, truth.tau),
            theta: Performance::of(&thetas),
        }
    }
}

impl ParameterReport {
    fn new(located: &[Located], truth: f64) -> ParameterReport {
        let scores: Vec<Score> = located.iter().map(|l| Score::new(l.median, l.ci95, truth)).collect();
        ParameterReport { median: located[0].median, sd: located[0].sd, performance: Performance::of(&scores) }
    }
}

fn name(scenario: Option<Scenario>) -> &'static str {
    scenario.map_or("custom", Scenario::as_str)
}

fn scenario_name<S: Serializer>(scenario: &Option<Scenario>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(name(*scenario))
}

pub(super) fn correlation_name<S: Serializer>(correlation: &Correlation, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(correlation.as_str())
}

pub(crate) fn measure_name<S: Serializer>(measure: &Measure, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(measure.as_str())
}

pub(crate) fn verdict_name<S: Serializer>(verdict: &Verdict, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(verdict.as_str())
}
