//! PostgreSQL's protocol, version 3, as far as recording and replaying need it ("Frontend/Backend Protocol" in its manual).

use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;

use sqlx::postgres::PgConnectOptions;

use crate::Outcome;

/// Bytes that are read or written at a time.
const CHUNK: usize = 1 << 16;

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
        let is_write = self.tag() == b'C' && ["INSERT", "UPDATE", "DELETE"].iter().any(|word| tag.starts_with(word));
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

/// A connection over which nothing goes but what is written here.
pub struct RawConnection {
    pub stream: TcpStream,
    reader: BufReader<TcpStream>,
    frame: Frame,
}

/// What came until the server was ready again.
#[derive(Default)]
pub struct Answer {
    pub rows: u64,
    /// SQLSTATE and message.
    pub error: Option<(String, String)>,
}

impl RawConnection {
    /// Connects to a server that asks for no password, as those of `scripts/services` do.
    pub fn connect(options: &PgConnectOptions) -> Outcome<RawConnection> {
        let stream = TcpStream::connect((options.get_host(), options.get_port()))?;
        stream.set_nodelay(true)?;
        let reader = BufReader::with_capacity(CHUNK, stream.try_clone()?);
        let mut connection = RawConnection { stream, reader, frame: Frame::default() };
        let database = options.get_database().unwrap_or("postgres");
        let parameters = format!("user\0{}\0database\0{database}\0\0", options.get_username());
        let mut startup = ((parameters.len() + 8) as u32).to_be_bytes().to_vec();
        startup.extend(196_608_u32.to_be_bytes());
        startup.extend(parameters.as_bytes());
        connection.stream.write_all(&startup)?;
        match connection.answer()?.error {
            Some((code, message)) => Err(format!("cannot replay: {message} ({code})").into()),
            None => Ok(connection),
        }
    }

    /// Reads until the server is ready.
    pub fn answer(&mut self) -> Outcome<Answer> {
        let mut answer = Answer::default();
        loop {
            match self.next()? {
                b'Z' => return Ok(answer),
                b'C' => answer.rows += self.frame.rows_written(),
                b'E' => answer.error = answer.error.or(Some(self.frame.error())),
                b'R' if self.frame.body() != [0; 4] => {
                    return Err("PostgreSQL asks for a password, which replaying cannot give: let 127.0.0.1 in by \
                                `trust` in pg_hba.conf, as scripts/services does where PostgreSQL is installed"
                        .into());
                }
                _ => {}
            }
        }
    }

    /// A statement without rows.
    pub fn execute(&mut self, sql: &str) -> Outcome<()> {
        self.query(sql)?;
        self.finish(sql)
    }

    /// Writes what a `copy ... to stdout` gives, one message after the other.
    pub fn copy_out(&mut self, sql: &str, to: &mut impl Write) -> Outcome<()> {
        self.query(sql)?;
        loop {
            match self.next()? {
                b'd' => to.write_all(self.frame.body())?,
                b'c' => return self.finish(sql),
                b'E' => return Err(format!("{sql}: {}", self.frame.error().1).into()),
                _ => {}
            }
        }
    }

    /// Gives everything that can be read to a `copy ... from stdin`.
    pub fn copy_in(&mut self, sql: &str, from: &mut impl Read) -> Outcome<()> {
        self.query(sql)?;
        while self.next()? != b'G' {
            if self.frame.tag() == b'E' {
                return Err(format!("{sql}: {}", self.frame.error().1).into());
            }
        }
        let mut chunk = vec![0; CHUNK];
        loop {
            match from.read(&mut chunk)? {
                0 => break,
                length => self.stream.write_all(&frame(b'd', &chunk[..length]))?,
            }
        }
        self.stream.write_all(&frame(b'c', &[]))?;
        self.finish(sql)
    }

    fn query(&mut self, sql: &str) -> Outcome<()> {
        Ok(self.stream.write_all(&frame(b'Q', format!("{sql}\0").as_bytes()))?)
    }

    fn finish(&mut self, sql: &str) -> Outcome<()> {
        match self.answer()?.error {
            Some((_, message)) => Err(format!("{sql}: {message}").into()),
            None => Ok(()),
        }
    }

    fn next(&mut self) -> Outcome<u8> {
        match self.frame.read(&mut self.reader)? {
            true => Ok(self.frame.tag()),
            false => Err("PostgreSQL has closed the connection".into()),
        }
    }
}
