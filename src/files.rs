//! Files as people have them: JSON in one of three forms, or a table, plain or compressed, told by their content.
//!
//! | module | contents |
//! | --- | --- |
//! | [`compression`] | gzip and zstd, and a limit of what may come out |
//! | [`form`] | what decompressed bytes are, told by their beginning |
//! | `documents` | JSON documents one after the other, or in an array -> messages |
//! | [`messages`] | all of it: bytes -> messages, in batches |

pub mod compression;
mod documents;
pub mod form;
pub mod messages;

use std::io::{self, Read};

pub use form::{Form, NotUnderstood};
pub use messages::{FileError, Item, Messages};

/// Bytes of a file by which it is told what it is.
pub const HEAD_BYTES: usize = 1 << 16;

/// UTF-8's byte order mark, which some programs write and none needs.
pub const BOM: &[u8] = b"\xef\xbb\xbf";

/// The first bytes of a reader: up to so many, fewer only at its end.
///
/// # Errors
/// Where reading fails.
fn head(reader: &mut impl Read, most: usize) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    reader.take(most as u64).read_to_end(&mut head)?;
    Ok(head)
}
