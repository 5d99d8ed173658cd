//! Compressed files, told by their first bytes.

use std::io::{self, BufReader, Cursor, Read};

use flate2::read::MultiGzDecoder;

/// What comes out of a compressed file at most: a few megabytes can hold terabytes of zeros.
pub const MAX_DECOMPRESSED_BYTES: u64 = 4 << 30;

/// Enough bytes to tell.
const MAGIC_BYTES: usize = 4;

/// How a file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

/// A compressed file that holds more than [`MAX_DECOMPRESSED_BYTES`].
#[derive(Debug, thiserror::Error)]
#[error(
    "more than {} GiB come out of it: if it is not damaged, decompress it first (files that are not compressed have no limit)",
    .0 >> 30
)]
pub struct Bomb(u64);

impl Bomb {
    /// Whether reading ended because of one.
    pub fn is_cause_of(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|source| source.is::<Bomb>())
    }
}

/// What comes out of a compressed file ended in an error.
#[derive(Debug, thiserror::Error)]
#[error("its compressed content is damaged or cut short ({0}): get the file again")]
struct Damaged(#[source] io::Error);

impl Compression {
    /// By the first bytes of a file.
    pub fn of(head: &[u8]) -> Compression {
        match head {
            [0x1f, 0x8b, ..] => Compression::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
            _ => Compression::None,
        }
    }

    /// A reader of what the file holds, from its first byte on. Members and frames one after the other are one file. Memory is bounded:
    /// zstd refuses windows beyond 128 MiB.
    ///
    /// # Errors
    /// Where the decoder cannot be set up.
    pub fn reader(self, file: impl Read + Send + 'static, most: u64) -> io::Result<Box<dyn Read + Send>> {
        let limited = |reader: Box<dyn Read + Send>| Box::new(Limited { reader, left: most, most });
        Ok(match self {
            Compression::None => Box::new(file),
            Compression::Gzip => limited(Box::new(MultiGzDecoder::new(BufReader::new(file)))),
            Compression::Zstd => limited(Box::new(zstd::stream::read::Decoder::new(file)?)),
        })
    }
}

/// Tells how a file is compressed, and reads what it holds.
///
/// # Errors
/// Where the file cannot be read.
pub fn decompressed(mut file: impl Read + Send + 'static) -> io::Result<(Compression, Box<dyn Read + Send>)> {
    let magic = super::head(&mut file, MAGIC_BYTES)?;
    let compression = Compression::of(&magic);
    Ok((compression, compression.reader(Cursor::new(magic).chain(file), MAX_DECOMPRESSED_BYTES)?))
}

struct Limited {
    reader: Box<dyn Read + Send>,
    left: u64,
    most: u64,
}

impl Read for Limited {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer).map_err(|error| match error.kind() {
            kind @ (io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput) => {
                io::Error::new(kind, Damaged(error))
            }
            _ => error,
        })?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| io::Error::other(Bomb(self.most)))?;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn more_than_the_limit_is_refused_whatever_the_compression() {
        let text = vec![b' '; 1 << 20];
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&text).expect("memory");
        let zstd = zstd::encode_all(text.as_slice(), 1).expect("memory");
        for (compression, bytes) in [(Compression::Gzip, gzip.finish().expect("memory")), (Compression::Zstd, zstd)] {
            assert_eq!(Compression::of(&bytes), compression);
            let read = |most| {
                let mut read = Vec::new();
                let mut reader = compression.reader(Cursor::new(bytes.clone()), most).expect("a decoder");
                reader.read_to_end(&mut read).map(|_| read)
            };
            assert_eq!(read(1 << 20).expect("within the limit"), text);
            let cut = compression.reader(Cursor::new(bytes[..bytes.len() - 5].to_vec()), 1 << 20).expect("a decoder");
            let cut = io::read_to_string(cut).expect_err("cut short");
            assert!(cut.to_string().starts_with("its compressed content is damaged or cut short"), "{cut}");
            let refused = read((1 << 20) - 1).expect_err("beyond the limit");
            assert!(refused.to_string().contains("decompress it first"), "{refused}");
        }
    }
}
