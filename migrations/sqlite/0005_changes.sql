-- What a batch changes in the blocks is appended to a log, and a refit of the population folds it into the population's cells: see the
-- migration of PostgreSQL.

drop table sketch_cells;
drop table cell_counters;

create table block_changes ( -- What batches have changed in the blocks since the last refit of their population, which takes its rows out
    change_id integer primary key autoincrement,
    transaction_id integer not null default 0, -- Of PostgreSQL; 0 here
    population_id text not null,
    before blob, -- The block that the change took away (packed); null where there was none
    after blob, -- The block that it put in (packed); null where there is none any more
    is_published integer not null default 1, -- Whether the batch has written the estimates of the block; one that was far behind has left them to a pass
    check (before is not null or after is not null)
) strict;
create index block_changes_by_population on block_changes (population_id, transaction_id);

create table population_cells ( -- The likelihood sketch of the populations with populations.has_cells: sums over the components of their blocks, exact integers
    population_id text not null,
    part text not null, -- one_variant: blocks of one variant; several_variants: those of two to six, at each of 16 intraclass correlations; many_variants: those of more, at each of 28; ignored, one_per_experiment: those of several under the other models of correlation
    moments blob not null, -- Of each octave of lambda that has components its number and its cells, 16 in part several_variants and 28 in many_variants: up to 20 Chebyshev moments x 4 series, integers in as few bytes as hold them
    primary key (population_id, part)
) strict;

alter table populations rename column refitted_changes to changes; -- Blocks put in, replaced or withdrawn, as the latest refit has seen them
alter table populations add column has_cells integer not null default 0; -- Whether its statistics are in population_cells; else they are summed from its blocks
alter table populations add column experiments integer not null default 0; -- Experiments that the latest refit has seen
alter table populations add column effects integer not null default 0; -- Effects that the latest refit has seen
alter table populations add column block_sizes text not null default '{}'; -- How many experiments have each number of variants from two on, as the latest refit has seen them: {"variants": experiments}
alter table populations add column refit_due_at text; -- When the next refit is due even if nothing changes; none happens earlier. Null where only a change makes one due
alter table populations add column unpublished integer not null default 0; -- Changes of blocks, as the latest refit has seen them, whose estimates batches that were far behind have left to a pass
alter table populations add column pass_unpublished integer not null default 0; -- How many of the unpublished the pass under way will have written once it has ended
alter table populations add column unpublished_at text; -- When a refit saw the first of the unpublished changes that no pass has begun with; null where there is none
alter table populations add column changed_at text not null default ''; -- When a refit or a pass last changed what is said of the population
update populations set changes = 0, diagnosed_changes = 0, changed_at = created_at;
create index populations_to_publish on populations (population_id) where publish_cursor is not null;
create index populations_by_changed_at on populations (changed_at);
create index populations_by_refit_due_at on populations (refit_due_at) where refit_due_at is not null;

alter table blocks drop column components;
alter table blocks drop column partition_id;
