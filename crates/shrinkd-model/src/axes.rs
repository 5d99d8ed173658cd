//! The eigendecomposition of a dense covariance, in plain scalar arithmetic: what a block adds to a sketch may be subtracted on
//! another machine, so that the same matrix must have the same axes to the last bit on every processor.
//!
//! The columns of the Cholesky factor are rotated in pairs until all are orthogonal (one-sided Jacobi; Hestenes, J. SIAM 6,
//! 1958). Their squared norms are the eigenvalues, the small ones to a relative accuracy that an eigendecomposition of the matrix
//! itself would lose (Demmel & Veselić, SIAM J. Matrix Anal. Appl. 13, 1992). Work: O(n^3) for each of some ten sweeps.
//!
//! Where true effects have an intraclass correlation, with the matrix `R` of `spectrum`, the same is done to `R^-1/2` times the
//! factor.

use std::rc::Rc;

use super::block::BlockError;
use super::spectrum::Component;

/// The lower Cholesky factor of an `n x n` matrix, column by column.
pub(super) struct CholeskyFactor {
    n: usize,
    columns: Vec<f64>,
}

impl CholeskyFactor {
    /// Factors a symmetric matrix, row by row, of which the lower triangle is read.
    ///
    /// # Errors
    /// [`BlockError::NotPositiveDefinite`].
    pub fn new(matrix: &[f64], n: usize) -> Result<CholeskyFactor, BlockError> {
        let mut columns = vec![0.0; n * n];
        for j in 0..n {
            let (before, after) = columns.split_at_mut(j * n);
            let column = &mut after[..n];
            for i in j..n {
                column[i] = matrix[i * n + j];
            }
            for earlier in before.chunks_exact(n) {
                let weight = earlier[j];
                for i in j..n {
                    column[i] -= earlier[i] * weight;
                }
            }
            let pivot = column[j].sqrt();
            if !(pivot > 0.0 && pivot.is_finite()) {
                return Err(BlockError::NotPositiveDefinite);
            }
            for x in &mut column[j..] {
                *x /= pivot;
            }
        }
        Ok(CholeskyFactor { n, columns })
    }

    /// `L^-1 x`.
    fn solve(&self, mut x: Vec<f64>) -> Vec<f64> {
        for (j, column) in self.columns.chunks_exact(self.n).enumerate() {
            x[j] /= column[j];
            let known = x[j];
            for i in j + 1..self.n {
                x[i] -= column[i] * known;
            }
        }
        x
    }

    /// What the variables before variable `i` leave of its variance.
    pub fn own_variance(&self, i: usize) -> f64 {
        let x = self.columns[i * self.n + i];
        x * x
    }
}

/// The axes of a positive-definite matrix `Sigma` and of `R = (1 - icc) I + icc 11'` at once: `Sigma = H diag(lambda) H'` and
/// `R = H H'`, the axes being the columns of `H = R^1/2 Q` with `Q diag(lambda) Q' = R^-1/2 Sigma R^-1/2`.
pub(super) struct Axes {
    /// Above 0 wherever the block's components fit a sketch.
    pub lambda: Vec<f64>,
    /// H, column by column.
    directions: Vec<f64>,
    /// `R^-1/2 Q`, the transpose of the inverse of H, where R is not the identity.
    duals: Option<Vec<f64>>,
}

impl Axes {
    /// The axes of an `n x n` matrix, row by row, and an intraclass correlation.
    ///
    /// # Errors
    /// [`BlockError::NotPositiveDefinite`].
    pub fn new(matrix: &[f64], n: usize, icc: f64) -> Result<Axes, BlockError> {
        let (order, CholeskyFactor { mut columns, .. }) = Order::factor(matrix, n, icc)?;
        let roots = Roots::new(n, icc);
        if let Some(roots) = &roots {
            columns.chunks_exact_mut(n).for_each(|column| roots.divide(column));
        }
        let mut lambda = Vec::with_capacity(n);
        orthogonalise(&mut columns, n, n)?;
        for column in columns.chunks_exact_mut(n) {
            let square: f64 = column.iter().map(|x| x * x).sum();
            let norm = square.sqrt();
            column.iter_mut().for_each(|x| *x /= norm);
            lambda.push(square);
        }
        let duals = roots.map(|roots| {
            order.undo(&mut columns);
            let mut duals = columns.clone();
            duals.chunks_exact_mut(n).for_each(|column| roots.divide(column));
            columns.chunks_exact_mut(n).for_each(|column| roots.multiply(column));
            duals
        });
        Ok(Axes { lambda, directions: columns, duals })
    }

