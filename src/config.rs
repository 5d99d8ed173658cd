//! The configuration: the defaults, a TOML file and the environment, each of which overrides the one before, key by key.
//!
//! | room | what happens there |
//! | --- | --- |
//! | `sections` | the keys with their defaults, one struct for each section |
//! | `layers` | file and environment merged over the defaults; the origin of each value |
//! | `read` | the merged table read as keys, with errors that repeat no value |
//! | `kafka`, `properties` | the topic, and the properties of librdkafka: which may be set, which shrinkd sets |
//! | `store_url` | the URL of the store |
//! | `resolve` | checks across keys: exactly one source, a store that this build can reach, thresholds in order |
//! | `secret` | values that must not be printed, and how they are masked |
//! | `dump` | the effective configuration as `shrinkd check` prints it |
//!
//! A key `batch_age` of the section `ingest` is `SHRINKD__INGEST__BATCH_AGE` in the environment, and
//! `SHRINKD__INGEST__BATCH_AGE_FILE` names a file that holds its value, which is meant for secrets. Nothing is
//! ignored: an unknown key or variable is an error.

mod dump;
mod kafka;
mod layers;
mod properties;
mod read;
mod resolve;
mod secret;
mod sections;
mod store_url;
mod text;

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use shrinkd_core::{Grouping, KeyRule, PopulationName};
use shrinkd_model::{ARITHMETIC_VERSION, Direction, PriorIcc, Priors, Quantity};

pub use kafka::KafkaConfig;
pub use properties::{Properties, PropertyError};
pub use secret::MASK;
pub use sections::{
    CatchUpConfig, DeadLettersConfig, DiagnosticsConfig, FileConfig, HttpConfig, IngestConfig, LimitsConfig, LogConfig,
    LogFormat, MetricsConfig, PopulationOverride, PopulationsConfig, PublishConfig, RefitConfig,
};
pub use store_url::{StoreUrl, postgres_options};

use crate::row::StoreSettings;
use layers::Layers;
use secret::plain_name;

/// The configuration of a worker, validated; as written, source and store have types of their own.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct Config<Source = SourceConfig, Store = StoreConfig> {
    pub source: Source,
    pub store: Store,
    pub ingest: IngestConfig,
    pub catch_up: CatchUpConfig,
    pub dead_letters: DeadLettersConfig,
    pub limits: LimitsConfig,
    pub refit: RefitConfig,
    pub publish: PublishConfig,
    pub diagnostics: DiagnosticsConfig,
    pub populations: PopulationsConfig,
    pub metrics: MetricsConfig,
    pub http: HttpConfig,
    pub log: LogConfig,
}

/// Where events come from.
#[derive(Debug, Clone, PartialEq)]
pub enum SourceConfig {
    Kafka(KafkaConfig),
    File(FileConfig),
}

/// The database that holds state and estimates.
#[derive(Debug, Clone, PartialEq)]
pub struct StoreConfig {
    pub url: StoreUrl,
    /// Most connections in the pool.
    pub connections: u32,
}

/// The settings of one population.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PopulationSettings {
    /// In the effects' unit, or in units taken from the data.
    pub priors: Priors<Quantity>,
    /// Fewest experiments for which shrunken estimates are published under improper priors.
    pub min_experiments: u64,
    /// Which way of the effects is better where a result does not say.
    pub direction: Direction,
}

/// The settings of each population.
pub type SettingsOf = Arc<dyn Fn(&PopulationName) -> PopulationSettings + Send + Sync>;

/// Why a configuration is refused. The message names the key, the origin of its value, and what is allowed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} is not valid TOML: {problem}", path.display())]
    Syntax { path: PathBuf, problem: String },
    #[error("{variable}: {problem}")]
    Variable { variable: String, problem: String },
    #[error("`{}` ({origin}): {problem}", shown_key(.key))]
    Value { key: String, origin: Origin, problem: String },
}

/// A key where it is printed. Names of populations are as long and as odd as their metrics.
fn shown_key(key: &str) -> &str {
    if key.starts_with("populations.settings.") { key } else { plain_name(key) }
}

/// A value that cannot be used, by the path of its key.
struct Invalid {
    key: String,
    problem: String,
}

