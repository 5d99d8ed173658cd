//! The messages of a file, in batches, whatever its form.

use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::ops::Range;

use shrinkd_core::{MAX_MESSAGE_BYTES, Refusal, message_too_large};
use shrinkd_csv::{Experiments, MapArg, Table, TableError};
use time::OffsetDateTime;

use super::compression::{Compression, decompressed};
use super::documents::Documents;
use super::form::{Form, NotUnderstood};
use super::{BOM, HEAD_BYTES, head};

/// Bytes that are read and decoded at a time.
const BATCH_BYTES: usize = 1 << 20;
const BUFFER_BYTES: usize = 1 << 18;

/// Why a file cannot be read as a whole.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error(transparent)]
    Read(#[from] io::Error),
    #[error(transparent)]
    NotUnderstood(#[from] NotUnderstood),
    #[error(transparent)]
    Table(#[from] TableError),
}

/// A file of events, as messages.
pub struct Messages {
    /// `None` of a file without content.
    form: Option<Form>,
    compression: Compression,
    source: Source,
    /// The number of the last line or document.
    number: u64,
}

type Reader = BufReader<Box<dyn Read + Send>>;

enum Source {
    Lines(Reader),
    Documents(Documents<Reader>),
    Table(Box<Experiments>),
}

/// One message of a batch.
#[derive(Debug)]
pub struct Item {
    /// The number of its line, document or first row.
    pub number: u64,
    /// Where its text is in the batch; empty of a line without content. Or why there is none.
    pub text: Result<Range<usize>, Refusal>,
}

impl Messages {
    /// Tells what a file is. A table is read to its end, and `refuse` gets the rows that cannot be read.
    ///
    /// `map` names columns of a table; `completed_at` is when experiments of a table were completed that do not say so.
    ///
    /// # Errors
    /// Where the file cannot be read, or not be understood.
    pub fn new(
        file: impl Read + Send + 'static,
        map: &[MapArg],
        completed_at: OffsetDateTime,
        refuse: impl FnMut(u64, Refusal),
    ) -> Result<Messages, FileError> {
        let (compression, mut reader) = decompressed(file)?;
        let head = head(&mut reader, HEAD_BYTES)?;
        let form = Form::of(&head, head.len() < HEAD_BYTES)?;
        let start = if head.starts_with(BOM) { BOM.len() } else { 0 };
        let mut head = Cursor::new(head);
        head.set_position(start as u64);
        let reader: Box<dyn Read + Send> = Box::new(head.chain(reader));
        let reader = BufReader::with_capacity(BUFFER_BYTES, reader);
        let source = match form {
            None | Some(Form::Lines) => Source::Lines(reader),
            Some(Form::Documents) => Source::Documents(Documents::new(reader)),
            Some(Form::Table) => Source::Table(Box::new(Table::new(reader, map, completed_at)?.read(refuse)?)),
        };
        Ok(Messages { form, compression, source, number: 0 })
    }

    /// The form of the file; `None` if there is nothing in it.
    pub fn form(&self) -> Option<Form> {
        self.form
    }

    /// How it is compressed.
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// The table, before its first batch.
    pub fn table(&self) -> Option<&Experiments> {
        match &self.source {
            Source::Table(experiments) => Some(experiments),
            Source::Lines(_) | Source::Documents(_) => None,
        }
    }

    /// What numbers count.
    pub fn unit(&self) -> &'static str {
        match &self.source {
            Source::Lines(_) => "line",
            Source::Documents(_) => "event",
            Source::Table(_) => "row",
        }
    }

    /// Replaces `text` by the next messages, and says where each is in it. None are left where there are none. A message that is too
    /// large is refused.
    ///
    /// # Errors
    /// Where reading fails.
    pub fn batch(&mut self, text: &mut Vec<u8>) -> io::Result<Vec<Item>> {
        text.clear();
        let mut items = Vec::new();
        while text.len() < BATCH_BYTES {
            let start = text.len();
            let message = match &mut self.source {
                Source::Lines(reader) => {
                    self.number += 1 + skip_line_ends(reader)?;
                    line(reader, text)?.map(Ok)
                }
                Source::Documents(documents) => {
                    self.number += 1;
                    documents.next(text)?.map(Ok)
                }
                Source::Table(experiments) => experiments.next().map(|(row, event)| {
                    self.number = row;
                    event.map(|event| {
                        text.extend_from_slice(&event);
                        event.len()
                    })
                }),
            };
            let message = match message {
                None => break,
                Some(Ok(bytes)) if bytes > MAX_MESSAGE_BYTES => {
                    text.truncate(start);
                    Err(message_too_large(bytes))
                }
                Some(Ok(bytes)) => Ok(start..start + bytes),
                Some(Err(refusal)) => Err(refusal),
            };
            items.push(Item { number: self.number, text: message });
            if items.len() >= BATCH_BYTES / 16 {
                break;
            }
        }
        Ok(items)
    }
}

/// Skips empty lines, and returns how many: of a compressed file there can be billions.
fn skip_line_ends(reader: &mut impl BufRead) -> io::Result<u64> {
    let mut skipped = 0;
    loop {
        let buffer = reader.fill_buf()?;
        let run = buffer.iter().take_while(|byte| **byte == b'\n').count();
        let is_over = run < buffer.len() || run == 0;
        reader.consume(run);
        skipped += run as u64;
        if is_over {
            return Ok(skipped);
        }
    }
}

/// Appends the next line, without its end, and returns how many bytes it has. Of one that is too long to be a message only the beginning
/// is appended.
fn line(reader: &mut impl BufRead, text: &mut Vec<u8>) -> io::Result<Option<usize>> {
    let start = text.len();
    let read = reader.take(MAX_MESSAGE_BYTES as u64 + 2).read_until(b'\n', text)?;
    if read == 0 {
        return Ok(None);
    }
    if text.last() == Some(&b'\n') {
        text.pop();
        if text.len() > start && text.last() == Some(&b'\r') {
            text.pop();
        }
    } else if read > MAX_MESSAGE_BYTES {
        let more = reader.skip_until(b'\n')?;
        return Ok(Some(read + more));
    }
    if text.get(start..).is_some_and(|line| line.trim_ascii().is_empty()) {
        text.truncate(start);
    }
    Ok(Some(text.len() - start))
}