    /// The axes of a diagonal matrix.
    pub fn of_diagonal(lambda: Vec<f64>) -> Axes {
        let n = lambda.len();
        let directions = (0..n * n).map(|at| f64::from(u8::from(at / n == at % n))).collect();
        Axes { lambda, directions, duals: None }
    }

    /// Column `j` of H.
    pub fn direction(&self, j: usize) -> &[f64] {
        self.column(&self.directions, j)
    }

    /// Row `j` of the inverse of H: what a vector has of direction `j` is the sum over the products with it.
    pub fn dual(&self, j: usize) -> &[f64] {
        self.column(self.duals.as_ref().unwrap_or(&self.directions), j)
    }

    fn column<'a>(&self, columns: &'a [f64], j: usize) -> &'a [f64] {
        let n = self.lambda.len();
        &columns[j * n..(j + 1) * n]
    }
}

/// The axes of one matrix at several intraclass correlations, each computed once.
pub(super) struct AxesByIcc<'a> {
    matrix: &'a [f64],
    n: usize,
    known: Vec<(f64, Rc<Axes>)>,
}

impl<'a> AxesByIcc<'a> {
    pub fn new(matrix: &'a [f64], n: usize) -> AxesByIcc<'a> {
        AxesByIcc { matrix, n, known: Vec::new() }
    }

    /// The axes at one of them.
    ///
    /// # Errors
    /// As for [`Axes::new`].
    pub fn at(&mut self, icc: f64) -> Result<Rc<Axes>, BlockError> {
        if let Some((_, axes)) = self.known.iter().find(|(known, _)| *known == icc) {
            return Ok(Rc::clone(axes));
        }
        let axes = Rc::new(Axes::new(self.matrix, self.n, icc)?);
        self.known.push((icc, Rc::clone(&axes)));
        Ok(axes)
    }
}

/// The components of effects with a dense covariance and an intraclass correlation.
///
/// With `R^-1/2 L V = Q diag(s)`, the coordinates `Q'R^-1/2 x` are `s V'(L^-1 x)`: formed like that, those along a small variance
/// keep their accuracy beside effects with a large one.
///
/// # Errors
/// [`BlockError::NotPositiveDefinite`].
pub(super) fn components(effects: &[f64], matrix: &[f64], icc: f64) -> Result<Vec<Component>, BlockError> {
    let n = effects.len();
    let (order, mut factor) = Order::factor(matrix, n, icc)?;
    let (ones, effects) = (factor.solve(vec![1.0; n]), factor.solve(order.apply(effects)));
    if let Some(roots) = Roots::new(n, icc) {
        factor.columns.chunks_exact_mut(n).for_each(|column| roots.divide(column));
    }
    let height = n + 2;
    let mut columns = Vec::with_capacity(n * height);
    for ((column, one), effect) in factor.columns.chunks_exact(n).zip(ones).zip(effects) {
        columns.extend_from_slice(column);
        columns.extend([one, effect]);
    }
    orthogonalise(&mut columns, height, n)?;
    let component = |column: &[f64]| {
        let lambda: f64 = column[..n].iter().map(|x| x * x).sum();
        let s = lambda.sqrt();
        Component { lambda, a: s * column[n], b: s * column[n + 1] }
    };
    Ok(columns.chunks_exact(height).map(component).collect())
}

/// The order in which effects are factored. `R^-1/2` mixes the rows of the factor, so that it is for the columns to keep small
/// variances apart from large ones: they do where the large ones come first. Where R is the identity it is the effects' own order,
/// by which what is stored was decomposed.
struct Order(Vec<usize>);

impl Order {
    /// The Cholesky factor of a matrix, in the order in which it is formed. Rounding may make a nearly singular matrix positive definite
    /// in one order and not in another: it is what it is in the effects' own.
    ///
    /// # Errors
    /// [`BlockError::NotPositiveDefinite`].
    fn factor(matrix: &[f64], n: usize, icc: f64) -> Result<(Order, CholeskyFactor), BlockError> {
        let own: Vec<usize> = (0..n).collect();
        if icc > 0.0 {
            let mut order = own.clone();
            order.sort_by(|&i, &j| matrix[j * n + j].total_cmp(&matrix[i * n + i]));
            let ordered: Vec<f64> = order.iter().flat_map(|&i| order.iter().map(move |&j| matrix[i * n + j])).collect();
            if let Ok(factor) = CholeskyFactor::new(&ordered, n) {
                return Ok((Order(order), factor));
            }
        }
        Ok((Order(own), CholeskyFactor::new(matrix, n)?))
    }

