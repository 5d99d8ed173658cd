//! A block: the effects of one experiment on one metric, with their joint sampling covariance.
//!
//! The variants of an experiment are compared with one control, so its error is in every effect: the sampling covariance is
//! `Sigma = diag(d) + c 11'` with `d_i` the treatment's own variance and `c` the control's (Gleser & Olkin, "Stochastically
//! dependent effect sizes", Handbook of Research Synthesis, 1994/2009). Where more is known, the covariance is any dense
//! positive-definite matrix.

use serde::{Deserialize, Serialize};

use super::axes::CholeskyFactor;
use super::spectrum::{self, Component};

/// Effects of one experiment and their sampling covariance, validated: everything finite, the covariance positive
/// definite. Units: effects in the unit of the scale, variances in its square.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Block {
    effects: Vec<f64>,
    covariance: Covariance,
}

/// The least share of an effect's variance that the effects before it may leave. Of effects that determine each other, as all
/// pairwise contrasts of an experiment do, rounding alone would decide what is left, and that would be taken for precision.
const LEAST_OWN_VARIANCE: f64 = 1e-10;

/// A block as it was stored, which is validated again because stored bytes can be damaged.
#[derive(Deserialize)]
struct Unchecked {
    effects: Vec<f64>,
    covariance: Covariance,
}

impl TryFrom<Unchecked> for Block {
    type Error = BlockError;

    fn try_from(Unchecked { effects, covariance }: Unchecked) -> Result<Block, BlockError> {
        match covariance {
            Covariance::SharedControl { treatment_variances, control_variance } => {
                Block::shared_control(effects, treatment_variances, control_variance)
            }
            Covariance::Dense { matrix } => Block::dense(effects, matrix),
        }
    }
}

/// Sampling covariance of a block's effects.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Covariance {
    /// `diag(d) + c 11'`: every variant against one shared control, whose error is in every effect alike.
    SharedControl {
        /// `d`, the treatments' own sampling variances, each > 0.
        treatment_variances: Vec<f64>,
        /// `c`, the control's sampling variance, >= 0.
        control_variance: f64,
    },
    /// Any symmetric positive-definite matrix, n x n, row by row.
    Dense { matrix: Vec<f64> },
}

