//! Simulated experiments as a table, one row per arm, as analysts export them.

use std::io::{self, Write};

use super::message::minutes_in;
use super::population::Population;

/// What the control of every experiment measured. Effects are differences, so that it could be anything.
const CONTROL_MEAN: f64 = 10.0;

/// The units of every arm. Only informative: the standard errors say how precise an arm is.
const USERS: u64 = 10_000;

/// Writes a header, and a row for each arm of the population's experiments, metric `effect`.
///
/// # Errors
/// Where writing fails.
pub fn write(population: &Population, seed: u64, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "experiment,end_date,metric,variant,is_control,users,mean,std_error")?;
    for (index, experiment) in population.draw(seed, 0).enumerate() {
        let days = i64::try_from(index).unwrap_or(i64::MAX);
        let date = minutes_in(days.saturating_mul(24 * 60)).date();
        let id = &experiment.experiment_id;
        let se = experiment.control_variance.sqrt();
        writeln!(out, "{id},{date},effect,control,true,{USERS},{CONTROL_MEAN},{se}")?;
        let se = experiment.treatment_variance.sqrt();
        for (variant, effect) in experiment.variants.iter().zip(&experiment.effects) {
            writeln!(out, "{id},{date},effect,{variant},false,{USERS},{},{se}", CONTROL_MEAN + effect)?;
        }
    }
    Ok(())
}
