//! The printed report of a demo: how the events were processed, and the resulting tables.

use std::io::{self, Write};
use std::time::Duration;

use shrinkd_core::{Counts, Reason};
use shrinkd_model::Correlation;

use super::folder::Folder;
use super::queries::QUERIES;
use crate::cli::correlation::{centre, digits, label};
use crate::cli::plot::{self, Effect};
use crate::cli::text::{Columns, Digits, Page, counted, grouped, in_shell, number, text};
use crate::cli::verdict;
use crate::row::{CurrentFit, CurrentPopulation, PublishedEffect};

/// Number of corrections that are listed.
const CORRECTIONS: usize = 10;

/// Number of rows in the plot.
const PLOT: usize = 15;

/// Everything that is printed.
pub(super) struct Report<'a> {
    pub(super) folder: &'a Folder,
    pub(super) experiments: usize,
    /// From the start of the worker to its end.
    pub(super) elapsed: Duration,
    pub(super) counts: Counts,
    pub(super) rejected: Vec<(Reason, u64)>,
    pub(super) found: Vec<Found>,
}

/// One population as stored.
pub(super) struct Found {
    pub(super) population: CurrentPopulation,
    pub(super) fits: Vec<CurrentFit>,
    pub(super) effects: Vec<PublishedEffect>,
}

impl Report<'_> {
    pub(super) fn write<W: Write>(&self, page: &mut Page<W>) -> io::Result<()> {
        self.events(page)?;
        self.populations(page)?;
        let corrected = self.largest_corrections();
        corrections(page, &corrected)?;
        if let Some((found, _)) = corrected.first() {
            found.plot(page)?;
        }
        self.database(page)
    }

    fn events<W: Write>(&self, page: &mut Page<W>) -> io::Result<()> {
        let Counts { messages, tombstones, accepted, pending, duplicates, stale, refused } = self.counts;
        let seconds = self.elapsed.as_secs_f64();
        let rate = grouped((messages as f64 / seconds).round() as u64);
        let experiments = counted(self.experiments as u64, "experiment");
        let withdrawn = match tombstones {
            0 => String::new(),
            count => format!("; {} withdrawn", counted(count, "experiment")),
        };
        let rejected = self.rejected.iter().map(|(reason, count)| format!("{} {}", grouped(*count), reason.as_str()));
        let rejected: Vec<String> = rejected.collect();
        let outcomes = [(accepted, "accepted"), (duplicates, "duplicate"), (stale, "stale"), (pending, "pending")];
        let outcomes = outcomes.map(|(count, outcome)| format!("{} {outcome}", grouped(count)));

        page.sentence("", "from events to estimates")?;
        let ingested = format!("{} of {experiments}{withdrawn}", counted(messages, "event"));
        page.sentence("  ingested  ", &ingested)?;
        page.sentence(
            "  time      ",
            &format!("{seconds:.1} s, including all fits and estimates: {rate} events per second"),
        )?;
        page.sentence("  results   ", &outcomes.join(", "))?;
        page.sentence("  refused   ", &format!("{}: {}", grouped(refused), rejected.join(", ")))?;
        page.blank()
    }

    fn populations<W: Write>(&self, page: &mut Page<W>) -> io::Result<()> {
        page.sentence(
            "",
            "mu and tau of the true effects. The correlation through shared controls is modelled (the published \
             estimates), ignored (the naive model), or avoided with one variant per experiment:",
        )?;
        for found in &self.found {
            page.blank()?;
            page.columns(&found.parameters())?;
            page.sentence("  ", &found.verdict())?;
        }
        page.blank()
    }

    /// The effects of all populations that shrinkage moved farthest, in units of their standard errors.
    fn largest_corrections(&self) -> Vec<(&Found, &PublishedEffect)> {
        let effects = self.found.iter().flat_map(|found| found.effects.iter().map(move |effect| (found, effect)));
        let mut largest: Vec<(&Found, &PublishedEffect)> = effects.collect();
        largest.sort_by(|(_, left), (_, right)| shift(right).abs().total_cmp(&shift(left).abs()));
        largest.truncate(CORRECTIONS);
        largest
    }

    fn database<W: Write>(&self, page: &mut Page<W>) -> io::Result<()> {
        let [database, events, config] = [self.folder.database(), self.folder.events(), self.folder.config()];
        page.sentence("", "files")?;
        page.sentence("  database  ", &format!("{}, readable with any SQLite client", database.display()))?;
        page.sentence("  events    ", &format!("{}; to process more, append them and run", events.display()))?;
        page.line(&format!("            shrinkd run --config {}", in_shell(&config)))?;
        page.sentence("  queries   ", "two to try, for instance in SQLite's shell:")?;
        page.line(&format!("            sqlite3 -box {}", in_shell(&database)))?;
        for query in QUERIES {
            page.blank()?;
            page.line(&format!("-- {}", query.question))?;
            page.line(query.sql)?;
        }
        Ok(())
    }
}

