//! `shrinkd verify`: audits a store and prints the report.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;

use indicatif::{ProgressBar, ProgressStyle};

use super::text::{self, Page, counted, grouped};
use super::{CliError, ConfigArg};
use crate::config::{Config, SourceConfig};
use crate::store::Store;
use crate::stream::{Topic, Watermarks};
use crate::verify::{Check, Difference, Reach, Report, Rules, SHOWN, Tally, file_reach, verify};
use crate::worker::source::kafka::watermarks;

/// Audit a database: recompute everything derived from the stored results, and compare
///
/// Recomputes every block from its statistics, every sketch cell and counter from the blocks, every fit from the cells
/// and every estimate from its fit. Exact arithmetic must agree bit for bit, estimates to 1e-9. It also checks that no
/// estimate is further from the current posterior than publish.tolerance allows, and that the next offset of every
/// partition exists in the source.
///
/// The audit reads one consistent snapshot and never blocks a worker, so it can run at any time. Where a refit or publish
/// is due at that moment, fits and distances are not judged; the report counts them. It needs the configuration of the
/// workers, read access only (PostgreSQL: the role shrinkd_auditor), and the same memory for a million blocks as for a
/// thousand.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArg,
}

const EXAMPLES: &str = "\
Examples:
  shrinkd verify --config config/production.toml
  shrinkd verify -c shrinkd-demo/shrinkd.toml || echo 'see docs/operations.md'
  SHRINKD__STORE__URL=postgres://shrinkd_auditor@db/shrinkd \\
    shrinkd verify --config config/production.toml

Exit codes:
  0  no differences
  1  differences were found (listed on stdout), or the audit failed (stderr
     gives the reason)
  2  the configuration is invalid, the SQLite file cannot be opened, or the
     database does not fit this build and these settings";

/// Audits the store.
///
/// # Errors
/// Where the configuration is invalid, or the store or the source cannot be read.
pub fn run(args: &Args) -> Result<ExitCode, CliError> {
    let config = Arc::new(args.config.load()?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(audit(&config))?;
    let mut page = Page::new(BufWriter::new(io::stdout().lock()), text::width());
    print(&report, &config, &mut page)?;
    page.flush()?;
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn audit(config: &Arc<Config>) -> Result<Report, CliError> {
    // Records may expire or arrive while the audit runs: the watermarks before and after the snapshot bracket it.
    let before = ask(&config.source).await?;
    let store = Store::connect_existing(&config.store, &config.store_settings()).await?;
    let mut audit = store.begin_audit().await?;
    let partitions = audit.partitions().await?;
    let skipped = audit.skipped_offsets().await?;
    let reach = match (&config.source, before, ask(&config.source).await?) {
        (_, Some((_, before)), Some((topic, after))) => Reach::Kafka { topic, before, after },
        (SourceConfig::File(file), ..) => {
            file_reach(&file.path, &partitions).map_err(|source| CliError::File { path: file.path.clone(), source })?
        }
        (SourceConfig::Kafka(_), ..) => {
            return Err(CliError::Internal("the topic's watermarks were not fetched".to_owned()));
        }
    };
    let own = Arc::clone(config);
    let rules = Rules {
        settings: Arc::new(move |population| own.settings(population)),
        grouping: config.grouping(),
        tolerance: config.publish.tolerance,
    };
    let bar = progress();
    let tick = |done: u64, all: u64| {
        bar.set_length(all);
        bar.set_position(done);
    };
    let mut report = verify(&mut audit, &rules, &tick).await?;
    bar.finish_and_clear();
    report.check_offsets(&partitions, &skipped, &reach);
    Ok(report)
}

/// The topic's watermarks; `None` where the source is a file.
async fn ask(source: &SourceConfig) -> Result<Option<(Topic, Watermarks)>, CliError> {
    let SourceConfig::Kafka(kafka) = source else { return Ok(None) };
    let kafka = kafka.clone();
    let asked = tokio::task::spawn_blocking(move || watermarks(&kafka)).await;
    let asked = asked.map_err(|error| CliError::Internal(error.to_string()))?;
    asked.map(Some).map_err(|error| CliError::Kafka(error.to_string()))
}

fn progress() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("reading blocks [{bar:40}] {percent}%, {eta} left");
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn print(report: &Report, config: &Config, page: &mut Page<impl Write>) -> io::Result<()> {
    page.line(&format!("{}, {}", config.store.url, config.source))?;
    page.blank()?;
    for check in Check::ALL {
        page.sentence(&format!("  {:<10}  ", check.as_str()), &summary(check, report))?;
    }
    for check in Check::ALL {
        let Tally { differing, first, .. } = report.of(check);
        if *differing == 0 {
            continue;
        }
        page.blank()?;
        match *differing > SHOWN as u64 {
            true => page.line(&format!("{}, the first {SHOWN} of {}", check.as_str(), grouped(*differing)))?,
            false => page.line(check.as_str())?,
        }
        for Difference { at, what, stored, expected } in first {
            page.line(&format!("  {at}: {what}"))?;
            page.line(&format!("    stored    {stored}"))?;
            page.line(&format!("    expected  {expected}"))?;
        }
    }
    if !report.remarks.is_empty() {
        page.blank()?;
    }
    for remark in &report.remarks {
        page.sentence("  note        ", remark)?;
    }
    page.blank()?;
    match report.differences() {
        0 => page.line("clean: nothing differs"),
        differences => {
            let said = format!(
                "NOT CLEAN: {}; see the section on audits in docs/operations.md",
                counted(differences, "difference")
            );
            page.line(&said)
        }
    }
}

/// A check in one line: how many items were compared, how, and with what result.
fn summary(check: Check, report: &Report) -> String {
    let Tally { compared, postponed, differing, .. } = report.of(check);
    let what = match check {
        Check::Blocks => "recomputed from their statistics",
        Check::Cells => "recomputed from the blocks",
        Check::Counters => "recounted from the blocks",
        Check::Fits => "recomputed from the cells",
        Check::Estimates => "recomputed from their fits",
        Check::Distances => "compared with the current posterior",
        Check::Offsets => "compared with the source",
    };
    let found = match differing {
        0 if *compared == 0 => String::new(),
        0 => match check {
            Check::Distances => format!(": within tolerance, at most {:.2} of the bound", report.largest_share),
            Check::Estimates => ": equal to 1e-9, raw figures bit for bit".to_owned(),
            Check::Offsets => ": all present".to_owned(),
            _ => ": equal bit for bit".to_owned(),
        },
        differing => format!(": {}", counted(*differing, "difference")),
    };
    let waits = match postponed {
        0 => String::new(),
        postponed => format!("; {} not judged: a refit or publish is due", grouped(*postponed)),
    };
    format!("{} {what}{found}{waits}", grouped(*compared))
}
