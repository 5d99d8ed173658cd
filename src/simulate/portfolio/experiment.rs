//! One experiment of a portfolio: its measurements, and the events that report them.

use super::metric::{CONVERSION, ENGAGEMENT, EffectMetric, LATENCY_P95, METRICS, Metric, Totals};
use crate::simulate::Draws;
use crate::simulate::message::{self, Arm, Effect, EffectOfUnits, Event, Labels, Report, Units};

const TEAMS: [&str; 5] = ["ads", "checkout", "growth", "platform", "search"];
const SURFACES: [&str; 3] = ["android", "ios", "web"];
const CONTROL: &str = "control";

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
    decision: Option<&'static str>,
    metrics: Vec<Measured>,
    /// Results of the pipelines that compute effects themselves.
    effects: Vec<Report>,
}

/// One metric's totals: for each slice, those of every arm, the control first.
struct Measured {
    metric: Metric,
    slices: Vec<Vec<Totals>>,
}

impl Experiment {
    /// Draws the experiment at `index`, which starts at minute `start`.
    pub(super) fn draw(index: usize, start: i64, max_variants: usize, draws: &mut Draws) -> Experiment {
        let mut treatments = 1;
        while treatments < max_variants && draws.chance(0.4) {
            treatments += 1;
        }
        let sizes = draw_sizes(treatments, draws);
        let labels =
            Labels { team: draws.pick(&TEAMS).unwrap_or_default(), surface: draws.pick(&SURFACES).unwrap_or_default() };
        let variants: Vec<String> = (0..treatments).map(message::variant).collect();
        let mut metrics = Vec::new();
        for metric in METRICS {
            if draws.chance(metric.reported) {
                metrics.push(Measured::draw(metric, &sizes, draws));
            }
        }
        let mut effects = Vec::new();
        for (metric, is_bootstrapped) in [(ENGAGEMENT, false), (LATENCY_P95, true)] {
            if draws.chance(metric.reported) {
                effects.push(draw_effects(metric, is_bootstrapped, &variants, &sizes, draws));
            }
        }
        let decision = metrics.iter().find(|m| m.metric == CONVERSION).and_then(|conversion| decide(conversion, draws));
        Experiment { id: message::experiment_id(index), start, labels, variants, decision, metrics, effects }
    }

    /// An event about this experiment, `delay` minutes after its start.
    pub(super) fn event(&self, revision: u64, delay: i64, results: Vec<Report>) -> Event {
        let completed_at = message::minutes_in(self.start.saturating_add(delay));
        let event = Event::new(self.id.clone(), revision, completed_at, results);
        Event { labels: Some(self.labels), decision: self.decision, ..event }
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
        Event { decision: None, ..self.event(revision, delay, reports) }
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
                if let Report::Arms { accumulate, .. } = &mut report {
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
        Report::Arms {
            metric: metric.name,
            segment,
            scale: metric.scale.as_str(),
            accumulate: false,
            control: Arm { variant: CONTROL.to_owned(), statistics: metric.statistics(control) },
            treatments: self
                .variants
                .iter()
                .zip(totals)
                .map(|(variant, totals)| Arm { variant: variant.clone(), statistics: metric.statistics(totals) })
                .collect(),
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

/// The effects of a metric whose pipeline computes them: each has the error of its own arm and that of the control.
fn draw_effects(
    metric: EffectMetric,
    is_bootstrapped: bool,
    variants: &[String],
    sizes: &[u64],
    draws: &mut Draws,
) -> Report {
    let mut variances = sizes.iter().map(|&n| metric.unit_variance / n as f64);
    let control_variance = variances.next().unwrap_or_default();
    let control_error = draws.normal(0.0, control_variance.sqrt());
    let treatment_variances: Vec<f64> = variances.collect();
    let estimates: Vec<f64> = treatment_variances
        .iter()
        .map(|own| {
            let true_effect = draws.normal(metric.mu, metric.tau);
            draws.normal(true_effect, own.sqrt()) - control_error
        })
        .collect();
    let (name, scale) = (metric.name, metric.scale.as_str());
    if !is_bootstrapped {
        let mut arms = std::iter::once(CONTROL).chain(variants.iter().map(String::as_str)).zip(sizes).map(units);
        let control = arms.next().unwrap_or_default();
        let effects = arms.zip(estimates).zip(&treatment_variances).map(|((treatment, estimate), own)| EffectOfUnits {
            treatment,
            estimate,
            standard_error: (own + control_variance).sqrt(),
        });
        return Report::Units { metric: name, scale, control, effects: effects.collect() };
    }
    let effect = |(variant, &estimate): (&String, &f64)| Effect { variant: variant.clone(), estimate, variance: None };
    let effects = variants.iter().zip(&estimates).map(effect).collect();
    let row = |i| {
        let entry = |(j, own): (usize, &f64)| if i == j { own + control_variance } else { control_variance };
        treatment_variances.iter().enumerate().map(entry).collect()
    };
    Report::Covariance { metric: name, scale, effects, covariance: (0..variants.len()).map(row).collect() }
}

fn units((variant, &n): (&str, &u64)) -> Units {
    Units { variant: variant.to_owned(), n }
}

/// The platform ships if a variant beats the control at the 5% level; one decision in ten is not recorded.
fn decide(conversion: &Measured, draws: &mut Draws) -> Option<&'static str> {
    if draws.chance(0.1) {
        return None;
    }
    let totals = conversion.pooled(|_| true);
    let (control, treatments) = totals.split_first()?;
    let best = treatments.iter().map(|treatment| {
        let error = control.variance() / control.n as f64 + treatment.variance() / treatment.n as f64;
        (treatment.mean() - control.mean()) / error.sqrt()
    });
    Some(if best.fold(f64::NEG_INFINITY, f64::max) > 1.96 { "shipped" } else { "kept_control" })
}
