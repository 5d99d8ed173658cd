//! Which column of a table is which field.

use csv::ByteRecord;

use super::field::Field;
use super::table::TableError;

/// A column that the user named: `--map mean=avg_value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapArg {
    pub field: Field,
    pub column: String,
}

impl std::str::FromStr for MapArg {
    type Err = String;

    fn from_str(text: &str) -> Result<MapArg, String> {
        let (field, column) = text.split_once('=').ok_or("expected FIELD=COLUMN, such as mean=avg_value")?;
        let field = Field::named(field).ok_or_else(|| {
            let names: Vec<&str> = Field::ALL.iter().map(|field| field.as_str()).collect();
            format!("{field:?} is no field; these are: {}", names.join(", "))
        })?;
        Ok(MapArg { field, column: column.to_owned() })
    }
}

/// What a row says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One arm of one metric.
    Arms,
    /// One effect, against a control that has no row or one without an estimate.
    Effects,
}

impl Form {
    /// Whether it has no use for a field.
    fn has_no_use_for(self, field: Field) -> bool {
        use Field::{
            CiHigh, CiLevel, CiLow, ControlN, ControlVariance, Estimate, Mean, StandardDeviation, Successes, Sum,
            SumSquares,
        };
        match self {
            Form::Arms => matches!(field, Estimate | CiLow | CiHigh | CiLevel | ControlVariance | ControlN),
            Form::Effects => {
                matches!(field, Mean | StandardDeviation | Successes | Sum | SumSquares) || PAIRED_SUMS.contains(&field)
            }
        }
    }
}

/// What arms have beside a sum and its squares: of a ratio the first three, with a covariate the others.
pub(crate) const PAIRED_SUMS: [Field; 6] = [
    Field::DenominatorSum,
    Field::DenominatorSumSquares,
    Field::NumeratorDenominatorSumProduct,
    Field::CovariateSum,
    Field::CovariateSumSquares,
    Field::MainCovariateSumProduct,
];

/// The header of a table, understood.
#[derive(Debug, Clone)]
pub struct Columns {
    pub form: Form,
    header: Vec<String>,
    /// The column of each field, by the field's position.
    columns: Vec<Option<usize>>,
    /// Whether the name of each column has the sign for it.
    is_in_percent: Vec<bool>,
}

/// Whether a header says that numbers are in percent: `lift (%)`, but not `95% lower`.
fn says_percent(name: &str) -> bool {
    let mut before = name.match_indices('%').map(|(at, _)| name[..at].trim_end());
    before.any(|before| !before.ends_with(|c: char| c.is_ascii_digit()))
}

impl Columns {
    /// Matches the header with the fields: first what the user named, then the spellings, the likeliest first.
    ///
    /// # Errors
    /// Where a column that the user named is missing, or columns without which a row says nothing.
    pub(crate) fn new(header: &ByteRecord, map: &[MapArg]) -> Result<Columns, TableError> {
        let header: Vec<String> = header.iter().map(|cell| String::from_utf8_lossy(cell).trim().to_owned()).collect();
        let mut columns = vec![None; Field::ALL.len()];
        let mut is_taken = vec![false; header.len()];
        for MapArg { field, column } in map {
            let found = header.iter().position(|name| name == column);
            let found = found.or_else(|| header.iter().position(|name| name.eq_ignore_ascii_case(column)));
            let found = found.ok_or_else(|| TableError::NoColumn {
                field: field.as_str(),
                column: column.clone(),
                header: header.join(", "),
            })?;
            columns[*field as usize] = Some(found);
            is_taken[found] = true;
        }
        for &field in Field::ALL {
            if columns[field as usize].is_some() {
                continue;
            }
            let ranked = header.iter().enumerate().filter(|(i, _)| !is_taken[*i]);
            let ranked = ranked.filter_map(|(i, name)| field.rank(name).map(|rank| (rank, i)));
            if let Some((_, i)) = ranked.min() {
                columns[field as usize] = Some(i);
                is_taken[i] = true;
            }
        }
        let is_in_percent = header.iter().map(|name| says_percent(name)).collect();
        let mut found = Columns { form: Form::Arms, header, columns, is_in_percent };
        found.form = found.judge()?;
        found.drop_unused();
        Ok(found)
    }

    /// The position of a field's column.
    pub(crate) fn of(&self, field: Field) -> Option<usize> {
        self.columns[field as usize]
    }

    /// Whether the header of a field's column says that its numbers are in percent. The level of an interval says it itself.
    pub fn is_in_percent(&self, field: Field) -> bool {
        field != Field::CiLevel
            && field.is_number()
            && self.of(field).is_some_and(|column| self.is_in_percent.get(column) == Some(&true))
    }

