-- Who may do what in shrinkd's PostgreSQL database: no more than it needs.
--
--   shrinkd_owner    owns the database and its tables; `shrinkd migrate` and `shrinkd rebuild` run as it, and nothing else does
--   shrinkd_worker   `shrinkd run`: reads and writes rows as its statements do, and cannot change a table
--   shrinkd_auditor  `shrinkd verify`: reads everything but refused messages, and changes nothing
--   shrinkd_reader   analysts: the output that docs/tables.md describes, without the bytes of messages and blocks
--
-- As a superuser, once:
--
--   create role shrinkd_owner login;
--   create database shrinkd owner shrinkd_owner;
--
-- Then `shrinkd migrate` as shrinkd_owner, and after it, as a superuser, the first time and after each migration:
--
--   psql --dbname=shrinkd --file=deploy/postgres/roles.sql
--
-- Run again it makes the rights what they are here, whatever they were. Give those that log in a password (\password
-- shrinkd_worker) or a certificate, as the server's pg_hba.conf wants it; analysts become members (grant shrinkd_reader to
-- alice).

\set ON_ERROR_STOP on
begin;

do $$
begin
    if not exists (select from pg_roles where rolname = 'shrinkd_worker') then
        create role shrinkd_worker login;
    end if;
    if not exists (select from pg_roles where rolname = 'shrinkd_auditor') then
        create role shrinkd_auditor login;
    end if;
    if not exists (select from pg_roles where rolname = 'shrinkd_reader') then
        create role shrinkd_reader nologin;
    end if;
end
$$;

-- Before PostgreSQL 15 everybody could make tables here.
revoke create on schema public from public;
revoke all on all tables in schema public from shrinkd_worker, shrinkd_auditor, shrinkd_reader;
revoke all on all sequences in schema public from shrinkd_worker, shrinkd_auditor, shrinkd_reader;
grant usage on schema public to shrinkd_worker, shrinkd_auditor, shrinkd_reader;

-- The worker. Locking a row (select for update) takes the right to update it.
grant select on _sqlx_migrations to shrinkd_worker;
grant select, insert on store_settings to shrinkd_worker;
grant select, insert, update on partition_progress to shrinkd_worker;
grant select, insert, update on populations to shrinkd_worker;
grant select, insert, update, delete on experiments to shrinkd_worker;
grant select, insert, update, delete on blocks to shrinkd_worker;
grant select, insert, update, delete on block_changes to shrinkd_worker;
grant select, insert, update on population_cells to shrinkd_worker;
grant select, insert, update on rejected_events to shrinkd_worker;
grant select, insert, update on tombstones to shrinkd_worker;
grant select, insert on skipped_offsets to shrinkd_worker;
grant select, insert, update, delete on current_population_fits to shrinkd_worker;
-- A published fit is never changed.
grant select, insert on population_fits to shrinkd_worker;
grant select, insert, update on population_diagnostics to shrinkd_worker;
grant select, insert, update, delete on effect_estimates to shrinkd_worker;
grant usage on sequence commit_ids, fit_ids to shrinkd_worker;
-- Many rows at once pass through a temporary table.
grant temporary on database :"DBNAME" to shrinkd_worker;

-- The audit.
grant select on _sqlx_migrations, store_settings, partition_progress, skipped_offsets, populations, experiments, blocks,
                block_changes, population_cells, current_population_fits, population_fits, effect_estimates to shrinkd_auditor;

-- Analysts. What a producer sent may hold what is not theirs to see: of refused messages they get all but the messages.
grant select on effect_estimates to shrinkd_reader;
grant select on plug_in_estimates to shrinkd_reader;
grant select on current_population_fits to shrinkd_reader;
grant select on population_fits to shrinkd_reader;
grant select on population_diagnostics to shrinkd_reader;
grant select (rejected_event_id, reason, detail, experiment_id, variant, result_index, cluster_id, topic, partition_number, record_offset,
              partition_id, payload_bytes, produced_at, rejected_at, replayed_at, replay_outcome) on rejected_events to shrinkd_reader;
grant select on skipped_offsets to shrinkd_reader;
grant select (experiment_id, revision, decision, labels, completed_at, kind, started_at, shipped_variant) on experiments to shrinkd_reader;
grant select (population_id, metric, segment, scale, published_fit_id, fit_settings, unpublished, created_at) on populations to shrinkd_reader;
grant select (partition_id, cluster_id, topic, partition_number, next_offset, owner, claimed_at, committed_at, halted_at,
              halt_reason, halt_detail, resumed_at, resumed_by)
    on partition_progress to shrinkd_reader;

commit;
