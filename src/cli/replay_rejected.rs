//! `shrinkd replay-rejected`: processes refused messages again.

use std::collections::BTreeMap;
use std::io;
use std::process::ExitCode;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use indicatif::{ProgressBar, ProgressStyle};
use shrinkd_core::Reason;

use super::text::{self, Columns, Page, counted};
use super::{CliError, ConfigArg};
use crate::config::Config;
use crate::row::replay::{RejectedSelection, ReplayOutcome};
use crate::store::Store;
use crate::worker::replay::{Replay, ReplayError, Replayed};

/// Replay dead letters: process refused messages again, after a fix or an upgrade
///
/// Every refused message is kept in the table rejected_events. This command processes the selected ones again in the same
/// way as a worker, while any number of workers are running: results that are now valid are stored and estimated, and
/// nothing is counted twice, however often you run it. A message that is refused again keeps its row, with the new
/// reason.
///
/// Messages that were already replayed successfully are left out, unless you select them with --id. Some are never
/// replayed: messages of an experiment that was later retracted as a whole, such retractions themselves, and messages
/// too large to be kept in full. Ask the producer to send these again.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
#[group(id = "selection", required = true, multiple = false, args = ["reasons", "ids", "all"])]
pub struct Args {
    #[command(flatten)]
    config: ConfigArg,
    /// Replay messages that were refused, in whole or in part, for this reason; repeat for more
    #[arg(long = "reason", value_name = "CODE", value_parser = reason_parser())]
    reasons: Vec<Reason>,
    /// Replay the message with this rejected_event_id, even if it was replayed before; repeat for more
    #[arg(long = "id", value_name = "N")]
    ids: Vec<i64>,
    /// Replay all refused messages
    #[arg(long)]
    all: bool,
    /// Show what would happen, and change nothing
    #[arg(long)]
    dry_run: bool,
}

const EXAMPLES: &str = "\
Examples:
  shrinkd replay-rejected --config config/local.toml --all --dry-run
  shrinkd replay-rejected -c config/local.toml --reason schema_violation
  shrinkd replay-rejected --config config/local.toml --id 17

Exit codes:
  0  success, even if messages were refused again: the table shows how many
  1  the store failed, or another replay was started. Messages replayed so far
     are committed: run it again for the rest
  2  the command line or the configuration is invalid, the SQLite file cannot
     be opened, or the database does not fit this build and these settings";

/// Replays the selected messages.
///
/// # Errors
/// Where the configuration is invalid, the store fails, or a selected row does not exist.
pub fn run(args: &Args) -> Result<ExitCode, CliError> {
    let config = args.config.load()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let store = Store::connect(&config.store, &config.store_settings()).await?;
        let result = replay(store.clone(), &config, args).await;
        store.close().await;
        result
    })
}

async fn replay(store: Store, config: &Config, args: &Args) -> Result<ExitCode, CliError> {
    let selection = match args {
        Args { all: true, .. } => RejectedSelection::All,
        Args { ids, .. } if !ids.is_empty() => RejectedSelection::Ids(ids.clone()),
        Args { reasons, .. } => RejectedSelection::Reasons(reasons.clone()),
    };
    let (grouping, limit, key) = (config.grouping(), config.limits.max_populations, config.source.key_rule());
    let mut replay = match Replay::begin(store, grouping, limit, key, &selection, args.dry_run).await {
        Err(error @ ReplayError::NoSuchRow(_)) => return Err(CliError::Usage(error.to_string())),
        replay => replay?,
    };
    let total = replay.left();
    let bar = ProgressBar::new(total as u64).with_style(style());
    let mut report = Report::default();
    let result = loop {
        match replay.next().await {
            Ok(Some(rows)) => report.add(rows),
            Ok(None) => break Ok(ExitCode::SUCCESS),
            Err(error) => break Err(error.into()),
        }
        bar.set_position((total - replay.left()) as u64);
    };
    bar.finish_and_clear();
    report.print(total - replay.left(), args.dry_run)?;
    result
}

fn reason_parser() -> impl TypedValueParser<Value = Reason> {
    let codes = Reason::ALL.iter().map(|reason| reason.as_str());
    PossibleValuesParser::new(codes).try_map(|code| {
        let reason = Reason::ALL.iter().find(|reason| reason.as_str() == code);
        reason.copied().ok_or("no reason code")
    })
}

fn style() -> ProgressStyle {
    let template = "{bar:40} {pos}/{len} messages, {eta} left";
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Refusals by their original reason and the outcome of the replay.
#[derive(Default)]
struct Report {
    rows: BTreeMap<(String, String), u64>,
    /// Rows of messages that were too large to be kept in full.
    cut: u64,
}

impl Report {
    fn add(&mut self, replayed: Vec<Replayed>) {
        for Replayed { reason, outcome } in replayed {
            if matches!(&outcome, ReplayOutcome::Refused(refusal) if refusal.reason == Reason::TooLarge) {
                self.cut += 1;
            }
            *self.rows.entry((reason, outcome.to_string())).or_default() += 1;
        }
    }

    fn print(&self, messages: usize, is_dry_run: bool) -> io::Result<()> {
        let mut page = Page::new(io::stdout().lock(), text::width());
        let done = if is_dry_run { "would be replayed (dry run: nothing was changed)" } else { "replayed" };
        let rows = counted(self.rows.values().sum(), "refusal");
        page.line(&format!("{} with {rows} {done}", counted(messages as u64, "message")))?;
        if !self.rows.is_empty() {
            page.blank()?;
            let mut columns = Columns::new([text::text("  "), text::text("  "), text::number("  ")]);
            columns.row(["was refused for", "now", "refusals"]);
            for ((reason, outcome), rows) in &self.rows {
                columns.row([reason, outcome, &rows.to_string()]);
            }
            page.columns(&columns)?;
        }
        if self.cut > 0 {
            page.blank()?;
            page.sentence(
                "",
                "Only the beginning of a message that is too large is kept: ask the producer to send it again in parts.",
            )?;
        }
        page.flush()
    }
}
