//! `shrinkd partitions`: lists partitions with their progress, and resumes or skips ahead in halted ones.

mod gap;

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::operator::operator;
use super::text::{Columns, Page, number, text, width};
use super::{CliError, ConfigArg};
use crate::config::{Config, SourceConfig};
use crate::row::{PartitionStatus, Skip};
use crate::store::Store;
use crate::stream::{NextOffset, REPLAY_CLUSTER, Topic};
use gap::{Gap, gap};

/// List partitions and their progress; resume halted ones, or skip records
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
    Resume(ResumeArgs),
    Skip(SkipArgs),
}

/// Resume a halted partition at the offset where it stopped
///
/// The columns resumed_at and resumed_by of the table partition_progress record when, and who did it.
#[derive(Debug, clap::Args)]
#[command(after_help = RESUME_EXAMPLES)]
struct ResumeArgs {
    #[command(flatten)]
    which: Which,
}

/// Skip ahead to a later offset: the records in between are never read
///
/// Shows what would be skipped, as far as the source still has it, and asks. What is then done is what was shown: if the
/// partition has moved in the meantime, nothing is changed. The skipped range is recorded in the table skipped_offsets,
/// with who skipped it, when, and why.
#[derive(Debug, clap::Args)]
#[command(after_help = SKIP_EXAMPLES)]
struct SkipArgs {
    #[command(flatten)]
    which: Which,
    /// Offset to continue at, or `earliest` for the first one that the broker still has
    #[arg(long, value_name = "OFFSET", value_parser = target)]
    to: Target,
    /// Reason, recorded in skipped_offsets
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    because: String,
    /// Do not ask: for scripts
    #[arg(long)]
    yes: bool,
    /// Skip even if the partition is not halted
    #[arg(long)]
    force: bool,
}

/// Which partition is meant.
#[derive(Debug, clap::Args)]
struct Which {
    /// Partition number in its topic, as in the list, alerts, metrics and logs; 0 for a file
    #[arg(value_name = "PARTITION")]
    partition: i32,
    /// Topic, or path of a file, as in the list [default: that of the configured source]
    #[arg(long, value_name = "NAME")]
    topic: Option<String>,
    /// Cluster id, if the topic was read from more than one Kafka cluster
    #[arg(long, value_name = "ID")]
    cluster: Option<String>,
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
  shrinkd partitions -c config/local.toml skip 3 --to 700 --because test

Exit codes:
  0  success
  1  the store or the source does not respond
  2  there is no such partition, it is not halted, it has moved since it was
     shown, the offset is not valid, or you answered no: nothing was changed";

const RESUME_EXAMPLES: &str = "\
Examples:
  shrinkd partitions -c config/local.toml resume 3
  shrinkd partitions -c config/local.toml resume 3 --topic experiments-eu";

const SKIP_EXAMPLES: &str = "\
Examples:
  shrinkd partitions -c config/local.toml skip 3 --to 700 --because test
  shrinkd partitions -c config/local.toml skip 3 --to earliest --because expired
  shrinkd partitions -c config/local.toml skip 3 --to 700 --because INC-17 --yes";

/// Lists, resumes or skips.
///
/// # Errors
/// Where the store or the source does not answer, or cannot do what is asked.
pub fn run(args: &Args) -> Result<ExitCode, CliError> {
    let config = args.config.load()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let store = Store::connect(&config.store, &config.store_settings()).await?;
        let result = act(&store, &config, args).await;
        store.close().await;
        result
    })
}

async fn act(store: &Store, config: &Config, args: &Args) -> Result<ExitCode, CliError> {
    let mut partitions = store.partitions().await?;
    // How far replays have come is no operator's business.
    partitions.retain(|partition| partition.cluster_id != REPLAY_CLUSTER);
    match &args.action {
        None => {
            let command = command(args.config.config.as_deref());
            list(&partitions, topic_of(&config.source).as_deref(), &command, io::stdout().lock())?;
        }
        Some(Action::Resume(ResumeArgs { which })) => resume(store, which.find(&partitions, config)?).await?,
        Some(Action::Skip(args)) => skip(store, config, args.which.find(&partitions, config)?, args).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn resume(store: &Store, partition: &PartitionStatus) -> Result<(), CliError> {
    if !store.resume(partition.partition_id, &operator()).await? {
        return Err(CliError::Usage(format!("{} is not halted", name(partition))));
    }
    writeln!(io::stdout(), "{} resumes at {}", name(partition), offset(partition.next_offset))?;
    Ok(())
}

async fn skip(store: &Store, config: &Config, seen: &PartitionStatus, args: &SkipArgs) -> Result<(), CliError> {
    let SkipArgs { to, because, yes, force, .. } = args;
    if seen.halted.is_none() && !force {
        return Err(CliError::Usage(format!(
            "{} is not halted, so no record has to be skipped: use --force to skip anyway",
            name(seen)
        )));
    }
    let gap = gap(config, seen, *to)?;
    show(seen, &gap, io::stdout().lock())?;
    if !yes {
        confirm()?;
    }
    let Gap { from, to, .. } = gap;
    let skip = Skip { seen: seen.clone(), to, because: because.clone(), skipped_by: operator() };
    if !store.skip(&skip).await? {
        return Err(CliError::Usage(format!(
            "{} has moved since it was shown: nothing was changed. Run the command again to see where it is now",
            name(seen)
        )));
    }
    writeln!(
        io::stdout(),
        "{} continues at {} instead of {}; the skipped range is recorded in skipped_offsets",
        name(seen),
        to.0,
        offset(from)
    )?;
    Ok(())
}

/// Shows what a skip would do.
fn show(seen: &PartitionStatus, gap: &Gap, out: impl Write) -> io::Result<()> {
    let mut page = Page::new(out, width());
    match &seen.halted {
        Some(_) => halt(&mut page, seen)?,
        None => page.sentence("", &format!("{} is not halted", name(seen)))?,
    }
    page.sentence(
        "",
        &format!(
            "It would continue at {} instead of {} and never read what is in between:",
            gap.to.0,
            offset(gap.from)
        ),
    )?;
    gap.contents.iter().try_for_each(|sentence| page.sentence("  ", sentence))?;
    page.flush()
}

/// Asks on the terminal.
///
/// # Errors
/// If the answer is not yes, or there is no terminal.
fn confirm() -> Result<(), CliError> {
    if !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
        return Err(CliError::Usage("cannot ask for confirmation without a terminal: use --yes".to_owned()));
    }
    let mut stdout = io::stdout();
    write!(stdout, "Skip? [y/N] ")?;
    stdout.flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(CliError::Usage("not skipped: nothing was changed".to_owned())),
    }
}

