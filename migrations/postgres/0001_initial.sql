-- shrinkd: state and output. One schema per database; names are a contract for those who query the output tables.

-- What the build that wrote this database assumes of it. One row.
create table store_settings (
    is_only_row boolean primary key default true check (is_only_row),
    arithmetic_version smallint not null,
    grouping_labels text[] not null,
    treatment_seed bigint not null
);
comment on table store_settings is
    'What cells and blocks were computed with; a worker with other settings refuses to start, because they would not mix';

create table partition_progress (
    partition_id bigint generated always as identity primary key,
    cluster_id text not null,
    topic text not null,
    topic_id text not null,
    partition_number int not null,
    next_offset bigint,
    epoch bigint not null,
    owner text not null,
    claimed_at timestamptz not null default now(),
    committed_at timestamptz,
    unique (cluster_id, topic, partition_number)
) with (fillfactor = 50);
comment on table partition_progress is 'How far each partition has been taken in, in the same transactions as its effects';
comment on column partition_progress.topic_id is 'The broker''s id of the topic: one that is made again has another. Empty where unknown';
comment on column partition_progress.partition_number is 'The partition''s number in its topic; 0 for a file';
comment on column partition_progress.next_offset is
    'Offset of the next record to read (of a file: the byte at which its line begins); null before the first';
comment on column partition_progress.epoch is 'Counts the owners; only the holder of the largest may advance next_offset';

create table populations (
    population_id text collate "C" primary key,
    metric text collate "C" not null,
    segment text collate "C" not null,
    scale text collate "C" not null,
    created_at timestamptz not null default now(),
    refitted_changes bigint not null default 0,
    diagnosed_changes bigint not null default 0,
    diagnosed_at timestamptz,
    published_fit_id bigint,
    publish_cursor text,
    pass_owner text,
    pass_touched_at timestamptz
) with (fillfactor = 50);
comment on table populations is 'One row per population; what refit and publish lock';
comment on column populations.population_id is 'metric/segment/scale, percent-encoded, and /label=value for each label that divides populations';
comment on column populations.refitted_changes is 'The change counter that the latest fit has seen';
comment on column populations.published_fit_id is 'The fit that the estimates are computed with; null before the first';
comment on column populations.publish_cursor is 'The last experiment that the whole publish under way has written; null when none is';

create table experiments (
    experiment_id text collate "C" primary key,
    revision bigint not null,
    decision text,
    labels jsonb not null,
    completed_at timestamptz not null,
    retractions bytea
) with (fillfactor = 80);
comment on table experiments is 'One row per experiment: what the events of its largest revision say of it';
comment on column experiments.decision is 'What the platform decided, such as shipped';
comment on column experiments.retractions is 'What was retracted, so that older results stay out (packed)';

create table blocks (
    experiment_id text collate "C" not null,
    metric text collate "C" not null,
    segment text collate "C" not null,
    scale text collate "C" not null,
    population_id text collate "C" not null,
    revision bigint not null,
    commit_id bigint not null,
    partition_id bigint not null,
    statistics bytea not null,
    block bytea,
    components bytea,
    pending_reason text,
    pending_detail text,
    primary key (experiment_id, metric, segment, scale)
) with (fillfactor = 80);
create index blocks_by_population on blocks (population_id, experiment_id);
comment on table blocks is 'One row per experiment x metric x segment x scale that stands: what was sent, and the block made of it';
comment on column blocks.revision is 'The revision that last changed the block';
comment on column blocks.partition_id is 'The partition under which the block is counted in sketch_cells: of its batch, not of its own record';
comment on column blocks.commit_id is 'The worker''s commit that last changed the row';
comment on column blocks.statistics is 'The arms or effects as they were sent (packed)';
comment on column blocks.block is 'Variants, effects and their sampling covariance (packed); null while the parts of a sum cannot be estimated';
comment on column blocks.components is 'Spectral components (lambda, a, b) of the covariance: what was added to the cells (packed)';
comment on column blocks.pending_reason is 'Why the parts of a sum cannot be estimated yet';

create table sketch_cells (
    partition_id bigint not null,
    population_id text collate "C" not null,
    treatment text not null,
    octave smallint not null,
    moments bytea not null,
    primary key (population_id, partition_id, treatment, octave)
) with (fillfactor = 50);
alter table sketch_cells alter column moments set storage plain;
comment on table sketch_cells is 'The likelihood sketch: sums over the components of a population, exact integers. Only the sum over partitions has a meaning';
comment on column sketch_cells.octave is 'Components with 2^octave <= lambda < 2^(octave + 1)';
comment on column sketch_cells.moments is '20 Chebyshev moments x 4 series, 128-bit little-endian integers';

