//! Splits bytes into lines, in bounded memory whatever their length.

use shrinkd_core::MAX_MESSAGE_BYTES;

/// One line, without its line end (LF or CRLF).
pub(super) struct Line<'a> {
    /// The position of its first byte.
    pub(super) start: u64,
    /// The position after its line end.
    pub(super) next: u64,
    /// Only the beginning if the line is too long to be a message.
    pub(super) text: &'a [u8],
    /// The length of the whole line.
    pub(super) bytes: usize,
}

#[derive(Debug)]
pub(super) struct Lines {
    /// Where the current line starts.
    start: u64,
    /// How many of its bytes were read.
    bytes: usize,
    /// Its bytes, up to one more than a message may have, so that a longer one is recognised.
    text: Vec<u8>,
}

impl Lines {
    pub(super) fn starting_at(start: u64) -> Lines {
        Lines { start, bytes: 0, text: Vec::new() }
    }

    /// The position of the next byte.
    pub(super) fn position(&self) -> u64 {
        self.start + self.bytes as u64
    }

    /// Adds bytes, and passes on each line that ends in them.
    pub(super) fn split(&mut self, bytes: &[u8], take: &mut impl FnMut(Line<'_>)) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let text = piece.strip_suffix(b"\n");
            self.extend(text.unwrap_or(piece));
            if text.is_some() {
                self.emit(1, take);
            }
        }
    }

    /// Passes on what is left as the last line.
    pub(super) fn finish(&mut self, take: &mut impl FnMut(Line<'_>)) {
        if self.bytes > 0 {
            self.emit(0, take);
        }
    }

    fn extend(&mut self, text: &[u8]) {
        self.bytes += text.len();
        let room = (MAX_MESSAGE_BYTES + 1).saturating_sub(self.text.len());
        self.text.extend_from_slice(&text[..text.len().min(room)]);
    }

    fn emit(&mut self, end_bytes: usize, take: &mut impl FnMut(Line<'_>)) {
        let next = self.start + (self.bytes + end_bytes) as u64;
        let is_whole = self.text.len() == self.bytes;
        let text = self.text.strip_suffix(b"\r").filter(|_| is_whole && end_bytes > 0).unwrap_or(&self.text);
        let bytes = if is_whole { text.len() } else { self.bytes };
        take(Line { start: self.start, next, text, bytes });
        self.text.clear();
        self.bytes = 0;
        self.start = next;
    }
}
