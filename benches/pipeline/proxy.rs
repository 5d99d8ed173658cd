//! A proxy between a worker and PostgreSQL that records what the worker writes, with a thread for each direction of a connection.
//! Prepared statements get names that are valid on all connections. Statements that only read are left out.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use sqlx::postgres::PgConnectOptions;

use crate::recording::Recording;
use crate::wire::{Frame, frame, text};
use crate::{Outcome, report};

/// A proxy that listens until it is finished.
pub struct Proxy {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: JoinHandle<()>,
}

/// State that all connections share.
struct Shared {
    server: (String, u16),
    /// Orders requests and responses over all connections.
    clock: AtomicU64,
    is_over: AtomicBool,
    statements: Mutex<Statements>,
    tapes: Mutex<Vec<Arc<Mutex<Tape>>>>,
}

/// The numbers of prepared statements, by text and parameter types.
#[derive(Default)]
struct Statements {
    numbers: HashMap<Vec<u8>, usize>,
    all: Vec<Statement>,
}

/// A statement that was prepared, or a COPY.
#[derive(Clone)]
pub struct Statement {
    pub sql: String,
    /// The text and the types of the parameters, as in Parse; empty of a COPY.
    pub prepared: Vec<u8>,
}

impl Statement {
    pub fn is_read(&self) -> bool {
        // After the comment with the name.
        let sql = self.sql.split_once("*/").map_or(self.sql.as_str(), |(_, sql)| sql);
        sql.trim_start().to_ascii_lowercase().starts_with("select")
    }

    /// Whether its rows are on their way to a table, which another statement puts them into.
    pub fn is_stage(&self) -> bool {
        self.prepared.is_empty() && self.sql.contains("copy pg_temp.")
    }
}

/// The recording of one connection.
pub struct Tape {
    pub file: File,
    pub written: u64,
    pub steps: Vec<Step>,
    pub answers: Vec<Answered>,
}

/// Messages that were sent before waiting for the response.
pub struct Step {
    pub time: u64,
    /// The range in the file; empty if the messages only read.
    pub at: u64,
    pub length: usize,
    pub statement: Option<usize>,
    /// `BEGIN` and the like, which are not prepared.
    pub simple: Option<String>,
}

/// The server reported that it is ready.
pub struct Answered {
    pub time: u64,
    pub is_in_transaction: bool,
    pub rows: u64,
}

impl Proxy {
    /// Starts to forward connections to a server.
    pub fn start(server: &PgConnectOptions) -> Outcome<Proxy> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            server: (server.get_host().to_owned(), server.get_port()),
            clock: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
            statements: Mutex::default(),
            tapes: Mutex::default(),
        });
        let own = Arc::clone(&shared);
        let acceptor = std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if own.is_over.load(Ordering::Relaxed) {
                    return;
                }
                let own = Arc::clone(&own);
                std::thread::spawn(move || own.serve(client).unwrap_or_else(|error| eprintln!("proxy: {error}")));
            }
        });
        Ok(Proxy { address, shared, acceptor })
    }

    /// Returns the recording, once the worker has ended.
    pub fn finish(self) -> Outcome<Recording> {
        self.shared.is_over.store(true, Ordering::Relaxed);
        // A connection wakes the acceptor, which then notices the end.
        drop(TcpStream::connect(self.address)?);
        self.acceptor.join().map_err(|_| "the proxy has panicked")?;
        let statements = std::mem::take(&mut lock(&self.shared.statements).all);
        let tapes = std::mem::take(&mut *lock(&self.shared.tapes));
        Recording::new(statements, &tapes)
    }
}

impl Shared {
    fn serve(self: Arc<Shared>, client: TcpStream) -> io::Result<()> {
        let server = TcpStream::connect((self.server.0.as_str(), self.server.1))?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(report::unique("tape"));
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        // The file is deleted when it is closed.
        std::fs::remove_file(path)?;
        let tape = Tape { file, written: 0, steps: Vec::new(), answers: Vec::new() };
        let tape = Arc::new(Mutex::new(tape));
        lock(&self.tapes).push(Arc::clone(&tape));
        let (own, answers) = (Arc::clone(&self), Arc::clone(&tape));
        let (from, to) = (server.try_clone()?, client.try_clone()?);
        std::thread::spawn(move || own.answer(from, to, &answers).unwrap_or_default());
        self.ask(client, server, &tape)
    }

