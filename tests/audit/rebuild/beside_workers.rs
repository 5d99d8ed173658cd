//! Workers that are at it while a rebuild runs: those with other settings end, those with the same go on.

use std::time::Duration;

use shrinkd::store::StoreError;
use shrinkd::stream::{Advance, Claim, NextOffset, Topic};

use super::tables::{assert_published_whole, estimates, filled_with, tables};
use super::{BY_TEAM, Site, events, fresh, promises, until};
use crate::common::database::Database;

promises! {
    a_worker_of_the_old_configuration_ends_and_one_of_the_new_goes_on_where_it_was,
    a_rebuild_beside_a_worker_of_the_same_configuration_loses_and_doubles_nothing,
    a_rebuild_waits_for_the_batch_under_way_and_shuts_out_the_next_of_other_settings,
}

const FOLLOW: (&str, &str) = ("SOURCE__FILE__FOLLOW", "true");

/// Waits until the file has been read to its end.
async fn until_read(site: &Site, database: &impl Database) {
    let length = std::fs::metadata(&site.events).expect("the events are there").len() as i64;
    let offset = "select cast(coalesce(max(next_offset), 0) as text) from partition_progress";
    until("the file is read", async || database.count(offset).await == length).await;
}

async fn a_worker_of_the_old_configuration_ends_and_one_of_the_new_goes_on_where_it_was<D: Database>(database: &D) {
    let (first, rest) = events();
    let site = Site::new(database);
    site.append(&first);
    let worker = site.start("run", &[FOLLOW]);
    until_read(&site, database).await;
    site.rebuild(BY_TEAM);
    site.append(&rest);
    let said = worker.ends_with(2);
    assert!(said.contains("shrinkd rebuild"), "{said}");
    site.run(BY_TEAM);

    let fresh = fresh::<D>().await;
    let other = site.of(&fresh);
    other.run(BY_TEAM);
    let settings = filled_with(&["team"], 0);
    assert_eq!(tables(database, &settings).await, tables(&fresh, &settings).await);
    fresh.remove().await;
}

async fn a_rebuild_beside_a_worker_of_the_same_configuration_loses_and_doubles_nothing<D: Database>(database: &D) {
    let (first, rest) = events();
    let site = Site::new(database);
    let worker = site.start("run", &[FOLLOW, ("INGEST__BATCH_RECORDS", "3"), ("REFIT__INTERVAL", "20ms")]);
    let lines: Vec<String> = (first + &rest).lines().map(|line| format!("{line}\n")).collect();
    for (number, lines) in lines.chunks(12).enumerate() {
        site.append(&lines.concat());
        if number % 4 == 2 {
            site.rebuild(&[]);
        }
    }
    until_read(&site, database).await;
    worker.kill();
    site.run(&[]);

    let fresh = fresh::<D>().await;
    let other = site.of(&fresh);
    other.run(&[]);
    let settings = filled_with(&[], 0);
    assert_eq!(tables(database, &settings).await, tables(&fresh, &settings).await);
    site.rebuild(&[]);
    other.rebuild(&[]);
    assert_eq!(estimates(database).await, estimates(&fresh).await);
    assert_published_whole(database).await;
    fresh.remove().await;
}

async fn a_rebuild_waits_for_the_batch_under_way_and_shuts_out_the_next_of_other_settings<D: Database>(database: &D) {
    let (settings, other) = (filled_with(&[], 0), filled_with(&["team"], 0));
    let old = database.open(&settings).await.unwrap();
    let new = database.open_to_rebuild(&other).await;
    let topic = Topic { cluster_id: "c".to_owned(), name: "t".to_owned(), id: String::new(), partitions: 1 };
    let claims = old.claim(&topic, &[0], "worker").await.unwrap();
    let Claim { partition, partition_id, epoch, next_offset: from, .. } = claims[0];
    let advance = |from, to| Advance { partition, partition_id, epoch, from, to };
    let (first, second) = (NextOffset(1), NextOffset(2));

    let batch = old.begin_ingest(&[advance(from, first)]).await.unwrap();
    let rebuilding = tokio::spawn({
        let new = new.clone();
        async move {
            let (mut rebuild, _) = new.begin_rebuild().await?;
            rebuild.finish().await?;
            rebuild.commit().await
        }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!rebuilding.is_finished(), "it waits for the batch");
    batch.commit().await.unwrap();
    rebuilding.await.unwrap().unwrap();

    let refused = old.begin_ingest(&[advance(Some(first), second)]).await.err();
    assert!(matches!(refused, Some(StoreError::Settings { .. })), "{refused:?}");
    let refused = old.begin_refit(&["m/all/absolute".parse().unwrap()]).await.err();
    assert!(matches!(refused, Some(StoreError::Settings { .. })), "{refused:?}");
    // The claim still holds: a worker of the new settings would not have noticed anything.
    new.begin_ingest(&[advance(Some(first), second)]).await.unwrap().commit().await.unwrap();
}
