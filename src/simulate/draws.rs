//! Random numbers that are the same on every platform.
//!
//! The generator is ChaCha8. Normal deviates come from Marsaglia and Bray's polar method (SIAM Review 6:260-264, 1964),
//! which needs only a logarithm and a square root: `libm`'s logarithm is the same code everywhere, and the square
//! root is exact. The `ln` and `exp` of the standard library differ in the last digit between platforms.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// A seeded source of uniform and normal deviates.
#[derive(Debug, Clone)]
pub struct Draws {
    generator: ChaCha8Rng,
    /// The polar method generates deviates in pairs; this is the second of the last pair.
    spare: Option<f64>,
}

impl Draws {
    /// The generator of a seed; different streams of one seed are independent.
    pub fn new(seed: u64, stream: u64) -> Draws {
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        generator.set_stream(stream);
        Draws { generator, spare: None }
    }

    /// Uniform on [0, 1), a multiple of 2^-53.
    pub fn uniform(&mut self) -> f64 {
        const STEP: f64 = 1.0 / (1u64 << 53) as f64;
        (self.generator.next_u64() >> 11) as f64 * STEP
    }

    /// Uniform on [low, high).
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// True with the given probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.uniform() < probability
    }

    /// One of the options, all equally likely; `None` if there are none.
    pub fn pick<T: Copy>(&mut self, options: &[T]) -> Option<T> {
        let index = (self.uniform() * options.len() as f64) as usize;
        options.get(index).copied()
    }

    /// A standard normal deviate.
    pub fn standard_normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        loop {
            let (x, y) = (self.between(-1.0, 1.0), self.between(-1.0, 1.0));
            let square = x * x + y * y;
            if square > 0.0 && square < 1.0 {
                let stretch = (-2.0 * libm::log(square) / square).sqrt();
                self.spare = Some(y * stretch);
                return x * stretch;
            }
        }
    }

    /// A normal deviate with the given mean and standard deviation.
    pub fn normal(&mut self, mean: f64, sd: f64) -> f64 {
        mean + sd * self.standard_normal()
    }
}
