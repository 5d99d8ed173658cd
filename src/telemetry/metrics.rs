//! The metrics of one worker, in a registry of their own: two workers in one process count separately.
//!
//! Names follow the conventions of Prometheus: base units, `_total` for counters. Counters cover what was committed: the
//! loops report after their transactions, so that a batch that is rolled back and retried counts once.

mod family;
mod fields;
mod populations;
mod state;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus::{Gauge, GaugeVec, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use shrinkd_core::{Counts, Reason, WarningCode};
use time::OffsetDateTime;

use super::health::Health;
use family::Families;
pub use family::Family;
pub use fields::Counted;
use populations::PopulationGauges;
use state::State;
pub(super) use state::seconds_since;
pub use state::{Lag, PopulationCounts, PopulationSummary};

/// The duration of a transaction: from a millisecond to ten seconds.
const DURATION_BUCKETS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// The delay of an event, in normal operation and after an outage: from ten milliseconds to a day.
const AGE_BUCKETS: [f64; 15] =
    [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0, 86_400.0];

/// Counters, gauges and histograms of one worker. Clones share them.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    families: Families,
    records: IntCounter,
    results: IntCounterVec,
    tombstones: IntCounter,
    rejected_events: IntCounterVec,
    result_warnings: IntCounterVec,
    unknown_fields: IntCounterVec,
    topic_partitions: IntGauge,
    owned_partitions: IntGauge,
    halted: IntGaugeVec,
    lag_records: IntGaugeVec,
    lag_seconds: GaugeVec,
    event_age: Histogram,
    ingest_commit: Histogram,
    refit: Histogram,
    folded_changes: IntCounter,
    catching_up: IntGauge,
    publish: Histogram,
    rows_written: IntCounterVec,
    rows_skipped: IntCounterVec,
    ready: IntGauge,
    consecutive_failures: IntGaugeVec,
    batch_age: Gauge,
    end_offsets_at: Gauge,
    last_commit: Gauge,
    last_refit: Gauge,
    fenced: IntCounter,
    retries: IntCounterVec,
    populations: PopulationGauges,
    state: Mutex<State>,
}

