//! Queries to try on a demo's database.

/// A query, and the question that it answers.
pub(super) struct Query {
    pub(super) question: &'static str,
    pub(super) sql: &'static str,
}

/// One about the effects, one about the populations.
pub(super) const QUERIES: [Query; 2] = [
    Query {
        question: "winner's curse: significant raw effects (> 1.96 se) that may well be noise",
        sql: "\
select population_id, experiment_id, variant,
       round(raw_estimate, 4) as raw, round(raw_se, 4) as se,
       round(posterior_mean, 4) as shrunk,
       round(ci95_low, 4) as low, round(ci95_high, 4) as high
from effect_estimates
where raw_estimate > 1.96 * raw_se and ci95_low < 0
order by raw_estimate / raw_se desc limit 10;",
    },
    Query {
        question: "do shared controls matter in each population, and is it calibrated?",
        sql: "\
select population_id, verdict, verdict_rests_on,
       round(naive_coverage, 3) as naive_coverage,
       round(rmse_excess, 3) as rmse_excess, changed_decisions,
       round(coverage95, 3) as coverage95
from population_diagnostics as d
where fit_id = (select max(fit_id) from population_diagnostics
                where population_id = d.population_id)
order by naive_coverage;",
    },
];