create table cell_counters (
    partition_id bigint not null,
    population_id text collate "C" not null,
    changes bigint not null,
    experiments bigint not null,
    effects bigint not null,
    primary key (population_id, partition_id)
) with (fillfactor = 50);
comment on table cell_counters is 'Counts of a population; only the sum over partitions has a meaning';
comment on column cell_counters.changes is 'Blocks put in, replaced or withdrawn: grows with every change';

create table rejected_events (
    rejected_event_id bigint generated always as identity primary key,
    partition_id bigint not null,
    cluster_id text not null,
    topic text not null,
    partition_number int not null,
    record_offset bigint not null,
    result_index int,
    experiment_id text,
    reason text not null,
    detail text not null,
    message_key bytea,
    payload bytea,
    payload_bytes bigint not null,
    produced_at timestamptz,
    rejected_at timestamptz not null default now(),
    unique nulls not distinct (partition_id, record_offset, result_index)
);
create index rejected_events_by_reason on rejected_events (reason, rejected_at);
comment on table rejected_events is 'Dead letters: every refused message or result, with the reason and the message as it came';
comment on column rejected_events.record_offset is 'Offset of the record; of a file, the position of the line''s first byte';
comment on column rejected_events.result_index is 'The refused result''s place in results, from 0; null where the whole message was refused';
comment on column rejected_events.payload is 'The message as it came; of one that is too large its first 64 KiB';
comment on column rejected_events.payload_bytes is 'The length of the whole message';

create sequence commit_ids;
create sequence fit_ids;

create table current_population_fits (
    population_id text collate "C" not null,
    treatment text not null,
    fit_id bigint not null,
    status text not null,
    message text,
    experiments bigint not null,
    effects bigint not null,
    mu_mean double precision,
    mu_median double precision,
    mu_sd double precision,
    mu_q025 double precision,
    mu_q25 double precision,
    mu_q75 double precision,
    mu_q975 double precision,
    tau_mean double precision,
    tau_median double precision,
    tau_sd double precision,
    tau_q025 double precision,
    tau_q25 double precision,
    tau_q75 double precision,
    tau_q975 double precision,
    log_tau_sd double precision,
    mu_tau_correlation double precision,
    log_evidence double precision,
    predictive_mean double precision,
    predictive_sd double precision,
    predictive_median double precision,
    predictive_q025 double precision,
    predictive_q975 double precision,
    laplace_mu_distance double precision,
    laplace_tau_distance double precision,
    variational_mu_distance double precision,
    variational_tau_distance double precision,
    nodes bytea not null,
    input_offsets jsonb not null,
    computed_at timestamptz not null default now(),
    primary key (population_id, treatment)
) with (fillfactor = 50);
comment on table current_population_fits is 'The posterior of mu and tau of the latest cells, by treatment of correlation';
comment on column current_population_fits.treatment is 'correlated: as it is; independent: the naive model; one_per_experiment: one variant of each';
comment on column current_population_fits.status is 'fitted; cold_start: too few experiments; improper: no posterior under these priors';
comment on column current_population_fits.mu_mean is 'Mean true effect of the population, in the unit of the effect';
comment on column current_population_fits.tau_median is 'Heterogeneity: sd of the true effects, in the unit of the effect';
comment on column current_population_fits.predictive_mean is 'Of the true effect of the next experiment';
comment on column current_population_fits.laplace_mu_distance is 'How far the approximation is from exact, in exact posterior sds';
comment on column current_population_fits.nodes is 'The mixture over tau that effects are averaged over (packed)';
comment on column current_population_fits.input_offsets is 'How far each partition had been taken in when the cells were read';

create table population_fits (like current_population_fits including defaults including comments);
alter table population_fits add primary key (population_id, fit_id, treatment);
comment on table population_fits is 'The history of fits: one is appended whenever mu or tau moved beyond tolerance, and is then what estimates are computed with';

create table population_diagnostics (
    population_id text collate "C" not null,
    fit_id bigint not null,
    information double precision not null,
    information_independent double precision not null,
    effective_effects double precision not null,
    tau_squared_moment_bias double precision,
    mu_shift double precision,
    log_tau_shift double precision,
    experiments bigint,
    design_effect double precision,
    largest_correlation double precision,
    largest_estimate_shift double precision,
    sign_calls bigint,
    sign_flips bigint,
    sign_flip_share double precision,
    hausman_z double precision,
    calibration_effects bigint,
    calibration_rms_z double precision,
    coverage50 double precision,
    coverage80 double precision,
    coverage95 double precision,
    shipped_share double precision,
    verdict text,
    verdict_rests_on text,
    verdict_value double precision,
    diagnosed_at timestamptz,
    computed_at timestamptz not null default now(),
    primary key (population_id, fit_id)
) with (fillfactor = 50);
comment on table population_diagnostics is 'Does correlation matter here? One row per published fit; the last one of a population is the latest word';
comment on column population_diagnostics.effective_effects is 'How many independent effects would say as much about mu';
comment on column population_diagnostics.mu_shift is 'mu of the naive model - mu, in posterior sds';
comment on column population_diagnostics.log_tau_shift is 'log tau of the naive model - log tau, in posterior sds';
comment on column population_diagnostics.design_effect is 'By how much the naive variance of mu must be multiplied';
comment on column population_diagnostics.sign_flip_share is 'Share of effects whose sign is called (lfsr < 0.05) by one of the models only';
comment on column population_diagnostics.shipped_share is 'Share of experiments that were shipped; above 0.8 the losers seem not to arrive';
comment on column population_diagnostics.verdict is 'Whether treating variants as independent would have changed the answers: negligible, noticeable, material';
comment on column population_diagnostics.diagnosed_at is 'When a pass through all blocks last computed design_effect to verdict_value; they are carried over to later fits until the next';

