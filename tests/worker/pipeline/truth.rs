//! What the tables must say: the history folded in memory, fitted, and estimated, without any of the worker.

use std::collections::BTreeMap;
use std::path::Path;

use shrinkd::refit::furthest_from_exact;
use shrinkd::store::Store;
use shrinkd_core::{History, Population, PopulationName, decode};
use shrinkd_model::{BlockPosterior, Correlation, Fit, Member, Method, Posterior, Priors, SketchLikelihood};
use sqlx::{ColumnIndex, Database, Decode, Row, Type};

use crate::common::database::Database as TestDatabase;

/// The tolerance that publishes are judged by, unless configured.
const TOLERANCE: f64 = 0.01;

pub struct Truth {
    populations: BTreeMap<PopulationName, Population>,
    /// Refused results and messages, by reason.
    pub refused: BTreeMap<String, i64>,
}

/// mu (mean), its sd, tau (median), its 97.5% quantile, log evidence.
pub type Figures = [Option<f64>; 5];

/// One row of `effect_estimates`.
#[derive(Debug)]
pub struct EstimateFigures {
    pub population_id: String,
    pub experiment_id: String,
    pub variant: String,
    pub raw_estimate: f64,
    pub posterior_mean: Option<f64>,
    pub posterior_sd: Option<f64>,
}

impl Truth {
    pub fn of(events: &Path) -> Truth {
        let mut history = History::default();
        let mut refused = BTreeMap::new();
        for line in std::fs::read_to_string(events).expect("the events are there").lines() {
            for refusal in history.take(decode(line.as_bytes())).0 {
                *refused.entry(refusal.reason.as_str().to_owned()).or_default() += 1;
            }
        }
        Truth { populations: history.into_populations(2).expect("blocks fit"), refused }
    }

    /// What the last snapshots of a stream say, and what was refused on the way to them.
    pub fn of_snapshots(events: &Path, finals: &Path) -> Truth {
        Truth { refused: Truth::of(events).refused, ..Truth::of(finals) }
    }

    pub fn is_empty(&self) -> bool {
        self.populations.is_empty()
    }

    /// Demands that the store holds the same sketches, bit for bit.
    pub async fn check_sketches(&self, store: &Store) {
        for (name, population) in &self.populations {
            let state = store.population_state(name).await.expect("the store answers");
            assert_eq!(state.statistics.sketches, population.sketches, "the cells of {name}");
            assert_eq!(
                state.statistics.counters.experiments as usize,
                population.experiments.len(),
                "experiments of {name}"
            );
        }
        let held = store.current_populations().await.expect("the store answers");
        for population in held {
            let is_known = self.populations.contains_key(&population.population);
            assert!(is_known || population.experiments == 0, "{} should be empty", population.population);
        }
    }

    /// Demands that the current fits are those of the history, bit for bit.
    pub fn check_fits(&self, rows: &BTreeMap<(String, String), Figures>) {
        for (name, population) in &self.populations {
            for correlation in Correlation::ALL {
                let row = rows.get(&(name.to_string(), correlation.as_str().to_owned()));
                let row = row.unwrap_or_else(|| panic!("no fit of {name}, {}", correlation.as_str()));
                let expected = fit(population, correlation).map_or([None; 5], |fit| {
                    let Fit { posterior, .. } = fit;
                    [
                        posterior.mu.mean,
                        posterior.mu.sd,
                        posterior.tau.median,
                        posterior.tau.q975,
                        posterior.log_evidence,
                    ]
                });
                let bits = |figures: &Figures| figures.map(|figure| figure.map(f64::to_bits));
                assert_eq!(bits(row), bits(&expected), "{name}, {}: {row:?}, not {expected:?}", correlation.as_str());
            }
        }
    }

