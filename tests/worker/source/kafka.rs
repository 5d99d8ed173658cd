use std::ffi::OsString;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use shrinkd::config::Config;
use shrinkd::stream::{NextOffset, Topic};
use shrinkd::telemetry::Telemetry;
use shrinkd::telemetry::metrics::Lag;
use shrinkd::worker::source::kafka::spawn;
use shrinkd::worker::source::{BatchLimits, Record, SourceError, SourceEvent};
use shrinkd_core::{KeyRule, Message, Reason};
use time::OffsetDateTime;
use tokio::sync::mpsc::channel;
use tokio_util::sync::CancellationToken;

use super::broker::{Broker, Member, Progress, TOPIC};
use super::{SMALL, TIMEOUT, event, next_batch, next_event};

/// The offsets of a partition's records in the order in which they came.
fn offsets(records: &[Record], partition: i32) -> Vec<i64> {
    records.iter().filter(|record| record.partition == partition).map(|record| record.offset).collect()
}

fn refusal(record: &Record) -> Reason {
    record.message.as_ref().expect_err("it is refused").reason
}

#[test]
fn records_come_in_the_order_of_their_partition_with_their_own_offsets() {
    let broker = Broker::new(3);
    (0..3).for_each(|partition| broker.send_events(partition, 0..40));
    let mut member = Member::join(broker.source(), 8, &Progress::default());
    let records = member.read(120);
    for partition in 0..3 {
        assert_eq!(offsets(&records, partition), (0..40).collect::<Vec<_>>());
    }
    for record in &records {
        let Ok(Message::Event(event)) = &record.message else { panic!("{:?}", record.message) };
        assert_eq!(event.experiment_id, format!("p{}-{}", record.partition, record.offset));
        assert!(record.produced_at.is_some());
    }
    member.leave();
}

#[test]
fn a_framed_message_is_decoded_and_kept_as_it_came_and_with_any_key_no_key_is_compared() {
    let framed = [b"\0\0\0\0\x07", event("exp-1").as_bytes()].concat();
    for (key, unkeyed) in [(KeyRule::ExperimentId, Some(Reason::KeyMismatch)), (KeyRule::Any, None)] {
        let broker = Broker::new(1);
        broker.send(0, Some(b"exp-1"), Some(&framed));
        broker.send(0, None, Some(&framed));
        broker.send(0, None, None);
        broker.send(0, Some(b"exp-1"), None);
        broker.flush();
        let mut source = broker.quick_source();
        source.kafka.key = key;
        let mut member = Member::join(source, 8, &Progress::default());
        let records = member.read(4);
        assert!(records[..2].iter().all(|record| record.payload.as_ref() == Some(&framed)));
        assert!(matches!(&records[0].message, Ok(Message::Event(event)) if event.experiment_id == "exp-1"));
        assert_eq!(records[1].message.as_ref().err().map(|refusal| refusal.reason), unkeyed, "{key:?}");
        assert_eq!(refusal(&records[2]), Reason::KeyMismatch);
        assert_eq!(records[3].message, Ok(Message::Tombstone { experiment_id: "exp-1".to_owned() }));
        member.leave();
    }
}

#[test]
fn a_claim_names_the_cluster_and_the_topic_by_more_than_its_name() {
    let broker = Broker::new(1);
    broker.send_events(0, 0..1);
    let mut member = Member::join(broker.quick_source(), 8, &Progress::default());
    member.read(1);
    let topic = member.topics.lock().expect("no panic")[0].clone();
    assert_eq!(topic.name, TOPIC);
    assert!(!topic.cluster_id.is_empty() && !topic.id.is_empty(), "{topic:?}");
    member.leave();
}

#[test]
fn reading_goes_on_where_the_claim_says_and_begins_at_the_beginning_where_it_says_nothing() {
    let broker = Broker::new(2);
    (0..2).for_each(|partition| broker.send_events(partition, 0..30));
    let progress = Progress::default();
    progress.lock().expect("no panic").insert(1, 23);
    let mut member = Member::join(broker.quick_source(), 8, &progress);
    let records = member.read(37);
    assert_eq!(offsets(&records, 0), (0..30).collect::<Vec<_>>());
    assert_eq!(offsets(&records, 1), (23..30).collect::<Vec<_>>());
    assert!(member.leave().is_empty());
}

