//! What `shrinkd when` promises: the closed forms of a design in every format, a map and its picture, and a page of
//! documentation whose numbers are the command's.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use shrinkd_model::{Design, Thresholds, Verdict};

const PAGE: &str = include_str!("../../docs/when.md");
const PICTURE: &str = include_str!("../../docs/when.svg");

fn shrinkd(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shrinkd"));
    command.args(arguments).env("COLUMNS", "80").output().expect("the program runs")
}

/// What `shrinkd when` with these arguments prints.
fn printed(arguments: &[&str]) -> String {
    let output = shrinkd(&[&["when"], arguments].concat());
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// The rows of CSV by their columns.
fn rows(csv: &str) -> Vec<BTreeMap<String, String>> {
    let mut lines = csv.lines().map(|line| {
        // Commas in quotes do not separate.
        let parts = line.split('"').enumerate();
        let marked: String =
            parts.map(|(i, part)| if i % 2 == 0 { part.replace(',', "\t") } else { part.to_owned() }).collect();
        marked.split('\t').map(str::to_owned).collect::<Vec<_>>()
    });
    let head = lines.next().expect("a header");
    lines.map(|cells| head.iter().cloned().zip(cells).collect()).collect()
}

/// The only row of CSV.
fn row(csv: &str) -> BTreeMap<String, String> {
    let [row] = <[_; 1]>::try_from(rows(csv)).expect("one row");
    row
}

fn map() -> Vec<BTreeMap<String, String>> {
    rows(&printed(&["--grid", "--format", "csv"]))
}

fn number(row: &BTreeMap<String, String>, name: &str) -> f64 {
    row[name].parse().expect("a number")
}

#[test]
fn the_figures_of_a_design_are_the_closed_forms_in_json_and_csv() {
    let cases: [(&[&str], Design); 4] = [
        (
            &["--variants", "3", "--control-share", "0.5", "--tau", "1se"],
            Design { variants: vec![3], rho: 0.25, tau: 1.0 },
        ),
        (&["--variants", "3", "--rho", "0.25"], Design { variants: vec![3], rho: 0.25, tau: 1.0 }),
        (&["--variants", "4", "--tau", "0"], Design { variants: vec![4], rho: 0.5, tau: 0.0 }),
        (&["--mix", "1,1,2", "--tau", "0.5se"], Design { variants: vec![1, 1, 2], rho: 0.5, tau: 0.5 }),
    ];
    for (arguments, design) in cases {
        let json: Value = serde_json::from_str(&printed(&[arguments, &["--format", "json"]].concat())).expect("JSON");
        let csv = printed(&[arguments, &["--format", "csv"]].concat());
        let cells = row(&csv);
        let (verdict, rests_on, value) = Thresholds::default().verdict_of_design(&design);
        for (name, want) in [
            ("rho", Some(design.rho)),
            ("tau", Some(design.tau)),
            ("deff", Some(design.design_effect())),
            ("naive_coverage", Some(design.naive_coverage())),
            ("rmse_excess", design.rmse_excess()),
            ("mu_interval_ratio", Some(design.mu_interval_ratio())),
            ("tau_error_ratio", Some(design.tau_error_ratio())),
            ("verdict_value", Some(value)),
        ] {
            assert!(json.get(name).is_some() && json[name].as_f64() == want, "{name} of {design:?}: {json}");
            assert_eq!(cells[name], want.map_or(String::new(), |want| want.to_string()), "{csv}");
        }
        assert_eq!(json["variants"], serde_json::json!(design.variants));
        assert_eq!(cells["variants"], design.variants.iter().map(usize::to_string).collect::<Vec<_>>().join(","));
        assert_eq!(json["verdict"], verdict.as_str());
        assert_eq!(json["verdict_rests_on"], rests_on.as_str());
    }
}

#[test]
fn the_control_s_share_of_the_traffic_is_shown_where_there_is_one() {
    let shown = |arguments: &[&str]| {
        let json: Value = serde_json::from_str(&printed(&[arguments, &["--format", "json"]].concat())).expect("JSON");
        (json["allocation"].clone(), json["control_share"].as_f64())
    };
    assert_eq!(shown(&["--variants", "3", "--control-share", "0.4"]), ("control_share".into(), Some(0.4)));
    assert_eq!(shown(&["--variants", "3"]), ("equal".into(), Some(0.25)));
    assert_eq!(shown(&["--variants", "3", "--rho", "0.5"]), ("rho".into(), None));
    assert_eq!(shown(&["--mix", "1,3"]), ("equal".into(), None));
}

#[test]
fn a_design_is_judged_in_words() {
    let text = printed(&["--variants", "3", "--control-share", "0.5", "--tau", "1se"]);
    for words in [
        "3 variants in every experiment; the control gets 50% of the traffic\n",
        "covers 92.0%\n",
        "1.25 times what it claims\n",
        "error (RMSE) 1.5% larger\n",
        "1.55 times as wide\n",
        "error 1.80 times as large\n",
        "verdict     noticeable: the naive 95% interval of mu would cover about 92.0%\n",
    ] {
        assert!(text.contains(words), "{words} in {text}");
    }
    let equal = printed(&["--variants", "3", "--tau", "0"]);
    for words in ["estimates           - (no closed form at tau = 0)\n", "error 1.69 times as large\n"] {
        assert!(equal.contains(words), "{words} in {equal}");
    }
    let mixed = printed(&["--mix", "2,1,1"]);
    let words = "of every 3 experiments 2 have 1 variant, 1 has 2 variants; ";
    assert!(mixed.starts_with(words), "{mixed}");
    // Of what is left open nothing is said.
    assert!(printed(&["--variants", "3", "--rho", "0.5"]).starts_with("3 variants in every experiment\n"));
    let rounded = printed(&["--variants", "3", "--control-share", "0.0996"]);
    assert!(rounded.starts_with("3 variants in every experiment; the control gets 10% of the traffic\n"), "{rounded}");
    let single = printed(&["--variants", "1"]);
    assert!(single.contains("verdict     negligible") && single.contains("what to do  nothing"), "{single}");
}

#[test]
fn what_makes_no_design_is_a_usage_error_that_says_what_to_do() {
    let refused = |arguments: &[&str], words: &str| {
        let output = shrinkd(&[&["when"], arguments].concat());
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
        assert!(message.contains(words) && output.stdout.is_empty(), "{arguments:?}: {message}");
    };
    refused(&["--tau", "0.5"], "--tau 0.5se");
    refused(&["--tau=-1se"], "expected");
    refused(&["--variants", "0"], "0 is not in 1..=1000");
    refused(&["--mix", "1,0"], "0 is not in 1..=1000");
    refused(&["--control-share", "1"], "expected");
    refused(&["--rho", "1"], "expected");
    refused(&["--rho", "0.5", "--control-share", "0.5"], "cannot be used with");
    refused(&["--mix", "1,2", "--control-share", "0.5"], "cannot be used with");
    refused(&["--mix", "1,2", "--variants", "2"], "cannot be used with");
    refused(&["--grid", "--variants", "2"], "cannot be used with");
    refused(&["--svg", "map.svg", "--tau", "1se"], "cannot be used with");
}

#[test]
fn a_picture_that_cannot_be_written_is_named() {
    let output = shrinkd(&["when", "--svg", "/no/such/folder/map.svg"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot write /no/such/folder/map.svg"));
}

#[test]
fn the_map_has_the_figures_of_its_designs_one_by_one() {
    let map = map();
    assert_eq!(map.len(), 4 * 10 * 10);
    for row in map.iter().step_by(37) {
        let tau = format!("{}se", row["tau"]);
        let alone = match &*row["allocation"] {
            "equal" => vec!["--variants", &*row["variants"], "--tau", &tau],
            _ => vec!["--variants", &*row["variants"], "--tau", &tau, "--control-share", &*row["control_share"]],
        };
        let alone = printed(&[&alone[..], &["--format", "csv"]].concat());
        assert_eq!(rows(&alone), std::slice::from_ref(row));
    }
    let json: Value = serde_json::from_str(&printed(&["--grid", "--format", "json"])).expect("JSON");
    let of_json: Vec<f64> =
        json.as_array().expect("designs").iter().map(|d| d["deff"].as_f64().expect("f64")).collect();
    assert_eq!(of_json, map.iter().map(|row| number(row, "deff")).collect::<Vec<f64>>());
}

#[test]
fn the_table_of_the_map_has_the_coverage_and_a_mark_for_the_verdict_of_every_design() {
    let text = printed(&["--grid"]);
    assert!(text.lines().all(|line| line.len() <= 80), "{text}");
    let (_, tables) = text.split_once("\n\n").expect("a legend");
    let rows = tables.lines().filter(|line| !line.is_empty() && !line.contains("tau = "));
    let cells = rows.flat_map(|line| line.split_whitespace().skip(1));
    let want: Vec<String> = map()
        .iter()
        .map(|row| {
            let mark = match &*row["verdict"] {
                "material" => "!",
                "noticeable" => "*",
                _ => "",
            };
            format!("{:.1}{mark}", 100.0 * number(row, "naive_coverage"))
        })
        .collect();
    assert_eq!(cells.collect::<Vec<_>>(), want);
}

/// The attribute of an element, of which this is the beginning.
fn attribute<'a>(element: &'a str, name: &str) -> &'a str {
    let (_, value) = element.split_once(&format!(" {name}=\"")).unwrap_or_else(|| panic!("{name} in {element}"));
    value.split('"').next().expect("a value")
}

#[test]
fn the_picture_shows_the_coverage_of_every_design_in_the_colour_of_its_range() {
    let elements: Vec<&str> = PICTURE.split('<').collect();
    let cells: Vec<(&str, f64)> = elements
        .windows(3)
        .filter(|pair| {
            pair[0].starts_with("rect") && pair[1].starts_with("text") && pair[1].contains("font-size=\"12\"")
        })
        .map(|pair| {
            let coverage = pair[1].split_once('>').expect("text").1.trim().parse().expect("a number");
            (attribute(pair[0], "fill"), coverage)
        })
        .collect();
    let map = map();
    assert_eq!(cells.len(), map.len());
    for ((fill, coverage), row) in cells.into_iter().zip(&map) {
        let exact = 100.0 * number(row, "naive_coverage");
        assert!((coverage - exact).abs() <= 0.05 + 1e-9, "{row:?}: {coverage}");
        let want = match exact {
            x if x >= 94.0 => "#fff7bc",
            x if x >= 90.0 => "#fec44f",
            x if x >= 80.0 => "#cc4c02",
            _ => "#662506",
        };
        assert_eq!(fill, want, "{row:?}");
    }
    // The legend puts the verdict beside the range: where accuracy makes it worse, there is a mark, and one in the legend.
    let is_marked = |row: &&BTreeMap<String, String>| {
        let by_coverage = match number(row, "naive_coverage") {
            x if x >= 0.94 => "negligible",
            x if x >= 0.90 => "noticeable",
            _ => "material",
        };
        assert!(row["verdict"] == by_coverage || row["verdict"] == "material", "{row:?}");
        row["verdict"] != by_coverage
    };
    let marks = elements.iter().filter(|element| element.starts_with("polygon")).count();
    assert_eq!(marks, 1 + map.iter().filter(is_marked).count());
}

#[test]
fn the_picture_says_what_it_is_to_those_who_do_not_see_it() {
    assert!(PICTURE.contains("role=\"img\"") && PICTURE.contains("aria-labelledby=\"title description\""));
    assert!(PICTURE.contains("<title id=\"title\">") && PICTURE.contains("<desc id=\"description\">"));
}

#[test]
fn the_picture_in_the_documentation_is_the_one_that_the_command_draws() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("when");
    fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join("map.svg");
    let table = printed(&["--svg", path.to_str().expect("a path")]);
    assert_eq!(fs::read_to_string(&path).expect("a picture"), PICTURE, "run `shrinkd when --grid --svg docs/when.svg`");
    assert_eq!(table, printed(&["--grid"]));
    assert!(PAGE.contains("](when.svg)"));
}

