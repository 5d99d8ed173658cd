//! `shrinkd fit --format json` as a whole program: wall time, and peak memory if /proc reports it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use shrinkd_core::decode;
use shrinkd_model::{available_threads, map_chunks};

use crate::stopwatch::{Aim, Baseline, Stopwatch};

const RUNS: usize = 5;
const AIM_SECONDS: f64 = 1.0;
const AIM_MEGABYTES: f64 = 200.0;

/// Experiments and variants of each file: 100,000 effects, with one or three per experiment.
const FILES: [(&str, &str); 2] = [("100000", "1"), ("33333", "3")];

pub fn measure(stopwatch: &mut Stopwatch) {
    for (experiments, variants) in FILES {
        stopwatch.heading(&format!("shrinkd fit --format json, {experiments} experiments of {variants}"));
        let events = simulate(experiments, variants);
        let decoding = (0..RUNS).map(|_| decode_all(&events)).min().unwrap_or_default().as_secs_f64();
        stopwatch.record("reading and decoding alone", decoding, Aim::None);
        let baseline = Baseline { name: "decoding", seconds: Some(decoding) };
        let runs: Vec<(Duration, u64)> = (0..RUNS).map(|_| fit(&events)).collect();
        let wall = runs.iter().map(|run| run.0).min().unwrap_or_default().as_secs_f64();
        stopwatch.record("wall time", wall, Aim::SecondsAnd(AIM_SECONDS, &baseline));
        let peak = runs.iter().map(|run| run.1).max().unwrap_or_default() as f64 / 1e6;
        stopwatch.note("peak memory", format!("{peak:.0} MB"), format!("{AIM_MEGABYTES} MB"));
    }
}

fn shrinkd(arguments: &[&str], output: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_shrinkd"))
        .args(arguments)
        .stdout(File::create(output).expect("writable"))
        .stderr(Stdio::inherit())
        .spawn()
        .expect("the program starts")
}

/// A file of simulated events.
fn simulate(experiments: &str, variants: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{experiments}-of-{variants}.ndjson"));
    let arguments = ["simulate", "--experiments", experiments, "--variants", variants];
    let status = shrinkd(&arguments, &path).wait().expect("the program ends");
    assert!(status.success(), "simulate: {status}");
    path
}

/// Reads and decodes a file on all cores, and discards the events.
fn decode_all(events: &Path) -> Duration {
    let start = Instant::now();
    let text = std::fs::read(events).expect("readable");
    let lines: Vec<&[u8]> = text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).collect();
    map_chunks(&lines, 256, available_threads(), |lines| {
        lines.iter().for_each(|line| drop(std::hint::black_box(decode(line))));
    });
    start.elapsed()
}

/// Runs a fit with its output to a file. Returns the wall time and the peak memory in bytes.
fn fit(events: &Path) -> (Duration, u64) {
    let start = Instant::now();
    let mut child = shrinkd(&["fit", &events.to_string_lossy(), "--format", "json"], &events.with_extension("json"));
    let mut peak = 0;
    let status = loop {
        // The peak can only be read while the program runs.
        peak = peak.max(peak_memory(child.id()).unwrap_or_default());
        match child.try_wait().expect("the program can be waited for") {
            Some(status) => break status,
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    let elapsed = start.elapsed();
    assert!(status.success(), "fit: {status}");
    (elapsed, peak)
}

/// The peak resident set size of a running process in bytes; `None` if the system does not report it.
fn peak_memory(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kilobytes| 1024 * kilobytes)
}
