//! What `shrinkd simulate` promises: the same bytes for a seed, truths as stated, shapes as in the contract.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use serde_json::Value;
use shrinkd::simulate::{Draws, Experiment, Message, Population, Portfolio, Scenario};
use shrinkd_core::{ExperimentLedger, Outcome, Reason};

fn lines(messages: impl Iterator<Item = Message>) -> Vec<String> {
    messages.map(|message| serde_json::to_string(&message).unwrap()).collect()
}

fn portfolio(experiments: usize, seed: u64) -> Vec<Value> {
    let messages = Portfolio { experiments, max_variants: 6 }.messages(seed);
    lines(messages).iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// FNV-1a, 64 bits, of the lines with their newlines.
fn hash(lines: &[String]) -> u64 {
    let bytes = lines.iter().flat_map(|line| line.bytes().chain([b'\n']));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

fn mean(numbers: impl IntoIterator<Item = f64>) -> f64 {
    let (count, sum) = numbers.into_iter().fold((0.0, 0.0), |(count, sum), x| (count + 1.0, sum + x));
    sum / count
}

fn logit(p: f64) -> f64 {
    (p / (1.0 - p)).ln()
}

fn results(message: &Value) -> &[Value] {
    message["results"].as_array().map_or(&[], Vec::as_slice)
}

/// The results of one metric in a message, all segments.
fn of_metric<'a>(message: &'a Value, metric: &'a str) -> impl Iterator<Item = &'a Value> {
    results(message).iter().filter(move |result| result["metric"] == metric)
}

#[test]
fn a_seed_gives_the_same_bytes_on_every_platform() {
    let scenarios = Scenario::ALL.map(|scenario| hash(&lines(scenario.population().messages(1))));
    assert_eq!(scenarios, [0xb3f5_aa11_2b1d_af75, 0xfc47_81d8_a73b_b6df, 0x7500_b55c_bd77_81f3, 0x6329_e628_1f08_7d6e]);
    let table = shrinkd(&["simulate", "--format", "csv", "--scenario", "many-variants"]).output().unwrap().stdout;
    let table: Vec<String> = String::from_utf8(table).unwrap().lines().map(str::to_owned).collect();
    assert_eq!(hash(&table), 0xf5c5_85aa_0b9d_b0d0);
    assert_eq!(hash(&lines(Portfolio { experiments: 300, max_variants: 6 }.messages(1))), 0xd126_2121_5985_fbf0);
}

#[test]
fn the_first_event_of_the_baseline_is_this() {
    let first = lines(Scenario::Baseline.population().messages(1)).remove(0);
    assert_eq!(
        first,
        "{\"schema_version\":1,\"experiment_id\":\"exp-000001\",\"revision\":1,\
         \"completed_at\":\"2026-01-01T00:00:00Z\",\"results\":[{\"metric\":\"effect\",\"scale\":\"absolute\",\
         \"effects\":[{\"variant\":\"v1\",\"estimate\":0.8926809734212984,\"variance\":2.0}],\
         \"control_variance\":1.0}]}"
    );
}

#[test]
fn seeds_and_streams_are_independent_draws() {
    let population = Population { experiments: 20_000, ..Scenario::Baseline.population() };
    let effects = |seed, stream| population.draw(seed, stream).map(|e| e.true_effects[0] - 1.0).collect::<Vec<_>>();
    let reference = effects(1, 0);
    for other in [effects(2, 0), effects(1, 1)] {
        let correlation = mean(reference.iter().zip(&other).map(|(x, y)| x * y));
        assert!(correlation.abs() < 4.0 / 20_000f64.sqrt(), "{correlation}");
    }
}

#[test]
fn standard_normal_deviates_have_the_moments_and_tails_of_a_normal() {
    let mut draws = Draws::new(1, 0);
    let n = 1_000_000;
    let sample: Vec<f64> = (0..n).map(|_| draws.standard_normal()).collect();
    let error = 4.0 / f64::from(n).sqrt();
    for (power, expected, sd) in [(1, 0.0, 1.0), (2, 1.0, 2f64.sqrt()), (3, 0.0, 15f64.sqrt()), (4, 3.0, 96f64.sqrt())]
    {
        let moment = mean(sample.iter().map(|z| z.powi(power)));
        assert!((moment - expected).abs() < sd * error, "moment {power} is {moment}");
    }
    for (quantile, tail) in [(1.281_551_565_544_6, 0.1), (1.959_963_984_540_054, 0.025), (3.090_232_306_167_8, 0.001)] {
        let share = mean(sample.iter().map(|&z| if z > quantile { 1.0 } else { 0.0 }));
        assert!((share - tail).abs() < f64::sqrt(tail) * error, "{share} above {quantile}");
    }
    let pairs = mean(sample.chunks(2).map(|pair| pair[0] * pair[1]));
    assert!(pairs.abs() < error * 2f64.sqrt(), "the two of a pair are correlated: {pairs}");
}

#[test]
fn effects_have_the_mu_tau_and_sampling_variance_that_were_asked_for() {
    let population = Population {
        experiments: 200_000,
        mu: -0.3,
        tau: 0.5,
        treatment_variance: 0.04,
        control_variance: 0.09,
        ..Scenario::Baseline.population()
    };
    let drawn: Vec<Experiment> = population.draw(3, 0).collect();
    let mu = mean(drawn.iter().map(|e| e.true_effects[0]));
    let tau_squared = mean(drawn.iter().map(|e| (e.true_effects[0] + 0.3).powi(2)));
    assert!((mu + 0.3).abs() < 4.0 * 0.5 / 200_000f64.sqrt(), "{mu}");
    assert!((tau_squared - 0.25).abs() < 4.0 * 0.25 * (2.0 / 200_000f64).sqrt(), "{tau_squared}");
    let z_squared = mean(
        drawn.iter().map(|e| (e.effects[0] - e.true_effects[0]).powi(2) / (e.treatment_variance + e.control_variance)),
    );
    assert!((z_squared - 1.0).abs() < 4.0 * (2.0 / 200_000f64).sqrt(), "{z_squared}");
    let sampling = mean(drawn.iter().map(|e| e.treatment_variance + e.control_variance));
    assert!((sampling - 0.13).abs() < 1e-3, "{sampling}");
}

#[test]
fn variants_of_one_experiment_share_its_controls_error_and_nothing_else() {
    let population = Population {
        experiments: 40_000,
        variants: 2,
        treatment_variance: 0.1,
        control_variance: 2.0,
        ..Scenario::Baseline.population()
    };
    let errors: Vec<[f64; 2]> =
        population.draw(5, 0).map(|e| [e.effects[0] - e.true_effects[0], e.effects[1] - e.true_effects[1]]).collect();
    let covariance = mean(errors.iter().map(|[x, y]| x * y));
    let own = mean(errors.iter().map(|[x, y]| (x - y).powi(2))) / 2.0;
    assert!((covariance - 2.0).abs() < 4.0 * (2.1f64.powi(2) + 4.0).sqrt() / 200.0, "{covariance}");
    assert!((own - 0.1).abs() < 4.0 * 0.1 * 2f64.sqrt() / 200.0, "{own}");
    let across = mean(errors.windows(2).map(|pair| pair[0][0] * pair[1][0]));
    assert!(across.abs() < 4.0 * 2.1 / 200.0, "{across}");
}

#[test]
fn a_bad_control_shifts_every_effect_of_the_last_experiment_alone() {
    let population = Scenario::BadControl.population();
    let mut shifts: BTreeMap<bool, Vec<f64>> = BTreeMap::new();
    for stream in 0..200 {
        for (index, experiment) in population.draw(9, stream).enumerate() {
            let shift = mean(experiment.effects.iter().zip(&experiment.true_effects).map(|(raw, truth)| raw - truth));
            shifts.entry(index == 24).or_default().push(shift);
        }
    }
    let (sound, bad) = (mean(shifts[&false].clone()), mean(shifts[&true].clone()));
    assert!(sound.abs() < 4.0 * (2.0 / 4800f64).sqrt(), "{sound}");
    assert!((bad - 4.0).abs() < 4.0 * (1.0f64 / 26.0 / 200.0).sqrt(), "{bad}");
}

#[test]
fn scenarios_have_the_sizes_they_are_told_with() {
    let sizes = |scenario: Scenario| scenario.population().draw(1, 0).map(|e| e.effects.len()).collect::<Vec<_>>();
    assert_eq!(sizes(Scenario::Baseline), vec![1; 50]);
    for scenario in [Scenario::ManyVariants, Scenario::BadControl, Scenario::TreatmentHeavy] {
        assert_eq!(sizes(scenario), [vec![1; 24], vec![26]].concat());
    }
    for (scenario, treatment_variance) in Scenario::ALL.into_iter().zip([1.0, 1.0, 1.0, 0.01]) {
        for experiment in scenario.population().draw(1, 0) {
            assert_eq!((experiment.treatment_variance, experiment.control_variance), (treatment_variance, 1.0));
        }
    }
}

#[test]
fn every_scenario_makes_blocks_that_the_model_takes() {
    for scenario in Scenario::ALL {
        for experiment in scenario.population().draw(1, 0) {
            let block = experiment.block().unwrap();
            assert_eq!(block.effects(), experiment.effects);
        }
    }
}

#[test]
fn every_scenario_sends_complete_effect_form_events() {
    for scenario in Scenario::ALL {
        for line in lines(scenario.population().messages(1)) {
            let event: Value = serde_json::from_str(&line).unwrap();
            assert_eq!(event["schema_version"], 1);
            assert!(event["experiment_id"].is_string() && event["revision"].is_u64());
            let [result] = results(&event) else { panic!("one result expected: {line}") };
            let control_variance = result["control_variance"].as_f64().unwrap();
            for effect in result["effects"].as_array().unwrap() {
                assert!(effect["variant"].is_string() && effect["estimate"].is_f64());
                assert!(effect["variance"].as_f64().unwrap() > control_variance);
            }
        }
    }
}

#[test]
fn every_scenario_speaks_the_contract_without_a_fault() {
    for scenario in Scenario::ALL {
        for line in lines(scenario.population().messages(1)) {
            let Ok(shrinkd_core::Message::Event(event)) = shrinkd_core::decode(line.as_bytes()) else {
                panic!("an event: {line}")
            };
            assert!(event.results.iter().all(Result::is_ok), "{line}");
        }
    }
}

#[test]
fn a_portfolio_brings_a_ledger_to_every_outcome_and_is_refused_for_its_faults_alone() {
    let mut ledgers: BTreeMap<String, ExperimentLedger> = BTreeMap::new();
    let mut refused: BTreeMap<Reason, usize> = BTreeMap::new();
    let (mut accepted, mut duplicate, mut stale, mut replaced, mut withdrawn) = (0, 0, 0, 0, 0);
    for line in lines(Portfolio { experiments: 300, max_variants: 6 }.messages(1)) {
        let changes = match shrinkd_core::decode(line.as_bytes()).unwrap() {
            shrinkd_core::Message::Tombstone { experiment_id } => ledgers.entry(experiment_id).or_default().tombstone(),
            shrinkd_core::Message::Event(event) => {
                let applied = ledgers.entry(event.experiment_id.clone()).or_default().apply(event);
                for outcome in applied.outcomes {
                    match outcome {
                        Outcome::Accepted => accepted += 1,
                        Outcome::Duplicate => duplicate += 1,
                        Outcome::Stale => stale += 1,
                        Outcome::Refused(refusal) => *refused.entry(refusal.reason).or_default() += 1,
                        Outcome::Pending(refusal) => panic!("each part has its arms: {refusal}"),
                    }
                }
                applied.changes
            }
        };
        replaced += changes.iter().filter(|change| change.before.is_some() && change.after.is_some()).count();
        withdrawn += changes.iter().filter(|change| change.after.is_none()).count();
    }
    assert!(accepted > 1_000 && duplicate > 50 && stale > 30 && replaced > 150 && withdrawn > 15);
    let faults =
        [Reason::SchemaViolation, Reason::DuplicateVariant, Reason::InconsistentSums, Reason::NonPositiveVariance];
    assert!(refused.keys().eq(&faults), "{refused:?}");
    assert!(refused.values().sum::<usize>() < accepted / 50);
}

#[test]
fn a_portfolio_has_every_form_of_result_and_every_kind_of_trouble() {
    let messages = portfolio(300, 1);
    let count = |is: &dyn Fn(&Value) -> bool| messages.iter().flat_map(results).filter(|result| is(result)).count();
    let arms = |key: &'static str| move |result: &Value| result["control"].get(key).is_some();
    let effect = |key: &'static str| move |result: &Value| result["effects"][0].get(key).is_some();
    for (what, found) in [
        ("successes", count(&arms("successes"))),
        ("variance", count(&arms("variance"))),
        ("sums", count(&arms("sum_squares"))),
        ("standard errors", count(&arms("standard_error"))),
        ("standard deviations", count(&arms("standard_deviation"))),
        ("ratios", count(&arms("denominator_sum"))),
        ("covariates", count(&arms("covariate_sum"))),
        ("effects with units", count(&|result| effect("n")(result) && arms("n")(result))),
        ("effects with standard errors", count(&effect("standard_error"))),
        ("intervals", count(&|result| effect("ci_low")(result) && effect("ci_high")(result))),
        ("variances of treatments alone", count(&effect("treatment_variance"))),
        ("scaled variances", count(&|result| result["variance_form"] == "scaled" && effect("variance")(result))),
        ("control variances", count(&|result| result.get("control_variance").is_some())),
        ("covariances", count(&|result| result.get("covariance").is_some())),
        ("decreases", count(&|result| result["direction"] == "decrease")),
        ("shares of the traffic", count(&|result| result["coverage"].as_f64().is_some_and(|share| share < 1.0))),
        ("segments", count(&|result| result["segment"] == "mobile")),
        ("parts", count(&|result| result["accumulate"] == true)),
        ("retractions", count(&|result| result["status"] == "retracted")),
        (
            "null variances",
            count(&|result| {
                result["treatments"][0]["variance"].is_null()
                    && result["metric"] == "revenue"
                    && result.get("status").is_none()
            }),
        ),
        ("nothing tracked", count(&|result| result["treatments"][0]["variance"] == 0.0)),
        (
            "counted twice",
            count(&|result| result["treatments"][0]["successes"].as_u64() > result["treatments"][0]["n"].as_u64()),
        ),
        ("named like control", count(&|result| result["treatments"][0]["variant"] == "control")),
    ] {
        assert!(found >= 3, "{found} of {what}");
    }
    assert_eq!(messages.iter().filter(|message| message["retracted"] == true).count(), 1);
    let shipped = messages.iter().filter(|message| message["decision"] == "shipped").count();
    assert!((20..150).contains(&shipped), "{shipped} shipped");
    let holdouts: Vec<_> = messages.iter().filter(|message| message["kind"] == "holdout").collect();
    assert!(holdouts.len() == 5 && holdouts.iter().all(|holdout| holdout["schema_version"] == 2));
    for scale in ["absolute", "relative", "log_ratio", "log_odds"] {
        assert!(count(&|result| result["scale"] == scale) > 50);
    }
}

#[test]
fn a_portfolio_leaves_out_no_field_of_the_contract() {
    let messages = portfolio(300, 1);
    let mut sent: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut see = |object: &'static str, value: &'static Value| {
        sent.entry(object)
            .or_default()
            .extend(value.as_object().into_iter().flat_map(|fields| fields.keys().map(String::as_str)));
    };
    let messages: &'static [Value] = messages.leak();
    for message in messages {
        see("Event", message);
        for result in results(message) {
            see("Result", result);
            see("Arm", &result["control"]);
            let each = |list: &str| result[list].as_array().into_iter().flatten();
            each("treatments").for_each(|arm| see("Arm", arm));
            each("effects").for_each(|effect| see("Effect", effect));
        }
    }
    let schema: Value = serde_json::from_slice(&shrinkd(&["schema"]).output().unwrap().stdout).unwrap();
    for (object, sent) in sent {
        let object_schema = if object == "Event" { &schema } else { &schema["$defs"][object] };
        // Those of all messages and results, and those of what is no retraction.
        let properties = [&object_schema["properties"], &object_schema["else"]["properties"]];
        let known: BTreeSet<&str> = properties
            .iter()
            .filter_map(|known| known.as_object())
            .flat_map(|known| known.keys())
            .map(String::as_str)
            .collect();
        assert_eq!(sent, known, "fields of {object}");
    }
}

#[test]
fn what_a_portfolio_says_was_shipped_is_a_variant_of_the_experiment() {
    let (mut shipped, mut kept) = (0, 0);
    for message in portfolio(300, 1).iter().filter(|message| message.get("retracted").is_none()) {
        let (started_at, completed_at) = (message["started_at"].as_str(), message["completed_at"].as_str());
        assert!(started_at.unwrap() < completed_at.unwrap());
        let variant = message["shipped_variant"].as_str();
        match message["decision"].as_str() {
            Some("shipped") => {
                let conversion = of_metric(message, "conversion").next();
                let Some(treatments) = conversion.and_then(|result| result["treatments"].as_array()) else { continue };
                shipped += 1;
                // One treatment in 60 experiments is named like the control by mistake.
                let is_among = treatments.iter().any(|arm| arm["variant"].as_str() == variant);
                assert!(is_among || treatments[0]["variant"] == "control", "{variant:?}");
            }
            decision => {
                kept += usize::from(decision.is_some());
                assert_eq!(variant, decision.map(|_| "control"));
            }
        }
    }
    assert!(shipped > 20 && kept > 100, "{shipped} {kept}");
}

#[test]
fn a_portfolios_revisions_replace_each_other_and_some_arrive_late_or_twice() {
    let messages = portfolio(300, 1);
    let mut last_revision: BTreeMap<&str, u64> = BTreeMap::new();
    let (mut replaced, mut stale, mut repeated) = (0, 0, 0);
    for message in messages.iter().filter(|message| message.get("revision").is_some()) {
        let revision = message["revision"].as_u64().unwrap();
        match last_revision.insert(message["experiment_id"].as_str().unwrap(), revision) {
            Some(last) if revision > last => replaced += 1,
            Some(last) if revision < last => stale += 1,
            Some(_) if message.get("event_id").is_none() => repeated += 1,
            _ => {}
        }
    }
    assert_eq!(last_revision.len(), 300);
    assert!(replaced >= 75 && stale >= 15 && repeated >= 30, "{replaced} {stale} {repeated}");
}

#[test]
fn a_portfolios_devices_and_parts_add_up_and_its_second_week_adds_to_the_first() {
    let messages = portfolio(300, 2);
    let n = |result: &Value| result["control"]["n"].as_u64().unwrap();
    let mut devices = 0;
    for message in &messages {
        let by_segment: BTreeMap<_, _> =
            of_metric(message, "conversion").map(|result| (result["segment"].as_str().unwrap(), n(result))).collect();
        if let (Some(mobile), Some(desktop)) = (by_segment.get("mobile"), by_segment.get("desktop")) {
            devices += 1;
            assert_eq!(mobile + desktop, by_segment["all"]);
        }
    }
    assert!(devices > 80, "{devices}");
    let interim = messages.iter().find(|m| m["experiment_id"] == "exp-000002" && m["revision"] == 1).unwrap();
    let full = messages.iter().find(|m| m["experiment_id"] == "exp-000002" && m["revision"] == 2).unwrap();
    let [half, whole] = [interim, full].map(|m| n(of_metric(m, "conversion").next().unwrap()));
    assert!(half.abs_diff(whole / 2) < 4, "{half} of {whole}");
}

#[test]
fn a_portfolios_effects_scatter_around_their_truths() {
    let messages = portfolio(4_000, 3);
    let treatment_mean = |arm: &Value| match arm.get("mean") {
        Some(mean) => mean.as_f64(),
        None => {
            let units = arm.get("denominator_sum").unwrap_or(&arm["n"]);
            Some(arm["successes"].as_f64().or(arm["sum"].as_f64())? / units.as_f64()?)
        }
    };
    let effects = |metric: &'static str, effect: &dyn Fn(f64, f64) -> f64| {
        let complete = messages.iter().filter(|m| m["revision"] == 1 && m.get("event_id").is_none());
        let arms = complete.flat_map(|message| of_metric(message, metric)).filter_map(|result| {
            let control = treatment_mean(&result["control"])?;
            let treatment = treatment_mean(&result["treatments"][0])?;
            (result["segment"] == "all" && treatment > 0.0 && treatment < 2.0 * control)
                .then(|| effect(treatment, control))
        });
        mean(arms)
    };
    let effects_sent = |metric: &'static str| {
        let results = messages.iter().filter(|m| m["revision"] == 1).flat_map(|message| of_metric(message, metric));
        mean(results.filter_map(|result| result["effects"][0]["estimate"].as_f64()))
    };
    let relative = |treatment, control| treatment / control - 1.0;
    let conversion = effects("conversion", &relative);
    let sessions = effects("sessions", &relative);
    let revenue = effects("revenue", &|treatment, control| treatment - control);
    let latency = effects("latency", &|treatment, control| (treatment / control).ln());
    // Four standard errors; a ratio of means is biased by (s_c / m_c)^2, some 0.001 for conversion.
    assert!((conversion - 0.011).abs() < 0.005, "{conversion}");
    assert!((sessions - 0.004).abs() < 0.003, "{sessions}");
    assert!((revenue - 0.1).abs() < 0.06, "{revenue}");
    assert!((latency + 0.005).abs() < 0.002, "{latency}");
    let churn = effects("churn", &|treatment, control| logit(treatment) - logit(control));
    let basket = effects("basket_size", &|treatment, control| treatment - control);
    let revenue_per_order = effects("revenue_per_order", &relative);
    let pages = effects("pages", &|treatment, control| treatment - control);
    assert!((churn + 0.02).abs() < 0.012, "{churn}");
    assert!((basket - 0.01).abs() < 0.01, "{basket}");
    assert!((revenue_per_order - 0.005).abs() < 0.003, "{revenue_per_order}");
    assert!((pages - 0.1).abs() < 0.08, "{pages}");
    for (metric, mu, error) in [
        ("engagement", 0.2, 0.06),
        ("latency_p95", -0.01, 0.004),
        ("load_time", -0.01, 0.004),
        ("retention", 0.005, 0.004),
        ("first_week_profit", 0.01, 0.008),
    ] {
        let found = effects_sent(metric);
        assert!((found - mu).abs() < error, "{metric}: {found}");
    }
}

fn shrinkd(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shrinkd"));
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn the_command_prints_what_the_library_draws() {
    let output = shrinkd(&["simulate", "--scenario", "treatment-heavy", "--seed", "4"]).output().unwrap();
    assert!(output.status.success());
    let expected: String =
        lines(Scenario::TreatmentHeavy.population().messages(4)).iter().map(|line| format!("{line}\n")).collect();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
}

#[test]
fn a_reader_that_leaves_early_ends_the_command_quietly() {
    let mut child = shrinkd(&["simulate", "--experiments", "100000"]).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.ends_with('\n'));
    let mut complaints = String::new();
    child.stderr.take().unwrap().read_to_string(&mut complaints).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(complaints, "");
}

#[test]
fn one_populations_truths_are_refused_for_a_portfolio() {
    for wrong in [["--scenario", "portfolio", "--mu", "2"], ["--scenario", "baseline", "--se", "0"]] {
        let output = shrinkd(&[&["simulate"][..], &wrong].concat()).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(output.stdout.is_empty() && !output.stderr.is_empty());
    }
}
