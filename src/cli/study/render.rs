//! The study's report as text and as CSV.

use std::borrow::Cow;
use std::io::{self, Write};

use shrinkd_model::Correlation;

use crate::cli::correlation::label;
use crate::cli::text::{Columns, Digits, Page, counted, number, percent, rounded, text};
use crate::cli::verdict;
use crate::simulate::Scenario;
use crate::study::Report;
use crate::study::performance::Performance;
use crate::study::report::{FitReport, ScenarioReport, VerdictReport};

/// Decimals of mu, tau and theta: the true values are of the order of 1.
const DECIMALS: usize = 3;

const TRUE: &str = "true value";

/// Writes a legend, and two tables for each scenario.
pub fn table(report: &Report, out: &mut impl Write, width: usize) -> io::Result<()> {
    let mut page = Page::new(out, width);
    legend(&mut page, report)?;
    for scenario in &report.scenarios {
        page.blank()?;
        let sizes = [(scenario.experiments, "experiment"), (scenario.effects, "effect")];
        let [experiments, effects] = sizes.map(|(count, noun)| counted(count as u64, noun));
        page.sentence("", &format!("{}: {} ({experiments}, {effects})", scenario.name(), sentence(scenario)))?;
        page.blank()?;
        page.columns(&first_replicate(scenario))?;
        verdicts(&mut page, &scenario.correlation, report.replicates)?;
        page.blank()?;
        page.columns(&performance(scenario, report.replicates))?;
    }
    Ok(())
}

fn legend<W: Write>(page: &mut Page<W>, report: &Report) -> io::Result<()> {
    let drawn = format!(
        "Each population is drawn {} (seed {}) and fitted with flat priors and exact posteriors. The effects of one \
         experiment share the error of its control, which makes them correlated. That correlation is:",
        counted(report.replicates as u64, "time"),
        report.seed
    );
    page.sentence("", &drawn)?;
    let mut rows = Columns::new([text("  "), text("  ")]);
    rows.row([label(Correlation::Modelled), "part of the model, as the error that the effects share"]);
    rows.row([label(Correlation::Ignored), "left out, as in the naive model: effects are independent"]);
    rows.row([label(Correlation::OnePerExperiment), "avoided, by using one variant of each experiment"]);
    page.columns(&rows)?;
    let is_of_scenarios = report.scenarios.iter().all(|scenario| scenario.scenario.is_some());
    let first = match is_of_scenarios {
        true => "which is the data that `shrinkd simulate` prints for the scenario and seed, ",
        false => "",
    };
    let told = format!(
        "mu is the mean of the true effects, tau their sd (heterogeneity), theta the effects themselves, all in the unit \
         of the metric. For the first replicate, {first}the table shows posterior medians and sds. Over all replicates, \
         bias and RMSE are those of the posterior medians of mu and tau and the posterior means of theta, which with one \
         variant per experiment are the effects of the chosen variants only (where experiments differ in size, that RMSE \
         cannot be compared with the others); coverage is the share of 95% credible intervals that contain the true value; ± is the Monte Carlo standard error."
    );
    page.sentence("", &told)
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
    for fit in &scenario.fits {
        let mut label = label(fit.correlation);
        for (parameter, performance) in parameters(fit) {
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

fn verdicts<W: Write>(page: &mut Page<W>, verdicts: &VerdictReport, replicates: usize) -> io::Result<()> {
    let VerdictReport { verdict, rests_on, value, replicates: counts } = verdicts;
    let share = |count: usize| percent(count as f64 / replicates as f64);
    let [negligible, noticeable, material, misfit] =
        [counts.negligible, counts.noticeable, counts.material, counts.misfit].map(share);
    page.sentence("  Does correlation matter? ", &verdict::clause(*verdict, (*rests_on, *value)))?;
    page.sentence(
        "  Over all replicates: ",
        &format!("negligible in {negligible}, noticeable in {noticeable}, material in {material}, misfit in {misfit}"),
    )
}

/// Writes one row for each scenario, model of correlation and parameter; a value that does not exist is empty.
pub fn csv(report: &Report, out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "scenario,correlation,parameter,truth,median,sd,replicates,bias,bias_mcse,rmse,rmse_mcse,coverage,coverage_mcse,\
         verdict"
    )?;
    let cell = |number: Option<f64>| number.map_or(String::new(), |number| number.to_string());
    for scenario in &report.scenarios {
        let verdict = scenario.correlation.verdict.as_str();
        for fit in &scenario.fits {
            let posteriors = [
                (Some(scenario.truth.mu), Some(fit.mu.median), fit.mu.sd),
                (Some(scenario.truth.tau), Some(fit.tau.median), fit.tau.sd),
                (None, None, None),
            ];
            for ((parameter, p), (truth, median, sd)) in parameters(fit).into_iter().zip(posteriors) {
                let numbers = [Some(p.bias), p.bias_mcse, Some(p.rmse), p.rmse_mcse, Some(p.coverage), p.coverage_mcse];
                let [bias, bias_mcse, rmse, rmse_mcse, coverage, coverage_mcse] = numbers.map(cell);
                let (scenario, correlation) = (scenario.name(), fit.correlation.as_str());
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

fn parameters(fit: &FitReport) -> [(&'static str, &Performance); 3] {
    [("mu", &fit.mu.performance), ("tau", &fit.tau.performance), ("theta", &fit.theta)]
}

fn sentence(scenario: &ScenarioReport) -> Cow<'static, str> {
    match scenario.scenario {
        Some(Scenario::Baseline) => "experiments of one variant, so no control is shared".into(),
        Some(Scenario::ManyVariants) => "one experiment has many variants".into(),
        Some(Scenario::BadControl) => {
            "one experiment has many variants, whose control was measured 4 standard errors too low".into()
        }
        Some(Scenario::TreatmentHeavy) => {
            "one experiment has many variants; small controls dominate the error of every effect".into()
        }
        None if scenario.population.variants == 1 => "every experiment has one variant, so no control is shared".into(),
        None => {
            let (variants, rho) = (scenario.population.variants, rounded(scenario.rho, 3));
            format!("every experiment has {variants} variants, whose errors have the correlation {rho}").into()
        }
    }
}
