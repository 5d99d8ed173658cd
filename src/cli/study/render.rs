//! The study's report as text for people and as CSV.

use std::io::{self, Write};

use shrinkd_model::Correlation;

use crate::cli::text::{Columns, Digits, Page, counted, number, percent, text};
use crate::cli::verdict;
use crate::simulate::Scenario;
use crate::study::Report;
use crate::study::performance::Performance;
use crate::study::report::{FitReport, ScenarioReport, VerdictReport};

/// Decimals of mu, tau and theta: the scenarios have truths of the order of 1.
const DECIMALS: usize = 3;

const TRUE: &str = "True";

/// Writes the report as tables, two for each scenario, with what they show.
pub fn table(report: &Report, out: &mut impl Write, width: usize) -> io::Result<()> {
    let mut page = Page::new(out, width);
    legend(&mut page, report)?;
    for scenario in &report.scenarios {
        page.blank()?;
        let name = scenario.scenario.as_str();
        let sizes = [(scenario.experiments, "experiment"), (scenario.effects, "effect")];
        let [experiments, effects] = sizes.map(|(count, noun)| counted(count as u64, noun));
        page.sentence("", &format!("{name}: {} ({experiments}, {effects})", sentence(scenario.scenario)))?;
        page.blank()?;
        page.columns(&first_replicate(scenario))?;
        correlation(&mut page, &scenario.correlation, report.replicates)?;
        page.blank()?;
        page.columns(&performance(scenario, report.replicates))?;
    }
    Ok(())
}

fn legend<W: Write>(page: &mut Page<W>, report: &Report) -> io::Result<()> {
    let drawn = format!(
        "Each scenario is drawn {} (seed {}) and fitted with flat priors and the exact posterior. The effects of an \
         experiment share the error of its control, which correlates them:",
        counted(report.replicates as u64, "time"),
        report.seed
    );
    page.sentence("", &drawn)?;
    let mut rows = Columns::new([text("  "), text("  ")]);
    rows.row([label(Correlation::Modelled), "models that"]);
    rows.row([label(Correlation::Ignored), "takes the effects for independent"]);
    rows.row([label(Correlation::OnePerExperiment), "keeps one variant of each experiment"]);
    rows.row([TRUE, "is what the data were drawn from"]);
    page.columns(&rows)?;
    page.sentence(
        "",
        "mu is the mean of the true effects, tau their sd, theta the effects themselves, all in the metric's own unit. \
         The first replicate, the data that `shrinkd simulate` prints for the scenario and seed, shows the posterior \
         medians and sds. Over all replicates, bias and RMSE are those of the posterior medians of mu and tau and the \
         posterior means of theta; coverage is the share of 95% intervals that hold the truth; ± is the Monte-Carlo \
         standard error.",
    )
}

fn first_replicate(scenario: &ScenarioReport) -> Columns {
    let mut table = Columns::new([text("  "), number("  "), number("  "), number("  "), number("  ")]);
    table.row(["first replicate", "median of mu", "sd", "median of tau", "sd"]);
    let digits = Digits::Decimals(DECIMALS);
    for FitReport { correlation, mu, tau, .. } in &scenario.fits {
        let numbers = [digits.value(mu.median), digits.spread(mu.sd), digits.value(tau.median), digits.spread(tau.sd)];
        table.row([label(*correlation).to_owned()].into_iter().chain(numbers));
    }
    let [mu, tau] = [scenario.truth.mu, scenario.truth.tau].map(|truth| digits.value(truth));
    table.row([TRUE, &mu, "", &tau]);
    table
}