impl Which {
    /// The one partition that is meant.
    ///
    /// # Errors
    /// If there is none, or more than one.
    fn find<'p>(&self, partitions: &'p [PartitionStatus], config: &Config) -> Result<&'p PartitionStatus, CliError> {
        let Some(topic) = self.topic.clone().or_else(|| topic_of(&config.source)) else {
            return Err(CliError::Usage(format!(
                "{} has a different name in each run: choose one from the list with --topic",
                config.source
            )));
        };
        let is_meant = |it: &&PartitionStatus| {
            it.partition == self.partition
                && it.topic == topic
                && self.cluster.as_ref().is_none_or(|cluster| *cluster == it.cluster_id)
        };
        match partitions.iter().filter(is_meant).collect::<Vec<_>>().as_slice() {
            [partition] => Ok(partition),
            [] => Err(CliError::Usage(format!(
                "there is no partition {} of {topic}: `shrinkd partitions` lists all of them, and --topic chooses another \
                 topic",
                self.partition
            ))),
            several => {
                let clusters: Vec<&str> = several.iter().map(|partition| partition.cluster_id.as_str()).collect();
                Err(CliError::Usage(format!(
                    "partition {} of {topic} was read from several clusters: choose one with --cluster ({})",
                    self.partition,
                    clusters.join(" or ")
                )))
            }
        }
    }
}

/// The topic that a source has in the store. Stdin is another topic in every run.
fn topic_of(source: &SourceConfig) -> Option<String> {
    match source {
        SourceConfig::Kafka(kafka) => Some(kafka.topic.clone()),
        SourceConfig::File(file) if file.is_stdin() => None,
        SourceConfig::File(file) => {
            Some(Topic::of_file(&file.path).map_or_else(|_| file.path.display().to_string(), |topic| topic.name))
        }
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

fn reason(text: &str) -> Result<String, String> {
    if text.trim().is_empty() { Err("expected a reason".to_owned()) } else { Ok(text.to_owned()) }
}

/// This command as it is to be typed in a shell, with the same configuration.
fn command(config: Option<&Path>) -> String {
    config.map_or_else(
        || "shrinkd partitions".to_owned(),
        |path| format!("shrinkd partitions -c '{}'", path.display().to_string().replace('\'', r"'\''")),
    )
}

/// `configured` is the topic that commands take where none is named; `command` is how to call this one.
fn list(partitions: &[PartitionStatus], configured: Option<&str>, command: &str, out: impl Write) -> io::Result<()> {
    let mut clusters: Vec<&str> = partitions.iter().map(|partition| partition.cluster_id.as_str()).collect();
    clusters.dedup();
    let mut rows = Columns::new([text(""), number("  "), number("  "), text("  "), text("  "), text("  ")]);
    // Topics of one name are told apart by their cluster.
    let cluster = |of: &str| if clusters.len() > 1 { of.to_owned() } else { String::new() };
    rows.row(["topic", "partition", "next offset", "owner", "state", &cluster("cluster")]);
    for partition in partitions {
        let state = partition.halted.as_ref().map_or("active", |_| "HALTED");
        rows.row([
            partition.topic.clone(),
            partition.partition.to_string(),
            offset(partition.next_offset),
            partition.owner.clone(),
            state.to_owned(),
            cluster(&partition.cluster_id),
        ]);
    }
    let mut page = Page::new(out, width());
    page.columns(&rows)?;
    for partition in partitions.iter().filter(|partition| partition.halted.is_some()) {
        let mut which = partition.partition.to_string();
        if configured != Some(&partition.topic) {
            which.push_str(&format!(" --topic '{}'", partition.topic));
        }
        page.blank()?;
        halt(&mut page, partition)?;
        page.sentence("  ", "To continue:")?;
        page.line(&format!("    {command} resume {which}"))?;
        page.line(&format!("    {command} skip {which} --to OFFSET --because REASON"))?;
    }
    page.flush()
}

/// Says since when a partition is halted, and why.
fn halt(page: &mut Page<impl Write>, partition: &PartitionStatus) -> io::Result<()> {
    let Some((at, reason, detail)) = &partition.halted else { return Ok(()) };
    page.sentence("", &format!("{} has been halted ({reason}) since {}:", name(partition), second(*at)))?;
    page.sentence("  ", detail)
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
