//! The fit as text: a section for each population, and a summary of the messages.

use std::io::{self, Write};

use shrinkd_model::{
    Analysis, Correlation, Heterogeneity, IccPosterior, IccStatus, Posterior, PosteriorError, PriorIcc, PriorMu,
    PriorTau, Priors, Request, Summary,
};

use super::estimates::{EstimateRow, for_each_effect};
use super::findings::findings;
use super::report::{FittedPopulation, NoAnalysis, Report};
use crate::cli::correlation::{centre, digits, label};
use crate::cli::plot::{self, Effect};
use crate::cli::text::{Column, Columns, Digits, Page, counted, grouped, number, probability, rounded, text};
use crate::row::FitStatus;

/// Number of corrections that are listed for each population.
const CORRECTIONS: usize = 5;

/// Width that the names of an effect may take together before the column of sds is dropped.
const NAMES: usize = 24;

/// Number of rows in a plot, and in a small one if there are more than a few populations.
const PLOT: usize = 9;
const SMALL_PLOT: usize = 5;
const FEW: usize = 3;

/// Number of pending sums of parts that are listed.
const PENDING: usize = 3;

/// Writes the report in lines of at most `width` columns.
pub(super) fn write(out: &mut impl Write, report: &Report, width: usize) -> io::Result<()> {
    let mut page = Page::new(out, width);
    let plot_rows = if report.populations.len() > FEW { SMALL_PLOT } else { PLOT };
    for (name, fitted) in &report.populations {
        page.sentence("", &name.to_string())?;
        population(&mut page, fitted, &report.request, plot_rows)?;
        page.blank()?;
    }
    if report.populations.is_empty() {
        page.sentence("", "no result was accepted, so there is no population to fit")?;
    }
    summary(&mut page, report)
}

fn population<W: Write>(
    page: &mut Page<W>,
    fitted: &FittedPopulation,
    request: &Request,
    plot_rows: usize,
) -> io::Result<()> {
    page.sentence("  ", &heading(fitted, request))?;
    if let Ok(analysis) = &fitted.analysis {
        page.blank()?;
        let table = if request.method.is_point() { points } else { parameters };
        page.columns(&table(fitted, analysis))?;
        if let Some(sentence) = small_tau(analysis, request) {
            page.sentence("  ", &sentence)?;
        }
        if let Some(sentence) = analysis.fit.posterior.icc.as_ref().map(alike) {
            page.sentence("  ", &sentence)?;
        }
    }
    let findings = findings(fitted, request);
    if !findings.is_empty() {
        page.blank()?;
    }
    for (word, sentence) in findings {
        page.sentence(&format!("  {word:<14}"), &sentence)?;
    }
    let Ok(analysis) = &fitted.analysis else { return Ok(()) };
    let rows = effects(fitted, analysis, request.correlation)?;
    if rows.is_empty() {
        return Ok(());
    }
    page.blank()?;
    match rows.len() {
        ..=CORRECTIONS => page.sentence("  ", "raw and shrunk effects")?,
        count => page
            .sentence("  ", &format!("the {CORRECTIONS} largest corrections of {}", counted(count as u64, "effect")))?,
    }
    page.columns(&corrections(&rows, page.width()))?;
    page.blank()?;
    let effects: Vec<Effect<'_>> = rows.iter().map(effect).collect();
    plot::write(page, &effects, centre(&analysis.fit.posterior.mu), plot_rows)
}

fn effect<'a>(row: &EstimateRow<'a>) -> Effect<'a> {
    let EstimateRow { experiment_id, variant, raw_estimate: raw, posterior_mean: shrunk, .. } = *row;
    Effect { experiment_id, variant, raw, shrunk, ci95: (row.ci95_low, row.ci95_high) }
}

