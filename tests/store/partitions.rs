//! Partitions that are halted, resumed and moved on by operators.

use shrinkd::row::{Halt, HaltReason, PartitionStatus, Skip};
use shrinkd::store::{Store, StoreError};
use shrinkd::stream::NextOffset;

use super::common::database::Database;
use super::{Worker, event, promises, record, topic};

promises! {
    a_halted_partition_stays_halted_through_claims_until_it_is_resumed,
    only_its_owner_halts_a_partition,
    passing_over_records_leaves_a_row_and_shuts_the_owner_out,
    records_are_passed_over_forwards_alone,
    a_partition_that_is_not_as_its_operator_saw_it_is_not_skipped,
    claims_and_commits_leave_their_times,
}

pub async fn seen(store: &Store) -> PartitionStatus {
    store.partitions().await.unwrap().remove(0)
}

pub fn skip(seen: &PartitionStatus, to: i64) -> Skip {
    let (because, skipped_by) = ("they expired".to_owned(), "operator".to_owned());
    Skip { seen: seen.clone(), to: NextOffset(to), because, skipped_by }
}

async fn a_halted_partition_stays_halted_through_claims_until_it_is_resumed<D: Database>(database: &D) {
    let store = database.store().await;
    let claims = store.claim(&topic(), &[0, 1], "first").await.unwrap();
    assert!(claims.iter().all(|claim| !claim.is_halted));
    let claim = claims.into_iter().find(|claim| claim.partition == 1).unwrap();
    let halt = Halt { claim, reason: HaltReason::DeadLetters, detail: "too many".to_owned() };
    store.halt(&halt).await.unwrap();
    for owner in ["second", "third"] {
        let claims = store.claim(&topic(), &[0, 1], owner).await.unwrap();
        let halted: Vec<i32> = claims.iter().filter(|claim| claim.is_halted).map(|claim| claim.partition).collect();
        assert_eq!(halted, [1]);
    }
    let partitions = store.partitions().await.unwrap();
    assert_eq!(
        partitions.iter().map(|it| (it.partition, it.owner.as_str())).collect::<Vec<_>>(),
        [(0, "third"), (1, "third")]
    );
    assert!(partitions[0].halted.is_none());
    let (_, reason, detail) = partitions[1].halted.clone().expect("it is halted");
    assert_eq!((reason.as_str(), detail.as_str()), ("dead_letters", "too many"));

    assert!(!store.resume(partitions[0].partition_id, "alice").await.unwrap(), "the other was not halted");
    assert!(store.resume(partitions[1].partition_id, "bob").await.unwrap());
    assert!(!store.resume(partitions[1].partition_id, "carol").await.unwrap(), "it is no more");
    let resumed = "select resumed_by from partition_progress where resumed_at is not null";
    assert_eq!(database.texts(resumed).await, [Some("bob".to_owned())]);
    assert!(store.claim(&topic(), &[1], "fourth").await.unwrap().iter().all(|claim| !claim.is_halted));
    assert!(store.partitions().await.unwrap().iter().all(|partition| partition.halted.is_none()));
}

async fn only_its_owner_halts_a_partition<D: Database>(database: &D) {
    let store = database.store().await;
    let claim = store.claim(&topic(), &[0], "first").await.unwrap().remove(0);
    store.claim(&topic(), &[0], "second").await.unwrap();
    let halt = Halt { claim, reason: HaltReason::OffsetOutOfRange, detail: String::new() };
    let refused = store.halt(&halt).await;
    assert!(matches!(&refused, Err(StoreError::Fenced { partitions }) if partitions == &[0]), "{refused:?}");
    assert!(store.partitions().await.unwrap()[0].halted.is_none());
}

