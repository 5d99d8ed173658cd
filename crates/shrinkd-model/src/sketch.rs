//! The likelihood sketch: all that the marginal likelihood of a population of any size needs, in a few cells of integers
//! that add and subtract without error.
//!
//! Components `(lambda, a, b)` of all blocks enter the likelihood through the sums over `log(lambda + t)`,
//! `a^2 / (lambda + t)`, `a b / (lambda + t)` and `b^2 / (lambda + t)`, t = tau^2. Within one octave of lambda,
//! `s <= lambda < 2 s`, write `u = 2 lambda / s - 3` in [-1, 1): then `1 / (lambda + t)` is a Chebyshev series in u whose
//! coefficients fall like `q^m`, `q = z - sqrt(z^2 - 1) <= 0.172`, `z = 3 + 2 t / s` (generating function of the
//! Chebyshev polynomials; Mason & Handscomb, Chebyshev Polynomials, 2003, section 1.4). So the moments
//! `X_m = sum x T_m(u)`, m < 20, of the four series x = 1, a^2, a b~, b~^2 determine the sums to 1e-15.
//!
//! **Promise.** A moment is a fixed-point sum in an i128: each contribution is rounded once, by integer arithmetic,
//! and the rest is addition in a group. Any order, any grouping into merged sketches and any addition that is later
//! subtracted leave the same bits, on every platform. Up to 2^40 effects cannot overflow:
//!
//! | series | a contribution is below | unit of the sum | 2^40 effects are below |
//! | --- | --- | --- | --- |
//! | 1 | 1 | 2^-62 | 2^102 |
//! | a^2 | 2^10 (`sum a^2` over a block is its size) | 2^-80 | 2^120 |
//! | a b~ | 2^27 | 2^-62 | 2^124 (Cauchy-Schwarz) |
//! | b~^2 | 2^44 | 2^-41 | 2^125 |
//!
//! `b~ = b / 2^floor(e/2)` with `s = 2^e` is the component in (half octaves of) its own standard errors; it must lie
//! below 2^22. A block with a component that does not fit is refused as a whole, and the sketch stays as it was.

use std::collections::BTreeMap;

use super::spectrum::Component;

/// Chebyshev moments a cell keeps of each series.
pub(crate) const MOMENTS: usize = 20;

/// Version of the arithmetic and of a cell's bytes: cells of different versions must not be added.
pub const ARITHMETIC_VERSION: u8 = 3;

/// Fixed-point units: a moment of series x counts `2^-BITS`.
pub(super) const COUNT_BITS: i32 = 62;
pub(super) const AA_BITS: i32 = 80;
pub(super) const AB_BITS: i32 = 62;
pub(super) const BB_BITS: i32 = 41;

/// Fixed-point units in which a component is rounded: a in 2^-58, b~ in 2^-40.
const A_BITS: i32 = 58;
const B_BITS: i32 = 40;

/// Moments of the four series of one octave: count, a^2, a b~, b~^2.
pub type Cell = [[i128; 4]; MOMENTS];

const EMPTY: Cell = [[0; 4]; MOMENTS];

/// The exact, order-free sum of the components of a population, by octave of lambda.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sketch {
    cells: BTreeMap<i16, Cell>,
}

/// A component that the fixed-point range does not hold.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum OutOfRange {
    #[error("a component's sampling variance is {0:e}: the range is 1e-100 to 1e100")]
    Lambda(f64),
    #[error("a component's loading on mu is {0}: blocks have at most 1,000 effects")]
    Loading(f64),
    #[error("a component lies {0:e} of its own standard errors from 0: at most 2 million fit")]
    Distance(f64),
}

impl Sketch {
    /// An empty sketch.
    pub fn new() -> Sketch {
        Sketch::default()
    }

    /// Adds the components of a block.
    ///
    /// # Errors
    /// Where a component does not fit; the sketch is then as it was.
    pub fn add(&mut self, components: &[Component]) -> Result<(), OutOfRange> {
        self.add_moments(components, MOMENTS)
    }

    /// Subtracts the components of a block: exactly what [`Sketch::add`] of the same components added.
    ///
    /// # Errors
    /// Where a component does not fit (it cannot have been added); the sketch is then as it was.
    pub fn subtract(&mut self, components: &[Component]) -> Result<(), OutOfRange> {
        self.subtract_moments(components, MOMENTS)
    }

    /// Adds the first moments of the components of a block.
    ///
    /// # Errors
    /// As [`Sketch::add`].
    pub(crate) fn add_moments(&mut self, components: &[Component], moments: usize) -> Result<(), OutOfRange> {
        self.apply(components, moments, i128::wrapping_add, i128::wrapping_sub)
    }

    /// Subtracts what [`Sketch::add_moments`] added.
    ///
    /// # Errors
    /// As [`Sketch::subtract`].
    pub(crate) fn subtract_moments(&mut self, components: &[Component], moments: usize) -> Result<(), OutOfRange> {
        self.apply(components, moments, i128::wrapping_sub, i128::wrapping_add)
    }

