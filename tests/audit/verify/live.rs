//! Beside workers.

use super::{Audited, Folder, Running, Settings, events};
use crate::common::database::{PostgresDatabase, SqliteDatabase};

async fn an_audit_beside_a_worker_at_full_load_is_clean<D: Audited>(store: &str) {
    let Some(database) = D::create().await else { return };
    let folder = Folder::new(&format!("live-{store}"));
    let events = events(&folder, 3_000);
    // Small batches and short intervals: as many moments as can be.
    let settings = Settings::file(&events, database.url())
        .with("SHRINKD__INGEST__BATCH_RECORDS", "20")
        .with("SHRINKD__REFIT__INTERVAL", "20ms")
        .with("SHRINKD__PUBLISH__TOLERANCE", "0.05");
    let log = std::fs::File::create(folder.path("worker.log")).expect("a log");
    let mut worker = Running::start(&settings, log);
    let progress = "select cast(coalesce(sum(next_offset), 0) as text) from partition_progress";
    while database.count(progress).await == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let mut audits = 0;
    while worker.0.try_wait().expect("it was started").is_none() {
        settings.verify().is_clean();
        audits += 1;
    }
    assert!(worker.0.wait().expect("it ended").success(), "{:?}", std::fs::read_to_string(folder.path("worker.log")));
    assert!(audits >= 3, "{audits} audits while the worker ran");
    let audit = settings.verify();
    audit.is_clean();
    assert!(!audit.said.contains("not judged"), "{}", audit.said);
    database.remove().await;
}

#[tokio::test]
async fn an_audit_beside_a_worker_at_full_load_is_clean_on_sqlite() {
    an_audit_beside_a_worker_at_full_load_is_clean::<SqliteDatabase>("sqlite").await;
}

#[tokio::test]
async fn an_audit_beside_a_worker_at_full_load_is_clean_on_postgres() {
    an_audit_beside_a_worker_at_full_load_is_clean::<PostgresDatabase>("postgres").await;
}
