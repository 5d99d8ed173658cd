//! NDJSON from a file or stdin: one partition, whose offsets are the positions of the lines' first bytes.
//!
//! A file may be compressed with gzip or zstd. Its offsets are positions in what it holds, and it is read once, to its end: it cannot be
//! followed, and goes on after a restart by decompressing what was read before. One that holds something else than NDJSON is not read at
//! all. A file that is followed may grow; one that has shrunk is another file. Stdin cannot be read again: in each run it is a
//! topic of its own.

mod input;
mod lines;

use std::io;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use shrinkd_core::{decode, message_too_large};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::assembly::Assembly;
use super::{BatchLimits, Record, SourceError, SourceEvent};
use crate::files::BOM;
use crate::stream::{Claim, NextOffset, Topic};
use crate::telemetry::Telemetry;
use crate::telemetry::health::Operation;
use input::{Input, InputError, Read};
use lines::{Line, Lines};

/// A file has one partition.
const PARTITION: i32 = 0;

/// How often a file is checked for growth, and the longest time until `stop` is noticed.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// How often the length of the file is reported.
const LENGTH_INTERVAL: Duration = Duration::from_secs(1);

/// A file of events, one a line.
#[derive(Debug, Clone)]
pub struct FileSource {
    /// `-` for stdin.
    pub path: PathBuf,
    /// Whether to wait for more at the end of the file, unless it is compressed. A last line without a line end is then still being written.
    pub follow: bool,
    pub limits: BatchLimits,
}

/// Starts to read a file on the thread `file-source`, at the offset of its claim.
///
/// The last event is [`SourceEvent::Ended`] at the end of the file or after `stop`, or [`SourceEvent::Failed`]; the thread
/// ends once it was received, or when the receiver is gone.
///
/// # Errors
/// If the thread cannot be started.
pub fn spawn(
    config: FileSource,
    claim: impl FnOnce(&Topic, &[i32]) -> Result<Vec<Claim>, SourceError> + Send + 'static,
    events: mpsc::Sender<SourceEvent>,
    telemetry: Telemetry,
    stop: CancellationToken,
) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("file-source".to_owned()).spawn(move || {
        let mut reader = Reader { assembly: Assembly::new(config.limits), events: &events, telemetry };
        let last = match reader.read(&config, claim, &stop) {
            Ok(()) => SourceEvent::Ended,
            Err(error) => SourceEvent::Failed(error),
        };
        reader.hand_over();
        // Fails if the worker is gone.
        let _ = events.blocking_send(last);
    })
}

struct Reader<'a> {
    assembly: Assembly,
    events: &'a mpsc::Sender<SourceEvent>,
    telemetry: Telemetry,
}

impl Reader<'_> {
    fn read(
        &mut self,
        config: &FileSource,
        claim: impl FnOnce(&Topic, &[i32]) -> Result<Vec<Claim>, SourceError>,
        stop: &CancellationToken,
    ) -> Result<(), SourceError> {
        let failed = |source: io::Error| SourceError::File { path: config.path.display().to_string(), source };
        let ended = |error: InputError, next: u64| match error {
            InputError::Read(source) => failed(source),
            InputError::NotLines(detail) => SourceError::NotLines { path: config.path.display().to_string(), detail },
            InputError::Short(length) => SourceError::Shrunk { path: config.path.display().to_string(), length, next },
        };
        // Before it is claimed: of what is no source of events nothing is stored.
        let mut input = Input::open(&config.path).map_err(|error| ended(error, 0))?;
        let topic = Topic::of_file(&config.path).map_err(failed)?;
        let claims = claim(&topic, &[PARTITION])?;
        if claims.iter().any(|claim| claim.is_halted) {
            return Err(SourceError::Halted(topic.name));
        }
        let next = claims.iter().find(|claim| claim.partition == PARTITION).and_then(|claim| claim.next_offset);
        let start = next.and_then(|NextOffset(next)| u64::try_from(next).ok()).unwrap_or(0);
        self.telemetry.lag.assigned(&[(PARTITION, next.map(|NextOffset(next)| next))]);
        self.telemetry.health.succeeded(Operation::Group);
        self.send(SourceEvent::Assigned(claims));

        input.start_at(start).map_err(|error| ended(error, start))?;
        let mut lines = Lines::starting_at(start);
        let may_grow = config.follow && input.length().map_err(failed)?.is_some();
        let mut reported: Option<Instant> = None;
        while !stop.is_cancelled() && !self.events.is_closed() {
            if reported.is_none_or(|reported| reported.elapsed() >= LENGTH_INTERVAL) {
                reported = Some(Instant::now());
                if let Some(length) = input.length().map_err(failed)? {
                    if length < lines.position() {
                        return Err(SourceError::Shrunk { path: topic.name, length, next: lines.position() });
                    }
                    self.telemetry.lag.end_offsets(&[(PARTITION, offset(length))]);
                }
            }
            match input.read(self.wait_limit()).map_err(|error| ended(error, lines.position()))? {
                Read::Bytes(bytes) => lines.split(bytes, &mut |line| self.take(&line)),
                Read::NothingYet => {}
                Read::End if may_grow => {
                    self.telemetry.lag.readable_ends(&[(PARTITION, offset(lines.position()))]);
                    self.telemetry.lag.at_end(PARTITION, true);
                    std::thread::sleep(self.wait_limit());
                }
                Read::End => {
                    lines.finish(&mut |line| self.take(&line));
                    break;
                }
            }
            self.hand_over_if_due();
        }
        Ok(())
    }

    fn take(&mut self, line: &Line<'_>) {
        let mark = if line.start == 0 && line.text.starts_with(BOM) { BOM.len() } else { 0 };
        let (text, bytes) = (&line.text[mark..], line.bytes - mark);
        let is_whole = text.len() == bytes;
        if is_whole && text.trim_ascii().is_empty() {
            return;
        }
        let record = Record {
            partition: PARTITION,
            offset: offset(line.start),
            produced_at: None,
            key: None,
            payload: Some(Record::kept(text).to_vec()),
            payload_bytes: bytes,
            message: if is_whole { decode(text) } else { Err(message_too_large(bytes)) },
        };
        self.telemetry.lag.read(PARTITION, offset(line.next), None);
        self.assembly.push(record, NextOffset(offset(line.next)));
        self.hand_over_if_due();
    }

    /// How long to wait for more of the file: until the batch is due, or `stop` is to be checked.
    fn wait_limit(&self) -> Duration {
        self.assembly.time_left().map_or(POLL_INTERVAL, |time_left| time_left.min(POLL_INTERVAL))
    }

    fn hand_over_if_due(&mut self) {
        if self.assembly.time_left() == Some(Duration::ZERO) {
            self.hand_over();
        }
    }

    fn hand_over(&mut self) {
        if let Some(batch) = self.assembly.close() {
            self.send(SourceEvent::Batch(batch));
        }
    }

    /// Sends an event once there is room. If the worker is gone, the next turn notices.
    fn send(&self, event: SourceEvent) {
        let _ = self.events.blocking_send(event);
    }
}

/// A position as an offset. No file has 2^63 bytes.
fn offset(position: u64) -> i64 {
    i64::try_from(position).unwrap_or(i64::MAX)
}