fn heading(fitted: &FittedPopulation, request: &Request) -> String {
    let status = match &fitted.analysis {
        Ok(_) => format!("{}, {}", request.method.as_str(), model(request.correlation)),
        Err(NoAnalysis::Posterior(PosteriorError::OneEffect)) => format!("no {} estimate", request.method.as_str()),
        Err(_) if fitted.status() == FitStatus::Failed => "no fit".to_owned(),
        Err(_) => "improper posterior".to_owned(),
    };
    let sizes = [(fitted.experiments() as u64, "experiment"), (fitted.effects(request.correlation), "effect")];
    let [experiments, effects] = sizes.map(|(count, noun)| counted(count, noun));
    let priors = match request.priors {
        _ if request.method.is_point() => String::new(),
        Priors { mu: PriorMu::Flat, tau: PriorTau::Flat, icc: PriorIcc::None } => "; flat priors".to_owned(),
        Priors { mu, tau, .. } if request.correlation != Correlation::Modelled => {
            format!("; priors: mu {mu}, tau {tau}")
        }
        Priors { mu, tau, icc: PriorIcc::None } => format!("; priors: mu {mu}, tau {tau}"),
        Priors { mu, tau, icc } => format!("; priors: mu {mu}, tau {tau}, icc {icc}"),
    };
    let direction = if fitted.is_less_better() { "; less is better" } else { "" };
    format!("{status}; {experiments}, {effects}{priors}{direction}")
}

/// Whether tau may be 0, in a sentence; `None` for a point estimate and where tau is known.
fn small_tau(analysis: &Analysis, request: &Request) -> Option<String> {
    let posterior = &analysis.fit.posterior;
    if request.method.is_point() || posterior.tau.sd == Some(0.0) {
        return None;
    }
    let (low, high) = posterior.tau_distribution.shortest95();
    let shown = Summary { q025: Some(low), q975: Some(high), ..posterior.tau };
    let digits = digits([&shown].into_iter());
    let [low, high] = [low, high].map(|end| digits.value(end));
    let negligible = probability(posterior.tau_distribution.negligible(analysis.scale?.se));
    Some(format!("tau: shortest 95% interval {low} to {high}; P(tau < 0.1 typical se) {negligible}"))
}

/// How alike the true effects of one experiment's variants are, in a sentence.
fn alike(posterior: &IccPosterior) -> String {
    let digits = digits([&posterior.icc].into_iter());
    let [median, low, high] = [posterior.icc.median, posterior.icc.q025, posterior.icc.q975]
        .map(|x| x.map_or(String::new(), |x| digits.value(x)));
    let known = match posterior.status() {
        None => format!("icc: {median}, as given"),
        Some(IccStatus::Weak) => {
            format!("icc: median {median}, 95% interval {low} to {high}, of which the data say little")
        }
        Some(_) => format!("icc: median {median}, 95% interval {low} to {high}"),
    };
    format!(
        "{known}; log Bayes factors against 0: {} of what the prior says, {} of 1/2",
        rounded(posterior.log_bayes_factor, 3),
        rounded(posterior.log_bayes_factor_half, 3)
    )
}

/// The model of correlation, in a sentence.
fn model(correlation: Correlation) -> &'static str {
    match correlation {
        Correlation::Modelled => "correlation modelled",
        Correlation::ControlOnly => "control modelled, true effects independent",
        Correlation::Ignored => "correlation ignored (naive model)",
        Correlation::OnePerExperiment => "one variant per experiment",
    }
}

/// mu and tau under each model of correlation, and the prediction for the next experiment's effect under the chosen
/// one.
fn parameters(fitted: &FittedPopulation, analysis: &Analysis) -> Columns {
    let columns = [text("  "), text("  "), number("  "), number("  "), number("  "), number(" to "), number("  ")];
    let mut table = Columns::new(columns);
    table.row(["", "correlation", "median", "sd", "2.5%", "97.5%", "effects"]);
    for (correlation, name, summary, digits) in by_correlation(analysis).filter(|row| is_shown(analysis, row.0)) {
        let names = [name, label(correlation)].map(str::to_owned).into_iter();
        table.row(names.chain(numbers(summary, digits)).chain([grouped(fitted.effects(correlation))]));
    }
    let next = &analysis.fit.predictive;
    table.row(
        ["theta", "next experiment"].map(str::to_owned).into_iter().chain(numbers(next, digits([next].into_iter()))),
    );
    table
}