fn performance(scenario: &ScenarioReport, replicates: usize) -> Columns {
    let numbers = [number("  "), number(" ± ")].repeat(3);
    let mut table = Columns::new([text("  "), text("  ")].into_iter().chain(numbers));
    table.row([&*counted(replicates as u64, "replicate"), "", "bias", "", "RMSE", "", "coverage"]);
    let digits = Digits::Decimals(DECIMALS);
    let percent = Digits::Decimals(1);
    for correlation in &scenario.fits {
        let mut label = label(correlation.correlation);
        for (parameter, performance) in parameters(correlation) {
            let Performance { bias, bias_mcse, rmse, rmse_mcse, coverage, coverage_mcse } = *performance;
            let error = |digits: Digits, error: Option<f64>| error.map_or(String::new(), |error| digits.value(error));
            table.row([
                label.to_owned(),
                parameter.to_owned(),
                digits.value(bias),
                error(digits, bias_mcse),
                digits.value(rmse),
                error(digits, rmse_mcse),
                format!("{}%", percent.value(100.0 * coverage)),
                error(percent, coverage_mcse.map(|error| 100.0 * error)),
            ]);
            label = "";
        }
    }
    table
}

fn correlation<W: Write>(page: &mut Page<W>, correlation: &VerdictReport, replicates: usize) -> io::Result<()> {
    let VerdictReport { verdict, rests_on, value, replicates: counts } = correlation;
    let share = |count: usize| percent(count as f64 / replicates as f64);
    let [negligible, noticeable, material] = [counts.negligible, counts.noticeable, counts.material].map(share);
    page.sentence("  Does correlation matter? ", &verdict::clause(*verdict, (*rests_on, *value)))?;
    page.sentence(
        "  In all replicates: ",
        &format!("negligible in {negligible}, noticeable in {noticeable}, material in {material}"),
    )
}

/// Writes one row for each scenario, fit and parameter; what does not exist is empty.
pub fn csv(report: &Report, out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "scenario,correlation,parameter,truth,median,sd,replicates,bias,bias_mcse,rmse,rmse_mcse,coverage,coverage_mcse,\
         verdict"
    )?;
    let cell = |number: Option<f64>| number.map_or(String::new(), |number| number.to_string());
    for scenario in &report.scenarios {
        let verdict = scenario.correlation.verdict.as_str();
        for correlation in &scenario.fits {
            let posteriors = [
                (Some(scenario.truth.mu), Some(correlation.mu.median), correlation.mu.sd),
                (Some(scenario.truth.tau), Some(correlation.tau.median), correlation.tau.sd),
                (None, None, None),
            ];
            for ((parameter, p), (truth, median, sd)) in parameters(correlation).into_iter().zip(posteriors) {
                let numbers = [Some(p.bias), p.bias_mcse, Some(p.rmse), p.rmse_mcse, Some(p.coverage), p.coverage_mcse];
                let [bias, bias_mcse, rmse, rmse_mcse, coverage, coverage_mcse] = numbers.map(cell);
                let (scenario, correlation) = (scenario.scenario.as_str(), correlation.correlation.as_str());
                let (truth, median, sd, replicates) = (cell(truth), cell(median), cell(sd), report.replicates);
                writeln!(
                    out,
                    "{scenario},{correlation},{parameter},{truth},{median},{sd},{replicates},{bias},{bias_mcse},{rmse},\
                     {rmse_mcse},{coverage},{coverage_mcse},{verdict}"
                )?;
            }
        }
    }
    Ok(())
}

fn parameters(correlation: &FitReport) -> [(&'static str, &Performance); 3] {
    [("mu", &correlation.mu.performance), ("tau", &correlation.tau.performance), ("theta", &correlation.theta)]
}

fn label(correlation: Correlation) -> &'static str {
    match correlation {
        Correlation::Modelled => "Correlated",
        Correlation::Ignored => "Naive",
        Correlation::OnePerExperiment => "One per experiment",
    }
}

fn sentence(scenario: Scenario) -> &'static str {
    match scenario {
        Scenario::Baseline => "experiments of one variant, nothing is shared",
        Scenario::ManyVariants => "one experiment has a lot of variants",
        Scenario::BadControl => "one control is measured with a large error, 5 too low",
        Scenario::TreatmentHeavy => "the allocation favours the correlation, the control is what is uncertain",
    }
}
