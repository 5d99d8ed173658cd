//! The article behind this project, in its own figures: its data, fitted exactly, beside the medians and sds that it printed.
//!
//! The post of 2026-03-22 on dpananos.github.io simulates four sets of experiments, fits each with the correlation from the shared
//! control modelled ("Correlated") and ignored ("Naive"), and prints a table of each. Here the same data pass through what every
//! event passes through, and are fitted with the article's model and priors, whatever shrinkd's own defaults are.
//! `src/study/article/README.md` has the source of the data.

use serde::Serialize;
use shrinkd_core::{History, Message, Population, decode};
use shrinkd_model::{
    Analysis, Comparison, Correlation, Measure, PriorIcc, PriorMu, PriorTau, Priors, Quantity, Request, Summary,
    Verdict,
};

use super::StudyError;
use super::report::{Truth, correlation_name, measure_name, verdict_name};

/// One of the article's data sets, with what it printed for it.
struct DataSet {
    name: &'static str,
    title: &'static str,
    events: &'static str,
    correlated: Figures,
    naive: Figures,
    /// The experiment whose control is bad: the author would leave it out.
    bad_control: Option<&'static str>,
}

const DATA_SETS: [DataSet; 4] = [
    DataSet {
        name: "single-variant",
        title: "every experiment has a single variant",
        events: include_str!("article/single_variant.ndjson"),
        correlated: figures((0.8403, 0.2193), (0.5995, 0.3538)),
        naive: figures((0.8191, 0.2249), (0.644, 0.3272)),
        bad_control: None,
    },
    DataSet {
        name: "many-variants",
        title: "a single experiment has a lot of variants",
        events: include_str!("article/many_variants.ndjson"),
        correlated: figures((1.0012, 0.3215), (0.8658, 0.2813)),
        naive: figures((0.8962, 0.2147), (0.451, 0.3014)),
        bad_control: None,
    },
    DataSet {
        name: "bad-control",
        title: "the control is measured with a lot of error",
        events: include_str!("article/bad_control.ndjson"),
        correlated: figures((1.4754, 0.345), (0.9599, 0.2802)),
        naive: figures((3.1876, 0.3591), (2.1721, 0.321)),
        bad_control: Some("exp-01"),
    },
    DataSet {
        name: "treatment-heavy",
        title: "the propensity favours the variant",
        events: include_str!("article/treatment_heavy.ndjson"),
        correlated: figures((0.8791, 0.267), (0.9485, 0.1259)),
        naive: figures((0.8196, 0.1555), (0.4684, 0.2427)),
        bad_control: None,
    },
];

/// What the simulation drew from, in all four.
const TRUTH: Truth = Truth { mu: 1.0, tau: 1.0 };

/// The article's priors: mu ~ N(0, 1) and tau ~ half-Cauchy(1), on the z-scores of the raw effects.
const PRIORS: Priors<Quantity> = Priors {
    mu: PriorMu::Normal { mean: Quantity::Mean, sd: Quantity::Sd(1.0) },
    tau: PriorTau::HalfCauchy { scale: Quantity::Sd(1.0) },
    icc: PriorIcc::None,
};

/// The article's four tables.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Article {
    pub tables: Vec<Table>,
}

/// One table: a data set, its fits, and the verdict on correlation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Table {
    pub name: &'static str,
    pub title: &'static str,
    pub experiments: usize,
    pub effects: usize,
    pub truth: Truth,
    pub correlation: TableVerdict,
    pub rows: Vec<Row>,
}

/// The verdict on correlation, the measure that decides it, and its value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct TableVerdict {
    #[serde(serialize_with = "verdict_name")]
    pub verdict: Verdict,
    #[serde(serialize_with = "measure_name")]
    pub rests_on: Measure,
    pub value: f64,
}

/// One fit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Row {
    /// The article's own, where it has such a row.
    pub label: &'static str,
    #[serde(serialize_with = "correlation_name")]
    pub correlation: Correlation,
    /// The experiment that is left out.
    pub without: Option<&'static str>,
    /// The exact posterior with the article's priors.
    #[serde(flatten)]
    pub exact: Figures,
    /// What the article printed.
    pub published: Option<Figures>,
    /// The same fit with flat priors instead of the article's.
    pub flat_priors: Figures,
}

