//! Prints the distances of `laplace` and `variational` from the exact posterior, as the tables of `docs/approximations.md`.
//!
//! Reads a folder of event files (`*.ndjson`) and fits every population in them under three sets of priors and two models of
//! correlation: `make approximations EVENTS=folder`.

use std::error::Error;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::{env, fs};

use shrinkd_core::{History, Population, decode};
use shrinkd_model::{Correlation, Distance, Fit, Method, Priors, SketchLikelihood, available_threads};

/// Priors of mu and tau, as on the command line.
const PRIORS: [(&str, &str); 3] =
    [("flat", "flat"), ("normal:0,10", "half-normal:5"), ("normal:0,10", "half-cauchy:1")];

const CORRELATIONS: [Correlation; 2] = [Correlation::Modelled, Correlation::Ignored];

fn main() -> Result<(), Box<dyn Error>> {
    let folder = env::args_os().nth(1).ok_or("usage: approximations FOLDER, a folder of .ndjson event files")?;
    let populations = read_folder(Path::new(&folder))?;
    let mut out = io::stdout().lock();
    for (mu, tau) in PRIORS {
        let priors = Priors { mu: mu.parse()?, tau: tau.parse()?, ..Priors::default() };
        writeln!(out, "\n## mu `{mu}`, tau `{tau}`\n")?;
        writeln!(out, "| data set | correlation | mu mean | mu sd | tau median | tau sd | log evidence |")?;
        writeln!(out, "| --- | --- | --- | --- | --- | --- | --- |")?;
        for (name, population) in &populations {
            for correlation in CORRELATIONS {
                write!(out, "| {name} | {} |", correlation.as_str())?;
                for [laplace, variational] in cells(population, correlation, &priors) {
                    write!(out, " {laplace} / {variational} |")?;
                }
                writeln!(out)?;
            }
        }
    }
    Ok(())
}

/// Every population of every event file, by the file's name.
fn read_folder(folder: &Path) -> Result<Vec<(String, Population)>, Box<dyn Error>> {
    let mut files = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<PathBuf>>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "ndjson"));
    files.sort();
    let mut populations = Vec::new();
    for file in files {
        let mut history = History::default();
        for line in fs::read_to_string(&file)?.lines() {
            for refusal in history.take(decode(line.as_bytes())).0 {
                eprintln!("{}: {refusal}", file.display());
            }
        }
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        populations.extend(
            history.into_populations(available_threads())?.into_values().map(|population| (name.clone(), population)),
        );
    }
    Ok(populations)
}

/// The five distances, each of `laplace` and of `variational`; a dash if there is none.
fn cells(population: &Population, correlation: Correlation, priors: &Priors) -> [[String; 2]; 5] {
    let likelihood = SketchLikelihood::new(&population.sketches.of(correlation));
    let fit = |method| Fit::new(&likelihood, priors, method).ok();
    let exact = fit(Method::Quadrature);
    let distances = [Method::Laplace, Method::Variational]
        .map(|method| Some(Distance::new(&fit(method)?.posterior, &exact.as_ref()?.posterior)));
    let figures: [fn(&Distance) -> Option<f64>; 5] =
        [|d| d.mu_mean, |d| d.mu_sd, |d| d.tau_median, |d| d.tau_sd, |d| d.log_evidence];
    figures.map(|figure| distances.map(|distance| cell(distance.as_ref().and_then(figure))))
}

/// Two decimals, because a hundredth of a posterior sd is negligible.
fn cell(distance: Option<f64>) -> String {
    match distance {
        None => "-".to_owned(),
        Some(distance) if distance.abs() < 0.005 => "0.00".to_owned(),
        Some(distance) => format!("{distance:+.2}"),
    }
}
