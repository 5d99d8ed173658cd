-- What operators do to partitions and to refused events, and what a worker notes so that they can.

-- Since when the partition is not read, why (dead_letters or offset_out_of_range), and what was found.
alter table partition_progress add column halted_at text;
alter table partition_progress add column halt_reason text;
alter table partition_progress add column halt_detail text;

create table skipped_offsets ( -- Records that were passed over unread, by an operator's command: no gap without a row
    skipped_offsets_id integer primary key autoincrement,
    partition_id integer not null,
    cluster_id text not null,
    topic text not null,
    partition_number integer not null,
    from_offset integer, -- The first offset that was not read; null for the beginning of the partition
    to_offset integer not null, -- Where reading went on
    because text not null, -- The reason that the operator gave
    skipped_by text not null,
    skipped_at text not null
) strict;

-- When the message was last taken in again, and what came of that.
alter table rejected_events add column replayed_at text;
alter table rejected_events add column replay_outcome text;

-- The priors and limits that the latest fit was made with.
alter table populations add column fit_settings text;
