//! What is said of a population in sentences: whether correlation mattered, whether the model holds, what to look at.

use shrinkd_core::Experiment;
use shrinkd_model::{
    Analysis, BlockAnalysis, Calibration, Comparison, Correlation, Distance, Method, Posterior, Request,
};

use super::report::FittedPopulation;
use crate::cli::text::{Digits, counted, percent, rounded};
use crate::cli::verdict;

/// A sentence and the word it stands under.
pub(super) type Finding = (&'static str, String);

/// Control anomalies that are told one by one.
const ANOMALIES: usize = 3;

/// Everything worth a sentence, in the order in which it is told.
pub(super) fn findings(fitted: &FittedPopulation, request: &Request) -> Vec<Finding> {
    let mut findings = Vec::new();
    match &fitted.analysis {
        Err(why) => findings.push(("no posterior", why.to_string())),
        Ok(analysis) => {
            if analysis.fit.nodes.is_empty() {
                let told = format!("so few effects have no {} estimate", request.method.as_str());
                findings.push(("no estimate", told));
            }
            findings.extend(approximation(analysis, request.method));
            findings.extend(modes(&analysis.fit.posterior, request.method));
            findings.extend(analysis.comparison.as_ref().map(|comparison| correlation(comparison, fitted)));
            findings.extend(analysis.calibration.as_ref().map(calibration));
            findings.extend(anomalies(fitted, analysis));
        }
    }
    findings.extend(fitted.warnings.iter().map(|warning| ("warning", warning.clone())));
    findings
}

/// How far the method asked for is from exact, where it is not.
fn approximation(analysis: &Analysis, method: Method) -> Option<Finding> {
    let [laplace, variational] = analysis.distances?;
    let Distance { mu_mean, mu_sd, tau_median, tau_sd, .. } = match method {
        Method::Laplace => laplace?,
        Method::Variational => variational?,
        Method::Quadrature | Method::Reml | Method::Ml => return None,
    };
    // Adding 0 takes the sign from a 0.
    let hundredths = |number: f64| (100.0 * number).round() + 0.0;
    let sds = |shift: Option<f64>| shift.map(|shift| format!("{:+.2} posterior sds", hundredths(shift) / 100.0));
    let share = |ratio: Option<f64>| ratio.map(|ratio| format!("{:+.0}%", hundredths(ratio)));
    let parts = [
        ("mean of mu", sds(mu_mean)),
        ("its sd", share(mu_sd)),
        ("median of tau", sds(tau_median)),
        ("its sd", share(tau_sd)),
    ];
    let told: Vec<String> = parts.into_iter().filter_map(|(name, off)| Some(format!("{name} {}", off?))).collect();
    (!told.is_empty()).then(|| (method.as_str(), format!("off from the exact posterior: {}", told.join(", "))))
}

fn modes(posterior: &Posterior, method: Method) -> Option<Finding> {
    let (highest, others @ [_, ..]) = posterior.modes.split_first()? else { return None };
    let lower = others.iter().map(|mode| {
        let lower = Digits::Decimals(1).value(-mode.relative_log_density);
        format!("{} (lower by {lower} in log density)", rounded(mode.tau, 3))
    });
    let covered = match method {
        Method::Quadrature => "the exact posterior, and every figure here, covers them all",
        _ => "only the exact posterior (quadrature) covers them all",
    };
    let modes: Vec<String> = [rounded(highest.tau, 3)].into_iter().chain(lower).collect();
    Some(("tau", format!("its posterior has more than one mode: {}; {covered}", modes.join(" and "))))
}

fn correlation(comparison: &Comparison, fitted: &FittedPopulation) -> Finding {
    let Comparison { diagnostics, pass, verdict, rests_on, .. } = comparison;
    let verdict = verdict::clause(*verdict, *rests_on);
    let effects = counted(fitted.effects(Correlation::Modelled), "effect");
    let worth = if pass.largest_correlation() == 0.0 {
        "no two effects share a control".to_owned()
    } else {
        format!("{effects} say as much about mu as {} independent ones", rounded(diagnostics.effective_effects, 3))
    };
    ("correlation", format!("{verdict}; {worth}"))
}

fn calibration(calibration: &Calibration) -> Finding {
    let Calibration { effects, rms_z, coverage50, coverage80, coverage95 } = *calibration;
    let told = format!(
        "predicted from the other experiments, {} have an rms z of {} (1 is right); their 50, 80 and 95% intervals \
         hold {}, {} and {}",
        counted(effects, "effect"),
        Digits::Decimals(2).value(rms_z),
        percent(coverage50),
        percent(coverage80),
        percent(coverage95)
    );
    ("calibration", told)
}

/// The controls that look shifted, the farthest first, and what that does not prove.
fn anomalies(fitted: &FittedPopulation, analysis: &Analysis) -> Vec<Finding> {
    let blocks = fitted.population.experiments.iter().zip(&analysis.blocks);
    let mut anomalies: Vec<(f64, f64, &Experiment, &BlockAnalysis)> = blocks
        .filter_map(|(experiment, block)| {
            let diagnostics = block.diagnostics.filter(|diagnostics| diagnostics.is_control_anomaly())?;
            Some((diagnostics.control_shift_z?, diagnostics.control_shift_q?, experiment, block))
        })
        .collect();
    anomalies.sort_by(|left, right| right.0.abs().total_cmp(&left.0.abs()));
    let mut findings: Vec<Finding> = anomalies
        .iter()
        .take(ANOMALIES)
        .map(|&(z, q, experiment, block)| {
            let shift = block.control_shift.map(|shift| {
                let digits = Digits::new(shift.sd, shift.mean.abs().max(shift.sd), 2);
                format!(
                    ", as if the control's error had put {} ± {} into each",
                    digits.value(shift.mean),
                    digits.spread(shift.sd)
                )
            });
            let told = format!(
                "{}: its {} lie together, {} sds from what the other experiments say (q {}){}",
                experiment.experiment_id,
                counted(experiment.variants.len() as u64, "effect"),
                rounded(z.abs(), 2),
                if q < 0.001 { format!("{q:.0e}") } else { rounded(q, 2) },
                shift.unwrap_or_default()
            );
            ("bad control?", told)
        })
        .collect();
    if let Some(more) = anomalies.len().checked_sub(ANOMALIES).filter(|&more| more > 0) {
        findings.push(("", format!("and {} more (is_control_anomaly in the JSON)", counted(more as u64, "control"))));
    }
    if !findings.is_empty() {
        findings.push(("", "a z cannot tell a bad control from variants that are all truly good (or bad)".to_owned()));
    }
    findings
}
