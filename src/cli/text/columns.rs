//! Aligned columns.

use std::borrow::Cow;
use std::iter;

use unicode_width::UnicodeWidthStr;

use super::prefix;

/// Rows of aligned cells: text is left-aligned, and shortened if the page is too narrow; numbers are right-aligned.
pub(in crate::cli) struct Columns {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

/// One column: the separator before each of its cells, and whether they are numbers.
#[derive(Clone, Copy)]
pub(in crate::cli) struct Column {
    lead: &'static str,
    is_number: bool,
}

/// A column of text.
pub(in crate::cli) fn text(lead: &'static str) -> Column {
    Column { lead, is_number: false }
}

/// A column of numbers.
pub(in crate::cli) fn number(lead: &'static str) -> Column {
    Column { lead, is_number: true }
}

impl Columns {
    pub(in crate::cli) fn new(columns: impl IntoIterator<Item = Column>) -> Columns {
        Columns { columns: columns.into_iter().collect(), rows: Vec::new() }
    }

    /// Adds a row: a cell for each column, from the left. Missing and empty cells stay blank, including their lead.
    pub(in crate::cli) fn row<C: Into<String>>(&mut self, cells: impl IntoIterator<Item = C>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// The rows as lines of at most `page` columns, as far as shortening text achieves that.
    pub(super) fn lines(&self, page: usize) -> impl Iterator<Item = String> {
        let widths = self.widths(page);
        self.rows.iter().map(move |row| {
            let mut line = String::new();
            for ((column, width), cell) in self.columns.iter().zip(&widths).zip(row) {
                let cell = shortened(cell, *width);
                let padding = " ".repeat(width.saturating_sub(cell.width()));
                let lead = if cell.is_empty() { &" ".repeat(column.lead.width()) } else { column.lead };
                let (before, after) = if column.is_number { (&*padding, "") } else { ("", &*padding) };
                line.extend([lead, before, &cell, after]);
            }
            line.truncate(line.trim_end().len());
            line
        })
    }

    /// The page width at which nothing is shortened, if all text columns together may take up to `texts`.
    pub(in crate::cli) fn width(&self, texts: usize) -> usize {
        let widths = self.natural_widths();
        let of_texts = widths.iter().zip(&self.columns).filter(|(_, column)| !column.is_number);
        let of_texts: usize = of_texts.map(|(width, _)| width).sum();
        self.leads() + widths.iter().sum::<usize>() - of_texts + of_texts.min(texts)
    }

    /// The widths of the columns on a page. If that is too narrow, the widest text column is narrowed first.
    fn widths(&self, page: usize) -> Vec<usize> {
        let mut widths = self.natural_widths();
        let excess = (self.leads() + widths.iter().sum::<usize>()).saturating_sub(page);
        for _ in 0..excess {
            let texts = widths.iter_mut().zip(&self.columns).filter(|(_, column)| !column.is_number);
            if let Some((widest, _)) = texts.max_by_key(|(width, _)| **width) {
                *widest = widest.saturating_sub(1);
            }
        }
        widths
    }

    /// The width of the widest cell of each column.
    fn natural_widths(&self) -> Vec<usize> {
        let mut widths = vec![0; self.columns.len()];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.width().max(*width);
            }
        }
        widths
    }

    fn leads(&self) -> usize {
        self.columns.iter().map(|column| column.lead.width()).sum()
    }
}

/// The text in at most `width` columns. A longer one loses its middle, because names often differ at their ends.
fn shortened(text: &str, width: usize) -> Cow<'_, str> {
    if text.width() <= width {
        return Cow::Borrowed(text);
    }
    let kept = width.saturating_sub(1);
    let head = &text[..prefix(text, kept.div_ceil(2))];
    let starts = text.char_indices().map(|(start, _)| start).chain(iter::once(text.len()));
    let tail = starts.map(|start| &text[start..]).find(|tail| tail.width() <= kept / 2).unwrap_or("");
    Cow::Owned(if width == 0 { String::new() } else { format!("{head}…{tail}") })
}
