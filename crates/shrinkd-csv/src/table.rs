//! Reads a table: its header, then its rows.

use std::io::{self, Chain, Cursor, Read};

use csv::{ByteRecord, ReaderBuilder};
use shrinkd_core::{MAX_MESSAGE_BYTES, Reason, Refusal};
use time::OffsetDateTime;

use super::cells::Cells;
use super::columns::{Columns, MapArg};
use super::event::Experiments;
use super::field::Field;
use super::limited::{Exceeded, Limited};
use super::number::DecimalMark;
use super::rows::Rows;
use super::timestamp::DateOrder;

/// Bytes that a table may have: rows of one experiment may stand anywhere, so that a table is held in memory, in some five times its size.
pub const MAX_TABLE_BYTES: u64 = 1 << 27;

/// The beginning of the file, which tells the decimal mark and the order of days and months: so many bytes, and of these so many rows.
const SAMPLE_BYTES: usize = 1 << 16;
const SAMPLE_ROWS: usize = 1_000;

/// Why a table cannot be read as a whole.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    #[error(transparent)]
    Read(#[from] io::Error),
    #[error(
        "the table has too few columns that are understood. Its columns: {header}. Understood: {found}. Missing: {missing}. {meant}Name a column of \
         the file with --map FIELD=COLUMN, such as --map mean=avg_value"
    )]
    Columns { header: String, found: String, missing: String, meant: String },
    #[error("--map {field}={column}: the table has no such column, but {header}")]
    NoColumn { field: &'static str, column: String, header: String },
    #[error("row {row} has more than {MAX_MESSAGE_BYTES} bytes: is there a quotation mark (\") that is not closed?")]
    Row { row: u64 },
    #[error(
        "column {percent:?} is in percent by its header, column {other:?} is not, and has no percent sign in row {row} either: give both \
         headers the sign (%), or neither, and write the numbers accordingly; a variance cannot be in percent"
    )]
    MixedUnits { percent: String, other: String, row: u64 },
    #[error("the table has more than {} MiB: split it by experiment", MAX_TABLE_BYTES >> 20)]
    Large,
}

/// A table whose header is understood.
pub struct Table<R> {
    reader: csv::Reader<Limited<Chain<Cursor<Vec<u8>>, R>>>,
    columns: Columns,
    mark: DecimalMark,
    date_order: Option<DateOrder>,
    completed_at: OffsetDateTime,
}

/// What separates the cells of a table that begins with these bytes, and how many of them are to be skipped, because they only say
/// that (`sep=;`, which Excel reads). `None` if its first line has one cell, so that it is no table.
pub fn delimiter(head: &[u8]) -> Option<(u8, usize)> {
    let line = head.split(|byte| *byte == b'\n').next()?;
    if let [b's' | b'S', b'e' | b'E', b'p' | b'P', b'=', delimiter, rest @ ..] = line
        && rest.trim_ascii().is_empty()
    {
        return Some((*delimiter, line.len() + 1));
    }
    let mut counts = [(0, b','), (0, b';'), (0, b'\t'), (0, b'|')];
    let mut is_quoted = false;
    for byte in head {
        is_quoted ^= *byte == b'"';
        // A quoted cell may go over several lines.
        if *byte == b'\n' && !is_quoted {
            break;
        }
        if let Some((count, _)) = counts.iter_mut().find(|(_, delimiter)| delimiter == byte && !is_quoted) {
            *count += 1;
        }
    }
    // Of equals the first.
    let (count, delimiter) = counts.into_iter().rev().max_by_key(|(count, _)| *count)?;
    (count > 0).then_some((delimiter, 0))
}

