//! The figures of designs as text and as CSV.

use std::collections::BTreeMap;
use std::io::{self, Write};

use shrinkd_model::{Thresholds, Verdict};

use super::figures::{Allocation, Figures};
use super::map::{Panel, VARIANTS};
use crate::cli::text::{Columns, Page, counted, number, percent, rounded, text};
use crate::cli::verdict;

/// Writes what one design leads to.
pub(super) fn design(figures: &Figures, out: &mut impl Write, width: usize) -> io::Result<()> {
    let mut page = Page::new(out, width);
    page.sentence("", &experiments(figures))?;
    let Figures { rho, tau, deff, naive_coverage, rmse_excess, mu_interval_ratio, tau_error_ratio, .. } = *figures;
    page.sentence("  rho ", &format!("{}, the control's part of a raw effect's sampling variance", rounded(rho, 2)))?;
    let unit = "the sd of the true effects in standard errors of a raw effect";
    page.sentence("  tau ", &format!("{}, {unit}", tau_name(tau)))?;
    page.blank()?;

    let mut table = Columns::new([text("  "), text("  "), text("  ")]);
    table.row(["naive model", "95% interval of mu", &format!("covers {:.1}%", 100.0 * naive_coverage)]);
    table.row(["", "variance of mu", &format!("{deff:.2} times what it claims")]);
    let larger = |excess: f64| format!("error (RMSE) {:.1}% larger", 100.0 * excess);
    table.row(["", "estimates", &rmse_excess.map_or("- (no closed form at tau = 0)".to_owned(), larger)]);
    table.row(["one per experiment", "95% interval of mu", &format!("{mu_interval_ratio:.2} times as wide")]);
    table.row(["", "tau", &format!("error {tau_error_ratio:.2} times as large")]);
    page.columns(&table)?;
    page.blank()?;
    let Figures { verdict, verdict_rests_on, verdict_value, .. } = *figures;
    page.sentence("verdict     ", &verdict::clause(verdict, (verdict_rests_on, verdict_value)))?;
    page.sentence("what to do  ", advice(figures))
}

/// The experiments in words.
fn experiments(figures: &Figures) -> String {
    let variants = match &figures.variants[..] {
        [n] => format!("{} in every experiment", counted(*n as u64, "variant")),
        kinds => {
            let mut counts = BTreeMap::new();
            for &n in kinds {
                *counts.entry(n as u64).or_insert(0) += 1;
            }
            let have = |count| if count == 1 { "has" } else { "have" };
            let told = counts.iter().map(|(&n, &count)| format!("{count} {} {}", have(count), counted(n, "variant")));
            format!("of every {} experiments {}", kinds.len(), told.collect::<Vec<_>>().join(", "))
        }
    };
    match (figures.allocation, figures.control_share) {
        (Allocation::Rho, _) => variants,
        (Allocation::ControlShare, Some(share)) => {
            format!("{variants}; the control gets {} of the traffic", percent(share))
        }
        _ => format!("{variants}; the control gets as much traffic as each variant"),
    }
}

fn advice(figures: &Figures) -> &'static str {
    match figures.verdict {
        _ if figures.deff == 1.0 => "nothing: no variants share an error, and all models are the same",
        Verdict::Negligible => "either model will do: by the default thresholds, the difference does not matter",
        Verdict::Noticeable => {
            "model the correlation, as shrinkd does by default; by the default thresholds, naive figures already reported may \
             stand"
        }
        _ => {
            "model the correlation, as shrinkd does by default, and do not report naive figures; one variant of each \
             experiment gives intervals that are right, at the price above"
        }
    }
}

/// Writes the map: a legend, and a table for each tau.
pub(super) fn map(panels: &[Panel], out: &mut impl Write, width: usize) -> io::Result<()> {
    let mut page = Page::new(out, width);
    let Thresholds { naive_coverage, rmse_excess, .. } = Thresholds::default();
    let [below, larger] = [naive_coverage, rmse_excess]
        .map(|threshold| [threshold.noticeable, threshold.material].map(|share| format!("{:.0}%", 100.0 * share)));
    let legend = format!(
        "Coverage of the naive 95% interval of mu, in percent, by the number of variants of every experiment and by the \
         control's share of the traffic (equal: as much as each variant). The verdict on the naive model is * noticeable \
         (coverage of {} or less, or errors of its estimates larger by at least {}), ! material (below {}, or larger by more \
         than {}), else negligible; at tau = 0 coverage alone decides. tau, the sd of the true effects, is in standard \
         errors of a raw effect.",
        below[0], larger[0], below[1], larger[1]
    );
    page.sentence("", &legend)?;
    for panel in panels {
        page.blank()?;
        page.columns(&table(panel))?;
    }
    Ok(())
}

fn table(panel: &Panel) -> Columns {
    let columns = VARIANTS.flat_map(|_| [number(" "), text("")]);
    let mut table = Columns::new([text("  "), text("")].into_iter().chain(columns));
    let head = VARIANTS.flat_map(|n| [n.to_string(), " ".to_owned()]);
    // The tables of all panels align.
    table.row([format!("tau = {:<5}", tau_name(panel.tau)), String::new()].into_iter().chain(head));
    for row in &panel.rows {
        let cells = row.cells.iter().flat_map(|figures| {
            let mark = match figures.verdict {
                Verdict::Negligible => " ",
                Verdict::Noticeable => "*",
                _ => "!",
            };
            [format!("{:.1}", 100.0 * figures.naive_coverage), mark.to_owned()]
        });
        table.row([row.label.clone(), String::new()].into_iter().chain(cells));
    }
    table
}

/// As `--tau` takes it.
pub(super) fn tau_name(tau: f64) -> String {
    if tau == 0.0 { "0".to_owned() } else { format!("{tau}se") }
}

/// Writes one row for each design; a value that does not exist is empty.
pub(super) fn csv(designs: &[&Figures], out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "variants,allocation,control_share,rho,tau,deff,naive_coverage,rmse_excess,mu_interval_ratio,tau_error_ratio,\
         verdict,verdict_rests_on,verdict_value"
    )?;
    for figures in designs {
        let Figures { rho, tau, deff, naive_coverage, rmse_excess, mu_interval_ratio, tau_error_ratio, .. } = figures;
        let (verdict, rests_on, verdict_value) =
            (figures.verdict, figures.verdict_rests_on.as_str(), figures.verdict_value);
        let variants = match &figures.variants[..] {
            [n] => n.to_string(),
            kinds => format!("\"{}\"", kinds.iter().map(usize::to_string).collect::<Vec<_>>().join(",")),
        };
        let allocation = figures.allocation.as_str();
        let cell = |number: Option<f64>| number.map_or(String::new(), |number| number.to_string());
        let (share, rmse_excess) = (cell(figures.control_share), cell(*rmse_excess));
        writeln!(
            out,
            "{variants},{allocation},{share},{rho},{tau},{deff},{naive_coverage},{rmse_excess},{mu_interval_ratio},\
             {tau_error_ratio},{verdict},{rests_on},{verdict_value}"
        )?;
    }
    Ok(())
}
