//! `shrinkd check --connect`: a line for each thing that a worker needs of its brokers and its store.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::acl::{Operation, PASSWORD, Resource, listener_with_password, login};
use crate::common::database::{Database, PostgresDatabase};
use crate::common::folder::Folder;
use crate::common::role::Role;
use crate::common::topic::Topic;
use crate::common::worker::from_kafka;

type Environment = Vec<(&'static str, String)>;

/// Runs it, and gives its exit code with the lines that it printed.
fn check(environment: &Environment) -> (i32, Vec<String>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shrinkd"));
    command.args(["check", "--connect"]).envs(environment.iter().map(|(name, value)| (*name, value)));
    let started = Instant::now();
    let output = command.stdin(Stdio::null()).output().expect("the program runs");
    assert!(started.elapsed() < Duration::from_secs(22), "it took {:?}", started.elapsed());
    let text = String::from_utf8(output.stdout).expect("UTF-8") + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().expect("no signal"), text.lines().map(str::to_owned).collect())
}

/// Checks that everything is ok but for one line, which has these words in it.
#[track_caller]
fn assert_fails(environment: &Environment, words: &[&str]) {
    let (code, lines) = check(environment);
    let failed: Vec<&String> = lines.iter().filter(|line| line.starts_with("FAILED")).collect();
    assert_eq!((code, failed.len()), (1, 1), "{lines:#?}");
    for word in words {
        assert!(failed[0].contains(word), "no {word} in {lines:#?}");
    }
}

fn with(mut environment: Environment, changes: Environment) -> Environment {
    environment.retain(|(name, _)| changes.iter().all(|(changed, _)| changed != name));
    environment.extend(changes);
    environment
}

#[tokio::test]
async fn what_a_worker_can_run_with_is_ok_line_by_line() {
    let Some(database) = PostgresDatabase::create().await else { return };
    let (topic, role) = (Topic::new(3).await, Role::worker(&database).await);
    let environment = from_kafka(&topic, &role.url("right"));
    let (code, lines) = check(&environment);
    assert_eq!(code, 0, "{lines:#?}");
    for line in [
        format!("ok       broker {}: accepts connections", topic.brokers),
        "ok       brokers: answer over plaintext; the cluster has 1".to_owned(),
        format!("ok       topic {}: has 3 partitions, all with a leader", topic.name),
        "ok       store: connected to postgres://".to_owned(),
        "ok       schema: matches this build".to_owned(),
        "ok       settings: the database is empty and takes them on".to_owned(),
        "warning  encryption: none (sslmode=prefer)".to_owned(),
        format!("ok       role {}: has the rights of a worker", role.name),
    ] {
        assert!(lines.iter().any(|printed| printed.starts_with(&line)), "{line} in {lines:#?}");
    }
    // The mock broker knows no rights.
    if topic.is_real() {
        for resource in ["topic", "group"] {
            let line = format!("ok       {resource} {}: this client has the right to READ it", topic.name);
            assert!(lines.contains(&line), "{line} in {lines:#?}");
        }
    }
    assert_eq!(database.count("select count(*)::text from store_settings").await, 0, "nothing is written");

    let superuser = with(environment, vec![("SHRINKD__STORE__URL", database.url())]);
    let (code, lines) = check(&superuser);
    assert_eq!(code, 0, "{lines:#?}");
    assert!(lines.iter().any(|line| line.starts_with("warning  role ") && line.contains("superuser")), "{lines:#?}");
    role.remove().await;
    topic.remove().await;
    database.remove().await;
}