impl Found {
    /// The fits in the order of [`Correlation::ALL`], without that of control only: the demo takes true effects as independent.
    fn fits(&self) -> impl Iterator<Item = &CurrentFit> {
        let shown = Correlation::ALL.into_iter().filter(|correlation| *correlation != Correlation::ControlOnly);
        shown.filter_map(|correlation| self.fit(correlation))
    }

    fn fit(&self, correlation: Correlation) -> Option<&CurrentFit> {
        self.fits.iter().find(|fit| fit.correlation == correlation)
    }

    /// mu and tau under each model of correlation.
    fn parameters(&self) -> Columns {
        let digits = [digits(self.fits.iter().map(|fit| &fit.mu)), digits(self.fits.iter().map(|fit| &fit.tau))];
        let mut table =
            Columns::new([text(""), number("  "), number("  "), number(" to "), number("  "), number("  ")]);
        table.row([&self.population.population.to_string(), "mu", "2.5%", "97.5%", "tau", "effects"]);
        for CurrentFit { correlation, effects, mu, tau } in self.fits() {
            table.row([
                format!("  {}", label(*correlation)),
                digits[0].value(centre(mu)),
                digits[0].value(mu.q025),
                digits[0].value(mu.q975),
                digits[1].value(centre(tau)),
                grouped(u64::try_from(*effects).unwrap_or(0)),
            ]);
        }
        table
    }

    fn verdict(&self) -> String {
        let CurrentPopulation { verdict, verdict_rests_on, verdict_value, .. } = self.population;
        match (verdict, verdict_rests_on, verdict_value) {
            (Some(verdict), Some(measure), Some(value)) => verdict::clause(verdict, (measure, value)),
            _ => "no verdict: flat priors need more experiments".to_owned(),
        }
    }

    fn plot<W: Write>(&self, page: &mut Page<W>) -> io::Result<()> {
        let modelled = self.fit(Correlation::Modelled);
        let effects: Vec<Effect<'_>> = self.effects.iter().map(effect).collect();
        let (population, shown) = (&self.population.population, PLOT.min(effects.len()));
        page.sentence("", &format!("{population}: {shown} effects, from lowest to highest raw estimate"))?;
        plot::write(page, &effects, modelled.and_then(|fit| centre(&fit.mu)), PLOT)?;
        page.blank()
    }
}

fn corrections<W: Write>(page: &mut Page<W>, rows: &[(&Found, &PublishedEffect)]) -> io::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    page.sentence("", "the largest corrections (shift in standard errors of the raw effect)")?;
    let mut table =
        Columns::new([text("  "), text("  "), number("  "), number(" ± "), number("  "), number(" ± "), number("  ")]);
    table.row(["population", "effect", "raw", "se", "shrunk", "sd", "shift"]);
    for (found, effect) in rows {
        let PublishedEffect { experiment_id, variant, raw_estimate, raw_se, posterior_mean, posterior_sd, .. } = effect;
        let shown = [*raw_estimate, *raw_se, *posterior_mean];
        // Populations differ in unit, so digits are chosen row by row.
        let digits = Digits::for_all([*posterior_sd].into_iter(), shown.into_iter(), 2);
        table.row([
            found.population.population.to_string(),
            format!("{experiment_id} {variant}"),
            digits.value(*raw_estimate),
            digits.spread(*raw_se),
            digits.value(*posterior_mean),
            digits.spread(*posterior_sd),
            format!("{:+.1}", shift(effect)),
        ]);
    }
    page.columns(&table)?;
    page.blank()
}

/// How far shrinkage moved an effect, in units of its standard error.
fn shift(effect: &PublishedEffect) -> f64 {
    (effect.posterior_mean - effect.raw_estimate) / effect.raw_se
}

fn effect(row: &PublishedEffect) -> Effect<'_> {
    let PublishedEffect { experiment_id, variant, raw_estimate, posterior_mean, ci95_low, ci95_high, .. } = row;
    Effect { experiment_id, variant, raw: *raw_estimate, shrunk: *posterior_mean, ci95: (*ci95_low, *ci95_high) }
}
