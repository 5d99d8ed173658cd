//! Benchmarks of the whole worker: the real program on a real Kafka topic and a real PostgreSQL database, next to ceilings that
//! are measured in the same run on the same machine. A slow result is not a failure.
//!
//! | part | what it measures |
//! | --- | --- |
//! | `throughput` | from a preloaded topic to committed rows, and to published ones; ceilings; where the time goes |
//! | `workers` | one, two and three workers of a group, and whether they leave the same |
//! | `freshness` | from the producer to a row that a query sees, at a steady rate |
//! | `amplification` | rows written for each effect as a population grows, and how far rows are from exact |
//! | `bounded` | memory, and time from start to first commit, on a long history; a rebuild and an audit of it |
//! | `populations` | many small populations: refits a second, the state that they take, memory and scrapes |
//! | `snapshot` | refits while somebody keeps a snapshot open for ten minutes |
//! | `observability` | throughput with info logs and a scrape every second, against neither |

#[path = "../../tests/common/protocol.rs"]
mod protocol;

mod amplification;
mod bounded;
mod copy;
mod database;
mod events;
mod freshness;
mod observability;
mod populations;
mod proxy;
mod recording;
mod replay;
mod report;
mod snapshot;
mod throughput;
mod topic;
mod wire;
mod worker;
mod workers;

use std::error::Error;
use std::process::ExitCode;

use database::Server;

/// Any error ends the run.
type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const PARTS: [&str; 8] =
    ["throughput", "workers", "freshness", "amplification", "bounded", "populations", "snapshot", "observability"];

const HELP: &str = "\
make bench-pipeline PARTS='throughput workers --quick'

Parts: throughput, workers, freshness, amplification, bounded, populations, snapshot, observability; all of
them where none is named.
  --quick  small sizes, for trying out

SHRINKD_TEST_KAFKA and SHRINKD_TEST_POSTGRES_URL say where Kafka and PostgreSQL are; `scripts/services run -- COMMAND`
sets both. SHRINKD_BENCH_STREAM may name a file of events, one JSON message a line, for a second throughput run.";

/// Where Kafka and PostgreSQL are, and how large everything is.
struct Bench {
    brokers: String,
    server: Server,
    is_quick: bool,
}

impl Bench {
    fn from_environment(is_quick: bool) -> Outcome<Bench> {
        let variable = |name: &str| {
            std::env::var(name)
                .map_err(|_| format!("{name} is not set: start this with `make bench-pipeline`, which sets it"))
        };
        Ok(Bench {
            brokers: variable("SHRINKD_TEST_KAFKA")?,
            server: Server::new(&variable("SHRINKD_TEST_POSTGRES_URL")?)?,
            is_quick,
        })
    }

    /// The full size, or a small one for a quick check.
    fn size<T>(&self, full: T, quick: T) -> T {
        if self.is_quick { quick } else { full }
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Outcome<()> {
    let (mut parts, mut is_quick) = (Vec::new(), false);
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            // Passed by cargo itself.
            "--bench" => {}
            "--quick" => is_quick = true,
            "--help" => {
                println!("{HELP}");
                return Ok(());
            }
            part if PARTS.contains(&part) => parts.push(argument),
            unknown => return Err(format!("{unknown} is neither a part nor an option\n\n{HELP}").into()),
        }
    }
    let is_wanted = |part: &str| parts.is_empty() || parts.iter().any(|wanted| wanted == part);
    if is_quick {
        println!("--quick: small sizes, whose figures say nothing");
    }
    if cfg!(debug_assertions) {
        println!("a debug build, whose figures say nothing");
    }
    if is_wanted("amplification") {
        amplification::measure(if is_quick { 5_000 } else { 100_000 })?;
    }
    if !PARTS.into_iter().any(|part| part != "amplification" && is_wanted(part)) {
        return Ok(());
    }
    let bench = Bench::from_environment(is_quick)?;
    topic::warm_up(&bench.brokers)?;
    if is_wanted("throughput") {
        throughput::measure(&bench)?;
    }
    if is_wanted("workers") {
        workers::measure(&bench)?;
    }
    if is_wanted("freshness") {
        freshness::measure(&bench)?;
    }
    if is_wanted("bounded") {
        bounded::measure(&bench)?;
    }
    if is_wanted("populations") {
        for populations in bench.size(vec![10_000, 100_000], vec![200]) {
            populations::measure(&bench, populations)?;
        }
    }
    if is_wanted("snapshot") {
        snapshot::measure(&bench)?;
    }
    if is_wanted("observability") {
        observability::measure(&bench)?;
    }
    Ok(())
}
