//! One experiment of a portfolio: its measurements, and the events that report them.

use shrinkd_core::Scale;
use shrinkd_model::Direction;

use super::effect_metric::{ENGAGEMENT, EffectMetric, FIRST_WEEK_PROFIT, LATENCY_P95, LOAD_TIME, RETENTION};
use super::metric::{CONVERSION, FURTHER_METRICS, METRICS, Metric, Totals};
use crate::simulate::Draws;
use crate::simulate::message::{self, Arm, Event, Labels, Measurement, Report, Reported};

const TEAMS: [&str; 5] = ["ads", "checkout", "growth", "platform", "search"];
const SURFACES: [&str; 3] = ["android", "ios", "web"];
pub(super) const CONTROL: &str = "control";

/// Shares of the traffic that experiments apply to: all, or a page's.
const COVERAGES: [f64; 5] = [1.0, 1.0, 0.5, 0.25, 0.1];

/// How an experiment's units are distributed over its two weeks and the two devices.
const SLICES: [Slice; 4] = [
    Slice { is_first_week: true, device: Device::Mobile, share: 0.3 },
    Slice { is_first_week: true, device: Device::Desktop, share: 0.2 },
    Slice { is_first_week: false, device: Device::Mobile, share: 0.3 },
    Slice { is_first_week: false, device: Device::Desktop, share: 0.2 },
];

struct Slice {
    is_first_week: bool,
    device: Device,
    share: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Device {
    Mobile,
    Desktop,
}

/// An experiment as drawn.
pub(super) struct Experiment {
    id: String,
    start: i64,
    labels: Labels,
    variants: Vec<String>,
    is_holdout: bool,
    decision: Option<Decision>,
    /// The share of the whole traffic that the effects apply to; `None` is all of it.
    coverage: Option<f64>,
    metrics: Vec<Measured>,
    /// Results of the pipelines that compute effects themselves.
    effects: Vec<Report>,
}

/// What the platform decided.
#[derive(Debug, Clone)]
enum Decision {
    /// All users get this variant.
    Shipped(String),
    KeptControl,
}

/// The random numbers of a portfolio.
#[derive(Debug)]
pub(super) struct Streams {
    /// Of what portfolios have had from the first.
    pub first: Draws,
    /// Of the rest, so that the first figures of a seed have stayed what they were.
    pub further: Draws,
}

/// One metric's totals: for each slice, those of every arm, the control first.
struct Measured {
    metric: Metric,
    slices: Vec<Vec<Totals>>,
}

impl Experiment {
    /// Draws the experiment at `index`, which starts at minute `start`.
    pub(super) fn draw(
        index: usize,
        start: i64,
        max_variants: usize,
        is_holdout: bool,
        streams: &mut Streams,
    ) -> Experiment {
        let Streams { first: draws, further } = streams;
        let mut treatments = 1;
        while treatments < max_variants && draws.chance(0.4) {
            treatments += 1;
        }
        let sizes = draw_sizes(treatments, draws);
        let labels =
            Labels { team: draws.pick(&TEAMS).unwrap_or_default(), surface: draws.pick(&SURFACES).unwrap_or_default() };
        let variants: Vec<String> = (0..treatments).map(message::variant).collect();
        let coverage = further.pick(&COVERAGES).filter(|share| *share < 1.0);
        let mut metrics = draw_metrics(&METRICS, &sizes, draws);
        let mut effects = draw_effects(&[ENGAGEMENT, LATENCY_P95], coverage, &variants, &sizes, draws);
        let conversion = metrics.iter().find(|measured| measured.metric == CONVERSION);
        let decision = conversion.and_then(|conversion| decide(conversion, &variants, draws));
        metrics.extend(draw_metrics(&FURTHER_METRICS, &sizes, further));
        let further_effects = [LOAD_TIME, RETENTION, FIRST_WEEK_PROFIT];
        effects.extend(draw_effects(&further_effects, coverage, &variants, &sizes, further));
        let id = message::experiment_id(index);
        Experiment { id, start, labels, variants, is_holdout, decision, coverage, metrics, effects }
    }

