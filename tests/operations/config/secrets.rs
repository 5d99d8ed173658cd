//! No secret is printed: forty of them are planted where secrets belong and where they do not, and the output of real runs is
//! searched for them.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use shrinkd::config::Config;

use super::{TemporaryFile, environment};
use crate::common::folder::Folder;
use crate::common::worker::{Worker, get};

/// Every secret contains one of these, whatever else it has to contain.
const SECRETS: [&str; 2] = ["s3cr3t", "t4il"];

const STORE: &str = "SHRINKD__STORE__URL";
const BROKERS: &str = "SHRINKD__SOURCE__KAFKA__BROKERS";
const TOPIC: &str = "SHRINKD__SOURCE__KAFKA__TOPIC";
const PROPERTY: &str = "SHRINKD__SOURCE__KAFKA__PROPERTIES__";

#[track_caller]
fn assert_keeps_secrets(what: &str, text: &str) {
    for secret in SECRETS {
        assert!(!text.contains(secret), "{what} shows a secret:\n{text}");
    }
}

/// Runs the program to its end with nothing but these variables, and gives its exit code with what it wrote.
fn output(arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shrinkd"));
    command.env_clear().args(arguments).envs(variables.iter().copied()).stdin(Stdio::null());
    let output = command.output().expect("the program runs");
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).expect("UTF-8")).concat();
    (output.status.code(), text)
}

/// A configuration that is valid but for one variable, which replaces one of the others if that has its name.
fn with<'a>(variable: (&'a str, &'a str)) -> Vec<(&'a str, &'a str)> {
    let others = [(STORE, "postgres://app@127.0.0.1:1/shrinkd"), (BROKERS, "127.0.0.1:1"), (TOPIC, "t")];
    let others = others.into_iter().filter(|(name, _)| !variable.0.starts_with(name));
    others.chain([variable]).collect()
}

#[test]
fn a_property_or_parameter_that_is_refused_is_named_without_its_value() {
    for (variable, value, says) in [
        // Properties that librdkafka or this build refuses.
        ("SASL_JAAS_CONFIG", "PlainLoginModule required password=\"s3cr3t01\";", "sasl.jaas.config"),
        ("SASL_PASSWRD", "s3cr3t02", "sasl.passwrd"),
        ("SASL_OAUTHBEARER_CONFIG", "principal=app s3cr3t03", "sasl.oauthbearer.config"),
        ("SSL_KEY_PASSWORD", "s3cr3t04", "ssl.key.password"),
        ("SSL_KEYSTORE_PASSWORD", "s3cr3t05", "ssl.keystore.password"),
        ("SASL_OAUTHBEARER_CLIENT_SECRET", "s3cr3t06", "sasl.oauthbearer.client.secret"),
        ("SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL", "https://u:s3cr3t07@idp/token", "sasl.oauthbearer.token.endpoint.url"),
        ("SESSION_TIMEOUT_MS", "s3cr3t08", "session.timeout.ms"),
        ("SECURITY_PROTOCOL", "s3cr3t09", "security.protocol"),
        ("DEBUG", "broker,s3cr3t10", "debug"),
        ("ENABLE_SSL_CERTIFICATE_VERIFICATION", "s3cr3t11", "enable.ssl.certificate.verification"),
        ("GROUP_ID", "s3cr3t12", "group.id"),
        ("PASSWORD", "s3cr3t13", "password"),
    ] {
        // Kerberos and OAuth are not in every build: what is not refused is printed by `check`, masked.
        let (code, text) = output(&["check"], &with((&format!("{PROPERTY}{variable}"), value)));
        assert!(matches!(code, Some(0 | 2)), "{code:?}: {text}");
        assert!(text.contains(says) || code == Some(0), "{text}");
        assert_keeps_secrets(variable, &text);
    }
    for (url, says) in [
        ("postgres://app:pw@db/shrinkd?sslpassword=s3cr3t14", "unknown parameter"),
        ("postgres://app@db/shrinkd?password=pw&s3cr3t14", "unknown parameter"),
        ("postgres://app@db/shrinkd?password=pw&s3cr3t14=1", "unknown parameter"),
        ("postgres://app:pw@db/shrinkd?sslmode=s3cr3t15", "`sslmode`"),
        ("postgres://app:pw@db/shrinkd?port=s3cr3t16", "`port`"),
        ("postgres://app:pw@db/shrinkd?hostaddr=s3cr3t17", "`hostaddr`"),
        ("postgres://app:pw@db/shrinkd?statement-cache-capacity=s3cr3t18", "`statement-cache-capacity`"),
        ("postgres://app:pw@db/shrinkd?sslkey=s3cr3t19", "`sslkey`"),
        ("postgres://app:pw@db/shrinkd?pass:word@s3cr3t20=1", "`@`"),
        ("postgres://app:pw@db/shrinkd?a&b:s3cr3t20", "unknown parameter"),
        // Passwords that nobody has escaped, and URLs that are none.
        ("postgres://app:s3cr3t21/t4il@db/shrinkd", "%2F"),
        ("postgres://app:s3cr3t22?t4il@db/shrinkd", "%2F"),
        ("postgres://app:s3cr3t23#t4il@db/shrinkd", "%2F"),
        ("postgres://app:pw@db:s3cr3t24/shrinkd", "invalid port number"),
        ("app:s3cr3t25@db/shrinkd", "expected postgres://"),
        ("s3cr3t26", "expected postgres://"),
        ("mysql://app:s3cr3t27@db/shrinkd", "expected postgres://"),
        ("sqlite://app:s3cr3t28@db/shrinkd", "expected sqlite://"),
        ("sqlite://shrinkd.db?key=s3cr3t29", "expected sqlite://"),
    ] {
        let (code, text) = output(&["check"], &with((STORE, url)));
        assert_eq!(code, Some(2), "{url}: {text}");
        assert!(text.contains(says) && text.contains("`store.url`"), "{text}");
        assert_keeps_secrets(url, &text);
    }
}