impl Invalid {
    fn new(key: impl Into<String>, problem: impl Into<String>) -> Invalid {
        Invalid { key: key.into(), problem: problem.into() }
    }

    fn at(self, origin: Origin) -> ConfigError {
        ConfigError::Value { key: self.key, origin, problem: self.problem }
    }
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Default,
    /// A key without a default that was not set.
    NotSet,
    File(PathBuf),
    Variable(String),
}

impl Config {
    /// Merges the file, if there is one, and the environment over the defaults, and validates the result. Only variables
    /// that begin with `SHRINKD__` are considered.
    ///
    /// # Errors
    /// If the file cannot be read, or a key or value in it or in the environment is unknown or not allowed.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Config, ConfigError> {
        Config::load_with_dump(file, environment).map(|(config, _)| config)
    }

    /// The configuration, and the effective one as TOML: every key with the origin of its value, secrets masked.
    ///
    /// # Errors
    /// As for [`Config::load`].
    pub fn load_with_dump(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<(Config, String), ConfigError> {
        let layers = Layers::read(file, environment)?;
        let keys = layers.keys()?;
        let dump = dump::dump(&keys, &layers);
        Ok((resolve::resolve(keys, &layers)?, dump))
    }

    /// The store of a configuration, which needs no source. Every other key is read as by [`Config::load`].
    ///
    /// # Errors
    /// If a file cannot be read, a key or value in any section is unknown or of the wrong type, or the store's URL is not valid.
    pub fn load_store(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<StoreConfig, ConfigError> {
        let layers = Layers::read(file, environment)?;
        resolve::resolve_store(layers.keys()?, &layers)
    }

    /// The settings with which the store must have been filled.
    pub fn store_settings(&self) -> StoreSettings {
        StoreSettings { arithmetic_version: ARITHMETIC_VERSION, grouping: self.grouping() }
    }

    /// How blocks are grouped into populations.
    pub fn grouping(&self) -> Grouping {
        Grouping {
            labels: self.populations.labels.clone(),
            one_per_experiment_seed: self.refit.one_per_experiment_seed,
        }
    }

    /// The settings of a population: its own, and the general ones where it has none.
    pub fn settings(&self, population: &PopulationName) -> PopulationSettings {
        let own = self.populations.settings.get(population).copied().unwrap_or_default();
        PopulationSettings {
            priors: Priors {
                mu: own.prior_mu.unwrap_or(self.refit.prior_mu),
                tau: own.prior_tau.unwrap_or(self.refit.prior_tau),
                icc: own.prior_icc.unwrap_or(self.refit.prior_icc),
            },
            min_experiments: own.min_experiments.unwrap_or(self.refit.min_experiments),
            direction: own.direction.unwrap_or_default(),
        }
    }
}

impl SourceConfig {
    /// What the key of a message from Kafka has to be, also of one that is replayed.
    pub fn key_rule(&self) -> KeyRule {
        match self {
            SourceConfig::Kafka(kafka) => kafka.key,
            SourceConfig::File(_) => KeyRule::default(),
        }
    }
}

impl fmt::Display for PopulationSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Priors { mu, tau, icc } = &self.priors;
        write!(f, "mu {mu}, tau {tau}, from {} experiments", self.min_experiments)?;
        // Nothing where it is as in earlier fits, so that these need not be made again.
        if *icc != PriorIcc::None {
            write!(f, ", icc {icc}")?;
        }
        if self.direction == Direction::Decrease { write!(f, ", less is better") } else { Ok(()) }
    }
}

impl fmt::Display for SourceConfig {
    /// One line, for logs and the status page.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SourceConfig::Kafka(kafka) => {
                write!(f, "Kafka topic {} at {}, consumer group {}", kafka.topic, kafka.brokers, kafka.group)
            }
            SourceConfig::File(file) if file.is_stdin() => write!(f, "stdin"),
            SourceConfig::File(file) => write!(f, "file {}", file.path.display()),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => write!(f, "default"),
            Origin::NotSet => write!(f, "not set"),
            Origin::File(path) => write!(f, "{}", path.display()),
            Origin::Variable(name) => write!(f, "{name}"),
        }
    }
}
