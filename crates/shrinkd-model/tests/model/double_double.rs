//! Arithmetic of some 106 bits for oracles (Dekker, Numerische Mathematik 18, 1971), and dense algebra in it.

use std::ops::{Add, Div, Mul, Sub};

/// The unevaluated sum of two f64.
#[derive(Debug, Clone, Copy)]
pub struct Double(pub f64, pub f64);

fn normalised(high: f64, low: f64) -> Double {
    let sum = high + low;
    Double(sum, low - (sum - high))
}

impl From<f64> for Double {
    fn from(x: f64) -> Double {
        Double(x, 0.0)
    }
}

impl Add for Double {
    type Output = Double;

    fn add(self, other: Double) -> Double {
        let sum = self.0 + other.0;
        let shadow = sum - self.0;
        let error = (self.0 - (sum - shadow)) + (other.0 - shadow);
        normalised(sum, error + self.1 + other.1)
    }
}

impl Sub for Double {
    type Output = Double;

    fn sub(self, other: Double) -> Double {
        self + Double(-other.0, -other.1)
    }
}

impl Mul for Double {
    type Output = Double;

    fn mul(self, other: Double) -> Double {
        let product = self.0 * other.0;
        let error = self.0.mul_add(other.0, -product);
        normalised(product, error + self.0 * other.1 + self.1 * other.0)
    }
}

impl Div for Double {
    type Output = Double;

    fn div(self, other: Double) -> Double {
        let first = self.0 / other.0;
        let rest = self - other * Double::from(first);
        let second = rest.0 / other.0;
        normalised(first, second + (rest - other * Double::from(second)).0 / other.0)
    }
}

impl Double {
    pub fn sqrt(self) -> Double {
        let first = self.0.sqrt();
        if first == 0.0 {
            return Double::from(0.0);
        }
        normalised(first, (self - Double::from(first) * Double::from(first)).0 / (2.0 * first))
    }

    /// Its natural logarithm, in the precision of f64.
    pub fn ln(self) -> f64 {
        self.0.ln() + self.1 / self.0
    }
}

/// The lower Cholesky factor of a symmetric positive-definite matrix, row by row.
pub struct Cholesky {
    n: usize,
    rows: Vec<Double>,
}

impl Cholesky {
    pub fn new(n: usize, matrix: impl Fn(usize, usize) -> Double) -> Cholesky {
        let mut rows = vec![Double::from(0.0); n * n];
        for i in 0..n {
            for j in 0..=i {
                let (before, row) = rows.split_at(i * n);
                let other = if i == j { &row[..j] } else { &before[j * n..j * n + j] };
                let sum = row[..j].iter().zip(other).fold(matrix(i, j), |sum, (x, y)| sum - *x * *y);
                rows[i * n + j] = if i == j { sum.sqrt() } else { sum / rows[j * n + j] };
            }
        }
        Cholesky { n, rows }
    }

    pub fn log_det(&self) -> f64 {
        (0..self.n).map(|i| 2.0 * self.rows[i * self.n + i].ln()).sum()
    }

    /// The inverse of the factor times a vector.
    pub fn whiten(&self, x: &[Double]) -> Vec<Double> {
        let mut whitened: Vec<Double> = Vec::with_capacity(self.n);
        for (i, x) in x.iter().enumerate() {
            let row = &self.rows[i * self.n..];
            let rest = row.iter().zip(&whitened).fold(*x, |rest, (entry, y)| rest - *entry * *y);
            whitened.push(rest / row[i]);
        }
        whitened
    }

    /// The inverse of the matrix times a vector.
    pub fn solve(&self, x: &[Double]) -> Vec<Double> {
        let mut solved = self.whiten(x);
        for i in (0..self.n).rev() {
            solved[i] = solved[i] / self.rows[i * self.n + i];
            for j in 0..i {
                solved[j] = solved[j] - self.rows[i * self.n + j] * solved[i];
            }
        }
        solved
    }
}

pub fn dot(x: &[Double], y: &[Double]) -> Double {
    x.iter().zip(y).fold(Double::from(0.0), |sum, (x, y)| sum + *x * *y)
}
