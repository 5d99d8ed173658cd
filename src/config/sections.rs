//! The keys of the configuration with their defaults: what a file may say, section by section.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shrinkd_core::PopulationName;
use shrinkd_model::{PriorMu, PriorTau, Threshold, Thresholds};
use tracing_subscriber::filter::{LevelFilter, Targets};

use super::secret::Properties;
use super::text;

/// The configuration as it is written. Has no `Debug`: it holds secrets in the clear.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct Keys {
    pub source: SourceKeys,
    pub store: StoreKeys,
    pub ingest: IngestConfig,
    pub dead_letters: DeadLettersConfig,
    pub refit: RefitConfig,
    pub publish: PublishConfig,
    pub diagnostics: DiagnosticsConfig,
    pub populations: PopulationsConfig,
    pub http: HttpConfig,
    pub log: LogConfig,
}

/// `[source]`: exactly one of the two.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct SourceKeys {
    pub kafka: Option<KafkaKeys>,
    pub file: Option<FileKeys>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct KafkaKeys {
    pub brokers: Option<String>,
    pub topic: Option<String>,
    #[serde(default = "default_group")]
    pub group: String,
    #[serde(default)]
    pub properties: Properties,
}

fn default_group() -> String {
    "shrinkd".to_owned()
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct FileKeys {
    pub path: Option<PathBuf>,
    #[serde(default)]
    pub follow: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct StoreKeys {
    pub url: Option<String>,
    pub connections: NonZeroU32,
}

impl Default for StoreKeys {
    fn default() -> StoreKeys {
        StoreKeys { url: None, connections: const { NonZeroU32::new(8).unwrap() } }
    }
}

/// `[source.kafka]`: a topic, read as a member of a consumer group.
#[derive(Debug, Clone, PartialEq)]
pub struct KafkaConfig {
    /// `host:port`, several separated by commas. No default.
    pub brokers: String,
    /// No default.
    pub topic: String,
    /// The consumer group: its members share the topic's partitions. Default `shrinkd`.
    pub group: String,
    /// Any further properties of librdkafka, by its names. Default none.
    pub properties: Properties,
}

/// `[source.file]`: events as NDJSON.
#[derive(Debug, Clone, PartialEq)]
pub struct FileConfig {
    /// `-` is stdin. No default.
    pub path: PathBuf,
    /// Whether to wait for more at the end of the file. Default false.
    pub follow: bool,
}

impl FileConfig {
    /// Whether events come from stdin.
    pub fn is_stdin(&self) -> bool {
        self.path == Path::new("-")
    }
}

/// `[ingest]`: when a batch is closed and committed. Whatever is reached first closes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct IngestConfig {
    /// Records in a batch, at most. Default 5000.
    pub batch_records: NonZeroUsize,
    /// Bytes of payload in a batch, at most (but for a single record that is larger). Default 8388608 (8 MiB).
    pub batch_bytes: NonZeroUsize,
    /// How long the first record of a batch waits for others, at most. Default 100ms.
    #[serde(with = "text::duration")]
    pub batch_age: Duration,
    /// How long a worker that gives partitions away goes on committing what it has of them. Default 10s.
    #[serde(with = "text::duration")]
    pub drain_budget: Duration,
}

impl Default for IngestConfig {
    fn default() -> IngestConfig {
        IngestConfig {
            batch_records: const { NonZeroUsize::new(5000).unwrap() },
            batch_bytes: const { NonZeroUsize::new(8 << 20).unwrap() },
            batch_age: Duration::from_millis(100),
            drain_budget: Duration::from_secs(10),
        }
    }
}

/// `[dead_letters]`: how many messages of a partition may be refused before it is halted. A message counts as refused where
/// nothing of it can be taken in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct DeadLettersConfig {
    /// Refused messages in a row that halt a partition. Default 500.
    pub in_a_row: NonZeroUsize,
    /// Largest share of refused messages among the last `window`; 1 for any. Default 0.5.
    pub share: f64,
    /// Messages that the share is taken of; fewer are not judged. Default 2000.
    pub window: NonZeroUsize,
}

impl Default for DeadLettersConfig {
    fn default() -> DeadLettersConfig {
        DeadLettersConfig {
            in_a_row: const { NonZeroUsize::new(500).unwrap() },
            share: 0.5,
            window: const { NonZeroUsize::new(2000).unwrap() },
        }
    }
}

