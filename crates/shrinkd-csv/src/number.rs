//! Numbers as people write them, as JSON writes them: `1,234.5`, `1.234,5`, `12.5%`, `.5`, `+3`.
//!
//! The digits are kept: nothing is rounded here.

/// The sign between whole and fractional digits, the same in the whole file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DecimalMark {
    Point,
    Comma,
}

/// What a cell of a column of numbers holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Read {
    /// A number, written to the output.
    Number,
    /// Nothing, or one of the words for it.
    Absent,
    /// Something else.
    Unreadable,
}

/// The words for a number that is not there.
const ABSENT: [&str; 7] = ["na", "n/a", "#n/a", "nan", "null", "none", "-"];

pub(crate) fn is_absent(cell: &[u8]) -> bool {
    // Of most cells the first byte decides.
    !cell.first().is_some_and(u8::is_ascii_digit)
        && (cell.is_empty() || ABSENT.iter().any(|word| cell.eq_ignore_ascii_case(word.as_bytes())))
}

/// Whether a count, as JSON writes it, may have been meant as so many thousands: `10.000`.
pub(crate) fn could_be_thousands(number: &[u8]) -> bool {
    let mut parts = number.split(|byte| *byte == b'.');
    let (whole, fraction) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    whole.len() <= 3 && whole != b"0" && fraction.len() == 3
}

