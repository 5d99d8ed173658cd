-- How alike the true effects of one experiment's variants are: the posterior of their intraclass correlation, beside those of mu and tau,
-- and the model that takes them as independent, `control_only`. Fits from before have null here.

alter table current_population_fits add column multi_variant_experiments integer; -- Experiments of several variants
alter table current_population_fits add column icc_mean real check (abs(icc_mean) < 9e999); -- Intraclass correlation of the true effects of one experiment's variants: this and the next six are of its posterior, and null where prior_icc is none; where it is fixed, that value
alter table current_population_fits add column icc_median real check (abs(icc_median) < 9e999);
alter table current_population_fits add column icc_sd real check (abs(icc_sd) < 9e999);
alter table current_population_fits add column icc_q025 real check (abs(icc_q025) < 9e999);
alter table current_population_fits add column icc_q25 real check (abs(icc_q25) < 9e999);
alter table current_population_fits add column icc_q75 real check (abs(icc_q75) < 9e999);
alter table current_population_fits add column icc_q975 real check (abs(icc_q975) < 9e999);
alter table current_population_fits add column icc_status text check (icc_status in ('identified', 'weak', 'no_multi_variant')); -- identified; weak: a posterior sd above 0.2; no_multi_variant: no experiment has several variants; null where icc is known
alter table current_population_fits add column prob_icc_above_090 real check (prob_icc_above_090 between 0 and 1); -- Posterior probability that icc is above 0.9: figures depend on where its prior ends, at 0.98, where that is above 0.5
alter table current_population_fits add column icc_log_bayes_factor real check (abs(icc_log_bayes_factor) < 9e999); -- Of an icc under its prior against 0
alter table current_population_fits add column icc_log_bayes_factor_half real check (abs(icc_log_bayes_factor_half) < 9e999); -- Of 1/2, which network meta-analysis assumes, against 0
alter table current_population_fits add column tau_within_median real check (abs(tau_within_median) < 9e999); -- Sd of the true effects of one experiment: tau sqrt(1 - icc)
alter table current_population_fits add column tau_shared_median real check (abs(tau_shared_median) < 9e999); -- Sd of what the variants of an experiment share: tau sqrt(icc)
alter table current_population_fits add column prior_icc text; -- Prior of the intraclass correlation; null where the fit has no posterior, and of the other models of correlation
alter table current_population_fits add column node_iccs blob; -- The intraclass correlation of each of the nodes (packed); null where all are 0

alter table population_fits add column multi_variant_experiments integer; -- Experiments of several variants
alter table population_fits add column icc_mean real check (abs(icc_mean) < 9e999); -- Intraclass correlation of the true effects of one experiment's variants: this and the next six are of its posterior, and null where prior_icc is none; where it is fixed, that value
alter table population_fits add column icc_median real check (abs(icc_median) < 9e999);
alter table population_fits add column icc_sd real check (abs(icc_sd) < 9e999);
alter table population_fits add column icc_q025 real check (abs(icc_q025) < 9e999);
alter table population_fits add column icc_q25 real check (abs(icc_q25) < 9e999);
alter table population_fits add column icc_q75 real check (abs(icc_q75) < 9e999);
alter table population_fits add column icc_q975 real check (abs(icc_q975) < 9e999);
alter table population_fits add column icc_status text check (icc_status in ('identified', 'weak', 'no_multi_variant')); -- identified; weak: a posterior sd above 0.2; no_multi_variant: no experiment has several variants; null where icc is known
alter table population_fits add column prob_icc_above_090 real check (prob_icc_above_090 between 0 and 1); -- Posterior probability that icc is above 0.9: figures depend on where its prior ends, at 0.98, where that is above 0.5
alter table population_fits add column icc_log_bayes_factor real check (abs(icc_log_bayes_factor) < 9e999); -- Of an icc under its prior against 0
alter table population_fits add column icc_log_bayes_factor_half real check (abs(icc_log_bayes_factor_half) < 9e999); -- Of 1/2, which network meta-analysis assumes, against 0
alter table population_fits add column tau_within_median real check (abs(tau_within_median) < 9e999); -- Sd of the true effects of one experiment: tau sqrt(1 - icc)
alter table population_fits add column tau_shared_median real check (abs(tau_shared_median) < 9e999); -- Sd of what the variants of an experiment share: tau sqrt(icc)
alter table population_fits add column prior_icc text; -- Prior of the intraclass correlation; null where the fit has no posterior, and of the other models of correlation
alter table population_fits add column node_iccs blob; -- The intraclass correlation of each of the nodes (packed); null where all are 0

drop view plug_in_estimates;
create view plug_in_estimates as
-- The plug-in estimate at the latest mu, tau and icc, computed when it is read: what the stored rows would say if the population
-- were published right now, without the uncertainty of mu, tau and icc. First what moves every variant is taken out, the control's error
-- and what the variants share, then each is shrunk by its own noise, and what they share is added. Null for blocks with a full covariance.
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

-- The same as risk_modelled and score_modelled of the model that takes true effects as independent.
alter table population_diagnostics add column risk_control_only real check (abs(risk_control_only) < 9e999);
alter table population_diagnostics add column score_control_only real check (abs(score_control_only) < 9e999);
