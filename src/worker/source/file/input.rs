//! Bytes from a file, or from stdin without blocking on it.

use std::fs::File;
use std::io::{self, Read as _, Seek, SeekFrom};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

/// How many bytes are read at a time.
const CHUNK: usize = 1 << 16;

pub(super) enum Input {
    File {
        file: File,
        buffer: Vec<u8>,
    },
    /// Read by a thread of its own, because a read of stdin blocks for as long as its writer is silent.
    Stdin {
        chunks: Receiver<io::Result<Vec<u8>>>,
        chunk: Vec<u8>,
    },
}

/// The result of a read.
pub(super) enum Read<'a> {
    Bytes(&'a [u8]),
    NothingYet,
    End,
}

impl Input {
    /// Opens a file, `-` for stdin, at a position.
    pub(super) fn open(path: &Path, start: u64) -> io::Result<Input> {
        if path == Path::new("-") {
            return stdin();
        }
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(start))?;
        Ok(Input::File { file, buffer: vec![0; CHUNK] })
    }

    /// The length of the file; `None` for stdin.
    pub(super) fn length(&self) -> io::Result<Option<u64>> {
        match self {
            Input::File { file, .. } => Ok(Some(file.metadata()?.len())),
            Input::Stdin { .. } => Ok(None),
        }
    }

    /// Reads what is there. Only stdin is waited for, up to `timeout`.
    pub(super) fn read(&mut self, timeout: Duration) -> io::Result<Read<'_>> {
        match self {
            Input::File { file, buffer } => loop {
                match file.read(buffer) {
                    Ok(0) => return Ok(Read::End),
                    Ok(count) => return Ok(Read::Bytes(&buffer[..count])),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            },
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

/// Reads stdin on a thread that ends with stdin, or once the receiver is gone and one more read has returned.
fn stdin() -> io::Result<Input> {
    let (sender, chunks) = sync_channel(4);
    std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        let mut stdin = io::stdin().lock();
        let mut buffer = vec![0; CHUNK];
        loop {
            let read = match stdin.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => Ok(buffer[..count].to_vec()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let is_last = read.is_err();
            if sender.send(read).is_err() || is_last {
                return;
            }
        }
    })?;
    Ok(Input::Stdin { chunks, chunk: Vec::new() })
}