#[test]
fn what_the_page_shows_as_output_is_the_output() {
    let blocks: Vec<&str> = PAGE.split("```console\n$ ").skip(1).collect();
    assert!(!blocks.is_empty());
    for block in blocks {
        let (command, shown) = block.split("```").next().and_then(|block| block.split_once('\n')).expect("a command");
        let arguments: Vec<&str> = command.strip_prefix("shrinkd when ").expect("when").split(' ').collect();
        assert_eq!(printed(&arguments), shown, "{command}");
    }
}

/// Words without the punctuation around them.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split([' ', '\n', '|', '(', ')']).map(|word| word.trim_matches(|c: char| !c.is_alphanumeric() && c != '%'))
}

#[test]
fn every_number_of_the_page_is_one_that_the_command_named_beside_it_prints() {
    let prose = PAGE.split("```").step_by(2).collect::<String>();
    // Paragraphs, and rows of tables.
    let places = prose.split("\n\n").flat_map(|part| match part.starts_with('|') {
        true => part.lines().collect::<Vec<_>>(),
        false => vec![part],
    });
    let mut checked = 0;
    for place in places {
        let commands = place.split('`').skip(1).step_by(2).filter_map(|code| code.strip_prefix("shrinkd when "));
        let output: String = commands
            .filter(|command| !command.contains("--svg"))
            .map(|command| printed(&command.split(' ').collect::<Vec<_>>()))
            .collect();
        // Neither code nor formulas.
        let text: String = place.split('`').step_by(2).collect();
        let text: String = text.split('$').step_by(2).collect();
        for word in words(&text) {
            let number = word.trim_end_matches('%').parse::<f64>();
            let is_figure = number.is_ok() && (word.contains('.') || word.ends_with('%')) && word != "95%";
            let is_same = |printed: &str| {
                printed == word || (number.is_ok() && printed.parse::<f64>() == number && !word.ends_with('%'))
            };
            assert!(!is_figure || words(&output).any(is_same), "{word} of:\n{place}\nis not in:\n{output}");
            checked += usize::from(is_figure);
        }
        for verdict in Verdict::ALL.map(Verdict::as_str) {
            if place.starts_with('|') && words(&text).any(|word| word == verdict) {
                assert!(output.contains(&format!("verdict     {verdict}:")), "{place}\n{output}");
            }
        }
    }
    assert!(checked > 50, "{checked} numbers");
}

