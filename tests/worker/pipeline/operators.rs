//! `shrinkd partitions resume` and `skip`: which partition they mean, what they refuse, what they show, and whom they record.

use std::io::{Read, Write};
use std::process::{Child, Command, Output, Stdio};

use rdkafka::producer::{BaseRecord, Producer as _};
use shrinkd::config::KafkaConfig;
use shrinkd::worker::source::kafka::read_range;
use shrinkd_core::KeyRule;

use super::halts::partitions;
use super::truth::{Truth, check};
use super::{Folder, stream};
use crate::common::database::{Database, PostgresDatabase, SqliteDatabase};
use crate::common::program::{printed, shrinkd};
use crate::common::role::Role;
use crate::common::settling::{settled, wait};
use crate::common::skipped::skipped;
use crate::common::topic::Topic;
use crate::common::worker::{Environment, TIMEOUT, Worker, from_file, from_kafka};

/// A line of 21 bytes.
const UNREADABLE: &str = "{\"a\":\"not an event\"}\n";

/// Text in one line, however it was wrapped.
fn unwrapped(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What a command said that is to be refused, with nothing changed.
fn refused(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    stderr
}

/// The environment of a topic that nobody reads, for commands that only need its name.
fn unread(topic: &str, database: &impl Database) -> Environment {
    vec![
        ("SHRINKD__SOURCE__KAFKA__BROKERS", "127.0.0.1:1".to_owned()),
        ("SHRINKD__SOURCE__KAFKA__TOPIC", topic.to_owned()),
        ("SHRINKD__STORE__URL", database.url()),
    ]
}

#[tokio::test]
async fn skipping_moves_the_partition_that_has_this_number_on_the_broker_and_no_other() {
    let folder = Folder::new("number");
    let Some(database) = PostgresDatabase::create().await else { return };
    let topic = Topic::new(4).await;
    let events = stream::portfolio(&folder, 100);
    let records = stream::count(&events);
    topic.produce_to(3, &UNREADABLE.repeat(50));
    topic.produce(&events);
    let mut environment = from_kafka(&topic, &database.url());
    environment.push(("SHRINKD__DEAD_LETTERS__IN_A_ROW", "20".to_owned()));
    let worker = Worker::start(&environment, folder.path("worker.log"));
    let halted = "select count(*) from partition_progress where halted_at is not null and next_offset = 20";
    wait(&database, halted, |n| n == 1).await;
    // Log, list, metric and alert say 3; the key of that row is another number.
    let list = printed(&partitions(&environment, &[]));
    assert!(list.contains("shrinkd partitions skip 3 --to OFFSET --because REASON"), "{list}");

    let skip = |arguments: &[&str]| partitions(&environment, &[&["skip"], arguments].concat());
    let because = ["--because", "of another topic"];
    let say = |partition: &str, to: &str| refused(&skip(&[&[partition, "--to", to, "--yes"], &because[..]].concat()));
    assert!(say("2", "50").contains("partition 2 of ") && say("2", "50").contains("is not halted"));
    assert!(say("7", "50").contains("there is no partition 7"));
    assert!(say("3", "100000").contains("its source has offsets from 0 to "));
    assert!(say("3", "20").contains("it can only be skipped forwards"));
    assert!(refused(&skip(&["3", "--to", "50", "--yes", "--because", " "])).contains("expected a reason"));
    assert!(refused(&skip(&[&["3", "--to", "50"], &because[..]].concat())).contains("use --yes"));
    assert!(refused(&partitions(&environment, &["resume", "2"])).contains("is not halted"));
    database
        .execute("insert into partition_progress (cluster_id, topic, topic_id, partition_number, epoch, owner, halted_at, halt_reason, halt_detail)
                  select 'former', topic, topic_id, 0, 1, '', now(), 'dead_letters', '' from partition_progress limit 1")
        .await;
    let former = skip(&[&["0", "--cluster", "former", "--to", "1", "--yes"], &because[..]].concat());
    assert!(refused(&former).contains("is in the cluster former, but "));
    assert_eq!(database.count("select count(*)::text from skipped_offsets").await, 0);
    database.execute("delete from partition_progress where cluster_id = 'former'").await;

    let done = unwrapped(&printed(&skip(&[&["3", "--to", "50", "--yes"], &because[..]].concat())));
    assert!(done.contains("the broker has offsets 20 to 49 (30), with 30 records, produced from 20"), "{done}");
    settled(&database, records + 50).await;
    let log = worker.log();
    assert!(log.contains("`shrinkd partitions resume 3` resumes it"), "{log}");
    worker.stop();
    let skipped = "select partition_number || ' ' || from_offset || ' ' || to_offset from skipped_offsets";
    assert_eq!(database.texts(skipped).await, [Some("3 20 50".to_owned())]);
    let mut truth = Truth::of(&events);
    *truth.refused.entry("schema_violation".to_owned()).or_default() += 20;
    check(&database, &truth).await;
    topic.remove().await;
    database.remove().await;
}

#[tokio::test]
async fn a_forced_skip_shuts_out_the_owner_that_is_reading_and_loses_nothing_else() {
    let folder = Folder::new("forced");
    let Some(database) = PostgresDatabase::create().await else { return };
    let topic = Topic::new(1).await;
    let events = stream::portfolio(&folder, 50);
    let records = stream::count(&events);
    topic.produce(&events);
    // By the newer group protocol, which the command's own consumer has to get along with too.
    let mut environment = from_kafka(&topic, &database.url());
    environment.retain(|(name, _)| !name.contains("PROPERTIES"));
    environment.push(("SHRINKD__SOURCE__KAFKA__PROPERTIES__GROUP_PROTOCOL", "consumer".to_owned()));
    let worker = Worker::start(&environment, folder.path("worker.log"));
    settled(&database, records).await;
    // It has read these, or will, when the partition moves over the first ten.
    worker.signal("STOP");
    topic.produce(&events);
    let to = (records + 10).to_string();
    let skip = ["skip", "0", "--to", &to, "--because", "a test", "--yes", "--force"];
    let done = unwrapped(&printed(&partitions(&environment, &skip)));
    assert!(done.contains("with 10 records, produced from 20"), "{done}");
    worker.signal("CONT");
    settled(&database, 2 * records).await;
    worker.stop();
    assert_eq!(database.count("select sum(to_offset - from_offset)::text from skipped_offsets").await, 10);
    printed(&shrinkd(&environment, &["verify"]));
    topic.remove().await;
    database.remove().await;
}

#[tokio::test]
async fn a_topic_of_two_clusters_or_another_one_than_the_configured_is_named() {
    let database = SqliteDatabase::create().await.expect("a file");
    database
        .execute(
            "insert into partition_progress (cluster_id, topic, topic_id, partition_number, next_offset, epoch, owner,
                                             claimed_at, halted_at, halt_reason, halt_detail)
             select cluster, topic, '', 3, 7, 1, 'worker', '2026-01-01T00:00:00.000000000Z', '2026-01-01T00:00:00.000000000Z',
                    'dead_letters', 'too many'
             from (select 'A' as cluster, 'experiments' as topic union select 'B', 'experiments' union select 'A', 'others'
                   union select 'shrinkd', 'rejected_events')",
        )
        .await;
    let environment = unread("experiments", &database);
    let halted = || {
        database
            .texts("select cluster_id || ' ' || topic from partition_progress where halted_at is not null order by 1")
    };
    let several = refused(&partitions(&environment, &["resume", "3"]));
    assert!(several.contains("choose one with --cluster (A or B)"), "{several}");
    let list = printed(&partitions(&environment, &[]));
    assert!(list.contains("cluster") && list.contains("shrinkd partitions resume 3 --topic 'others'"), "{list}");
    assert!(!list.contains("rejected_events"), "replays are no partition that can be moved: {list}");
    let replays = partitions(&environment, &["resume", "3", "--topic", "rejected_events"]);
    assert!(refused(&replays).contains("there is no partition 3 of rejected_events"));

    printed(&partitions(&environment, &["resume", "3", "--cluster", "B"]));
    assert_eq!(joined(halted().await), "A experiments|A others|shrinkd rejected_events");
    printed(&partitions(&environment, &["resume", "3", "--topic", "others"]));
    assert_eq!(joined(halted().await), "A experiments|shrinkd rejected_events");
    printed(&partitions(&environment, &["resume", "3", "--cluster", "A"]));
    let elsewhere = unread("elsewhere", &database);
    assert!(refused(&partitions(&elsewhere, &["resume", "3"])).contains("there is no partition 3 of elsewhere"));
}

fn joined(texts: Vec<Option<String>>) -> String {
    texts.into_iter().flatten().collect::<Vec<_>>().join("|")
}

/// A file whose only partition has halted at its twentieth line, on SQLite.
struct HaltedFile {
    database: SqliteDatabase,
    environment: Environment,
    folder: Folder,
}

impl HaltedFile {
    fn new(name: &str) -> HaltedFile {
        let folder = Folder::new(name);
        let database = SqliteDatabase::absent();
        let junk = folder.path("junk.ndjson");
        std::fs::write(&junk, UNREADABLE.repeat(50)).expect("a file");
        let mut environment = from_file(&junk, &database.url());
        environment.push(("SHRINKD__DEAD_LETTERS__IN_A_ROW", "20".to_owned()));
        let log = Worker::start(&environment, folder.path("worker.log")).ends_with(1);
        assert!(log.contains("`shrinkd partitions resume 0`"), "{log}");
        HaltedFile { database, environment, folder }
    }

    async fn skipped(&self) -> Vec<Option<String>> {
        self.database.texts("select from_offset || ' ' || to_offset || ' ' || skipped_by from skipped_offsets").await
    }
}

#[tokio::test]
async fn a_file_is_skipped_by_whole_lines_and_the_user_of_the_process_is_recorded() {
    let file = HaltedFile::new("lines");
    let skip =
        |to: &str| partitions(&file.environment, &["skip", "0", "--to", to, "--because", "of another file", "--yes"]);
    assert!(refused(&skip("423")).contains("no line begins at offset 423"));
    assert!(refused(&skip("2000")).contains("its source has offsets from 0 to 1050"));
    let forged = [("USER", "somebody_else".to_owned()), ("SUDO_USER", "alice\n".to_owned())];
    let environment = [file.environment.as_slice(), &forged].concat();
    let skip = partitions(&environment, &["skip", "0", "--to", "441", "--because", "of another file", "--yes"]);
    let done = printed(&skip);
    assert!(done.contains("the file has offsets 420 to 440 (21), with 1 line"), "{done}");
    let skipped = joined(file.skipped().await);
    let uid = Command::new("id").arg("-u").output().expect("id runs").stdout;
    let uid = String::from_utf8(uid).expect("a number");
    // Users of a directory service are not in there.
    let passwd = std::fs::read_to_string("/etc/passwd").expect("it can be read");
    let user = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|user| user[2] == uid.trim());
    let name = user.as_ref().map_or("unknown", |user| user[0]);
    let by = format!("{name} (uid {}, sudo by alice\\n) on ", uid.trim());
    assert!(skipped.starts_with("420 441 ") && skipped.contains(&by), "{by} in {skipped}");
    assert!(!skipped.contains("somebody_else"), "{skipped}");
}