/// `[refit]`: how mu and tau are found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct RefitConfig {
    /// Time between two looks for populations with news, at least. Default 1s.
    #[serde(with = "text::duration")]
    pub interval: Duration,
    /// Experiments from which on shrunken estimates are published under improper priors. Default 5.
    pub min_experiments: u64,
    /// `flat` or `normal:MEAN,SD`, in the effects' unit. Default `flat`.
    #[serde(with = "text")]
    pub prior_mu: PriorMu,
    /// `flat`, `half-normal:SCALE`, `half-cauchy:SCALE` or `half-t:DF,SCALE`, in the effects' unit. Default `flat`.
    #[serde(with = "text")]
    pub prior_tau: PriorTau,
    /// Seed of the choice of the variant that speaks for its experiment where one variant speaks for its experiment. Default 0.
    pub one_per_experiment_seed: u64,
}

impl Default for RefitConfig {
    fn default() -> RefitConfig {
        RefitConfig {
            interval: Duration::from_secs(1),
            min_experiments: 5,
            prior_mu: PriorMu::Flat,
            prior_tau: PriorTau::Flat,
            one_per_experiment_seed: 0,
        }
    }
}

/// `[publish]`: when the estimates of a whole population are written again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct PublishConfig {
    /// How far mu (in `sqrt(tau^2 + sd(mu)^2)`), log tau or their posterior sds may have moved before all rows are rewritten; above 0, below
    /// 1. Default 0.01.
    pub tolerance: f64,
}

impl Default for PublishConfig {
    fn default() -> PublishConfig {
        PublishConfig { tolerance: 0.01 }
    }
}

/// `[diagnostics]`: whether correlation matters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct DiagnosticsConfig {
    /// Time between two passes over the blocks of a population, at least. Default 10min.
    #[serde(with = "text::duration")]
    pub interval: Duration,
    /// Where each measure becomes noticeable, and material. Defaults 1.02 and 1.10 (`se_ratio`), 0.05 and 0.25
    /// (`mu_shift` and `log_tau_shift`), 0.001 and 0.01 (`sign_flip_share`).
    #[serde(with = "ThresholdsKeys")]
    pub thresholds: Thresholds,
}

impl Default for DiagnosticsConfig {
    fn default() -> DiagnosticsConfig {
        DiagnosticsConfig { interval: Duration::from_secs(600), thresholds: Thresholds::default() }
    }
}

/// How [`Thresholds`] are written: the model knows nothing of files.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Thresholds", deny_unknown_fields, expecting = "a table")]
struct ThresholdsKeys {
    #[serde(with = "ThresholdKeys")]
    se_ratio: Threshold,
    #[serde(with = "ThresholdKeys")]
    mu_shift: Threshold,
    #[serde(with = "ThresholdKeys")]
    log_tau_shift: Threshold,
    #[serde(with = "ThresholdKeys")]
    sign_flip_share: Threshold,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Threshold", deny_unknown_fields, expecting = "a table")]
struct ThresholdKeys {
    noticeable: f64,
    material: f64,
}

/// `[populations]`: which blocks share mu and tau, and what holds for single populations.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct PopulationsConfig {
    /// Event labels whose values divide populations further. Default none.
    pub labels: Vec<String>,
    /// By the population's name, `metric/segment/scale`. Default none.
    #[serde(with = "text::by_population")]
    pub settings: BTreeMap<PopulationName, PopulationOverride>,
}

/// `[populations.settings."metric/segment/scale"]`: what a population has of its own; the rest is as in `[refit]`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct PopulationOverride {
    #[serde(with = "text::optional")]
    pub prior_mu: Option<PriorMu>,
    #[serde(with = "text::optional")]
    pub prior_tau: Option<PriorTau>,
    pub min_experiments: Option<u64>,
}

/// `[http]`: metrics, health and the status page.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct HttpConfig {
    /// Address and port to listen on; port 0 takes a free one, which the log names. Default 127.0.0.1:9464.
    #[serde(deserialize_with = "text::address")]
    pub listen: SocketAddr,
}

impl Default for HttpConfig {
    fn default() -> HttpConfig {
        HttpConfig { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9464)) }
    }
}

/// `[log]`: what is said on stderr.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct LogConfig {
    /// `text` for people, `json` for programs. Default `text`.
    pub format: LogFormat,
    /// `off`, `error`, `warn`, `info`, `debug` or `trace`, also by target: `info,shrinkd::worker=debug`. Default `info`.
    #[serde(serialize_with = "text::serialize", deserialize_with = "text::level")]
    pub level: Targets,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    Text,
    Json,
}

impl Default for LogConfig {
    fn default() -> LogConfig {
        LogConfig { format: LogFormat::Text, level: Targets::new().with_default(LevelFilter::INFO) }
    }
}
