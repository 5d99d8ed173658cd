//! The keys of the configuration with their defaults, section by section.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shrinkd_core::{Grouping, KeyRule, PopulationName, ShippedDecisions};
use shrinkd_model::{Direction, PriorIcc, PriorMu, PriorTau, Quantity, Threshold, Thresholds};
use tracing_subscriber::filter::{LevelFilter, Targets};

use super::properties::Properties;
use super::{Config, text};

/// The configuration as written. It has no `Debug`, because it holds secrets in the clear.
pub(super) type Keys = Config<SourceKeys, StoreKeys>;

impl Keys {
    /// Every key with a value of the type that it takes: its default, or an empty one where it has none.
    pub fn complete() -> Keys {
        let kafka = KafkaKeys {
            brokers: Some(String::new()),
            topic: Some(String::new()),
            group: default_group(),
            key: KeyRule::default(),
            properties: Properties::default(),
        };
        let file = FileKeys { path: Some(PathBuf::new()), follow: false };
        let StoreKeys { url: _, connections } = StoreKeys::default();
        Keys {
            source: SourceKeys { kafka: Some(kafka), file: Some(file) },
            store: StoreKeys { url: Some(String::new()), connections },
            ..Keys::default()
        }
    }
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
    pub key: KeyRule,
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

/// `[ingest]`: when a batch is closed and committed. The first limit reached closes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct IngestConfig {
    /// Most records in a batch. Default 5000.
    pub batch_records: NonZeroUsize,
    /// Most bytes of keys and payloads in a batch; a single record may exceed it. Default 8388608 (8 MiB).
    pub batch_bytes: NonZeroUsize,
    /// Longest time that the first record of a batch waits for others. Default 100ms.
    #[serde(with = "text::duration")]
    pub batch_age: Duration,
    /// How long a worker that stops, or whose partitions are revoked, may still commit what it has read. Default 10s.
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

/// `[catch_up]`: how far behind the end of its input a worker leaves estimates to passes, which write them once it has caught up,
/// and every 30 seconds until then.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct CatchUpConfig {
    /// This many records; it has caught up below a tenth of them. Default 20000.
    pub records: NonZeroU64,
    /// Or records of this age, if there are at least a tenth as many. Default 30s.
    #[serde(with = "text::duration")]
    pub age: Duration,
}

impl Default for CatchUpConfig {
    fn default() -> CatchUpConfig {
        CatchUpConfig { records: const { NonZeroU64::new(20_000).unwrap() }, age: Duration::from_secs(30) }
    }
}

/// `[dead_letters]`: how many messages of a partition may be dead letters before it is halted. A dead letter is a message
/// that is refused as a whole, or whose results are all refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct DeadLettersConfig {
    /// Consecutive dead letters that halt a partition. Default 500.
    pub in_a_row: NonZeroUsize,
    /// Largest permitted share of dead letters among the last `window` messages; 1 disables the limit. Default 0.5.
    pub share: f64,
    /// Messages over which the share is computed; with fewer there is no limit on it. Default 2000.
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

/// `[limits]`: what producers may create.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct LimitsConfig {
    /// Most populations in the store. A result that would create another is refused; those of existing populations are not
    /// affected. Default 10000.
    pub max_populations: u64,
}

impl Default for LimitsConfig {
    fn default() -> LimitsConfig {
        LimitsConfig { max_populations: 10_000 }
    }
}

/// `[refit]`: how mu, tau and icc are estimated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct RefitConfig {
    /// Shortest time between two checks for populations with new data. Default 1s.
    #[serde(with = "text::duration")]
    pub interval: Duration,
    /// Fewest experiments for which shrunken estimates are published under improper priors. Default 5.
    pub min_experiments: u64,
    /// `flat`, `fixed:VALUE` or `normal:MEAN,SD`, in the unit of the effects or in units taken from the data (`normal:0,2se`,
    /// `normal:mean,1sd`). Default `flat`.
    #[serde(with = "text")]
    pub prior_mu: PriorMu<Quantity>,
    /// `flat`, `fixed:VALUE`, `half-normal:SCALE`, `half-cauchy:SCALE`, `half-t:DF,SCALE`, `dumouchel:SCALE`,
    /// `uniform-shrinkage:SCALE`, `inverse-gamma:SHAPE,SCALE` or `log-normal:MEAN,SD`, in the unit of the effects, or with a
    /// scale in typical standard errors (`half-normal:0.5se`). Default `flat`.
    #[serde(with = "text")]
    pub prior_tau: PriorTau<Quantity>,
    /// Prior of the intraclass correlation, how alike the true effects of one experiment's variants are: `none` (they are
    /// independent), `uniform`, `fixed:VALUE` or `beta:A,B`. Default `none`.
    #[serde(with = "text")]
    pub prior_icc: PriorIcc,
    /// Seed of the choice of one variant per experiment. Default 0.
    pub one_per_experiment_seed: u64,
}

