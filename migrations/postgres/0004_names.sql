-- One word for one thing: a treatment is an arm, and how the correlation between the effects of one experiment is taken is the
-- column `correlation`: modelled (was correlated), ignored (was independent), one_per_experiment.

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

comment on table current_population_fits is 'The posterior of mu and tau of the latest cells, by model of correlation';
comment on column current_population_fits.correlation is
    'modelled: the shared control''s error is modelled; ignored: the naive model; one_per_experiment: one variant of each';
comment on column population_fits.correlation is
    'modelled: the shared control''s error is modelled; ignored: the naive model; one_per_experiment: one variant of each';

-- A figure is a finite number or null: the database holds it to that. What earlier builds wrote otherwise (NaN, of a prior that was
-- narrower than 1e-5 of the standard errors) is set to null with the status `failed`, and its populations are fitted again. NaN
-- is greater than infinity to PostgreSQL.

update effect_estimates
set status = 'failed', posterior_mean = null, posterior_sd = null, ci80_low = null, ci80_high = null,
    ci95_low = null, ci95_high = null, prob_positive = null, lfsr = null, shrinkage_factor = null, naive_posterior_mean = null,
    prob_best = null, control_shift = null, control_shift_sd = null
where not (
    abs(posterior_mean) < 'Infinity' and abs(posterior_sd) < 'Infinity' and abs(ci80_low) < 'Infinity' and
    abs(ci80_high) < 'Infinity' and abs(ci95_low) < 'Infinity' and abs(ci95_high) < 'Infinity' and
    abs(prob_positive) < 'Infinity' and abs(lfsr) < 'Infinity' and abs(shrinkage_factor) < 'Infinity' and
    abs(naive_posterior_mean) < 'Infinity' and abs(prob_best) < 'Infinity' and abs(control_shift) < 'Infinity' and
    abs(control_shift_sd) < 'Infinity')
    or status = 'fitted' and posterior_mean is null;

update current_population_fits
set status = 'failed', message = 'its figures were no finite numbers before an upgrade', nodes = '\x00', mu_mean = null,
    mu_median = null, mu_sd = null, mu_q025 = null, mu_q25 = null, mu_q75 = null, mu_q975 = null, tau_mean = null,
    tau_median = null, tau_sd = null, tau_q025 = null, tau_q25 = null, tau_q75 = null, tau_q975 = null, log_tau_sd = null,
    mu_tau_correlation = null, log_evidence = null, predictive_mean = null, predictive_sd = null, predictive_median = null,
    predictive_q025 = null, predictive_q975 = null, laplace_mu_distance = null, laplace_tau_distance = null,
    variational_mu_distance = null, variational_tau_distance = null
where not (
    abs(mu_mean) < 'Infinity' and abs(mu_median) < 'Infinity' and abs(mu_sd) < 'Infinity' and
    abs(mu_q025) < 'Infinity' and abs(mu_q25) < 'Infinity' and abs(mu_q75) < 'Infinity' and
    abs(mu_q975) < 'Infinity' and abs(tau_mean) < 'Infinity' and abs(tau_median) < 'Infinity' and
    abs(tau_sd) < 'Infinity' and abs(tau_q025) < 'Infinity' and abs(tau_q25) < 'Infinity' and
    abs(tau_q75) < 'Infinity' and abs(tau_q975) < 'Infinity' and abs(log_tau_sd) < 'Infinity' and
    abs(mu_tau_correlation) < 'Infinity' and abs(log_evidence) < 'Infinity' and abs(predictive_mean) < 'Infinity' and
    abs(predictive_sd) < 'Infinity' and abs(predictive_median) < 'Infinity' and abs(predictive_q025) < 'Infinity' and
    abs(predictive_q975) < 'Infinity' and abs(laplace_mu_distance) < 'Infinity' and
    abs(laplace_tau_distance) < 'Infinity' and abs(variational_mu_distance) < 'Infinity' and
    abs(variational_tau_distance) < 'Infinity')
    or status = 'fitted' and tau_median is null;

