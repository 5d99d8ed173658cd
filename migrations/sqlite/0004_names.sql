-- One word for one thing: a treatment is an arm, and how the correlation between the effects of one experiment is taken is the
-- column `correlation`: modelled (was correlated), ignored (was independent), one_per_experiment.

drop view plug_in_estimates;

-- A figure is a finite number or null: the database holds it to that. What earlier builds wrote otherwise (of a prior that was
-- narrower than 1e-5 of the standard errors: figures that are null where there should be some) is set to null with the status
-- `failed`, and its populations are fitted again. SQLite adds no checks to a table that is there, so that the tables are made
-- again. 9e999 is infinite.

update effect_estimates
set status = 'failed', posterior_mean = null, posterior_sd = null, ci80_low = null, ci80_high = null,
    ci95_low = null, ci95_high = null, prob_positive = null, lfsr = null, shrinkage_factor = null, naive_posterior_mean = null,
    prob_best = null, control_shift = null, control_shift_sd = null
where not (
    abs(posterior_mean) < 9e999 and abs(posterior_sd) < 9e999 and abs(ci80_low) < 9e999 and abs(ci80_high) < 9e999 and
    abs(ci95_low) < 9e999 and abs(ci95_high) < 9e999 and abs(prob_positive) < 9e999 and abs(lfsr) < 9e999 and
    abs(shrinkage_factor) < 9e999 and abs(naive_posterior_mean) < 9e999 and abs(prob_best) < 9e999 and
    abs(control_shift) < 9e999 and abs(control_shift_sd) < 9e999)
    or status = 'fitted' and posterior_mean is null;

update current_population_fits
set status = 'failed', message = 'its figures were no finite numbers before an upgrade', nodes = x'00', mu_mean = null,
    mu_median = null, mu_sd = null, mu_q025 = null, mu_q25 = null, mu_q75 = null, mu_q975 = null, tau_mean = null,
    tau_median = null, tau_sd = null, tau_q025 = null, tau_q25 = null, tau_q75 = null, tau_q975 = null, log_tau_sd = null,
    mu_tau_correlation = null, log_evidence = null, predictive_mean = null, predictive_sd = null, predictive_median = null,
    predictive_q025 = null, predictive_q975 = null, laplace_mu_distance = null, laplace_tau_distance = null,
    variational_mu_distance = null, variational_tau_distance = null
where not (
    abs(mu_mean) < 9e999 and abs(mu_median) < 9e999 and abs(mu_sd) < 9e999 and abs(mu_q025) < 9e999 and
    abs(mu_q25) < 9e999 and abs(mu_q75) < 9e999 and abs(mu_q975) < 9e999 and abs(tau_mean) < 9e999 and
    abs(tau_median) < 9e999 and abs(tau_sd) < 9e999 and abs(tau_q025) < 9e999 and abs(tau_q25) < 9e999 and
    abs(tau_q75) < 9e999 and abs(tau_q975) < 9e999 and abs(log_tau_sd) < 9e999 and abs(mu_tau_correlation) < 9e999 and
    abs(log_evidence) < 9e999 and abs(predictive_mean) < 9e999 and abs(predictive_sd) < 9e999 and
    abs(predictive_median) < 9e999 and abs(predictive_q025) < 9e999 and abs(predictive_q975) < 9e999 and
    abs(laplace_mu_distance) < 9e999 and abs(laplace_tau_distance) < 9e999 and abs(variational_mu_distance) < 9e999 and
    abs(variational_tau_distance) < 9e999)
    or status = 'fitted' and tau_median is null;

update population_fits
set status = 'failed', message = 'its figures were no finite numbers before an upgrade', nodes = x'00', mu_mean = null,
    mu_median = null, mu_sd = null, mu_q025 = null, mu_q25 = null, mu_q75 = null, mu_q975 = null, tau_mean = null,
    tau_median = null, tau_sd = null, tau_q025 = null, tau_q25 = null, tau_q75 = null, tau_q975 = null, log_tau_sd = null,
    mu_tau_correlation = null, log_evidence = null, predictive_mean = null, predictive_sd = null, predictive_median = null,
    predictive_q025 = null, predictive_q975 = null, laplace_mu_distance = null, laplace_tau_distance = null,
    variational_mu_distance = null, variational_tau_distance = null