#[tokio::test]
async fn the_right_to_read_is_not_enough_to_skip_or_to_resume() {
    let Some(database) = PostgresDatabase::create().await else { return };
    let folder = Folder::new("no-right");
    let junk = folder.path("junk.ndjson");
    std::fs::write(&junk, UNREADABLE.repeat(50)).expect("a file");
    let mut environment = from_file(&junk, &database.url());
    environment.push(("SHRINKD__DEAD_LETTERS__IN_A_ROW", "20".to_owned()));
    Worker::start(&environment, folder.path("worker.log")).ends_with(1);
    let role = Role::create(&database).await;
    role.grant_as("shrinkd_auditor").await;
    environment.push(("SHRINKD__STORE__URL", role.url("right")));
    for arguments in [&["resume", "0"][..], &["skip", "0", "--to", "441", "--because", "a test", "--yes"]] {
        let output = partitions(&environment, arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("42501"), "{stderr}");
    }
    role.remove().await;
    assert_eq!(
        database
            .count("select count(*)::text from partition_progress where next_offset = 420 and halted_at is not null")
            .await,
        1
    );
    assert_eq!(database.count("select count(*)::text from skipped_offsets").await, 0);
    database.remove().await;
}

#[tokio::test]
async fn the_commands_of_the_list_work_as_they_are_printed() {
    let mut file = HaltedFile::new("printed");
    let config = file.folder.path("it's a file.toml");
    std::fs::write(&config, format!("store.url = \"{}\"\n", file.database.url())).expect("a file");
    file.environment.retain(|(name, _)| *name != "SHRINKD__STORE__URL");
    let config = config.to_str().expect("text");
    let list = printed(&partitions(&file.environment, &["-c", config]));
    let command = list.lines().find(|line| line.contains(" resume 0")).expect("a command");
    let command = command.trim().replacen("shrinkd", env!("CARGO_BIN_EXE_shrinkd"), 1);
    let environment = file.environment.iter().map(|(name, value)| (*name, value));
    let resumed = Command::new("sh").args(["-c", &command]).envs(environment).output().expect("sh runs");
    assert!(printed(&resumed).contains("resumes at 420"));
    let again = partitions(&file.environment, &["resume", "0", "--config", config]);
    assert!(refused(&again).contains("is not halted"));
}