update population_fits
set status = 'failed', message = 'its figures were no finite numbers before an upgrade', nodes = '\x00', mu_mean = null,
    mu_median = null, mu_sd = null, mu_q025 = null, mu_q25 = null, mu_q75 = null, mu_q975 = null, tau_mean = null,
    tau_median = null, tau_sd = null, tau_q025 = null, tau_q25 = null, tau_q75 = null, tau_q975 = null, log_tau_sd = null,
    mu_tau_correlation = null, log_evidence = null, predictive_mean = null, predictive_sd = null, predictive_median = null,
    predictive_q025 = null, predictive_q975 = null, laplace_mu_distance = null, laplace_tau_distance = null,
    variational_mu_distance = null, variational_tau_distance = null
where not (
    abs(mu_mean) < 'Infinity' and abs(mu_median) < 'Infinity' and abs(mu_sd) < 'Infinity' and
    abs(mu_q025) < 'Infinity' and abs(mu_q25) < 'Infinity' and abs(mu_q75) < 'Infinity' and
    abs(mu_q975) < 'Infinity' and abs(tau_mean) < 'Infinity' and abs(tau_median) < 'Infinity' and
    abs(tau_sd) < 'Infinity' and abs(tau_q025) < 'Infinity' and abs(tau_q25) < 'Infinity' and
    abs(tau_q75) < 'Infinity' and abs(tau_q975) < 'Infinity' and abs(log_tau_sd) < 'Infinity' and
    abs(mu_tau_correlation) < 'Infinity' and abs(log_evidence) < 'Infinity' and abs(predictive_mean) < 'Infinity' and
    abs(predictive_sd) < 'Infinity' and abs(predictive_median) < 'Infinity' and abs(predictive_q025) < 'Infinity' and
    abs(predictive_q975) < 'Infinity' and abs(laplace_mu_distance) < 'Infinity' and
    abs(laplace_tau_distance) < 'Infinity' and abs(variational_mu_distance) < 'Infinity' and
    abs(variational_tau_distance) < 'Infinity')
    or status = 'fitted' and tau_median is null;

delete from population_diagnostics
where not (
    abs(information) < 'Infinity' and abs(information_independent) < 'Infinity' and
    abs(effective_effects) < 'Infinity' and abs(tau_squared_moment_bias) < 'Infinity' and abs(mu_shift) < 'Infinity' and
    abs(log_tau_shift) < 'Infinity' and abs(design_effect) < 'Infinity' and abs(largest_correlation) < 'Infinity' and
    abs(largest_estimate_shift) < 'Infinity' and abs(sign_flip_share) < 'Infinity' and abs(hausman_z) < 'Infinity' and
    abs(calibration_rms_z) < 'Infinity' and abs(coverage50) < 'Infinity' and abs(coverage80) < 'Infinity' and
    abs(coverage95) < 'Infinity' and abs(shipped_share) < 'Infinity' and abs(verdict_value) < 'Infinity');

update populations set refitted_changes = -1
where population_id in (select population_id from current_population_fits where status = 'failed')
   or population_id in (select population_id from population_fits where status = 'failed');

alter table current_population_fits
    add check (abs(mu_mean) < 'Infinity'),
    add check (abs(mu_median) < 'Infinity'),
    add check (abs(mu_sd) < 'Infinity'),
    add check (abs(mu_q025) < 'Infinity'),
    add check (abs(mu_q25) < 'Infinity'),
    add check (abs(mu_q75) < 'Infinity'),
    add check (abs(mu_q975) < 'Infinity'),
    add check (abs(tau_mean) < 'Infinity'),
    add check (abs(tau_median) < 'Infinity'),
    add check (abs(tau_sd) < 'Infinity'),
    add check (abs(tau_q025) < 'Infinity'),
    add check (abs(tau_q25) < 'Infinity'),
    add check (abs(tau_q75) < 'Infinity'),
    add check (abs(tau_q975) < 'Infinity'),
    add check (abs(log_tau_sd) < 'Infinity'),
    add check (abs(mu_tau_correlation) < 'Infinity'),
    add check (abs(log_evidence) < 'Infinity'),
    add check (abs(predictive_mean) < 'Infinity'),
    add check (abs(predictive_sd) < 'Infinity'),
    add check (abs(predictive_median) < 'Infinity'),
    add check (abs(predictive_q025) < 'Infinity'),
    add check (abs(predictive_q975) < 'Infinity'),
    add check (abs(laplace_mu_distance) < 'Infinity'),
    add check (abs(laplace_tau_distance) < 'Infinity'),
    add check (abs(variational_mu_distance) < 'Infinity'),
    add check (abs(variational_tau_distance) < 'Infinity');