impl Metrics {
    /// All metrics, at 0.
    pub fn new() -> Metrics {
        let mut f = Families::default();
        let build_info = f.int_gauges("shrinkd_build_info", &["version"], "1, with the version of shrinkd as a label");
        build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let inner = Inner {
            records: f.counter("shrinkd_records_total", "Records read and committed"),
            results: f.counters(
                "shrinkd_results_total",
                &["outcome"],
                "Results of events by outcome; those of messages that were refused as a whole are not counted",
            ),
            tombstones: f.counter("shrinkd_tombstones_total", "Messages that retracted a whole experiment"),
            rejected_events: f.counters(
                "shrinkd_rejected_events_total",
                &["reason"],
                "Refused messages, results and treatments: rows written to rejected_events",
            ),
            result_warnings: f.counters(
                "shrinkd_result_warnings_total",
                &["warning"],
                "Results that were taken although their figures need caution; the log says which",
            ),
            unknown_fields: f.counters(
                "shrinkd_unknown_fields_total",
                &["field"],
                "Events with a field that the contract does not have, by its name, or (other) beyond 50 names; the log has the first of each",
            ),
            topic_partitions: f
                .int_gauge("shrinkd_topic_partitions", "Partitions of the topic, from the broker; 0 while unknown"),
            owned_partitions: f.int_gauge("shrinkd_owned_partitions", "Partitions that this worker owns"),
            halted: f.int_gauges(
                "shrinkd_partition_halted",
                &["partition"],
                "1 for an owned partition that is not read until an operator resumes it, 0 for others",
            ),
            lag_records: f.int_gauges(
                "shrinkd_lag_records",
                &["partition"],
                "Records of an owned partition that are not committed yet",
            ),
            lag_seconds: f.gauges(
                "shrinkd_lag_seconds",
                &["partition"],
                "Age of the oldest record read but not committed; if none has been read, the time since the partition fell behind; \
                 0 without lag",
            ),
            event_age: f.histogram(
                "shrinkd_event_age_seconds",
                &AGE_BUCKETS,
                "Time from the production of a record to its commit",
            ),
            ingest_commit: f.histogram(
                "shrinkd_ingest_commit_seconds",
                &DURATION_BUCKETS,
                "Duration of a batch's transaction",
            ),
            refit: f.histogram(
                "shrinkd_refit_seconds",
                &DURATION_BUCKETS,
                "Duration of a population's refit: its share of a transaction that refits up to 100",
            ),
            catching_up: f.int_gauge(
                "shrinkd_catching_up",
                "1 while this worker is so far behind that it leaves estimates to a pass, else 0",
            ),
            folded_changes: f.counter(
                "shrinkd_folded_changes_total",
                "Changes of blocks that refits have added to the statistics of their populations",
            ),
            publish: f.histogram(
                "shrinkd_publish_seconds",
                &DURATION_BUCKETS,
                "Duration of one page of a publish pass",
            ),
            rows_written: f.counters("shrinkd_rows_written_total", &["table"], "Rows inserted, updated or deleted"),
            rows_skipped: f.counters(
                "shrinkd_rows_skipped_total",
                &["table"],
                "Rows computed and not written, because they would not have changed",
            ),
            ready: f.int_gauge("shrinkd_ready", "1 while /readyz says that the worker is ready, else 0"),
            consecutive_failures: f.int_gauges(
                "shrinkd_consecutive_failures",
                &["operation"],
                "Failed attempts of an operation since the last that succeeded",
            ),
            batch_age: f.gauge(
                "shrinkd_batch_age_seconds",
                "Time that the batch in hand has waited for its commit; 0 if there is none",
            ),
            end_offsets_at: f.gauge(
                "shrinkd_end_offsets_timestamp_seconds",
                "Unix time at which the brokers last told where the owned partitions end; 0 before the first",
            ),
            last_commit: f.gauge(
                "shrinkd_last_commit_timestamp_seconds",
                "Unix time of the last commit of a batch; 0 before the first",
            ),
            last_refit: f.gauge(
                "shrinkd_last_refit_timestamp_seconds",
                "Unix time of the last refit of a population; 0 before the first",
            ),
            fenced: f.counter(
                "shrinkd_fenced_total",
                "Commits rejected by the fencing token, because another worker owns the partition now",
            ),
            retries: f.counters(
                "shrinkd_retries_total",
                &["operation", "sqlstate_class"],
                "Retried operations on the store, and connections to the brokers at the start, by the first two characters of the \
                 error's SQLSTATE",
            ),
            populations: PopulationGauges::new(&mut f),
            state: Mutex::default(),
            families: f,
        };
        for reason in Reason::ALL {
            inner.rejected_events.with_label_values(&[reason.as_str()]);
        }
        for warning in WarningCode::ALL {
            inner.result_warnings.with_label_values(&[warning.as_str()]);
        }
        let metrics = Metrics(Arc::new(inner));
        metrics.count_batch(&Counts::default(), &[]);
        metrics
    }

    /// Every family, including those without series.
    pub fn families(&self) -> &[Family] {
        self.0.families.list()
    }

    /// All series in the text format of Prometheus, with the health of the worker.
    pub fn render(&self, health: &Health) -> String {
        self.0.ready.set(i64::from(health.readiness().is_ok()));
        for (operation, failures) in health.consecutive_failures() {
            self.0.consecutive_failures.with_label_values(&[operation.as_str()]).set(i64::from(failures));
        }
        self.0.batch_age.set(self.state().batch_since.map_or(0.0, |since| since.elapsed().as_secs_f64()));
        // An age also grows while nothing is reported, which is when it matters most. Under the lock, so that the series of a
        // partition that is released meanwhile does not come back.
        for (partition, lag) in &self.state().partitions {
            self.0.lag_seconds.with_label_values(&[partition.to_string()]).set(lag.seconds());
        }
        self.0.families.render()
    }