    /// From the worker to PostgreSQL.
    fn ask(&self, client: TcpStream, server: TcpStream, tape: &Mutex<Tape>) -> io::Result<()> {
        let mut reader = BufReader::with_capacity(1 << 16, client);
        let mut writer = BufWriter::with_capacity(1 << 16, &server);
        // The first message has no tag.
        let mut length = [0; 4];
        reader.read_exact(&mut length)?;
        let mut startup = vec![0; (u32::from_be_bytes(length) as usize).saturating_sub(4)];
        reader.read_exact(&mut startup)?;
        writer.write_all(&length)?;
        writer.write_all(&startup)?;
        writer.flush()?;
        let mut taker = Taker::default();
        let mut frame = Frame::default();
        while frame.read(&mut reader)? {
            taker.take(&frame, self, tape)?;
            writer.write_all(&frame.0)?;
            if reader.buffer().is_empty() {
                writer.flush()?;
            }
        }
        writer.flush()?;
        server.shutdown(std::net::Shutdown::Write)
    }

    /// From PostgreSQL to the worker.
    fn answer(&self, server: TcpStream, client: TcpStream, tape: &Mutex<Tape>) -> io::Result<()> {
        let mut reader = BufReader::with_capacity(1 << 16, server);
        let mut writer = BufWriter::with_capacity(1 << 16, client);
        let mut frame = Frame::default();
        let mut rows = 0;
        while frame.read(&mut reader)? {
            rows += frame.rows_written();
            if frame.tag() == b'Z' {
                let is_in_transaction = frame.body() != b"I";
                lock(tape).answers.push(Answered { time: self.tick(), is_in_transaction, rows });
                rows = 0;
            }
            writer.write_all(&frame.0)?;
            if reader.buffer().is_empty() {
                writer.flush()?;
            }
        }
        Ok(())
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }

    /// The number of a statement, and whether it only reads.
    fn statement(&self, prepared: &[u8]) -> (usize, bool) {
        let sql = String::from_utf8_lossy(text(prepared).0).into_owned();
        self.number(prepared, Statement { sql, prepared: prepared.to_vec() })
    }

    fn number(&self, key: &[u8], statement: Statement) -> (usize, bool) {
        let mut statements = lock(&self.statements);
        let next = statements.all.len();
        let number = *statements.numbers.entry(key.to_vec()).or_insert(next);
        if number == next {
            statements.all.push(statement);
        }
        (number, statements.all[number].is_read())
    }
}

/// Records the messages of one connection.
#[derive(Default)]
struct Taker {
    /// The names of statements on this connection.
    names: HashMap<Vec<u8>, (usize, bool)>,
    time: Option<u64>,
    bytes: Vec<u8>,
    statement: Option<usize>,
}

impl Taker {
    fn take(&mut self, message: &Frame, shared: &Shared, tape: &Mutex<Tape>) -> io::Result<()> {
        let time = *self.time.get_or_insert_with(|| shared.tick());
        match message.tag() {
            b'P' => {
                let (name, prepared) = text(message.body());
                self.names.insert(name.to_vec(), shared.statement(prepared));
            }
            b'B' => {
                let (portal, rest) = text(message.body());
                let (name, values) = text(rest);
                let known = self.names.get(name).copied();
                let (number, is_read) = known.ok_or_else(|| io::Error::other("Bind of an unknown statement"))?;
                self.statement = (!is_read).then_some(number);
                if !is_read {
                    let body = [portal, b"\0", name_of(number).as_bytes(), b"\0", values].concat();
                    self.bytes.extend(frame(b'B', &body));
                }
            }
            // Closes a portal: a replay never closes statements.
            b'E' | b'C' if self.statement.is_some() && message.body().first() != Some(&b'S') => {
                self.bytes.extend(&message.0);
            }
            b'S' => {
                if self.statement.is_some() {
                    self.bytes.extend(&message.0);
                }
                self.end(time, None, tape)?;
            }
            b'Q' => {
                self.bytes.extend(&message.0);
                let sql = String::from_utf8_lossy(text(message.body()).0).into_owned();
                if sql.contains("from stdin") {
                    // Its rows follow.
                    let (number, _) = shared.number(message.body(), Statement { sql, prepared: Vec::new() });
                    self.statement = Some(number);
                } else {
                    self.end(time, Some(sql), tape)?;
                }
            }
            b'd' => self.bytes.extend(&message.0),
            b'c' => {
                self.bytes.extend(&message.0);
                self.end(time, None, tape)?;
            }
            // Passwords, Describe, Flush, Terminate.
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, time: u64, simple: Option<String>, tape: &Mutex<Tape>) -> io::Result<()> {
        let mut tape = lock(tape);
        tape.file.write_all(&self.bytes)?;
        let (at, length) = (tape.written, self.bytes.len());
        tape.written += length as u64;
        tape.steps.push(Step { time, at, length, statement: self.statement, simple });
        (self.bytes, self.statement, self.time) = (Vec::new(), None, None);
        Ok(())
    }
}

/// The name of a statement on every connection of a replay.
pub fn name_of(statement: usize) -> String {
    format!("statement_{statement}")
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
