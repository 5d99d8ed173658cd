//! Two real data sets: what of them is taken, and what is refused for which reason.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use shrinkd_core::Reason;

use super::{event, event_text, result};
use crate::skipped::{shared, skipped};

const SMOKING: &str = include_str!("../../../../../tests/data/smoking_cessation.csv");

/// Study, arm, events and n of each line, in the order of the table.
fn smoking_arms() -> Vec<(u32, &'static str, u32, u32)> {
    let arm = |line: &'static str| {
        // From the right: the authors' names may hold commas.
        let mut fields = line.rsplitn(4, ',');
        let n = fields.next()?.parse().ok()?;
        let events = fields.next()?.parse().ok()?;
        let arm = fields.next()?.trim_matches('"');
        let study = fields.next()?.split(',').next()?.parse().ok()?;
        Some((study, arm, events, n))
    };
    SMOKING.lines().skip(1).map(|line| arm(line).unwrap_or_else(|| panic!("cannot read {line}"))).collect()
}

#[test]
fn of_the_smoking_trials_only_the_two_with_an_arm_without_events_are_refused() {
    let mut studies: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for (study, arm, events, n) in smoking_arms() {
        let p = f64::from(events) / f64::from(n);
        let arm = format!(r#"{{"variant":"{arm}","n":{n},"mean":{p},"variance":{}}}"#, p * (1.0 - p));
        studies.entry(study).or_default().push(arm);
    }
    assert_eq!(studies.len(), 24);
    let mut refused = Vec::new();
    for (study, arms) in studies {
        let (control, treatments) = arms.split_first().unwrap();
        let text = format!(
            r#"{{"metric":"quit","scale":"log_ratio","control":{control},"treatments":[{}]}}"#,
            treatments.join(",")
        );
        if let Err(refusal) = result(&text) {
            refused.push((study, refusal.reason));
        }
    }
    assert_eq!(refused, [(5, Reason::NonPositiveVariance), (19, Reason::NonPositiveVariance)]);
}

#[test]
fn of_the_asos_stream_exactly_the_results_without_a_variance_are_refused() {
    let Some(data) = shared("data") else { return };
    let Ok(csv) = std::fs::File::open(data.join("asos_digital_experiments_dataset.csv")) else {
        return skipped(&format!("no ASOS data in {} (set SHRINKD_SHARED)", data.display()));
    };
    let stream = Command::new("python3")
        .arg(data.join("asos_events.py"))
        .stdin(csv)
        .stderr(Stdio::inherit())
        .output()
        .expect("python3 turns the data into events");
    let events = String::from_utf8(stream.stdout).unwrap();
    let (mut taken, mut refused) = (0, BTreeMap::new());
    for line in events.lines() {
        for result in event(line).results {
            match result {
                Ok(_) => taken += 1,
                Err(refusal) => {
                    let names_the_variance = refusal.detail.contains(".variance is required");
                    assert_eq!(names_the_variance, refusal.reason == Reason::SchemaViolation, "{refusal}");
                    *refused.entry(refusal.reason).or_insert(0) += 1;
                }
            }
        }
    }
    // Of the five without a spread, four have no units at all, which is found first.
    let expected = [(Reason::SchemaViolation, 600), (Reason::SampleTooSmall, 4), (Reason::NonPositiveVariance, 1)];
    assert_eq!(refused, BTreeMap::from(expected));
    assert_eq!((events.lines().count(), taken), (4_775, 18_492));
}

#[test]
fn an_arm_without_units_has_too_small_a_sample_before_it_lacks_a_variance() {
    let arm = |name: &str| format!(r#"{{"variant":"{name}","n":0,"mean":0.0,"variance":0.0}}"#);
    let text = format!(r#"{{"metric":"m","control":{},"treatments":[{}]}}"#, arm("c"), arm("t"));
    assert_eq!(event(&event_text(&text)).results[0].as_ref().unwrap_err().reason, Reason::SampleTooSmall);
}
