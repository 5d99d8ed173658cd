//! What the worker serves over HTTP: pages that are safe, and a server that no client can make the worker suffer for.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use shrinkd::http::{self, Site};
use shrinkd::telemetry::health::{Health, Operation};
use shrinkd::telemetry::metrics::{PopulationCounts, PopulationSummary};
use tokio::sync::oneshot;

use super::telemetry::{busy, population, report, summary};

/// The site of a test, served until it is dropped.
struct Served {
    address: SocketAddr,
    site: Site,
    shutdown: Option<oneshot::Sender<()>>,
    server: Option<std::thread::JoinHandle<()>>,
}

impl Served {
    fn new(source: &str) -> Served {
        let site = Site { source: source.to_owned(), metrics: busy(), health: Health::new() };
        let (shutdown, is_shut_down) = oneshot::channel::<()>();
        let (found, address) = std::sync::mpsc::channel();
        let served = site.clone();
        let server = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = http::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a free port");
                found.send(listener.local_addr().expect("it listens")).expect("the test waits");
                http::serve(listener, served, async { drop(is_shut_down.await) }).await;
            });
        });
        let address = address.recv().expect("it listens");
        Served { address, site, shutdown: Some(shutdown), server: Some(server) }
    }

    /// The status and the rest of the answer, headers included.
    fn get(&self, path: &str) -> (u16, String) {
        self.ask(format!("GET {path} HTTP/1.1\r\nHost: shrinkd\r\n\r\n").as_bytes())
    }

    /// The answer to a request, which ends with the connection.
    fn ask(&self, request: &[u8]) -> (u16, String) {
        let mut stream = self.connect();
        stream.write_all(request).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("UTF-8");
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.expect("a status"), answer)
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("it accepts");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        stream
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.shutdown.take().map(|shutdown| shutdown.send(()));
        let server = self.server.take().expect("it was started");
        server.join().expect("it does not panic");
    }
}

#[test]
fn metrics_are_served_in_the_format_of_prometheus() {
    let served = Served::new("stdin");
    let (status, answer) = served.get("/metrics");
    assert_eq!(status, 200);
    assert!(answer.contains("content-type: text/plain; version=0.0.4"), "{answer}");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    assert!(body.contains("\nshrinkd_owned_partitions 1\n"), "{body}");
    assert!(body.contains(&format!("shrinkd_build_info{{version=\"{}\"}} 1\n", env!("CARGO_PKG_VERSION"))), "{body}");
}

#[test]
fn health_is_served_as_a_status_and_one_line() {
    let served = Served::new("stdin");
    assert_eq!(served.get("/livez").0, 200);
    let (status, answer) = served.get("/readyz");
    assert_eq!(status, 503);
    assert!(answer.ends_with("\r\n\r\nconnect: not connected yet; group: not joined yet\n"), "{answer}");
    served.site.health.succeeded(Operation::Group);
    served.site.health.succeeded(Operation::Connect);
    let (status, answer) = served.get("/readyz");
    assert!(status == 200 && answer.ends_with("\r\n\r\nok\n"), "{answer}");
}

#[test]
fn the_status_page_shows_the_worker_and_needs_nothing_from_elsewhere() {
    let served = Served::new("Kafka topic completed-experiments");
    let (status, answer) = served.get("/");
    assert_eq!(status, 200);
    for shown in [
        "Kafka topic completed-experiments",
        "<bdi>conversion</bdi>/<bdi>all</bdi>/<bdi>relative</bdi>",
        "0.2500",
        "material",
        "1 owned",
    ] {
        assert!(answer.contains(shown), "{shown}: {answer}");
    }
    for elsewhere in ["http://", "https://", "<script", "src=", "@import", "url("] {
        assert!(!answer.contains(elsewhere), "{elsewhere}");
    }
}

#[test]
fn the_status_page_marks_partitions_that_are_halted() {
    let served = Served::new("stdin");
    let halted = "<strong>halted</strong>, see <code>shrinkd partitions</code>";
    assert!(!served.get("/").1.contains(halted));
    served.site.metrics.set_halted(0, true);
    assert_eq!(served.get("/").1.matches(halted).count(), 1);
}

