//! The URL of the store: what is valid in it, and how it is printed.

use std::borrow::Cow;
use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use sqlx::postgres::PgConnectOptions;
use tracing::subscriber::NoSubscriber;

use super::kafka::{HAS_TLS, REBUILD};
use super::secret::{MASK, redact};

const EXPECTED: &str = "expected postgres://user:password@host:port/database or sqlite://path/of/shrinkd.db";

const SSL_MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

/// The parameters of a PostgreSQL URL.
const PARAMETERS: &str = "sslmode, sslrootcert, sslcert, sslkey, host, hostaddr, port, dbname, user, password, \
                          application_name, options, statement-cache-capacity";

/// The URL of a store. Printed, it shows where the store is and who connects, but no password and no parameter that may hold a
/// secret.
#[derive(Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// `postgres://user:password@host:port/database?parameters`
    Postgres(String),
    /// `sqlite://path`
    Sqlite(String),
}

impl StoreUrl {
    /// Reads a URL, and checks whatever can be checked without connecting.
    ///
    /// # Errors
    /// With what is wrong. The URL is not repeated: it may be a secret in the wrong place.
    pub(super) fn parse(url: String) -> Result<StoreUrl, String> {
        match url.split_once("://") {
            Some(("postgres" | "postgresql", rest)) if !rest.is_empty() => {
                check_postgres(&url, rest)?;
                Ok(StoreUrl::Postgres(url))
            }
            Some(("sqlite", path)) if path.contains('?') => {
                Err("has parameters after a `?`, of which SQLite has none here: expected sqlite://path".to_owned())
            }
            Some(("sqlite", path)) if path.split('/').next().is_some_and(|part| part.contains('@')) => {
                Err("has a user and a host, which a SQLite file does not: expected sqlite://path".to_owned())
            }
            Some(("sqlite", path)) if !path.is_empty() => Ok(StoreUrl::Sqlite(url)),
            _ => Err(EXPECTED.to_owned()),
        }
    }

    /// The URL with its secrets, for connecting.
    pub fn expose(&self) -> &str {
        let (StoreUrl::Postgres(url) | StoreUrl::Sqlite(url)) = self;
        url
    }

    /// The file of a SQLite database; `None` for PostgreSQL.
    pub fn file(&self) -> Option<&Path> {
        match self {
            StoreUrl::Postgres(_) => None,
            StoreUrl::Sqlite(url) => Some(Path::new(url.strip_prefix("sqlite://").unwrap_or(url))),
        }
    }

    /// A text of the store in a form that may be printed.
    pub fn redact(&self, text: &str) -> String {
        let StoreUrl::Postgres(url) = self else { return text.to_owned() };
        let (authority, tail) = split(url.split_once("://").map_or("", |(_, rest)| rest));
        let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
        let password = user.split_once(':').map(|(_, password)| password);
        let parameters = parameters(tail).filter(|(name, _)| !is_harmless(name)).map(|(_, value)| value);
        let written: Vec<&str> = parameters.chain(password).collect();
        let decoded: Vec<String> = written.iter().map(|value| percent_decode(&value.replace('+', " "))).collect();
        redact(text, written.iter().copied().chain(decoded.iter().map(String::as_str)))
    }
}

/// `authority/path?parameters#fragment` without its scheme, cut after the authority.
fn split(rest: &str) -> (&str, &str) {
    rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()))
}

/// The parameters of `/path?name=value&name=value`.
fn parameters(tail: &str) -> impl Iterator<Item = (&str, &str)> {
    let parameters = tail.split_once('?').map_or("", |(_, parameters)| parameters);
    let parameters = parameters.split('&').filter(|parameter| !parameter.is_empty());
    parameters.map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")))
}

/// Whether the value of a parameter may be printed.
fn is_harmless(name: &str) -> bool {
    matches!(
        name,
        "sslmode"
            | "ssl-mode"
            | "sslrootcert"
            | "ssl-root-cert"
            | "ssl-ca"
            | "host"
            | "hostaddr"
            | "port"
            | "dbname"
            | "user"
            | "application_name"
            | "statement-cache-capacity"
    )
}

fn check_postgres(url: &str, rest: &str) -> Result<(), String> {
    let (authority, tail) = split(rest);
    if tail.contains('#') || tail.contains('@') {
        return Err(
            "has a `#` or an `@` after the host: in a password, write / as %2F, ? as %3F, # as %23 and @ as %40"
                .to_owned(),
        );
    }
    if authority.ends_with(":0") {
        return Err("has the port 0: expected one from 1 to 65535".to_owned());
    }
    for (name, value) in parameters(tail) {
        check_parameter(name, &percent_decode(&value.replace('+', " ")))?;
    }
    postgres_options(url).map(drop).map_err(|problem| {
        format!("is not a valid URL ({problem}): {EXPECTED}, with %40 for an @ in the password and so on")
    })
}