    /// Counts a committed batch: the outcomes of its records and results, and the reasons of those that were refused.
    pub fn count_batch(&self, counts: &Counts, rejected: &[Reason]) {
        self.0.records.inc_by(counts.messages);
        self.0.tombstones.inc_by(counts.tombstones);
        for (outcome, count) in [
            ("accepted", counts.accepted),
            ("pending", counts.pending),
            ("duplicate", counts.duplicates),
            ("stale", counts.stale),
            ("refused", counts.refused),
        ] {
            self.0.results.with_label_values(&[outcome]).inc_by(count);
        }
        for reason in rejected {
            self.0.rejected_events.with_label_values(&[reason.as_str()]).inc();
        }
    }

    /// Counts the warnings of a committed batch.
    pub fn count_warnings(&self, warnings: &[WarningCode]) {
        for warning in warnings {
            self.0.result_warnings.with_label_values(&[warning.as_str()]).inc();
        }
    }

    /// Counts an event with an unknown field, by the field's name.
    pub fn count_unknown_field(&self, name: &str) -> Counted {
        let (label, counted) = self.state().unknown_fields.label(name);
        self.0.unknown_fields.with_label_values(&[label]).inc();
        counted
    }

    /// Sets how many partitions the topic has.
    pub fn set_topic_partitions(&self, partitions: usize) {
        self.0.topic_partitions.set(partitions as i64);
    }

    /// Adds partitions that this worker owns from now on.
    pub fn own_partitions(&self, partitions: &[i32]) {
        let mut state = self.state();
        for &partition in partitions {
            state.partitions.entry(partition).or_default();
            self.0.halted.with_label_values(&[&partition.to_string()]);
        }
        self.0.owned_partitions.set(state.partitions.len() as i64);
    }

    /// Removes partitions and their series, so that only their new owner reports their lag.
    pub fn release_partitions(&self, partitions: &[i32]) {
        let mut state = self.state();
        for partition in partitions {
            state.partitions.remove(partition);
            let label = [partition.to_string()];
            // Without a reported lag there is no series to remove.
            let _ = self.0.halted.remove_label_values(&label);
            let _ = self.0.lag_records.remove_label_values(&label);
            let _ = self.0.lag_seconds.remove_label_values(&label);
        }
        self.0.populations.release(&mut state.populations, partitions);
        self.0.owned_partitions.set(state.partitions.len() as i64);
    }

    /// Sets whether an owned partition is not read until an operator resumes it.
    pub fn set_halted(&self, partition: i32, is_halted: bool) {
        let mut state = self.state();
        if let Some(lag) = state.partitions.get_mut(&partition) {
            lag.is_halted = is_halted;
            self.0.halted.with_label_values(&[&partition.to_string()]).set(i64::from(is_halted));
        }
    }

    /// Sets the lag of an owned partition: how many records are not committed yet, and when the oldest of them was produced.
    /// If that is unknown, its age counts from when the partition fell behind.
    pub fn set_lag(&self, partition: i32, records: u64, oldest: Option<OffsetDateTime>) {
        let mut state = self.state();
        // A late report on a partition that was released must not bring its series back.
        let Some(lag) = state.partitions.get_mut(&partition) else { return };
        let since = oldest.or(lag.since).unwrap_or_else(OffsetDateTime::now_utc);
        *lag = Lag { records, since: (records > 0).then_some(since), ..*lag };
        let label = [partition.to_string()];
        self.0.lag_records.with_label_values(&label).set(i64::try_from(records).unwrap_or(i64::MAX));
        self.0.lag_seconds.with_label_values(&label).set(lag.seconds());
    }

    /// A batch is in hand, and is to be committed.
    pub fn begin_batch(&self) {
        self.state().batch_since = Some(Instant::now());
    }

    /// The batch in hand is committed, or never will be.
    pub fn end_batch(&self) {
        self.state().batch_since = None;
    }

    /// Observes that the brokers have told now where the owned partitions end.
    pub fn observe_end_offsets(&self) {
        self.0.end_offsets_at.set(unix_now());
    }

