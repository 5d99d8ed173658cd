//! The wire protocol of PostgreSQL, as far as replaying a recording needs it.

use std::io::{BufReader, Read, Write};
use std::net::TcpStream;

use sqlx::postgres::PgConnectOptions;

use crate::Outcome;
pub use crate::protocol::{Frame, frame, text};

/// Bytes that are read or written at a time.
const CHUNK: usize = 1 << 16;

/// A connection that sends only what is written to it.
pub struct RawConnection {
    pub stream: TcpStream,
    reader: BufReader<TcpStream>,
    frame: Frame,
}

/// The response of the server, up to ReadyForQuery.
#[derive(Default)]
pub struct Answer {
    pub rows: u64,
    /// SQLSTATE and message.
    pub error: Option<(String, String)>,
}

impl RawConnection {
    /// Connects to a server that does not require a password, such as that of `scripts/services`.
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

    /// Writes the output of a `copy ... to stdout`, message by message.
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

    /// Sends everything from a reader to a `copy ... from stdin`.
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