where not (
    abs(mu_mean) < 9e999 and abs(mu_median) < 9e999 and abs(mu_sd) < 9e999 and abs(mu_q025) < 9e999 and
    abs(mu_q25) < 9e999 and abs(mu_q75) < 9e999 and abs(mu_q975) < 9e999 and abs(tau_mean) < 9e999 and
    abs(tau_median) < 9e999 and abs(tau_sd) < 9e999 and abs(tau_q025) < 9e999 and abs(tau_q25) < 9e999 and
    abs(tau_q75) < 9e999 and abs(tau_q975) < 9e999 and abs(log_tau_sd) < 9e999 and abs(mu_tau_correlation) < 9e999 and
    abs(log_evidence) < 9e999 and abs(predictive_mean) < 9e999 and abs(predictive_sd) < 9e999 and
    abs(predictive_median) < 9e999 and abs(predictive_q025) < 9e999 and abs(predictive_q975) < 9e999 and
    abs(laplace_mu_distance) < 9e999 and abs(laplace_tau_distance) < 9e999 and abs(variational_mu_distance) < 9e999 and
    abs(variational_tau_distance) < 9e999)
    or status = 'fitted' and tau_median is null;

delete from population_diagnostics
where not (
    abs(information) < 9e999 and abs(information_independent) < 9e999 and abs(effective_effects) < 9e999 and
    abs(tau_squared_moment_bias) < 9e999 and abs(mu_shift) < 9e999 and abs(log_tau_shift) < 9e999 and
    abs(design_effect) < 9e999 and abs(largest_correlation) < 9e999 and abs(largest_estimate_shift) < 9e999 and
    abs(sign_flip_share) < 9e999 and abs(hausman_z) < 9e999 and abs(calibration_rms_z) < 9e999 and
    abs(coverage50) < 9e999 and abs(coverage80) < 9e999 and abs(coverage95) < 9e999 and abs(shipped_share) < 9e999 and
    abs(verdict_value) < 9e999);

update populations set refitted_changes = -1
where population_id in (select population_id from current_population_fits where status = 'failed')
   or population_id in (select population_id from population_fits where status = 'failed');

alter table current_population_fits rename to old;
create table current_population_fits ( -- The posterior of mu and tau of the latest cells, by treatment of correlation
    population_id text not null,
    treatment text not null, -- correlated: as it is; independent: the naive model; one_per_experiment: one variant of each
    fit_id integer not null,
    status text not null, -- fitted; cold_start: too few experiments; improper: no posterior under these priors; failed: see message
    message text,
    experiments integer not null,
    effects integer not null,
    mu_mean real check (abs(mu_mean) < 9e999), -- Mean true effect of the population, in the unit of the effect
    mu_median real check (abs(mu_median) < 9e999),
    mu_sd real check (abs(mu_sd) < 9e999),
    mu_q025 real check (abs(mu_q025) < 9e999),
    mu_q25 real check (abs(mu_q25) < 9e999),
    mu_q75 real check (abs(mu_q75) < 9e999),
    mu_q975 real check (abs(mu_q975) < 9e999),
    tau_mean real check (abs(tau_mean) < 9e999),
    tau_median real check (abs(tau_median) < 9e999), -- Heterogeneity: sd of the true effects, in the unit of the effect
    tau_sd real check (abs(tau_sd) < 9e999),
    tau_q025 real check (abs(tau_q025) < 9e999),
    tau_q25 real check (abs(tau_q25) < 9e999),
    tau_q75 real check (abs(tau_q75) < 9e999),
    tau_q975 real check (abs(tau_q975) < 9e999),
    log_tau_sd real check (abs(log_tau_sd) < 9e999),
    mu_tau_correlation real check (abs(mu_tau_correlation) < 9e999),
    log_evidence real check (abs(log_evidence) < 9e999),
    predictive_mean real check (abs(predictive_mean) < 9e999), -- Of the true effect of the next experiment
    predictive_sd real check (abs(predictive_sd) < 9e999),
    predictive_median real check (abs(predictive_median) < 9e999),
    predictive_q025 real check (abs(predictive_q025) < 9e999),
    predictive_q975 real check (abs(predictive_q975) < 9e999),
    laplace_mu_distance real check (abs(laplace_mu_distance) < 9e999), -- How far the approximation is from exact, in exact posterior sds
    laplace_tau_distance real check (abs(laplace_tau_distance) < 9e999),
    variational_mu_distance real check (abs(variational_mu_distance) < 9e999),
    variational_tau_distance real check (abs(variational_tau_distance) < 9e999),
    nodes blob not null, -- The mixture over tau that effects are averaged over (packed)
    input_offsets text not null, -- How far each partition had been taken in when the cells were read (JSON)
    computed_at text not null,
    primary key (population_id, treatment)
) strict;
insert into current_population_fits select * from old;
drop table old;