    /// Observes that a record with this time of production is committed now.
    pub fn observe_event_age(&self, produced_at: OffsetDateTime) {
        self.0.event_age.observe(seconds_since(produced_at));
    }

    /// Observes that a batch is committed now, after a transaction of this duration.
    pub fn observe_commit(&self, duration: Duration) {
        self.0.ingest_commit.observe(duration.as_secs_f64());
        self.0.last_commit.set(unix_now());
    }

    /// Observes that so many populations are refitted now, which took this long together.
    pub fn observe_refits(&self, populations: usize, duration: Duration) {
        let share = duration.as_secs_f64() / populations as f64;
        (0..populations).for_each(|_| self.0.refit.observe(share));
        self.0.last_refit.set(unix_now());
    }

    /// Sets whether this worker leaves estimates to a pass.
    pub fn set_catching_up(&self, is_catching_up: bool) {
        self.0.catching_up.set(i64::from(is_catching_up));
    }

    /// Counts changes of blocks that were taken out of the log and added to the statistics of their populations.
    pub fn count_folded_changes(&self, changes: u64) {
        self.0.folded_changes.inc_by(changes);
    }

    /// Observes that a page of estimates is published now, which took this long.
    pub fn observe_publish(&self, duration: Duration) {
        self.0.publish.observe(duration.as_secs_f64());
    }

    /// Counts rows of a table that were written.
    pub fn count_rows_written(&self, table: &str, rows: u64) {
        self.0.rows_written.with_label_values(&[table]).inc_by(rows);
    }

    /// Counts rows of a table that were left as they are.
    pub fn count_rows_skipped(&self, table: &str, rows: u64) {
        self.0.rows_skipped.with_label_values(&[table]).inc_by(rows);
    }

    /// Counts a commit that was fenced: another worker owns the partition.
    pub fn count_fenced(&self) {
        self.0.fenced.inc();
    }

    /// Counts a retry of a store operation after an error with this SQLSTATE, under the SQLSTATE's class; `other` if the error
    /// has none.
    pub fn count_retry(&self, operation: &str, sqlstate: Option<&str>) {
        let class = sqlstate.and_then(|state| state.get(..2)).unwrap_or("other");
        self.0.retries.with_label_values(&[operation, class]).inc();
    }

    /// The outcomes of all records and results so far.
    pub fn counts(&self) -> Counts {
        let results = |outcome| self.0.results.with_label_values(&[outcome]).get();
        Counts {
            messages: self.0.records.get(),
            tombstones: self.0.tombstones.get(),
            accepted: results("accepted"),
            pending: results("pending"),
            duplicates: results("duplicate"),
            stale: results("stale"),
            refused: results("refused"),
        }
    }

    /// Refused messages and results by reason, in the order of the checks; reasons without any are left out.
    pub fn rejected(&self) -> Vec<(Reason, u64)> {
        let rejected = |reason: Reason| (reason, self.0.rejected_events.with_label_values(&[reason.as_str()]).get());
        Reason::ALL.iter().copied().map(rejected).filter(|(_, count)| *count > 0).collect()
    }

    /// Rows of a table written so far.
    pub fn rows_written(&self, table: &str) -> u64 {
        self.0.rows_written.with_label_values(&[table]).get()
    }

    /// Owned partitions and their lag.
    pub fn partitions(&self) -> Vec<(i32, Lag)> {
        self.state().partitions.iter().map(|(&partition, &lag)| (partition, lag)).collect()
    }

    /// When a batch was last committed.
    pub fn last_commit(&self) -> Option<OffsetDateTime> {
        from_unix(self.0.last_commit.get())
    }

    /// When a population was last refitted.
    pub fn last_refit(&self) -> Option<OffsetDateTime> {
        from_unix(self.0.last_refit.get())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

fn unix_now() -> f64 {
    OffsetDateTime::now_utc().unix_timestamp_nanos() as f64 * 1e-9
}

fn from_unix(seconds: f64) -> Option<OffsetDateTime> {
    (seconds > 0.0).then(|| OffsetDateTime::from_unix_timestamp(seconds as i64).ok()).flatten()
}