#[test]
fn nothing_is_read_without_a_claim() {
    let broker = Broker::new(1);
    broker.send_events(0, 0..5);
    let (sender, mut events) = channel(8);
    let refuse = |_: &Topic, _: &[i32]| Err(SourceError::Claim("the store is gone".to_owned()));
    let (thread, _) =
        spawn(broker.quick_source(), refuse, sender, Telemetry::default(), CancellationToken::new()).expect("a source");
    let SourceEvent::Failed(error) = next_event(&mut events) else { panic!("something was read") };
    assert_eq!(error.to_string(), "the store is gone");
    thread.join().expect("the thread ends without a panic");
    assert!(events.blocking_recv().is_none(), "a failure is the last event");
}

#[test]
fn a_batch_says_how_far_it_goes_in_each_partition() {
    let broker = Broker::new(2);
    (0..2).for_each(|partition| broker.send_events(partition, 0..25));
    let mut member = Member::join(broker.quick_source(), 64, &Progress::default());
    let mut seen = 0;
    while seen < 50 {
        let SourceEvent::Batch(batch) = next_event(&mut member.events) else { continue };
        assert!(batch.records.len() <= SMALL.records);
        for (partition, end) in batch.ends {
            assert_eq!(Some(end.0 - 1), offsets(&batch.records, partition).last().copied());
        }
        seen += batch.records.len();
    }
    member.leave();
}

#[test]
fn a_worker_that_stalls_for_seconds_loses_nothing_and_order_holds() {
    let broker = Broker::new(2);
    (0..2).for_each(|partition| broker.send_events(partition, 0..300));
    let mut member = Member::join(broker.source(), 1, &Progress::default());
    let mut records = member.read(20);
    // Long enough for the partitions to be paused; more is sent meanwhile.
    (0..2).for_each(|partition| broker.send_events(partition, 300..400));
    std::thread::sleep(Duration::from_secs(3));
    records.extend(member.read(400));
    std::thread::sleep(Duration::from_secs(3));
    records.extend(member.read(800 - records.len()));
    assert_eq!(records.len(), 800, "nothing comes twice");
    for partition in 0..2 {
        assert_eq!(offsets(&records, partition), (0..400).collect::<Vec<_>>());
    }
    assert!(member.leave().is_empty());
}

#[test]
fn a_worker_may_stall_for_longer_than_a_member_may_go_without_polling() {
    let broker = Broker::new(1);
    broker.send_events(0, 0..100);
    let interval = Duration::from_secs(6);
    let config = broker.source_with(&[
        ("session.timeout.ms", "6000"),
        ("heartbeat.interval.ms", "500"),
        ("max.poll.interval.ms", &interval.as_millis().to_string()),
    ]);
    let mut member = Member::join(config, 1, &Progress::default());
    let mut records = member.read(10);
    std::thread::sleep(interval * 2);
    // Fails on a revocation, which is what the group does to a member that does not poll.
    records.extend(member.read(100 - records.len()));
    assert_eq!(offsets(&records, 0), (0..100).collect::<Vec<_>>());
    member.leave();
}

#[test]
fn a_null_payload_withdraws_the_experiment_that_its_key_names() {
    let broker = Broker::new(1);
    broker.send(0, Some(b"exp-1"), None);
    broker.send(0, None, None);
    broker.send(0, Some(b"\xff"), None);
    broker.send(0, Some(b"a\nb"), None);
    broker.flush();
    let mut member = Member::join(broker.quick_source(), 8, &Progress::default());
    let records = member.read(4);
    assert_eq!(records[0].message, Ok(Message::Tombstone { experiment_id: "exp-1".to_owned() }));
    assert_eq!((records[0].payload.as_ref(), records[0].key.as_deref()), (None, Some(&b"exp-1"[..])));
    let reasons: Vec<Reason> = records[1..].iter().map(refusal).collect();
    assert_eq!(reasons, [Reason::KeyMismatch, Reason::KeyMismatch, Reason::InvalidIdentifier]);
    member.leave();
}