alter table population_fits rename to old;
create table population_fits ( -- The history of fits: one is appended whenever mu or tau moved beyond tolerance, and is then what estimates are computed with. Columns as above
    population_id text not null,
    treatment text not null,
    fit_id integer not null,
    status text not null,
    message text,
    experiments integer not null,
    effects integer not null,
    mu_mean real check (abs(mu_mean) < 9e999),
    mu_median real check (abs(mu_median) < 9e999),
    mu_sd real check (abs(mu_sd) < 9e999),
    mu_q025 real check (abs(mu_q025) < 9e999),
    mu_q25 real check (abs(mu_q25) < 9e999),
    mu_q75 real check (abs(mu_q75) < 9e999),
    mu_q975 real check (abs(mu_q975) < 9e999),
    tau_mean real check (abs(tau_mean) < 9e999),
    tau_median real check (abs(tau_median) < 9e999),
    tau_sd real check (abs(tau_sd) < 9e999),
    tau_q025 real check (abs(tau_q025) < 9e999),
    tau_q25 real check (abs(tau_q25) < 9e999),
    tau_q75 real check (abs(tau_q75) < 9e999),
    tau_q975 real check (abs(tau_q975) < 9e999),
    log_tau_sd real check (abs(log_tau_sd) < 9e999),
    mu_tau_correlation real check (abs(mu_tau_correlation) < 9e999),
    log_evidence real check (abs(log_evidence) < 9e999),
    predictive_mean real check (abs(predictive_mean) < 9e999),
    predictive_sd real check (abs(predictive_sd) < 9e999),
    predictive_median real check (abs(predictive_median) < 9e999),
    predictive_q025 real check (abs(predictive_q025) < 9e999),
    predictive_q975 real check (abs(predictive_q975) < 9e999),
    laplace_mu_distance real check (abs(laplace_mu_distance) < 9e999),
    laplace_tau_distance real check (abs(laplace_tau_distance) < 9e999),
    variational_mu_distance real check (abs(variational_mu_distance) < 9e999),
    variational_tau_distance real check (abs(variational_tau_distance) < 9e999),
    nodes blob not null,
    input_offsets text not null,
    computed_at text not null,
    primary key (population_id, fit_id, treatment)
) strict;
insert into population_fits select * from old;
drop table old;

