//! What the command line promises: help with examples that work, exit codes as documented, pages that show real commands.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use clap::{CommandFactory, Parser};
use shrinkd::cli::Cli;

use crate::common::docs::Page;
use crate::common::skipped::skipped;

const SHRINKD: &str = env!("CARGO_BIN_EXE_shrinkd");

/// An event with one effect: too little for a fit under flat priors.
const ONE_EFFECT: &str = r#"{"schema_version":1,"experiment_id":"e","revision":1,"completed_at":"2026-01-01T00:00:00Z",
    "results":[{"metric":"m","effects":[{"variant":"B","estimate":0.1,"variance":0.01}]}]}"#;

fn run(arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(SHRINKD);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    // A command that reads nothing may have ended already.
    let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
    child.wait_with_output().expect("the program ends")
}

fn exit_code(arguments: &[&str], input: &str) -> i32 {
    run(arguments, input).status.code().expect("no signal")
}

/// Whether every `shrinkd` of a shell pipeline has arguments that parse.
fn assert_parses(pipeline: &str) {
    for stage in pipeline.split('|').map(str::trim).filter(|stage| stage.starts_with("shrinkd")) {
        // What stands between quotes is one word.
        let pieces = stage.split('\'').enumerate();
        let words =
            pieces.flat_map(|(i, piece)| if i % 2 == 1 { vec![piece] } else { piece.split_whitespace().collect() });
        let words = words.take_while(|word| !word.starts_with(['>', '<']));
        let parsed = Cli::try_parse_from(words);
        let is_help = parsed.as_ref().is_err_and(|error| !error.use_stderr());
        assert!(parsed.is_ok() || is_help, "`{stage}` of `{pipeline}`: {:?}", parsed.err());
    }
}

#[test]
fn the_help_of_every_command_has_examples_that_parse() {
    for command in Cli::command().get_subcommands() {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let (_, examples) = help.split_once("Examples:\n").unwrap_or_else(|| panic!("{} has none", command.get_name()));
        let examples: Vec<&str> = examples.lines().take_while(|line| line.starts_with("  shrinkd")).collect();
        assert!(!examples.is_empty(), "{} has no examples", command.get_name());
        examples.into_iter().for_each(assert_parses);
    }
}

#[test]
fn every_command_says_what_it_does_in_one_line_and_documents_every_argument() {
    for command in Cli::command().get_subcommands() {
        assert!(command.get_about().is_some(), "{} has no description", command.get_name());
        for argument in command.get_arguments().filter(|argument| argument.get_id() != "help") {
            assert!(argument.get_help().is_some(), "{} of {} has none", argument.get_id(), command.get_name());
        }
    }
}

#[test]
fn a_fit_exits_with_0_where_a_population_was_fitted_and_with_2_where_none_was() {
    let events = String::from_utf8(run(&["simulate", "--experiments", "5"], "").stdout).expect("text");
    assert_eq!(exit_code(&["fit"], &events), 0);
    assert_eq!(exit_code(&["fit"], &ONE_EFFECT.replace('\n', "")), 2);
    assert_eq!(exit_code(&["fit"], ""), 2);
}

#[test]
fn the_old_option_treatment_and_its_values_still_work_and_are_not_in_the_help() {
    let simulated = run(&["simulate", "--scenario", "treatment-heavy", "--experiments", "5"], "").stdout;
    let events = String::from_utf8(simulated).expect("text");
    let fit = |option: &str, value: &str| run(&["fit", "--format", "json", option, value], &events).stdout;
    for (old, new) in
        [("correlated", "modelled"), ("independent", "ignored"), ("one-per-experiment", "one-per-experiment")]
    {
        let fitted = fit("--treatment", old);
        assert!(!fitted.is_empty() && fitted == fit("--correlation", new), "{old}");
    }
    let help = String::from_utf8(run(&["fit", "--help"], "").stdout).expect("text");
    for hidden in ["--treatment", "alias", "correlated:", "independent:"] {
        assert!(!help.contains(hidden), "{hidden}: {help}");
    }
}

#[test]
fn the_examples_and_exit_codes_of_every_command_fit_a_terminal_of_80_columns() {
    for command in Cli::command().get_subcommands() {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        for line in help.lines() {
            assert!(line.chars().count() <= 80, "{}: {line}", command.get_name());
        }
    }
}

