//! PgBouncer before the PostgreSQL server of the tests.

use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::database::{Database, PostgresDatabase};
use super::folder::Folder;
use super::forward::closed_port;
use super::skipped::skipped;
use super::worker::TIMEOUT;

pub struct Pooler {
    child: Child,
    url: String,
    log: std::path::PathBuf,
}

impl Pooler {
    /// Starts it with a mode; `None`, with a message, where it is not installed.
    pub fn start(folder: &Folder, mode: &str, database: &PostgresDatabase) -> Option<Pooler> {
        let programs = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/usr/local/bin/pgbouncer"];
        let Some(program) = programs.into_iter().find(|program| Path::new(program).exists()) else {
            skipped("pgbouncer is not there (Debian's package `pgbouncer` has it)");
            return None;
        };
        let server = database.url();
        let (_, rest) = server.split_once('@').expect("a user");
        let (address, name) = rest.split_once('/').expect("a database");
        let (host, server_port) = address.rsplit_once(':').expect("a port");
        let port = closed_port();
        let (settings, log) = (folder.path("pgbouncer.ini"), folder.path("pgbouncer.log"));
        let text = format!(
            "[databases]\n* = host={host} port={server_port} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = {mode}\n"
        );
        std::fs::write(&settings, text).expect("a file");
        let mut command = Command::new(program);
        // It refuses to run as root.
        if std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0) {
            command.args(["-u", "nobody"]);
        }
        let output = std::fs::File::create(&log).expect("a log file");
        let child = command.arg(&settings).stdin(Stdio::null()).stderr(output).spawn().expect("pgbouncer runs");
        let pooler = Pooler { child, url: format!("postgres://postgres@127.0.0.1:{port}/{name}"), log };
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(started.elapsed() < TIMEOUT, "{}", std::fs::read_to_string(&pooler.log).unwrap_or_default());
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(pooler)
    }

    /// The database through it.
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