alter table population_diagnostics rename to old;
create table population_diagnostics ( -- Does correlation matter here? One row per published fit; the last one of a population is the latest word
    population_id text not null,
    fit_id integer not null,
    information real not null check (abs(information) < 9e999),
    information_ignored real not null check (abs(information_ignored) < 9e999),
    effective_effects real not null check (abs(effective_effects) < 9e999), -- How many independent effects would say as much about mu
    tau_squared_moment_bias real check (abs(tau_squared_moment_bias) < 9e999),
    mu_shift real check (abs(mu_shift) < 9e999), -- mu of the naive model - mu, in posterior sds
    log_tau_shift real check (abs(log_tau_shift) < 9e999), -- log tau of the naive model - log tau, in posterior sds
    experiments integer,
    deff real check (abs(deff) < 9e999), -- By how much the naive variance of mu must be multiplied, averaged over the posterior of tau
    largest_correlation real check (abs(largest_correlation) < 9e999),
    largest_estimate_shift real check (abs(largest_estimate_shift) < 9e999),
    sign_calls integer,
    sign_flips integer,
    sign_flip_share real check (abs(sign_flip_share) < 9e999), -- Share of effects whose sign is called (lfsr < 0.025, the 95% interval excludes 0) by one of the models only
    hausman_z real check (abs(hausman_z) < 9e999),
    calibration_effects integer,
    calibration_rms_z real check (abs(calibration_rms_z) < 9e999),
    coverage50 real check (abs(coverage50) < 9e999),
    coverage80 real check (abs(coverage80) < 9e999),
    coverage95 real check (abs(coverage95) < 9e999),
    shipped_share real check (abs(shipped_share) < 9e999), -- Share of experiments that were shipped; above 0.8 the losers seem not to arrive
    verdict text, -- Whether treating variants as independent would have changed the answers: negligible, noticeable, material; misfit: the model itself is not borne out
    verdict_rests_on text,
    verdict_value real check (abs(verdict_value) < 9e999),
    diagnosed_at text, -- When a pass through all blocks last computed experiments to verdict_value and the columns after computed_at; they are carried over to later fits until the next
    computed_at text not null,
    primary key (population_id, fit_id)
) strict, without rowid;
insert into population_diagnostics select * from old;
drop table old;

alter table effect_estimates rename to old;
create table effect_estimates ( -- One row per population x experiment x variant: the effect raw and shrunk. The product
    population_id text not null,
    experiment_id text not null,
    variant text not null,
    block_revision integer not null, -- Revision of the event that the row rests on
    commit_id integer not null, -- The worker's commit that last changed the block
    fit_id integer not null, -- The published fit, see population_fits; 0 before the first
    status text not null, -- fitted; cold_start, improper or failed: raw figures only
    raw_estimate real not null check (abs(raw_estimate) < 9e999), -- The effect as measured, in the unit of its scale
    raw_se real not null check (abs(raw_se) < 9e999), -- Its standard error, the control's part included
    treatment_variance real check (abs(treatment_variance) < 9e999), -- d: the treatment's own sampling variance; null where the producer sent a full covariance
    control_variance real check (abs(control_variance) < 9e999), -- c: the shared control's sampling variance
    control_loading real, -- w: how much of the control's error enters the effect
    posterior_mean real check (abs(posterior_mean) < 9e999), -- The shrunken estimate
    posterior_sd real check (abs(posterior_sd) < 9e999),
    ci80_low real check (abs(ci80_low) < 9e999),
    ci80_high real check (abs(ci80_high) < 9e999),
    ci95_low real check (abs(ci95_low) < 9e999), -- Equal-tailed credible interval, uncertainty of mu and tau included
    ci95_high real check (abs(ci95_high) < 9e999),
    prob_positive real check (abs(prob_positive) < 9e999),
    lfsr real check (abs(lfsr) < 9e999), -- Local false sign rate: probability that the more probable sign is wrong
    shrinkage_factor real check (abs(shrinkage_factor) < 9e999), -- How much of a change of the raw estimate is taken back: 0 none, 1 all
    naive_posterior_mean real check (abs(naive_posterior_mean) < 9e999), -- What the model that ignores the shared control would say
    prob_best real check (abs(prob_best) < 9e999), -- Probability of being the best of the experiment, the control included: the largest effect, or the smallest where direction is decrease
    control_shift real check (abs(control_shift) < 9e999), -- The shift that the control's error is estimated to have put into every effect
    control_shift_sd real check (abs(control_shift_sd) < 9e999),
    computed_at text not null,
    primary key (population_id, experiment_id, variant)
) strict, without rowid;
insert into effect_estimates select * from old;
drop table old;

