//! The worker: reads events from a source and writes estimates to a store.
//!
//! | module | contents |
//! | --- | --- |
//! | [`source`] | records from Kafka or a file, decoded and batched; which partitions are owned |
//! | [`dead_letters`] | halts a partition if too many of its messages are refused |
//! | [`admission`] | how many populations there may be, and which results may create one; pure |
//! | [`fold`] | records and stored state -> changes; pure |
//! | `batch` | the transaction of a batch: read, fold, write, estimate |
//! | [`catch_up`] | whether a batch is so far behind that its estimates are left to a pass; pure |
//! | `occasional` | which of many alike log lines are written |
//! | [`ingest`] | the ingest loop: commits each batch together with its offsets |
//! | [`replay`] | ingests refused messages again |
//! | [`refit`] | the refit loop: cells -> mu and tau of changed populations, and whether a whole publish is due |
//! | [`report`] | the populations as metrics show them |
//! | [`publish`] | the publish loop: passes that write all estimates of a population |
//! | `diagnosis` | the diagnostics of a population that need every block, accumulated in a pass |
//! | [`rebuild`] | recomputes everything from the reported statistics, under other settings |
//! | [`retry`] | retries of store operations, with backoff and jitter |
//! | [`supervise`] | starts all of these, and shuts them down |

pub mod admission;
mod batch;
pub mod catch_up;
pub mod dead_letters;
mod diagnosis;
pub mod fold;
pub mod ingest;
mod occasional;
pub mod publish;
pub mod rebuild;
pub mod refit;
pub mod replay;
pub mod report;
pub mod retry;
pub mod source;
pub mod supervise;

use std::time::Duration;

use crate::store::StoreError;
use retry::Retryable;

/// Why a worker cannot continue.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error(transparent)]
    Source(#[from] source::SourceError),
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Only a file halts as a whole: it has one partition.
    #[error("the source is halted: {0}; after `shrinkd partitions resume 0` the next worker continues behind them")]
    Halted(String),
    #[error(
        "the store did not take what was read within the drain budget of {} s: the next worker reads it again",
        .0.as_secs_f64()
    )]
    DrainBudget(Duration),
    #[error(
        "the rebuild would leave {populations} populations, more than before and more than limits.max_populations allows \
         ({limit}): correct populations.labels, or raise the limit. Nothing was changed"
    )]
    TooManyPopulations { populations: u64, limit: u64 },
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
    #[error(transparent)]
    Fold(#[from] fold::FoldError),
    #[error("a computation panicked or was cancelled: {0} (a bug)")]
    Computation(#[from] tokio::task::JoinError),
    /// The arithmetic of a population.
    #[error("{0} (a bug)")]
    Panicked(String),
}

impl WorkerError {
    /// Whether the cause is what a population holds: others can be refitted.
    pub fn is_of_a_population(&self) -> bool {
        match self {
            WorkerError::Store(error) => error.is_of_a_row(),
            WorkerError::Panicked(_) => true,
            _ => false,
        }
    }
}

impl Retryable for WorkerError {
    fn store_error(&self) -> Option<&StoreError> {
        match self {
            WorkerError::Store(error) => Some(error),
            _ => None,
        }
    }
}