/// Why numbers do not make a block.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum BlockError {
    #[error("a block needs at least one effect")]
    Empty,
    #[error("{what} has {found} numbers where {expected} effects need {expected_numbers}")]
    Length { what: &'static str, found: usize, expected: usize, expected_numbers: usize },
    #[error("{what} of effect {index} is {value}: it must be finite")]
    NonFinite { what: &'static str, index: usize, value: f64 },
    #[error("the sampling variance of effect {index} is {value}: it must be above 0")]
    NonPositiveVariance { index: usize, value: f64 },
    #[error("the control's sampling variance is {0}: it must be 0 or more")]
    NegativeControlVariance(f64),
    #[error("the covariance is not symmetric between effects {row} and {column}")]
    NotSymmetric { row: usize, column: usize },
    #[error("the covariance is not positive definite")]
    NotPositiveDefinite,
}

impl Block {
    /// A block of effects against one shared control, `Sigma = diag(d) + c 11'`.
    ///
    /// # Errors
    /// Where lengths differ, a number is not finite, a treatment's variance is not above 0 or the control's is below 0.
    pub fn shared_control(
        effects: Vec<f64>,
        treatment_variances: Vec<f64>,
        control_variance: f64,
    ) -> Result<Block, BlockError> {
        let n = check_effects(&effects)?;
        check_numbers("treatment_variances", &treatment_variances, n, n)?;
        if let Some(index) = treatment_variances.iter().position(|&d| d <= 0.0) {
            return Err(BlockError::NonPositiveVariance { index, value: treatment_variances[index] });
        }
        check_numbers("control_variance", &[control_variance], 1, 1)?;
        if control_variance < 0.0 {
            return Err(BlockError::NegativeControlVariance(control_variance));
        }
        Ok(Block { effects, covariance: Covariance::SharedControl { treatment_variances, control_variance } })
    }

    /// A block with a dense sampling covariance, `n x n`, row by row. The mean of the matrix and its transpose is kept.
    ///
    /// # Errors
    /// Where lengths differ, a number is not finite, the matrix is not symmetric to 1e-9 of `sqrt(S_ii S_jj)`, its Cholesky
    /// factorisation fails, or the effects before it determine one to all but 1e-10 of its variance.
    pub fn dense(effects: Vec<f64>, mut matrix: Vec<f64>) -> Result<Block, BlockError> {
        let n = check_effects(&effects)?;
        check_numbers("covariance", &matrix, n, n * n)?;
        if let Some(index) = (0..n).find(|&i| matrix[i * n + i] <= 0.0) {
            return Err(BlockError::NonPositiveVariance { index, value: matrix[index * n + index] });
        }
        for row in 0..n {
            for column in 0..row {
                let (lower, upper) = (matrix[row * n + column], matrix[column * n + row]);
                let scale = matrix[row * n + row].sqrt() * matrix[column * n + column].sqrt();
                if (lower - upper).abs() > 1e-9 * scale {
                    return Err(BlockError::NotSymmetric { row, column });
                }
                let mean = f64::midpoint(lower, upper);
                matrix[row * n + column] = mean;
                matrix[column * n + row] = mean;
            }
        }
        let factor = CholeskyFactor::new(&matrix, n)?;
        let is_left = |i: usize| factor.own_variance(i) > LEAST_OWN_VARIANCE * matrix[i * n + i];
        if !(0..n).all(is_left) {
            return Err(BlockError::NotPositiveDefinite);
        }
        Ok(Block { effects, covariance: Covariance::Dense { matrix } })
    }

    /// How many effects the block has: at least one.
    #[expect(clippy::len_without_is_empty, reason = "a block is never empty")]
    pub fn len(&self) -> usize {
        self.effects.len()
    }

    /// The raw effects, in the unit of the scale.
    pub fn effects(&self) -> &[f64] {
        &self.effects
    }

    /// Their joint sampling covariance.
    pub fn covariance(&self) -> &Covariance {
        &self.covariance
    }

    /// `Sigma_ii`: the total sampling variance of effect `i`, the control's part included.
    pub fn sampling_variance(&self, i: usize) -> f64 {
        match &self.covariance {
            Covariance::SharedControl { treatment_variances, control_variance } => {
                treatment_variances[i] + control_variance
            }
            Covariance::Dense { matrix } => matrix[i * self.len() + i],
        }
    }

    /// `Sigma_ij`: the sampling covariance of effects `i` and `j`.
    pub fn sampling_covariance(&self, i: usize, j: usize) -> f64 {
        if i == j {
            return self.sampling_variance(i);
        }
        match &self.covariance {
            Covariance::SharedControl { control_variance, .. } => *control_variance,
            Covariance::Dense { matrix } => matrix[i * self.len() + j],
        }
    }

    /// The block's independent components, as many as its effects, where these are independent given mu.
    ///
    /// # Errors
    /// [`BlockError::NotPositiveDefinite`] where the decomposition of a dense matrix fails.
    pub fn components(&self) -> Result<Vec<Component>, BlockError> {
        self.components_at(0.0)
    }

    /// The block's independent components where its true effects have an intraclass correlation `icc`, from 0 to below 1. The
    /// determinant of the effects' covariance is the product of `lambda + tau^2` times
    /// `|R| = (1 - icc)^(n-1) (1 + (n - 1) icc)`. One effect has the same component whatever `icc` is.
    ///
    /// `sum b^2 / lambda` is that at any other `icc`, `sum a^2` is n over `1 + (n - 1) icc`, and `lambda` is within the smallest at 0
    /// over `1 + (n - 1) icc` and the largest over `1 - icc`. So what is within a sketch's range at 0 is within it at every `icc`,
    /// except within such a factor of its ends.
    ///
    /// # Errors
    /// [`BlockError::NotPositiveDefinite`] where the decomposition of a dense matrix fails.
    pub fn components_at(&self, icc: f64) -> Result<Vec<Component>, BlockError> {
        spectrum::components(&self.effects, &self.covariance, icc)
    }

    /// The same effects with the off-diagonals dropped: the naive model, each effect with its total sampling variance.
    pub fn independent(&self) -> Block {
        let n = self.len();
        Block {
            effects: self.effects.clone(),
            covariance: Covariance::SharedControl {
                treatment_variances: (0..n).map(|i| self.sampling_variance(i)).collect(),
                control_variance: 0.0,
            },
        }
    }

    /// The same with the sign of every effect turned.
    pub(crate) fn mirrored(&self) -> Block {
        Block { effects: self.effects.iter().map(|effect| -effect).collect(), covariance: self.covariance.clone() }
    }

    /// Effect `i` alone, with its total sampling variance.
    pub fn single(&self, i: usize) -> Block {
        Block {
            effects: vec![self.effects[i]],
            covariance: Covariance::SharedControl {
                treatment_variances: vec![self.sampling_variance(i)],
                control_variance: 0.0,
            },
        }
    }
}

fn check_effects(effects: &[f64]) -> Result<usize, BlockError> {
    if effects.is_empty() {
        return Err(BlockError::Empty);
    }
    check_numbers("estimate", effects, effects.len(), effects.len())?;
    Ok(effects.len())
}

fn check_numbers(what: &'static str, numbers: &[f64], n: usize, expected_numbers: usize) -> Result<(), BlockError> {
    if numbers.len() != expected_numbers {
        return Err(BlockError::Length { what, found: numbers.len(), expected: n, expected_numbers });
    }
    match numbers.iter().position(|x| !x.is_finite()) {
        Some(index) => Err(BlockError::NonFinite { what, index, value: numbers[index] }),
        None => Ok(()),
    }
}
