//! CSV and TSV files as events of the contract: one row per arm, or one row per effect. Pure: bytes and a moment in, messages out.
//!
//! Rows of one experiment and revision become one event, wherever they stand in the file. What the numbers are worth is judged by
//! [`decode`](shrinkd_core::decode()), to which the events go as all others do; here a cell is read or refused, and no more.
//!
//! | step | module |
//! | --- | --- |
//! | the header -> which column is which field | `field`, `columns` |
//! | cells -> numbers and timestamps as JSON has them | `number`, `timestamp` |
//! | rows -> the results of each experiment | [`Table`], `cells`, `rows`, `texts` |
//! | results -> events, each with its control | [`Experiments`] |

#![forbid(unsafe_code)]

mod cells;
mod columns;
mod event;
mod field;
mod limited;
mod number;
mod rows;
mod table;
mod texts;
mod timestamp;

pub use columns::{Columns, Form, MapArg};
pub use event::Experiments;
pub use field::Field;
pub use table::{MAX_TABLE_BYTES, Table, TableError, delimiter};
