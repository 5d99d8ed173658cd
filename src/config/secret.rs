//! Secrets, which must not be printed: passwords in the store's URL, and properties that hold secrets.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize};

/// Replaces a secret where it would be printed.
pub const MASK: &str = "***";

/// Whether the value of a property or parameter of this name is a secret.
fn is_secret(name: &str) -> bool {
    let name = name.to_lowercase();
    ["password", "secret", "key", "token", "jaas"].iter().any(|word| name.contains(word))
}

/// A property's value in a form that may be printed.
pub(super) fn masked_property<'a>(name: &str, value: &'a str) -> &'a str {
    if is_secret(name) { MASK } else { value }
}

/// A URL in a form that may be printed: its password and the values of secret parameters are masked.
///
/// It masks too much rather than too little: a password with an unescaped `/`, `?` or `@`, which makes the URL invalid, is
/// masked as well.
pub(super) fn masked_url(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let rest = match rest.rsplit_once('@') {
        Some((user, host)) => match user.split_once(':') {
            Some((user, _)) => format!("{user}:{MASK}@{host}"),
            None => rest.to_owned(),
        },
        None => rest.to_owned(),
    };
    let (address, parameters) = rest.split_once('?').map_or((rest.as_str(), None), |(a, p)| (a, Some(p)));
    let parameters = parameters.map(|parameters| {
        let masked: Vec<String> = parameters
            .split('&')
            .map(|parameter| match parameter.split_once('=') {
                Some((name, value)) => format!("{name}={}", masked_property(name, value)),
                None => parameter.to_owned(),
            })
            .collect();
        format!("?{}", masked.join("&"))
    });
    let separator = if scheme.is_empty() { "" } else { "://" };
    format!("{scheme}{separator}{address}{}", parameters.unwrap_or_default())
}

/// The URL of a store. Its password is masked when it is printed.
#[derive(Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// `postgres://user:password@host:port/database?parameters`
    Postgres(String),
    /// `sqlite://path`
    Sqlite(String),
}

impl StoreUrl {
    /// The URL with its secrets, for connecting.
    pub fn expose(&self) -> &str {
        let (StoreUrl::Postgres(url) | StoreUrl::Sqlite(url)) = self;
        url
    }
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

/// Properties of librdkafka, by name. Those that hold secrets are masked when they are printed.
#[derive(Clone, Default, PartialEq, Eq, Serialize)]
pub struct Properties(BTreeMap<String, String>);

impl Properties {
    /// Names and values, secrets included, for connecting.
    pub fn expose(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The value of a property.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Properties {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(properties: I) -> Properties {
        Properties(properties.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.expose().map(|(name, value)| (name, masked_property(name, value)))).finish()
    }
}

impl<'de> Deserialize<'de> for Properties {
    /// Numbers and booleans are accepted too: librdkafka takes text, but people write `45000` and `true`.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Properties, D::Error> {
        let values = BTreeMap::<String, toml::Value>::deserialize(deserializer)?;
        let text = |(name, value): (String, toml::Value)| match value {
            toml::Value::String(text) => Ok((name, text)),
            toml::Value::Integer(_) | toml::Value::Float(_) | toml::Value::Boolean(_) => Ok((name, value.to_string())),
            _ => Err(D::Error::custom(format!(
                "`{name}` is a {}: expected text, a number or a boolean (quote a name that contains dots: \
                 \"session.timeout.ms\" = 45000)",
                value.type_str()
            ))),
        };
        Ok(Properties(values.into_iter().map(text).collect::<Result<_, _>>()?))
    }
}