#[test]
fn the_status_page_names_populations_that_failed() {
    let served = Served::new("stdin");
    assert!(!served.get("/").1.contains("failed"));
    let failed = PopulationSummary { has_failed: true, mu: None, tau: None, ..summary() };
    let populations = [(population("sound"), summary()), (population("unsound"), failed)].into();
    let counts = PopulationCounts { all: 2, failed: 1, ..PopulationCounts::default() };
    served.site.metrics.set_populations(counts, populations, None);
    let (_, answer) = served.get("/");
    assert!(answer.contains("<small>2, <span class=\"bad\">1 failed</span></small>"), "{answer}");
    let rows: Vec<&str> = answer.lines().filter(|line| line.contains(">failed<")).collect();
    assert!(matches!(rows[..], [row] if row.contains("<bdi>unsound</bdi>")), "{rows:?}");
}

#[test]
fn nothing_that_comes_from_events_can_become_markup() {
    let served = Served::new("<b>'source'</b>");
    report(&served.site.metrics, [(population("<script>alert(\"1\")</script>&"), summary())]);
    served.site.health.failed(Operation::Ingest, "<img src=x>");
    let (_, answer) = served.get("/");
    assert!(answer.contains("&lt;script&gt;alert(&quot;1&quot;)&lt;%2Fscript&gt;&amp;</bdi>/"), "{answer}");
    assert!(answer.contains("&lt;b&gt;&#39;source&#39;&lt;/b&gt;") && answer.contains("&lt;img src=x&gt;"), "{answer}");
    assert!(answer.contains("content-security-policy: default-src 'none'"), "{answer}");
}

