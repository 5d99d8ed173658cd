//! The study's report as text for people and as CSV.

use std::io::{self, Write};

use crate::model::fit::Treatment;
use crate::simulate::Scenario;
use crate::study::performance::Performance;
use crate::study::report::{Correlation, ParameterReport, ScenarioReport, TreatmentReport};
use crate::study::Report;

/// Writes the report as tables, two for each scenario.
pub fn table(report: &Report, out: &mut impl Write) -> io::Result<()> {
    for (i, scenario) in report.scenarios.iter().enumerate() {
        if i > 0 {
            writeln!(out)?;
        }
        writeln!(out, "{}: {}", scenario.scenario.as_str(), sentence(scenario.scenario))?;
        writeln!(out, "{} experiments, {} effects\n", scenario.experiments, scenario.effects)?;
        first_replicate(scenario, out)?;
        writeln!(out)?;
        performance(scenario, report.replicates, out)?;
        writeln!(out)?;
        correlation(&scenario.correlation, report.replicates, out)?;
    }
    Ok(())
}

fn first_replicate(scenario: &ScenarioReport, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "  {:<20}{:>10}{:>9}{:>12}{:>9}", "", "mu median", "sd", "tau median", "sd")?;
    let sd = |parameter: &ParameterReport| parameter.sd.map_or("-".to_owned(), |sd| format!("{sd:.4}"));
    for TreatmentReport { treatment, mu, tau, .. } in &scenario.treatments {
        let label = label(*treatment);
        writeln!(out, "  {label:<20}{:>10.4}{:>9}{:>12.4}{:>9}", mu.median, sd(mu), tau.median, sd(tau))?;
    }
    writeln!(out, "  {:<20}{:>10.4}{:>9}{:>12.4}{:>9}", "True", scenario.truth.mu, "-", scenario.truth.tau, "-")
}

fn performance(scenario: &ScenarioReport, replicates: usize, out: &mut impl Write) -> io::Result<()> {
    let title = format!("{replicates} replicate{}", if replicates == 1 { "" } else { "s" });
    writeln!(out, "  {title:<20}{:<8}{:<19}{:<18}95% coverage", "", "bias", "RMSE")?;
    for treatment in &scenario.treatments {
        let mut label = label(treatment.treatment);
        for (parameter, performance) in parameters(treatment) {
            let Performance { bias, bias_mcse, rmse, rmse_mcse, coverage, coverage_mcse } = performance;
            let bias = format!("{bias:+.4}{}", plus_minus(*bias_mcse, 4));
            let rmse = format!("{rmse:.4}{}", plus_minus(*rmse_mcse, 4));
            let coverage = format!("{:5.1}%{}", 100.0 * coverage, plus_minus(coverage_mcse.map(|e| 100.0 * e), 1));
            writeln!(out, "  {label:<20}{parameter:<7}{bias:<18} {rmse:<18}{coverage}")?;
            label = "";
        }
    }
    Ok(())
}

fn correlation(correlation: &Correlation, replicates: usize, out: &mut impl Write) -> io::Result<()> {
    let Correlation { verdict, rests_on, value, replicates: counts } = correlation;
    let share = |count: usize| 100.0 * count as f64 / replicates as f64;
    let [negligible, noticeable, material] = [counts.negligible, counts.noticeable, counts.material].map(share);
    writeln!(out, "  Does correlation matter here? {} ({} {value:.3})", verdict.as_str(), rests_on.as_str())?;
    writeln!(
        out,
        "  of all replicates {negligible:.1}% negligible, {noticeable:.1}% noticeable, {material:.1}% material"
    )
}

/// Writes one row for each scenario, treatment and parameter; what does not exist is empty.
pub fn csv(report: &Report, out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "scenario,treatment,parameter,truth,median,sd,replicates,bias,bias_mcse,rmse,rmse_mcse,coverage,coverage_mcse,\
         verdict"
    )?;
    let cell = |number: Option<f64>| number.map_or(String::new(), |number| number.to_string());
    for scenario in &report.scenarios {
        let verdict = scenario.correlation.verdict.as_str();
        for treatment in &scenario.treatments {
            let posteriors = [
                (Some(scenario.truth.mu), Some(treatment.mu.median), treatment.mu.sd),
                (Some(scenario.truth.tau), Some(treatment.tau.median), treatment.tau.sd),
                (None, None, None),
            ];
            for ((parameter, p), (truth, median, sd)) in parameters(treatment).into_iter().zip(posteriors) {
                let numbers = [Some(p.bias), p.bias_mcse, Some(p.rmse), p.rmse_mcse, Some(p.coverage), p.coverage_mcse];
                let [bias, bias_mcse, rmse, rmse_mcse, coverage, coverage_mcse] = numbers.map(cell);
                let (scenario, treatment) = (scenario.scenario.as_str(), treatment.treatment.as_str());
                let (truth, median, sd, replicates) = (cell(truth), cell(median), cell(sd), report.replicates);
                writeln!(
                    out,
                    "{scenario},{treatment},{parameter},{truth},{median},{sd},{replicates},{bias},{bias_mcse},{rmse},\
                     {rmse_mcse},{coverage},{coverage_mcse},{verdict}"
                )?;
            }
        }
    }
    Ok(())
}

fn parameters(treatment: &TreatmentReport) -> [(&'static str, &Performance); 3] {
    [("mu", &treatment.mu.performance), ("tau", &treatment.tau.performance), ("theta", &treatment.theta)]
}

fn plus_minus(error: Option<f64>, digits: usize) -> String {
    error.map_or(String::new(), |error| format!(" ±{error:.digits$}"))
}

fn label(treatment: Treatment) -> &'static str {
    match treatment {
        Treatment::Correlated => "Correlated",
        Treatment::Independent => "Naive",
        Treatment::OnePerExperiment => "One per experiment",
    }
}

fn sentence(scenario: Scenario) -> &'static str {
    match scenario {
        Scenario::Baseline => "experiments of one variant, nothing is shared",
        Scenario::ManyVariants => "one experiment has a lot of variants",
        Scenario::BadControl => "one control is measured with a large error, 5 too low",
        Scenario::TreatmentHeavy => "the allocation favours the treatment, the control is what is uncertain",
    }
}