    /// Whether it holds nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// The sketch without the components of one of its blocks; `None` where it cannot have held them, because what is left in a
    /// cell is no sum over components.
    pub(crate) fn without(&self, components: &[Component]) -> Option<Sketch> {
        let mut rest = self.clone();
        rest.subtract(components).ok()?;
        // No Chebyshev polynomial leaves [-1, 1], so that no moment of what is not negative is above the zeroth. Roundings add
        // up to less than the margin.
        let is_sum = |cell: &Cell| {
            let effects = cell[0][0] >> COUNT_BITS;
            effects > 0
                && [0, 1, 3].into_iter().all(|x| {
                    let margin = (cell[0][x] >> 40) + 64 * effects;
                    cell.iter().all(|moment| moment[x].abs() <= cell[0][x] + margin)
                })
        };
        rest.cells.values().all(is_sum).then_some(rest)
    }

    /// Adds another sketch, cell by cell.
    pub fn merge(&mut self, other: &Sketch) {
        for (&octave, cell) in &other.cells {
            self.add_cell(octave, cell);
        }
    }

    /// The cells by octave `e`, `2^e <= lambda < 2^(e+1)`, ascending; none is all zero.
    pub fn cells(&self) -> impl Iterator<Item = (i16, &Cell)> {
        self.cells.iter().map(|(&octave, cell)| (octave, cell))
    }

    /// The cell of an octave; `None` where it is all zero.
    pub fn cell(&self, octave: i16) -> Option<&Cell> {
        self.cells.get(&octave)
    }

    /// The sketch of the same components with the sign of every effect turned.
    pub(crate) fn mirrored(&self) -> Sketch {
        let mirrored = |cell: &Cell| cell.map(|[count, aa, ab, bb]| [count, aa, ab.wrapping_neg(), bb]);
        Sketch { cells: self.cells.iter().map(|(&octave, cell)| (octave, mirrored(cell))).collect() }
    }

    /// Adds one cell. A cell that adds up to zero is removed.
    pub fn add_cell(&mut self, octave: i16, cell: &Cell) {
        self.update(octave, |mine| {
            for (x, y) in mine.iter_mut().flatten().zip(cell.iter().flatten()) {
                *x = x.wrapping_add(*y);
            }
        });
    }

    /// Checks that a component fits.
    ///
    /// # Errors
    /// The property of the component that does not fit.
    pub fn check(component: &Component) -> Result<(), OutOfRange> {
        Quantised::new(component).map(drop)
    }

    /// Number of components, which is the number of effects.
    pub fn effects(&self) -> u64 {
        let total: i128 = self.cells.values().map(|cell| cell[0][0]).sum();
        u64::try_from(total >> COUNT_BITS).unwrap_or(0)
    }

    /// The octave of the median sampling variance; `None` without effects.
    pub(crate) fn median_octave(&self) -> Option<i16> {
        let counts = || self.cells().map(|(octave, cell)| (octave, cell[0][0]));
        let total: i128 = counts().map(|(_, count)| count).sum();
        let mut below = 0;
        counts().find_map(|(octave, count)| {
            below += count;
            (2 * below >= total).then_some(octave)
        })
    }

