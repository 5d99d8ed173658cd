//! All that a table says in one buffer, so that a row costs no allocation of its own.

use std::str;

use super::table::MAX_TABLE_BYTES;

// Positions have 32 bits. No row makes ten times its bytes, although names of fields are added: one with all sums has 22 or more, and
// makes some 200.
const _: () = assert!(MAX_TABLE_BYTES * 10 < u32::MAX as u64);

/// The buffer.
#[derive(Debug, Default)]
pub(crate) struct Texts(pub(crate) Vec<u8>);

/// Where a text is in the buffer.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    pub(crate) fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// This, or the other where this is empty.
    pub(crate) fn or(self, other: Span) -> Span {
        if self.is_empty() { other } else { self }
    }

    /// From the beginning of this to the end of a later one.
    pub(crate) fn to(self, later: Span) -> Span {
        Span { end: later.end, ..self }
    }
}

impl Texts {
    pub(crate) fn keep(&mut self, text: &[u8]) -> Span {
        let start = self.0.len();
        self.0.extend_from_slice(text);
        self.since(start)
    }

    /// What was written since the buffer had so many bytes.
    pub(crate) fn since(&self, start: usize) -> Span {
        let position = |bytes| u32::try_from(bytes).unwrap_or(u32::MAX);
        Span { start: position(start), end: position(self.0.len()) }
    }

    pub(crate) fn bytes(&self, span: Span) -> &[u8] {
        self.0.get(span.start as usize..span.end as usize).unwrap_or_default()
    }

    /// Of what was kept whole, as UTF-8.
    pub(crate) fn str(&self, span: Span) -> &str {
        str::from_utf8(self.bytes(span)).unwrap_or_default()
    }
}