#[test]
fn a_secret_in_the_wrong_place_is_refused_without_being_repeated() {
    for (variable, value) in [
        (BROKERS, "s3cr3t30"),
        (BROKERS, "broker:9092,app:s3cr3t31@broker:9092"),
        (TOPIC, "s3cr3t32!"),
        ("SHRINKD__INGEST__BATCH_RECORDS", "s3cr3t33"),
        ("SHRINKD__INGEST__BATCH_AGE", "s3cr3t34"),
        ("SHRINKD__HTTP__LISTEN", "s3cr3t35"),
        ("SHRINKD__LOG__LEVEL", "s3cr3t36"),
        ("SHRINKD__LOG__FORMAT", "s3cr3t37"),
        ("SHRINKD__REFIT__PRIOR_TAU", "s3cr3t38"),
        ("SHRINKD__STORE__PASSWORD", "s3cr3t39"),
        ("SHRINKD__STORE", "{ password = \"s3cr3t40\" }"),
        ("SHRINKD__INGEST", "s3cr3t41"),
        ("SHRINKD__POPULATIONS__LABELS", "[\"s3cr3t42\", \"s3cr3t42\"]"),
        ("SHRINKD__SOURCE__KAFKA__PROPERTIES", "sasl.password=s3cr3t43"),
        // A secret where the name of its file belongs.
        ("SHRINKD__STORE__URL_FILE", "postgres://app:s3cr3t44@db/shrinkd"),
        ("SHRINKD__SOURCE__KAFKA__PROPERTIES__SASL_PASSWORD_FILE", "s3cr3t45"),
    ] {
        let (code, text) = output(&["check"], &with((variable, value)));
        assert_eq!(code, Some(2), "{variable}={value}: {text}");
        assert_keeps_secrets(variable, &text);
    }
    for (name, content) in [
        ("syntax", "[store]\nurl = postgres://app:s3cr3t46@db/shrinkd\n"),
        ("open-text", "[store]\nurl = \"postgres://app:s3cr3t47@db/shrinkd\n"),
        ("twice", "[store]\nurl = \"s3cr3t48\"\nurl = \"s3cr3t48\"\n"),
        ("list", "[store]\nurl = [\"postgres://app:s3cr3t49@db/shrinkd\"]\n"),
        ("unknown-key", "[store]\npassword = \"s3cr3t50\"\n"),
        ("unknown-section", "[secrets]\npassword = \"s3cr3t51\"\n"),
        ("in-a-name", "[store]\n\"password=s3cr3t52\" = true\n"),
        ("property-name", "[source.kafka.properties]\n\"sasl.password=s3cr3t53\" = true\n"),
        ("property-table", "[source.kafka.properties]\nsasl.password = \"s3cr3t54\"\n"),
        ("property-list", "[source.kafka.properties]\n\"sasl.password\" = [\"s3cr3t55\"]\n"),
    ] {
        let file = TemporaryFile::new(name, content);
        let others: Vec<_> = with(("RUST_BACKTRACE", "1")).into_iter().filter(|(name, _)| *name != STORE).collect();
        let (code, text) = output(&["check", "--config", file.path()], &others);
        assert_eq!(code, Some(2), "{name}: {text}");
        assert_keeps_secrets(name, &text);
    }
}