    /// Combines one component after the other; where one does not fit, those before it are undone.
    fn apply(
        &mut self,
        components: &[Component],
        moments: usize,
        combine: impl Fn(i128, i128) -> i128,
        invert: impl Fn(i128, i128) -> i128,
    ) -> Result<(), OutOfRange> {
        for (done, component) in components.iter().enumerate() {
            match Quantised::new(component) {
                Ok(quantised) => {
                    self.update(quantised.octave, |cell| quantised.accumulate(&mut cell[..moments], &combine))
                }
                Err(error) => {
                    for quantised in components[..done].iter().filter_map(|earlier| Quantised::new(earlier).ok()) {
                        self.update(quantised.octave, |cell| quantised.accumulate(&mut cell[..moments], &invert));
                    }
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn update(&mut self, octave: i16, change: impl FnOnce(&mut Cell)) {
        let cell = self.cells.entry(octave).or_insert(EMPTY);
        change(cell);
        if *cell == EMPTY {
            self.cells.remove(&octave);
        }
    }
}

/// Appends a cell: a byte that says how many moments follow, up to the last that is not zero, and of each two bytes with the
/// lengths of its four integers, four bits each, and these integers, little endian, in as few bytes as hold them.
pub fn cell_to_bytes(cell: &Cell, bytes: &mut Vec<u8>) {
    let moments = cell.iter().rposition(|moment| *moment != [0; 4]).map_or(0, |last| last + 1);
    bytes.push(moments as u8);
    for moment in &cell[..moments] {
        let lengths = moment.map(length);
        bytes.extend([0, 2].map(|i| code(lengths[i]) | code(lengths[i + 1]) << 4));
        for (x, length) in moment.iter().zip(lengths) {
            bytes.extend(&x.to_le_bytes()[..length]);
        }
    }
}

/// Reads what [`cell_to_bytes`] appended, from the beginning of `bytes`, which begins after it then; `None` where that is nothing that it
/// writes.
pub fn cell_from_bytes(bytes: &mut &[u8]) -> Option<Cell> {
    let mut cell = EMPTY;
    let moments = usize::from(*bytes.split_off_first()?);
    for moment in cell.get_mut(..moments)? {
        let lengths = bytes.split_off(..2)?;
        for (i, x) in moment.iter_mut().enumerate() {
            let length = LENGTHS[usize::from(lengths[i / 2] >> (4 * (i % 2)) & 15)];
            let own = bytes.split_off(..length)?;
            let is_negative = own.last().is_some_and(|last| *last >= 128);
            let mut all = [if is_negative { 255 } else { 0 }; 16];
            all[..length].copy_from_slice(own);
            *x = i128::from_le_bytes(all);
            if self::length(*x) != length {
                return None;
            }
        }
    }
    let is_shortest = moments == 0 || cell[moments - 1] != [0; 4];
    is_shortest.then_some(cell)
}

/// The lengths that four bits stand for. What is so large that it needs 15 bytes is written in 16.
const LENGTHS: [usize; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 16];

fn code(length: usize) -> u8 {
    length.min(15) as u8
}

/// How many bytes hold an integer in two's complement: none for 0.
fn length(x: i128) -> usize {
    let bits = if x == 0 { 0 } else { 129 - (x ^ (x >> 127)).leading_zeros() as usize };
    match bits.div_ceil(8) {
        15 => 16,
        bytes => bytes,
    }
}

/// A component in integers. Everything from here on is exact, or rounded in one stated place.
struct Quantised {
    octave: i16,
    /// `u` in 2^-62.
    u: i64,
    aa: i128,
    ab: i128,
    bb: i128,
}

impl Quantised {
    fn new(component: &Component) -> Result<Quantised, OutOfRange> {
        let Component { lambda, a, b } = *component;
        if !(1e-100..=1e100).contains(&lambda) {
            return Err(OutOfRange::Lambda(lambda));
        }
        // NaN fails both comparisons.
        let within = |x: f64, limit: f64| x.abs() < limit;
        if !within(a, 32.0) {
            return Err(OutOfRange::Loading(a));
        }
        let bits = lambda.to_bits();
        let octave = ((bits >> 52) & 0x7ff) as i16 - 1023;
        let b_scaled = b * power_of_two(-i32::from(half_octave(octave)));
        if !within(b_scaled, f64::from(1 << 22)) {
            return Err(OutOfRange::Distance(b_scaled));
        }
        // lambda / s = 1 + f with f the 52 bits of the fraction, so u = 2 f - 1 is exact.
        let fraction = (bits & ((1 << 52) - 1)) as i64;
        let a = i128::from((a * power_of_two(A_BITS)).round_ties_even() as i64);
        let b = i128::from((b_scaled * power_of_two(B_BITS)).round_ties_even() as i64);
        Ok(Quantised {
            octave,
            u: (fraction << 11) - (1 << 62),
            aa: shift_rounded(a * a, 2 * A_BITS - AA_BITS),
            ab: shift_rounded(a * b, A_BITS + B_BITS - AB_BITS),
            bb: shift_rounded(b * b, 2 * B_BITS - BB_BITS),
        })
    }

    fn accumulate(&self, cell: &mut [[i128; 4]], combine: impl Fn(i128, i128) -> i128) {
        let (mut previous, mut current) = (self.u, 1_i64 << 62); // T_{-1} = T_1 and T_0, in 2^-62
        for moment in cell {
            moment[0] = combine(moment[0], i128::from(current));
            moment[1] = combine(moment[1], times(self.aa, current));
            moment[2] = combine(moment[2], times(self.ab, current));
            moment[3] = combine(moment[3], times(self.bb, current));
            // T_{m+1} = 2 u T_m - T_{m-1}
            let next = shift_rounded(i128::from(self.u) * i128::from(current), 61) - i128::from(previous);
            (previous, current) = (current, next as i64);
        }
    }
}

/// `floor(e / 2)`: b~ is b in units of 2 to this power.
pub(super) fn half_octave(octave: i16) -> i16 {
    octave.div_euclid(2)
}

/// `2^exponent`, exact for normal numbers.
pub(super) fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((1023 + exponent) as u64) << 52)
}

/// `x / 2^bits`, rounded to nearest, halves up.
fn shift_rounded(x: i128, bits: i32) -> i128 {
    (x + (1 << (bits - 1))) >> bits
}

/// `x t / 2^62`, rounded to nearest, without overflow for |x| < 2^100: the parts of x above and below 2^62 in turn, each
/// a product of two words.
#[inline]
fn times(x: i128, t: i64) -> i128 {
    let (high, low) = ((x >> 62) as i64, x as i64 & ((1 << 62) - 1));
    i128::from(high) * i128::from(t) + shift_rounded(i128::from(low) * i128::from(t), 62)
}
