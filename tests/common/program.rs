//! The program, run to its end.

use std::process::{Command, Output};

use super::worker::Environment;

/// Runs a command of shrinkd.
pub fn shrinkd(environment: &[(&'static str, String)], arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shrinkd"));
    command.args(arguments).env_remove("COLUMNS").envs(environment.iter().map(|(name, value)| (*name, value)));
    command.output().expect("shrinkd runs")
}

/// What a command printed that must end well.
#[track_caller]
pub fn printed(output: &Output) -> String {
    let [stdout, stderr] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    assert!(output.status.success(), "{stdout}{stderr}");
    stdout
}

/// The traffic of a platform, one event a line: revisions, repetitions, retractions, tombstones, parts and invalid results.
pub fn portfolio(seed: u32, experiments: u32) -> String {
    let (seed, experiments) = (seed.to_string(), experiments.to_string());
    let arguments = ["simulate", "--scenario", "portfolio", "--seed", &seed, "--experiments", &experiments];
    printed(&shrinkd(&Environment::new(), &arguments))
}
