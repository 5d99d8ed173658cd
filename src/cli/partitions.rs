//! `shrinkd partitions`: lists partitions with their progress, and resumes or skips ahead in halted ones.

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

/// List partitions and their progress, and resume halted ones
///
/// Without a subcommand, lists every partition with its next offset, its owner, and, if it is halted, the reason.
///
/// A worker halts a partition, and keeps reading the others, in two cases: too many of its messages were refused and
/// became dead letters (limits: dead_letters in the configuration), or the broker no longer has the next offset,
/// because records expired before they were read or the topic was truncated.
///
/// Workers can keep running: the partition's owner picks up the change within seconds.
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
    /// Resume a halted partition at the offset where it stopped
    Resume {
        /// Partition id: the first column of the list
        #[arg(value_name = "ID")]
        partition_id: i64,
    },
    /// Skip ahead to a later offset: the records in between are never read
    ///
    /// The skipped range is recorded in the table skipped_offsets, with who skipped it, when, and why.
    Skip {
        /// Partition id: the first column of the list
        #[arg(value_name = "ID")]
        partition_id: i64,
        /// Offset to continue at, or `earliest` for the first one that the broker still has
        #[arg(long, value_name = "OFFSET", value_parser = target)]
        to: Target,
        /// Reason, recorded in skipped_offsets
        #[arg(long, value_name = "TEXT")]
        because: String,
    },
}

/// The offset to skip to.
#[derive(Debug, Clone, Copy)]
enum Target {
    Earliest,
    Offset(i64),
}

const EXAMPLES: &str = "\
Examples:
  shrinkd partitions --config config/local.toml
  shrinkd partitions -c config/local.toml resume 3
  shrinkd partitions -c config/local.toml skip 3 --to earliest --because expired

Exit codes:
  0  success
  1  the store or the broker does not respond
  2  there is no such partition, it is not halted, or the offset is not valid:
     nothing was changed";

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
        found.ok_or_else(|| CliError::Usage(format!("there is no partition {id}: run `shrinkd partitions` for a list")))
    };
    let mut stdout = io::stdout().lock();
    match action {
        None => list(&partitions, stdout)?,
        Some(Action::Resume { partition_id }) => {
            let partition = find(*partition_id)?;
            if !store.resume(*partition_id).await? {
                return Err(CliError::Usage(format!("{} is not halted", name(partition))));
            }
            writeln!(stdout, "{} resumes at {}", name(partition), offset(partition.next_offset))?;
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
                    "{} is at {} already, which is not before {}: it can only be skipped forwards",
                    name(partition),
                    offset(partition.next_offset),
                    to.0
                )));
            };
            writeln!(
                stdout,
                "{} continues at {} instead of {}; the skipped range is recorded in skipped_offsets",
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
        let state = partition.halted.as_ref().map_or("active", |_| "HALTED");
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
            page.sentence("", &format!("{} has been halted ({reason}) since {}:", name(partition), second(*at)))?;
            page.sentence("  ", detail)?;
            page.sentence(
                "  ",
                &format!("To continue: shrinkd partitions resume {id}, or skip {id} --to .. --because .."),
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
