//! The status page: one self-contained HTML document with an overview of the worker.

use std::fmt::Write;
use std::time::Instant;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Site;
use crate::telemetry::metrics::PopulationCounts;

/// How many populations are listed; the rest is counted. The tables have all of them.
const POPULATIONS_SHOWN: usize = 500;

const HEAD: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="10">
<title>shrinkd</title>
<style>
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
small, dt { opacity: 0.7; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.2rem 1.5rem; margin: 0; } dd { margin: 0; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 0.25rem 0.75rem; border-bottom: 1px solid color-mix(in srgb, currentColor 20%, transparent); }
th:first-child, td:first-child { text-align: left; padding-left: 0; overflow-wrap: anywhere; }
.hidden { font-size: 0.8em; border: 1px solid; border-radius: 0.2em; padding: 0 0.2em; margin: 0 0.1em; }
.bad { color: #c62828; font-weight: 600; } .good { color: #2e7d32; font-weight: 600; }
@media (prefers-color-scheme: dark) { .bad { color: #ff8a80; } .good { color: #81c784; } }
</style>
</head>
<body>
"#;

/// Renders the current page.
pub(super) fn render(site: &Site) -> String {
    let mut page = HEAD.to_owned();
    let _ = writeln!(page, "<h1>shrinkd <small>{}</small></h1>\n<dl>", env!("CARGO_PKG_VERSION"));
    let metrics = &site.metrics;
    for (term, description) in [
        ("source", escape(&site.source)),
        ("alive", health(site.health.live(Instant::now()))),
        ("ready", health(site.health.readiness())),
        ("last commit", moment(metrics.last_commit())),
        ("last refit", moment(metrics.last_refit())),
    ] {
        let _ = writeln!(page, "<dt>{term}</dt><dd>{description}</dd>");
    }
    let unpublished = metrics.population_counts().unpublished_changes;
    if unpublished > 0 {
        let _ = writeln!(page, "<dt>catching up</dt><dd>the estimates of {unpublished} changed blocks follow</dd>");
    }
    page.push_str("</dl>\n");
    write_partitions(&mut page, site);
    write_populations(&mut page, site);
    page.push_str("<p><small>Reloads every 10 s. <a href=\"/metrics\">metrics</a></small></p>\n</body>\n</html>\n");
    page
}

fn write_partitions(page: &mut String, site: &Site) {
    let partitions = site.metrics.partitions();
    let _ = writeln!(page, "<h2>Partitions <small>{} owned</small></h2>", partitions.len());
    if partitions.is_empty() {
        return;
    }
    page.push_str("<table>\n<tr><th>partition</th><th>lag (records)</th><th>lag (seconds)</th><th></th></tr>\n");
    for (partition, lag) in partitions {
        let (records, seconds) = (lag.records, lag.seconds());
        let note = if lag.is_halted { "<strong>halted</strong>, see <code>shrinkd partitions</code>" } else { "" };
        let _ = writeln!(page, "<tr><td>{partition}</td><td>{records}</td><td>{seconds:.1}</td><td>{note}</td></tr>");
    }
    page.push_str("</table>\n");
}

fn write_populations(page: &mut String, site: &Site) {
    let populations = site.metrics.populations();
    if !site.metrics.reports_populations() {
        page.push_str("<h2>Populations</h2>\n<p>See the worker that owns partition 0.</p>\n");
        return;
    }
    let PopulationCounts { all: count, failed, .. } = site.metrics.population_counts();
    let note = if failed > 0 { format!(", <span class=\"bad\">{failed} failed</span>") } else { String::new() };
    let _ = writeln!(page, "<h2>Populations <small>{count}{note}</small></h2>");
    if populations.is_empty() {
        return;
    }
    page.push_str(
        "<table>\n<tr><th>population</th><th>experiments</th><th>effects</th><th>mu</th><th>tau</th>\
         <th>icc</th><th>design effect</th><th>correlation</th><th></th></tr>\n",
    );
    for (name, summary) in populations.iter().take(POPULATIONS_SHOWN) {
        let _ = writeln!(
            page,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            isolated_parts(&name.to_string()),
            summary.experiments,
            summary.effects,
            number(summary.mu),
            number(summary.tau),
            number(summary.icc),
            number(summary.deff),
            summary.verdict.map_or("–", |verdict| verdict.as_str()),
            if summary.has_failed { "<strong class=\"bad\">failed</strong>" } else { "" },
        );
    }
    page.push_str("</table>\n");
    let shown = populations.len().min(POPULATIONS_SHOWN) as u64;
    if let Some(more) = count.checked_sub(shown).filter(|&more| more > 0) {
        let _ = writeln!(page, "<p>and {more} more</p>");
    }
}

fn health(health: Result<(), String>) -> String {
    match health {
        Ok(()) => "<span class=\"good\">yes</span>".to_owned(),
        Err(reason) => format!("<span class=\"bad\">no</span>: {}", escape(&reason)),
    }
}

fn moment(moment: Option<OffsetDateTime>) -> String {
    moment.and_then(|moment| moment.format(&Rfc3339).ok()).unwrap_or_else(|| "never".to_owned())
}

/// Four decimals, or four significant digits in scientific notation: effects come in any unit.
fn number(value: Option<f64>) -> String {
    match value {
        None => "–".to_owned(),
        Some(value) if value == 0.0 || (1e-3..1e5).contains(&value.abs()) => format!("{value:.4}"),
        Some(value) => format!("{value:.3e}"),
    }
}

/// The name of a population, each of its parts isolated: metric, segment and scale are read in this order in any script.
fn isolated_parts(name: &str) -> String {
    let mut parts = String::with_capacity(name.len());
    for part in name.split_inclusive(['/', '=']) {
        let (part, separator) = part.split_at(part.trim_end_matches(['/', '=']).len());
        parts.push_str(&escape(part));
        parts.push_str(separator);
    }
    parts
}

/// Escapes text for an HTML element, and isolates it: text that runs from right to left does not reorder what stands
/// beside it. Characters that would not be seen, or would reorder the text itself, are shown as their code points.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    escaped.push_str("<bdi>");
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            hidden if is_hidden(hidden) => {
                let _ = write!(escaped, "<span class=\"hidden\">U+{:04X}</span>", u32::from(hidden));
            }
            other => escaped.push(other),
        }
    }
    escaped.push_str("</bdi>");
    escaped
}

/// Control characters, controls of the text's direction, separators of lines, and characters without a width. The two
/// joiners (U+200C, U+200D) are part of ordinary words in several scripts, and stay.
fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}'
                | '\u{200b}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{e0000}'..='\u{e007f}'
        )
}