#[tokio::test]
async fn each_fault_of_the_store_is_one_line_that_says_what_to_do() {
    let Some(database) = PostgresDatabase::create().await else { return };
    let (topic, role) = (Topic::new(1).await, Role::worker(&database).await);
    let store = |url: String| with(from_kafka(&topic, ""), vec![("SHRINKD__STORE__URL", url)]);
    let good = role.url("right");
    assert_fails(&store(role.url("wrong")), &["store", "password authentication failed", "check user and password"]);
    let (server, name) = good.rsplit_once('/').expect("a database");
    assert_fails(&store(format!("{server}/no_such_database")), &["store", "no_such_database", "create the database"]);
    let (user, _) = server.rsplit_once('@').expect("a user");
    assert_fails(
        &store(format!("{user}@127.0.0.1:1/{name}")),
        &["store", "refused", "check that PostgreSQL runs there"],
    );
    assert_fails(&store(format!("{user}@no-such-host.invalid/{name}")), &["store", "check the host in store.url"]);

    database.execute(format!("revoke insert on blocks from {}", role.name).leak()).await;
    assert_fails(&store(good.clone()), &["role", "misses insert on blocks:", "roles.sql"]);
    database.execute(format!("revoke all on _sqlx_migrations from {}", role.name).leak()).await;
    assert_fails(&store(good.clone()), &["store", "permission denied", "run deploy/postgres/roles.sql"]);
    role.grant_as("shrinkd_worker").await;

    database
        .execute(
            "insert into store_settings (arithmetic_version, grouping_labels, one_per_experiment_seed)
             values (99, '{}', 0)",
        )
        .await;
    assert_fails(&store(good.clone()), &["settings", "arithmetic version 99", "shrinkd rebuild"]);
    database
        .execute("delete from store_settings; update _sqlx_migrations set version = 999999 where version = 1")
        .await;
    assert_fails(&store(good), &["schema", "999999", "newer build"]);
    role.remove().await;
    let empty = PostgresDatabase::empty().await.expect("the server is there");
    assert_fails(&store(empty.url()), &["schema", "run `shrinkd migrate`"]);
    empty.remove().await;
    topic.remove().await;
    database.remove().await;
}

#[tokio::test]
async fn each_fault_of_the_brokers_is_one_line_that_says_what_to_do() {
    let folder = Folder::new("check-brokers");
    let store = format!("sqlite://{}", folder.path("shrinkd.db").display());
    let topic = Topic::new(1).await;
    let good = from_kafka(&topic, &store);
    let missing = vec![("SHRINKD__SOURCE__KAFKA__TOPIC", "no-such-topic".to_owned())];
    assert_fails(&with(good.clone(), missing), &["topic no-such-topic", "does not exist: create it"]);
    let one_down = vec![("SHRINKD__SOURCE__KAFKA__BROKERS", format!("127.0.0.1:1,{}", topic.brokers))];
    assert_fails(&with(good.clone(), one_down), &["broker 127.0.0.1:1", "refused", "check host and port"]);
    let all_down = vec![("SHRINKD__SOURCE__KAFKA__BROKERS", "127.0.0.1:1".to_owned())];
    let (code, lines) = check(&with(good.clone(), all_down));
    assert_eq!(code, 1, "{lines:#?}");
    assert!(lines.iter().any(|line| line.starts_with("FAILED   brokers: ") && line.contains("refused")), "{lines:#?}");
    assert!(
        lines.iter().any(|line| line.starts_with("ok       store: ")),
        "the store is checked all the same: {lines:#?}"
    );
    assert!(!folder.path("shrinkd.db").exists(), "nothing is created");
    topic.remove().await;
}

#[tokio::test]
async fn a_wrong_password_and_a_missing_right_on_topic_or_group_are_told_apart() {
    let Some(listener) = listener_with_password() else { return };
    let folder = Folder::new("check-rights");
    let store = format!("sqlite://{}", folder.path("shrinkd.db").display());
    let topic = Topic::new(1).await;
    let brokers = vec![("SHRINKD__SOURCE__KAFKA__BROKERS", listener.clone())];
    let good = with(with(from_kafka(&topic, &store), brokers), login(PASSWORD));
    let (code, lines) = check(&good);
    assert_eq!(code, 0, "{lines:#?}");
    assert_fails(&with(good.clone(), login("wrong")), &["brokers", "Authentication failed", "sasl.password"]);

    let name = topic.name.as_str();
    topic.grant("somebody", &Operation::Read, &Resource::Group(name));
    assert_fails(&good, &["group", "not authorised", "--allow-principal User:app --operation READ --group"]);
    let seen = Topic::new(1).await;
    seen.grant("app", &Operation::Describe, &Resource::Topic(&seen.name));
    let brokers = vec![("SHRINKD__SOURCE__KAFKA__BROKERS", listener)];
    let good = with(with(from_kafka(&seen, &store), brokers), login(PASSWORD));
    assert_fails(&good, &["topic", "not authorised", "--allow-principal User:app --operation READ --topic"]);
    let other = Topic::new(1).await;
    other.grant("somebody", &Operation::Read, &Resource::Topic(&other.name));
    let unseen = with(good, vec![("SHRINKD__SOURCE__KAFKA__TOPIC", other.name.clone())]);
    assert_fails(&unseen, &["topic", "--operation READ --topic"]);
    other.remove().await;
    seen.remove().await;
    topic.remove().await;
}