alter table store_settings rename column treatment_seed to one_per_experiment_seed;
alter table sketch_cells rename column treatment to correlation;
alter table current_population_fits rename column treatment to correlation;
alter table population_fits rename column treatment to correlation;

update sketch_cells set correlation = case correlation when 'correlated' then 'modelled' else 'ignored' end
where correlation in ('correlated', 'independent');
update current_population_fits set correlation = case correlation when 'correlated' then 'modelled' else 'ignored' end
where correlation in ('correlated', 'independent');
update population_fits set correlation = case correlation when 'correlated' then 'modelled' else 'ignored' end
where correlation in ('correlated', 'independent');

-- The control's error is in every effect alike: there are no loadings any more.
alter table effect_estimates drop column control_loading;
-- How much of a change of mu the estimate follows.
alter table effect_estimates add column weight_of_mu real check (abs(weight_of_mu) < 9e999);

create view plug_in_estimates as
-- The plug-in estimate at the latest mu and tau, computed when it is read: what the stored rows would say if the population
-- were published right now, without the uncertainty of mu and tau. First the control's error is taken out of every variant,
-- then each is shrunk by its own noise. Null for blocks with a full covariance.
with at as (
    select e.*, f.fit_id as current_fit_id, f.mu_mean, f.mu_median, f.tau_median,
           coalesce(f.mu_mean, f.mu_median) as mu, f.tau_median * f.tau_median as tau_squared
    from effect_estimates e
    join current_population_fits f on f.population_id = e.population_id and f.correlation = 'modelled'
    where f.status = 'fitted'
), sums as (
    select at.*,
           sum((raw_estimate - mu) / (treatment_variance + tau_squared)) over block as weighted_residuals,
           sum(1 / (treatment_variance + tau_squared)) over block as weights
    from at
    window block as (partition by population_id, experiment_id)
)
select population_id, experiment_id, variant, raw_estimate, raw_se, posterior_mean, posterior_sd, mu, tau_median as tau,
       mu + tau_squared / (treatment_variance + tau_squared)
           * (raw_estimate - mu
              - control_variance * weighted_residuals / (1 + control_variance * weights))
           as plug_in_estimate,
       fit_id, current_fit_id
from sums;

-- When an operator last resumed the partition where it had halted, and who that was.
alter table partition_progress add column resumed_at text;
alter table partition_progress add column resumed_by text;

-- Whether a prior is in another unit than the data, as it seems; `message` says which.
alter table current_population_fits add column is_prior_far integer not null default 0 check (is_prior_far in (0, 1));
alter table population_fits add column is_prior_far integer not null default 0 check (is_prior_far in (0, 1));

-- What is counted for the metrics of all populations, and is rare.
create index current_population_fits_failed on current_population_fits (population_id) where status = 'failed';
create index current_population_fits_prior_far on current_population_fits (population_id) where is_prior_far;

-- Whether half an event was added to every arm for the effect, a log ratio or a log odds ratio, because the experiment has few events.
alter table effect_estimates add column is_continuity_corrected integer not null default 0;
-- Whether the effect is a lift beyond +50% on relative, where intervals are too narrow.
alter table effect_estimates add column lift_too_large_for_relative integer not null default 0;
-- How control_variance is known: arms: from the control's arm; given: sent with the effects; imputed: from the numbers of units; none: not
-- at all, of a single effect. Null in a row that has not been written since the upgrade.
alter table effect_estimates add column control_variance_source text
    check (control_variance_source in ('arms', 'given', 'imputed', 'none'));