alter table population_fits
    add check (abs(mu_mean) < 'Infinity'),
    add check (abs(mu_median) < 'Infinity'),
    add check (abs(mu_sd) < 'Infinity'),
    add check (abs(mu_q025) < 'Infinity'),
    add check (abs(mu_q25) < 'Infinity'),
    add check (abs(mu_q75) < 'Infinity'),
    add check (abs(mu_q975) < 'Infinity'),
    add check (abs(tau_mean) < 'Infinity'),
    add check (abs(tau_median) < 'Infinity'),
    add check (abs(tau_sd) < 'Infinity'),
    add check (abs(tau_q025) < 'Infinity'),
    add check (abs(tau_q25) < 'Infinity'),
    add check (abs(tau_q75) < 'Infinity'),
    add check (abs(tau_q975) < 'Infinity'),
    add check (abs(log_tau_sd) < 'Infinity'),
    add check (abs(mu_tau_correlation) < 'Infinity'),
    add check (abs(log_evidence) < 'Infinity'),
    add check (abs(predictive_mean) < 'Infinity'),
    add check (abs(predictive_sd) < 'Infinity'),
    add check (abs(predictive_median) < 'Infinity'),
    add check (abs(predictive_q025) < 'Infinity'),
    add check (abs(predictive_q975) < 'Infinity'),
    add check (abs(laplace_mu_distance) < 'Infinity'),
    add check (abs(laplace_tau_distance) < 'Infinity'),
    add check (abs(variational_mu_distance) < 'Infinity'),
    add check (abs(variational_tau_distance) < 'Infinity');

alter table population_diagnostics
    add check (abs(information) < 'Infinity'),
    add check (abs(information_independent) < 'Infinity'),
    add check (abs(effective_effects) < 'Infinity'),
    add check (abs(tau_squared_moment_bias) < 'Infinity'),
    add check (abs(mu_shift) < 'Infinity'),
    add check (abs(log_tau_shift) < 'Infinity'),
    add check (abs(design_effect) < 'Infinity'),
    add check (abs(largest_correlation) < 'Infinity'),
    add check (abs(largest_estimate_shift) < 'Infinity'),
    add check (abs(sign_flip_share) < 'Infinity'),
    add check (abs(hausman_z) < 'Infinity'),
    add check (abs(calibration_rms_z) < 'Infinity'),
    add check (abs(coverage50) < 'Infinity'),
    add check (abs(coverage80) < 'Infinity'),
    add check (abs(coverage95) < 'Infinity'),
    add check (abs(shipped_share) < 'Infinity'),
    add check (abs(verdict_value) < 'Infinity');

alter table effect_estimates
    add check (abs(raw_estimate) < 'Infinity'),
    add check (abs(raw_se) < 'Infinity'),
    add check (abs(treatment_variance) < 'Infinity'),
    add check (abs(control_variance) < 'Infinity'),
    add check (abs(posterior_mean) < 'Infinity'),
    add check (abs(posterior_sd) < 'Infinity'),
    add check (abs(ci80_low) < 'Infinity'),
    add check (abs(ci80_high) < 'Infinity'),
    add check (abs(ci95_low) < 'Infinity'),
    add check (abs(ci95_high) < 'Infinity'),
    add check (abs(prob_positive) < 'Infinity'),
    add check (abs(lfsr) < 'Infinity'),
    add check (abs(shrinkage_factor) < 'Infinity'),
    add check (abs(naive_posterior_mean) < 'Infinity'),
    add check (abs(prob_best) < 'Infinity'),
    add check (abs(control_shift) < 'Infinity'),
    add check (abs(control_shift_sd) < 'Infinity');

