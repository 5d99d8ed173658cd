//! Reads a file of events: decodes on all cores, and applies the events in order.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::ops::Range;
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};
use shrinkd_core::{History, MAX_MESSAGE_BYTES, decode};
use shrinkd_model::map_chunks;

use crate::cli::CliError;

/// Warnings of one code that are written line by line.
const WARNINGS: u64 = 5;

/// Bytes that are read and decoded at a time.
const BATCH_BYTES: usize = 1 << 20;

/// Reads all events of a file (`-` for stdin), and writes a line to `messages` for each refusal, and for the first warnings of
/// each code. Empty lines
/// are ignored.
///
/// # Errors
/// Where the file cannot be opened or read.
pub(super) fn read(path: &Path, threads: usize, messages: &mut impl Write) -> Result<History, CliError> {
    let with_path = |error: io::Error| CliError::File { path: path.to_owned(), source: error };
    let (mut reader, length): (Box<dyn BufRead>, u64) = if path == Path::new("-") {
        (Box::new(io::stdin().lock()), 0)
    } else {
        let file = File::open(path).map_err(with_path)?;
        let length = file.metadata().map_or(0, |metadata| metadata.len());
        (Box::new(BufReader::with_capacity(1 << 18, file)), length)
    };
    let progress = progress(length);
    let mut history = History::default();
    let (mut number, mut warned) = (0, BTreeMap::new());
    let mut text = Vec::with_capacity(BATCH_BYTES + MAX_MESSAGE_BYTES);
    loop {
        let (lines, bytes) = batch(&mut reader, &mut text).map_err(with_path)?;
        if lines.is_empty() {
            break;
        }
        let decoded = map_chunks(&lines, 256, threads, |lines| {
            let line = |line: &Range<usize>| (!line.is_empty()).then(|| decode(&text[line.clone()]));
            lines.iter().map(line).collect::<Vec<_>>()
        });
        for message in decoded.into_iter().flatten() {
            number += 1;
            let Some(message) = message else { continue };
            let (refused, warnings) = history.take(message);
            for refusal in refused {
                progress.suspend(|| writeln!(messages, "line {number}: {refusal}"))?;
            }
            for warning in warnings {
                let count = warned.entry(warning.code).or_insert(0_u64);
                *count += 1;
                if *count <= WARNINGS {
                    progress.suspend(|| writeln!(messages, "line {number}: warning: {warning}"))?;
                }
            }
        }
        progress.inc(bytes);
    }
    progress.finish_and_clear();
    for (code, count) in warned.into_iter().filter(|(_, count)| *count > WARNINGS) {
        writeln!(messages, "and {} more warnings {}", count - WARNINGS, code.as_str())?;
    }
    Ok(history)
}

/// Reads the next lines into `text`. Returns the range of each, without its line end, and the number of bytes read. A line
/// too long to be a message is cut one byte beyond the limit, so that it is refused for its size.
fn batch(reader: &mut dyn BufRead, text: &mut Vec<u8>) -> io::Result<(Vec<Range<usize>>, u64)> {
    text.clear();
    let (mut lines, mut bytes) = (Vec::new(), 0);
    while bytes < BATCH_BYTES as u64 {
        let start = text.len();
        let read = reader.take(MAX_MESSAGE_BYTES as u64 + 1).read_until(b'\n', text)?;
        if read == 0 {
            break;
        }
        bytes += read as u64;
        let line = &text[start..];
        let end = match line.strip_suffix(b"\n") {
            Some(line) => line.strip_suffix(b"\r").unwrap_or(line).len(),
            None => {
                if read > MAX_MESSAGE_BYTES {
                    bytes += reader.skip_until(b'\n')? as u64;
                }
                read
            }
        };
        lines.push(start..start + end);
    }
    Ok((lines, bytes))
}

/// A progress bar on stderr, if that is a terminal and the length is known.
fn progress(length: u64) -> ProgressBar {
    if length == 0 || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("reading events [{bar:40}] {bytes} of {total_bytes}, {eta} left");
    ProgressBar::new(length).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