#[test]
fn a_key_that_is_not_the_experiments_id_is_refused_and_the_bytes_are_kept() {
    let broker = Broker::new(1);
    let payload = event("exp-1");
    broker.send(0, Some(b"exp-2"), Some(payload.as_bytes()));
    broker.send(0, None, Some(payload.as_bytes()));
    broker.flush();
    let mut member = Member::join(broker.quick_source(), 8, &Progress::default());
    for record in member.read(2) {
        assert_eq!(refusal(&record), Reason::KeyMismatch);
        assert_eq!(record.payload.as_deref(), Some(payload.as_bytes()));
    }
    member.leave();
}

#[test]
fn stopping_hands_over_what_was_read_and_waits_until_it_is_drained() {
    let broker = Broker::new(1);
    broker.send_events(0, 0..7);
    let mut config = broker.quick_source();
    config.limits = BatchLimits { age: Duration::from_secs(3600), ..SMALL };
    let mut member = Member::join(config, 8, &Progress::default());
    assert!(matches!(next_event(&mut member.events), SourceEvent::Assigned(_)));
    // The batch is neither full nor old: it stays in hand.
    std::thread::sleep(Duration::from_secs(2));
    member.stop.cancel();
    let SourceEvent::Batch(batch) = next_event(&mut member.events) else { panic!("what was in hand is lost") };
    assert_eq!(offsets(&batch.records, 0), (0..7).collect::<Vec<_>>());
    let SourceEvent::Revoked { partitions, drained } = next_event(&mut member.events) else { panic!("not revoked") };
    assert_eq!(partitions, [0]);
    std::thread::sleep(Duration::from_millis(500));
    assert!(member.events.try_recv().is_err(), "the source waits for the answer");
    drained.send(()).expect("somebody waits");
    assert!(matches!(next_event(&mut member.events), SourceEvent::Ended));
    member.thread.join().expect("the thread ends without a panic");
}

#[test]
fn a_worker_that_does_not_drain_is_waited_for_within_the_budget_only() {
    let broker = Broker::new(1);
    broker.send_events(0, 0..3);
    let mut config = broker.quick_source();
    config.drain_budget = Duration::from_millis(300);
    let mut member = Member::join(config, 8, &Progress::default());
    member.read(3);
    let stopped = Instant::now();
    member.stop.cancel();
    let SourceEvent::Revoked { drained, .. } = next_event(&mut member.events) else { panic!("not revoked") };
    assert!(matches!(next_event(&mut member.events), SourceEvent::Ended));
    assert!(stopped.elapsed() < Duration::from_secs(5), "took {:?}", stopped.elapsed());
    drop(drained);
    member.thread.join().expect("the thread ends without a panic");
}

#[test]
fn a_source_whose_worker_is_gone_ends() {
    let broker = Broker::new(1);
    broker.send_events(0, 0..100);
    let mut member = Member::join(broker.quick_source(), 1, &Progress::default());
    member.read(10);
    drop(member.events);
    member.thread.join().expect("the thread ends without a panic");
}

/// Two members share the partitions. What the first has in hand of those that it gives away is drained before the second
/// gets them, so that nothing is lost and nothing is read twice.
#[test]
fn a_second_member_takes_over_partitions_only_after_they_were_drained() {
    let broker = Broker::new(4);
    let progress = Progress::default();
    let mut first = Member::join(broker.source(), 8, &progress);
    (0..4).for_each(|partition| broker.send_events(partition, 0..50));
    let mut by_first = first.read(200);
    note(&progress, &by_first);

    let mut second = Member::join(broker.source(), 8, &progress);
    let revoked = loop {
        match next_event(&mut first.events) {
            SourceEvent::Revoked { partitions, drained } => {
                // Nobody may have claimed these yet.
                std::thread::sleep(Duration::from_millis(300));
                assert_eq!(second.topics.lock().expect("no panic").len(), 0);
                drained.send(()).expect("somebody waits");
                break partitions;
            }
            SourceEvent::Batch(batch) => by_first.extend(batch.records),
            other => panic!("unexpected {other:?}"),
        }
    };
    assert_eq!(revoked.len(), 2, "half of the partitions");
    let SourceEvent::Assigned(claims) = next_event(&mut second.events) else { panic!("not assigned") };
    let mut claimed: Vec<i32> = claims.iter().map(|claim| claim.partition).collect();
    claimed.sort_unstable();
    let mut expected = revoked.clone();
    expected.sort_unstable();
    assert_eq!(claimed, expected);

    (0..4).for_each(|partition| broker.send_events(partition, 50..80));
    by_first.extend(first.read(260 - by_first.len()));
    let by_second = second.read(60);
    for partition in 0..4 {
        let end = if revoked.contains(&partition) { 50 } else { 80 };
        assert_eq!(offsets(&by_first, partition), (0..end).collect::<Vec<_>>());
        assert_eq!(offsets(&by_second, partition), (end..80).collect::<Vec<_>>());
    }
    first.leave();
    second.leave();
}

