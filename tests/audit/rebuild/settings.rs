//! Changed labels, a changed seed, another arithmetic: refused, rebuilt, and then as if nothing had ever been otherwise.

use super::tables::{assert_published_whole, estimates, filled_with, tables};
use super::{BY_TEAM, Keys, Site, events, fresh, promises};
use crate::common::database::{Database, SqliteDatabase};

promises! {
    changed_labels_need_a_rebuild_that_leaves_what_a_fresh_database_holds,
    a_changed_seed_needs_a_rebuild_that_leaves_what_a_fresh_database_holds,
    another_arithmetic_needs_a_rebuild_that_reads_nothing_but_what_was_sent,
    a_rebuild_with_nothing_changed_publishes_whole_and_changes_nothing_else,
    a_rebuild_writes_estimates_that_are_missing_or_wrong_and_removes_those_of_nothing,
    what_cannot_be_estimated_any_more_waits_with_the_reason,
    a_rebuild_that_would_leave_more_populations_than_before_and_than_allowed_changes_nothing,
}

const SEED: Keys<'_> = &[("REFIT__ONE_PER_EXPERIMENT_SEED", "77")];

async fn changed_labels_need_a_rebuild_that_leaves_what_a_fresh_database_holds<D: Database>(database: &D) {
    a_change_needs_a_rebuild(database, BY_TEAM, &filled_with(&["team"], 0)).await;
    assert_eq!(
        database.count("select cast(count(*) as text) from populations where population_id not like '%/team=%'").await,
        0
    );
}

async fn a_changed_seed_needs_a_rebuild_that_leaves_what_a_fresh_database_holds<D: Database>(database: &D) {
    a_change_needs_a_rebuild(database, SEED, &filled_with(&[], 77)).await;
}

async fn a_change_needs_a_rebuild<D: Database>(database: &D, keys: Keys<'_>, settings: &shrinkd::row::StoreSettings) {
    let (first, rest) = events();
    let site = Site::new(database);
    site.append(&first);
    site.run(&[]);
    let before = tables(database, &filled_with(&[], 0)).await;

    let said = site.start("run", keys).ends_with(2);
    assert!(said.contains("shrinkd rebuild"), "{said}");
    let said = site.rebuild(keys);
    assert!(said.contains("was ") && said.contains("is "), "{said}");
    let after = tables(database, settings).await;
    assert_ne!(after.cells, before.cells, "the settings make a difference");
    assert_published_whole(database).await;

    let fresh = fresh::<D>().await;
    let other = site.of(&fresh);
    other.run(keys);
    assert_eq!(after, tables(&fresh, settings).await);
    other.rebuild(keys);
    assert_eq!(estimates(database).await, estimates(&fresh).await, "both published whole");

    // The old configuration is refused now; the new one goes on where the file was left.
    site.start("run", &[]).ends_with(2);
    for site in [&site, &other] {
        site.append(&rest);
        site.run(keys);
    }
    let refused = "select cast(count(*) as text) from rejected_events";
    assert_eq!(database.count(refused).await, fresh.count(refused).await, "no record was read twice, none passed over");
    assert_eq!(tables(database, settings).await, tables(&fresh, settings).await);
    fresh.remove().await;
}

async fn a_rebuild_that_would_leave_more_populations_than_before_and_than_allowed_changes_nothing<D: Database>(
    database: &D,
) {
    let site = Site::new(database);
    site.append(&events().0);
    site.run(&[]);
    let settings = filled_with(&[], 0);
    let (before, published) = (tables(database, &settings).await, estimates(database).await);
    let populations = "select cast(count(*) as text) from populations";
    let (count, limit) = (database.count(populations).await, "LIMITS__MAX_POPULATIONS");

    let as_many = count.to_string();
    let said = site.start("rebuild", &[BY_TEAM, &[(limit, &as_many)]].concat()).ends_with(1);
    assert!(said.contains("limits.max_populations") && said.contains("Nothing was changed"), "{said}");
    assert_eq!(tables(database, &settings).await, before);
    assert_eq!(estimates(database).await, published);
    site.run(&[]);

    site.rebuild(&[(limit, "1")]);
    assert_eq!(database.count(populations).await, count, "no more than before are never too many");
    site.rebuild(BY_TEAM);
    assert!(database.count(populations).await > count);
}

async fn another_arithmetic_needs_a_rebuild_that_reads_nothing_but_what_was_sent<D: Database>(database: &D) {
    let site = Site::new(database);
    site.append(&events().0);
    site.run(&[]);
    site.rebuild(&[]);
    let settings = filled_with(&[], 0);
    let (before, published) = (tables(database, &settings).await, estimates(database).await);
    // What a build of another arithmetic may have left: nothing of it can be read.
    database.execute("update store_settings set arithmetic_version = 200").await;
    database.execute("update population_cells set moments = (select statistics from blocks limit 1)").await;
    database.execute("update blocks set block = statistics where block is not null").await;
    database.execute("update populations set experiments = 7, effects = 7").await;

    let said = site.start("run", &[]).ends_with(2);
    assert!(said.contains("arithmetic version 200") && said.contains("shrinkd rebuild"), "{said}");
    site.rebuild(&[]);
    assert_eq!(tables(database, &settings).await, before);
    assert_eq!(estimates(database).await, published);
    assert_published_whole(database).await;
    site.run(&[]);
}

