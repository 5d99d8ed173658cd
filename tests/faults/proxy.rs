//! Stands between workers and PostgreSQL, and cuts a connection at the very place where it is told to.

use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;

use super::common::protocol::Frame;
use super::points::{Mark, Point, Request, Talk};

/// A listener for each worker, so that it is known whose connection it is.
#[derive(Clone)]
pub struct Proxy(Arc<Shared>);

struct Shared {
    server: (String, u16),
    armed: Mutex<Vec<Armed>>,
}

/// What happens to the next connection that comes to a place.
struct Armed {
    request: Request,
    /// Whether the server gets to see the request and to answer it first.
    is_answered: bool,
    /// Of this worker alone.
    worker: Option<usize>,
    /// Held until this is heard, and then let on; without it the connection is cut.
    release: Option<Receiver<()>>,
    reached: Sender<usize>,
}

/// Tells when the place was reached, and by which worker.
pub struct Shot(Receiver<usize>);

impl Shot {
    /// Waits for it.
    pub fn reached(&self, patience: Duration) -> Option<usize> {
        self.0.recv_timeout(patience).ok()
    }
}

impl Proxy {
    pub fn new(server: &PgConnectOptions) -> Proxy {
        let server = (server.get_host().to_owned(), server.get_port());
        Proxy(Arc::new(Shared { server, armed: Mutex::default() }))
    }

    /// Listens for the connections of one worker, on the port that is returned, for as long as this process runs.
    pub fn listen(&self, worker: usize) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let shared = Arc::clone(&self.0);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                // What ends a connection is nobody's fault here: servers are restarted and workers are killed.
                std::thread::spawn(move || shared.serve(client, worker).unwrap_or_default());
            }
        });
        port
    }

    /// Cuts the next connection that comes to this point.
    pub fn cut(&self, point: Point) -> Shot {
        let (request, is_answered) = point.place();
        self.arm(request, is_answered, None, None)
    }

    /// Holds the next statement of a kind, of one worker or of any, on its way to the server, until the sender is used.
    pub fn hold(&self, worker: Option<usize>, mark: Mark) -> (Shot, Sender<()>) {
        let (sender, release) = channel();
        (self.arm(Request::Statement(mark), false, worker, Some(release)), sender)
    }

    /// Forgets what was not reached.
    pub fn disarm(&self) {
        self.0.armed().clear();
    }

    fn arm(&self, request: Request, is_answered: bool, worker: Option<usize>, release: Option<Receiver<()>>) -> Shot {
        let (reached, shot) = channel();
        self.0.armed().push(Armed { request, is_answered, worker, release, reached });
        Shot(shot)
    }
}

/// What both directions of a connection know.
#[derive(Default)]
struct Counts {
    /// Requests that the server answers by saying that it is ready.
    asked: u64,
    /// The one after whose answer the connection is cut.
    last: Option<(u64, Armed)>,
}

impl Shared {
    fn armed(&self) -> MutexGuard<'_, Vec<Armed>> {
        lock(&self.armed)
    }

    fn take(&self, requests: &[Request], worker: usize) -> Option<Armed> {
        let mut armed = self.armed();
        let is_it = |one: &Armed| requests.contains(&one.request) && one.worker.is_none_or(|own| own == worker);
        armed.iter().position(is_it).map(|at| armed.remove(at))
    }

    fn serve(self: Arc<Shared>, client: TcpStream, worker: usize) -> io::Result<()> {
        let server = TcpStream::connect((self.server.0.as_str(), self.server.1))?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let counts = Arc::new(Mutex::new(Counts::default()));
        let (own, from, to) = (Arc::clone(&counts), server.try_clone()?, client.try_clone()?);
        std::thread::spawn(move || {
            let answered = answer(&from, &to, &own, worker);
            hang_up(&from, &to);
            answered.unwrap_or_default();
        });
        let asked = self.ask(&client, &server, &counts, worker);
        hang_up(&client, &server);
        asked
    }

    /// From the worker to PostgreSQL.
    fn ask(&self, client: &TcpStream, mut server: &TcpStream, counts: &Mutex<Counts>, worker: usize) -> io::Result<()> {
        let mut reader = BufReader::new(client);
        // The first message has no tag.
        let mut length = [0; 4];
        reader.read_exact(&mut length)?;
        let mut startup = vec![0; (u32::from_be_bytes(length) as usize).saturating_sub(4)];
        reader.read_exact(&mut startup)?;
        server.write_all(&[&length[..], &startup].concat())?;
        lock(counts).asked = 1;
        let (mut talk, mut frame) = (Talk::new(), Frame::default());
        while frame.read(&mut reader)? {
            if let Some(armed) = self.take(&talk.listen(&frame), worker) {
                match &armed.release {
                    Some(release) => {
                        let _ = armed.reached.send(worker);
                        // Also where nobody is left who could say it.
                        let _ = release.recv();
                    }
                    None if armed.is_answered => {
                        let mut counts = lock(counts);
                        counts.last = Some((counts.asked + 1, armed));
                    }
                    None => {
                        hang_up(client, server);
                        let _ = armed.reached.send(worker);
                        return Ok(());
                    }
                }
            }
            if matches!(frame.tag(), b'S' | b'Q') {
                lock(counts).asked += 1;
            }
            server.write_all(&frame.0)?;
        }
        Ok(())
    }
}

/// From PostgreSQL to the worker.
fn answer(server: &TcpStream, mut client: &TcpStream, counts: &Mutex<Counts>, worker: usize) -> io::Result<()> {
    let (mut reader, mut frame, mut answered) = (BufReader::new(server), Frame::default(), 0);
    // What belongs to one answer goes on when all of it is there, or not at all.
    let mut answer = Vec::new();
    while frame.read(&mut reader)? {
        answer.extend_from_slice(&frame.0);
        if frame.tag() == b'Z' {
            answered += 1;
            let mut counts = lock(counts);
            if let Some((_, armed)) = counts.last.take_if(|(last, _)| *last == answered) {
                hang_up(server, client);
                let _ = armed.reached.send(worker);
                return Ok(());
            }
        }
        // To the first part of an answer to a COPY the worker sends rows.
        let is_more = counts_a_cut(counts) && !matches!(frame.tag(), b'Z' | b'G');
        if !is_more {
            client.write_all(&answer)?;
            answer.clear();
        }
    }
    Ok(())
}

/// Whether an answer is to be kept back.
fn counts_a_cut(counts: &Mutex<Counts>) -> bool {
    lock(counts).last.is_some()
}

fn hang_up(one: &TcpStream, other: &TcpStream) {
    let _ = one.shutdown(Shutdown::Both);
    let _ = other.shutdown(Shutdown::Both);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
