//! Files as they are: every form that `fit`, `lint` and `convert` take, and what they say of one that they do not.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::common::folder::Folder;
use super::common::program::shrinkd;
use super::common::skipped::shared;
use super::fit::{fit, json, number, stderr_lines, text};

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data").join(name)
}

fn run(command: &str, path: &Path, more: &[&str]) -> Output {
    let path = path.to_string_lossy();
    shrinkd(&Vec::new(), &[&[command, &*path], more].concat())
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).expect("memory")
}

/// The effects of the only population: experiment, variant, raw estimate and standard error.
fn effects(output: &Output) -> Vec<(String, String, f64, f64)> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let document = json(output);
    assert_eq!(document["populations"].as_array().map(Vec::len), Some(1), "{document}");
    let rows = document["populations"][0]["estimates"].as_array().cloned().unwrap_or_default();
    let effect = |row: &Value| {
        let name = |key| text(&row[key]).to_owned();
        (name("experiment_id"), name("variant"), number(&row["raw_estimate"]), number(&row["raw_se"]))
    };
    rows.iter().map(effect).collect()
}

#[test]
fn the_examples_say_the_same_in_each_form_plain_or_compressed() {
    let folder = Folder::new("forms");
    let want = effects(&run("fit", &example("events.ndjson"), &["--format", "json"]));
    assert_eq!(want.len(), 5);
    for name in ["arms.csv", "arms-semicolon.csv", "effects.csv", "events.ndjson", "events.json"] {
        let bytes = fs::read(example(name)).expect("the example");
        // The name says nothing.
        for (i, bytes) in [bytes.clone(), gzip(&bytes), zstd(&bytes)].into_iter().enumerate() {
            let path = folder.path(&format!("{name}-{i}"));
            fs::write(&path, bytes).expect("a file");
            let got = effects(&run("fit", &path, &["--format", "json"]));
            assert_eq!(got.len(), want.len(), "{name}");
            for (got, want) in got.iter().zip(&want) {
                assert_eq!((&got.0, &got.1), (&want.0, &want.1), "{name}");
                assert!(
                    (got.2 - want.2).abs() < 1e-12 && (got.3 / want.3 - 1.0).abs() < 1e-3,
                    "{name}: {got:?} {want:?}"
                );
            }
        }
    }
}

#[test]
fn several_files_are_one_history_and_places_name_the_file() {
    let folder = Folder::new("several");
    let (one, two) = (folder.path("one.csv"), folder.path("two.ndjson"));
    fs::write(&one, "experiment,variant,estimate,variance\na,t,0.1,1\nb,t,0.2,1\nc,t,x,1\n").expect("a file");
    let event = r#"{"schema_version":1,"experiment_id":"d","revision":1,"completed_at":"2026-01-01T00:00:00Z","results":[{"metric":"effect","effects":[{"variant":"t","estimate":0.5,"variance":1}]}]}"#;
    fs::write(&two, format!("{event}\nnot json\n")).expect("a file");
    let output = run("fit", &one, &[&*two.to_string_lossy(), "--format", "json"]);
    assert_eq!(effects(&output).len(), 3);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        stderr.contains("one.csv row 4: schema_violation") && stderr.contains("two.ndjson line 2: malformed_json"),
        "{stderr}"
    );
}

#[test]
fn a_preview_says_what_a_table_was_taken_for() {
    let output =
        fit("id,Test,Group,Users,Conv,note\n1,a,control,1000,100,x\n1,a,B,1000,120,x\n", &["--map", "successes=Conv"]);
    let stderr = stderr_lines(&output);
    for line in [
        "stdin: a table with one row per arm: 2 rows, 1 experiment",
        "  Test  -> experiment_id",
        "  Conv  -> successes",
        "  not used: id, note",
        "  no column for metric: conversion, is_control: the variant named control, baseline or 0, revision: 1, completed_at: when the \
         file was modified",
    ] {
        assert!(stderr.iter().any(|told| told == line), "{line}: {stderr:?}");
    }
    assert!(
        stderr.iter().any(|line| line.starts_with("  the first as an event: {\"schema_version\":1,")),
        "{stderr:?}"
    );
    // Rows of effects have no control that could be named.
    let stderr = stderr_lines(&fit("study,yi,vi\ns1,0.3,0.04\ns2,0.2,0.04\n", &[]));
    let assumed =
        "  no column for metric: effect, variant: treatment, revision: 1, completed_at: when the file was modified";
    assert!(stderr.iter().any(|told| told == assumed), "{stderr:?}");
}