comment on column current_population_fits.status is
    'fitted; cold_start: too few experiments; improper: no posterior under these priors; failed: see message';
comment on column population_fits.status is
    'fitted; cold_start: too few experiments; improper: no posterior under these priors; failed: see message';
comment on column effect_estimates.status is 'fitted; cold_start, improper or failed: raw figures only';

-- The control's error is in every effect alike: there are no loadings any more. A view keeps the columns that it was made with, so
-- that it is made again.
drop view plug_in_estimates;
alter table effect_estimates drop column control_loading;
alter table effect_estimates add column weight_of_mu double precision check (abs(weight_of_mu) < 'Infinity');
comment on column effect_estimates.shrinkage_factor is 'How much of a change of the raw estimate is taken back: 0 none, 1 all';
comment on column effect_estimates.weight_of_mu is 'How much of a change of mu the estimate follows';
comment on column population_diagnostics.sign_flip_share is
    'Share of effects whose sign is called (lfsr < 0.025, the 95% interval excludes 0) by one of the models only';

create view plug_in_estimates as
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

-- Who let a halted partition be read again.
alter table partition_progress
    add column resumed_at timestamptz,
    add column resumed_by text;
comment on column partition_progress.resumed_at is 'When an operator last resumed the partition where it had halted';
comment on column partition_progress.resumed_by is 'Who that was';

alter table current_population_fits add column is_prior_far boolean not null default false;
alter table population_fits add column is_prior_far boolean not null default false;
comment on column current_population_fits.is_prior_far is
    'Whether a prior is in another unit than the data, as it seems; message says which';

-- What is counted for the metrics of all populations, and is rare.
create index current_population_fits_failed on current_population_fits (population_id) where status = 'failed';
create index current_population_fits_prior_far on current_population_fits (population_id) where is_prior_far;

-- What the row of an effect says of its scale.
alter table effect_estimates
    add column is_continuity_corrected boolean not null default false,
    add column lift_too_large_for_relative boolean not null default false,
    add column control_variance_source text
        check (control_variance_source in ('arms', 'given', 'imputed', 'none'));
comment on column effect_estimates.raw_se is
    'Its standard error as platforms show it (delta method), from the arms'' own variances, the control''s part included';
comment on column effect_estimates.is_continuity_corrected is
    'Whether half an event was added to every arm for the effect, a log ratio or a log odds ratio, because the experiment has few events';
comment on column effect_estimates.control_variance_source is
    'How control_variance is known: arms: from the control''s arm; given: sent with the effects; imputed: from the numbers of units; none: not at all, of a single effect. Null in a row that has not been written since the upgrade';
comment on column effect_estimates.lift_too_large_for_relative is
    'Whether the effect is a lift beyond +50% on relative, where intervals are too narrow';

-- Of a result several treatments can be refused, each with a row of its own.
alter table rejected_events
    add column variant text;
alter table rejected_events
    drop constraint rejected_events_partition_id_record_offset_result_index_key,
    add unique nulls not distinct (partition_id, record_offset, result_index, variant);
comment on column rejected_events.variant is
    'The variant that the refusal is about; null where it is about no single one';

alter table population_diagnostics add column mix_ups bigint;
comment on column population_diagnostics.mix_ups is 'Effects that look as if they had been sent in another unit';

alter table current_population_fits
    add column tau_shortest95_low double precision check (abs(tau_shortest95_low) < 'Infinity'),
    add column tau_shortest95_high double precision check (abs(tau_shortest95_high) < 'Infinity'),
    add column prob_tau_negligible double precision check (prob_tau_negligible between 0 and 1),
    add column prior_mu text,
    add column prior_tau text;
