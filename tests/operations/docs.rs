//! The documentation's promises: what it shows is what the code does.

use shrinkd_core::{Message, Reason, WarningCode, decode};

use crate::common::docs::Page;

#[test]
fn every_reason_code_is_documented_in_the_order_of_checking_and_no_other_is() {
    let codes: Vec<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(documented_codes("## Reason codes"), codes);
}

#[test]
fn every_warning_is_documented_and_no_other_is() {
    assert_eq!(documented_codes("## Warnings"), WarningCode::ALL.map(WarningCode::as_str));
}

/// The codes in the table of the only section with this heading.
fn documented_codes(heading: &str) -> Vec<String> {
    let pages = Page::all();
    let sections: Vec<&str> = pages.iter().filter_map(|page| Some(page.text.split_once(heading)?.1)).collect();
    let [section] = sections[..] else { panic!("one page has a section {heading}, not {}", sections.len()) };
    let section = section.split_once("\n## ").map_or(section, |(section, _)| section);
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    rows.map(|(code, _)| code.to_owned()).collect()
}

#[test]
fn every_event_in_the_documentation_is_taken_with_all_its_results() {
    let pages = Page::all();
    let examples: Vec<String> = pages.iter().flat_map(|page| page.blocks("json")).map(as_message).collect();
    assert!(examples.len() > 3, "the examples are found");
    for example in examples {
        match decode(example.as_bytes()) {
            Ok(Message::Event(event)) => {
                event.results.iter().for_each(|result| assert!(result.is_ok(), "{example}: {result:?}"));
            }
            Ok(Message::Tombstone { .. }) => {}
            Err(refusal) => panic!("{example}: {refusal}"),
        }
    }
}

/// The example itself, or a message around it where it is a result.
fn as_message(example: &str) -> String {
    if example.contains("schema_version") {
        return example.to_owned();
    }
    format!(
        r#"{{"schema_version":1,"experiment_id":"e","revision":1,"completed_at":"2026-01-01T00:00:00Z",
            "results":[{example}]}}"#
    )
}

#[test]
fn every_link_between_pages_leads_to_a_file() {
    for page in Page::all() {
        let targets = page.text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.starts_with("http") && !target.starts_with('#')) {
            let file = target.split('#').next().unwrap_or_default();
            assert!(page.path.with_file_name(file).exists(), "{} links to {target}", page.path.display());
        }
    }
}

#[test]
fn every_link_within_a_page_leads_to_a_heading() {
    for page in Page::all() {
        let headings: Vec<String> = page
            .text
            .lines()
            .filter_map(|line| Some(anchor(line.strip_prefix('#')?.trim_start_matches('#'))))
            .collect();
        let targets = page.text.split("](#").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets {
            assert!(headings.iter().any(|heading| heading == target), "{} has no #{target}", page.path.display());
        }
    }
}

/// A heading as it is linked to.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_')).collect::<String>().replace(' ', "-")
}

#[test]
fn every_test_file_that_the_documentation_names_is_there() {
    for page in Page::all() {
        let names = page.text.split('`').filter(|code| code.starts_with("tests/") && code.ends_with(".rs"));
        for name in names {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
            assert!(path.exists(), "{} names {name}", page.path.display());
        }
    }
}

/// `make fuzz` builds with `--locked`.
#[test]
fn the_fuzz_targets_lock_the_crates_at_the_version_that_they_have() {
    let lock = include_str!("../../fuzz/Cargo.lock");
    for name in ["shrinkd-core", "shrinkd-model"] {
        let locked = format!("name = \"{name}\"\nversion = \"{}\"\n", env!("CARGO_PKG_VERSION"));
        assert!(lock.contains(&locked), "{name}: run `cargo update --workspace` in fuzz");
    }
}
