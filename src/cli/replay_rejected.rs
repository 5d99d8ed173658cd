//! `shrinkd replay-rejected`: refused messages, taken in again.

use std::collections::BTreeMap;
use std::io;
use std::process::ExitCode;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use indicatif::{ProgressBar, ProgressStyle};
use shrinkd_core::{Grouping, Reason};

use super::text::{self, Columns, Page, counted};
use super::{CliError, ConfigArg};
use crate::row::replay::{RejectedSelection, ReplayOutcome};
use crate::store::Store;
use crate::worker::replay::{Replay, ReplayError, Replayed};

/// Take refused messages in again, after a fix or with a new version
///
/// Every refused message is kept in rejected_events. This command takes those that you name through the same steps as a
/// worker, beside any number of running workers: what can be used now is put in, with its estimates, and nothing is
/// counted twice, however often you run it. What is refused again keeps its row, with the reason as it is now.
///
/// Messages that a replay has taken are passed over, unless --id names them. Not replayed are messages of an experiment
/// that was retracted whole after them, such retractions themselves, and messages of which only the beginning was kept
/// because they were too large: have these sent again.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
#[group(id = "selection", required = true, multiple = false, args = ["reasons", "ids", "all"])]
pub struct Args {
    #[command(flatten)]
    config: ConfigArg,
    /// Messages that were refused, whole or in part, for this reason; give it several times for several
    #[arg(long = "reason", value_name = "CODE", value_parser = reason_parser())]
    reasons: Vec<Reason>,
    /// The message of this rejected_event_id, also where a replay has taken it; give it several times for several
    #[arg(long = "id", value_name = "N")]
    ids: Vec<i64>,
    /// Every refused message
    #[arg(long)]
    all: bool,
    /// Say what would come of it, and change nothing
    #[arg(long)]
    dry_run: bool,
}

const EXAMPLES: &str = "\
Examples:
  shrinkd replay-rejected --config config/local.toml --all --dry-run
  shrinkd replay-rejected --config config/local.toml --reason schema_violation --reason unsupported_version
  shrinkd replay-rejected --config config/local.toml --id 17

Exit codes:
  0  done, also where messages were refused again: the table says how many
  1  the store failed, or another replay has begun. What was replayed stands; run it again for the rest
  2  the command line or the configuration is wrong, or the database is not one for this build";

/// Replays.
///
/// # Errors
/// Where the configuration is wrong, the store fails, or a row is named that is not there.
pub fn run(args: &Args) -> Result<ExitCode, CliError> {
    let config = args.config.load()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let store = Store::connect(&config.store, &config.store_settings()).await?;
        let result = replay(store.clone(), config.grouping(), args).await;
        store.close().await;
        result
    })
}

async fn replay(store: Store, grouping: Grouping, args: &Args) -> Result<ExitCode, CliError> {
    let selection = match args {
        Args { all: true, .. } => RejectedSelection::All,
        Args { ids, .. } if !ids.is_empty() => RejectedSelection::Ids(ids.clone()),
        Args { reasons, .. } => RejectedSelection::Reasons(reasons.clone()),
    };
    let mut replay = match Replay::begin(store, grouping, &selection, args.dry_run).await {
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

/// What came of the rows, by the reason that they were refused for.
#[derive(Default)]
struct Report {
    rows: BTreeMap<(String, String), u64>,
    /// Rows of messages that were not kept whole.
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
        let done = if is_dry_run { "would be replayed (nothing is changed)" } else { "replayed" };
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
                "Of messages that are too large only the beginning is kept: have them sent again in parts.",
            )?;
        }
        page.flush()
    }
}