#[test]
fn a_file_that_is_not_understood_is_refused_once_with_its_beginning_and_what_to_do() {
    for (input, told) in [
        ("hello\nworld\n".repeat(500), "neither JSON nor a table"),
        ("a,b\n1,2\n".repeat(500), "Its columns: a, b. Understood: none"),
        ("PAR1\u{1}".to_owned(), "it is a Parquet file"),
    ] {
        for command in [&["fit"][..], &["lint"], &["convert", "--from", "csv"]] {
            let folder = Folder::new(&format!("odd-{}-{}", command[0], input.len()));
            let path = folder.path("input");
            fs::write(&path, &input).expect("a file");
            let output = shrinkd(&Vec::new(), &[command, &[&*path.to_string_lossy()]].concat());
            let lines = stderr_lines(&output);
            assert_eq!(output.status.code(), Some(2), "{lines:?}");
            assert!(lines.len() <= 6 && lines.concat().contains(told), "{lines:?}");
        }
    }
    let empty = fit("", &[]);
    assert_eq!(
        (empty.status.code(), &stderr_lines(&empty)[0][..]),
        (Some(2), "stdin is empty: there is no event in it")
    );
}

#[test]
fn a_compressed_file_that_is_cut_short_says_so_and_what_to_do() {
    let folder = Folder::new("cut");
    let bytes = fs::read(example("arms.csv")).expect("the example");
    for (name, compressed) in [("gzip", gzip(&bytes)), ("zstd", zstd(&bytes))] {
        let path = folder.path(name);
        fs::write(&path, &compressed[..compressed.len() - 9]).expect("a file");
        let output = run("fit", &path, &[]);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && stderr.contains("damaged or cut short"), "{name}: {stderr}");
        assert!(stderr.contains("get the file again"), "{name}: {stderr}");
    }
}

#[test]
fn arrays_one_after_the_other_are_read_and_lines_of_blanks_are_passed_over() {
    let events = fs::read_to_string(example("events.ndjson")).expect("the example");
    let lines: Vec<&str> = events.lines().collect();
    let want = effects(&fit(&events, &["--format", "json"]));
    let arrays = format!("[{}]\n[{},{}]\n[]{}", lines[0], lines[1], lines[2], lines[3]);
    for input in [arrays, lines.join("\n \t\r\n\n")] {
        let output = fit(&input, &["--format", "json"]);
        assert_eq!(stderr_lines(&output), [""; 0], "{input}");
        assert_eq!(effects(&output), want, "{input}");
    }
}

#[test]
fn json_that_is_no_event_is_refused_with_the_fields_that_it_has() {
    let output = fit("{\"data\": [{\"attributes\": {\"experiment_id\": \"a\"}}], \"meta\": {}}\n", &[]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(stderr.contains(r#"it has "data", "meta", which no event has: `shrinkd schema` prints"#), "{stderr}");
}

#[test]
fn a_large_array_is_read_in_parts() {
    let event = |i: usize| {
        format!(
            r#"  {{"schema_version": 1, "experiment_id": "e{i}", "revision": 1, "completed_at": "2026-01-01T00:00:00Z", "results": [
                {{"metric": "m", "effects": [{{"variant": "t", "estimate": 0.{}, "variance": 1}}]}}]}}"#,
            i % 10
        )
    };
    let events: Vec<String> = (0..20_000).map(event).collect();
    let output = fit(&format!("[\n{}\n]\n", events.join(",\n")), &["--format", "json"]);
    assert_eq!(effects(&output).len(), 20_000);
}

