//! The probability that one competitor is ahead of all others, which is that of an orthant of their differences, by separation of
//! variables (Genz, J. Comput. Graph. Stat. 1, 1992): one difference after the other is drawn where it is positive, given those before,
//! and the product of the probabilities that it is positive is averaged over the draws.
//!
//! The least probable difference comes first, given what is expected of those before (Gibson, Glasbey & Elston, in Advances in
//! Numerical Methods and Applications, 1994). After as many as a point has coordinates, those left are taken as independent given these.

use super::lattice::{self, DIMENSIONS};
use super::normal::{hazard_and_distribution, quantile};

/// Points that are handled at once.
const LANES: usize = 64;

/// A difference whose mean is so many of its standard deviations above 0 is left out: it is negative with a probability of 3e-7.
const CERTAIN: f64 = 5.0;

/// The smallest standard deviation of a difference given those before, in its own.
const LEAST_SD: f64 = 1e-6;

/// All competitors of an experiment given a node: jointly normal.
pub(super) struct Competitors {
    pub(super) means: Vec<f64>,
    /// The variances of their differences, row by row. Covariances of differences are made of them, so that what all have in common
    /// cannot cancel.
    pub(super) variances: Vec<f64>,
}

impl Competitors {
    fn variance(&self, i: usize, j: usize) -> f64 {
        self.variances[i * self.means.len() + j]
    }

    /// The covariance of what `i` is ahead of `j` and of `k`.
    fn covariance(&self, i: usize, j: usize, k: usize) -> f64 {
        0.5 * (self.variance(i, j) + self.variance(i, k) - self.variance(j, k))
    }
}

/// A difference that has no place in the order yet.
struct Waiting {
    other: usize,
    /// Mean and variance, given what is expected of those that have.
    mean: f64,
    variance: f64,
    /// On the differences in order.
    loadings: Vec<f64>,
}

/// The differences between a competitor and all others, in order.
pub(super) struct Orthant {
    /// Each has its mean and then its loadings on those before, in units of its standard deviation given these.
    rows: Vec<Vec<f64>>,
    /// The smallest standard deviation of a difference given those before, in its own.
    pub(super) least_sd: f64,
}

impl Orthant {
    /// The differences between competitor `i` and the others.
    pub(super) fn new(competitors: &Competitors, i: usize) -> Orthant {
        let ahead = |other: usize| Waiting {
            other,
            mean: competitors.means[i] - competitors.means[other],
            variance: competitors.variance(i, other),
            loadings: Vec::new(),
        };
        let mut waiting: Vec<Waiting> = (0..competitors.means.len())
            .filter(|&other| other != i)
            .map(ahead)
            .filter(|next| next.mean <= CERTAIN * next.variance.sqrt())
            .collect();
        let mut orthant = Orthant { rows: Vec::with_capacity(waiting.len()), least_sd: 1.0 };
        while !waiting.is_empty() && orthant.rows.len() < DIMENSIONS {
            let z = |next: &Waiting| next.mean / next.variance.max(f64::MIN_POSITIVE).sqrt();
            let least = (0..waiting.len()).fold(0, |x, y| if z(&waiting[y]) < z(&waiting[x]) { y } else { x });
            let next = waiting.swap_remove(least);
            let sd = orthant.push(competitors, i, &next);
            let (expected, _) = hazard_and_distribution(next.mean / sd);
            for later in &mut waiting {
                let known: f64 = next.loadings.iter().zip(&later.loadings).map(|(x, y)| x * y).sum();
                let loading = (competitors.covariance(i, next.other, later.other) - known) / sd;
                later.mean += loading * expected;
                later.variance -= loading * loading;
                later.loadings.push(loading);
            }
        }
        for next in &waiting {
            orthant.push(competitors, i, next);
        }
        orthant
    }

    /// Appends a difference; returns its standard deviation given those before.
    fn push(&mut self, competitors: &Competitors, i: usize, next: &Waiting) -> f64 {
        let alone = competitors.variance(i, next.other).max(f64::MIN_POSITIVE).sqrt();
        let sd = next.variance.max(0.0).sqrt().max(LEAST_SD * alone);
        self.least_sd = self.least_sd.min(sd / alone);
        let mean = competitors.means[i] - competitors.means[next.other];
        self.rows.push([mean].iter().chain(&next.loadings).map(|x| x / sd).collect());
        sd
    }

    /// Adds up the probability, and its square, at `count` points from `first` on.
    pub(super) fn sums(&self, first: usize, count: usize) -> [f64; 2] {
        let mut sums = [0.0; 2];
        // What each lane draws of each difference: by how much less than its mean it is.
        let mut draws = [[0.0; LANES]; DIMENSIONS];
        for start in (first..first + count).step_by(LANES) {
            let lanes = LANES.min(first + count - start);
            let mut product = [1.0; LANES];
            for (place, row) in self.rows.iter().enumerate() {
                let (earlier, draws) = draws.split_at_mut(place.min(DIMENSIONS));
                let mut z = [row[0]; LANES];
                for (loading, draws) in row[1..].iter().zip(earlier) {
                    z[..lanes].iter_mut().zip(&draws[..lanes]).for_each(|(z, draw)| *z -= loading * draw);
                }
                let product = z[..lanes].iter_mut().zip(&mut product[..lanes]);
                match draws.first_mut() {
                    Some(draws) if place + 1 < self.rows.len() => {
                        lattice::fill(place, start, &mut draws[..lanes]);
                        for ((z, product), draw) in product.zip(&mut draws[..lanes]) {
                            let (_, positive) = hazard_and_distribution(*z);
                            *product *= positive;
                            *draw = quantile(positive * *draw);
                        }
                    }
                    _ => product.for_each(|(z, product)| *product *= hazard_and_distribution(*z).1),
                }
            }
            for probability in &product[..lanes] {
                sums[0] += probability;
                sums[1] += probability * probability;
            }
        }
        sums
    }
}