impl Default for RefitConfig {
    fn default() -> RefitConfig {
        RefitConfig {
            interval: Duration::from_secs(1),
            min_experiments: 5,
            prior_mu: PriorMu::Flat,
            prior_tau: PriorTau::Flat,
            prior_icc: PriorIcc::None,
            one_per_experiment_seed: Grouping::default().one_per_experiment_seed,
        }
    }
}

/// `[publish]`: when the estimates of a whole population are rewritten.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct PublishConfig {
    /// How far mu (in units of `sqrt(tau^2 + sd(mu)^2)`), log tau or their posterior sds may move before all rows are
    /// rewritten; above 0 and below 1. Default 0.01.
    pub tolerance: f64,
}

impl Default for PublishConfig {
    fn default() -> PublishConfig {
        PublishConfig { tolerance: 0.01 }
    }
}

/// `[diagnostics]`: whether the correlation between the variants of an experiment matters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct DiagnosticsConfig {
    /// Shortest time between two passes over the blocks of a population. Default 10min.
    #[serde(with = "text::duration")]
    pub interval: Duration,
    /// From which value on what the naive model does is noticeable, and material. Defaults 0.94 and 0.90 (`naive_coverage`), 0.02 and 0.05
    /// (`rmse_excess`), 0.01 and 0.05 (`changed_decisions`, of at least 3: `fewest_changed_decisions`).
    #[serde(with = "ThresholdsKeys")]
    pub thresholds: Thresholds,
    /// The spellings of `decision` in events that mean shipped; case does not matter, and `-`, `_` and spaces are one. Default
    /// `shipped`.
    pub shipped_decisions: Vec<String>,
}

impl Default for DiagnosticsConfig {
    fn default() -> DiagnosticsConfig {
        DiagnosticsConfig {
            interval: Duration::from_secs(600),
            thresholds: Thresholds::default(),
            shipped_decisions: vec![ShippedDecisions::DEFAULT.to_owned()],
        }
    }
}

/// The keys of [`Thresholds`], a type of the model, which has no serialisation of its own.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Thresholds", deny_unknown_fields, expecting = "a table")]
struct ThresholdsKeys {
    #[serde(with = "ThresholdKeys")]
    naive_coverage: Threshold,
    #[serde(with = "ThresholdKeys")]
    rmse_excess: Threshold,
    #[serde(with = "ThresholdKeys")]
    changed_decisions: Threshold,
    fewest_changed_decisions: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Threshold", deny_unknown_fields, expecting = "a table")]
struct ThresholdKeys {
    noticeable: f64,
    material: f64,
}

/// `[populations]`: which blocks share mu and tau, and settings of single populations.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct PopulationsConfig {
    /// Event labels whose values divide populations further. Default none.
    pub labels: Vec<String>,
    /// By the population's name, `metric/segment/scale`. Default none.
    #[serde(with = "text::by_population")]
    pub settings: BTreeMap<PopulationName, PopulationOverride>,
}

/// `[populations.settings."metric/segment/scale"]`: settings of one population; priors and `min_experiments` that are left out are as
/// in `[refit]`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct PopulationOverride {
    #[serde(with = "text::optional")]
    pub prior_mu: Option<PriorMu<Quantity>>,
    #[serde(with = "text::optional")]
    pub prior_tau: Option<PriorTau<Quantity>>,
    #[serde(with = "text::optional")]
    pub prior_icc: Option<PriorIcc>,
    pub min_experiments: Option<u64>,
    /// `increase` or `decrease`: which way of the effects is better where a result does not say. Default `increase`.
    pub direction: Option<Direction>,
}

/// `[metrics]`: how many series there are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct MetricsConfig {
    /// Most populations with series of their own: those with the most effects. Default 500.
    pub populations: usize,
}

impl Default for MetricsConfig {
    fn default() -> MetricsConfig {
        MetricsConfig { populations: 500 }
    }
}

/// `[http]`: metrics, health and the status page.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct HttpConfig {
    /// Address and port to listen on; port 0 chooses a free one, which is logged. Default 127.0.0.1:9464.
    #[serde(deserialize_with = "text::address")]
    pub listen: SocketAddr,
}

impl Default for HttpConfig {
    fn default() -> HttpConfig {
        HttpConfig { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9464)) }
    }
}

/// `[log]`: what is logged to stderr.
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
