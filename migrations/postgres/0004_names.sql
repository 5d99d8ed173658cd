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

-- The control's error is in every effect alike: there are no loadings any more. A view keeps the columns that it was made with, so
-- that it is made again.
drop view plug_in_estimates;
alter table effect_estimates drop column control_loading;
alter table effect_estimates add column weight_of_mu double precision;
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

-- What the row of an effect says of its scale.
alter table effect_estimates
    add column is_continuity_corrected boolean not null default false,
    add column lift_too_large_for_relative boolean not null default false;
comment on column effect_estimates.raw_se is
    'Its standard error as platforms show it (delta method), from the arms'' own variances, the control''s part included';
comment on column effect_estimates.is_continuity_corrected is
    'Whether the effect is a log ratio of (events + 1/2) / (units + 1/2), because the experiment has few events';
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
