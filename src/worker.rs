//! The worker: events in from a source, estimates out to a store.
//!
//! | room | what happens there |
//! | --- | --- |
//! | [`source`] | records from Kafka or a file, decoded, in batches; which partitions are owned |
//! | [`dead_letters`] | are so many messages refused that the partition has to halt? |
//! | [`fold`] | records and stored state -> changes, pure |
//! | [`ingest`] | batch after batch into the store, offsets and effects in one transaction |
//! | [`replay`] | refused messages again, the same way |
//! | [`refit`] | cells -> mu and tau of populations with news; is a whole publish due? |
//! | [`publish`] | passes through all blocks of a population: estimates anew, diagnostics |
//! | [`rebuild`] | everything anew from what was sent, under other settings |
//! | [`supervise`] | all of these together, and how they end |

mod batch;
pub mod dead_letters;
pub mod fold;
pub mod ingest;
mod lag;
pub mod publish;
pub mod rebuild;
pub mod refit;
pub mod replay;
pub mod retry;
pub mod source;
pub mod supervise;

use crate::store::StoreError;
use retry::Retryable;

/// Why a worker cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error(transparent)]
    Source(#[from] source::SourceError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the source is halted: {0}; `shrinkd partitions resume` has the next worker go on behind them")]
    Halted(String),
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
    #[error(transparent)]
    Fold(#[from] fold::FoldError),
    #[error("a computation ended early: {0} (a bug)")]
    Computation(#[from] tokio::task::JoinError),
}

impl Retryable for WorkerError {
    fn store_error(&self) -> Option<&StoreError> {
        match self {
            WorkerError::Store(error) => Some(error),
            _ => None,
        }
    }
}