#[test]
fn a_producer_repeats_no_value_of_a_property() {
    for property in ["sasl.passwrd=s3cr3t56", "sasl.password:s3cr3t57", "linger.ms=s3cr3t58"] {
        let (code, text) = output(&["simulate", "--kafka", "127.0.0.1:1", "--set", property], &[]);
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains("--set"), "{text}");
        assert_keeps_secrets(property, &text);
    }
}

/// A configuration with secrets where they belong. Whoever connects is refused.
const VALID: [(&str, &str); 10] = [
    (BROKERS, "127.0.0.1:1"),
    (TOPIC, "t"),
    ("SHRINKD__SOURCE__KAFKA__PROPERTIES__SECURITY_PROTOCOL", "sasl_plaintext"),
    ("SHRINKD__SOURCE__KAFKA__PROPERTIES__SASL_MECHANISM", "PLAIN"),
    ("SHRINKD__SOURCE__KAFKA__PROPERTIES__SASL_USERNAME", "app"),
    ("SHRINKD__SOURCE__KAFKA__PROPERTIES__SASL_PASSWORD", "s3cr3t59"),
    ("SHRINKD__SOURCE__KAFKA__PROPERTIES__SASL_KERBEROS_KEYTAB", "/s3cr3t60"),
    ("SHRINKD__SOURCE__KAFKA__PROPERTIES__TOPIC_BLACKLIST", "s3cr3t61"),
    ("SHRINKD__SOURCE__KAFKA__PROPERTIES__DEBUG", "all"),
    ("PGPASSWORD", "s3cr3t62"),
];

const URL: &str =
    "postgres://app:s3cr3t63%40t4il@127.0.0.1:1/shrinkd?sslmode=disable&password=s3cr3t64&options=-c%20a.b%3Ds3cr3t65";

#[test]
fn a_valid_configuration_is_printed_without_its_secrets() {
    let variables = [&VALID[..], &[(STORE, URL)]].concat();
    let (code, text) = output(&["check"], &variables);
    assert_eq!(code, Some(0), "{text}");
    assert_keeps_secrets("check", &text);
    let url = "\"postgres://app:***@127.0.0.1:1/shrinkd?sslmode=disable&password=***&options=***\"";
    for shown in [url, "\"sasl.password\" = \"***\"", "\"sasl.username\" = \"app\"", "\"debug\" = \"all\""] {
        assert!(text.replace("debug = ", "\"debug\" = ").contains(shown), "{shown}: {text}");
    }
    let config = Config::load(None, environment(&variables)).expect("it is valid");
    assert_keeps_secrets("Debug", &format!("{config:?} {config:#?}"));
}

#[test]
fn a_worker_logs_and_serves_no_secret() {
    let folder = Folder::new("secrets");
    let home = folder.path("home");
    fs::create_dir_all(&home).expect("a folder");
    let pgpass = home.join(".pgpass");
    fs::write(&pgpass, "127.0.0.1:1:shrinkd:s3cr3t66\n").expect("a malformed line");
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(&pgpass, private).expect("private");
    let [first, second] = ["a.db", "b.db"].map(|name| format!("sqlite://{}", folder.path(name).display()));
    let without_password = "postgres://app@127.0.0.1:1/shrinkd";
    let start = |(store, format): (&str, &str)| {
        let log = folder.path(&format!("{}-{format}.log", store.len()));
        let mut variables: Vec<_> = VALID.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        variables.retain(|(name, _)| store != without_password || *name != "PGPASSWORD");
        variables.extend([
            (STORE, store.to_owned()),
            ("HOME", home.display().to_string()),
            ("SHRINKD__LOG__FORMAT", format.to_owned()),
        ]);
        (store.to_owned(), Worker::start_at(&variables, log, "debug"))
    };
    let runs = [(URL, "text"), (URL, "json"), (without_password, "text"), (&first, "text"), (&second, "json")];
    let workers = runs.map(start);
    // Meanwhile they try to connect.
    std::thread::sleep(Duration::from_secs(3));
    for (store, worker) in workers {
        for path in ["/", "/metrics", "/readyz", "/livez"] {
            assert_keeps_secrets(path, &get(&worker.http(), path));
        }
        worker.signal("TERM");
        std::thread::sleep(Duration::from_secs(1));
        let log = worker.log();
        assert!(log.contains("127.0.0.1:1") && log.len() > 500, "it has tried to connect: {log}");
        assert_keeps_secrets(&format!("the log of {store}"), &log);
    }
}