/// Notes what a store would commit.
fn note(progress: &Progress, records: &[Record]) {
    let mut progress = progress.lock().expect("no panic");
    progress.extend(records.iter().map(|record| (record.partition, record.offset + 1)));
}

#[test]
fn kafkas_own_offsets_follow_what_is_committed() {
    let broker = Broker::new(1);
    broker.send_events(0, 0..20);
    let mut member = Member::join(broker.source(), 8, &Progress::default());
    member.read(20);
    member.commands.commit(&[(0, NextOffset(20))]);
    member.leave();
    let reader: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", broker.cluster.bootstrap_servers())
        .set("group.id", "shrinkd")
        .create()
        .expect("a consumer");
    let mut list = rdkafka::TopicPartitionList::new();
    list.add_partition(TOPIC, 0);
    let committed = reader.committed_offsets(list, TIMEOUT).expect("an answer");
    assert_eq!(committed.elements()[0].offset(), rdkafka::Offset::Offset(20));
}

/// Waits until the lag of partition 0 is so many records.
fn wait_for_lag(member: &Member, records: u64) {
    wait_for("its lag", member, |lag| lag.records == records);
}

/// Waits until something is so of a partition of a member.
fn wait_for(what: &str, member: &Member, is_so: impl Fn(&Lag) -> bool) {
    wait_until(what, || member.telemetry.metrics.partitions().iter().any(|(_, lag)| is_so(lag)));
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: not within {TIMEOUT:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Before, it stood still whenever nothing was committed: while the store was down, for example.
#[test]
fn the_lag_of_a_worker_that_takes_nothing_grows_with_the_partition() {
    let broker = Broker::new(1);
    broker.send_events(0, 0..20);
    let member = Member::join(broker.quick_source(), 1, &Progress::default());
    wait_for_lag(&member, 20);
    broker.send_events(0, 20..90);
    wait_for_lag(&member, 90);
    // Its partition is paused by now.
    std::thread::sleep(Duration::from_secs(2));
    broker.send_events(0, 90..120);
    wait_for_lag(&member, 120);
    member.leave();
}

/// Drops the member from its group, although it is well and its brokers answer, as after a pause of the whole process.
fn drop_from_group(broker: &Broker) {
    let error = RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID;
    broker.cluster.request_errors(RDKafkaApiKey::Heartbeat, &[error]);
}

/// The worker has had none of these records: whoever owns the partition next reads them.
#[test]
fn what_was_read_of_partitions_that_were_lost_is_dropped_and_read_again() {
    let broker = Broker::new(1);
    broker.send_events(0, 0..5);
    let joined = OffsetDateTime::now_utc();
    let mut config = broker.source();
    config.limits = BatchLimits { age: Duration::from_secs(3600), records: 8, ..SMALL };
    let mut member = Member::join(config, 8, &Progress::default());
    assert!(matches!(next_event(&mut member.events), SourceEvent::Assigned(_)));
    wait_for("the age of a record that was read", &member, |lag| lag.since.is_some_and(|since| since < joined));
    drop_from_group(&broker);
    assert!(matches!(next_event(&mut member.events), SourceEvent::Revoked { .. }), "nothing is handed over before");
    broker.send_events(0, 5..8);
    assert_eq!(offsets(&member.read(8), 0), (0..8).collect::<Vec<_>>());
    member.leave();
}

/// So are batches that wait for room in the worker's channel.
#[test]
fn batches_of_partitions_that_were_lost_are_dropped_while_they_wait_for_the_worker() {
    let broker = Broker::new(1);
    broker.send_events(0, 0..20);
    let mut member = Member::join(broker.source(), 1, &Progress::default());
    assert!(matches!(next_event(&mut member.events), SourceEvent::Assigned(_)));
    wait_until("the channel is full", || member.events.len() == 1);
    drop_from_group(&broker);
    let is_dropped = || member.telemetry.health.readiness().is_err_and(|why| why.contains("dropped this worker"));
    wait_until("the member is dropped", is_dropped);
    assert_eq!(offsets(&next_batch(&mut member.events).records, 0), (0..10).collect::<Vec<_>>());
    assert!(
        matches!(next_event(&mut member.events), SourceEvent::Revoked { .. }),
        "nothing else is handed over before"
    );
    assert_eq!(offsets(&member.read(20), 0), (0..20).collect::<Vec<_>>());
    member.leave();
}

#[test]
fn stopping_needs_no_broker() {
    let broker = Broker::new(1);
    broker.send_events(0, 0..5);
    let mut member = Member::join(broker.source(), 8, &Progress::default());
    member.read(5);
    broker.cluster.broker_down(-1).expect("the broker goes down");
    std::thread::sleep(Duration::from_millis(500));
    let stopped = Instant::now();
    member.leave();
    assert!(stopped.elapsed() < Duration::from_secs(3), "took {:?}", stopped.elapsed());
}

#[test]
fn brokers_that_go_away_are_waited_for() {
    let broker = Broker::new(1);
    broker.send_events(0, 0..5);
    let mut member = Member::join(broker.source(), 8, &Progress::default());
    member.read(5);
    broker.cluster.broker_down(-1).expect("the broker goes down");
    std::thread::sleep(Duration::from_secs(2));
    broker.cluster.broker_up(-1).expect("the broker comes back");
    broker.send_events(0, 5..10);
    assert_eq!(offsets(&member.read(5), 0), (5..10).collect::<Vec<_>>());
    member.leave();
}

#[test]
fn a_property_that_is_refused_at_start_is_refused_by_the_configuration_in_the_same_words() {
    let broker = Broker::new(1);
    for (name, value) in [
        ("enable.auto.commit", "true"),
        ("enable.auto.offset.store", "true"),
        ("auto.offset.reset", "latest"),
        ("group.id", "another"),
        ("bootstrap.servers", "elsewhere:9092"),
        ("no.such.property", "1"),
        ("session.timeout.ms", "soon"),
        #[cfg(not(feature = "tls"))]
        ("security.protocol", "SASL_SSL"),
        #[cfg(not(feature = "tls"))]
        ("sasl.mechanism", "SCRAM-SHA-512"),
    ] {
        let config = broker.source_with(&[(name, value)]);
        let spawned =
            spawn(config, |_, _| Ok(Vec::new()), channel(1).0, Telemetry::default(), CancellationToken::new());
        let error = spawned.err().unwrap_or_else(|| panic!("{name} is taken")).to_string();
        let problem = error.strip_prefix("source.kafka.properties: ").expect("the key");
        assert!(problem.starts_with(&format!("`{name}` ")), "{error}");
        let variable = format!("SHRINKD__SOURCE__KAFKA__PROPERTIES__{}", name.replace('.', "_").to_uppercase());
        let variables = [
            ("SHRINKD__SOURCE__KAFKA__BROKERS", broker.cluster.bootstrap_servers()),
            ("SHRINKD__SOURCE__KAFKA__TOPIC", TOPIC.to_owned()),
            ("SHRINKD__STORE__URL", "sqlite://unused.db".to_owned()),
            (&variable, value.to_owned()),
        ];
        let variables = variables.map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let refused = Config::load(None, variables).expect_err("it is refused").to_string();
        assert_eq!(refused, format!("`source.kafka.properties.{name}` ({variable}): {problem}"));
    }
}
