//! Findings about a population, in sentences: whether correlation matters, calibration, suspect controls, warnings.

use shrinkd_core::{ControlVarianceSource, Experiment};
use shrinkd_model::{
    Analysis, BlockAnalysis, Calibration, Comparison, Correlation, Distance, Heterogeneity, Measure, Method, Posterior,
    Request, Selection, Verdict,
};

use super::report::FittedPopulation;
use crate::cli::correlation::label;
use crate::cli::text::{Digits, counted, grouped, percent, rounded};
use crate::cli::verdict;

/// A label and its sentence.
pub(super) type Finding = (&'static str, String);

/// Number of control anomalies that are reported one by one.
const ANOMALIES: usize = 3;

/// All findings, in the order in which they are printed.
pub(super) fn findings(fitted: &FittedPopulation, request: &Request) -> Vec<Finding> {
    let mut findings = Vec::new();
    match &fitted.analysis {
        Err(why) => {
            let label = if request.method.is_point() { "no estimate" } else { "no posterior" };
            findings.push((label, why.to_string()));
        }
        Ok(analysis) => {
            findings.extend(analysis.fit.heterogeneity.as_ref().map(heterogeneity));
            findings.extend(approximation(analysis, request.method));
            findings.extend(modes(&analysis.fit.posterior, request.method));
            findings.extend(analysis.comparison.as_ref().map(|comparison| correlation(comparison, fitted)));
            findings.extend(analysis.comparison.as_ref().and_then(naive_model));
            findings.extend(analysis.comparison.as_ref().and_then(misfit));
            findings.extend(analysis.calibration.as_ref().map(calibration));
            findings.extend(analysis.selection.as_ref().filter(|selection| selection.is_suspected()).map(selection));
            findings.extend(anomalies(fitted, analysis));
            findings.extend(imputed(&fitted.population.experiments));
        }
    }
    findings.extend(fitted.warnings.iter().map(|warning| ("warning", warning.clone())));
    findings
}

/// The distance of an approximate method from the exact posterior.
fn approximation(analysis: &Analysis, method: Method) -> Option<Finding> {
    let [laplace, variational] = analysis.distances?;
    let Distance { mu_mean, mu_sd, tau_median, tau_sd, .. } = match method {
        Method::Laplace => laplace?,
        Method::Variational => variational?,
        Method::Quadrature | Method::Reml | Method::Ml | Method::Dl | Method::Pm => return None,
    };
    let hundredths = |number: f64| (100.0 * number).round() + 0.0;
    let sds = |shift: Option<f64>| shift.map(|shift| format!("{} posterior sds", signed(shift)));
    let share = |ratio: Option<f64>| ratio.map(|ratio| format!("{:+.0}%", hundredths(ratio)));
    let parts = [
        ("mean of mu", sds(mu_mean)),
        ("its sd", share(mu_sd)),
        ("median of tau", sds(tau_median)),
        ("its sd", share(tau_sd)),
    ];
    let told: Vec<String> = parts.into_iter().filter_map(|(name, off)| Some(format!("{name} {}", off?))).collect();
    (!told.is_empty()).then(|| (method.as_str(), format!("difference from the exact posterior: {}", told.join(", "))))
}

/// Hundredths with a sign; adding 0 turns -0 into 0.
fn signed(number: f64) -> String {
    format!("{:+.2}", (100.0 * number).round() / 100.0 + 0.0)
}

fn p_value(p: f64) -> String {
    if p < 0.0001 { "< 0.0001".to_owned() } else { Digits::Decimals(4).value(p) }
}

/// The test that tau is 0, and how large tau is beside the sampling errors.
fn heterogeneity(heterogeneity: &Heterogeneity) -> Finding {
    let Heterogeneity { q, q_df, q_p, i_squared, h_squared, .. } = *heterogeneity;
    let told = format!(
        "Q {} (df {}, p {}), I² {}, H² {}",
        rounded(q, 4),
        grouped(q_df),
        p_value(q_p),
        percent(i_squared),
        rounded(h_squared, 3)
    );
    ("heterogeneity", told)
}

fn modes(posterior: &Posterior, method: Method) -> Option<Finding> {
    let (highest, others @ [_, ..]) = posterior.modes.split_first()? else { return None };
    let lower = others.iter().map(|mode| {
        let lower = Digits::Decimals(1).value(-mode.relative_log_density);
        format!("{} (log density lower by {lower})", rounded(mode.tau, 3))
    });
    let covered = match method {
        Method::Quadrature => "all of them are in the exact posterior, which every figure here is based on",
        _ => "only the exact posterior (quadrature) accounts for all of them",
    };
    let modes: Vec<String> = [rounded(highest.tau, 3)].into_iter().chain(lower).collect();
    Some(("tau", format!("its posterior has more than one mode: {}; {covered}", modes.join(" and "))))
}

fn correlation(comparison: &Comparison, fitted: &FittedPopulation) -> Finding {
    let Comparison { diagnostics, consequences, verdict, rests_on, .. } = comparison;
    let verdict = verdict::clause(*verdict, *rests_on);
    let effects = counted(fitted.effects(Correlation::Modelled), "effect");
    let worth = if consequences.largest_correlation() == 0.0 {
        "no two effects share a control".to_owned()
    } else {
        format!(
            "{effects} carry as much information about mu as {} independent ones",
            rounded(diagnostics.effective_effects, 3)
        )
    };
    ("correlation", format!("{verdict}; {worth}"))
}

/// What else the naive model would do; `None` where no two effects share a control.
fn naive_model(comparison: &Comparison) -> Option<Finding> {
    let Comparison { diagnostics, consequences, verdict, rests_on: (measure, _), .. } = comparison;
    if consequences.largest_correlation() == 0.0 || *verdict == Verdict::Misfit {
        return None;
    }
    let share = |share: f64, told: &str| (share >= 0.0005).then(|| format!("{told} by {}", percent(share)));
    let shift = |name: &str, sds: Option<f64>| Some(format!("moves {name} by {} posterior sds", signed(sds?)));
    let (coverage, changed) = (consequences.naive_coverage(), consequences.changed_decisions());
    let parts = [
        (*measure != Measure::NaiveCoverage).then(|| {
            format!("has a 95% interval of mu that would cover about {}%", Digits::Decimals(1).value(100.0 * coverage))
        }),
        consequences
            .rmse_excess()
            .filter(|_| *measure != Measure::RmseExcess)
            .and_then(|excess| share(excess, "makes the RMSE of the estimates larger")),
        (changed > 0 && *measure != Measure::ChangedDecisions)
            .then(|| format!("calls {} differently", counted(changed, "sign"))),
        consequences.value_given_up().and_then(|lost| share(lost, "makes picks by posterior mean worse")),
        shift("mu", diagnostics.mu_shift),
        shift("log tau", diagnostics.log_tau_shift),
    ];
    let told: Vec<String> = parts.into_iter().flatten().collect();
    Some(("naive model", told.join(", ")))
}

/// The figures behind a misfit, and what follows.
fn misfit(comparison: &Comparison) -> Option<Finding> {
    let Comparison { misfit, verdict, .. } = comparison;
    if *verdict != Verdict::Misfit {
        return None;
    }
    let figures = |figure: &dyn Fn(Correlation) -> Option<f64>, digits: Digits| {
        let told =
            Correlation::ALL.map(|correlation| format!("{} {}", label(correlation), digits.value(figure(correlation))));
        told.join(", ")
    };
    let told = format!(
        "do not report these estimates before the cause is found; those of one variant per experiment do not depend on what \
         variants of one experiment have in common. Squared error in units of that of the raw estimates: {}. Score in \
         nats: {}",
        figures(&|correlation| misfit.risk(correlation), Digits::Decimals(2)),
        figures(&|correlation| misfit.score(correlation), Digits::Decimals(1)),
    );
    Some(("misfit", told))
}

/// From how many independent effects on the shares of calibration say something.
const FEWEST_CALIBRATED: f64 = 10.0;

fn calibration(calibration: &Calibration) -> Finding {
    let Calibration { effects, effective_effects, rms_z, coverage50, coverage80, coverage95, .. } = *calibration;
    let predicted = format!(
        "predicted from the other experiments, {} have an rms z of {} (ideally 1)",
        counted(effects, "effect"),
        Digits::Decimals(2).value(rms_z)
    );
    if effective_effects < FEWEST_CALIBRATED {
        return ("calibration", format!("{predicted}; too few experiments, or one too large, to judge coverage by"));
    }
    let cover = |share: f64, level: f64| {
        let (low, high) = calibration.bounds(level);
        format!("{} ({} to {})", percent(share), percent(low), percent(high))
    };
    let told = format!(
        "{predicted}; their 50, 80 and 95% intervals cover {}, {} and {} (in brackets the bounds of a model that is right)",
        cover(coverage50, 0.5),
        cover(coverage80, 0.8),
        cover(coverage95, 0.95)
    );
    ("calibration", told)
}

/// How likely it is that only winners arrive.
fn selection(selection: &Selection) -> Finding {
    let Selection { log_lr, eta, missing_share, caliper_p, .. } = *selection;
    let (_, others) = selection.sides();
    let caliper = caliper_p.map(|p| format!(", p of the caliper test {}", p_value(p))).unwrap_or_default();
    let log_lr = Digits::Decimals(1).value(log_lr);
    let told = format!(
        "as if {} of the results with {others} had arrived, and {} of all results were missing (log likelihood ratio \
         {log_lr}{caliper})",
        percent(eta),
        percent(missing_share)
    );
    ("selection", told)
}

/// How many experiments have a control's variance that was not sent; `None` where no one has.
fn imputed(experiments: &[Experiment]) -> Option<Finding> {
    let is_imputed = |experiment: &&Experiment| experiment.control_variance_source == ControlVarianceSource::Imputed;
    let count = experiments.iter().filter(is_imputed).count();
    (count > 0).then(|| {
        let told = format!(
            "the control's variance of {} of {} is imputed from the numbers of units, as if all units had one variance",
            grouped(count as u64),
            counted(experiments.len() as u64, "experiment")
        );
        ("imputed", told)
    })
}

/// The controls that look shifted, the farthest first, and a caveat.
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
                    ", as if the control's error had added {} ± {} to each",
                    digits.value(shift.mean),
                    digits.spread(shift.sd)
                )
            });
            let told = format!(
                "{}: its {} are jointly {} sds away from what the other experiments predict (q {}){}",
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
        findings.push((
            "",
            "this test cannot tell a bad control from variants that are all truly good (or bad)".to_owned(),
        ));
    }
    findings
}
