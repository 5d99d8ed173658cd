//! `shrinkd check --connect`: asks broker and store for everything that a worker needs, changes nothing, and prints a line for
//! each answer.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use sqlx::postgres::PgSslMode;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::timeout;

use crate::config::{Config, KafkaConfig, SourceConfig, postgres_options};
use crate::store::{Inspection, Store, StoreError};
use crate::worker::source::kafka::{Probe, Right};

/// How long the brokers and the store may each take.
const LIMIT: Duration = Duration::from_secs(10);
/// How long the brokers may take to answer each question: there is time left to say that they have not.
const ANSWER_LIMIT: Duration = Duration::from_secs(8);
/// How long one broker may take to accept a connection.
const BROKER_LIMIT: Duration = Duration::from_secs(3);

/// The checks as they are made.
struct Checks<W> {
    out: W,
    failed: usize,
}

impl<W: Write> Checks<W> {
    fn ok(&mut self, subject: &str, detail: &str) -> io::Result<()> {
        self.line("ok", subject, detail)
    }

    /// What works, and that an operator should know.
    fn warning(&mut self, subject: &str, detail: &str) -> io::Result<()> {
        self.line("warning", subject, detail)
    }

    fn failed(&mut self, subject: &str, problem: impl ToString) -> io::Result<()> {
        self.failed += 1;
        self.line("FAILED", subject, &problem.to_string())
    }

    fn line(&mut self, outcome: &str, subject: &str, detail: &str) -> io::Result<()> {
        writeln!(self.out, "{outcome:<8} {subject}: {detail}")
    }
}

/// Makes all checks, and returns how many have failed.
///
/// # Errors
/// If stdout cannot be written to.
pub(super) async fn run(config: &Config, out: impl Write) -> io::Result<usize> {
    let mut checks = Checks { out, failed: 0 };
    match &config.source {
        SourceConfig::Kafka(kafka) => check_kafka(&mut checks, kafka).await?,
        SourceConfig::File(file) if file.is_stdin() => checks.ok("source", "stdin")?,
        SourceConfig::File(file) => match std::fs::File::open(&file.path) {
            Ok(_) => checks.ok("source", &format!("{} can be read", file.path.display()))?,
            Err(error) => checks.failed("source", format!("{} cannot be read: {error}", file.path.display()))?,
        },
    }
    check_store(&mut checks, config).await?;
    Ok(checks.failed)
}

async fn check_kafka(checks: &mut Checks<impl Write>, kafka: &KafkaConfig) -> io::Result<()> {
    for address in kafka.addresses() {
        let subject = format!("broker {address}");
        match timeout(BROKER_LIMIT, TcpStream::connect(address)).await {
            Ok(Ok(_)) => checks.ok(&subject, "accepts connections")?,
            Ok(Err(error)) => {
                checks.failed(&subject, format!("{error}; check host and port in source.kafka.brokers"))?;
            }
            Err(_) => checks.failed(
                &subject,
                format!("no answer within {} s; check the network and the firewalls between", BROKER_LIMIT.as_secs()),
            )?,
        }
    }
    for answer in answers(kafka).await {
        match answer {
            Answer::Ok(subject, detail) => checks.ok(&subject, &detail)?,
            Answer::Warning(subject, detail) => checks.warning(&subject, &detail)?,
            Answer::Failed(subject, problem) => checks.failed(&subject, problem)?,
        }
    }
    Ok(())
}

/// One answer of the brokers.
enum Answer {
    Ok(String, String),
    Warning(String, String),
    Failed(String, String),
}

/// What the brokers say, up to the first failure. librdkafka blocks, so that a thread of its own asks: the program does not wait
/// for one that is late.
async fn answers(kafka: &KafkaConfig) -> Vec<Answer> {
    let (sender, mut receiver) = unbounded_channel();
    let kafka = kafka.clone();
    let asked = std::thread::Builder::new().name("kafka-probe".to_owned()).spawn(move || ask(&kafka, &sender));
    let mut answers = Vec::new();
    if let Err(error) = asked {
        answers.push(Answer::Failed("brokers".to_owned(), format!("cannot start a thread: {error}")));
    }
    let collected = timeout(LIMIT, async {
        while let Some(answer) = receiver.recv().await {
            answers.push(answer);
        }
    });
    if collected.await.is_err() {
        answers.push(Answer::Failed("brokers".to_owned(), format!("not all answers within {} s", LIMIT.as_secs())));
    }
    answers
}