    fn apply(&self, x: &[f64]) -> Vec<f64> {
        self.0.iter().map(|&i| x[i]).collect()
    }

    /// Puts the numbers of every column back in the effects' own order.
    fn undo(&self, columns: &mut [f64]) {
        for column in columns.chunks_exact_mut(self.0.len()) {
            let ordered = column.to_vec();
            self.0.iter().zip(ordered).for_each(|(&i, x)| column[i] = x);
        }
    }
}

/// The roots of the eigenvalues of R: for the vector of ones, and for contrasts.
struct Roots {
    of_mean: f64,
    of_contrasts: f64,
}

impl Roots {
    /// `None` where R is the identity.
    fn new(n: usize, icc: f64) -> Option<Roots> {
        let of_mean = (1.0 + (n as f64 - 1.0) * icc).sqrt();
        (icc > 0.0).then(|| Roots { of_mean, of_contrasts: (1.0 - icc).sqrt() })
    }

    /// `R^1/2 x`.
    fn multiply(&self, x: &mut [f64]) {
        scale(x, self.of_mean, self.of_contrasts);
    }

    /// `R^-1/2 x`.
    fn divide(&self, x: &mut [f64]) {
        scale(x, 1.0 / self.of_mean, 1.0 / self.of_contrasts);
    }
}

/// Multiplies the mean of a vector and its deviations from it. What the deviations have of a mean is rounding, and counted with it.
fn scale(x: &mut [f64], mean_by: f64, deviations_by: f64) {
    let mut mean = 0.0;
    for _ in 0..2 {
        let rest = x.iter().sum::<f64>() / x.len() as f64;
        x.iter_mut().for_each(|x| *x -= rest);
        mean += rest;
    }
    x.iter_mut().for_each(|x| *x = deviations_by * *x + mean_by * mean);
}

/// Far more than convergence, which is quadratic in the end, has been seen to need.
const SWEEPS: u32 = 40;

/// Rotates columns of some height in pairs until the first `n` numbers of each are orthogonal to those of all others.
///
/// # Errors
/// [`BlockError::NotPositiveDefinite`] where they do not become so.
fn orthogonalise(columns: &mut [f64], height: usize, n: usize) -> Result<(), BlockError> {
    // A smaller cosine is the rounding of the sums that it is found by.
    let orthogonal = 4.0 * f64::EPSILON * (n as f64).sqrt();
    for _ in 0..SWEEPS {
        let mut is_orthogonal = true;
        for q in (height..columns.len()).step_by(height) {
            let (before, after) = columns.split_at_mut(q);
            for column in before.chunks_exact_mut(height) {
                is_orthogonal &= !rotate(column, &mut after[..height], n, orthogonal);
            }
        }
        if is_orthogonal {
            return Ok(());
        }
    }
    Err(BlockError::NotPositiveDefinite)
}

/// Makes two columns orthogonal, unless the cosine between them is as small as `orthogonal`; whether it had to.
fn rotate(x: &mut [f64], y: &mut [f64], n: usize, orthogonal: f64) -> bool {
    let (mut xx, mut yy, mut xy) = (0.0, 0.0, 0.0);
    for (x, y) in x[..n].iter().zip(&y[..n]) {
        xx += x * x;
        yy += y * y;
        xy += x * y;
    }
    if xy.abs() <= orthogonal * xx.sqrt() * yy.sqrt() {
        return false;
    }
    // The smaller of the two angles that do it (Rutishauser, Numerische Mathematik 9, 1966).
    let cotangent = (yy - xx) / (2.0 * xy);
    let tangent = 1.0_f64.copysign(cotangent) / (cotangent.abs() + root(cotangent));
    let cosine = 1.0 / root(tangent);
    let sine = cosine * tangent;
    for (x, y) in x.iter_mut().zip(y) {
        (*x, *y) = (cosine * *x - sine * *y, sine * *x + cosine * *y);
    }
    true
}

/// `sqrt(1 + x^2)`, also where the square overflows.
fn root(x: f64) -> f64 {
    if x.abs() < 1e8 { (1.0 + x * x).sqrt() } else { x.abs() }
}
