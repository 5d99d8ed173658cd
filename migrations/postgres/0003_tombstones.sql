-- What keeps a refused message that is replayed from bringing back an experiment that was retracted whole after it.

create table tombstones (
    experiment_id text primary key,
    partition_id bigint not null,
    record_offset bigint not null,
    retracted_at timestamptz not null default now()
);
comment on table tombstones is 'The last message that retracted the whole experiment: what was refused before it is not replayed';
