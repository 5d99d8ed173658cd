//! `shrinkd partitions`: how far each partition is, and what an operator can do about one that is not read.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Subcommand;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::text::{Columns, Page, number, text, width};
use super::{CliError, ConfigArg};
use crate::config::{Config, SourceConfig};
use crate::row::{PartitionStatus, Skip};
use crate::store::{Skipped, Store};
use crate::stream::NextOffset;
use crate::worker::source::kafka::partition_watermarks;

/// List partitions, and have halted ones go on
///
/// A worker halts a partition, and goes on with its others, where too many of its messages are refused (the section
/// dead_letters of the configuration says how many), or where the broker has not the records at which it should go on,
/// because they expired unread or the topic was cut. Without a subcommand this lists every partition with its next offset, its owner,
/// and why it is halted.
///
/// Workers need not be stopped: the owner of the partition goes on within some seconds.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArg,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Have a halted partition go on where it stopped
    Resume {
        /// The partition's id: the first column of the list
        #[arg(value_name = "ID")]
        partition_id: i64,
    },
    /// Have a partition go on further ahead: what is between is never read
    ///
    /// Leaves a row in skipped_offsets that says which records were passed over, by whom, when, and why.
    Skip {
        /// The partition's id: the first column of the list
        #[arg(value_name = "ID")]
        partition_id: i64,
        /// The offset to go on at, or `earliest` for the first that the broker has
        #[arg(long, value_name = "OFFSET", value_parser = target)]
        to: Target,
        /// Why, for those who find the row later
        #[arg(long, value_name = "TEXT")]
        because: String,
    },
}

/// Where reading is to go on.
#[derive(Debug, Clone, Copy)]
enum Target {
    Earliest,
    Offset(i64),
}

const EXAMPLES: &str = "\
Examples:
  shrinkd partitions --config config/production.toml
  shrinkd partitions -c config/production.toml resume 3
  shrinkd partitions -c config/production.toml skip 3 --to earliest --because 'expired during the outage of May 2'

Exit codes:
  0  done
  1  the store or the broker does not answer
  2  there is no such partition, it is not halted, or the offset cannot be gone on at: nothing was changed";

/// Lists, resumes or skips.
///
/// # Errors
/// Where the store or the broker does not answer, or cannot do what is asked.
pub fn run(args: &Args) -> Result<ExitCode, CliError> {
    let config = args.config.load()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let store = Store::connect(&config.store, &config.store_settings()).await?;
        let result = act(&store, &config, args.action.as_ref()).await;
        store.close().await;
        result
    })
}

async fn act(store: &Store, config: &Config, action: Option<&Action>) -> Result<ExitCode, CliError> {
    let partitions = store.partitions().await?;
    let find = |id: i64| {
        let found = partitions.iter().find(|partition| partition.partition_id == id);
        found.ok_or_else(|| CliError::Usage(format!("there is no partition {id}: `shrinkd partitions` lists them")))
    };
    let mut stdout = io::stdout().lock();
    match action {
        None => list(&partitions, stdout)?,
        Some(Action::Resume { partition_id }) => {
            let partition = find(*partition_id)?;
            if !store.resume(*partition_id).await? {
                return Err(CliError::Usage(format!("{} is not halted", name(partition))));
            }
            writeln!(stdout, "{} goes on at {}", name(partition), offset(partition.next_offset))?;
        }
        Some(Action::Skip { partition_id, to, because }) => {
            let partition = find(*partition_id)?;
            let to = NextOffset(resolve(config, partition, *to)?);
            let skip = Skip {
                partition_id: *partition_id,
                to,
                because: because.clone(),
                skipped_by: std::env::var("USER").unwrap_or_else(|_| "unknown".to_owned()),
            };
            let Some(Skipped { from }) = store.skip(&skip).await? else {
                return Err(CliError::Usage(format!(
                    "{} goes on at {}, which is not before {}: records are passed over forwards alone",
                    name(partition),
                    offset(partition.next_offset),
                    to.0
                )));
            };
            writeln!(
                stdout,
                "{} goes on at {} instead of {}; skipped_offsets has a row about it",
                name(partition),
                to.0,
                offset(from)
            )?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The offset that is meant; one that the broker does not have is refused.
fn resolve(config: &Config, partition: &PartitionStatus, to: Target) -> Result<i64, CliError> {
    let kafka = match &config.source {
        SourceConfig::Kafka(kafka) if kafka.topic == partition.topic => kafka,
        _ => {
            return match to {
                Target::Offset(offset) => Ok(offset),
                Target::Earliest => Err(CliError::Usage(format!(
                    "the configuration reads no topic {}: name an offset, or give the configuration of its worker",
                    partition.topic
                ))),
            };
        }
    };
    let (low, high) =
        partition_watermarks(kafka, partition.partition).map_err(|error| CliError::Kafka(error.to_string()))?;
    match to {
        Target::Earliest => Ok(low),
        Target::Offset(offset) if (low..=high).contains(&offset) => Ok(offset),
        Target::Offset(offset) => Err(CliError::Usage(format!(
            "{} cannot go on at {offset}: the broker has {low} to {high}",
            name(partition)
        ))),
    }
}

fn target(text: &str) -> Result<Target, String> {
    match text {
        "earliest" => Ok(Target::Earliest),
        _ => match text.parse() {
            Ok(offset) if offset >= 0 => Ok(Target::Offset(offset)),
            _ => Err("expected an offset from 0 on, or `earliest`".to_owned()),
        },
    }
}

fn list(partitions: &[PartitionStatus], out: impl Write) -> io::Result<()> {
    let mut rows = Columns::new([number(""), text("  "), number("  "), number("  "), text("  "), text("  ")]);
    rows.row(["id", "topic", "partition", "next offset", "owner", "state"]);
    for partition in partitions {
        let state = partition.halted.as_ref().map_or("read", |_| "HALTED");
        rows.row([
            partition.partition_id.to_string(),
            partition.topic.clone(),
            partition.partition.to_string(),
            offset(partition.next_offset),
            partition.owner.clone(),
            state.to_owned(),
        ]);
    }
    let mut page = Page::new(out, width());
    page.columns(&rows)?;
    for partition in partitions {
        if let Some((at, reason, detail)) = &partition.halted {
            let id = partition.partition_id;
            page.blank()?;
            page.sentence("", &format!("{} is halted ({reason}) since {}:", name(partition), second(*at)))?;
            page.sentence("  ", detail)?;
            page.sentence(
                "  ",
                &format!("To go on: shrinkd partitions resume {id}, or skip {id} --to .. --because .."),
            )?;
        }
    }
    page.flush()
}

/// A time to the second.
fn second(at: OffsetDateTime) -> String {
    at.truncate_to_second().format(&Rfc3339).unwrap_or_default()
}

fn name(partition: &PartitionStatus) -> String {
    format!("partition {} of {}", partition.partition, partition.topic)
}

fn offset(next: Option<NextOffset>) -> String {
    next.map_or_else(|| "the beginning".to_owned(), |NextOffset(next)| next.to_string())
}
