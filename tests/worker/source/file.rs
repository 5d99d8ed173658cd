use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use shrinkd::stream::NextOffset;
use shrinkd::telemetry::Telemetry;
use shrinkd::worker::source::file::{FileSource, spawn};
use shrinkd::worker::source::{Record, SourceError, SourceEvent};
use shrinkd_core::{MAX_MESSAGE_BYTES, Message, Reason};
use tokio::sync::mpsc::{Receiver, channel};
use tokio_util::sync::CancellationToken;

use super::{SMALL, all_batches, claims, event, next_batch, next_event};

/// A file that is gone after the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, text: &[u8]) -> Scratch {
        let path = std::env::temp_dir().join(format!("shrinkd-{name}-{}.ndjson", std::process::id()));
        fs::write(&path, text).expect("a temporary file");
        Scratch(path)
    }

    fn append(&self, text: &str) {
        let mut file = OpenOptions::new().append(true).open(&self.0).expect("the file is there");
        file.write_all(text.as_bytes()).expect("the file can be written");
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn start(path: &Path, next: Option<i64>, follow: bool) -> (Receiver<SourceEvent>, CancellationToken) {
    let (sender, events) = channel(4);
    let stop = CancellationToken::new();
    let config = FileSource { path: path.to_owned(), follow, limits: SMALL };
    spawn(config, move |_, partitions| Ok(claims(partitions, next)), sender, Telemetry::default(), stop.clone())
        .expect("a thread");
    (events, stop)
}

fn records(path: &Path, next: Option<i64>) -> Vec<Record> {
    all_batches(&mut start(path, next, false).0).into_iter().flat_map(|batch| batch.records).collect()
}

fn experiment(record: &Record) -> &str {
    match &record.message {
        Ok(Message::Event(event)) => &event.experiment_id,
        other => panic!("not an event: {other:?}"),
    }
}

#[test]
fn an_offset_is_the_position_of_the_lines_first_byte() {
    let (a, b) = (event("a"), event("b"));
    let file = Scratch::new("offsets", format!("{a}\n\n \t\r\n{b}\n").as_bytes());
    let batches = all_batches(&mut start(&file.0, None, false).0);
    let records: Vec<&Record> = batches.iter().flat_map(|batch| &batch.records).collect();
    let second = a.len() as i64 + 6;
    assert_eq!(
        records.iter().map(|record| record.offset).collect::<Vec<_>>(),
        [0, second],
        "lines without content are passed over"
    );
    assert_eq!(records.iter().map(|record| experiment(record)).collect::<Vec<_>>(), ["a", "b"]);
    let length = fs::metadata(&file.0).expect("the file is there").len() as i64;
    assert_eq!(batches.last().map(|batch| &batch.ends[..]), Some(&[(0, NextOffset(length))][..]));
}

#[test]
fn reading_goes_on_where_the_claim_says() {
    let text: String = (0..25).map(|i| format!("{}\n", event(&format!("e{i:02}")))).collect();
    let file = Scratch::new("resume", text.as_bytes());
    let batches = all_batches(&mut start(&file.0, None, false).0);
    assert_eq!(batches.iter().map(|batch| batch.records.len()).collect::<Vec<_>>(), [10, 10, 5]);
    let (_, NextOffset(next)) = batches[1].ends[0];
    let rest = records(&file.0, Some(next));
    assert_eq!(rest, batches[2].records);
    assert_eq!(experiment(&rest[0]), "e20");
}

#[test]
fn a_line_may_end_like_on_windows_and_the_last_one_not_at_all() {
    let (a, b) = (event("a"), event("b"));
    let file = Scratch::new("crlf", format!("{a}\r\n{b}").as_bytes());
    let records = records(&file.0, None);
    assert_eq!(records.iter().map(experiment).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(records[0].payload.as_deref(), Some(a.as_bytes()));
    assert_eq!(records[1].offset, a.len() as i64 + 2);
}

#[test]
fn of_a_line_too_long_to_be_a_message_the_beginning_is_kept_and_reading_goes_on() {
    let length = 3 * MAX_MESSAGE_BYTES;
    let file = Scratch::new("long", format!("{{{}\n{}\n", "x".repeat(length - 1), event("after")).as_bytes());
    let records = records(&file.0, None);
    let refusal = records[0].message.as_ref().expect_err("it is refused");
    assert_eq!((refusal.reason, records[0].payload_bytes), (Reason::TooLarge, length));
    assert!(refusal.detail.contains(&length.to_string()), "{refusal}");
    assert_eq!(records[0].payload.as_ref().map(Vec::len), Some(64 << 10));
    assert_eq!((experiment(&records[1]), records[1].offset), ("after", length as i64 + 1));
}

#[test]
fn a_followed_file_grows_and_a_line_is_read_when_it_has_its_end() {
    let file = Scratch::new("follow", format!("{}\n", event("a")).as_bytes());
    let (mut events, stop) = start(&file.0, None, true);
    assert!(matches!(next_event(&mut events), SourceEvent::Assigned(_)));
    assert_eq!(experiment(&next_batch(&mut events).records[0]), "a");
    let b = event("b");
    file.append(&b[..20]);
    std::thread::sleep(Duration::from_millis(500));
    assert!(events.try_recv().is_err(), "half a line is none");
    file.append(&format!("{}\n", &b[20..]));
    assert_eq!(experiment(&next_batch(&mut events).records[0]), "b");
    stop.cancel();
    assert!(matches!(next_event(&mut events), SourceEvent::Ended));
}

#[test]
fn a_file_that_is_shorter_than_what_was_read_of_it_is_not_read() {
    let file = Scratch::new("shrunk", format!("{}\n", event("a")).as_bytes());
    let (mut events, _stop) = start(&file.0, Some(100_000), false);
    assert!(matches!(next_event(&mut events), SourceEvent::Assigned(_)));
    let SourceEvent::Failed(error) = next_event(&mut events) else { panic!("it was read") };
    assert!(error.to_string().contains("100000"), "{error}");
}

#[test]
fn a_file_that_is_cut_while_it_is_followed_is_a_failure() {
    let file = Scratch::new("cut", format!("{}\n", event("a")).as_bytes());
    let (mut events, _stop) = start(&file.0, None, true);
    assert!(matches!(next_event(&mut events), SourceEvent::Assigned(_)));
    next_batch(&mut events);
    File::create(&file.0).expect("the file is cut");
    assert!(matches!(next_event(&mut events), SourceEvent::Failed(_)));
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let (mut events, _stop) = start(Path::new("no-such-file.ndjson"), None, false);
    let SourceEvent::Failed(error) = next_event(&mut events) else { panic!("it was read") };
    assert!(error.to_string().contains("no-such-file.ndjson"), "{error}");
}

#[test]
fn nothing_is_read_without_a_claim() {
    let file = Scratch::new("unclaimed", format!("{}\n", event("a")).as_bytes());
    let (sender, mut events) = channel(4);
    let config = FileSource { path: file.0.clone(), follow: false, limits: SMALL };
    spawn(
        config,
        |_, _| Err(SourceError::Claim("the store is gone".to_owned())),
        sender,
        Telemetry::default(),
        CancellationToken::new(),
    )
    .expect("a thread");
    let SourceEvent::Failed(error) = next_event(&mut events) else { panic!("it was read") };
    assert_eq!(error.to_string(), "the store is gone");
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).expect("memory");
    encoder.finish().expect("memory")
}

#[test]
fn a_compressed_file_has_the_offsets_of_what_it_holds_and_goes_on_at_each() {
    let text: String = (0..25).map(|i| format!("{}\n", event(&format!("e{i:02}")))).collect();
    let plain = records(&Scratch::new("plain", text.as_bytes()).0, None);
    // Members one after the other are one file.
    let (head, tail) = text.split_at(text.len() / 2);
    for (name, bytes) in [
        ("gzip", gzip(&text)),
        ("members", [gzip(head), gzip(tail)].concat()),
        ("zstd", zstd::encode_all(text.as_bytes(), 1).expect("memory")),
    ] {
        let file = Scratch::new(name, &bytes);
        let whole = records(&file.0, None);
        assert_eq!(whole, plain, "{name}");
        for (i, record) in whole.iter().enumerate() {
            assert_eq!(records(&file.0, Some(record.offset)), whole[i..], "{name} from {}", record.offset);
        }
        let end = i64::try_from(text.len()).expect("small");
        assert!(records(&file.0, Some(end)).is_empty(), "{name} at its end");
    }
}

#[test]
fn a_compressed_file_that_holds_less_than_was_read_of_it_is_refused() {
    let file = Scratch::new("short", &gzip(&format!("{}\n", event("a"))));
    let mut events = start(&file.0, Some(100_000), false).0;
    let failed = loop {
        match next_event(&mut events) {
            SourceEvent::Failed(error) => break error,
            SourceEvent::Ended => panic!("it ended without an error"),
            _ => {}
        }
    };
    assert!(matches!(failed, SourceError::Shrunk { next: 100_000, .. }), "{failed}");
}

#[test]
fn a_byte_order_mark_in_front_of_the_first_message_is_no_part_of_it() {
    let file = Scratch::new("bom", format!("\u{feff}{}\n{}\n", event("a"), event("b")).as_bytes());
    let records = records(&file.0, None);
    assert_eq!(records.iter().map(experiment).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(records[1].offset, event("a").len() as i64 + 4);
}

#[test]
fn what_is_not_ndjson_is_not_read_and_the_sentence_says_how_to_make_events_of_it() {
    for (name, text, told) in [
        ("table", "experiment,variant,estimate,variance\ne,t,1,1\n".to_owned(), "shrinkd convert --from csv"),
        ("array", format!("[{},\n{}]", event("a"), event("b")), "shrinkd convert --from json"),
        ("text", "hello\n".to_owned(), "neither JSON nor a table"),
    ] {
        let file = Scratch::new(name, text.as_bytes());
        let mut events = start(&file.0, None, false).0;
        match next_event(&mut events) {
            SourceEvent::Failed(error @ SourceError::NotLines { .. }) => {
                assert!(error.to_string().contains(told), "{error}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}
