//! How many digits of a number to show.

/// The format of numbers that are shown together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Digits {
    /// With this many decimals.
    Decimals(usize),
    /// With an exponent, and this many decimals before it.
    Exponent(usize),
}

/// Shown in place of a number that does not exist.
const NOTHING: &str = "-";

impl Digits {
    /// Digits for numbers up to `largest` in magnitude: `significant` ones in numbers of the magnitude of `typical`, and at
    /// most four more in total, so that columns have a bounded width. Numbers that are all below 1/10,000, or reach a
    /// million, are written with an exponent.
    pub(in crate::cli) fn new(typical: f64, largest: f64, significant: usize) -> Digits {
        let Some(order) = order(largest) else { return Digits::Decimals(significant.saturating_sub(1)) };
        if !(-4..6).contains(&order) {
            return Digits::Exponent(significant.saturating_sub(1));
        }
        let whole = usize::try_from(order).unwrap_or(0) + 1;
        let finest = self::order(typical).unwrap_or(order);
        let decimals = usize::try_from(significant as i32 - 1 - finest).unwrap_or(0);
        Digits::Decimals(decimals.min((significant + 4).saturating_sub(whole)))
    }

    /// Digits for all numbers of a table: `significant` ones in the median of the measures of uncertainty.
    pub(in crate::cli) fn for_all(
        spreads: impl Iterator<Item = f64>,
        numbers: impl Iterator<Item = f64>,
        significant: usize,
    ) -> Digits {
        let largest = numbers.map(f64::abs).filter(|number| number.is_finite()).fold(0.0, f64::max);
        let mut spreads: Vec<f64> = spreads.filter(|&spread| spread > 0.0).collect();
        spreads.sort_by(f64::total_cmp);
        let typical = spreads.get(spreads.len() / 2).copied().unwrap_or(largest);
        Digits::new(typical, largest, significant)
    }

    /// A number, or a dash if there is none.
    pub(in crate::cli) fn value(self, number: impl Into<Option<f64>>) -> String {
        let Some(number) = number.into().filter(|number| number.is_finite()) else { return NOTHING.to_owned() };
        let text = match self {
            Digits::Decimals(decimals) => format!("{number:.decimals$}"),
            Digits::Exponent(decimals) if number != 0.0 => format!("{number:.decimals$e}"),
            Digits::Exponent(_) => "0".to_owned(),
        };
        let is_zero = text.chars().all(|c| matches!(c, '-' | '0' | '.'));
        if is_zero { text.replace('-', "") } else { text }
    }

    /// A measure of uncertainty, which is never shown as 0 unless it is 0.
    pub(in crate::cli) fn spread(self, number: impl Into<Option<f64>>) -> String {
        let number = number.into();
        let text = self.value(number);
        match number {
            Some(spread) if spread > 0.0 && text.parse() == Ok(0.0) => format!("{spread:.0e}"),
            _ => text,
        }
    }
}

/// The exponent of the leading digit; `None` for 0 and what is not finite.
fn order(number: f64) -> Option<i32> {
    let order = number.abs().log10().floor();
    order.is_finite().then_some(order as i32)
}

/// A single number, rounded to this many significant digits.
pub(in crate::cli) fn rounded(number: f64, significant: usize) -> String {
    match number {
        0.0 => "0".to_owned(),
        _ => Digits::new(number, number, significant).value(number),
    }
}

/// A share, as a percentage.
pub(in crate::cli) fn percent(share: f64) -> String {
    match 100.0 * share {
        percent if percent != 0.0 && percent.abs() < 9.95 => format!("{}%", rounded(percent, 2)),
        percent => format!("{percent:.0}%"),
    }
}

/// A probability, never shown as exactly 0 or 1.
pub(in crate::cli) fn probability(probability: f64) -> String {
    match probability {
        p if p < 0.0005 => "<0.001".to_owned(),
        p if p >= 0.9995 => ">0.999".to_owned(),
        p => Digits::Decimals(3).value(p),
    }
}