impl DecimalMark {
    /// The mark of a file, told by the cells in its beginning that can be read in one way only; of each it is said whether it holds a
    /// count, which has no decimals. Where there are none, or both kinds, it is the point.
    pub(crate) fn of<'a>(cells: impl Iterator<Item = (&'a [u8], bool)>, delimiter: u8) -> DecimalMark {
        let (mut has_point, mut has_comma) = (false, false);
        for (cell, is_count) in cells {
            let last = cell.iter().rposition(|byte| matches!(byte, b'.' | b','));
            let Some(last) = last.filter(|_| cell.iter().any(u8::is_ascii_digit)) else { continue };
            let (mark, other) = if cell[last] == b'.' { (b'.', b',') } else { (b',', b'.') };
            let count = |byte| cell.iter().filter(|b| **b == byte).count();
            let digits = |bytes: &[u8]| bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let start = cell.iter().position(u8::is_ascii_digit).unwrap_or(last);
            let could_group = digits(&cell[last + 1..]) == 3
                && cell.get(start) != Some(&b'0')
                && (1..=3).contains(&digits(&cell[start.min(last)..]));
            let is_other_way = count(mark) > 1 || (is_count && could_group && count(other) == 0);
            // A comma where the delimiter is not one is what makes Excel choose another delimiter.
            let is_mark = !is_other_way && (!could_group || count(other) > 0 || (mark == b',' && delimiter == b';'));
            match (mark, is_mark, is_other_way) {
                (b'.', true, _) | (b',', _, true) => has_point = true,
                (b',', true, _) | (b'.', _, true) => has_comma = true,
                _ => {}
            }
        }
        if has_comma && !has_point { DecimalMark::Comma } else { DecimalMark::Point }
    }

    /// Writes a trimmed cell as a JSON number; percent, by its own sign or that of its column, become hundredths.
    pub(crate) fn write(self, cell: &[u8], is_in_percent: bool, out: &mut Vec<u8>) -> Read {
        if is_absent(cell) {
            return Read::Absent;
        }
        let start = out.len();
        if self.copy(cell, is_in_percent, out).is_none() {
            out.truncate(start);
            return Read::Unreadable;
        }
        Read::Number
    }

    fn copy(self, cell: &[u8], is_in_percent: bool, out: &mut Vec<u8>) -> Option<()> {
        let (cell, is_in_percent) = match cell.strip_suffix(b"%") {
            Some(number) => (number.trim_ascii_end(), true),
            None => (cell, is_in_percent),
        };
        let unsigned = match cell {
            [b'+', rest @ ..] => rest,
            // The minus sign of typesetters, too.
            [b'-', rest @ ..] | [0xE2, 0x88, 0x92, rest @ ..] => {
                out.push(b'-');
                rest
            }
            _ => cell,
        };
        let exponent = unsigned.iter().position(|byte| matches!(byte, b'e' | b'E'));
        let (digits, exponent) = match exponent {
            Some(at) => (&unsigned[..at], Some(&unsigned[at + 1..])),
            None => (unsigned, None),
        };
        let mark = if self == DecimalMark::Point { b'.' } else { b',' };
        let (whole, fraction) = match digits.iter().position(|byte| *byte == mark) {
            Some(at) => (&digits[..at], Some(&digits[at + 1..])),
            None => (digits, None),
        };
        if whole.is_empty() && fraction.is_none_or(<[u8]>::is_empty) {
            return None;
        }
        self.copy_whole(whole, out)?;
        if let Some(fraction) = fraction.filter(|fraction| !fraction.is_empty()) {
            if !fraction.iter().all(u8::is_ascii_digit) {
                return None;
            }
            out.push(b'.');
            out.extend_from_slice(fraction);
        }
        let exponent = match exponent {
            Some(exponent) => std::str::from_utf8(exponent).ok()?.parse::<i32>().ok()?,
            None => 0,
        };
        let exponent = exponent.checked_sub(if is_in_percent { 2 } else { 0 })?;
        if exponent != 0 {
            out.push(b'e');
            out.extend_from_slice(exponent.to_string().as_bytes());
        }
        Some(())
    }

    /// Writes the digits before the mark, without separators and leading zeros.
    fn copy_whole(self, whole: &[u8], out: &mut Vec<u8>) -> Option<()> {
        let start = out.len();
        if whole.iter().all(u8::is_ascii_digit) {
            let zeros = whole.iter().take_while(|digit| **digit == b'0').count();
            out.extend_from_slice(&whole[zeros..]);
        } else {
            // Groups of three, by one separator throughout.
            let text = std::str::from_utf8(whole).ok()?;
            let separator = text.chars().find(|c| !c.is_ascii_digit())?;
            let other = if self == DecimalMark::Point { ',' } else { '.' };
            if ![other, ' ', '\u{a0}', '\u{202f}', '\'', '\u{2019}'].contains(&separator) {
                return None;
            }
            for (i, group) in text.split(separator).enumerate() {
                let is_sound = match i {
                    0 => (1..=3).contains(&group.len()) && !group.starts_with('0'),
                    _ => group.len() == 3,
                };
                if !is_sound || !group.bytes().all(|byte| byte.is_ascii_digit()) {
                    return None;
                }
                out.extend_from_slice(group.as_bytes());
            }
        }
        if out.len() == start {
            out.push(b'0');
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(mark: DecimalMark, cell: &str) -> Option<String> {
        let mut out = Vec::new();
        let read = mark.write(cell.as_bytes(), false, &mut out);
        assert_eq!(read == Read::Number, !out.is_empty(), "{cell}");
        (read == Read::Number).then(|| String::from_utf8(out).expect("ASCII"))
    }

    #[test]
    fn numbers_are_read_in_every_common_notation_digit_by_digit() {
        for (cell, want) in [
            ("12", "12"),
            ("0.125", "0.125"),
            (".5", "0.5"),
            ("5.", "5"),
            ("007", "7"),
            ("+3", "3"),
            ("-1e-3", "-1e-3"),
            ("\u{2212}2", "-2"),
            ("1,234,567.5", "1234567.5"),
            ("1 234", "1234"),
            ("1\u{202f}234", "1234"),
            ("1'234", "1234"),
            ("12.5%", "12.5e-2"),
            ("-3 %", "-3e-2"),
            ("1e400", "1e400"),
        ] {
            assert_eq!(read(DecimalMark::Point, cell).as_deref(), Some(want), "{cell}");
        }
        for (cell, want) in [("0,125", "0.125"), ("1.234,5", "1234.5"), ("1.234", "1234"), ("12,5%", "12.5e-2")] {
            assert_eq!(read(DecimalMark::Comma, cell).as_deref(), Some(want), "{cell}");
        }
    }

    #[test]
    fn what_is_no_number_or_could_be_two_is_not_read() {
        for cell in
            ["abc", "1,5", "0,125", "12,34,567", "1.2.3", "$5", "1e", "e5", ".", "%", "+", "--1", "1 2", "inf", "0x10"]
        {
            assert_eq!(read(DecimalMark::Point, cell), None, "{cell}");
        }
        assert_eq!(read(DecimalMark::Comma, "0.5"), None);
        for cell in ["", "NA", "NaN", "null", "None", "#N/A", "-"] {
            assert_eq!(DecimalMark::Point.write(cell.as_bytes(), false, &mut Vec::new()), Read::Absent, "{cell}");
        }
    }

    #[test]
    fn the_mark_is_told_by_cells_that_can_be_read_in_one_way_only() {
        let of = |cells: &[&str], is_count, delimiter| {
            DecimalMark::of(cells.iter().map(|cell| (cell.as_bytes(), is_count)), delimiter)
        };
        let mark = |cells: &[&str], delimiter| of(cells, false, delimiter);
        assert_eq!(mark(&["1,234", "0.5"], b';'), DecimalMark::Point);
        assert_eq!(mark(&["1.234", "0,5"], b','), DecimalMark::Comma);
        assert_eq!(mark(&["1.234.567"], b'\t'), DecimalMark::Comma);
        assert_eq!(mark(&["1,234,567"], b';'), DecimalMark::Point);
        assert_eq!(mark(&["1.234,5"], b','), DecimalMark::Comma);
        assert_eq!(mark(&["1,234"], b','), DecimalMark::Point, "thousands");
        assert_eq!(mark(&["1,234"], b';'), DecimalMark::Comma, "why else the semicolon");
        assert_eq!(mark(&["1000", "3"], b';'), DecimalMark::Point);
        assert_eq!(mark(&["1000,250"], b'\t'), DecimalMark::Comma, "no group has four digits");
        let counts = |cells: &[&str], delimiter| of(cells, true, delimiter);
        assert_eq!(counts(&["10,000"], b';'), DecimalMark::Point, "a count has no decimals");
        assert_eq!(counts(&["10.000"], b','), DecimalMark::Comma);
        assert_eq!(counts(&["10000.0"], b','), DecimalMark::Point, "as pandas writes it");
    }

    #[test]
    fn a_count_with_three_decimals_may_be_thousands() {
        for (number, want) in
            [("10.000", true), ("1.080", true), ("10000.000", false), ("10.0", false), ("0.000", false), ("10", false)]
        {
            assert_eq!(could_be_thousands(number.as_bytes()), want, "{number}");
        }
    }
}