/// The same for a point estimate: mu with the intervals of Wald and of Knapp and Hartung, tau with its Q-profile interval.
fn points(fitted: &FittedPopulation, analysis: &Analysis) -> Columns {
    let columns = [text("  "), text("  "), number("  "), number("  "), number("  "), number(" to "), number("  ")];
    let mut table = Columns::new(columns);
    table.row(["", "correlation", "estimate", "se", "2.5%", "97.5%", "effects"]);
    type Row = fn(&Posterior, Option<&Heterogeneity>) -> Summary;
    fn interval(mean: Option<f64>, sd: Option<f64>, ci95: Option<(f64, f64)>) -> Summary {
        let (q025, q975) = ci95.unzip();
        Summary { mean, sd, q025, q975, ..Summary::default() }
    }
    let rows: [(&str, Row); 3] = [
        ("mu", |posterior, _| posterior.mu),
        ("Knapp-Hartung", |posterior, heterogeneity| {
            let mu = heterogeneity.map(|heterogeneity| heterogeneity.knapp_hartung);
            interval(posterior.mu.mean, mu.map(|mu| mu.se), mu.map(|mu| mu.ci95))
        }),
        ("tau", |posterior, heterogeneity| {
            interval(posterior.tau.mean, None, heterogeneity.map(|heterogeneity| heterogeneity.tau_ci95))
        }),
    ];
    for (name, row) in rows {
        let models = analysis.posteriors.iter().zip(&analysis.heterogeneity);
        let summaries: Vec<Summary> = models
            .map(|(posterior, heterogeneity)| {
                posterior.as_ref().map(|posterior| row(posterior, heterogeneity.as_ref())).unwrap_or_default()
            })
            .collect();
        let digits = digits(summaries.iter());
        let rows = Correlation::ALL.into_iter().zip(&summaries).zip([name, "", "", ""]);
        for ((correlation, summary), name) in rows.filter(|((correlation, _), _)| is_shown(analysis, *correlation)) {
            let names = [name, label(correlation)].map(str::to_owned).into_iter();
            table.row(names.chain(numbers(summary, digits)).chain([grouped(fitted.effects(correlation))]));
        }
    }
    let next = &analysis.fit.predictive;
    table.row(
        ["theta", "next experiment"].map(str::to_owned).into_iter().chain(numbers(next, digits([next].into_iter()))),
    );
    table
}

/// Whether a model of correlation has rows of its own: where true effects are independent the first two are one.
fn is_shown(analysis: &Analysis, correlation: Correlation) -> bool {
    let [modelled, control_only, ..] = &analysis.posteriors;
    correlation != Correlation::ControlOnly || control_only != modelled
}

/// mu and tau under each model of correlation, with a name on the first row of each and the digits to show.
fn by_correlation(analysis: &Analysis) -> impl Iterator<Item = (Correlation, &'static str, &Summary, Digits)> {
    const NONE: &Summary =
        &Summary { mean: None, median: None, sd: None, q025: None, q25: None, q75: None, q975: None };
    let mu: fn(&Posterior) -> &Summary = |posterior| &posterior.mu;
    let tau: fn(&Posterior) -> &Summary = |posterior| &posterior.tau;
    [("mu", mu), ("tau", tau)].into_iter().flat_map(|(name, pick)| {
        let summaries = analysis.posteriors.each_ref().map(|posterior| posterior.as_ref().map_or(NONE, pick));
        let digits = digits(summaries.into_iter());
        let names = [name, "", "", ""].into_iter();
        Correlation::ALL
            .into_iter()
            .zip(names)
            .zip(summaries)
            .map(move |((correlation, name), s)| (correlation, name, s, digits))
    })
}

/// Median or estimate, sd, 2.5% and 97.5%.
fn numbers(summary: &Summary, digits: Digits) -> [String; 4] {
    [digits.value(centre(summary)), digits.spread(summary.sd), digits.value(summary.q025), digits.value(summary.q975)]
}

