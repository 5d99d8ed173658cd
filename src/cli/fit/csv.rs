//! The shrunken estimates as CSV, one row per effect.

use std::io::{self, Write};

use super::estimates::{EstimateRow, for_each_effect};
use super::report::Report;

/// Writes a header and one row per effect.
pub(super) fn write(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let correlation = report.request.correlation;
    writeln!(
        out,
        "population,experiment_id,variant,revision,raw_estimate,raw_se,posterior_mean,posterior_sd,ci80_low,ci80_high,\
         ci95_low,ci95_high,prob_positive,lfsr,shrinkage_factor,weight_of_mu,naive_posterior_mean,predictive_z,prob_best,\
         is_continuity_corrected,lift_too_large_for_relative,mix_up,control_variance_source,direction"
    )?;
    for (name, fitted) in &report.populations {
        let Ok(analysis) = &fitted.analysis else { continue };
        let population = quoted(&name.to_string());
        for_each_effect(fitted, analysis, correlation, |row| write_row(out, &population, &row))?;
    }
    Ok(())
}

fn write_row(out: &mut impl Write, population: &str, row: &EstimateRow<'_>) -> io::Result<()> {
    write!(out, "{population},{},{},{}", quoted(row.experiment_id), quoted(row.variant), row.revision)?;
    for number in [
        Some(row.raw_estimate),
        Some(row.raw_se),
        Some(row.posterior_mean),
        Some(row.posterior_sd),
        Some(row.ci80_low),
        Some(row.ci80_high),
        Some(row.ci95_low),
        Some(row.ci95_high),
        Some(row.prob_positive),
        Some(row.lfsr),
        Some(row.shrinkage_factor),
        Some(row.weight_of_mu),
        row.naive_posterior_mean,
        row.predictive_z,
        row.prob_best,
    ] {
        match number {
            Some(number) => write!(out, ",{number:?}")?,
            None => write!(out, ",")?,
        }
    }
    let mix_up = row.mix_up.unwrap_or_default();
    let (corrected, too_large) = (row.is_continuity_corrected, row.lift_too_large_for_relative);
    writeln!(out, ",{corrected},{too_large},{mix_up},{},{}", row.control_variance_source, row.direction)
}

/// A field as RFC 4180 wants it; identifiers hold no line ends.
fn quoted(text: &str) -> String {
    if text.contains([',', '"']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}