/// How to connect to a PostgreSQL URL. What it leaves out comes from the environment (`PGPASSWORD` and others) and from
/// `~/.pgpass`.
///
/// # Errors
/// If it is not a URL. The message does not repeat it.
pub fn postgres_options(url: &str) -> Result<PgConnectOptions, String> {
    // sqlx logs what it does not like in the URL or in ~/.pgpass, with passwords.
    let options = tracing::subscriber::with_default(NoSubscriber::new(), || url.parse::<PgConnectOptions>());
    options.map_err(|error| match error {
        sqlx::Error::Configuration(problem) => problem.to_string(),
        error => error.to_string(),
    })
}

fn check_parameter(name: &str, value: &str) -> Result<(), String> {
    let refused = |expected: &str| Err(format!("has an invalid value of the parameter `{name}`: expected {expected}"));
    match name {
        "sslmode" | "ssl-mode" => {
            let mode = value.to_ascii_lowercase();
            match SSL_MODES.iter().position(|known| *known == mode) {
                None => refused(&SSL_MODES.join(", ")),
                // require and above
                Some(3..) if !HAS_TLS => Err(format!("sslmode={mode} needs TLS: {REBUILD}")),
                Some(_) => Ok(()),
            }
        }
        "sslrootcert" | "ssl-root-cert" | "ssl-ca" | "sslcert" | "ssl-cert" | "sslkey" | "ssl-key" => {
            match value.trim().starts_with("-----BEGIN") || fs::metadata(value).is_ok_and(|file| file.is_file()) {
                true => Ok(()),
                false => refused("the path of a file that this process can read, or PEM"),
            }
        }
        "port" if value.parse::<u16>().is_ok_and(|port| port > 0) => Ok(()),
        "port" => refused("a number from 1 to 65535"),
        "hostaddr" if value.parse::<IpAddr>().is_ok() => Ok(()),
        "hostaddr" => refused("an IP address"),
        "statement-cache-capacity" if value.parse::<usize>().is_ok() => Ok(()),
        "statement-cache-capacity" => refused("a whole number, 0 or above"),
        "host" | "dbname" | "user" if value.is_empty() => refused("a name"),
        "host" | "dbname" | "user" | "password" | "application_name" | "options" => Ok(()),
        name if name.starts_with("options[") && name.ends_with(']') => Ok(()),
        // The name is not repeated: it may be the rest of a password with an unescaped `&`.
        _ => Err(format!("has an unknown parameter: the known ones are {PARAMETERS}. In a password, write & as %26")),
    }
}

/// Text with each `%XX` decoded.
fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let code = after.get(..2).and_then(|code| u8::from_str_radix(str::from_utf8(code).ok()?, 16).ok());
        let (byte, length) = match (first, code) {
            (b'%', Some(code)) => (code, 3),
            (byte, _) => (*byte, 1),
        };
        bytes.push(byte);
        rest = &rest[length..];
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&masked_url(self.expose()))
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A URL in a form that may be printed: without its password and the values of parameters that are not known to be harmless.
///
/// It masks too much rather than too little: of a URL with an unescaped `/`, `?`, `#` or `@` in its password only the scheme is
/// left.
pub(super) fn masked_url(url: &str) -> String {
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme @ "sqlite", path)) if !path.contains(['@', '?']) => return format!("{scheme}://{path}"),
        Some((scheme @ ("postgres" | "postgresql"), rest)) => (scheme, rest),
        Some((scheme @ "sqlite", _)) => return format!("{scheme}://{MASK}"),
        _ => return MASK.to_owned(),
    };
    let (authority, tail) = split(rest);
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%' | '[' | ']');
    let path = tail.split_once('?').map_or(tail, |(path, _)| path);
    if tail.contains('@') || path.contains('#') || !host.chars().all(is_host) {
        return format!("{scheme}://{MASK}");
    }
    let user = user.map(|user| match user.split_once(':') {
        Some((user, _)) => format!("{user}:{MASK}@"),
        None => format!("{user}@"),
    });
    let shown = parameters(tail).map(|(name, value)| {
        let is_shown = is_harmless(name) && !value.contains('#');
        match is_shown {
            true => format!("{name}={value}"),
            false if PARAMETERS.split(", ").any(|known| known == name) => format!("{name}={MASK}"),
            false => MASK.to_owned(),
        }
    });
    let shown = shown.collect::<Vec<_>>().join("&");
    let parameters = if shown.is_empty() { Cow::default() } else { Cow::from(format!("?{shown}")) };
    format!("{scheme}://{}{host}{path}{parameters}", user.unwrap_or_default())
}