async fn a_rebuild_with_nothing_changed_publishes_whole_and_changes_nothing_else<D: Database>(database: &D) {
    let (first, rest) = events();
    let site = Site::new(database);
    let settings = filled_with(&[], 0);
    for lines in [first, rest] {
        site.append(&lines);
        // So tolerant that the second half does not publish again.
        site.run(&[("PUBLISH__TOLERANCE", "0.9")]);
    }
    let commits = "select experiment_id || metric || segment || cast(commit_id as text) from blocks
                   where block is not null order by 1";
    let (before, blocks) = (tables(database, &settings).await, database.texts(commits).await);
    let said = site.rebuild(&[]);
    assert!(said.contains("as before"), "{said}");
    assert_eq!(tables(database, &settings).await, before);
    assert_eq!(database.texts(commits).await, blocks, "no block was written");
    assert_published_whole(database).await;

    let cells = "select population_id || part from population_cells order by 1";
    let (published, own) = (estimates(database).await, database.texts(cells).await);
    site.rebuild(&[]);
    assert_eq!(tables(database, &settings).await, before, "once more");
    assert_eq!(estimates(database).await, published);
    assert_eq!(database.texts(cells).await, own);
}

async fn a_rebuild_writes_estimates_that_are_missing_or_wrong_and_removes_those_of_nothing<D: Database>(database: &D) {
    let site = Site::new(database);
    site.append(&events().0);
    site.run(&[]);
    site.rebuild(&[]);
    let published = estimates(database).await;
    database.execute("update effect_estimates set experiment_id = 'not ' || experiment_id where variant = 'v1'").await;
    database.execute("update effect_estimates set raw_estimate = 1 + raw_estimate where variant = 'v2'").await;
    database.execute("update effect_estimates set posterior_mean = 1 + posterior_mean where variant = 'v3'").await;
    database.execute("update blocks set pending_detail = 'another' where block is null").await;
    // What was left to passes is written, and not left to them any more.
    database.execute("update populations set unpublished = 7, pass_unpublished = 3, unpublished_at = created_at").await;
    assert_ne!(estimates(database).await, published);
    site.rebuild(&[]);
    assert_eq!(estimates(database).await, published);
    let left = "select cast(count(*) as text) from populations
                where unpublished <> 0 or pass_unpublished <> 0 or unpublished_at is not null";
    assert_eq!(database.count(left).await, 0);
}

async fn what_cannot_be_estimated_any_more_waits_with_the_reason<D: Database>(database: &D) {
    let part = r#"{"schema_version":1,"event_id":"e","experiment_id":"part","revision":1,"completed_at":"2026-01-01T00:00:00Z","results":[{"metric":"m","scale":"relative","accumulate":true,"treatments":[{"variant":"b","n":9,"mean":1.0,"variance":1.0}]}]}"#;
    let whole = part
        .replace("part", "whole")
        .replace(r#""accumulate":true,"#, r#""control":{"variant":"a","n":9,"mean":9.0,"variance":1.0},"#);
    let site = Site::new(database);
    site.append(&format!("{part}\n{whole}\n"));
    site.run(&[]);
    let blocks = "select experiment_id || ' ' || coalesce(pending_reason, 'stands') from blocks order by 1";
    let texts = |texts: Vec<Option<String>>| texts.into_iter().flatten().collect::<Vec<_>>();
    let pending = texts(database.texts(blocks).await);
    assert!(pending[0].starts_with("part ") && pending[1] == "whole stands", "{pending:?}");

    // As if this build had other rules than the one that took it in.
    database
        .execute("update blocks set statistics = (select statistics from blocks where experiment_id = 'part')")
        .await;
    let said = site.rebuild(&[]);
    assert!(said.contains("1 block that cannot be estimated any more"), "{said}");
    let reason = pending[0].strip_prefix("part ").expect("it begins so");
    assert_eq!(texts(database.texts(blocks).await), [pending[0].clone(), format!("whole {reason}")]);
    for table in
        ["select cast(count(*) as text) from effect_estimates", "select cast(count(*) as text) from population_cells"]
    {
        assert_eq!(database.count(table).await, 0, "{table}");
    }
    site.run(&[]);
}

/// On SQLite alone: more than a page of populations takes long, and both databases cut pages by the same statements.
#[tokio::test]
async fn more_than_a_page_of_experiments_and_populations_add_up_as_fewer_do() {
    let database = SqliteDatabase::create().await.expect("a file");
    let event = |i: u32| {
        let (estimate, variance) = (f64::from(i).sin(), 10_f64.powi(i as i32 % 7 - 3));
        let effects = format!(r#"[{{"variant":"b","estimate":{estimate},"variance":{variance}}}]"#);
        format!(
            r#"{{"schema_version":1,"experiment_id":"exp-{i}","revision":1,"completed_at":"2026-01-01T00:00:00Z","results":[{{"metric":"m{i}","effects":{effects}}},{{"metric":"all","effects":{effects}}}]}}"#
        ) + "\n"
    };
    let site = Site::new(&database);
    site.append(&(0..1_010).map(event).collect::<String>());
    site.run(&[]);
    let settings = filled_with(&[], 0);
    let before = tables(&database, &settings).await;
    assert_eq!(before.cells.len(), 1_011);
    database
        .execute("delete from population_cells; update populations set has_cells = false, experiments = 0, effects = 0")
        .await;
    site.rebuild(&[]);
    assert_eq!(tables(&database, &settings).await, before);
    database.remove().await;
}
