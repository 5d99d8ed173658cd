-- shrinkd: state and output, as in PostgreSQL, with SQLite's types. Names are a contract for those who query the output tables.
-- What ends in _at is text, RFC 3339 in UTC with microseconds (2026-11-01T12:00:00.000000Z): it sorts as time does, and
-- SQLite's date functions read it. Comments stand inside the statements, so that .schema shows them.

-- Rows that are small and found by their primary key are kept in its order (without rowid); those with large packed columns
-- are not, because their pages would hold two or three.

create table store_settings ( -- What cells and blocks were computed with; a worker with other settings refuses to start. One row
    is_only_row integer primary key default 1 check (is_only_row = 1),
    arithmetic_version integer not null,
    grouping_labels text not null, -- A JSON array
    treatment_seed integer not null
) strict, without rowid;

create table last_ids ( -- The ids given last: of commits, and of fits. One row
    is_only_row integer primary key default 1 check (is_only_row = 1),
    commit_id integer not null,
    fit_id integer not null
) strict, without rowid;
insert into last_ids (commit_id, fit_id) values (0, 0);

create table partition_progress ( -- How far each partition has been taken in, in the same transactions as its effects
    partition_id integer primary key autoincrement, -- Never given twice: rejected_events are known by it
    cluster_id text not null,
    topic text not null,
    topic_id text not null, -- The broker's id of the topic: one that is made again has another. Empty where unknown
    partition_number integer not null, -- The partition's number in its topic; 0 for a file
    next_offset integer, -- Offset of the next record to read (of a file: the byte at which its line begins); null before the first
    epoch integer not null, -- Counts the owners; only the holder of the largest may advance next_offset
    owner text not null,
    claimed_at text not null,
    committed_at text,
    unique (cluster_id, topic, partition_number)
) strict;

create table populations ( -- One row per population; what refit and publish work on
    population_id text primary key, -- metric/segment/scale, percent-encoded, and /label=value for each label that divides populations
    metric text not null,
    segment text not null,
    scale text not null,
    created_at text not null,
    refitted_changes integer not null default 0, -- The change counter that the latest fit has seen
    diagnosed_changes integer not null default 0,
    diagnosed_at text,
    published_fit_id integer, -- The fit that the estimates are computed with; null before the first
    publish_cursor text, -- The last experiment that the whole publish under way has written; null when none is
    pass_owner text,
    pass_touched_at text
) strict, without rowid;

create table experiments ( -- One row per experiment: what the events of its largest revision say of it
    experiment_id text primary key,
    revision integer not null,
    decision text, -- What the platform decided, such as shipped
    labels text not null, -- A JSON object
    completed_at text not null,
    retractions blob -- What was retracted, so that older results stay out (packed)
) strict, without rowid;

create table blocks ( -- One row per experiment x metric x segment x scale that stands: what was sent, and the block made of it
    experiment_id text not null,
    metric text not null,
    segment text not null,
    scale text not null,
    population_id text not null,
    revision integer not null, -- The revision that last changed the block
    commit_id integer not null, -- The worker's commit that last changed the row
    partition_id integer not null, -- The partition under which the block is counted in sketch_cells: of its batch, not of its own record
    statistics blob not null, -- The arms or effects as they were sent (packed)
    block blob, -- Variants, effects and their sampling covariance (packed); null while the parts of a sum cannot be estimated
    components blob, -- Spectral components (lambda, a, b) of the covariance: what was added to the cells (packed)
    pending_reason text, -- Why the parts of a sum cannot be estimated yet
    pending_detail text,
    primary key (experiment_id, metric, segment, scale)
) strict;
create index blocks_by_population on blocks (population_id, experiment_id);

create table sketch_cells ( -- The likelihood sketch: sums over the components of a population, exact integers. Only the sum over partitions has a meaning
    partition_id integer not null,
    population_id text not null,
    treatment text not null,
    octave integer not null, -- Components with 2^octave <= lambda < 2^(octave + 1)
    moments blob not null, -- 20 Chebyshev moments x 4 series, 128-bit little-endian integers
    primary key (population_id, partition_id, treatment, octave)
) strict;

create table cell_counters ( -- Counts of a population; only the sum over partitions has a meaning
    partition_id integer not null,
    population_id text not null,
    changes integer not null, -- Blocks put in, replaced or withdrawn: grows with every change
    experiments integer not null,
    effects integer not null,
    primary key (population_id, partition_id)
) strict, without rowid;

create table rejected_events ( -- Dead letters: every refused message or result, with the reason and the message as it came
    rejected_event_id integer primary key,
    partition_id integer not null,
    cluster_id text not null,
    topic text not null,
    partition_number integer not null,
    record_offset integer not null, -- Offset of the record; of a file, the position of the line's first byte
    result_index integer, -- The refused result's place in results, from 0; null where the whole message was refused
    experiment_id text,
    reason text not null,
    detail text not null,
    message_key blob,
    payload blob, -- The message as it came; of one that is too large its first 64 KiB
    payload_bytes integer not null, -- The length of the whole message
    produced_at text,
    rejected_at text not null
) strict;
-- A unique constraint would take every null for another one.
create unique index rejected_events_by_record on rejected_events (partition_id, record_offset, ifnull(result_index, -1));
create index rejected_events_by_reason on rejected_events (reason, rejected_at);

