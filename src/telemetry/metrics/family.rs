//! Metric families: created, registered and listed in one step, so that the list matches the registry.

use prometheus::core::Collector;
use prometheus::{Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts};
use prometheus::{Registry, TextEncoder};

/// A metric family, as listed in the documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Family {
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

/// A registry and the families in it.
#[derive(Default)]
pub(super) struct Families {
    registry: Registry,
    list: Vec<Family>,
}

impl Families {
    pub fn list(&self) -> &[Family] {
        &self.list
    }

    pub fn render(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_else(|error| format!("# {error}\n"))
    }

    pub fn counter(&mut self, name: &'static str, help: &'static str) -> IntCounter {
        self.add("counter", name, &[], help, IntCounter::with_opts(Opts::new(name, help)))
    }

    pub fn counters(
        &mut self,
        name: &'static str,
        label: &'static [&'static str],
        help: &'static str,
    ) -> IntCounterVec {
        self.add("counter", name, label, help, IntCounterVec::new(Opts::new(name, help), label))
    }

    pub fn gauge(&mut self, name: &'static str, help: &'static str) -> Gauge {
        self.add("gauge", name, &[], help, Gauge::with_opts(Opts::new(name, help)))
    }

    pub fn int_gauge(&mut self, name: &'static str, help: &'static str) -> IntGauge {
        self.add("gauge", name, &[], help, IntGauge::with_opts(Opts::new(name, help)))
    }

    pub fn gauges(&mut self, name: &'static str, labels: &'static [&'static str], help: &'static str) -> GaugeVec {
        self.add("gauge", name, labels, help, GaugeVec::new(Opts::new(name, help), labels))
    }

    pub fn int_gauges(
        &mut self,
        name: &'static str,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> IntGaugeVec {
        self.add("gauge", name, labels, help, IntGaugeVec::new(Opts::new(name, help), labels))
    }

    pub fn histogram(&mut self, name: &'static str, buckets: &[f64], help: &'static str) -> Histogram {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.add("histogram", name, &[], help, Histogram::with_opts(options))
    }

    /// Names, labels and buckets are constants of this crate: an invalid one fails in the first run.
    fn add<M: Collector + Clone + 'static>(
        &mut self,
        kind: &'static str,
        name: &'static str,
        labels: &'static [&'static str],
        help: &'static str,
        metric: prometheus::Result<M>,
    ) -> M {
        let metric = metric.expect("names, labels and buckets are valid");
        self.registry.register(Box::new(metric.clone())).expect("names are unique");
        self.list.push(Family { name, kind, labels, help });
        metric
    }
}
