-- One word for one thing: a treatment is an arm, and how the correlation between the effects of one experiment is taken is the
-- column `correlation`: modelled (was correlated), ignored (was independent), one_per_experiment.

drop view plug_in_estimates;

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
alter table effect_estimates add column weight_of_mu real;

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

-- Whether the effect is a log ratio of (events + 1/2) / (units + 1/2), because the experiment has few events.
alter table effect_estimates add column is_continuity_corrected integer not null default 0;
-- Whether the effect is a lift beyond +50% on relative, where intervals are too narrow.
alter table effect_estimates add column lift_too_large_for_relative integer not null default 0;

-- The variant that the refusal is about; null where it is about no single one. Of a result several treatments can be refused,
-- each with a row of its own.
alter table rejected_events add column variant text;
drop index rejected_events_by_record;
create unique index rejected_events_by_record
    on rejected_events (partition_id, record_offset, ifnull(result_index, -1), ifnull(variant, ''));
