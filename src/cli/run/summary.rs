//! What `shrinkd run` prints at the end of a file: what became of the events, and where the results are.

use std::io::{self, BufWriter, Write};

use shrinkd_core::{Counts, Reason};
use tracing::warn;

use crate::cli::text::{self, Columns, Page, counted, grouped, in_shell, number, rounded, text};
use crate::config::{Config, StoreUrl};
use crate::row::{CurrentPopulation, FitStatus, PopulationTotals};
use crate::store::Store;
use crate::telemetry::Telemetry;
use crate::telemetry::refusals::Refused;
use crate::worker::report::PopulationReport;

/// Most populations that are listed.
const LISTED: usize = 10;

/// The partition of a file.
const PARTITION: i32 = 0;

/// A query to try, on either database.
const QUERY: &str = "\
select population_id, experiment_id, variant, raw_estimate, raw_se,
       posterior_mean, ci95_low, ci95_high, prob_positive
from effect_estimates where status = 'fitted'
order by abs(posterior_mean) / posterior_sd desc limit 10;";

/// Everything that is printed.
pub(super) struct Summary {
    /// The file.
    source: String,
    store: StoreUrl,
    /// Up to which byte the file was read, in this run and those before.
    end: i64,
    counts: Counts,
    refused: Vec<(Reason, Refused)>,
    /// Those with the most effects, and the totals of all. `None` if the store did not answer.
    populations: Option<(Vec<CurrentPopulation>, PopulationTotals)>,
}

impl Summary {
    /// Of a worker that has ended.
    pub async fn new(config: &Config, telemetry: &Telemetry, store: &Store) -> Summary {
        let mut report = PopulationReport::default();
        let populations = report.update(store).await.map(|()| report.largest(LISTED));
        Summary {
            source: config.source.to_string(),
            store: config.store.url.clone(),
            end: telemetry.lag.next_offset(PARTITION).unwrap_or(0),
            counts: telemetry.metrics.counts(),
            refused: telemetry.refusals.by_reason(),
            populations: populations.map_err(|error| warn!(%error, "the summary is without the populations")).ok(),
        }
    }

    /// Whether there was nothing to read, in this run or before, or everything was refused.
    pub fn is_nothing_taken(&self) -> bool {
        match self.counts.messages {
            0 => self.end == 0,
            _ => self.taken() + self.counts.tombstones == 0 && !self.refused.is_empty(),
        }
    }

    /// Results that were taken, or would have been had they not been taken before.
    fn taken(&self) -> u64 {
        let Counts { accepted, pending, duplicates, stale, .. } = self.counts;
        accepted + pending + duplicates + stale
    }

    /// Prints it on stdout.
    pub fn print(&self) -> io::Result<()> {
        let mut page = Page::new(BufWriter::new(io::stdout().lock()), text::width());
        self.write(&mut page)?;
        page.flush()
    }

    fn write<W: Write>(&self, page: &mut Page<W>) -> io::Result<()> {
        page.sentence("", &format!("end of {}", self.source))?;
        self.events(page)?;
        self.refusals(page)?;
        if self.is_nothing_taken() {
            return self.advice(page);
        }
        self.populations(page)?;
        self.results(page)
    }