create table effect_estimates (
    population_id text collate "C" not null,
    experiment_id text collate "C" not null,
    variant text collate "C" not null,
    block_revision bigint not null,
    commit_id bigint not null,
    fit_id bigint not null,
    status text not null,
    raw_estimate double precision not null,
    raw_se double precision not null,
    treatment_variance double precision,
    control_variance double precision,
    control_loading double precision,
    posterior_mean double precision,
    posterior_sd double precision,
    ci80_low double precision,
    ci80_high double precision,
    ci95_low double precision,
    ci95_high double precision,
    prob_positive double precision,
    lfsr double precision,
    shrinkage_factor double precision,
    naive_posterior_mean double precision,
    prob_best double precision,
    control_shift double precision,
    control_shift_sd double precision,
    computed_at timestamptz not null default now(),
    primary key (population_id, experiment_id, variant)
) with (fillfactor = 50);
comment on table effect_estimates is 'One row per population x experiment x variant: the effect raw and shrunk. The product';
comment on column effect_estimates.block_revision is 'Revision of the event that the row rests on';
comment on column effect_estimates.commit_id is 'The worker''s commit that last changed the block';
comment on column effect_estimates.fit_id is 'The published fit, see population_fits; 0 before the first';
comment on column effect_estimates.status is 'fitted; cold_start or improper: raw figures only';
comment on column effect_estimates.raw_estimate is 'The effect as measured, in the unit of its scale';
comment on column effect_estimates.raw_se is 'Its standard error, the control''s part included';
comment on column effect_estimates.treatment_variance is 'd: the treatment''s own sampling variance; null where the producer sent a full covariance';
comment on column effect_estimates.control_variance is 'c: the shared control''s sampling variance';
comment on column effect_estimates.control_loading is 'w: how much of the control''s error enters the effect';
comment on column effect_estimates.posterior_mean is 'The shrunken estimate';
comment on column effect_estimates.ci95_low is 'Equal-tailed credible interval, uncertainty of mu and tau included';
comment on column effect_estimates.lfsr is 'Local false sign rate: probability that the more probable sign is wrong';
comment on column effect_estimates.shrinkage_factor is '0 left alone, 1 all the way to mu';
comment on column effect_estimates.naive_posterior_mean is 'What the model that ignores the shared control would say';
comment on column effect_estimates.prob_best is 'Probability of being the best of the experiment, the control included; null for full covariances of four and more';
comment on column effect_estimates.control_shift is 'The shift that the control''s error is estimated to have put into every effect';

-- The plug-in estimate at the latest mu and tau, computed when it is read: what the stored rows would say if the population
-- were published right now, without the uncertainty of mu and tau. First the control's error is taken out of every variant,
-- then each is shrunk by its own noise.
create view plug_in_estimates as
with at as (
    select e.*, f.fit_id as current_fit_id, f.mu_mean, f.mu_median, f.tau_median,
           coalesce(f.mu_mean, f.mu_median) as mu, f.tau_median * f.tau_median as tau_squared
    from effect_estimates e
    join current_population_fits f on f.population_id = e.population_id and f.treatment = 'correlated'
    where f.status = 'fitted'
), sums as (
    select at.*,
           sum(control_loading * (raw_estimate - mu) / (treatment_variance + tau_squared)) over block as weighted_residuals,
           sum(control_loading * control_loading / (treatment_variance + tau_squared)) over block as weighted_loadings
    from at
    window block as (partition by population_id, experiment_id)
)
select population_id, experiment_id, variant, raw_estimate, raw_se, posterior_mean, posterior_sd, mu, tau_median as tau,
       mu + tau_squared / (treatment_variance + tau_squared)
           * (raw_estimate - mu
              - control_loading * control_variance * weighted_residuals / (1 + control_variance * weighted_loadings))
           as plug_in_estimate,
       fit_id, current_fit_id
from sums;
comment on view plug_in_estimates is
    'Every estimate at the latest mu and tau, computed at read time; null for blocks with a full covariance';

