-- What keeps a refused message that is replayed from bringing back an experiment that was retracted whole after it.

create table tombstones ( -- The last message that retracted the whole experiment: what was refused before it is not replayed
    experiment_id text primary key,
    partition_id integer not null,
    record_offset integer not null,
    retracted_at text not null
) strict, without rowid;
