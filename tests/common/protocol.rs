//! The messages of PostgreSQL's protocol, version 3, as far as a proxy needs them ("Frontend/Backend Protocol" in its
//! manual).

use std::io::{self, Read};

/// One message with its tag and length.
#[derive(Default)]
pub struct Frame(pub Vec<u8>);

impl Frame {
    /// Reads the next message in place of this one; false at the end of the stream.
    pub fn read(&mut self, stream: &mut impl Read) -> io::Result<bool> {
        self.0.resize(5, 0);
        match stream.read_exact(&mut self.0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            result => result?,
        }
        let length = u32::from_be_bytes([self.0[1], self.0[2], self.0[3], self.0[4]]) as usize;
        self.0.resize(1 + length.max(4), 0);
        stream.read_exact(&mut self.0[5..])?;
        Ok(true)
    }

    pub fn tag(&self) -> u8 {
        self.0[0]
    }

    pub fn body(&self) -> &[u8] {
        &self.0[5..]
    }

    /// Rows that a CommandComplete says were written; 0 of anything else.
    pub fn rows_written(&self) -> u64 {
        let tag = str::from_utf8(self.body()).unwrap_or_default().trim_end_matches('\0');
        let is_write =
            self.tag() == b'C' && ["INSERT", "UPDATE", "DELETE", "COPY"].iter().any(|word| tag.starts_with(word));
        let rows = tag.rsplit(' ').next().filter(|_| is_write);
        rows.and_then(|rows| rows.parse().ok()).unwrap_or(0)
    }

    /// SQLSTATE and message of an ErrorResponse.
    pub fn error(&self) -> (String, String) {
        let field = |letter: u8| {
            let field = self.body().split(|&byte| byte == 0).find(|field| field.first() == Some(&letter));
            field.map(|field| String::from_utf8_lossy(&field[1..]).into_owned()).unwrap_or_default()
        };
        (field(b'C'), field(b'M'))
    }
}

/// Writes a message.
pub fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    bytes.extend(((body.len() + 4) as u32).to_be_bytes());
    bytes.extend(body);
    bytes
}

/// The text up to the next zero byte, and what follows.
pub fn text(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    (&bytes[..end], bytes.get(end + 1..).unwrap_or_default())
}