#[test]
fn a_file_that_is_not_there_exits_with_1_and_is_named() {
    let output = run(&["fit", "no-such-file.ndjson"], "");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no-such-file.ndjson"));
}

#[test]
fn a_wrong_command_line_exits_with_2_and_prints_nothing_on_stdout() {
    for arguments in [
        &["fit", "--method", "guess"][..],
        &["fit", "--prior-tau", "half-normal:-1"],
        &["simulate", "--scenario", "portfolio", "--mu", "1"],
        &["study", "--replicates", "0"],
        &["no-such-command"],
        &[],
    ] {
        let output = run(arguments, "");
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?} is left without a word");
    }
}

#[test]
fn refusals_are_one_line_on_stderr_for_each_reason_with_their_count_and_the_first_ones_place() {
    let events = format!("\n{}\nnot an event\nnor this\n", ONE_EFFECT.replace('\n', "").replace("0.01", "-0.01"));
    let output = run(&["fit", "--format", "json"], &events);
    let stderr = String::from_utf8(output.stderr).expect("text");
    let lines: Vec<&str> = stderr.lines().collect();
    assert_eq!(lines.len(), 3, "{stderr}");
    assert_eq!(lines[0], "3 refused; the first of each reason:");
    assert!(lines[1].starts_with("  2  line 3: malformed_json: "), "{stderr}");
    assert!(lines[2].starts_with("  1  line 2: non_positive_variance: "), "{stderr}");
}

#[test]
fn a_reader_that_stops_reading_is_no_error() {
    let mut child =
        Command::new(SHRINKD).args(["simulate", "--experiments", "100000"]).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().expect("the program ends").code(), Some(0));
}

#[test]
fn output_that_cannot_be_written_exits_with_1_and_a_sentence() {
    // Linux's: every write says that no space is left.
    let Ok(full) = File::options().write(true).open("/dev/full") else {
        return skipped("there is no /dev/full");
    };
    let output = Command::new(SHRINKD).arg("schema").stdout(full).output().expect("the program runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("No space left"), "{output:?}");
}

#[test]
fn the_schema_command_prints_the_schema_of_the_contract() {
    let printed: serde_json::Value = serde_json::from_slice(&run(&["schema"], "").stdout).expect("JSON");
    assert_eq!(printed, shrinkd_core::event_schema());
}

/// A command of a page and the output that the page shows under it.
struct Shown<'a> {
    command: &'a str,
    output: Vec<&'a str>,
}

/// What a page shows between its `console` fences.
fn shown(page: &Page) -> Vec<Shown<'_>> {
    let mut shown: Vec<Shown<'_>> = Vec::new();
    for line in page.blocks("console").flat_map(str::lines) {
        match (line.strip_prefix("$ "), shown.last_mut()) {
            (Some(command), _) => shown.push(Shown { command, output: Vec::new() }),
            (None, Some(last)) => last.output.push(line),
            (None, None) => panic!("{}: output without a command: {line}", page.path.display()),
        }
    }
    shown
}

#[test]
fn every_command_on_the_pages_parses() {
    let pages = Page::all();
    let commands: Vec<&str> = pages.iter().flat_map(shown).map(|shown| shown.command).collect();
    assert!(commands.iter().any(|command| command.starts_with("shrinkd")), "the commands are found");
    commands.into_iter().for_each(assert_parses);
}

/// Commands are run as they are written, by a shell that finds the program under its own name. Output that is cut short
/// ends with a line of three dots.
#[test]
fn the_output_on_the_pages_is_what_the_commands_print() {
    let program_folder = Path::new(SHRINKD).parent().expect("a folder").display();
    let search_path = format!("{program_folder}:{}", std::env::var("PATH").unwrap_or_default());
    for page in Page::all() {
        for Shown { command, output } in shown(&page).into_iter().filter(|shown| !shown.output.is_empty()) {
            let mut shell = Command::new("sh");
            shell.args(["-c", command]).env("PATH", &search_path).env_remove("COLUMNS");
            let printed = String::from_utf8(shell.output().expect("a shell").stdout).expect("text");
            let printed: Vec<&str> = printed.lines().map(str::trim_end).collect();
            let expected: Vec<&str> = output.iter().map(|line| line.trim_end()).collect();
            match expected.split_last() {
                Some((&"...", beginning)) => assert_eq!(printed.get(..beginning.len()), Some(beginning), "{command}"),
                _ => assert_eq!(printed, expected, "{command}"),
            }
        }
    }
}
