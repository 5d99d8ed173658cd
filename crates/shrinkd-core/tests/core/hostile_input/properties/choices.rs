//! Choices read from bytes. Where the bytes end every choice is the first, the plainest one.

pub struct Choices<'a>(&'a [u8]);

/// Numbers where something ends: the range of a float, of what is plausible, of whole numbers, of ratios.
const EDGES: [f64; 32] = [
    0.0,
    -0.0,
    5e-324,
    f64::MIN_POSITIVE,
    1e-308,
    1e-200,
    1e-154,
    1e-120,
    9.99e-101,
    1e-100,
    1.01e-100,
    1e-50,
    1e-12,
    1e-6,
    1.0 - f64::EPSILON / 2.0,
    1.0 + f64::EPSILON,
    -1.0,
    1e6,
    1.000001e6,
    9007199254740992.0,
    9223372036854775807.0,
    18446744073709551616.0,
    1e50,
    9.99e99,
    1e100,
    1.01e100,
    1e120,
    1e154,
    1e200,
    1e308,
    f64::MAX,
    -f64::MAX,
];

/// What a text is broken with: single bytes and words that mean something to a JSON parser or to ours.
pub const SPLINTERS: &[&[u8]] = &[
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b",",
    b":",
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b"\0",
    b"\xff",
    b"\xed\xa0\x80",
    b"-",
    b"1e400",
    b"NaN",
    b"\x80",
    b"\x7f",
    b"null",
    b"\xef\xbb\xbf",
];

impl<'a> Choices<'a> {
    pub fn new(bytes: &'a [u8]) -> Choices<'a> {
        Choices(bytes)
    }

    pub fn rest(&self) -> &'a [u8] {
        self.0
    }

    pub fn byte(&mut self) -> u8 {
        let Some((&byte, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        byte
    }

    pub fn below(&mut self, n: usize) -> usize {
        usize::from(self.byte()) % n
    }

    /// True for one byte in `n`, never where the bytes have ended.
    pub fn one_in(&mut self, n: u8) -> bool {
        self.byte() % n == n - 1
    }

    pub fn pick<T: Copy>(&mut self, options: &[T]) -> T {
        options[self.below(options.len())]
    }

    fn word(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }

    /// A number of a usual size, from 1/256 to 256 in steps, either sign.
    pub fn modest(&mut self) -> f64 {
        let byte = f64::from(self.byte());
        self.pick(&[1.0, 1.0 / 256.0, -1.0 / 64.0, 16.0]) * (byte + 1.0)
    }

    /// Any number: mostly modest, else at an edge, of any magnitude, or any bits at all (NaN among them).
    pub fn number(&mut self) -> f64 {
        match self.byte() % 8 {
            0..=3 => self.modest(),
            4 | 5 => self.pick(&EDGES),
            6 => {
                let exponent = f64::from(self.byte()) - 128.0;
                self.modest() * 10f64.powf(exponent)
            }
            _ => f64::from_bits(self.word()),
        }
    }

    /// A number above 0 from 1e-50 to 1e50.
    pub fn plausible(&mut self) -> f64 {
        let mantissa = 1.0 + f64::from(self.byte()) / 256.0;
        let exponent = if self.one_in(4) { f64::from(self.byte()) * 100.0 / 255.0 - 50.0 } else { 0.0 };
        mantissa * 10f64.powf(exponent)
    }

    /// Replaces, inserts or drops a few bytes.
    pub fn damage(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..1 + self.below(3) {
            let at = (usize::from(self.byte()) << 8 | usize::from(self.byte())) % (bytes.len() + 1);
            let end = (at + self.below(9)).min(bytes.len());
            match self.byte() % 3 {
                0 => _ = bytes.splice(at..end, [self.byte()]),
                1 => _ = bytes.splice(at..end, self.pick(SPLINTERS).iter().copied()),
                _ => _ = bytes.splice(at..end, self.word().to_le_bytes()),
            }
        }
    }
}
