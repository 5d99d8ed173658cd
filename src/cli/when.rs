//! `shrinkd when`: whether a design of experiments needs the correlation to be modelled.

mod figures;
mod map;
mod picture;
mod render;

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use shrinkd_model::Design;

use super::design::{DesignArgs, Tau, equal_share};
use super::simulate::count;
use super::{CliError, Format, text};
use figures::{Allocation, Figures};

/// Say whether a design of experiments needs the correlation to be modelled
///
/// The variants of an experiment share the error of their control. For a design, without data, this prints what a model
/// that ignores the correlation (the naive model) would do to its readers: what its 95% interval of mu, the mean of the
/// true effects, would cover, and by how much the error of its shrunken estimates would be larger. Beside it stands what
/// it costs to avoid the correlation by using one variant of each experiment, and the verdict to expect from `shrinkd fit`
/// and, with the default thresholds, from `shrinkd run`. They also look at decisions, which need effects.
///
/// The figures are closed forms. They hold for so many experiments that tau is known well, for variants of one experiment
/// that are no more alike than others, and for controls that are off by chance alone; docs/when.md explains them. At
/// tau = 0 there is none for the error of the estimates. `shrinkd study` simulates a design.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Print the whole map instead: 1 to 10 variants, control shares of 10 to 90% and equal shares, tau = 0, 0.5se, 1se
    /// and 2se
    #[arg(long, conflicts_with_all = ["DesignArgs", "mix"])]
    grid: bool,
    /// Also draw the map to a file, as SVG; implies --grid
    #[arg(long, value_name = "FILE", conflicts_with_all = ["DesignArgs", "mix"])]
    svg: Option<PathBuf>,
    /// Output format; csv has one row per design
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    #[command(flatten)]
    design: DesignArgs,
    /// Experiments of several kinds, each equally frequent, by their numbers of variants, instead of --variants: 1,1,2
    /// where every third experiment has two variants and the others have one
    #[arg(
        long,
        value_name = "N,N,...",
        value_delimiter = ',',
        value_parser = count(1_000),
        help_heading = "Design",
        conflicts_with_all = ["variants", "control_share"]
    )]
    mix: Vec<usize>,
}

const EXAMPLES: &str = "\
Examples:
  shrinkd when --variants 3
  shrinkd when --variants 3 --control-share 0.5 --tau 1se
  shrinkd when --mix 1,1,2 --tau 0.5se
  shrinkd when --variants 5 --rho 0.2 --format json | jq .naive_coverage
  shrinkd when --grid --svg map.svg
  shrinkd when --grid --format csv > map.csv";

/// Prints the figures of a design, or the map.
///
/// # Errors
/// Where tau has another unit than standard errors, or an output cannot be written to.
pub fn run(args: &Args) -> Result<ExitCode, CliError> {
    let mut out = BufWriter::new(io::stdout().lock());
    if args.grid || args.svg.is_some() {
        let panels = map::panels();
        if let Some(path) = &args.svg {
            let failed = |source| CliError::Output { path: path.clone(), source };
            fs::write(path, picture::draw(&panels)).map_err(failed)?;
        }
        let all: Vec<&Figures> = panels.iter().flat_map(|panel| panel.rows.iter().flat_map(|row| &row.cells)).collect();
        match args.format {
            Format::Table => render::map(&panels, &mut out, text::width())?,
            Format::Csv => render::csv(&all, &mut out)?,
            Format::Json => text::json(&all, &mut out)?,
        }
    } else {
        let figures = args.figures()?;
        match args.format {
            Format::Table => render::design(&figures, &mut out, text::width())?,
            Format::Csv => render::csv(&[&figures], &mut out)?,
            Format::Json => text::json(&figures, &mut out)?,
        }
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

impl Args {
    fn figures(&self) -> Result<Figures, CliError> {
        let Args { design, mix, .. } = self;
        let variants = if mix.is_empty() { vec![design.variants()] } else { mix.clone() };
        let tau = match design.tau() {
            Tau::Se(tau) => tau,
            Tau::Absolute(0.0) => 0.0,
            Tau::Absolute(tau) => {
                return Err(CliError::Usage(format!(
                    "--tau {tau} is in the unit of the effects, which a design does not have: say it in standard errors of \
                     a raw effect, such as --tau 0.5se"
                )));
            }
        };
        let equal = mix.is_empty().then(|| equal_share(design.variants()));
        let (allocation, control_share) = match design.control_share() {
            Some(share) => (Allocation::ControlShare, Some(share)),
            None if design.has_rho() => (Allocation::Rho, None),
            None => (Allocation::Equal, equal),
        };
        Ok(Figures::new(&Design { variants, rho: design.rho(), tau }, allocation, control_share))
    }
}