alter table population_fits
    add column tau_shortest95_low double precision check (abs(tau_shortest95_low) < 'Infinity'),
    add column tau_shortest95_high double precision check (abs(tau_shortest95_high) < 'Infinity'),
    add column prob_tau_negligible double precision check (prob_tau_negligible between 0 and 1),
    add column prior_mu text,
    add column prior_tau text;
comment on column current_population_fits.tau_shortest95_low is
    'The shortest interval that holds 95% of the posterior of tau; it can begin at 0';
comment on column current_population_fits.prob_tau_negligible is
    'The probability that tau is below a tenth of the typical standard error';
comment on column current_population_fits.prior_tau is
    'The priors of the fit, in the unit of the effects, also where the configuration states them in units that the data set';

-- What the naive model would do to its readers, and whether the model fits at all. Earlier verdicts rest on other measures.
alter table population_diagnostics rename column design_effect to deff;
alter table population_diagnostics rename column information_independent to information_ignored;
alter table population_diagnostics
    add column deff_control double precision check (abs(deff_control) < 'Infinity'),
    add column naive_coverage double precision check (naive_coverage between 0 and 1),
    add column rmse_excess double precision check (abs(rmse_excess) < 'Infinity'),
    add column changed_decisions bigint check (changed_decisions >= 0),
    add column changed_decision_share double precision check (changed_decision_share between 0 and 1),
    add column value_given_up double precision check (abs(value_given_up) < 'Infinity'),
    add column risk_modelled double precision check (abs(risk_modelled) < 'Infinity'),
    add column risk_ignored double precision check (abs(risk_ignored) < 'Infinity'),
    add column risk_one_per_experiment double precision check (abs(risk_one_per_experiment) < 'Infinity'),
    add column score_modelled double precision check (abs(score_modelled) < 'Infinity'),
    add column score_ignored double precision check (abs(score_ignored) < 'Infinity'),
    add column score_one_per_experiment double precision check (abs(score_one_per_experiment) < 'Infinity');
-- 0.1 had the design effect at the posterior median of tau.
update population_diagnostics set deff = null, verdict = null, verdict_rests_on = null, verdict_value = null;
update populations set diagnosed_at = null;
comment on column population_diagnostics.deff is
    'By how much the naive variance of mu must be multiplied, averaged over the posterior of tau';
comment on column population_diagnostics.verdict is
    'Whether treating variants as independent would have changed the answers: negligible, noticeable, material; misfit: the model itself is not borne out';
comment on column population_diagnostics.diagnosed_at is
    'When a pass through all blocks last computed experiments to verdict_value and the columns after computed_at; they are carried over to later fits until the next';
comment on column population_diagnostics.deff_control is 'By how much the shared controls alone multiply it';
comment on column population_diagnostics.naive_coverage is 'What the 95% interval of mu of the naive model would cover';
comment on column population_diagnostics.rmse_excess is
    'By what share the root mean squared error of the shrunken estimates of the naive model would be larger';
comment on column population_diagnostics.changed_decisions is
    'Effects whose sign the naive model calls otherwise, with a margin: P(theta > 0) differs by more than 0.02';
comment on column population_diagnostics.changed_decision_share is 'The same as a share of the effects';
comment on column population_diagnostics.value_given_up is
    'Share of the value of the best variants that is lost by picking those that are best in the naive model';
comment on column population_diagnostics.risk_modelled is
    'Unbiased estimate of the squared error of the shrunken estimates, in units of that of the raw ones';
comment on column population_diagnostics.risk_ignored is 'The same of the naive model';
comment on column population_diagnostics.risk_one_per_experiment is
    'The same of the model of one variant per experiment, for its own effects';
comment on column population_diagnostics.score_modelled is
    'Log predictive density of every experiment under a fit without it, added up, in nats';
comment on column population_diagnostics.score_ignored is 'The same of the naive model';
comment on column population_diagnostics.score_one_per_experiment is 'The same of the model of one variant per experiment';

