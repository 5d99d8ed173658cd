//! Retries of operations that use the store, and of connecting to the brokers, with exponential backoff and jitter.
//!
//! A stop ends the pause between two attempts, but never an attempt, whose COMMIT may be under way, and the drain budget is one
//! for all operations that follow. Retry libraries would leave all of that to be written.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::store::StoreError;
use crate::telemetry::Telemetry;
use crate::telemetry::health::{Loop, Operation};

/// The longest pause after the first failed attempt. It doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause after any attempt.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How often a loop is reported as alive while an attempt waits for the store.
const BEAT: Duration = Duration::from_secs(5);

/// An error of an operation that uses the store or the brokers.
pub trait Retryable: fmt::Display {
    /// The store's error, if it is one.
    fn store_error(&self) -> Option<&StoreError>;

    /// Whether trying again can help.
    fn is_transient(&self) -> bool {
        self.store_error().is_some_and(StoreError::is_transient)
    }

    /// What failed and why, without text of the database: for `/readyz`.
    fn summary(&self) -> String {
        self.store_error().map_or_else(|| self.to_string(), StoreError::summary)
    }
}

impl Retryable for StoreError {
    fn store_error(&self) -> Option<&StoreError> {
        Some(self)
    }
}

/// Retries operations that fail with a transient error. Clones share the drain budget.
///
/// Without a stop or a [limit](Retry::within), it retries for as long as it takes.
#[derive(Clone)]
pub struct Retry {
    telemetry: Telemetry,
    stop: CancellationToken,
    drain_budget: Duration,
    /// When the stop was first noticed. The budget is spent from then on, over all operations.
    stopping_since: Arc<OnceLock<Instant>>,
    health_loops: &'static [Loop],
    limit: Option<Duration>,
}

impl Retry {
    /// Retries until `stop` is cancelled, and for as long as `drain_budget` after that.
    pub fn new(telemetry: Telemetry, stop: CancellationToken, drain_budget: Duration) -> Retry {
        Retry { telemetry, stop, drain_budget, stopping_since: Arc::default(), health_loops: &[], limit: None }
    }

    /// Reports the loops that wait here as alive, also during attempts.
    #[must_use]
    pub fn for_loops(self, health_loops: &'static [Loop]) -> Retry {
        Retry { health_loops, ..self }
    }

    /// Retries each operation for no longer than `limit` since its first attempt began.
    #[must_use]
    pub fn within(self, limit: Duration) -> Retry {
        Retry { limit: Some(limit), ..self }
    }

    /// Runs an operation until it succeeds, fails with an error that is not transient, or the time for it is over.
    ///
    /// An attempt is never cancelled: a stop ends the pause between two of them, and cuts short those that follow, so that
    /// the last attempt starts when the budget is spent. From the first attempt that fails to the next one that succeeds, the
    /// operation is reported as failing. Each retry is logged, and counted in `shrinkd_retries_total`, under its name.
    ///
    /// # Errors
    /// The error of the last attempt.
    pub async fn run<T, E, F>(&self, operation: Operation, mut attempt: impl FnMut() -> F) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
        E: Retryable,
    {
        let started = Instant::now();
        let mut retries = 0;
        loop {
            let error = match self.beating(attempt()).await {
                Ok(value) => {
                    self.telemetry.health.succeeded(operation);
                    return Ok(value);
                }
                Err(error) => error,
            };
            if !error.is_transient() {
                return Err(error);
            }
            self.telemetry.health.failed(operation, error.summary());
            let pause = match self.time_left(started) {
                Some(Duration::ZERO) => return Err(error),
                Some(time_left) => time_left.min(pause(retries, random())),
                None => pause(retries, random()),
            };
            retries += 1;
            self.telemetry.metrics.count_retry(operation.as_str(), error.store_error().and_then(StoreError::code));
            let failed = if error.store_error().is_some() { "the store" } else { "the source" };
            warn!(operation = operation.as_str(), retries, %error, pause_ms = pause.as_millis() as u64, "{failed} failed, retrying");
            self.sleep(pause).await;
        }
    }

    /// Reports the loops as alive for as long as an attempt takes: one that waits for a lock or for a slow disk is not stuck,
    /// and a restart would not help.
    async fn beating<T>(&self, attempt: impl Future<Output = T>) -> T {
        let mut attempt = pin!(attempt);
        loop {
            let ended = tokio::time::timeout(BEAT, &mut attempt).await;
            self.health_loops.iter().for_each(|health_loop| self.telemetry.health.beat(*health_loop));
            if let Ok(ended) = ended {
                return ended;
            }
        }
    }

    /// How much longer an operation may be retried; `None` without a limit.
    fn time_left(&self, started: Instant) -> Option<Duration> {
        let of_limit = self.limit.map(|limit| limit.saturating_sub(started.elapsed()));
        let of_drain = self.stop.is_cancelled().then(|| {
            let since = self.stopping_since.get_or_init(Instant::now);
            self.drain_budget.saturating_sub(since.elapsed())
        });
        of_limit.into_iter().chain(of_drain).min()
    }

    /// Sleeps, until the stop at the longest if that is still to come.
    async fn sleep(&self, pause: Duration) {
        if self.stop.is_cancelled() {
            return tokio::time::sleep(pause).await;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = self.stop.cancelled() => {
                self.stopping_since.get_or_init(Instant::now);
            }
        }
    }
}

/// The pause before the retry of this number, from 0 on: half of the exponential backoff, and a random share of the other
/// half ("equal jitter" in "Exponential Backoff And Jitter", AWS Architecture Blog, 2015). So workers whose attempts collided
/// do not collide again. `random` is uniform in [0, 1).
fn pause(retries: u32, random: f64) -> Duration {
    let backoff = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(retries)).min(LONGEST_PAUSE);
    backoff.mul_f64(0.5 + 0.5 * random)
}

