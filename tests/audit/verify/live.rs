//! Beside workers.

use super::{Audited, Folder, Settings, events, events_of_few_metrics};
use crate::common::database::{PostgresDatabase, SqliteDatabase};
use crate::common::worker::Worker;

async fn an_audit_beside_a_worker_at_full_load_is_clean<D: Audited>(store: &str, prior_icc: &str) {
    let Some(database) = D::create().await else { return };
    let folder = Folder::new(&format!("live-{store}-{prior_icc}"));
    // Fits with a prior of icc take ten times as long.
    let events = if prior_icc == "none" { events(&folder, 300) } else { events_of_few_metrics(&folder, 150) };
    // Small batches and short intervals: as many moments as can be.
    let settings = Settings::file(&events, database.url())
        .with("SHRINKD__INGEST__BATCH_RECORDS", "20")
        .with("SHRINKD__REFIT__INTERVAL", "20ms")
        .with("SHRINKD__PUBLISH__TOLERANCE", "0.05")
        .with("SHRINKD__REFIT__PRIOR_ICC", prior_icc);
    let mut worker = Worker::start(&settings.0, folder.path("worker.log"));
    let progress = "select cast(coalesce(sum(next_offset), 0) as text) from partition_progress";
    while database.count(progress).await == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let mut audits = 0;
    while worker.ended().is_none() {
        settings.verify().is_clean();
        audits += 1;
    }
    worker.ends_well();
    assert!(audits >= 3, "{audits} audits while the worker ran");
    let audit = settings.verify();
    audit.is_clean();
    assert!(!audit.said.contains("not judged"), "{}", audit.said);
    let large = "select cast(count(*) as text) from populations where has_cells";
    assert_ne!(database.count(large).await, 0, "there are cells to compare");
    database.remove().await;
}

#[tokio::test]
async fn an_audit_beside_a_worker_at_full_load_is_clean_on_sqlite() {
    an_audit_beside_a_worker_at_full_load_is_clean::<SqliteDatabase>("sqlite", "none").await;
}

#[tokio::test]
async fn so_it_is_where_the_variants_of_an_experiment_are_alike() {
    an_audit_beside_a_worker_at_full_load_is_clean::<SqliteDatabase>("sqlite", "uniform").await;
}

#[tokio::test]
async fn an_audit_beside_a_worker_at_full_load_is_clean_on_postgres() {
    an_audit_beside_a_worker_at_full_load_is_clean::<PostgresDatabase>("postgres", "none").await;
}
