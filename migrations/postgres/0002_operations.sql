-- What operators do to partitions and to refused events, and what a worker notes so that they can.

alter table partition_progress
    add column halted_at timestamptz,
    add column halt_reason text,
    add column halt_detail text;
comment on column partition_progress.halted_at is 'Since when the partition is not read, until somebody resumes it; null while it is';
comment on column partition_progress.halt_reason is 'Why: dead_letters or offset_out_of_range';
comment on column partition_progress.halt_detail is 'What was found, in a sentence';

create table skipped_offsets (
    skipped_offsets_id bigint generated always as identity primary key,
    partition_id bigint not null,
    cluster_id text not null,
    topic text not null,
    partition_number int not null,
    from_offset bigint,
    to_offset bigint not null,
    because text not null,
    skipped_by text not null,
    skipped_at timestamptz not null default now()
);
comment on table skipped_offsets is 'Records that were passed over unread, by an operator''s command: no gap without a row';
comment on column skipped_offsets.from_offset is 'The first offset that was not read; null for the beginning of the partition';
comment on column skipped_offsets.to_offset is 'Where reading went on';
comment on column skipped_offsets.because is 'The reason that the operator gave';

alter table rejected_events
    add column replayed_at timestamptz,
    add column replay_outcome text;
comment on column rejected_events.payload is 'The message as it came, on the first of its rows; of one that is too large its first 64 KiB';
comment on column rejected_events.replayed_at is 'When the message was last taken in again; null where it was not';
comment on column rejected_events.replay_outcome is 'What came of that';

alter table populations
    add column fit_settings text;
comment on column blocks.partition_id is
    'The partition whose batch last changed the row, and under which the block was counted in sketch_cells then';
comment on column populations.fit_settings is 'The priors and limits that the latest fit was made with';