    /// Whether a field has a column.
    pub fn has(&self, field: Field) -> bool {
        self.of(field).is_some()
    }

    /// The metric of a row that names none.
    pub fn default_metric(&self) -> &'static str {
        match self.form {
            Form::Effects => "effect",
            Form::Arms if self.has(Field::Successes) => "conversion",
            Form::Arms => "mean",
        }
    }

    /// The metric of a row, of which the cell may be empty.
    pub(crate) fn metric<'a>(&self, named: &'a str) -> &'a str {
        if named.is_empty() { self.default_metric() } else { named }
    }

    /// The number of columns.
    pub(crate) fn len(&self) -> usize {
        self.header.len()
    }

    /// The header of a column.
    pub(crate) fn name(&self, column: usize) -> &str {
        self.header.get(column).map_or("", String::as_str)
    }

    /// Each column that is used with its field, in the order of the header.
    pub fn used(&self) -> impl Iterator<Item = (&str, Field)> {
        let field = |column| Field::ALL.iter().copied().find(|field| self.of(*field) == Some(column));
        self.header.iter().enumerate().filter_map(move |(i, name)| Some((name.as_str(), field(i)?)))
    }

    /// The columns that hold nothing that is used.
    pub fn unused(&self) -> impl Iterator<Item = &str> {
        let is_used = |column| self.columns.contains(&Some(column));
        self.header.iter().enumerate().filter(move |(i, _)| !is_used(*i)).map(|(_, name)| name.as_str())
    }

    /// The columns that are not used and whose names look misspelt, each with the field that was probably meant: one of the table's
    /// form that has no column.
    pub fn misspelt(&self) -> impl Iterator<Item = (&str, Field)> {
        self.misspelt_among(|field| !self.form.has_no_use_for(field))
    }

    fn misspelt_among(&self, is_wanted: impl Fn(Field) -> bool) -> impl Iterator<Item = (&str, Field)> {
        let is_known = |name: &str| Field::ALL.iter().any(|field| field.rank(name).is_some());
        self.unused().filter(move |name| !is_known(name)).filter_map(move |name| {
            let open = Field::ALL.iter().copied().filter(|field| is_wanted(*field) && !self.has(*field));
            let near = open.filter_map(|field| Some((field.misspelt_by(name)?, field)));
            near.min().map(|(_, field)| (name, field))
        })
    }

    /// Whether rows are arms or effects. Arms where the columns allow both: they carry the error of the control.
    fn judge(&self) -> Result<Form, TableError> {
        use Field::{
            CiHigh, CiLow, Estimate, Mean, N, StandardDeviation, StandardError, Successes, Sum, SumSquares, Variance,
        };
        let has_spread = self.has(Variance) || self.has(StandardDeviation);
        let is_arms = (self.has(N) && self.has(Successes))
            || (self.has(Mean) && ((self.has(N) && has_spread) || self.has(StandardError)))
            || (self.has(N) && self.has(Sum) && self.has(SumSquares));
        let has_interval = self.has(CiLow) && self.has(CiHigh);
        let is_effects = self.has(Estimate) && (self.has(Variance) || self.has(StandardError) || has_interval);
        let mut missing = Vec::new();
        if !self.has(Field::ExperimentId) {
            missing.push("experiment_id");
        }
        if !self.has(Field::Variant) && (is_arms || !is_effects) {
            missing.push("variant");
        }
        if !is_arms && !is_effects {
            missing.push(if self.has(Estimate) {
                "variance, standard_error, or ci_low and ci_high, of the estimate"
            } else if self.has(Mean) {
                "the precision of the mean: n and standard_deviation or variance, or standard_error"
            } else if self.has(Successes) {
                "n"
            } else {
                "what was measured: for arms n and successes, n, mean and standard_deviation, or mean and standard_error; for effects \
                 estimate and standard_error"
            });
        }
        if missing.is_empty() {
            return Ok(if is_arms { Form::Arms } else { Form::Effects });
        }
        let header = self.header.join(", ");
        let found =
            self.used().map(|(name, field)| format!("{name} as {}", field.as_str())).collect::<Vec<_>>().join(", ");
        let found = if found.is_empty() { "none".to_owned() } else { found };
        // Of neither form yet.
        let misspelt = self.misspelt_among(|_| true);
        let meant = misspelt.map(|(name, field)| format!("Is {name} meant to be {}? ", field.as_str())).collect();
        Err(TableError::Columns { header, found, missing: missing.join("; "), meant })
    }

    /// Drops the columns that the form has no use for, so that nobody is told that they are used.
    fn drop_unused(&mut self) {
        for &field in Field::ALL.iter().filter(|field| self.form.has_no_use_for(**field)) {
            self.columns[field as usize] = None;
        }
    }
}
