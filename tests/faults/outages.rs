//! Outages of real servers, and the alerts that a real Prometheus raises for real workers: each alert has to fire, and to be
//! over again, within the time that docs/operations.md states for it, and no other critical alert may fire.
//!
//! All outages are simultaneous. Each has a worker, a topic and a database of its own, and two that stop servers have those
//! to themselves, too.

mod deployment;
mod group;
mod load;
mod monitoring;
mod prometheus;
mod rules;
mod source;
mod store;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;

use super::services::{OwnServers, Services};
use monitoring::Monitoring;

/// Causes every outage, with every duration in the alert rules divided by `speedup`.
pub async fn all(name: &str, speedup: u32) {
    let Some(_services) = Services::alone() else { return };
    let Some(monitoring) = Monitoring::start(name, speedup) else { return };
    let Some(empty) = Monitoring::start(&format!("{name}-without-workers"), speedup) else { return };
    // First, because Kafka starts slowly on a busy machine.
    let servers = Arc::new(OwnServers::start(&monitoring.folder.path("servers")));
    let idle = source::nothing_to_do_after_transactions(Arc::clone(&monitoring)).await;
    let (of_postgres, of_kafka) = (Arc::clone(&servers), servers);
    let mut outages = vec![
        start(&monitoring, |monitoring| store::postgres_is_down(monitoring, of_postgres)),
        start(&monitoring, |monitoring| source::kafka_is_gone(monitoring, of_kafka)),
        start(&monitoring, store::the_disk_is_full),
        start(&monitoring, store::a_table_is_locked),
        start(&monitoring, store::a_batch_is_not_answered),
        start(&monitoring, store::a_claim_is_not_answered),
        start(&monitoring, store::the_password_is_wrong),
        start(&monitoring, source::reading_is_not_allowed_any_more),
        start(&monitoring, source::the_topic_is_missing),
        start(&monitoring, source::a_partition_is_halted),
        start(&monitoring, source::a_transaction_stays_open),
        start(&monitoring, store::a_population_cannot_be_fitted),
        start(&monitoring, store::only_winners_arrive),
        start(&monitoring, source::producers_create_too_many_populations),
        start(&monitoring, group::another_program_takes_partitions),
        start(&monitoring, group::one_of_two_workers_is_down),
        start(&empty, group::there_is_no_worker),
    ];
    if monitoring.is_shortened() {
        // Their alerts take a quarter of an hour or more.
        outages.extend([
            start(&monitoring, store::a_refit_is_not_answered),
            start(&monitoring, store::transactions_are_refused_time_and_again),
            start(&monitoring, source::a_producer_sends_what_is_refused),
            start(&monitoring, group::two_deployments_share_a_store),
        ]);
    }
    // The panic of each outage has been printed.
    let failed = outages.into_iter().map(JoinHandle::join).filter(Result::is_err).count();
    monitoring.report();
    empty.report();
    assert_eq!(failed, 0, "failed outages");
    let seen = monitoring.prometheus.sightings(idle.job);
    let raised: BTreeMap<_, _> = seen.iter().filter(|(_, seen)| seen.fired.is_some() || seen.is_pending).collect();
    assert!(raised.is_empty(), "a healthy worker raises {raised:#?}");
    idle.end(&[]).await;
}

/// Starts an outage on a thread of its own.
fn start<F: Future<Output = ()>>(
    monitoring: &Arc<Monitoring>,
    outage: impl FnOnce(Arc<Monitoring>) -> F + Send + 'static,
) -> JoinHandle<()> {
    let monitoring = Arc::clone(monitoring);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(outage(monitoring));
    })
}
