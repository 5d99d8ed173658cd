//! Text for the terminal: wrapped sentences, aligned columns, numbers rounded to meaningful digits.

mod columns;
mod digits;

use std::env;
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;
use terminal_size::{Width, terminal_size_of};
use unicode_width::UnicodeWidthStr;

pub(super) use columns::{Column, Columns, number, text};
pub(super) use digits::{Digits, percent, probability, rounded};

/// The width of the output: `COLUMNS` if that is set, else the width of the terminal, else 80; at least 80, which the
/// tables need, and at most 100, beyond which lines are hard to read.
pub(super) fn width() -> usize {
    let asked = env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let terminal = || terminal_size_of(io::stdout()).map(|(Width(columns), _)| usize::from(columns));
    asked.or_else(terminal).unwrap_or(80).clamp(80, 100)
}

/// An output of limited width.
pub(super) struct Page<W> {
    out: W,
    width: usize,
}

impl<W: Write> Page<W> {
    pub(super) fn new(out: W, width: usize) -> Page<W> {
        Page { out, width }
    }

    pub(super) fn width(&self) -> usize {
        self.width
    }

    pub(super) fn blank(&mut self) -> io::Result<()> {
        writeln!(self.out)
    }

    /// Writes a lead and a sentence, whose continuation lines are indented by the width of the lead.
    pub(super) fn sentence(&mut self, lead: &str, sentence: &str) -> io::Result<()> {
        let (indent, room) = (lead.width(), self.width - lead.width());
        let mut margin = lead.to_owned();
        let mut line = String::new();
        for word in sentence.split(' ').flat_map(|word| pieces(word, room)) {
            if !line.is_empty() && line.width() + 1 + word.width() > room {
                writeln!(self.out, "{margin}{line}")?;
                margin = " ".repeat(indent);
                line.clear();
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        writeln!(self.out, "{}", format!("{margin}{line}").trim_end())
    }

    /// Writes a line without wrapping it, for text that is to be copied.
    pub(super) fn line(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.out, "{line}")
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Writes aligned columns.
    pub(super) fn columns(&mut self, columns: &Columns) -> io::Result<()> {
        columns.lines(self.width).try_for_each(|line| writeln!(self.out, "{line}"))
    }
}

/// The word itself if it fits, else pieces of it that do.
fn pieces(mut word: &str, room: usize) -> Vec<&str> {
    let mut pieces = Vec::new();
    while word.width() > room {
        let (piece, rest) = word.split_at(prefix(word, room));
        // A single character that is wider than the room is kept.
        if piece.is_empty() {
            break;
        }
        pieces.push(piece);
        word = rest;
    }
    pieces.push(word);
    pieces
}

/// Bytes of the longest prefix of the text that is at most `width` columns wide.
fn prefix(text: &str, width: usize) -> usize {
    let ends = text.char_indices().map(|(start, c)| start + c.len_utf8());
    ends.take_while(|&end| text[..end].width() <= width).last().unwrap_or(0)
}

/// Writes one JSON document, for people to read too.
pub(super) fn json(value: &impl Serialize, out: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)
}

/// `1 effect`, `2,500 effects`.
pub(super) fn counted(count: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(count), if count == 1 { "" } else { "s" })
}

/// With commas as thousands separators.
pub(super) fn grouped(count: u64) -> String {
    match count {
        0..1_000 => count.to_string(),
        _ => format!("{},{:03}", grouped(count / 1_000), count % 1_000),
    }
}

/// A path, quoted for a POSIX shell if necessary.
pub(super) fn in_shell(path: &Path) -> String {
    let path = path.display().to_string();
    let is_plain = path.chars().all(|c| c.is_alphanumeric() || matches!(c, '/' | '.' | '_' | '-'));
    if is_plain { path } else { format!("'{}'", path.replace('\'', r"'\''")) }
}
