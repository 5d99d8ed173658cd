//! Sums and products of about 106 bits as an unevaluated pair of f64: what it takes to move the centre of a sketch without
//! cancellation (Dekker, Numerische Mathematik 18, 1971; Knuth, TAOCP 2, section 4.2.2).

/// The unevaluated sum `high + low`, `|low| <= ulp(high) / 2`.
#[derive(Debug, Clone, Copy)]
pub(super) struct DoubleDouble {
    high: f64,
    low: f64,
}

impl DoubleDouble {
    /// The integer `x`, rounded to 106 bits.
    pub(super) fn from_integer(x: i128) -> DoubleDouble {
        let high = x as f64;
        // A rounded-up i128::MAX does not convert back; sums stay below 2^126.
        let low = x.wrapping_sub(high as i128) as f64;
        DoubleDouble { high, low }
    }

    /// `self x`, relative error about 2^-102.
    pub(super) fn times(self, x: f64) -> DoubleDouble {
        let product = self.high * x;
        let (a, b) = (split(self.high), split(x));
        let error = ((a.0 * b.0 - product) + a.0 * b.1 + a.1 * b.0) + a.1 * b.1;
        normalised(product, error + self.low * x)
    }

    /// `self + other`.
    pub(super) fn plus(self, other: DoubleDouble) -> DoubleDouble {
        let sum = self.high + other.high;
        let shadow = sum - self.high;
        let error = (self.high - (sum - shadow)) + (other.high - shadow);
        normalised(sum, error + self.low + other.low)
    }

    /// The nearest f64.
    pub(super) fn value(self) -> f64 {
        self.high
    }
}

fn normalised(high: f64, low: f64) -> DoubleDouble {
    let sum = high + low;
    DoubleDouble { high: sum, low: low - (sum - high) }
}

/// Halves of 26 bits each, so that products of halves are exact.
fn split(x: f64) -> (f64, f64) {
    let scaled = 134_217_729.0 * x; // 2^27 + 1
    let high = scaled - (scaled - x);
    (high, x - high)
}