fn effects<'a>(
    fitted: &'a FittedPopulation,
    analysis: &'a Analysis,
    correlation: Correlation,
) -> io::Result<Vec<EstimateRow<'a>>> {
    let mut rows = Vec::new();
    for_each_effect(fitted, analysis, correlation, |row| {
        rows.push(row);
        io::Result::Ok(())
    })?;
    Ok(rows)
}

/// The effects that shrinkage moved farthest. On a page too narrow for their names the sds are left out: the intervals
/// imply them.
fn corrections(effects: &[EstimateRow<'_>], page: usize) -> Columns {
    let mut rows: Vec<&EstimateRow<'_>> = effects.iter().collect();
    let correction = |row: &EstimateRow<'_>| (row.raw_estimate - row.posterior_mean).abs();
    rows.sort_by(|left, right| correction(right).total_cmp(&correction(left)));
    rows.truncate(CORRECTIONS);
    let with_sds = correction_columns(&rows, |_| true);
    if with_sds.width(NAMES) > page { correction_columns(&rows, |header| header != "sd") } else { with_sds }
}

fn correction_columns(rows: &[&EstimateRow<'_>], is_shown: impl Fn(&str) -> bool) -> Columns {
    type Cell = fn(&EstimateRow<'_>, Digits) -> String;
    let fields: [(Column, &str, Cell); 10] = [
        (text("  "), "experiment", |row, _| row.experiment_id.to_owned()),
        (text("  "), "variant", |row, _| row.variant.to_owned()),
        (number("  "), "raw", |row, digits| digits.value(row.raw_estimate)),
        (number(" ± "), "se", |row, digits| digits.spread(row.raw_se)),
        (number("  "), "shrunk", |row, digits| digits.value(row.posterior_mean)),
        (number(" ± "), "sd", |row, digits| digits.spread(row.posterior_sd)),
        (number("  "), "2.5%", |row, digits| digits.value(row.ci95_low)),
        (number(" to "), "97.5%", |row, digits| digits.value(row.ci95_high)),
        (number("  "), "P(>0)", |row, _| probability(row.prob_positive)),
        (number("  "), "P(best)", |row, _| row.prob_best.map(probability).unwrap_or_default()),
    ];
    let is_best_known = rows.iter().any(|row| row.prob_best.is_some());
    let fields = fields.iter().filter(|(_, header, _)| is_shown(header) && (is_best_known || *header != "P(best)"));

    let shown =
        |row: &&EstimateRow<'_>| [row.raw_estimate, row.raw_se, row.posterior_mean, row.ci95_low, row.ci95_high];
    let digits = Digits::for_all(rows.iter().map(|row| row.posterior_sd), rows.iter().flat_map(shown), 2);
    let mut table = Columns::new(fields.clone().map(|(column, ..)| *column));
    table.row(fields.clone().map(|(_, header, _)| *header));
    for row in rows {
        table.row(fields.clone().map(|(.., cell)| cell(row, digits)));
    }
    table
}

fn summary<W: Write>(page: &mut Page<W>, report: &Report) -> io::Result<()> {
    let counts = report.counts;
    let tombstones = match counts.tombstones {
        0 => String::new(),
        tombstones => format!(" ({})", counted(tombstones, "tombstone")),
    };
    let told = format!(
        "{}{tombstones}: {} accepted, {} duplicate, {} stale, {} pending, {} refused",
        counted(counts.messages, "message"),
        counted(counts.accepted, "result"),
        grouped(counts.duplicates),
        grouped(counts.stale),
        grouped(counts.pending),
        grouped(counts.refused)
    );
    page.sentence("", &told)?;
    if report.holdouts > 0 {
        page.sentence("", &format!("{}, in no population", counted(report.holdouts as u64, "holdout")))?;
    }
    for (experiment, population, why) in report.pending.iter().take(PENDING) {
        page.sentence("  ", &format!("still pending: {experiment} in {population}: {why}"))?;
    }
    match report.pending.len().saturating_sub(PENDING) {
        0 => Ok(()),
        more => page.sentence("  ", &format!("and {} more pending (see the JSON)", grouped(more as u64))),
    }
}
