//! Measures times, and prints them as one table.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::Criterion;

/// How many samples of an item are taken, and for how long in total.
const SAMPLES: usize = 20;
const WARM_UP: Duration = Duration::from_millis(100);
const MEASUREMENT: Duration = Duration::from_millis(500);

/// An item to measure.
pub struct Item<'a> {
    pub what: &'a str,
    /// How many items one run processes.
    pub count: usize,
    pub aim: Aim<'a>,
}

/// What a time is compared with.
#[derive(Clone, Copy)]
pub enum Aim<'a> {
    /// Nothing: it is a baseline itself.
    None,
    /// A target in seconds per item.
    Seconds(f64),
    /// A target in seconds per item, and a baseline.
    SecondsAnd(f64, &'a Baseline),
    /// At most this many times the baseline.
    Times(f64, &'a Baseline),
    /// A baseline without a target.
    Against(&'a Baseline),
}

/// A time that others are compared with.
pub struct Baseline {
    pub name: &'static str,
    /// Seconds per item; `None` if a filter excluded it.
    pub seconds: Option<f64>,
}

/// Measures times, and collects them for the table.
pub struct Stopwatch {
    criterion: Criterion,
    /// Item, time, target and ratio; a heading has only the first.
    rows: Vec<[String; 4]>,
}

impl Stopwatch {
    pub fn new() -> Stopwatch {
        let criterion = Criterion::default()
            .sample_size(SAMPLES)
            .warm_up_time(WARM_UP)
            .measurement_time(MEASUREMENT)
            .nresamples(1_000)
            .without_plots()
            .configure_from_args();
        Stopwatch { criterion, rows: Vec::new() }
    }

    pub fn heading(&mut self, text: &str) {
        self.rows.push([text.to_owned(), String::new(), String::new(), String::new()]);
    }

    /// Measures `work` on the value of `setup`, which is not measured. Returns the seconds per item of the fastest sample.
    pub fn time<T, R>(
        &mut self,
        item: &Item<'_>,
        mut setup: impl FnMut() -> T,
        mut work: impl FnMut(T) -> R,
    ) -> Option<f64> {
        let mut fastest = f64::INFINITY;
        self.criterion.bench_function(item.what, |bencher| {
            bencher.iter_custom(|iterations| {
                let mut elapsed = Duration::ZERO;
                for _ in 0..iterations {
                    let input = setup();
                    let start = Instant::now();
                    black_box(work(black_box(input)));
                    elapsed += start.elapsed();
                }
                fastest = fastest.min(elapsed.as_secs_f64() / iterations as f64);
                elapsed
            });
        });
        let seconds = fastest.is_finite().then(|| fastest / item.count as f64);
        if let Some(seconds) = seconds {
            self.record(item.what, seconds, item.aim);
        }
        seconds
    }

    /// Adds a time that was measured elsewhere.
    pub fn record(&mut self, what: &str, seconds: f64, aim: Aim<'_>) {
        let ratio = |baseline: &Baseline| match baseline.seconds {
            Some(base) => format!("{} x {}", significant(seconds / base), baseline.name),
            None => String::new(),
        };
        let (aim, ratio) = match aim {
            Aim::None => (String::new(), String::new()),
            Aim::Seconds(aim) => (duration(aim), String::new()),
            Aim::SecondsAnd(aim, baseline) => (duration(aim), ratio(baseline)),
            Aim::Times(aim, baseline) => (format!("{aim} x"), ratio(baseline)),
            Aim::Against(baseline) => (String::new(), ratio(baseline)),
        };
        self.rows.push([what.to_owned(), duration(seconds), aim, ratio]);
    }

    /// Adds a row of text.
    pub fn note(&mut self, what: &str, value: String, aim: String) {
        self.rows.push([what.to_owned(), value, aim, String::new()]);
    }

    pub fn print(&self) {
        let header = ["what", "fastest", "aim", "ratio"].map(str::to_owned);
        let width = |column: usize| {
            self.rows.iter().chain([&header]).map(|row| row[column].chars().count()).max().unwrap_or_default()
        };
        let (what, time, aim) = (width(0), width(1), width(2));
        println!();
        for row in [&header].into_iter().chain(&self.rows) {
            println!("{:<what$}  {:>time$}  {:>aim$}  {}", row[0], row[1], row[2], row[3]);
        }
    }
}

/// Formats with three significant digits, or all digits before the decimal point.
fn significant(x: f64) -> String {
    let decimals = (2.0 - x.abs().log10().floor()).clamp(0.0, 9.0) as usize;
    format!("{x:.decimals$}")
}

fn duration(seconds: f64) -> String {
    let (scale, unit) = match seconds {
        s if s < 1e-6 => (1e9, "ns"),
        s if s < 1e-3 => (1e6, "us"),
        s if s < 1.0 => (1e3, "ms"),
        _ => (1.0, "s"),
    };
    format!("{} {unit}", significant(seconds * scale))
}
