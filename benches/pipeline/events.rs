//! Seeded events, and a file of the user's own events, repeated to the wanted length.

use std::fmt::Write as _;
use std::path::Path;

use shrinkd::simulate::Draws;

use crate::Outcome;

/// A message to produce.
pub struct Message {
    pub key: String,
    pub payload: String,
}

/// What generated events look like. Mu is 0.5 and tau is 1 in every population.
pub struct Shape {
    /// The prefix of the experiments' names.
    pub prefix: String,
    /// The number of populations, each of which is a metric. Results cycle through them.
    pub populations: usize,
    pub results: usize,
    /// Variants per result, which share one control.
    pub variants: usize,
    /// Added to every true effect.
    pub shift: f64,
}

impl Shape {
    /// That many events, each of another experiment.
    pub fn events(&self, count: usize) -> impl Iterator<Item = Message> + '_ {
        let mut draws = Draws::new(1, 0);
        (0..count).map(move |number| self.event(number, &mut draws))
    }

    /// The name of an experiment.
    pub fn experiment(&self, number: usize) -> String {
        format!("{}-{number:07}", self.prefix)
    }

    /// The metric of a result of an event.
    pub fn metric(&self, number: usize, result: usize) -> String {
        format!("metric-{:02}", (number * self.results + result) % self.populations)
    }

    /// One event.
    pub fn event(&self, number: usize, draws: &mut Draws) -> Message {
        let results: Vec<String> = (0..self.results).map(|result| self.result(number, result, draws)).collect();
        let key = self.experiment(number);
        let payload = format!(
            r#"{{"schema_version":1,"experiment_id":"{key}","revision":1,"completed_at":"2026-01-01T00:00:00Z","decision":"{}","results":[{}]}}"#,
            if draws.chance(0.3) { "shipped" } else { "stopped" },
            results.join(",")
        );
        Message { key, payload }
    }

    fn result(&self, number: usize, result: usize, draws: &mut Draws) -> String {
        let control_variance = if self.variants > 1 { draws.between(0.2, 2.0) } else { 0.0 };
        let control_error = draws.normal(0.0, control_variance.sqrt());
        let mut effects = String::new();
        for variant in 0..self.variants {
            let variance = draws.between(0.2, 2.0);
            let estimate = draws.normal(0.5 + self.shift, (1.0 + variance).sqrt()) - control_error;
            let comma = if variant == 0 { "" } else { "," };
            // Writing to a string cannot fail.
            let _ = write!(
                effects,
                r#"{comma}{{"variant":"v{variant}","estimate":{estimate},"variance":{}}}"#,
                variance + control_variance
            );
        }
        let metric = self.metric(number, result);
        format!(r#"{{"metric":"{metric}","effects":[{effects}],"control_variance":{control_variance}}}"#)
    }
}

/// The events of a file, repeated under other experiment names until there are about `count`; at least once.
pub fn repeated(path: &Path, count: usize) -> Outcome<Vec<Message>> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut originals = Vec::new();
    for (line, text) in text.lines().enumerate().filter(|(_, text)| !text.trim().is_empty()) {
        let event: serde_json::Value =
            serde_json::from_str(text).map_err(|error| format!("{}, line {}: {error}", path.display(), line + 1))?;
        let id = event.get("experiment_id").and_then(|id| id.as_str());
        let id = id.ok_or_else(|| format!("{}, line {}: there is no experiment_id", path.display(), line + 1))?;
        originals.push((id.to_owned(), event));
    }
    if originals.is_empty() {
        return Err(format!("{} holds no events", path.display()).into());
    }
    let rounds = (count as f64 / originals.len() as f64).round().max(1.0) as usize;
    let mut messages = Vec::with_capacity(rounds * originals.len());
    for round in 0..rounds {
        for (id, event) in &mut originals {
            let key = format!("{round}-{id}");
            event["experiment_id"] = key.as_str().into();
            messages.push(Message { key, payload: event.to_string() });
        }
    }
    Ok(messages)
}