#[test]
fn what_is_not_there_is_not_found_and_nothing_can_be_changed() {
    let served = Served::new("stdin");
    assert_eq!(served.get("/admin").0, 404);
    assert_eq!(served.ask(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").0, 405);
}

#[test]
fn an_address_that_is_taken_is_named_with_what_to_do() {
    let served = Served::new("stdin");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let error = runtime.block_on(http::bind(served.address)).expect_err("it is taken").to_string();
    assert!(error.contains(&served.address.to_string()) && error.contains("http.listen"), "{error}");
}

/// Names in three ways of misleading a reader: text from right to left, a character that reverses what follows it, and one that
/// is not seen.
#[test]
fn names_cannot_reorder_or_hide_what_stands_beside_them() {
    let served = Served::new("topic\u{2066}");
    let names =
        ["\u{5d4}\u{5de}\u{5e8}\u{5d4}", "safe\u{202e}live", "in\u{200b}visible\u{7}", "\u{646}\u{6cc}\u{200c}\u{645}"];
    report(&served.site.metrics, names.map(|name| (population(name), summary())));
    let (_, answer) = served.get("/");
    let shown = |code: &str| format!("<span class=\"hidden\">{code}</span>");
    for expected in [
        "<td><bdi>\u{5d4}\u{5de}\u{5e8}\u{5d4}</bdi>/<bdi>all</bdi>/<bdi>relative</bdi></td>".to_owned(),
        format!("<td><bdi>safe{}live</bdi>/", shown("U+202E")),
        format!("<td><bdi>in{}visible{}</bdi>/", shown("U+200B"), shown("U+0007")),
        // A joiner within a Persian word belongs to it.
        "<bdi>\u{646}\u{6cc}\u{200c}\u{645}</bdi>/".to_owned(),
        format!("<bdi>topic{}</bdi>", shown("U+2066")),
    ] {
        assert!(answer.contains(&expected), "{expected}: {answer}");
    }
}

/// Against DNS rebinding there is nothing to protect but what is read, so no answer may depend on the name.
#[test]
fn no_answer_depends_on_the_name_by_which_the_server_is_called() {
    let served = Served::new("stdin");
    // Their lag in seconds is another one with each answer.
    served.site.metrics.release_partitions(&[0]);
    let without_date = |(status, answer): (u16, String)| {
        let lines = answer.lines().filter(|line| !line.starts_with("date: ")).map(str::to_owned);
        (status, lines.collect::<Vec<_>>())
    };
    for path in ["/", "/metrics", "/livez", "/readyz", "/elsewhere"] {
        let usual = without_date(served.get(path));
        for head in [
            format!("GET {path} HTTP/1.1\r\nHost: evil.example\r\n\r\n"),
            format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:1\r\nX-Forwarded-Host: evil.example\r\n\r\n"),
            format!("GET {path} HTTP/1.1\r\nHost: a\r\nHost: <script>\r\nOrigin: http://evil.example\r\n\r\n"),
            format!("GET {path} HTTP/1.1\r\nHost: \u{202e}\r\n\r\n"),
            format!("GET {path} HTTP/1.1\r\n\r\n"),
            format!("GET http://evil.example{path} HTTP/1.1\r\nHost: evil.example\r\n\r\n"),
        ] {
            assert!(without_date(served.ask(head.as_bytes())) == usual, "{head}");
        }
        let headers = usual.1.join("\n");
        for dependent in ["location:", "set-cookie:", "access-control-", "127.0.0.1", "shrinkd:"] {
            assert!(!headers.contains(dependent), "{dependent}: {headers}");
        }
    }
}

/// How long until the server closes a connection on which so many bytes of a request come each second.
fn closed_after(mut stream: TcpStream, bytes_each_second: usize) -> Duration {
    let started = Instant::now();
    stream.write_all(b"GET /livez HTTP/1.1\r\nX-Slow: ").expect("sent");
    stream.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
    loop {
        match stream.read(&mut [0; 512]) {
            Ok(0) => return started.elapsed(),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return started.elapsed(),
            Ok(_) => {}
            Err(error) => panic!("{error}"),
        }
        assert!(started.elapsed() < Duration::from_secs(20), "it is still open");
        let _ = stream.write_all(&vec![b'x'; bytes_each_second]);
    }
}

#[test]
fn a_head_that_comes_slowly_or_not_at_all_is_not_waited_for() {
    let served = Served::new("stdin");
    let slow = std::thread::spawn({
        let stream = served.connect();
        move || closed_after(stream, 1)
    });
    let silent = std::thread::spawn({
        let mut stream = served.connect();
        move || {
            let started = Instant::now();
            let _ = stream.read(&mut [0]).expect("it is closed");
            started.elapsed()
        }
    });
    for (kind, thread) in [("slow", slow), ("silent", silent)] {
        let open_for = thread.join().expect("it does not panic");
        assert!((4..10).contains(&open_for.as_secs()), "{kind}: {open_for:?}");
    }
    assert_eq!(served.get("/livez").0, 200);
}

#[test]
fn a_connection_is_closed_after_its_answer_and_a_head_has_a_largest_size() {
    let served = Served::new("stdin");
    let started = Instant::now();
    let (status, answer) = served.get("/livez");
    assert_eq!(status, 200);
    assert!(answer.to_lowercase().contains("connection: close"), "{answer}");
    assert!(started.elapsed() < Duration::from_secs(2), "it was kept open");
    let head = format!("GET /livez HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(15_000));
    assert_eq!(served.ask(head.as_bytes()).0, 200);
    let head = format!("GET /livez HTTP/1.1\r\nX: {}", "x".repeat(16 << 10));
    assert_eq!(served.ask(head.as_bytes()).0, 431);
}

#[test]
fn clients_that_hold_connections_open_lock_nobody_out() {
    let served = Served::new("stdin");
    let mut idle: Vec<TcpStream> = (0..300).map(|_| served.connect()).collect();
    let started = Instant::now();
    assert_eq!(served.get("/metrics").0, 200);
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    // The oldest were closed for the newest.
    assert_eq!(idle[0].read(&mut [0]).expect("it is closed"), 0);
    let newest = idle.last_mut().expect("a connection");
    newest.write_all(b"GET /livez HTTP/1.1\r\n\r\n").expect("sent");
    let mut answer = String::new();
    newest.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[test]
fn an_open_request_does_not_hold_up_the_shutdown() {
    let served = Served::new("stdin");
    let mut half = served.connect();
    half.write_all(b"GET / HTTP/1.1\r\n").expect("sent");
    assert_eq!(served.get("/livez").0, 200, "the other was accepted before");
    let started = Instant::now();
    drop(served);
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
}
