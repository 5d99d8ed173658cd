//! The article's tables as text and as CSV.

use std::io::{self, Write};

use crate::cli::text::{Columns, Digits, Page, counted, number, rounded, text};
use crate::cli::verdict;
use crate::study::Article;
use crate::study::article::{Figure, Figures, Row, Table};

/// As many decimals as the article prints.
const DIGITS: Digits = Digits::Decimals(4);

/// Writes a legend, the four tables, and what to make of their differences.
pub fn table(article: &Article, out: &mut impl Write, width: usize) -> io::Result<()> {
    let mut page = Page::new(out, width);
    legend(&mut page)?;
    for (i, table) in article.tables.iter().enumerate() {
        page.blank()?;
        let [experiments, effects] = [(table.experiments, "experiment"), (table.effects, "effect")]
            .map(|(count, noun)| counted(count as u64, noun));
        page.sentence("", &format!("Table {}: {} ({experiments}, {effects})", i + 1, table.title))?;
        page.blank()?;
        page.columns(&rows(table))?;
        let judged = (table.correlation.rests_on, table.correlation.value);
        page.sentence("  Does correlation matter? ", &verdict::clause(table.correlation.verdict, judged))?;
        if let Some(sentence) = exclusion(table) {
            page.sentence("  The bad control: ", &sentence)?;
        }
    }
    page.blank()?;
    page.sentence("", &monte_carlo_error(article))
}

fn legend<W: Write>(page: &mut Page<W>) -> io::Result<()> {
    page.sentence(
        "",
        "The post of 2026-03-22 on dpananos.github.io simulates four sets of experiments, fits each with and without the \
         correlation between variants that share a control, and doubts that the difference would be material. Its tables \
         show posterior medians and sds of mu, the mean of the true effects, and of tau, their sd. Below are the same \
         draws under the article's own model and priors: `published` is what it printed (from Stan), `exact` the posterior \
         by numerical integration, which has no Monte Carlo error.",
    )?;
    let mut rows = Columns::new([text("  "), text("  ")]);
    rows.row(["Correlated", "the error of the shared control is part of the model"]);
    rows.row(["Naive", "effects are taken as independent"]);
    rows.row(["One per experiment", "one variant of each experiment is used; not in the article"]);
    rows.row(["True", "what the simulation drew from"]);
    page.columns(&rows)
}

fn rows(table: &Table) -> Columns {
    let mut columns = Columns::new([text("  "), text("  ")].into_iter().chain([number("  "); 4]));
    columns.row(["", "", "median of mu", "sd", "median of tau", "sd"]);
    for row in &table.rows {
        columns.row(line(&label(row), "exact", &row.exact));
        if let Some(published) = &row.published {
            columns.row(line("", "published", published));
        }
    }
    let [mu, tau] = [table.truth.mu, table.truth.tau].map(|truth| DIGITS.value(truth));
    columns.row(["True", "", &mu, "", &tau]);
    columns
}

fn line(label: &str, kind: &str, Figures { mu, tau }: &Figures) -> Vec<String> {
    let numbers = [mu.median, mu.sd, tau.median, tau.sd].map(|figure| DIGITS.value(figure));
    [label, kind].map(str::to_owned).into_iter().chain(numbers).collect()
}

fn label(row: &Row) -> String {
    match row.without {
        Some(experiment_id) => format!("Without {experiment_id}"),
        None => row.label.to_owned(),
    }
}

/// What leaving out the experiment with the bad control changes.
fn exclusion(table: &Table) -> Option<String> {
    let without = table.rows.iter().find(|row| row.without.is_some())?;
    let with = table.rows.iter().find(|row| row.correlation == without.correlation)?;
    let [with, with_flat, without_it, without_flat] =
        [with.exact, with.flat_priors, without.exact, without.flat_priors].map(|figures| rounded(figures.mu.median, 3));
    let experiment_id = without.without?;
    Some(format!(
        "that of {experiment_id} was measured 4 standard errors too low, and the author would leave this experiment out. \
         mu is {with} with it and {without_it} without; {with_flat} and {without_flat} under flat priors instead of the \
         article's"
    ))
}

/// How far the published figures are from the exact ones, and why.
fn monte_carlo_error(article: &Article) -> String {
    let published = article.tables.iter().flat_map(|table| &table.rows);
    let published = published.filter_map(|row| Some((row.exact, row.published?)));
    let largest = |of: fn(Figures) -> Figure| {
        let differences = published.clone().flat_map(|(exact, published)| {
            let (exact, published) = (of(exact), of(published));
            [exact.median - published.median, exact.sd - published.sd]
        });
        rounded(differences.map(f64::abs).fold(0.0, f64::max), 2)
    };
    let [mu, tau] = [largest(|figures| figures.mu), largest(|figures| figures.tau)];
    format!(
        "In table 1 no two effects share a control, so that both of the article's models are one and the same posterior: \
         the difference between its two published rows is the Monte Carlo error of its sampler. Over all tables, the \
         published medians and sds of mu are within {mu} of the exact ones, those of tau within {tau}."
    )
}

/// Writes two rows for each row of the tables, one per parameter; a value that does not exist is empty.
pub fn csv(article: &Article, out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "table,label,correlation,without,parameter,truth,median,sd,published_median,published_sd,flat_priors_median,\
         flat_priors_sd,verdict"
    )?;
    let cells =
        |figure: Option<Figure>| figure.map_or(",".to_owned(), |figure| format!("{},{}", figure.median, figure.sd));
    for table in &article.tables {
        for row in &table.rows {
            let (name, label, correlation) = (table.name, row.label, row.correlation.as_str());
            let without = row.without.unwrap_or("");
            // The verdict is about all experiments.
            let verdict = if row.without.is_some() { "" } else { table.correlation.verdict.as_str() };
            let figures = [Some(row.exact), row.published, Some(row.flat_priors)];
            for (parameter, truth, figures) in [
                ("mu", table.truth.mu, figures.map(|figures| Some(figures?.mu))),
                ("tau", table.truth.tau, figures.map(|figures| Some(figures?.tau))),
            ] {
                let [exact, published, flat_priors] = figures.map(cells);
                writeln!(
                    out,
                    "{name},{label},{correlation},{without},{parameter},{truth},{exact},{published},{flat_priors},{verdict}"
                )?;
            }
        }
    }
    Ok(())
}