-- Whether predictions are borne out, and whether the losers arrive.
alter table population_diagnostics
    add column coverage50_low double precision check (coverage50_low between 0 and 1),
    add column coverage50_high double precision check (coverage50_high between 0 and 1),
    add column coverage80_low double precision check (coverage80_low between 0 and 1),
    add column coverage80_high double precision check (coverage80_high between 0 and 1),
    add column coverage95_low double precision check (coverage95_low between 0 and 1),
    add column coverage95_high double precision check (coverage95_high between 0 and 1),
    add column pit_histogram jsonb,
    add column calibration_cause text,
    add column selection_log_lr double precision check (abs(selection_log_lr) < 'Infinity'),
    add column selection_eta double precision check (selection_eta between 0 and 1),
    add column selection_missing_share double precision check (selection_missing_share between 0 and 1),
    add column caliper_p double precision check (caliper_p between 0 and 1),
    add column is_selection_suspected boolean;
comment on column population_diagnostics.coverage50_low is
    'Of 1,300 populations in which the model is right coverage50 is below this or above coverage50_high in one; likewise the others';
comment on column population_diagnostics.pit_histogram is
    'Predicted effects by tenths of their predictive probability (PIT), ten counts from 0 to 1; equal on average where the model is right';
comment on column population_diagnostics.calibration_cause is
    'The likely cause where a coverage or a bin of the histogram is out of its bounds; null where none is';
comment on column population_diagnostics.selection_log_lr is
    'Log likelihood ratio of a selection by which results with z below 1.96 (where less is better, above -1.96) are less likely to arrive than others';
comment on column population_diagnostics.selection_eta is
    'How likely they are to arrive, relative to others; says little where selection_log_lr is small';
comment on column population_diagnostics.selection_missing_share is
    'The share of all results that did not arrive, if so';
comment on column population_diagnostics.caliper_p is
    'One-sided p of the caliper test: whether more results lie just above z = 1.96 than just below; null where none is near';
comment on column population_diagnostics.is_selection_suspected is
    'Whether only winners seem to arrive: selection_log_lr is above 4 and selection_missing_share above 0.4; null where they are';

-- Which way of an effect is better, how much of the traffic it applies to, what was shipped, and holdouts.
alter table experiments
    add column kind text not null default 'experiment' check (kind in ('experiment', 'holdout')),
    add column started_at timestamptz,
    add column shipped_variant text;
comment on column experiments.kind is 'experiment, or holdout: its blocks are in no population';
comment on column experiments.started_at is 'When the experiment was started, where it was sent';
comment on column experiments.shipped_variant is 'The variant that all users have got since, which may be the control; null where it was not sent';

alter table blocks
    alter column population_id drop not null,
    add column direction text check (direction in ('increase', 'decrease')),
    add column coverage double precision check (coverage > 0 and coverage <= 1);
comment on column blocks.population_id is 'Null of a holdout';
comment on column blocks.components is
    'Spectral components (lambda, a, b) of the covariance: what was added to the cells (packed); null of a holdout';
comment on column blocks.direction is 'Which way of the effects is better: increase or decrease; null where it was not sent';
comment on column blocks.coverage is 'The share of the whole traffic that the effects apply to; null where it was not sent';

alter table current_population_fits
    add column direction text not null default 'increase' check (direction in ('increase', 'decrease'));
alter table population_fits
    add column direction text not null default 'increase' check (direction in ('increase', 'decrease'));
comment on column current_population_fits.direction is 'Which way of the effects is better where a result does not say';
comment on column population_fits.direction is 'Which way of the effects is better where a result does not say';

alter table effect_estimates
    add column direction text check (direction in ('increase', 'decrease')),
    add column coverage double precision not null default 1 check (coverage > 0 and coverage <= 1),
    add column is_shipped boolean;
comment on column effect_estimates.direction is
    'Which way of the effect is better, increase or decrease: of the result, else of the population; null before its first fit where the result does not say';
comment on column effect_estimates.coverage is 'The share of the whole traffic that the effect applies to';
comment on column effect_estimates.is_shipped is
    'Whether all users have got the variant since; null where the experiment does not say which was shipped';
comment on column effect_estimates.prob_best is
    'Probability of being the best of the experiment, the control included: the largest effect, or the smallest where direction is decrease';