    /// An event about this experiment, `delay` minutes after its start.
    pub(super) fn event(&self, revision: u64, delay: i64, results: Vec<Report>) -> Event {
        let completed_at = message::minutes_in(self.start.saturating_add(delay));
        let event = Event::new(self.id.clone(), revision, completed_at, results);
        let event = Event {
            labels: Some(self.labels),
            started_at: Some(message::minutes_in(self.start)),
            shipped_variant: self.decision.as_ref().map(|decision| decision.variant().to_owned()),
            decision: self.decision.as_ref().map(Decision::as_str),
            ..event
        };
        if self.is_holdout { event.of_holdout() } else { event }
    }

    /// Every result of the complete experiment, optionally with conversion by device.
    pub(super) fn reports(&self, by_device: bool) -> Vec<Report> {
        let mut reports: Vec<Report> = self.metrics.iter().map(|m| self.arms(m, "all", |_| true)).collect();
        if let Some(conversion) = self.conversion().filter(|_| by_device) {
            reports.push(self.arms(conversion, "mobile", |slice| slice.device == Device::Mobile));
            reports.push(self.arms(conversion, "desktop", |slice| slice.device == Device::Desktop));
        }
        reports.extend(self.effects.iter().cloned());
        reports
    }

    /// The interim results after the first week.
    pub(super) fn interim(&self, revision: u64, delay: i64) -> Event {
        let reports = self.metrics.iter().map(|m| self.arms(m, "all", |slice| slice.is_first_week)).collect();
        Event { decision: None, shipped_variant: None, ..self.event(revision, delay, reports) }
    }

    /// Conversion without bots: three units in a hundred, none of which converted.
    pub(super) fn restatement(&self, revision: u64, delay: i64) -> Event {
        let without_bots = |totals: Totals| Totals { n: totals.n - totals.n * 3 / 100, ..totals };
        let reports = self.conversion().map(|conversion| {
            let totals = conversion.pooled(|_| true).into_iter().map(without_bots).collect();
            self.report(conversion.metric, "all", totals)
        });
        self.event(revision, delay, reports.into_iter().collect())
    }

    /// The complete experiment, with conversion in two accumulating parts and the other results in the second.
    pub(super) fn parts(&self, revision: u64, delay: i64) -> [Event; 2] {
        let part = |device, name| {
            let reports = self.conversion().map(|conversion| {
                let mut report = self.arms(conversion, "all", |slice| slice.device == device);
                if let Report::Reported(Reported { measurement: Measurement::Arms { accumulate, .. }, .. }) =
                    &mut report
                {
                    *accumulate = true;
                }
                report
            });
            let event_id = Some(format!("{}-{name}", self.id));
            Event { event_id, ..self.event(revision, delay, reports.into_iter().collect()) }
        };
        let (mobile, mut desktop) = (part(Device::Mobile, "mobile"), part(Device::Desktop, "desktop"));
        let others = self.metrics.iter().filter(|m| m.metric != CONVERSION);
        desktop.results.extend(others.map(|m| self.arms(m, "all", |_| true)));
        desktop.results.extend(self.effects.iter().cloned());
        [mobile, desktop]
    }

    fn conversion(&self) -> Option<&Measured> {
        self.metrics.iter().find(|measured| measured.metric == CONVERSION)
    }

    fn arms(&self, measured: &Measured, segment: &'static str, is_in: impl Fn(&Slice) -> bool) -> Report {
        self.report(measured.metric, segment, measured.pooled(is_in))
    }

    fn report(&self, metric: Metric, segment: &'static str, totals: Vec<Totals>) -> Report {
        let mut totals = totals.into_iter();
        let control = totals.next().unwrap_or_default();
        let treatments = self.variants.iter().zip(totals);
        let measurement = Measurement::Arms {
            accumulate: false,
            control: Arm { variant: CONTROL.to_owned(), statistics: metric.statistics(control) },
            treatments: treatments
                .map(|(variant, totals)| Arm { variant: variant.clone(), statistics: metric.statistics(totals) })
                .collect(),
        };
        let Metric { name, scale, direction, .. } = metric;
        report((name, scale, direction), Some(segment), self.coverage, measurement)
    }
}

impl Decision {
    fn as_str(&self) -> &'static str {
        match self {
            Decision::Shipped(_) => "shipped",
            Decision::KeptControl => "kept_control",
        }
    }

