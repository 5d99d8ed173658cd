//! Text for people at a terminal: sentences that wrap, columns that line up, numbers with the digits they deserve.

mod columns;
mod digits;

use std::env;
use std::io::{self, Write};

use terminal_size::{Width, terminal_size_of};
use unicode_width::UnicodeWidthStr;

pub(super) use columns::{Column, Columns, number, text};
pub(super) use digits::{Digits, percent, probability, rounded};

/// How many columns to write in: `COLUMNS` where that is set, else as many as the terminal has, else 80. Never fewer than
/// 80, which the tables need, nor more than 100, beyond which lines are hard to follow.
pub(super) fn width() -> usize {
    let asked = env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let terminal = || terminal_size_of(io::stdout()).map(|(Width(columns), _)| usize::from(columns));
    asked.or_else(terminal).unwrap_or(80).clamp(80, 100)
}

/// Where text goes, and how wide it may be.
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

    /// Writes a lead and a sentence beside it, which wraps without running under the lead.
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

    /// Writes a line as it is, however long: what is to be copied.
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

/// A word that fits, or a long name in pieces that do.
fn pieces(mut word: &str, room: usize) -> Vec<&str> {
    let mut pieces = Vec::new();
    while word.width() > room {
        let (piece, rest) = word.split_at(prefix(word, room));
        // A single character wider than the room stands as it is.
        if piece.is_empty() {
            break;
        }
        pieces.push(piece);
        word = rest;
    }
    pieces.push(word);
    pieces
}

/// Bytes of the longest beginning of the text that takes at most `width` columns.
fn prefix(text: &str, width: usize) -> usize {
    let ends = text.char_indices().map(|(start, c)| start + c.len_utf8());
    ends.take_while(|&end| text[..end].width() <= width).last().unwrap_or(0)
}

/// `1 effect`, `2,500 effects`.
pub(super) fn counted(count: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(count), if count == 1 { "" } else { "s" })
}

/// With commas between the thousands.
pub(super) fn grouped(count: u64) -> String {
    match count {
        0..1_000 => count.to_string(),
        _ => format!("{},{:03}", grouped(count / 1_000), count % 1_000),
    }
}
