//! A bound of what one row, and a whole table, may take.

use std::io::{self, Read};

use shrinkd_core::MAX_MESSAGE_BYTES;

/// Ends with an error once a row, or everything, has too many bytes: of a quote that is not closed, the rest of the file is one cell.
#[derive(Debug)]
pub(crate) struct Limited<R> {
    reader: R,
    /// Bytes since the last row that was complete.
    row: usize,
    left: u64,
}

/// Which limit was exceeded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Exceeded {
    #[error("a row has more than {MAX_MESSAGE_BYTES} bytes")]
    Row,
    #[error("the table is too large")]
    Table,
}

impl<R> Limited<R> {
    pub(crate) fn new(reader: R, most: u64) -> Limited<R> {
        Limited { reader, row: 0, left: most }
    }

    /// Says that a row was read.
    pub(crate) fn row_ended(&mut self) {
        self.row = 0;
    }
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.row > MAX_MESSAGE_BYTES {
            return Err(io::Error::other(Exceeded::Row));
        }
        let read = self.reader.read(buffer)?;
        self.row += read;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| io::Error::other(Exceeded::Table))?;
        Ok(read)
    }
}
