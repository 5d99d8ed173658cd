//! The tables, and what is promised of the uniform prior.

use std::io::{self, Write};

use super::{Kind, Model, Row, Score};

/// What is promised of the coverage of true effects.
pub(super) const COVERAGE_OF_THETA: (f64, f64) = (0.91, 0.97);

/// A table: one figure under each of some models, of which the first has a bound.
pub(super) struct Table {
    heading: &'static str,
    models: &'static [Model],
    figure: fn(&Score) -> f64,
    shown: fn(f64) -> String,
    bound: fn(&Kind) -> Option<Bound>,
}

#[derive(Debug, Clone, Copy)]
enum Bound {
    Within(f64, f64),
    AtMost(f64),
    AtLeast(f64),
}

pub(super) const TABLES: [Table; 5] = [
    Table {
        heading: "Coverage of theta",
        models: &Model::ALL,
        figure: Score::coverage_of_theta,
        shown: percent,
        bound: |_| Some(Bound::Within(COVERAGE_OF_THETA.0, COVERAGE_OF_THETA.1)),
    },
    Table {
        heading: "Coverage of mu",
        models: &Model::ALL,
        figure: Score::coverage_of_mu,
        shown: percent,
        bound: |_| Some(Bound::Within(0.9, 0.985)),
    },
    Table {
        heading: "RMSE of theta, by how much larger than the oracle's",
        models: &Model::ALL,
        figure: Score::rmse_excess,
        shown: percent,
        bound: |kind| (kind.icc == 0.0).then_some(Bound::AtMost(0.02)),
    },
    Table {
        heading: "Sound controls that are flagged, per population",
        models: &[Model::Uniform, Model::None],
        figure: Score::false_flags,
        shown: |flags| format!("{flags:.3}"),
        bound: |_| Some(Bound::AtMost(0.1)),
    },
    Table {
        heading: "Controls off by 6 standard errors that are flagged",
        models: &[Model::Uniform, Model::None],
        figure: Score::found,
        shown: percent,
        bound: |_| Some(Bound::AtLeast(0.4)),
    },
];

impl Table {
    /// Writes the table, and returns how often its bound is missed.
    pub(super) fn write(&self, rows: &[Row], out: &mut impl Write) -> io::Result<usize> {
        let Table { heading, models, figure, shown, bound } = self;
        let names: Vec<String> = models.iter().map(Model::to_string).collect();
        writeln!(out, "### {heading}\n\n| tau | icc | {} | bound of uniform |", names.join(" | "))?;
        writeln!(out, "|{}", " --- |".repeat(models.len() + 3))?;
        let mut missed = 0;
        for (kind, scores) in rows {
            let figures: Vec<f64> = models.iter().map(|&model| figure(&scores[model as usize])).collect();
            let bound = bound(kind);
            let is_missed = bound.is_some_and(|bound| !bound.is_kept(figures[0]));
            missed += usize::from(is_missed);
            let cells: Vec<String> = figures.into_iter().map(shown).collect();
            let bound = bound.map_or(String::new(), |bound| bound.told(shown));
            let missed = if is_missed { ": **missed**" } else { "" };
            writeln!(out, "| {} | {} | {} | {bound}{missed} |", kind.tau, kind.icc, cells.join(" | "))?;
        }
        writeln!(out)?;
        Ok(missed)
    }
}

impl Bound {
    fn is_kept(self, figure: f64) -> bool {
        match self {
            Bound::Within(least, most) => (least..=most).contains(&figure),
            Bound::AtMost(most) => figure <= most,
            Bound::AtLeast(least) => figure >= least,
        }
    }

    fn told(self, shown: impl Fn(f64) -> String) -> String {
        match self {
            Bound::Within(least, most) => format!("{} to {}", shown(least), shown(most)),
            Bound::AtMost(most) => format!("<= {}", shown(most)),
            Bound::AtLeast(least) => format!(">= {}", shown(least)),
        }
    }
}

fn percent(share: f64) -> String {
    format!("{:.1}%", 100.0 * share)
}