/// A command on a terminal of its own, which util-linux's `script` gives it.
struct OnTerminal(Child);

impl OnTerminal {
    fn start(environment: &Environment, arguments: &str) -> OnTerminal {
        let command = format!("{} partitions {arguments}", env!("CARGO_BIN_EXE_shrinkd"));
        let child = Command::new("script")
            .args(["--quiet", "--return", "--echo", "never", "--command", &command, "/dev/null"])
            .envs(environment.iter().map(|(name, value)| (*name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("util-linux's script runs");
        OnTerminal(child)
    }

    /// What is shown before the question.
    fn question(&mut self) -> String {
        let stdout = self.0.stdout.as_mut().expect("a pipe");
        let mut shown = Vec::new();
        while !shown.ends_with(b"Skip? [y/N] ") {
            let mut byte = [0];
            stdout.read_exact(&mut byte).unwrap_or_else(|_| panic!("no question: {}", String::from_utf8_lossy(&shown)));
            shown.push(byte[0]);
        }
        unwrapped(str::from_utf8(&shown).expect("text"))
    }

    /// The exit code after an answer, and what is shown then.
    fn answer(mut self, answer: &str) -> (Option<i32>, String) {
        writeln!(self.0.stdin.as_mut().expect("a pipe"), "{answer}").expect("it is read");
        let output = self.0.wait_with_output().expect("it ends");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

#[tokio::test]
async fn on_a_terminal_it_asks_and_does_what_it_has_shown_or_nothing() {
    let file = HaltedFile::new("terminal");
    let arguments = "skip 0 --to 1050 --because 'of another file'";
    let mut command = OnTerminal::start(&file.environment, arguments);
    let shown = command.question();
    for part in ["has been halted (dead_letters) since", "the last 20 messages were refused", "with 30 lines"] {
        assert!(shown.contains(part), "{shown}");
    }
    let (code, said) = command.answer("n");
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("not skipped"), "{said}");
    // Somebody else has resumed it while the question stood.
    let mut command = OnTerminal::start(&file.environment, arguments);
    command.question();
    printed(&partitions(&file.environment, &["resume", "0"]));
    let (code, said) = command.answer("y");
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("has moved since it was shown"), "{said}");
    assert_eq!(file.skipped().await, []);

    let mut command = OnTerminal::start(&file.environment, &format!("{arguments} --force"));
    assert!(command.question().contains("is not halted"));
    let (code, said) = command.answer("y");
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(file.skipped().await.len(), 1);
}

/// The marker that ends a transaction takes an offset. The mock broker writes none.
#[tokio::test]
async fn the_records_of_a_gap_are_those_before_its_end_also_where_a_marker_is_the_last_of_it() {
    if std::env::var("SHRINKD_TEST_KAFKA").is_err() {
        return skipped("SHRINKD_TEST_KAFKA names no Apache Kafka, which marks the ends of transactions");
    }
    let topic = Topic::new(1).await;
    let producer = topic.transactional();
    for _ in 0..2 {
        producer.begin_transaction().expect("a transaction");
        let record: BaseRecord<'_, (), str> = BaseRecord::to(&topic.name).partition(0).payload("{}");
        producer.send(record).expect("there is room");
        producer.commit_transaction(TIMEOUT).expect("it is committed");
    }
    let kafka = KafkaConfig {
        brokers: topic.brokers.clone(),
        topic: topic.name.clone(),
        group: "shrinkd".to_owned(),
        key: KeyRule::default(),
        properties: std::iter::empty::<(&str, &str)>().collect(),
    };
    // A record, a marker, and beyond them another of each.
    let range = tokio::task::spawn_blocking(move || read_range(&kafka, 0, 0..2)).await.expect("no panic");
    let range = range.expect("it can be read");
    assert_eq!((range.records, range.is_complete), (1, true));
    topic.remove().await;
}
