//! `shrinkd simulate --kafka`: what it sends is what it would have printed.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rdkafka::types::RDKafkaRespErr;
use shrinkd::worker::source::Record;
use shrinkd_core::{Message, Reason, decode};

use super::broker::{Broker, Member, Progress, TOPIC};
use super::event;

fn simulate(arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shrinkd"));
    command.arg("simulate").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads");
    child.wait_with_output().expect("the program ends")
}

/// What the topic holds of so many messages.
fn received(broker: &Broker, count: usize) -> Vec<Record> {
    let mut member = Member::join(broker.quick_source(), 64, &Progress::default());
    let records = member.read(count);
    assert!(member.leave().is_empty(), "there are more than {count}");
    records
}

#[test]
fn the_events_that_are_sent_are_those_that_would_be_printed_and_tombstones_are_null_payloads() {
    let broker = Broker::new(3);
    let scenario = ["--scenario", "portfolio", "--experiments", "40"];
    let printed = String::from_utf8(simulate(&scenario, "").stdout).expect("text");
    let brokers = broker.cluster.bootstrap_servers();
    let output = simulate(&[&scenario[..], &["--kafka", &brokers, "--topic", TOPIC]].concat(), "");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout.is_empty());

    let records = received(&broker, printed.lines().count());
    let expected: Vec<Message> = printed.lines().map(|line| decode(line.as_bytes()).expect("an event")).collect();
    // Whatever the partition: the messages of one experiment are in one, in the order in which they were sent.
    for id in expected.iter().map(experiment_id).collect::<BTreeSet<_>>() {
        let of_experiment = |message: &&Message| experiment_id(message) == id;
        let sent: Vec<&Message> = expected.iter().filter(of_experiment).collect();
        let mine: Vec<&Record> = records.iter().filter(|it| it.key.as_deref() == Some(id.as_bytes())).collect();
        assert_eq!(mine.iter().flat_map(|record| &record.message).collect::<Vec<_>>(), sent);
        assert!(mine.iter().all(|record| record.partition == mine[0].partition));
    }
    let tombstones: Vec<&Record> = records.iter().filter(|record| record.payload.is_none()).collect();
    assert_eq!(tombstones.len(), 1);
}

fn experiment_id(message: &Message) -> &str {
    match message {
        Message::Event(event) => &event.experiment_id,
        Message::Tombstone { experiment_id } => experiment_id,
    }
}

#[test]
fn the_lines_of_a_file_are_sent_as_they_are_under_their_experiment() {
    let broker = Broker::new(1);
    // Refused for its version, and still of that experiment.
    let odd = r#"{ "experiment_id" : "exp-\u0031",  "schema_version": 99 }"#;
    let lines = [&event("exp-0"), odd, "not an event"];
    let input = format!("{}\r\n\n{}\n{}", lines[0], lines[1], lines[2]);
    let output = simulate(&["--kafka", &broker.cluster.bootstrap_servers(), "--input", "-"], &input);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.starts_with("3 events delivered\n1 of them have no readable experiment_id"), "{stderr}");

    let records = received(&broker, 3);
    for (record, line) in records.iter().zip(lines) {
        assert_eq!(record.payload.as_deref(), Some(line.as_bytes()));
    }
    let keys: Vec<Option<&[u8]>> = records.iter().map(|record| record.key.as_deref()).collect();
    assert_eq!(keys, [Some(&b"exp-0"[..]), Some(&b"exp-1"[..]), None]);
    let refused = records[1].message.as_ref().expect_err("it is refused").reason;
    assert_eq!(refused, Reason::UnsupportedVersion);
}

#[test]
fn a_producer_that_outruns_its_queue_waits_for_it() {
    let broker = Broker::new(1);
    let queue = ["--set", "queue.buffering.max.messages=10"];
    let brokers = broker.cluster.bootstrap_servers();
    let output = simulate(&[&["--experiments", "500", "--kafka", &brokers], &queue[..]].concat(), "");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(received(&broker, 500).len(), 500);
}

#[test]
fn a_rate_is_kept() {
    let broker = Broker::new(1);
    let started = Instant::now();
    let brokers = broker.cluster.bootstrap_servers();
    let output = simulate(&["--experiments", "60", "--kafka", &brokers, "--rate", "30"], "");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(started.elapsed() >= Duration::from_millis(59 * 1_000 / 30), "took {:?}", started.elapsed());
    let records = received(&broker, 60);
    let times: Vec<_> = records.iter().filter_map(|record| record.produced_at).collect();
    assert!(times[59] - times[0] >= Duration::from_millis(1_900), "{} to {}", times[0], times[59]);
}

#[test]
fn events_that_are_not_delivered_are_counted_and_the_exit_code_says_so() {
    let broker = Broker::new(1);
    let long = format!("{}\n{}\n", event("a"), event(&"b".repeat(3_000_000)));
    let output = simulate(&["--kafka", &broker.cluster.bootstrap_servers(), "--input", "-"], &long);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.contains("1 of 2 events were not delivered"), "{stderr}");
}

#[test]
fn nothing_is_said_to_be_sent_where_nobody_listens() {
    let output = simulate(&["--kafka", "127.0.0.1:1"], "");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("127.0.0.1:1"));
}

#[test]
fn a_topic_that_is_not_there_is_named() {
    let broker = Broker::new(1);
    let unknown = RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
    broker.cluster.topic_error("missing", unknown).expect("a topic that the broker denies");
    let output = simulate(&["--kafka", &broker.cluster.bootstrap_servers(), "--topic", "missing"], "");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("the topic missing"));
}

#[test]
fn options_of_the_producer_without_brokers_are_a_usage_error() {
    for wrong in [
        &["--rate", "5"][..],
        &["--input", "events.ndjson"],
        &["--kafka", "127.0.0.1:1", "--set", "acks"],
        &["--kafka", "127.0.0.1:1", "--set", "no.such.property=1"],
        &["--kafka", "127.0.0.1:1", "--input", "events.ndjson", "--seed", "2"],
    ] {
        let output = simulate(wrong, "");
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{wrong:?}");
    }
}