/// Posterior medians and standard deviations of both parameters.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Figures {
    pub mu: Figure,
    pub tau: Figure,
}

/// Median and standard deviation of a posterior, in the effects' unit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Figure {
    pub median: f64,
    pub sd: f64,
}

impl Article {
    /// Fits the article's data.
    ///
    /// # Errors
    /// None, as far as the data are those in the binary.
    pub fn new() -> Result<Article, StudyError> {
        let tables = DATA_SETS.iter().map(DataSet::table).collect::<Result<_, _>>()?;
        Ok(Article { tables })
    }
}

impl DataSet {
    fn table(&self) -> Result<Table, StudyError> {
        let population = self.population(None)?;
        let fits = Fits::new(&population)?;
        let mut rows = vec![
            fits.row("Correlated", Correlation::Modelled, Some(self.correlated))?,
            fits.row("Naive", Correlation::Ignored, Some(self.naive))?,
            fits.row("One per experiment", Correlation::OnePerExperiment, None)?,
        ];
        if let Some(without) = self.bad_control {
            let fits = Fits::new(&self.population(Some(without))?)?;
            rows.push(Row { without: Some(without), ..fits.row("Correlated", Correlation::Modelled, None)? });
        }
        let Comparison { verdict, rests_on: (rests_on, value), .. } =
            fits.article.comparison.ok_or(StudyError::NoQuantiles)?;
        Ok(Table {
            name: self.name,
            title: self.title,
            experiments: population.members.len(),
            effects: population.members.iter().map(|member| member.block().len()).sum(),
            truth: TRUTH,
            correlation: TableVerdict { verdict, rests_on, value },
            rows,
        })
    }

    /// The population that the events form, as they would in a file or a topic, without those of one experiment.
    fn population(&self, without: Option<&str>) -> Result<Population, StudyError> {
        let mut history = History::default();
        for line in self.events.lines() {
            let message = decode(line.as_bytes())?;
            if matches!(&message, Message::Event(event) if Some(&*event.experiment_id) == without) {
                continue;
            }
            let (refusals, _) = history.take(Ok(message));
            refusals.into_iter().try_for_each(Err)?;
        }
        Ok(history.into_populations(1)?.into_values().next().unwrap_or_default())
    }
}

/// The fits of a population with the article's priors, and with flat ones.
struct Fits {
    article: Analysis,
    flat: Analysis,
}

impl Fits {
    fn new(population: &Population) -> Result<Fits, StudyError> {
        let analysis = |priors| {
            let request = Request { correlation: Correlation::Modelled, priors, ..Request::default() };
            Analysis::new(&population.members, &population.sketches, &request)
        };
        Ok(Fits { article: analysis(PRIORS)?, flat: analysis(Priors::default())? })
    }

    fn row(
        &self,
        label: &'static str,
        correlation: Correlation,
        published: Option<Figures>,
    ) -> Result<Row, StudyError> {
        let figures = |analysis| Figures::new(analysis, correlation).ok_or(StudyError::NoQuantiles);
        let (exact, flat_priors) = (figures(&self.article)?, figures(&self.flat)?);
        Ok(Row { label, correlation, without: None, exact, published, flat_priors })
    }
}

impl Figures {
    fn new(analysis: &Analysis, correlation: Correlation) -> Option<Figures> {
        let posterior = analysis.posteriors[correlation as usize].as_ref()?;
        let figure = |summary: &Summary| Some(Figure { median: summary.median?, sd: summary.sd? });
        Some(Figures { mu: figure(&posterior.mu)?, tau: figure(&posterior.tau)? })
    }
}

const fn figures(mu: (f64, f64), tau: (f64, f64)) -> Figures {
    Figures { mu: Figure { median: mu.0, sd: mu.1 }, tau: Figure { median: tau.0, sd: tau.1 } }
}