    /// What all users have got since.
    fn variant(&self) -> &str {
        match self {
            Decision::Shipped(variant) => variant,
            Decision::KeptControl => CONTROL,
        }
    }
}

impl Measured {
    fn draw(metric: Metric, sizes: &[u64], draws: &mut Draws) -> Measured {
        let means = metric.draw_means(sizes.len() - 1, draws);
        let slices = SLICES
            .iter()
            .map(|slice| {
                let arms = sizes.iter().zip(&means);
                arms.map(|(&n, &mean)| metric.draw_totals((n as f64 * slice.share) as u64, mean, draws)).collect()
            })
            .collect();
        Measured { metric, slices }
    }

    /// The totals of every arm over the selected slices.
    fn pooled(&self, is_in: impl Fn(&Slice) -> bool) -> Vec<Totals> {
        let chosen = SLICES.iter().zip(&self.slices).filter(|(slice, _)| is_in(slice)).map(|(_, totals)| totals);
        chosen.fold(Vec::new(), |pooled, totals| {
            if pooled.is_empty() {
                return totals.clone();
            }
            pooled.into_iter().zip(totals).map(|(sum, &slice)| sum + slice).collect()
        })
    }
}

/// Units of every arm, the control first. In one experiment of seven the control is a quarter of the size of an arm.
fn draw_sizes(treatments: usize, draws: &mut Draws) -> Vec<u64> {
    let typical = libm::exp(draws.normal(9.9, 0.9)).clamp(8e3, 2e6);
    let control_share = if draws.chance(1.0 / 7.0) { 0.25 } else { 1.0 };
    let shares = std::iter::once(control_share).chain(std::iter::repeat_n(1.0, treatments));
    shares.map(|share| (typical * share * draws.between(0.98, 1.02)) as u64).collect()
}

/// Those of the metrics that the experiment reports.
fn draw_metrics(metrics: &[Metric], sizes: &[u64], draws: &mut Draws) -> Vec<Measured> {
    let mut measured = Vec::with_capacity(metrics.len());
    for metric in metrics {
        if draws.chance(metric.reported) {
            measured.push(Measured::draw(*metric, sizes, draws));
        }
    }
    measured
}

/// Likewise, as results.
fn draw_effects(
    metrics: &[EffectMetric],
    coverage: Option<f64>,
    variants: &[String],
    sizes: &[u64],
    draws: &mut Draws,
) -> Vec<Report> {
    let mut reports = Vec::with_capacity(metrics.len());
    for metric in metrics {
        if draws.chance(metric.reported) {
            let measurement = metric.draw(variants, sizes, draws);
            reports.push(report((metric.name, metric.scale, metric.direction), None, coverage, measurement));
        }
    }
    reports
}

/// A result; an increase is not written, because it is the default.
fn report(
    (metric, scale, direction): (&'static str, Scale, Direction),
    segment: Option<&'static str>,
    coverage: Option<f64>,
    measurement: Measurement,
) -> Report {
    let direction = (direction != Direction::Increase).then(|| direction.as_str());
    Report::Reported(Reported { metric, segment, scale: scale.as_str(), direction, coverage, measurement })
}

/// The platform ships the best variant if it beats the control at the 5% level; one decision in ten is not recorded.
fn decide(conversion: &Measured, variants: &[String], draws: &mut Draws) -> Option<Decision> {
    if draws.chance(0.1) {
        return None;
    }
    let totals = conversion.pooled(|_| true);
    let (control, treatments) = totals.split_first()?;
    let z = treatments.iter().map(|treatment| {
        let error = control.variance() / control.n as f64 + treatment.variance() / treatment.n as f64;
        (treatment.mean() - control.mean()) / error.sqrt()
    });
    let (z, best) = z.zip(variants).max_by(|(a, _), (b, _)| a.total_cmp(b))?;
    Some(if z > 1.96 { Decision::Shipped(best.clone()) } else { Decision::KeptControl })
}