-- The variant that the refusal is about; null where it is about no single one. Of a result several treatments can be refused,
-- each with a row of its own.
alter table rejected_events add column variant text;
drop index rejected_events_by_record;
create unique index rejected_events_by_record
    on rejected_events (partition_id, record_offset, ifnull(result_index, -1), ifnull(variant, ''));

-- Effects that look as if they had been sent in another unit.
alter table population_diagnostics add column mix_ups integer;

-- The shortest interval that holds 95% of the posterior of tau, the probability that tau is below a tenth of the typical standard
-- error, and the priors of the fit in the unit of the effects.
alter table current_population_fits add column tau_shortest95_low real check (abs(tau_shortest95_low) < 9e999);
alter table current_population_fits add column tau_shortest95_high real check (abs(tau_shortest95_high) < 9e999);
alter table current_population_fits add column prob_tau_negligible real check (prob_tau_negligible between 0 and 1);
alter table current_population_fits add column prior_mu text;
alter table current_population_fits add column prior_tau text;
alter table population_fits add column tau_shortest95_low real check (abs(tau_shortest95_low) < 9e999);
alter table population_fits add column tau_shortest95_high real check (abs(tau_shortest95_high) < 9e999);
alter table population_fits add column prob_tau_negligible real check (prob_tau_negligible between 0 and 1);
alter table population_fits add column prior_mu text;
alter table population_fits add column prior_tau text;

-- What the naive model would do to its readers, and whether the model fits at all. Earlier verdicts rest on other measures.
-- By how much the shared controls alone multiply it.
alter table population_diagnostics add column deff_control real check (abs(deff_control) < 9e999);
-- What the 95% interval of mu of the naive model would cover.
alter table population_diagnostics add column naive_coverage real check (naive_coverage between 0 and 1);
-- By what share the root mean squared error of the shrunken estimates of the naive model would be larger.
alter table population_diagnostics add column rmse_excess real check (abs(rmse_excess) < 9e999);
-- Effects whose sign the naive model calls otherwise, with a margin: P(theta > 0) differs by more than 0.02.
alter table population_diagnostics add column changed_decisions integer check (changed_decisions >= 0);
-- The same as a share of the effects.
alter table population_diagnostics add column changed_decision_share real check (changed_decision_share between 0 and 1);
-- Share of the value of the best variants that is lost by picking those that are best in the naive model.
alter table population_diagnostics add column value_given_up real check (abs(value_given_up) < 9e999);
-- Unbiased estimate of the squared error of the shrunken estimates, in units of that of the raw ones.
alter table population_diagnostics add column risk_modelled real check (abs(risk_modelled) < 9e999);
-- The same of the naive model.
alter table population_diagnostics add column risk_ignored real check (abs(risk_ignored) < 9e999);
-- The same of the model of one variant per experiment, for its own effects.
alter table population_diagnostics add column risk_one_per_experiment real check (abs(risk_one_per_experiment) < 9e999);
-- Log predictive density of every experiment under a fit without it, added up, in nats.
alter table population_diagnostics add column score_modelled real check (abs(score_modelled) < 9e999);
-- The same of the naive model.
alter table population_diagnostics add column score_ignored real check (abs(score_ignored) < 9e999);
-- The same of the model of one variant per experiment.
alter table population_diagnostics add column score_one_per_experiment real check (abs(score_one_per_experiment) < 9e999);
-- 0.1 had the design effect at the posterior median of tau.
update population_diagnostics set deff = null, verdict = null, verdict_rests_on = null, verdict_value = null;
update populations set diagnosed_at = null;

