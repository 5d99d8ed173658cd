//! What keeps an audit from being made, and what is said besides.

use super::{Folder, Settings, events};
use crate::common::database::{Database, SqliteDatabase};

#[tokio::test]
async fn a_database_that_is_not_there_is_not_made() {
    let folder = Folder::new("absent");
    let database = SqliteDatabase::absent();
    let audit = Settings::file(&events(&folder, 40), database.url()).verify();
    assert_eq!(audit.code, Some(2));
    assert!(audit.stderr.contains("there is no such file"), "{}", audit.stderr);
    assert!(!database.path().exists());
}

#[tokio::test]
async fn a_database_of_another_grouping_is_not_audited() {
    let folder = Folder::new("grouping");
    let database = SqliteDatabase::absent();
    let settings = Settings::file(&events(&folder, 40), database.url());
    settings.run();
    let audit = settings.with("SHRINKD__POPULATIONS__LABELS", r#"["team"]"#).verify();
    assert_eq!(audit.code, Some(2), "{}", audit.stderr);
}

#[tokio::test]
async fn a_source_that_cannot_be_reached_is_an_error() {
    let folder = Folder::new("unreachable");
    let database = SqliteDatabase::absent();
    let path = events(&folder, 40);
    let settings = Settings::file(&path, database.url());
    settings.run();
    std::fs::remove_file(&path).expect("the file was there");
    let audit = settings.verify();
    assert_eq!(audit.code, Some(1));
    assert!(audit.stderr.contains("events.ndjson"), "{}", audit.stderr);
}

#[tokio::test]
async fn what_a_refit_or_a_publish_is_due_for_is_not_judged() {
    let folder = Folder::new("due");
    let database = SqliteDatabase::absent();
    let settings = Settings::file(&events(&folder, 40), database.url());
    settings.run();
    database.execute("update populations set refit_due_at = created_at").await;
    let audit = settings.verify();
    audit.is_clean();
    for check in ["fits", "distances"] {
        assert!(audit.line(check).trim_start().starts_with(&format!("{check:<10}  0 ")), "{}", audit.said);
    }
    assert!(audit.said.contains("not judged: a refit or"), "{}", audit.said);

    // While a pass is under way, rows may still have the fit before.
    database.execute("update populations set refit_due_at = null, publish_cursor = ''").await;
    settings.verify().is_clean();
}

#[tokio::test]
async fn what_was_fitted_with_other_settings_is_not_judged() {
    let folder = Folder::new("settings");
    let database = SqliteDatabase::absent();
    let settings = Settings::file(&events(&folder, 40), database.url());
    settings.run();
    database
        .execute("update populations set fit_settings = 'mu flat, tau flat, from 5 experiments, tolerance 0.01'")
        .await;
    let audit = settings.verify();
    audit.is_clean();
    assert!(!audit.said.contains("not judged"), "{}", audit.said);
    let audit = settings.with("SHRINKD__REFIT__PRIOR_TAU", "half-normal:1").verify();
    audit.is_clean();
    assert!(audit.said.contains("not judged: a refit or") && audit.said.contains("tau flat"), "{}", audit.said);
}

#[tokio::test]
async fn what_is_left_to_a_pass_is_not_judged_and_a_pass_that_nothing_asks_for_is_a_difference() {
    let folder = Folder::new("unpublished");
    let database = SqliteDatabase::absent();
    let settings = Settings::file(&events(&folder, 40), database.url());
    settings.run();
    let missing = "delete from effect_estimates where experiment_id in
                   (select experiment_id from effect_estimates order by experiment_id limit 20)";
    database.execute(missing).await;
    let of_another_commit = "update effect_estimates set commit_id = 0 where experiment_id in
                             (select experiment_id from effect_estimates order by experiment_id desc limit 20)";
    database.execute(of_another_commit).await;
    assert_eq!(settings.verify().found(), ["estimates"]);
    database.execute("update populations set unpublished = 3, publish_cursor = ''").await;
    let audit = settings.verify();
    audit.is_clean();
    assert!(audit.said.contains("not judged"), "{}", audit.said);
    database.execute("update populations set publish_cursor = null").await;
    let audit = settings.verify();
    assert_eq!(audit.found(), ["counters"]);
    assert!(audit.said.contains("neither a refit nor a pass is due"), "{}", audit.said);
    database.execute("update populations set publish_cursor = '', pass_unpublished = 4").await;
    assert_eq!(settings.verify().found(), ["counters"]);
}

#[tokio::test]
async fn halted_partitions_and_skipped_offsets_are_mentioned() {
    let folder = Folder::new("remarks");
    let database = SqliteDatabase::absent();
    let settings = Settings::file(&events(&folder, 40), database.url());
    settings.run();
    database
        .execute(
            "update partition_progress set halted_at = '2026-11-01T12:00:00.000000Z', halt_reason = 'dead_letters', halt_detail = 'x';
             insert into skipped_offsets (partition_id, cluster_id, topic, partition_number, from_offset, to_offset, because,
                                          skipped_by, skipped_at)
             select partition_id, cluster_id, topic, partition_number, null, 12, 'expired', 'ann', '2026-11-01T12:00:00.000000Z'
             from partition_progress;",
        )
        .await;
    let audit = settings.verify();
    audit.is_clean();
    let said = audit.said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.contains("is halted since 2026-11-01T12:00:00Z: dead_letters"), "{said}");
    assert!(said.contains("offsets from its beginning to before 12 were skipped by ann at"), "{said}");
}
