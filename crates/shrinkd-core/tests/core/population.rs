//! The promises of population names and of the one-per-experiment choice.

use proptest::prelude::*;
use shrinkd_core::{History, PopulationName, ResultKey, Scale, ShippedDecisions, chosen_variant, decode};

fn name(metric: &str, segment: &str, scale: Scale) -> PopulationName {
    ResultKey { metric: metric.to_owned(), segment: segment.to_owned(), scale }.into()
}

#[test]
fn a_population_is_named_metric_segment_scale() {
    assert_eq!(name("conversion", "all", Scale::LogRatio).to_string(), "conversion/all/log_ratio");
}

#[test]
fn slashes_and_percent_signs_inside_a_part_cannot_be_taken_for_separators() {
    assert_eq!(name("a/b", "50% off", Scale::Absolute).to_string(), "a%2Fb/50%25 off/absolute");
    assert_ne!(name("a/b", "c", Scale::Absolute).to_string(), name("a", "b/c", Scale::Absolute).to_string());
}

#[test]
fn a_population_has_one_spelling() {
    for text in [
        "",
        "a/b",
        "a/b/absolute/c",
        "a//absolute",
        "/b/absolute",
        "a/b/Absolute",
        "a/b/ratio",
        "a%2fb/c/absolute",
        "a%/c/absolute",
        "a%41/c/absolute",
    ] {
        let error = text.parse::<PopulationName>().expect_err(text);
        assert!(error.to_string().contains("metric/segment/scale"), "{error}");
    }
}

#[test]
fn a_decision_means_shipped_in_any_case_and_with_anything_between_its_words() {
    let shipped = ShippedDecisions::new(["shipped", "rolled-out"]);
    for decision in ["shipped", "Shipped", " SHIPPED ", "rolled out", "Rolled_Out", "rolled-out"] {
        assert!(shipped.contains(decision), "{decision}");
    }
    for decision in ["", "not shipped", "shipping", "rolledout", "rolled back"] {
        assert!(!shipped.contains(decision), "{decision}");
    }
    assert!(!ShippedDecisions::default().contains("rolled out"));
}

#[test]
fn the_share_of_shipped_experiments_is_of_all_and_there_is_none_without_a_decision() {
    let share = |decisions: &[Option<&str>], shipped: &ShippedDecisions| {
        let mut history = History::default();
        for (i, decision) in decisions.iter().enumerate() {
            let decision = decision.map(|decision| format!(r#""decision":"{decision}","#)).unwrap_or_default();
            let event = format!(
                r#"{{"schema_version":1,"experiment_id":"e{i}","revision":1,"completed_at":"2026-01-01T00:00:00Z",{decision}"results":[{{"metric":"m","effects":[{{"variant":"b","estimate":0.1,"variance":0.5}}]}}]}}"#
            );
            drop(history.take(decode(event.as_bytes())));
        }
        history.into_populations(1).expect("blocks fit").values().next().expect("one population").shipped_share(shipped)
    };
    let decisions = [Some("shipped"), Some("Launched"), Some("stopped"), None];
    assert_eq!(share(&decisions, &ShippedDecisions::default()), Some(0.25));
    assert_eq!(share(&decisions, &ShippedDecisions::new(["shipped", "launched"])), Some(0.5));
    assert_eq!(share(&[None, None], &ShippedDecisions::default()), None);
}

proptest! {
    #[test]
    fn every_name_reads_back(
        metric in "[a%/2F5é]{1,8}",
        segment in "[a%/2F5é]{1,8}",
        scale in prop::sample::select(vec![Scale::Absolute, Scale::Relative, Scale::LogRatio]),
    ) {
        let name = name(&metric, &segment, scale);
        prop_assert_eq!(name.to_string().parse::<PopulationName>().unwrap(), name.clone());
        prop_assert_eq!(name.to_string().matches('/').count(), 2);
    }

    #[test]
    fn the_order_of_the_variants_does_not_matter(
        seed: u64,
        experiment in ".{1,12}",
        (sent, reordered) in prop::collection::btree_set(".{1,6}", 1..6).prop_flat_map(|variants| {
            let variants: Vec<String> = variants.into_iter().collect();
            (Just(variants.clone()), Just(variants).prop_shuffle())
        }),
    ) {
        let chosen = chosen_variant(seed, &experiment, &sent).map(|i| &sent[i]);
        prop_assert_eq!(chosen, chosen_variant(seed, &experiment, &reordered).map(|i| &reordered[i]));
    }
}

/// The expected choices come from an implementation of the same description in another language: published results rest
/// on them, so where this test fails the code is wrong and not the test.
#[test]
fn the_choice_never_changes() {
    let chosen = (0..12).map(|k| chosen_variant(7, &format!("exp-{k}"), &["B", "C", "D"]).unwrap());
    assert_eq!(chosen.collect::<Vec<_>>(), [2, 1, 2, 2, 1, 1, 2, 2, 2, 0, 0, 1]);
    // Seeds and names at their limits, in every script.
    let long = "x".repeat(300);
    let variants = ["", "a", "A", "é", "試験", long.as_str()];
    let experiments = ["", "exp/1", "exp 1", "実験", long.as_str()];
    let chosen = |seed: u64| experiments.map(|experiment| chosen_variant(seed, experiment, &variants).unwrap());
    assert_eq!(
        [0, 1, 1 << 32, u64::MAX].map(chosen),
        [[1, 1, 0, 1, 3], [5, 4, 5, 2, 3], [2, 3, 0, 2, 5], [5, 2, 5, 2, 0]]
    );
}

#[test]
fn without_variants_nothing_is_chosen() {
    assert_eq!(chosen_variant::<&str>(7, "exp-1", &[]), None);
}

/// Chi-square of the counts against equal shares, with `counts.len() - 1` degrees of freedom.
fn chi_square(counts: &[u32]) -> f64 {
    let expected = f64::from(counts.iter().sum::<u32>()) / counts.len() as f64;
    counts.iter().map(|&count| (f64::from(count) - expected).powi(2) / expected).sum()
}

#[test]
fn every_variant_is_chosen_equally_often_whatever_the_names_look_like() {
    let families: [[&str; 5]; 3] = [
        ["A", "B", "C", "D", "E"],
        ["treatment-1", "treatment-2", "treatment-3", "treatment-4", "treatment-5"],
        ["a", "aa", "aaa", "aaaa", "aaaaa"],
    ];
    for variants in families {
        for seed in [0, 1, u64::MAX] {
            let mut counts = [0; 5];
            for k in 0..20_000 {
                counts[chosen_variant(seed, &format!("exp-{k}"), &variants).unwrap()] += 1;
            }
            // 0.9999 quantile of chi-square with 4 degrees of freedom.
            assert!(chi_square(&counts) < 23.5, "{variants:?}, seed {seed}: {counts:?}");
        }
    }
}

#[test]
fn choices_under_another_seed_or_in_the_next_experiment_are_independent() {
    let variants = ["B", "C", "D"];
    let choose = |seed, k| chosen_variant(seed, &format!("exp-{k}"), &variants).unwrap();
    let (mut seeds, mut neighbours) = ([0; 9], [0; 9]);
    for k in 0..20_000 {
        seeds[3 * choose(1, k) + choose(2, k)] += 1;
        neighbours[3 * choose(1, 2 * k) + choose(1, 2 * k + 1)] += 1;
    }
    // 0.9999 quantile of chi-square with 8 degrees of freedom.
    assert!(chi_square(&seeds) < 31.8, "{seeds:?}");
    assert!(chi_square(&neighbours) < 31.8, "{neighbours:?}");
}