create table current_population_fits ( -- The posterior of mu and tau of the latest cells, by treatment of correlation
    population_id text not null,
    treatment text not null, -- correlated: as it is; independent: the naive model; one_per_experiment: one variant of each
    fit_id integer not null,
    status text not null, -- fitted; cold_start: too few experiments; improper: no posterior under these priors
    message text,
    experiments integer not null,
    effects integer not null,
    mu_mean real, -- Mean true effect of the population, in the unit of the effect
    mu_median real,
    mu_sd real,
    mu_q025 real,
    mu_q25 real,
    mu_q75 real,
    mu_q975 real,
    tau_mean real,
    tau_median real, -- Heterogeneity: sd of the true effects, in the unit of the effect
    tau_sd real,
    tau_q025 real,
    tau_q25 real,
    tau_q75 real,
    tau_q975 real,
    log_tau_sd real,
    mu_tau_correlation real,
    log_evidence real,
    predictive_mean real, -- Of the true effect of the next experiment
    predictive_sd real,
    predictive_median real,
    predictive_q025 real,
    predictive_q975 real,
    laplace_mu_distance real, -- How far the approximation is from exact, in exact posterior sds
    laplace_tau_distance real,
    variational_mu_distance real,
    variational_tau_distance real,
    nodes blob not null, -- The mixture over tau that effects are averaged over (packed)
    input_offsets text not null, -- How far each partition had been taken in when the cells were read (JSON)
    computed_at text not null,
    primary key (population_id, treatment)
) strict;

create table population_fits ( -- The history of fits: one is appended whenever mu or tau moved beyond tolerance, and is then what estimates are computed with. Columns as above
    population_id text not null,
    treatment text not null,
    fit_id integer not null,
    status text not null,
    message text,
    experiments integer not null,
    effects integer not null,
    mu_mean real,
    mu_median real,
    mu_sd real,
    mu_q025 real,
    mu_q25 real,
    mu_q75 real,
    mu_q975 real,
    tau_mean real,
    tau_median real,
    tau_sd real,
    tau_q025 real,
    tau_q25 real,
    tau_q75 real,
    tau_q975 real,
    log_tau_sd real,
    mu_tau_correlation real,
    log_evidence real,
    predictive_mean real,
    predictive_sd real,
    predictive_median real,
    predictive_q025 real,
    predictive_q975 real,
    laplace_mu_distance real,
    laplace_tau_distance real,
    variational_mu_distance real,
    variational_tau_distance real,
    nodes blob not null,
    input_offsets text not null,
    computed_at text not null,
    primary key (population_id, fit_id, treatment)
) strict;

create table population_diagnostics ( -- Does correlation matter here? One row per published fit; the last one of a population is the latest word
    population_id text not null,
    fit_id integer not null,
    information real not null,
    information_independent real not null,
    effective_effects real not null, -- How many independent effects would say as much about mu
    tau_squared_moment_bias real,
    mu_shift real, -- mu of the naive model - mu, in posterior sds
    log_tau_shift real, -- log tau of the naive model - log tau, in posterior sds
    experiments integer,
    design_effect real, -- By how much the naive variance of mu must be multiplied
    largest_correlation real,
    largest_estimate_shift real,
    sign_calls integer,
    sign_flips integer,
    sign_flip_share real, -- Share of effects whose sign is called (lfsr < 0.05) by one of the models only
    hausman_z real,
    calibration_effects integer,
    calibration_rms_z real,
    coverage50 real,
    coverage80 real,
    coverage95 real,
    shipped_share real, -- Share of experiments that were shipped; above 0.8 the losers seem not to arrive
    verdict text, -- Whether treating variants as independent would have changed the answers: negligible, noticeable, material
    verdict_rests_on text,
    verdict_value real,
    diagnosed_at text, -- When a pass through all blocks last computed design_effect to verdict_value; they are carried over to later fits until the next
    computed_at text not null,
    primary key (population_id, fit_id)
) strict, without rowid;

create table effect_estimates ( -- One row per population x experiment x variant: the effect raw and shrunk. The product
    population_id text not null,
    experiment_id text not null,
    variant text not null,
    block_revision integer not null, -- Revision of the event that the row rests on
    commit_id integer not null, -- The worker's commit that last changed the block
    fit_id integer not null, -- The published fit, see population_fits; 0 before the first
    status text not null, -- fitted; cold_start or improper: raw figures only
    raw_estimate real not null, -- The effect as measured, in the unit of its scale
    raw_se real not null, -- Its standard error, the control's part included
    treatment_variance real, -- d: the treatment's own sampling variance; null where the producer sent a full covariance
    control_variance real, -- c: the shared control's sampling variance
    control_loading real, -- w: how much of the control's error enters the effect
    posterior_mean real, -- The shrunken estimate
    posterior_sd real,
    ci80_low real,
    ci80_high real,
    ci95_low real, -- Equal-tailed credible interval, uncertainty of mu and tau included
    ci95_high real,
    prob_positive real,
    lfsr real, -- Local false sign rate: probability that the more probable sign is wrong
    shrinkage_factor real, -- 0 left alone, 1 all the way to mu
    naive_posterior_mean real, -- What the model that ignores the shared control would say
    prob_best real, -- Probability of being the best of the experiment, the control included; null for full covariances of four and more
    control_shift real, -- The shift that the control's error is estimated to have put into every effect
    control_shift_sd real,
    computed_at text not null,
    primary key (population_id, experiment_id, variant)
) strict, without rowid;

create view plug_in_estimates as
-- The plug-in estimate at the latest mu and tau, computed when it is read: what the stored rows would say if the population
-- were published right now, without the uncertainty of mu and tau. First the control's error is taken out of every variant,
-- then each is shrunk by its own noise. Null for blocks with a full covariance.
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