#[test]
fn a_converted_table_gives_what_the_table_gives() {
    for name in ["arms.csv", "effects.csv", "arms-semicolon.csv"] {
        let converted = run("convert", &example(name), &["--from", "csv"]);
        assert!(converted.status.success());
        let events = String::from_utf8(converted.stdout).expect("UTF-8");
        assert_eq!(events.lines().count(), 4);
        let direct = run("fit", &example(name), &["--format", "json"]);
        assert_eq!(fit(&events, &["--format", "json"]).stdout, direct.stdout, "{name}");
    }
    let array = run("convert", &example("events.json"), &["--from", "json"]);
    assert_eq!(String::from_utf8(array.stdout).expect("UTF-8").lines().count(), 4);
}

#[test]
fn a_file_of_another_kind_than_convert_was_told_is_named_with_what_to_do() {
    for (name, from, told) in [
        ("arms.csv", "json", "arms.csv looks like a table (CSV or TSV), not JSON: use --from csv"),
        (
            "events.json",
            "csv",
            "events.json looks like JSON in an array or over several lines, not a table: use --from json",
        ),
        ("events.ndjson", "csv", "events.ndjson looks like events already (NDJSON), not a table: `shrinkd run`"),
    ] {
        let output = run("convert", &example(name), &["--from", from]);
        assert_eq!((output.status.code(), &*output.stdout), (Some(2), &b""[..]));
        assert!(stderr_lines(&output).concat().contains(told), "{told}: {output:?}");
    }
}

#[test]
fn a_misspelt_column_is_told_with_the_field_that_was_meant() {
    let rows = "a,control,1000,5,2,1\na,B,1000,6,2,1\n";
    let folder = Folder::new("misspelt");
    let path = folder.path("table.csv");
    for (header, command, told) in [
        // Without it there is no table.
        ("experiment,variant,users,mean,varaince,note", "fit", "Is varaince meant to be variance?"),
        // Without it there is one.
        (
            "experiment,variant,users,mean,sd,segmnt",
            "fit",
            "  segmnt: did you mean segment? Then rename it, or --map segment=segmnt",
        ),
        ("experiment,variant,users,mean,sd,segmnt", "lint", "unknown column: segmnt: did you mean segment?"),
        ("experiment,variant,users,mean,sd,shiped variant", "lint", "did you mean shipped_variant?"),
        ("experiment,variant,users,mean,sd,Completd At", "lint", "did you mean completed_at?"),
    ] {
        fs::write(&path, format!("{header}\n{rows}")).expect("a file");
        let output = run(command, &path, &[]);
        let all = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(all.contains(told), "{told}: {all}");
        assert_eq!(output.status.code(), Some(2), "{all}");
    }
    fs::write(&path, format!("experiment,variant,users,mean,sd,rate\n{rows}")).expect("a file");
    let output = run("lint", &path, &[]);
    assert!(output.status.success() && !String::from_utf8_lossy(&output.stderr).contains("did you mean"), "{output:?}");
}