async fn passing_over_records_leaves_a_row_and_shuts_the_owner_out<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = Worker::claim(&store, &[0]).await;
    worker.ingest(vec![record(0, 6, &event("a", 1, "m", &[0.1]))]).await;
    let claim = worker.claims[&0];
    let halt = Halt { claim, reason: HaltReason::OffsetOutOfRange, detail: "gone".to_owned() };
    store.halt(&halt).await.unwrap();

    assert!(store.skip(&skip(&seen(&store).await, 30)).await.unwrap());
    let rows = "select topic || ' ' || partition_number || ' ' || from_offset || ' ' || to_offset || ' ' || because || ' ' || skipped_by
                from skipped_offsets where skipped_at is not null";
    assert_eq!(database.texts(rows).await, [Some("experiments 0 7 30 they expired operator".to_owned())]);
    let refused = worker.write(vec![record(0, 7, &event("b", 1, "m", &[0.2]))]).await.err();
    assert!(matches!(refused, Some(StoreError::Fenced { .. })), "{refused:?}");
    let refused = store.halt(&halt).await;
    assert!(matches!(refused, Err(StoreError::Fenced { .. })), "its claim is void: {refused:?}");
    let mut worker = Worker::claim(&store, &[0]).await;
    assert_eq!(worker.claims[&0].next_offset, Some(NextOffset(30)));
    assert!(!worker.claims[&0].is_halted, "it goes on");
    worker.ingest(vec![record(0, 30, &event("b", 1, "m", &[0.2]))]).await;
}

async fn records_are_passed_over_forwards_alone<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = Worker::claim(&store, &[0]).await;
    worker.ingest(vec![record(0, 6, &event("a", 1, "m", &[0.1]))]).await;
    let seen = seen(&store).await;
    for to in [0, 6, 7] {
        assert!(!store.skip(&skip(&seen, to)).await.unwrap(), "to {to}");
    }
    let other = PartitionStatus { partition_id: seen.partition_id + 1, ..seen };
    assert!(!store.skip(&skip(&other, 100)).await.unwrap(), "there is no such partition");
    assert_eq!(database.texts("select because from skipped_offsets").await, []);
    let (ingest, ..) =
        worker.write(vec![record(0, 7, &event("b", 1, "m", &[0.2]))]).await.expect("nothing has changed");
    ingest.commit().await.unwrap();
}

async fn a_partition_that_is_not_as_its_operator_saw_it_is_not_skipped<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = Worker::claim(&store, &[0]).await;
    let before = seen(&store).await;
    worker.ingest(vec![record(0, 6, &event("a", 1, "m", &[0.1]))]).await;
    assert!(!store.skip(&skip(&before, 30)).await.unwrap(), "it has been read on");
    let before = seen(&store).await;
    let halt =
        |detail: &str| Halt { claim: worker.claims[&0], reason: HaltReason::DeadLetters, detail: detail.to_owned() };
    store.halt(&halt("one")).await.unwrap();
    assert!(!store.skip(&skip(&before, 30)).await.unwrap(), "it has been halted");
    let halted = seen(&store).await;
    store.resume(halted.partition_id, "another operator").await.unwrap();
    assert!(!store.skip(&skip(&halted, 30)).await.unwrap(), "it has been resumed");
    store.halt(&halt("two")).await.unwrap();
    assert!(!store.skip(&skip(&halted, 30)).await.unwrap(), "it has been halted again, for another reason");
    assert_eq!(database.texts("select because from skipped_offsets").await, []);
    assert!(store.skip(&skip(&seen(&store).await, 30)).await.unwrap());
}

async fn claims_and_commits_leave_their_times<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = Worker::claim(&store, &[0]).await;
    assert!(seen(&store).await.committed_at.is_none(), "nothing was committed yet");
    worker.ingest(vec![record(0, 0, &event("a", 1, "m", &[0.1]))]).await;
    let long_ago = "update partition_progress
                    set claimed_at = '2020-01-01T00:00:00.000000Z', committed_at = '2020-01-01T00:00:00.000000Z'";
    database.execute(long_ago).await;
    let of_today = "select cast(count(*) as text) from partition_progress where claimed_at > '2020-01-02T00:00:00Z'";
    worker.ingest(vec![record(0, 1, &event("a", 2, "m", &[0.2]))]).await;
    assert!(seen(&store).await.committed_at.is_some_and(|at| at.year() > 2020));
    assert_eq!(database.count(of_today).await, 0);
    Worker::claim(&store, &[0]).await;
    assert_eq!(database.count(of_today).await, 1);
}