-- Whether predictions are borne out, and whether the losers arrive.
-- Of 1,300 populations in which the model is right coverage50 is below this or above coverage50_high in one; likewise the others.
alter table population_diagnostics add column coverage50_low real check (coverage50_low between 0 and 1);
alter table population_diagnostics add column coverage50_high real check (coverage50_high between 0 and 1);
alter table population_diagnostics add column coverage80_low real check (coverage80_low between 0 and 1);
alter table population_diagnostics add column coverage80_high real check (coverage80_high between 0 and 1);
alter table population_diagnostics add column coverage95_low real check (coverage95_low between 0 and 1);
alter table population_diagnostics add column coverage95_high real check (coverage95_high between 0 and 1);
-- Predicted effects by tenths of their predictive probability (PIT), ten counts from 0 to 1; equal on average where the model is
-- right (JSON).
alter table population_diagnostics add column pit_histogram text check (json_valid(pit_histogram));
-- The likely cause where a coverage or a bin of the histogram is out of its bounds; null where none is.
alter table population_diagnostics add column calibration_cause text;
-- Log likelihood ratio of a selection by which results with z below 1.96 (where less is better, above -1.96) are less likely to arrive than others.
alter table population_diagnostics add column selection_log_lr real check (abs(selection_log_lr) < 9e999);
-- How likely they are to arrive, relative to others; says little where selection_log_lr is small.
alter table population_diagnostics add column selection_eta real check (selection_eta between 0 and 1);
-- The share of all results that did not arrive, if so.
alter table population_diagnostics add column selection_missing_share real check (selection_missing_share between 0 and 1);
-- One-sided p of the caliper test: whether more results lie just above z = 1.96 than just below; null where none is near.
alter table population_diagnostics add column caliper_p real check (caliper_p between 0 and 1);
-- Whether only winners seem to arrive: selection_log_lr is above 4 and selection_missing_share above 0.4; null where they are.
alter table population_diagnostics add column is_selection_suspected integer check (is_selection_suspected in (0, 1));

-- Which way of an effect is better, how much of the traffic it applies to, what was shipped, and holdouts.
-- experiment, or holdout: its blocks are in no population.
alter table experiments add column kind text not null default 'experiment' check (kind in ('experiment', 'holdout'));
-- When the experiment was started, where it was sent.
alter table experiments add column started_at text;
-- The variant that all users have got since, which may be the control; null where it was not sent.
alter table experiments add column shipped_variant text;

alter table blocks rename to old;
create table blocks ( -- One row per experiment x metric x segment x scale that stands: what was sent, and the block made of it
    experiment_id text not null,
    metric text not null,
    segment text not null,
    scale text not null,
    population_id text, -- Null of a holdout
    revision integer not null, -- The revision that last changed the block
    commit_id integer not null, -- The worker's commit that last changed the row
    partition_id integer not null, -- The partition under which the block is counted in sketch_cells: of its batch, not of its own record
    statistics blob not null, -- The arms or effects as they were sent (packed)
    block blob, -- Variants, effects and their sampling covariance (packed); null while the parts of a sum cannot be estimated
    components blob, -- Spectral components (lambda, a, b) of the covariance: what was added to the cells (packed); null of a holdout
    pending_reason text, -- Why the parts of a sum cannot be estimated yet
    pending_detail text,
    direction text check (direction in ('increase', 'decrease')), -- Which way of the effects is better; null where it was not sent
    coverage real check (coverage > 0 and coverage <= 1), -- The share of the whole traffic that the effects apply to; null where it was not sent
    primary key (experiment_id, metric, segment, scale)
) strict;
insert into blocks select *, null, null from old;
drop table old;
create index blocks_by_population on blocks (population_id, experiment_id);

-- Which way of the effects is better where a result does not say.
alter table current_population_fits add column direction text not null default 'increase' check (direction in ('increase', 'decrease'));
alter table population_fits add column direction text not null default 'increase' check (direction in ('increase', 'decrease'));

-- Which way of the effect is better, increase or decrease: of the result, else of the population; null before its first fit where the
-- result does not say.
alter table effect_estimates add column direction text check (direction in ('increase', 'decrease'));
-- The share of the whole traffic that the effect applies to.
alter table effect_estimates add column coverage real not null default 1 check (coverage > 0 and coverage <= 1);
-- Whether all users have got the variant since; null where the experiment does not say which was shipped.
alter table effect_estimates add column is_shipped integer check (is_shipped in (0, 1));