#[test]
fn a_file_of_many_tombstones_is_linted_in_a_time_that_its_length_explains() {
    let events = (0..100_000).map(|i| {
        format!(
            r#"{{"schema_version":1,"experiment_id":"e{i}","revision":1,"completed_at":"2026-01-01T00:00:00Z","results":[]}}"#
        )
    });
    let tombstones = (0..100_000).map(|i| format!(r#"{{"schema_version":1,"experiment_id":"f{i}","retracted":true}}"#));
    let input: String = events.chain(tombstones).map(|line| line + "\n").collect();
    let folder = Folder::new("tombstones");
    let path = folder.path("events.ndjson");
    fs::write(&path, input).expect("a file");
    let started = Instant::now();
    let output = run("lint", &path, &[]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "200,000 messages, nothing found\n");
    // Some seconds. Where each tombstone walks all experiments, it takes minutes.
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
}

#[test]
fn lint_finds_by_kind_what_is_probably_not_meant_and_strict_makes_it_an_error() {
    let event = |id: &str, metric: &str, more: &str| {
        format!(
            r#"{{"schema_version":1,"experiment_id":"{id}","revision":1,"completed_at":"2026-01-01T00:00:00Z","results":[{{"metric":"{metric}"{more},"effects":[{{"variant":"t","estimate":0.1,"variance":1}}]}}]}}"#
        ) + "\n"
    };
    let mut events = event("a", "m", r#","segmnt":"de""#);
    events += &event("b", "m", r#","segmnt":"de""#);
    events += &event("b", "m", "");
    events += &event("e", "m", "");
    events += &event("f", "m", "");
    events += &event("c", "page_load_latency", "");
    events += &event("d", "time_spent", "");
    events += "not json\n";
    let folder = Folder::new("lint");
    let path = folder.path("events.ndjson");
    fs::write(&path, &events).expect("a file");
    let output = run("lint", &path, &[]);
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8(output.stdout).expect("UTF-8");
    for line in [
        "  1  line 8: malformed_json: ",
        "  2  line 1: unknown field: $.results[0].segmnt: did you mean segment?",
        "  1  line 3: experiment \"b\" comes again at revision 1 (first in line 2)",
        "  1  line 6: metric \"page_load_latency\" has no direction",
    ] {
        assert!(told.lines().any(|told| told.starts_with(line)), "{line}: {told}");
    }
    assert!(!told.contains("time_spent"), "{told}");
    assert_eq!(run("fit", &path, &["--strict"]).status.code(), Some(2));
    assert_eq!(run("fit", &path, &[]).status.code(), Some(0));
    let clean = run("lint", &example("events.ndjson"), &[]);
    assert_eq!((clean.status.code(), &*clean.stdout), (Some(0), &b"4 messages, nothing found\n"[..]));
}

#[test]
fn a_simulated_table_has_the_effects_of_the_simulated_events() {
    let arguments = ["simulate", "--experiments", "40", "--seed", "7"];
    let events = shrinkd(&Vec::new(), &arguments);
    let table = shrinkd(&Vec::new(), &[&arguments[..], &["--format", "csv"]].concat());
    let [events, table] = [events, table].map(|output| String::from_utf8(output.stdout).expect("UTF-8"));
    assert_eq!(table.lines().count(), 81);
    let [want, got] = [events, table].map(|input| effects(&fit(&input, &["--format", "json"])));
    assert_eq!((want.len(), got.len()), (40, 40));
    for (want, got) in want.iter().zip(&got) {
        assert!(want.0 == got.0 && want.1 == got.1, "{want:?} {got:?}");
        assert!((want.2 - got.2).abs() < 1e-12 && (want.3 - got.3).abs() < 1e-12, "{want:?} {got:?}");
    }
}

#[test]
fn after_the_build_two_commands_of_the_readme_give_the_estimates_of_40_experiments() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("the README");
    let block =
        readme.split("```sh\n").nth(1).and_then(|rest| rest.split("```").next()).expect("the first block of commands");
    let commands: Vec<&str> = block.lines().collect();
    assert!(commands.len() == 3 && commands[0].starts_with("cargo install"), "{commands:?}");
    let folder = Folder::new("readme");
    let program = Path::new(env!("CARGO_BIN_EXE_shrinkd")).parent().expect("a folder").display().to_string();
    let path = format!("{program}:{}", std::env::var("PATH").unwrap_or_default());
    let mut shell = Command::new("sh");
    shell.args(["-ec", &commands[1..].join("\n")]).env("PATH", path).env_remove("COLUMNS").current_dir(folder.path(""));
    let output = shell.output().expect("sh runs");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && told.contains("40 experiments, 40 effects"), "{told}");
}

#[test]
fn each_input_that_people_really_send_is_taken_or_refused_once_with_what_to_do() {
    let Some(folder) = shared("cases/inputs") else { return };
    for entry in folder.read_dir().expect("the inputs") {
        let path = entry.expect("an entry").path();
        let output = run("fit", &path, &["--format", "json", "--method", "ml"]);
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let stderr = stderr_lines(&output);
        let refused = stderr.iter().filter(|line| line.starts_with("  1  ")).count();
        let is_taken = output.status.success();
        assert!(is_taken || refused == 1 || name == "io_empty", "{name}: {stderr:?}");
    }
    let taken = ["io_csv", "io_gz", "io_json_array", "io_pretty", "io_bom", "io_crlf", "io_blank_lines", "io_nan"];
    for name in taken {
        assert!(run("fit", &folder.join(name), &["--method", "ml"]).status.success(), "{name}");
    }
}
