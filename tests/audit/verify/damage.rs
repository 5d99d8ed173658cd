//! Each kind of damage, done by SQL to a store that a worker has filled.

use super::{Audited, Folder, Settings, events, events_of_few_metrics};
use crate::common::database::{Database, PostgresDatabase, SqliteDatabase};

/// What is done to a table, and what the audit says then.
struct Damage {
    table: &'static str,
    statement: String,
    /// The checks that find it.
    found: &'static [&'static str],
    /// What is said of it.
    named: &'static str,
}

fn damage(table: &'static str, statement: &str, found: &'static [&'static str], named: &'static str) -> Damage {
    Damage { table, statement: statement.to_owned(), found, named }
}

/// The first key of a table.
fn first(table: &str, key: &str) -> String {
    format!("({key}) = (select {key} from {table} order by {key} limit 1)")
}

fn damages<D: Audited>() -> Vec<Damage> {
    let cell = first("population_cells", "population_id, part");
    let population = first("populations", "population_id");
    let estimate = first("effect_estimates", "population_id, experiment_id, variant");
    // Of a population that is large enough for cells.
    let block = "population_id = (select min(population_id) from population_cells)
                 and experiment_id = (select min(e.experiment_id) from effect_estimates as e
                                      where e.population_id = blocks.population_id)";
    let fit = format!("{} and correlation = 'modelled'", first("current_population_fits", "population_id"));
    let byte = |column: &str, at: usize| format!("{column} = {}", D::changed_byte(column, at));
    let copy = |columns: &str, values: &str| {
        format!("insert into effect_estimates ({columns}) select {values} from effect_estimates where {estimate}")
    };
    let every = "population_id, experiment_id, variant, block_revision, commit_id, fit_id, status, raw_estimate, raw_se, computed_at";
    let unknown = every.replace("variant", "'unknown'");
    let orphan = every.replace("experiment_id", "'zzz'");
    vec![
        damage(
            "population_cells",
            &format!("update population_cells set {} where {cell}", byte("moments", 6)),
            &["cells"],
            "moment 0 of count",
        ),
        damage(
            "population_cells",
            &format!("delete from population_cells where {cell}"),
            &["cells"],
            "and 79 others of the cell",
        ),
        damage(
            "population_cells",
            &format!("update population_cells set part = 'two_variants' where {cell}"),
            &["cells"],
            "two_variants: moments",
        ),
        damage(
            "populations",
            &format!("update populations set has_cells = not has_cells where {population}"),
            &["cells"],
            "octave",
        ),
        damage(
            "block_changes",
            &format!(
                "insert into block_changes (population_id, after) select population_id, block from blocks where {block}"
            ),
            &["cells"],
            ": before, after\n",
        ),
        damage(
            "populations",
            &format!("update populations set effects = effects + 1 where {population}"),
            &["counters"],
            "effects",
        ),
        damage(
            "populations",
            &format!("update populations set block_sizes = '[2]' where {population}"),
            &["counters"],
            "counts by variants",
        ),
        damage(
            "populations",
            &format!("update populations set experiments = experiments - 1 where {population}"),
            &["counters"],
            "experiments",
        ),
        damage(
            "blocks",
            &format!("delete from blocks where {block}"),
            &["cells", "counters", "fits", "estimates"],
            "none: no block has this variant",
        ),
        damage(
            "blocks",
            &format!("update blocks set {} where {block}", byte("block", 0)),
            &["blocks"],
            "bytes that cannot be read",
        ),
        damage(
            "blocks",
            &format!("update blocks set {} where {block}", byte("statistics", 0)),
            &["blocks"],
            ": statistics\n",
        ),
        damage(
            "blocks",
            &format!("update blocks set revision = revision + 1000000 where {block}"),
            &["blocks", "estimates"],
            ": revision\n",
        ),
        damage(
            "blocks",
            &format!("update blocks set population_id = 'other/all/absolute' where {block}"),
            &["blocks", "cells"],
            ": population_id\n",
        ),
        damage(
            "blocks",
            "update blocks set pending_reason = 'no_treatments' where block is null",
            &["blocks"],
            "parts/all/absolute waits: pending_reason",
        ),
        damage(
            "experiments",
            "delete from experiments where experiment_id = 'waits'",
            &["blocks"],
            "parts/all/absolute waits: experiment",
        ),
        damage(
            "current_population_fits",
            &format!("update current_population_fits set tau_median = tau_median * (1 + 1e-15) where {fit}"),
            &["fits"],
            "modelled: tau_median",
        ),
        damage(
            "current_population_fits",
            &format!("update current_population_fits set {} where {fit}", byte("nodes", 12)),
            &["fits"],
            "modelled: nodes",
        ),
        damage(
            "current_population_fits",
            &format!("update current_population_fits set node_iccs = nodes where {fit}"),
            &["fits"],
            "modelled: nodes",
        ),
        damage(
            "current_population_fits",
            &format!("delete from current_population_fits where {fit}"),
            &["fits"],
            "modelled: fit",
        ),
        damage(
            "population_fits",
            "update population_fits set nodes = (select nodes from population_fits where status = 'fitted' order by population_id, fit_id limit 1) where status = 'fitted'",
            &["estimates"],
            "posterior_mean\n",
        ),
        damage(
            "population_fits",
            "delete from population_fits",
            &["estimates"],
            "a fit of the history that can be read",
        ),
        damage(
            "effect_estimates",
            &format!(
                "update effect_estimates set posterior_mean = posterior_mean + 0.2 * posterior_sd where {estimate}"
            ),
            &["estimates", "distances"],
            "posterior sds (it is 0.2",
        ),
        damage(
            "effect_estimates",
            &format!("update effect_estimates set ci95_low = ci95_low * (1 + 1e-6) where {estimate}"),
            &["estimates"],
            ": ci95_low\n",
        ),
        damage(
            "effect_estimates",
            &format!("update effect_estimates set raw_estimate = raw_estimate * (1 + 3e-16) where {estimate}"),
            &["estimates"],
            ": raw_estimate\n",
        ),
        damage(
            "effect_estimates",
            &format!("update effect_estimates set control_variance_source = 'imputed' where {estimate}"),
            &["estimates"],
            ": control_variance_source\n    stored    imputed\n    expected  arms",
        ),
        damage(
            "effect_estimates",
            &format!("update effect_estimates set direction = 'decrease' where {estimate}"),
            &["estimates"],
            ": direction\n    stored    decrease\n    expected  increase",
        ),
        damage(
            "effect_estimates",
            &format!("update effect_estimates set is_shipped = not coalesce(is_shipped, false) where {estimate}"),
            &["estimates"],
            ": is_shipped\n",
        ),
        damage(
            "effect_estimates",
            &format!("update effect_estimates set fit_id = fit_id + 1 where {estimate}"),
            &["estimates"],
            ": fit_id\n",
        ),
        damage(
            "effect_estimates",
            &format!("update effect_estimates set commit_id = commit_id + 1 where {estimate}"),
            &["estimates"],
            ": commit_id\n",
        ),
        damage(
            "effect_estimates",
            &format!("update effect_estimates set status = 'cold_start' where {estimate}"),
            &["estimates", "distances"],
            ": status\n",
        ),
        damage(
            "effect_estimates",
            &format!("delete from effect_estimates where {estimate}"),
            &["estimates"],
            ": row\n    stored    no row",
        ),
        damage("effect_estimates", &copy(every, &unknown), &["estimates"], " unknown: row\n    stored    a row"),
        damage("effect_estimates", &copy(every, &orphan), &["estimates"], " zzz v1: row\n    stored    a row"),
        damage(
            "populations",
            &format!("delete from populations where {}", first("populations", "population_id")),
            &["counters", "estimates"],
            ": populations\n    stored    no row",
        ),
    ]
}

async fn each_damage_is_found_and_named<D: Audited>(store: &str) {
    let Some(database) = D::create().await else { return };
    let folder = Folder::new(&format!("damage-{store}"));
    let settings = Settings::file(&events_of_few_metrics(&folder, 100), database.url());
    settings.run();
    settings.verify().is_clean();
    for Damage { table, statement, found, named } in damages::<D>() {
        database.execute(format!("create table kept as select * from {table}").leak()).await;
        database.execute(statement.clone().leak()).await;
        let audit = settings.verify();
        assert_eq!(audit.code, Some(1), "{statement}\n{}{}", audit.said, audit.stderr);
        for check in found {
            assert!(audit.found().contains(check), "{check} does not find {statement}\n{}", audit.said);
        }
        assert!(audit.said.contains(named), "{named:?} is not said of {statement}\n{}", audit.said);
        let undo = format!("delete from {table}; insert into {table} select * from kept; drop table kept;");
        database.execute(undo.leak()).await;
    }
    settings.verify().is_clean();
    database.remove().await;
}

#[tokio::test]
async fn each_damage_is_found_and_named_on_sqlite() {
    each_damage_is_found_and_named::<SqliteDatabase>("sqlite").await;
}

#[tokio::test]
async fn each_damage_is_found_and_named_on_postgres() {
    each_damage_is_found_and_named::<PostgresDatabase>("postgres").await;
}

#[tokio::test]
async fn an_offset_that_the_file_does_not_have_is_found() {
    let folder = Folder::new("offsets");
    let database = SqliteDatabase::absent();
    let events = events(&folder, 40);
    let settings = Settings::file(&events, database.url());
    settings.run();
    settings.verify().is_clean();
    for (statement, expected) in [
        ("update partition_progress set next_offset = next_offset + 1", "the length of the file"),
        ("update partition_progress set next_offset = 17", "the beginning of a line"),
        ("update partition_progress set next_offset = -1", "the length of the file"),
        ("update partition_progress set cluster_id = 'elsewhere'", "expected  file"),
    ] {
        database.execute("create table kept as select * from partition_progress").await;
        database.execute(statement).await;
        let audit = settings.verify();
        assert_eq!((audit.code, audit.found()), (Some(1), vec!["offsets"]), "{}", audit.said);
        assert!(audit.said.contains(expected), "{}", audit.said);
        let undo =
            "delete from partition_progress; insert into partition_progress select * from kept; drop table kept;";
        database.execute(undo).await;
    }
    // What comes after it is for the worker to read.
    let mut longer = std::fs::OpenOptions::new().append(true).open(&events).expect("the file opens");
    std::io::Write::write_all(&mut longer, b"{}\n").expect("a line");
    settings.verify().is_clean();
}

#[tokio::test]
async fn an_estimate_that_its_fit_gives_but_that_is_too_far_from_exact_is_found() {
    let folder = Folder::new("distance");
    let database = SqliteDatabase::absent();
    let path = events(&folder, 200);
    let all = std::fs::read_to_string(&path).expect("events");
    let half = all.len() / 2 + all[all.len() / 2..].find('\n').expect("a line") + 1;
    std::fs::write(&path, &all[..half]).expect("the first half");
    let lax = Settings::file(&path, database.url()).with("SHRINKD__PUBLISH__TOLERANCE", "0.5");
    lax.run();
    std::fs::write(&path, all).expect("all of it");
    lax.run();
    let audit = lax.verify();
    audit.is_clean();
    assert!(!audit.line("distances").contains("at most 0.00"), "{}", audit.said);
    let pretend = "update populations set fit_settings = replace(fit_settings, 'tolerance 0.5', 'tolerance 0.001')";
    database.execute(pretend).await;
    let audit = lax.with("SHRINKD__PUBLISH__TOLERANCE", "0.001").verify();
    assert_eq!((audit.code, audit.found()), (Some(1), vec!["distances"]), "{}", audit.said);
}

#[tokio::test]
async fn a_change_in_the_log_that_was_folded_is_found_and_fits_are_judged_once_nothing_is_in_it() {
    let (folder, database) = (Folder::new("folded"), SqliteDatabase::absent());
    let path = events_of_few_metrics(&folder, 100);
    let settings = Settings::file(&path, database.url());
    let all = std::fs::read_to_string(&path).expect("events");
    let half = all.len() / 2 + all[all.len() / 2..].find('\n').expect("a line") + 1;
    std::fs::write(&path, &all[..half]).expect("the first half");
    settings.run();
    // What the log has had is kept.
    database
        .execute(
            "create table kept as select * from block_changes;
             create trigger keep after insert on block_changes
             begin insert into kept select * from block_changes where change_id = new.change_id; end",
        )
        .await;
    std::fs::write(&path, &all).expect("all of it");
    settings.run();
    settings.verify().is_clean();
    database.execute("drop trigger keep").await;
    let again = "insert into block_changes (change_id, population_id, before, after)
                 select k.change_id, k.population_id, k.before, k.after
                 from kept as k join populations as p on p.population_id = k.population_id";
    for (which, found) in [
        ("p.has_cells and k.before is null", &["cells", "counters"][..]),
        ("p.has_cells and k.before is not null and k.after is not null", &["cells"]),
        ("not p.has_cells and k.before is null", &["counters"]),
    ] {
        database.execute(format!("{again} where {which} order by k.change_id limit 1").leak()).await;
        let audit = settings.verify();
        assert_eq!((audit.code, audit.found()), (Some(1), found.to_vec()), "{which}\n{}", audit.said);
        database.execute("delete from block_changes").await;
    }
    let stray = "insert into block_changes (population_id, before, after)
                 select 'stray/all/absolute', after, after from kept where after is not null limit 1";
    database.execute(stray).await;
    assert_eq!(settings.verify().found(), ["counters"], "a population that only the log knows");
    database.execute("delete from block_changes").await;
    settings.verify().is_clean();

    // A refit will replace these fits.
    database.execute("update current_population_fits set mu_mean = mu_mean + 1").await;
    assert_eq!(settings.verify().found(), ["fits"]);
    database.execute("update populations set refit_due_at = created_at").await;
    settings.verify().is_clean();
    database.execute("update populations set refit_due_at = null").await;
    database
        .execute(
            "insert into block_changes (population_id, before, after)
                  select p.population_id, k.after, k.after from populations as p
                  join (select after from kept where after is not null limit 1) as k on true",
        )
        .await;
    settings.verify().is_clean();

    // Nothing of its cells is left, and nothing says that it has any.
    database
        .execute("delete from block_changes; delete from population_cells; update populations set has_cells = false")
        .await;
    let audit = settings.verify();
    assert!(audit.found().contains(&"cells") && audit.said.contains(": has_cells\n"), "{}", audit.said);
}
