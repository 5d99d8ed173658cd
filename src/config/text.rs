//! Values written as text, for serde: priors, addresses, levels, durations, and tables by population. No error repeats the
//! text: it may be a secret in the wrong place.

use std::fmt::Display;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error};
use serde::ser::Serializer;
use shrinkd_model::PriorError;
use tracing_subscriber::filter::Targets;

pub(super) fn serialize<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// A prior.
pub(super) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: FromStr<Err = PriorError>,
    D: Deserializer<'de>,
{
    let expected = |error: PriorError| D::Error::custom(format!("is not a prior: expected {}", error.expected()));
    String::deserialize(deserializer)?.parse().map_err(expected)
}

pub(super) fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse()
        .map_err(|_| D::Error::custom("is not an address: expected IP:PORT, such as 127.0.0.1:9464 or [::1]:9464"))
}

/// Levels by target. A single word must be a level: [`Targets`] would take a misspelt one for a target, which would turn
/// all log lines off.
pub(super) fn level<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Targets, D::Error> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let text = String::deserialize(deserializer)?;
    let is_level = |directive: &str| {
        let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level);
        LEVELS.contains(&level)
    };
    text.parse().ok().filter(|_| text.split(',').all(is_level)).ok_or_else(|| {
        let levels = LEVELS.join(", ");
        D::Error::custom(format!(
            "is not a log level: expected one of {levels}, or levels by target, such as \
             info,shrinkd::worker=debug"
        ))
    })
}

/// Durations in the notation of `humantime`.
pub(super) mod duration {
    use std::time::Duration;

    use super::*;

    pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*value))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text)
            .map_err(|_| D::Error::custom("is not a duration: expected one such as 250ms, 10s or 5min"))
    }
}

/// A value that may be left out.
pub(super) mod optional {
    use super::*;

    pub fn serialize<T: Display, S: Serializer>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => serializer.collect_str(value),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
    where
        T: FromStr<Err = PriorError>,
        D: Deserializer<'de>,
    {
        super::deserialize(deserializer).map(Some)
    }
}

/// Tables by the name of a population.
pub(super) mod by_population {
    use std::collections::BTreeMap;

    use serde::Serialize;

    use super::*;
    use shrinkd_core::PopulationName;

    pub fn serialize<T, S>(map: &BTreeMap<PopulationName, T>, serializer: S) -> Result<S::Ok, S::Error>
    where
        T: Serialize,
        S: Serializer,
    {
        serializer.collect_map(map.iter().map(|(name, value)| (name.to_string(), value)))
    }

    pub fn deserialize<'de, T, D>(deserializer: D) -> Result<BTreeMap<PopulationName, T>, D::Error>
    where
        T: Deserialize<'de>,
        D: Deserializer<'de>,
    {
        let by_name = BTreeMap::<String, T>::deserialize(deserializer)?;
        by_name.into_iter().map(|(name, value)| Ok((name.parse().map_err(D::Error::custom)?, value))).collect()
    }
}