/// A random number in [0, 1), from the keys of the standard library's hasher.
fn random() -> f64 {
    (RandomState::new().hash_one(()) >> 11) as f64 * f64::EPSILON / 2.0
}

#[cfg(test)]
mod tests {
    use std::future::ready;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn transient() -> StoreError {
        StoreError::Conflict { statement: "commit", message: "conflict".to_owned() }
    }

    fn retry(drain_budget: Duration) -> Retry {
        Retry::new(Telemetry::default(), CancellationToken::new(), drain_budget)
    }

    #[test]
    fn pauses_double_up_to_ten_seconds_and_jitter_takes_at_most_half() {
        let longest: Vec<u128> = (0..10).map(|retries| pause(retries, 1.0).as_millis()).collect();
        assert_eq!(longest, [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000, 10_000]);
        assert_eq!(pause(0, 0.0), FIRST_PAUSE / 2);
        assert_eq!(pause(u32::MAX, 0.0), LONGEST_PAUSE / 2);
    }

    #[test]
    fn jitter_is_spread_over_its_range() {
        let numbers: Vec<f64> = (0..1_000).map(|_| random()).collect();
        assert!(numbers.iter().all(|number| (0.0..1.0).contains(number)));
        let mean = numbers.iter().sum::<f64>() / 1_000.0;
        assert!((0.4..0.6).contains(&mean), "{mean}");
    }

    /// An operation that always fails, and counts its attempts.
    async fn failing(attempts: &AtomicU32) -> Result<(), StoreError> {
        attempts.fetch_add(1, Ordering::Relaxed);
        Err(transient())
    }

    #[tokio::test]
    async fn a_transient_error_is_retried_counted_and_shown_until_it_is_over() {
        let retry = retry(Duration::ZERO);
        let Telemetry { metrics, health, .. } = retry.telemetry.clone();
        health.succeeded(Operation::Group);
        health.succeeded(Operation::Connect);
        let mut seen = Vec::new();
        let result = retry.run(Operation::Refit, || {
            seen.push(health.readiness());
            ready(if seen.len() < 3 { Err(transient()) } else { Ok("done") })
        });
        assert_eq!(result.await.expect("the third attempt succeeds"), "done");
        let failed = Err(format!("refit: {}", transient().summary()));
        assert_eq!(seen, [Ok(()), failed.clone(), failed]);
        assert_eq!(health.readiness(), Ok(()));
        let series = "shrinkd_retries_total{operation=\"refit\",sqlstate_class=\"40\"} 2\n";
        let shown = metrics.render(&health);
        assert!(shown.contains(series), "{shown}");
    }

    #[tokio::test]
    async fn an_error_that_does_not_pass_is_returned_at_once() {
        let mut attempts = 0;
        let result: Result<(), _> = retry(Duration::MAX)
            .run(Operation::Refit, || {
                attempts += 1;
                ready(Err(StoreError::Permanent {
                    statement: "commit",
                    code: None,
                    message: "no such table".to_owned(),
                }))
            })
            .await;
        assert_eq!((attempts, result.is_err()), (1, true));
    }

    #[tokio::test]
    async fn after_a_stop_it_gives_up_once_the_budget_is_spent_over_all_operations() {
        let retry = retry(Duration::from_millis(300));
        retry.stop.cancel();
        let (started, attempts) = (Instant::now(), AtomicU32::new(0));
        let failed = tokio::time::timeout(6 * LONGEST_PAUSE, retry.run(Operation::Refit, || failing(&attempts)));
        failed.await.expect("it ends").expect_err("it gives up");
        assert!(started.elapsed() >= Duration::from_millis(300), "gave up after {:?}", started.elapsed());
        assert!(attempts.into_inner() > 2);
        let attempts = AtomicU32::new(0);
        retry.clone().run(Operation::Claim, || failing(&attempts)).await.expect_err("it gives up");
        assert_eq!(attempts.into_inner(), 1, "nothing of the budget is left");
    }

    #[tokio::test]
    async fn a_stop_ends_the_pause() {
        let retry = retry(Duration::from_secs(60));
        let stop = retry.stop.clone();
        let started = Instant::now();
        tokio::join!(retry.sleep(LONGEST_PAUSE), async move { stop.cancel() });
        assert!(started.elapsed() < LONGEST_PAUSE, "slept for {:?}", started.elapsed());
        assert!(retry.stopping_since.get().is_some(), "the budget is spent from here on");
    }

    #[tokio::test]
    async fn a_limit_holds_without_a_stop() {
        let (started, attempts) = (Instant::now(), AtomicU32::new(0));
        let retry = retry(Duration::MAX).within(Duration::from_millis(250));
        retry.run(Operation::Refit, || failing(&attempts)).await.expect_err("it gives up");
        assert!(started.elapsed() >= Duration::from_millis(250), "gave up after {:?}", started.elapsed());
    }

    #[tokio::test]
    async fn an_operation_may_be_an_async_closure_on_another_thread() {
        let spawned = tokio::spawn(async {
            let (retry, attempts) = (retry(Duration::ZERO), AtomicU32::new(0));
            let result = retry.run(Operation::Refit, async || {
                tokio::task::yield_now().await;
                if attempts.fetch_add(1, Ordering::Relaxed) == 0 { Err(transient()) } else { Ok(()) }
            });
            result.await
        });
        spawned.await.expect("no panic").expect("the second attempt succeeds");
    }
}
