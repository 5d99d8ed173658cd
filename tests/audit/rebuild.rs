//! What a database promises when the settings that it was filled with change: `shrinkd run` refuses it, `shrinkd rebuild`
//! makes it one that was filled with the new ones, and nothing is lost or doubled on the way. Real processes, on both stores.

mod beside_workers;
mod interrupted;
mod priors;
mod settings;
pub mod tables;

use std::time::{Duration, Instant};

use crate::common::database::Database;
use crate::common::program::portfolio;
use crate::common::promises;
use crate::site::{Keys, Site, TIMEOUT};

const BY_TEAM: Keys<'_> = &[("POPULATIONS__LABELS", r#"["team"]"#)];

/// The events of a platform: revisions, repetitions, retractions, tombstones, parts and results to refuse, in two halves.
fn events() -> (String, String) {
    let text = portfolio(11, 50);
    let lines: Vec<&str> = text.lines().collect();
    let (first, rest) = lines.split_at(lines.len() / 2);
    (first.join("\n") + "\n", rest.join("\n") + "\n")
}

/// Another database, which nobody has filled.
async fn fresh<D: Database>() -> D {
    let fresh = D::create().await.expect("another database");
    fresh.execute("delete from store_settings").await;
    fresh
}

/// Waits until something is so.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !is_so().await {
        assert!(Instant::now() < deadline, "{what}: not within {TIMEOUT:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