    fn events<W: Write>(&self, page: &mut Page<W>) -> io::Result<()> {
        let Counts { messages, tombstones, accepted, pending, duplicates, stale, .. } = self.counts;
        let read = match (messages, self.end) {
            (0, 0) => "none: the file has no events".to_owned(),
            (0, end) => format!("nothing new since the last run, which read to byte {}", grouped(end.unsigned_abs())),
            (_, _) => counted(messages, "event"),
        };
        let withdrawn = match tombstones {
            0 => String::new(),
            count => format!("; {} withdrawn", counted(count, "experiment")),
        };
        page.sentence("  read         ", &format!("{read}{withdrawn}"))?;
        if messages == 0 {
            return Ok(());
        }
        let outcomes = [(accepted, "accepted"), (pending, "pending"), (duplicates, "duplicate"), (stale, "stale")];
        let outcomes = outcomes.iter().filter(|(count, _)| *count > 0);
        let outcomes: Vec<String> = outcomes.map(|(count, name)| format!("{} {name}", grouped(*count))).collect();
        let outcomes = if outcomes.is_empty() { String::new() } else { format!(": {}", outcomes.join(", ")) };
        page.sentence("  taken        ", &format!("{}{outcomes}", counted(self.taken(), "result")))?;
        let refused: u64 = self.refused.iter().map(|(_, refused)| refused.count).sum();
        let kept = if refused > 0 { " (messages, results and treatments), kept in rejected_events" } else { "" };
        page.sentence("  refused      ", &format!("{}{kept}", grouped(refused)))
    }

    /// One line for each reason, with the first of it.
    fn refusals<W: Write>(&self, page: &mut Page<W>) -> io::Result<()> {
        let count = |refused: &Refused| grouped(refused.count);
        let widest = self.refused.iter().map(|(_, refused)| count(refused).len()).max().unwrap_or(0);
        for (reason, refused @ Refused { offset, detail, .. }) in &self.refused {
            let lead = format!("    {:>widest$} ", count(refused));
            page.sentence(&lead, &format!("{}, first at byte {offset}: {detail}", reason.as_str()))?;
        }
        Ok(())
    }

    fn advice<W: Write>(&self, page: &mut Page<W>) -> io::Result<()> {
        let advice = match self.counts.messages {
            0 => "Nothing was read. Is this the right file, and did whatever writes it succeed?",
            _ => {
                "Nothing was taken. docs/events.md describes the events, and `shrinkd simulate --experiments 3` prints some. Once \
                 the file is corrected give it another name, because reading goes on where it ended."
            }
        };
        page.sentence("  ", advice)
    }

    fn populations<W: Write>(&self, page: &mut Page<W>) -> io::Result<()> {
        let Some((populations, totals)) = &self.populations else { return Ok(()) };
        page.sentence("  populations  ", &grouped(totals.populations))?;
        if populations.is_empty() {
            return Ok(());
        }
        let mut table =
            Columns::new([text("    "), text("  "), number("  "), number("  "), number("  "), number("  ")]);
        table.row(["", "status", "experiments", "effects", "mu", "tau"]);
        for CurrentPopulation { population, status, experiments, effects, mu, tau, .. } in populations {
            let figure = |figure: &Option<f64>| figure.map_or_else(|| "-".to_owned(), |figure| rounded(figure, 3));
            table.row([
                population.to_string(),
                status.map_or("", FitStatus::as_str).to_owned(),
                grouped(*experiments),
                grouped(*effects),
                figure(mu),
                figure(tau),
            ]);
        }
        page.columns(&table)?;
        let more = totals.populations.saturating_sub(populations.len() as u64);
        if more > 0 {
            page.sentence("    ", &format!("and {} more, with fewer effects", grouped(more)))?;
        }
        if populations.iter().any(|population| population.status == Some(FitStatus::ColdStart)) {
            page.sentence(
                "    ",
                "cold_start: too few experiments to shrink by (refit.min_experiments); raw estimates only",
            )?;
        }
        Ok(())
    }

    fn results<W: Write>(&self, page: &mut Page<W>) -> io::Result<()> {
        page.sentence("  results      ", "tables effect_estimates and population_fits of")?;
        // Not wrapped, because it is to be copied.
        page.line(&format!("               {}", self.store))?;
        let client = match self.store.file() {
            Some(file) => format!("sqlite3 -box {}", in_shell(file)),
            None => "psql".to_owned(),
        };
        page.sentence("  a query      ", "to try, for instance in")?;
        page.line(&format!("               {client}"))?;
        page.blank()?;
        page.line(QUERY)
    }
}