impl<R: Read> Table<R> {
    /// Reads the header. `completed_at` is when experiments were completed of which no cell says that.
    ///
    /// # Errors
    /// Where the header cannot be read, or not be understood.
    pub fn new(mut reader: R, map: &[MapArg], completed_at: OffsetDateTime) -> Result<Table<R>, TableError> {
        let mut head = Vec::new();
        reader.by_ref().take(SAMPLE_BYTES as u64).read_to_end(&mut head)?;
        let (delimiter, skipped) = delimiter(&head).unwrap_or((b',', 0));
        let skipped = skipped.min(head.len());
        let mut build = ReaderBuilder::new();
        build.delimiter(delimiter).flexible(true).has_headers(true);
        let mut sample = build.from_reader(&head[skipped..]);
        let columns = Columns::new(sample.byte_headers().map_err(|error| failed(error, 1))?, map)?;
        let mut rows: Vec<ByteRecord> = sample.byte_records().map_while(Result::ok).take(SAMPLE_ROWS + 1).collect();
        // The last may be cut.
        if rows.len() > SAMPLE_ROWS || head.len() == SAMPLE_BYTES {
            rows.pop();
        }
        let cells = |is_wanted: fn(Field) -> bool| cells_of(&rows, &columns, is_wanted);
        let mark = DecimalMark::of(cells(Field::is_number), delimiter);
        let date_order = DateOrder::of(cells(Field::is_timestamp));
        let mut head = Cursor::new(head);
        head.set_position(skipped as u64);
        let mut reader = build.from_reader(Limited::new(head.chain(reader), MAX_TABLE_BYTES));
        // Once more, and past it.
        reader.byte_headers().map_err(|error| failed(error, 1))?;
        Ok(Table { reader, columns, mark, date_order, completed_at })
    }

    /// Reads all rows. One that cannot be read is left out and given to `refuse` with its number: the header is row 1, and empty
    /// lines do not count.
    ///
    /// # Errors
    /// Where reading fails, the table is too large, or its columns are in units that do not go together.
    pub fn read(mut self, mut refuse: impl FnMut(u64, Refusal)) -> Result<Experiments, TableError> {
        let (mut rows, mut record) = (Rows::default(), ByteRecord::new());
        // Not the reader's line, which falls behind where lines end in CRLF.
        for row in 2.. {
            if !self.reader.read_byte_record(&mut record).map_err(|error| failed(error, row))? {
                break;
            }
            self.reader.get_mut().row_ended();
            // Spreadsheets write rows of empty cells.
            if record.iter().all(|cell| cell.trim_ascii().is_empty()) {
                continue;
            }
            rows.count += 1;
            let Table { columns, mark, date_order, .. } = &self;
            let cells = Cells { record: &record, columns, mark: *mark, date_order: *date_order, row };
            let is_ragged = record.len() < self.columns.len()
                || record.iter().skip(self.columns.len()).any(|cell| !cell.trim_ascii().is_empty());
            let taken = if is_ragged {
                let (cells, columns) = (record.len(), self.columns.len());
                let is_long = record.iter().any(|cell| cell.contains(&b'\n'));
                let quote = if is_long { " (is there a quotation mark that is not closed?)" } else { "" };
                Err(Refusal::new(
                    Reason::SchemaViolation,
                    format!("has {cells} cells, the header {columns}{quote}: the row is left out"),
                ))
            } else if let Some((percent, other)) = cells.mixed_units() {
                return Err(TableError::MixedUnits { percent: percent.to_owned(), other: other.to_owned(), row });
            } else {
                rows.take(&cells)
            };
            if let Err(refusal) = taken {
                refuse(row, refusal);
            }
        }
        Ok(Experiments::new(self.columns, rows, self.completed_at))
    }
}

/// The cells of the first rows in columns of some fields.
fn cells_of<'a>(
    rows: &'a [ByteRecord],
    columns: &'a Columns,
    is_wanted: fn(Field) -> bool,
) -> impl Iterator<Item = &'a [u8]> {
    let fields = Field::ALL.iter().copied().filter(move |field| is_wanted(*field));
    fields
        .filter_map(|field| columns.of(field))
        .flat_map(move |column| rows.iter().filter_map(move |row| Some(row.get(column)?.trim_ascii())))
}

/// The error of a reader that stopped in a row.
fn failed(error: csv::Error, row: u64) -> TableError {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => match error.get_ref().and_then(|error| error.downcast_ref::<Exceeded>()) {
            Some(Exceeded::Row) => TableError::Row { row },
            Some(Exceeded::Table) => TableError::Large,
            None => TableError::Read(error),
        },
        other => TableError::Read(io::Error::other(format!("{other:?}"))),
    }
}
