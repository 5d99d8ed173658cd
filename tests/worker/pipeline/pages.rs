//! What a worker process shows over HTTP while it is in trouble, and what clients of its pages can do to it.

use std::net::TcpStream;
use std::process::Command;
use std::time::Instant;

use super::{Folder, stream};
use crate::common::database::{Database, PostgresDatabase};
use crate::common::settling::settled;
use crate::common::worker::{TIMEOUT, Worker, from_file, get};

#[tokio::test]
async fn pages_name_the_operation_and_the_cause_and_leave_the_text_of_the_database_to_the_log() {
    let folder = Folder::new("pages");
    let Some(database) = PostgresDatabase::create().await else { return };
    let events = stream::portfolio(&folder, 50);
    database
        .execute(
            "create function fail() returns trigger language plpgsql as $$ begin
                 raise exception 'no room for alice@db1 in /var/lib/secret' using errcode = '53100';
             end $$;
             create trigger fail before update on partition_progress for each row execute function fail()",
        )
        .await;
    let mut environment = from_file(&events, &database.url());
    environment.push(("SHRINKD__SOURCE__FILE__FOLLOW", "true".to_owned()));
    let worker = Worker::start(&environment, folder.path("worker.log"));
    let address = worker.http();
    let cause = "`ingest: fence` failed: the server is out of disk, memory or connections (SQLSTATE 53100)";
    let started = Instant::now();
    while !get(&address, "/readyz").contains(cause) {
        assert!(started.elapsed() < TIMEOUT, "{}", get(&address, "/readyz"));
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    for path in ["/", "/readyz", "/livez", "/metrics"] {
        let answer = get(&address, path);
        assert!(!answer.contains("alice") && !answer.contains("/var/lib"), "{path}: {answer}");
    }
    assert!(worker.log().contains("no room for alice@db1 in /var/lib/secret"), "{}", worker.log());

    // With as many connections held open as it has descriptors it still commits, and answers.
    let limited = Command::new("prlimit").args([&format!("--pid={}", worker.id()), "--nofile=256"]).status();
    assert!(limited.expect("util-linux's prlimit runs").success());
    let idle: Vec<TcpStream> = (0..400).map(|_| TcpStream::connect(&address).expect("it listens")).collect();
    database.execute("drop trigger fail on partition_progress").await;
    let length = std::fs::metadata(&events).expect("a file").len();
    settled(&database, i64::try_from(length).expect("a length")).await;
    assert!(get(&address, "/readyz").ends_with("\r\n\r\nok\n"));
    drop(idle);
    worker.stop();
    database.remove().await;
}
