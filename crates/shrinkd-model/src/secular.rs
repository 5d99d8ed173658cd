//! Secular equations, which have the eigenvalues of a diagonal plus a rank-one matrix for roots: see `spectrum`.

/// A secular equation, `constant + sum_i z_i^2 / (d_i - x) = 0`, its poles by ascending `d`, all distinct. The constant is 1 or 0: it
/// has a root above each pole, or between each two.
pub(super) struct Equation {
    pub poles: Vec<Pole>,
    pub constant: f64,
}

/// A direction with its own variance `d`, its weight `z` in the equation, and the coordinate of the effects in it: the sum of
/// the `m` effects that have this variance, with weight `sqrt(c m)` or `sqrt(m)`.
pub(super) struct Pole {
    pub d: f64,
    pub z: f64,
    pub b: f64,
}

/// An eigenvalue as its distance from the pole that is nearest to it, which rounding cannot blur.
pub(super) struct Root {
    origin: usize,
    offset: f64,
}

impl Root {
    pub fn value(&self, poles: &[Pole]) -> f64 {
        poles[self.origin].d + self.offset
    }

    /// `d - lambda`, to full relative accuracy.
    pub fn distance_to(&self, poles: &[Pole], d: f64) -> f64 {
        (d - poles[self.origin].d) - self.offset
    }
}

/// Steps of the rational iteration, which needs three or four; after these the bracket is halved.
const RATIONAL_STEPS: u32 = 20;
/// Enough to halve the exponents of any bracket, and then its mantissas.
const STEPS: u32 = 200;

impl Equation {
    /// How many roots it has.
    pub fn roots(&self) -> usize {
        self.poles.len() + usize::from(self.constant > 0.0) - 1
    }

    /// Root `j`: between pole `j` and the next, or above the last.
    pub fn root(&self, j: usize) -> Root {
        let poles = &self.poles[..];
        let square = |pole: &Pole| pole.z * pole.z;
        let gap = match poles.get(j + 1) {
            Some(next) => next.d - poles[j].d,
            None => poles.iter().map(square).sum(),
        };
        let is_last = j + 1 == poles.len();
        if is_last && j == 0 {
            return Root { origin: 0, offset: gap };
        }
        let is_lower_half = is_last || self.at(j, j, 0.5 * gap).value >= 0.0;
        let origin = if is_lower_half { j } else { j + 1 };
        // How near to its pole the root can be: the other poles, at least half as far away as they are from this one, balance it.
        let (nearby, constant, others) = match is_lower_half {
            true => (&poles[j], self.constant, &poles[j + 1..]),
            false => (&poles[j + 1], 0.0, &poles[..=j]),
        };
        let balance: f64 =
            constant + others.iter().map(|pole| 2.0 * square(pole) / (pole.d - nearby.d).abs()).sum::<f64>();
        let nearest = (square(nearby) / balance).min(0.5 * gap);
        let farthest = if is_last { gap } else { 0.5 * gap };
        let (mut low, mut high) = if is_lower_half { (nearest, farthest) } else { (-farthest, -nearest) };
        let mut offset = 0.5 * (low + high);
        for step in 0..STEPS {
            let secular = self.at(origin, j, offset);
            if secular.value.abs() <= 4.0 * f64::EPSILON * secular.magnitude {
                break;
            }
            if secular.value < 0.0 {
                low = offset;
            } else {
                high = offset;
            }
            // The geometric mean, because the ends can be many powers of ten apart.
            let middle = (low.abs().sqrt() * high.abs().sqrt()).copysign(high);
            let proposal = offset + secular.step(poles, origin, j, offset);
            let next = if step < RATIONAL_STEPS && proposal > low && proposal < high { proposal } else { middle };
            if next == offset || next <= low || next >= high {
                break;
            }
            offset = next;
        }
        Root { origin, offset }
    }

    fn at(&self, origin: usize, j: usize, offset: f64) -> Secular {
        let (poles, constant) = (&self.poles, self.constant);
        let sum = |poles_on_one_side: &[Pole]| {
            poles_on_one_side.iter().fold((0.0, 0.0), |(value, slope), pole| {
                let ratio = pole.z / ((pole.d - poles[origin].d) - offset);
                (value + pole.z * ratio, slope + ratio * ratio)
            })
        };
        let (below, above) = (sum(&poles[..=j]), sum(&poles[j + 1..]));
        let value = constant + below.0 + above.0;
        Secular { constant, value, magnitude: constant + below.0.abs() + above.0.abs(), below, above }
    }

    /// The weight of pole `i` for which the computed roots are the exact ones: eigenvectors made of these are orthogonal to working
    /// precision.
    pub fn refined_weight(&self, roots: &[Root], i: usize) -> f64 {
        let (poles, d) = (&self.poles, self.poles[i].d);
        // As many roots as poles fit the equation's constant, one less the sum of its weights.
        let has_last = roots.len() == poles.len();
        let mut square =
            if has_last { -roots[i].distance_to(poles, d) } else { poles.iter().map(|pole| pole.z * pole.z).sum() };
        for (j, pole) in poles.iter().enumerate() {
            if j != i {
                let root = &roots[if has_last || j < i { j } else { j - 1 }];
                square *= root.distance_to(poles, d) / (d - pole.d);
            }
        }
        square.max(0.0).sqrt()
    }
}

/// A secular function with its parts below and above the root.
struct Secular {
    constant: f64,
    value: f64,
    /// Sum of the absolute values of its terms: what its rounding error is measured against.
    magnitude: f64,
    below: (f64, f64),
    above: (f64, f64),
}

impl Secular {
    /// The step to the root of the rational function with poles at `j` and `j + 1` that has this value and slopes.
    fn step(&self, poles: &[Pole], origin: usize, j: usize, offset: f64) -> f64 {
        let to_pole = |i: usize| (poles[i].d - poles[origin].d) - offset;
        let left = to_pole(j);
        let constant_below = self.constant + self.below.0 - left * self.below.1;
        if j + 1 == poles.len() {
            // constant + q / (left - step) = 0 with q = left^2 slope
            return left + left * left * self.below.1 / constant_below;
        }
        let right = to_pole(j + 1);
        let constant = constant_below + self.above.0 - right * self.above.1;
        let linear = constant * (left + right) + left * left * self.below.1 + right * right * self.above.1;
        let root = (linear * linear - 4.0 * constant * left * right * self.value).max(0.0).sqrt();
        if linear > 0.0 {
            2.0 * left * right * self.value / (linear + root)
        } else {
            (linear - root) / (2.0 * constant)
        }
    }
}
