-- How alike the true effects of one experiment's variants are: the posterior of their intraclass correlation, beside those of mu and tau,
-- and the model that takes them as independent, `control_only`. Fits from before have null here.

comment on column current_population_fits.correlation is
    'modelled: the shared control''s error is modelled, and how alike true effects are; control_only: the former alone; ignored: the naive model; one_per_experiment: one variant of each';
alter table current_population_fits
    add column multi_variant_experiments bigint,
    add column icc_mean double precision check (abs(icc_mean) < 'Infinity'),
    add column icc_median double precision check (abs(icc_median) < 'Infinity'),
    add column icc_sd double precision check (abs(icc_sd) < 'Infinity'),
    add column icc_q025 double precision check (abs(icc_q025) < 'Infinity'),
    add column icc_q25 double precision check (abs(icc_q25) < 'Infinity'),
    add column icc_q75 double precision check (abs(icc_q75) < 'Infinity'),
    add column icc_q975 double precision check (abs(icc_q975) < 'Infinity'),
    add column icc_status text check (icc_status in ('identified', 'weak', 'no_multi_variant')),
    add column prob_icc_above_090 double precision check (prob_icc_above_090 between 0 and 1),
    add column icc_log_bayes_factor double precision check (abs(icc_log_bayes_factor) < 'Infinity'),
    add column icc_log_bayes_factor_half double precision check (abs(icc_log_bayes_factor_half) < 'Infinity'),
    add column tau_within_median double precision check (abs(tau_within_median) < 'Infinity'),
    add column tau_shared_median double precision check (abs(tau_shared_median) < 'Infinity'),
    add column prior_icc text,
    add column node_iccs bytea;
comment on column current_population_fits.multi_variant_experiments is 'Experiments of several variants';
comment on column current_population_fits.icc_mean is
    'Intraclass correlation of the true effects of one experiment''s variants: this and the next six are of its posterior, and null where prior_icc is none; where it is fixed, that value';
comment on column current_population_fits.icc_status is
    'identified; weak: a posterior sd above 0.2; no_multi_variant: no experiment has several variants; null where icc is known';
comment on column current_population_fits.prob_icc_above_090 is
    'Posterior probability that icc is above 0.9: figures depend on where its prior ends, at 0.98, where that is above 0.5';
comment on column current_population_fits.icc_log_bayes_factor is 'Of an icc under its prior against 0';
comment on column current_population_fits.icc_log_bayes_factor_half is 'Of 1/2, which network meta-analysis assumes, against 0';
comment on column current_population_fits.tau_within_median is 'Sd of the true effects of one experiment: tau sqrt(1 - icc)';
comment on column current_population_fits.tau_shared_median is 'Sd of what the variants of an experiment share: tau sqrt(icc)';
comment on column current_population_fits.prior_icc is
    'Prior of the intraclass correlation; null where the fit has no posterior, and of the other models of correlation';
comment on column current_population_fits.node_iccs is 'The intraclass correlation of each of the nodes (packed); null where all are 0';

comment on column population_fits.correlation is
    'modelled: the shared control''s error is modelled, and how alike true effects are; control_only: the former alone; ignored: the naive model; one_per_experiment: one variant of each';
alter table population_fits
    add column multi_variant_experiments bigint,
    add column icc_mean double precision check (abs(icc_mean) < 'Infinity'),
    add column icc_median double precision check (abs(icc_median) < 'Infinity'),
    add column icc_sd double precision check (abs(icc_sd) < 'Infinity'),
    add column icc_q025 double precision check (abs(icc_q025) < 'Infinity'),
    add column icc_q25 double precision check (abs(icc_q25) < 'Infinity'),
    add column icc_q75 double precision check (abs(icc_q75) < 'Infinity'),
    add column icc_q975 double precision check (abs(icc_q975) < 'Infinity'),
    add column icc_status text check (icc_status in ('identified', 'weak', 'no_multi_variant')),
    add column prob_icc_above_090 double precision check (prob_icc_above_090 between 0 and 1),
    add column icc_log_bayes_factor double precision check (abs(icc_log_bayes_factor) < 'Infinity'),
    add column icc_log_bayes_factor_half double precision check (abs(icc_log_bayes_factor_half) < 'Infinity'),
    add column tau_within_median double precision check (abs(tau_within_median) < 'Infinity'),
    add column tau_shared_median double precision check (abs(tau_shared_median) < 'Infinity'),
    add column prior_icc text,
    add column node_iccs bytea;
comment on column population_fits.multi_variant_experiments is 'Experiments of several variants';
comment on column population_fits.icc_mean is
    'Intraclass correlation of the true effects of one experiment''s variants: this and the next six are of its posterior, and null where prior_icc is none; where it is fixed, that value';
comment on column population_fits.icc_status is
    'identified; weak: a posterior sd above 0.2; no_multi_variant: no experiment has several variants; null where icc is known';
comment on column population_fits.prob_icc_above_090 is
    'Posterior probability that icc is above 0.9: figures depend on where its prior ends, at 0.98, where that is above 0.5';
comment on column population_fits.icc_log_bayes_factor is 'Of an icc under its prior against 0';
comment on column population_fits.icc_log_bayes_factor_half is 'Of 1/2, which network meta-analysis assumes, against 0';
comment on column population_fits.tau_within_median is 'Sd of the true effects of one experiment: tau sqrt(1 - icc)';
comment on column population_fits.tau_shared_median is 'Sd of what the variants of an experiment share: tau sqrt(icc)';
comment on column population_fits.prior_icc is
    'Prior of the intraclass correlation; null where the fit has no posterior, and of the other models of correlation';
comment on column population_fits.node_iccs is 'The intraclass correlation of each of the nodes (packed); null where all are 0';

-- The estimates of the view with what the variants of an experiment share.
drop view plug_in_estimates;
create view plug_in_estimates as
with at as (
    select e.*, f.fit_id as current_fit_id, f.tau_median, coalesce(f.mu_mean, f.mu_median) as mu, coalesce(f.icc_median, 0.0) as icc,
           f.tau_median * f.tau_median as tau_squared
    from effect_estimates e
    join current_population_fits f on f.population_id = e.population_id and f.correlation = 'modelled'
    where f.status = 'fitted'
), parts as (
    select at.*, raw_estimate - mu as residual, (1 - icc) * tau_squared as within, icc * tau_squared as shared,
           treatment_variance + (1 - icc) * tau_squared as own_variance, control_variance + icc * tau_squared as common_variance
    from at
), sums as (
    select parts.*,
           sum(residual / own_variance) over block / (1 + common_variance * sum(1 / own_variance) over block) as common
    from parts
    window block as (partition by population_id, experiment_id)
)
select population_id, experiment_id, variant, raw_estimate, raw_se, posterior_mean, posterior_sd, mu, tau_median as tau, icc,
       mu + within / own_variance * (residual - common_variance * common) + shared * common as plug_in_estimate,
       fit_id, current_fit_id
from sums;
comment on view plug_in_estimates is
    'Every estimate at the latest mu, tau and icc, computed at read time; null for blocks with a full covariance';

-- Whether the data bear out the model that takes true effects as independent.
alter table population_diagnostics
    add column risk_control_only double precision check (abs(risk_control_only) < 'Infinity'),
    add column score_control_only double precision check (abs(score_control_only) < 'Infinity');
comment on column population_diagnostics.risk_control_only is 'The same of the model that takes true effects as independent';
comment on column population_diagnostics.score_control_only is 'The same of the model that takes true effects as independent';
