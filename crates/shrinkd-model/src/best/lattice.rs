//! Points of a cube that fill it evenly: the Kronecker sequence of the square roots of primes (Richtmyer's generators, as in Genz &
//! Bretz, Computation of Multivariate Normal and t Probabilities, 2009, section 4.2), in integers, so that nothing is rounded.

use std::sync::OnceLock;

/// The largest number of coordinates.
pub(super) const DIMENSIONS: usize = 32;

/// Fills `coordinates` with coordinate `axis` of the points from `first` on. A tent maps both ends of the sequence's circle to 0,
/// which makes an integrand continuous there (Hickernell, in Monte Carlo and Quasi-Monte Carlo Methods 2000, 2002).
pub(super) fn fill(axis: usize, first: usize, coordinates: &mut [f64]) {
    const ONE: u64 = 0x3ff0_0000_0000_0000;
    let step = generators()[axis];
    let mut place = step.wrapping_mul(first as u64).wrapping_add(step / 2);
    for coordinate in coordinates {
        // The upper bits as a number in [0, 1).
        let along = f64::from_bits((place >> 12) | ONE) - 1.0;
        *coordinate = 1.0 - (2.0 * along - 1.0).abs();
        place = place.wrapping_add(step);
    }
}

/// The fractional parts of the square roots of the first primes, in units of 2^-64.
fn generators() -> &'static [u64; DIMENSIONS] {
    const UNITS: f64 = 18_446_744_073_709_551_616.0;
    static GENERATORS: OnceLock<[u64; DIMENSIONS]> = OnceLock::new();
    GENERATORS.get_or_init(|| {
        let mut primes = primes();
        std::array::from_fn(|_| (primes.next().map_or(0.0, |prime| (prime as f64).sqrt()).fract() * UNITS) as u64)
    })
}

fn primes() -> impl Iterator<Item = usize> {
    (2..).filter(|&p| (2..).take_while(|d| d * d <= p).all(|d| p % d != 0))
}
