//! Reads files of events for a command: whatever their form, decoded on all cores, in their order.

use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};
use shrinkd_core::{Message, Refusal, decode};
use shrinkd_csv::{Experiments, Field, MapArg};
use shrinkd_model::map_chunks;
use time::OffsetDateTime;

use super::CliError;
use super::preview;
use crate::files::compression::Bomb;
use crate::files::{FileError, Item, Messages};

/// Messages that are decoded at a time by one thread.
const CHUNK: usize = 256;

/// The files that a command reads.
#[derive(Debug, clap::Args)]
pub(super) struct InputArgs {
    /// Files of events, in any form and plain or compressed with gzip or zstd; - is stdin
    #[arg(default_value = "-", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Name the column of a table (CSV, TSV) that holds a field; repeat for more
    ///
    /// Common spellings are understood without it (users for n, conversions for successes, stddev for standard_deviation). The fields are
    /// those of the event contract, is_control, and control_n.
    #[arg(long, value_name = "FIELD=COLUMN")]
    map: Vec<MapArg>,
}

/// A column of a table that is not used, and the field that was probably meant.
pub(super) struct MisspeltColumn {
    pub file: String,
    pub column: String,
    pub field: Field,
}

/// Where a message stands.
pub(super) struct Place<'a> {
    /// The file, where there are several.
    file: Option<&'a Path>,
    unit: &'static str,
    number: u64,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = self.file {
            write!(f, "{} ", file.display())?;
        }
        write!(f, "{} {}", self.unit, self.number)
    }
}

impl InputArgs {
    /// Reads all messages of all files, and passes on each, decoded or refused. What is to be said of a file as a whole goes to
    /// `notes`. Returns the columns of tables that look misspelt.
    ///
    /// # Errors
    /// Where a file cannot be read or understood, or `take` fails.
    pub(super) fn each(
        &self,
        threads: usize,
        notes: &mut impl Write,
        mut take: impl FnMut(&Place<'_>, Result<Message, Refusal>) -> Result<(), CliError>,
    ) -> Result<Vec<MisspeltColumn>, CliError> {
        let progress = self.progress();
        let (mut text, mut misspelt) = (Vec::new(), Vec::new());
        for path in &self.files {
            let mut messages = self.open(path, &progress, &mut take)?;
            progress.suspend(|| preview::write(path, &messages, notes))?;
            let columns = messages.table().map(Experiments::columns);
            misspelt.extend(
                columns.iter().flat_map(|columns| columns.misspelt()).map(|(column, field)| MisspeltColumn {
                    file: name(path),
                    column: column.to_owned(),
                    field,
                }),
            );
            let (file, unit) = (self.name(path), messages.unit());
            loop {
                let items = messages.batch(&mut text).map_err(|error| failed(path, error.into()))?;
                if items.is_empty() {
                    break;
                }
                let message = |item: &Item| match &item.text {
                    Ok(range) if range.is_empty() && unit == "line" => None,
                    Ok(range) => Some(decode(text.get(range.clone()).unwrap_or_default())),
                    Err(refusal) => Some(Err(refusal.clone())),
                };
                let decoded = map_chunks(&items, CHUNK, threads, |items| items.iter().map(message).collect::<Vec<_>>());
                for (item, message) in items.iter().zip(decoded.into_iter().flatten()) {
                    if let Some(message) = message {
                        take(&Place { file, unit, number: item.number }, message)?;
                    }
                }
            }
        }
        progress.finish_and_clear();
        Ok(misspelt)
    }

    /// Opens a file, or stdin, and tells what it is.
    pub(super) fn open(
        &self,
        path: &Path,
        progress: &ProgressBar,
        take: &mut impl FnMut(&Place<'_>, Result<Message, Refusal>) -> Result<(), CliError>,
    ) -> Result<Messages, CliError> {
        let (reader, completed_at): (Box<dyn Read + Send>, OffsetDateTime) = if path == Path::new("-") {
            (Box::new(io::stdin()), OffsetDateTime::now_utc())
        } else {
            let file = File::open(path).map_err(|error| failed(path, error.into()))?;
            let modified = file.metadata().and_then(|metadata| metadata.modified());
            let modified = modified.map_or_else(|_| OffsetDateTime::now_utc(), OffsetDateTime::from);
            (Box::new(progress.wrap_read(file)), modified)
        };
        let completed_at = completed_at.replace_nanosecond(0).unwrap_or(completed_at);
        let (file, mut taken) = (self.name(path), Ok(()));
        let messages = Messages::new(reader, &self.map, completed_at, |number, refusal| {
            if taken.is_ok() {
                taken = take(&Place { file, unit: "row", number }, Err(refusal));
            }
        });
        taken?;
        messages.map_err(|error| failed(path, error))
    }

    /// The files in their order.
    pub(super) fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// The place of a message.
    pub(super) fn place<'a>(&self, path: &'a Path, messages: &Messages, number: u64) -> Place<'a> {
        Place { file: self.name(path), unit: messages.unit(), number }
    }

    fn name<'a>(&self, path: &'a Path) -> Option<&'a Path> {
        (self.files.len() > 1).then_some(path)
    }

    /// A progress bar on stderr, if that is a terminal and the length is known.
    fn progress(&self) -> ProgressBar {
        let lengths = self.files.iter().map(|path| path.metadata().map_or(0, |metadata| metadata.len()));
        let length: u64 = lengths.sum();
        if length == 0 || !io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template("reading events [{bar:40}] {bytes} of {total_bytes}, {eta} left");
        ProgressBar::new(length).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
    }
}

/// The error of a file. What it holds is the fault of the input, which only its sender can mend.
pub(super) fn failed(path: &Path, error: FileError) -> CliError {
    match error {
        FileError::Read(source) | FileError::Table(shrinkd_csv::TableError::Read(source))
            if !Bomb::is_cause_of(&source) =>
        {
            CliError::File { path: path.to_owned(), source }
        }
        error => CliError::Usage(format!("cannot read {}: {error}", name(path))),
    }
}

/// A file's name for a sentence.
pub(super) fn name(path: &Path) -> String {
    if path == Path::new("-") { "stdin".to_owned() } else { path.display().to_string() }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Cursor};

    use super::*;
    use crate::files::compression::Compression;

    #[test]
    fn a_compressed_file_that_holds_too_much_is_the_fault_of_the_input() {
        let bytes = zstd::encode_all([b'\n'; 1_000].as_slice(), 1).expect("memory");
        let reader = Compression::Zstd.reader(Cursor::new(bytes), 999).expect("a decoder");
        let error = failed(Path::new("bomb.zst"), io::read_to_string(reader).expect_err("beyond the limit").into());
        assert!(matches!(&error, CliError::Usage(detail) if detail.contains("decompress it first")), "{error:?}");
        let error = failed(Path::new("lost"), io::Error::other("no disk").into());
        assert!(matches!(error, CliError::File { .. }), "{error:?}");
    }
}
