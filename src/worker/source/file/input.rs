//! Bytes from a file, decompressed, or from stdin without blocking on it.

use std::fs::File;
use std::io::{self, Cursor, Read as _, Seek, SeekFrom};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use crate::files::compression::{Compression, decompressed};
use crate::files::{Form, HEAD_BYTES};

/// How many bytes are read at a time.
const CHUNK: usize = 1 << 16;

pub(super) enum Input {
    File {
        file: File,
        buffer: Vec<u8>,
    },
    /// A compressed file, whose positions are those of what it holds.
    Compressed {
        reader: Box<dyn io::Read + Send>,
        buffer: Vec<u8>,
    },
    /// Read by a thread of its own, because a read of stdin blocks for as long as its writer is silent.
    Stdin {
        chunks: Receiver<Result<Vec<u8>, InputError>>,
        chunk: Vec<u8>,
    },
}

/// Why there are no more bytes.
#[derive(Debug, thiserror::Error)]
pub(super) enum InputError {
    #[error(transparent)]
    Read(#[from] io::Error),
    /// What it holds is something else than NDJSON; the sentence says what, and what to do.
    #[error("{0}")]
    NotLines(String),
    /// A compressed file holds fewer bytes than were read of it before.
    #[error("only {0} bytes")]
    Short(u64),
}

/// The result of a read.
pub(super) enum Read<'a> {
    Bytes(&'a [u8]),
    NothingYet,
    End,
}

impl Input {
    /// Opens a file, `-` for stdin, and looks at its beginning.
    pub(super) fn open(path: &Path) -> Result<Input, InputError> {
        if path == Path::new("-") {
            return Ok(stdin()?);
        }
        let (compression, mut reader) = decompressed(File::open(path)?)?;
        let mut head = Vec::new();
        reader.by_ref().take(HEAD_BYTES as u64).read_to_end(&mut head)?;
        check(&head, head.len() < HEAD_BYTES)?;
        let buffer = vec![0; CHUNK];
        Ok(match compression {
            Compression::None => Input::File { file: File::open(path)?, buffer },
            _ => Input::Compressed { reader: Box::new(Cursor::new(head).chain(reader)), buffer },
        })
    }

    /// Goes to the position at which reading starts. Of a compressed file what stands before it is decompressed once more.
    pub(super) fn start_at(&mut self, start: u64) -> Result<(), InputError> {
        match self {
            Input::File { file, .. } => {
                file.seek(SeekFrom::Start(start))?;
            }
            Input::Compressed { reader, .. } => {
                let skipped = io::copy(&mut reader.take(start), &mut io::sink())?;
                if skipped < start {
                    return Err(InputError::Short(skipped));
                }
            }
            Input::Stdin { .. } => {}
        }
        Ok(())
    }

    /// The length of the file; `None` if it is not known without reading it.
    pub(super) fn length(&self) -> io::Result<Option<u64>> {
        match self {
            Input::File { file, .. } => Ok(Some(file.metadata()?.len())),
            Input::Compressed { .. } | Input::Stdin { .. } => Ok(None),
        }
    }

    /// Reads what is there. Only stdin is waited for, up to `timeout`.
    pub(super) fn read(&mut self, timeout: Duration) -> Result<Read<'_>, InputError> {
        match self {
            Input::File { file, buffer } => next(file, buffer),
            Input::Compressed { reader, buffer } => next(reader, buffer),
            Input::Stdin { chunks, chunk } => match chunks.recv_timeout(timeout) {
                Ok(read) => {
                    *chunk = read?;
                    Ok(Read::Bytes(chunk))
                }
                Err(RecvTimeoutError::Timeout) => Ok(Read::NothingYet),
                Err(RecvTimeoutError::Disconnected) => Ok(Read::End),
            },
        }
    }
}

fn next<'a>(reader: &mut impl io::Read, buffer: &'a mut [u8]) -> Result<Read<'a>, InputError> {
    loop {
        match reader.read(buffer) {
            Ok(0) => return Ok(Read::End),
            Ok(count) => return Ok(Read::Bytes(&buffer[..count])),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether a beginning is that of NDJSON, or of a file without content, which may grow.
fn check(head: &[u8], is_whole: bool) -> Result<(), InputError> {
    let events = |from: &str| format!("`shrinkd convert --from {from} FILE > events.ndjson` makes events of it");
    match Form::of(head, is_whole) {
        Ok(None | Some(Form::Lines)) => Ok(()),
        Ok(Some(Form::Documents)) => {
            Err(InputError::NotLines(format!("JSON over several lines, or an array: {}", events("json"))))
        }
        Ok(Some(Form::Table)) => Err(InputError::NotLines(format!("a table: {}", events("csv")))),
        Err(error) => Err(InputError::NotLines(format!("{error}. Of a table {}", events("csv")))),
    }
}

/// Reads stdin on a thread that ends with stdin, or once the receiver is gone and one more read has returned.
fn stdin() -> io::Result<Input> {
    let (sender, chunks) = sync_channel(4);
    std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        let mut buffer = vec![0; CHUNK];
        // The beginning, up to its first line end, until it is known to be NDJSON.
        let mut head = Some(Vec::new());
        let mut reader = match decompressed(io::stdin()) {
            Ok((_, reader)) => reader,
            Err(error) => return drop(sender.send(Err(error.into()))),
        };
        loop {
            let read = match next(&mut reader, &mut buffer) {
                Ok(Read::Bytes(bytes)) => Some(bytes),
                Ok(_) => None,
                Err(error) => return drop(sender.send(Err(error))),
            };
            let chunk = match (&mut head, read) {
                (None, None) => return,
                (None, Some(bytes)) => bytes.to_vec(),
                (Some(head), Some(bytes)) if !bytes.contains(&b'\n') && head.len() < HEAD_BYTES => {
                    head.extend_from_slice(bytes);
                    continue;
                }
                (Some(beginning), read) => {
                    let mut beginning = std::mem::take(beginning);
                    beginning.extend_from_slice(read.unwrap_or_default());
                    head = None;
                    if let Err(error) = check(&beginning, read.is_none()) {
                        return drop(sender.send(Err(error)));
                    }
                    beginning
                }
            };
            if sender.send(Ok(chunk)).is_err() {
                return;
            }
        }
    })?;
    Ok(Input::Stdin { chunks, chunk: Vec::new() })
}