/// For controls that get at least as much traffic as each variant, as the page says.
#[test]
fn the_rule_on_the_page_never_contradicts_the_verdict() {
    // From its first sentences.
    let bound = |words: &str| -> f64 {
        let (_, after) = PAGE.split_once(words).unwrap_or_else(|| panic!("the page says \"{words}\""));
        after.split([' ', ',']).next().and_then(|word| word.parse().ok()).expect("a number")
    };
    let (negligible, material) = (bound("below "), bound("Above "));
    assert!(0.0 < negligible && negligible < material);
    for variants in [2, 3, 5, 10, 100] {
        for rho in (1..=50).map(|percent| f64::from(percent) / 100.0) {
            for tau in (0..200).map(|step| 0.05 * f64::from(step)) {
                let x = (variants - 1) as f64 * rho / (1.0 + tau * tau);
                let design = Design { variants: vec![variants], rho, tau };
                let (verdict, ..) = Thresholds::default().verdict_of_design(&design);
                assert!(x >= negligible || verdict == Verdict::Negligible, "{design:?}: {verdict}");
                assert!(x <= material || verdict == Verdict::Material, "{design:?}: {verdict}");
                // With equal traffic, as in the sentence below the rule.
                if rho == 0.5 && variants == 2 && (0.5..=2.0).contains(&tau) {
                    assert_eq!(verdict, Verdict::Noticeable, "{design:?}");
                }
                if rho == 0.5 && variants == 3 && tau <= 1.5 {
                    assert_eq!(verdict, Verdict::Material, "{design:?}");
                }
            }
        }
    }
}

#[test]
fn data_of_a_design_get_the_verdict_that_the_design_does() {
    for design in [
        "--variants 1",
        "--variants 2 --tau 2se",
        "--variants 3",
        "--variants 3 --control-share 0.5 --tau 1se",
        "--variants 4 --control-share 0.7 --tau 0.5se",
    ] {
        let design: Vec<&str> = design.split(' ').collect();
        let expected: Value =
            serde_json::from_str(&printed(&[&design[..], &["--format", "json"]].concat())).expect("JSON");
        let size = ["--experiments", "300", "--replicates", "1", "--format", "json"];
        let study = shrinkd(&[&["study"], &design[..], &size].concat());
        let study: Value = serde_json::from_slice(&study.stdout).expect("JSON");
        let found = &study["scenarios"][0]["correlation"];
        assert_eq!(found["verdict"], expected["verdict"], "{design:?}: {found}");
        assert_eq!(found["rests_on"], expected["verdict_rests_on"], "{design:?}: {found}");
        let [found, expected] =
            [&found["value"], &expected["verdict_value"]].map(|value| value.as_f64().expect("a number"));
        assert!((found - expected).abs() < 0.01, "{design:?}: {found}, not {expected}");
    }
}