fn ask(kafka: &KafkaConfig, answers: &UnboundedSender<Answer>) {
    let say = |answer: Answer| drop(answers.send(answer));
    let topic = format!("topic {}", kafka.topic);
    let asked = || -> Result<(), Answer> {
        let fail = |subject: &str| {
            let subject = subject.to_owned();
            move |problem: String| Answer::Failed(subject, problem)
        };
        let right = |subject: &str, right: Right| match right {
            Right::Granted => Answer::Ok(subject.to_owned(), "this client has the right to READ it".to_owned()),
            Right::Denied(problem) => Answer::Failed(subject.to_owned(), problem),
            Right::Unknown(why) => {
                Answer::Warning(subject.to_owned(), format!("the brokers do not tell who may READ it: {why}"))
            }
        };
        let probe = Probe::new(kafka, ANSWER_LIMIT).map_err(|error| fail("brokers")(error.to_string()))?;
        let brokers = probe.brokers().map_err(fail("brokers"))?;
        let protocol = kafka.properties.get("security.protocol").unwrap_or("plaintext");
        say(Answer::Ok("brokers".to_owned(), format!("answer over {protocol}; the cluster has {brokers}")));
        let partitions = probe.topic().map_err(fail(&topic))?;
        say(Answer::Ok(topic.clone(), format!("has {partitions} partitions, all with a leader")));
        say(right(&topic, probe.read_topic().map_err(fail(&topic))?));
        say(right(&format!("group {}", kafka.group), probe.join_group()));
        Ok(())
    };
    if let Err(failed) = asked() {
        say(failed);
    }
}

async fn check_store(checks: &mut Checks<impl Write>, config: &Config) -> io::Result<()> {
    let url = config.store.url.to_string();
    if let Some(path) = config.store.url.file().filter(|path| !path.exists()) {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        return match folder.is_dir() {
            true => checks.ok("store", &format!("{url} is not there yet: `shrinkd run` creates it")),
            false => checks.failed("store", format!("there is no folder {}: create it", folder.display())),
        };
    }
    let asked = timeout(LIMIT, ask_store(checks, config, &url)).await;
    asked.unwrap_or_else(|_| checks.failed("store", format!("not all answers within {} s", LIMIT.as_secs())))
}

async fn ask_store(checks: &mut Checks<impl Write>, config: &Config, url: &str) -> io::Result<()> {
    let connected = Store::connect_to_rebuild(&config.store, &config.store_settings()).await;
    let store = match connected {
        Ok(store) => store,
        Err(error @ StoreError::Schema { .. }) => {
            checks.ok("store", &format!("connected to {url}"))?;
            return checks.failed("schema", error);
        }
        Err(error) => return checks.failed("store", error),
    };
    checks.ok("store", &format!("connected to {url}"))?;
    checks.ok("schema", "matches this build")?;
    match store.is_filled().await {
        Ok(true) => checks.ok("settings", "match the database")?,
        Ok(false) => checks.ok("settings", "the database is empty and takes them on")?,
        Err(error) => checks.failed("settings", error)?,
    }
    match store.inspect().await {
        Ok(None) => {}
        Ok(Some(inspection)) => report(checks, config, &inspection)?,
        Err(error) => checks.failed("role", error)?,
    }
    store.close().await;
    Ok(())
}

fn report(checks: &mut Checks<impl Write>, config: &Config, inspection: &Inspection) -> io::Result<()> {
    let options = postgres_options(config.store.url.expose()).ok();
    let mode = options.map_or_else(String::new, |options| format!("sslmode={}", ssl_mode(options.get_ssl_mode())));
    match &inspection.encryption {
        Some(version) => checks.ok("encryption", &format!("{version} ({mode})"))?,
        None => checks.warning(
            "encryption",
            &format!("none ({mode}): sslmode=verify-full in store.url requires it, and checks whose server it is"),
        )?,
    }
    let role = format!("role {}", inspection.user);
    if inspection.is_superuser {
        checks.warning(
            &role,
            "is a superuser: deploy/postgres/roles.sql makes one that may do what a worker does, and no more",
        )
    } else if inspection.missing_rights.is_empty() {
        checks.ok(&role, "has the rights of a worker")
    } else {
        let missing = inspection.missing_rights.join(", ");
        checks.failed(
            &role,
            format!("misses {missing}: run deploy/postgres/roles.sql, which grants them to shrinkd_worker"),
        )
    }
}

fn ssl_mode(mode: PgSslMode) -> &'static str {
    use PgSslMode::{Allow, Disable, Prefer, Require, VerifyCa, VerifyFull};
    match mode {
        Disable => "disable",
        Allow => "allow",
        Prefer => "prefer",
        Require => "require",
        VerifyCa => "verify-ca",
        VerifyFull => "verify-full",
    }
}