    /// Demands that every effect has a row, that no other has, and that each is as near to exact as it is promised.
    pub fn check_estimates(&self, rows: Vec<EstimateFigures>) {
        let mut rows: BTreeMap<(String, String, String), EstimateFigures> = rows
            .into_iter()
            .map(|row| ((row.population_id.clone(), row.experiment_id.clone(), row.variant.clone()), row))
            .collect();
        for (name, population) in &self.populations {
            let fit = fit(population, Correlation::Modelled).filter(|_| population.experiments.len() >= 5);
            for (experiment, member) in population.experiments.iter().zip(&population.members) {
                for (i, variant) in experiment.variants.iter().enumerate() {
                    let key = (name.to_string(), experiment.experiment_id.clone(), variant.clone());
                    let row = rows.remove(&key).unwrap_or_else(|| panic!("no row for {key:?}"));
                    assert_eq!(row.raw_estimate.to_bits(), member.block().effects()[i].to_bits(), "{key:?}");
                    let Some(fit) = &fit else {
                        assert_eq!(row.posterior_mean, None, "{key:?} has too few experiments beside it");
                        continue;
                    };
                    let exact = BlockPosterior::new(member.block(), &fit.nodes).estimate(i);
                    let (mean, sd) = (row.posterior_mean.expect("a mean"), row.posterior_sd.expect("an sd"));
                    let distance = (mean - exact.mean).abs() / exact.sd;
                    let bound = bound(fit, member);
                    assert!(distance <= bound, "{key:?} is {distance} posterior sds from exact, more than {bound}");
                    assert!((sd / exact.sd - 1.0).abs() < 0.05, "{key:?}: sd {sd}, exact {}", exact.sd);
                }
            }
        }
        assert!(rows.is_empty(), "rows that should not be there: {:?}", rows.keys());
    }
}

fn bound(fit: &Fit, member: &Member) -> f64 {
    let Posterior { mu, tau, .. } = &fit.posterior;
    let mu = mu.mean.or(mu.median).unwrap_or(0.0);
    furthest_from_exact(TOLERANCE, mu, tau.median.unwrap_or(0.0), member.own_components())
}

fn fit(population: &Population, correlation: Correlation) -> Option<Fit> {
    let likelihood = SketchLikelihood::new(&population.sketches.of(correlation));
    Fit::new(&likelihood, &Priors::default(), Method::Quadrature).ok()
}

/// Everything that a finished database must say of the history.
pub async fn check(database: &(impl TestDatabase + Tables), truth: &Truth) {
    truth.check_sketches(&database.store().await).await;
    truth.check_fits(&database.fits().await);
    truth.check_estimates(database.estimates().await);
    assert_eq!(database.refused().await, truth.refused, "refused results by reason");
}

/// What tests read of the tables, in either database.
pub trait Tables {
    async fn fits(&self) -> BTreeMap<(String, String), Figures>;
    async fn estimates(&self) -> Vec<EstimateFigures>;
    async fn refused(&self) -> BTreeMap<String, i64>;
}

pub const FITS: &str = "select population_id, correlation, mu_mean, mu_sd, tau_median, tau_q975, log_evidence from current_population_fits";
pub const ESTIMATES: &str = "select population_id, experiment_id, variant, raw_estimate, posterior_mean, posterior_sd
     from effect_estimates";
pub const REFUSED: &str = "select reason, count(*) from rejected_events group by reason";

pub fn fits<R: Row>(rows: &[R]) -> BTreeMap<(String, String), Figures>
where
    usize: ColumnIndex<R>,
    String: Type<R::Database> + for<'r> Decode<'r, R::Database>,
    Option<f64>: Type<R::Database> + for<'r> Decode<'r, R::Database>,
    R::Database: Database,
{
    rows.iter().map(|row| ((row.get(0), row.get(1)), [2, 3, 4, 5, 6].map(|i| row.get(i)))).collect()
}

pub fn estimates<R: Row>(rows: &[R]) -> Vec<EstimateFigures>
where
    usize: ColumnIndex<R>,
    String: Type<R::Database> + for<'r> Decode<'r, R::Database>,
    f64: Type<R::Database> + for<'r> Decode<'r, R::Database>,
    Option<f64>: Type<R::Database> + for<'r> Decode<'r, R::Database>,
{
    rows.iter()
        .map(|row| EstimateFigures {
            population_id: row.get(0),
            experiment_id: row.get(1),
            variant: row.get(2),
            raw_estimate: row.get(3),
            posterior_mean: row.get(4),
            posterior_sd: row.get(5),
        })
        .collect()
}
