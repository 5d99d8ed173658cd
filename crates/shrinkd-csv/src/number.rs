//! Numbers as people write them, as JSON writes them: `1,234.5`, `1.234,5`, `12.5%`, `.5`, `+3`.
//!
//! The digits are kept: nothing is rounded here.

/// The sign between whole and fractional digits, the same in the whole file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DecimalMark {
    Point,
    Comma,
    /// The file does not tell it, or has both. Read as a point, but for numbers that a comma would change.
    Unclear,
}

/// What a cell of a column of numbers holds, where it is not absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Read {
    /// A number, written to the output.
    Number,
    /// One mark with three digits after it, in a file that does not tell whether these are thousands or decimals.
    Ambiguous,
    /// Something else.
    Unreadable,
}

/// The words for a number that is not there.
const ABSENT: [&str; 7] = ["na", "n/a", "#n/a", "nan", "null", "none", "-"];

/// Whether a cell holds nothing, or one of the words for it.
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
    /// The mark of a file, told by the cells in its beginning that can be read with one mark only. Where none can, it is that of those
    /// who put such a delimiter between cells: programs write semicolons where the comma is the mark.
    pub(crate) fn of<'a>(cells: impl Iterator<Item = &'a [u8]>, delimiter: u8) -> DecimalMark {
        let (mut has_point, mut has_comma, mut is_plain) = (false, false, true);
        let mut out = Vec::new();
        for cell in cells {
            is_plain &= !cell.contains(&b',');
            let [point, comma] = [DecimalMark::Point, DecimalMark::Comma].map(|mark| {
                out.clear();
                mark.copy(cell, false, &mut out).is_some()
            });
            has_point |= point && !comma;
            has_comma |= comma && !point;
        }
        match (has_point, has_comma) {
            (true, false) => DecimalMark::Point,
            (false, true) => DecimalMark::Comma,
            (false, false) if delimiter == b',' || delimiter != b';' && is_plain => DecimalMark::Point,
            _ => DecimalMark::Unclear,
        }
    }

    /// A cell as a JSON number, where it is one with this mark.
    fn read(self, cell: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        (self.write(cell, false, &mut out) == Read::Number).then_some(out)
    }

    /// Writes a trimmed cell as a JSON number; percent, by its own sign or that of its column, become hundredths.
    pub(crate) fn write(self, cell: &[u8], is_in_percent: bool, out: &mut Vec<u8>) -> Read {
        if self == DecimalMark::Unclear
            && let (Some(point), Some(comma)) = (DecimalMark::Point.read(cell), DecimalMark::Comma.read(cell))
            && point != comma
        {
            return Read::Ambiguous;
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
        let mark = if self == DecimalMark::Comma { b',' } else { b'.' };
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
            let other = if self == DecimalMark::Comma { '.' } else { ',' };
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
            assert!(is_absent(cell.as_bytes()), "{cell}");
            assert_eq!(read(DecimalMark::Point, cell), None, "{cell}");
        }
    }

    #[test]
    fn the_mark_is_told_by_cells_that_can_be_read_in_one_way_only() {
        let mark = |cells: &[&str]| DecimalMark::of(cells.iter().map(|cell| cell.as_bytes()), b';');
        for cells in [&["1,234", "0.5"][..], &["1,234,567"], &["1,234.5"], &["10000.0"], &["1000.250"], &[".125"]] {
            assert_eq!(mark(cells), DecimalMark::Point, "{cells:?}");
        }
        for cells in [&["1.234", "0,5"][..], &["1.234.567"], &["1.234,5"], &["1000,250"], &["3,1020"]] {
            assert_eq!(mark(cells), DecimalMark::Comma, "{cells:?}");
        }
        for cells in [&["1,234"][..], &["812.000", "3.102"], &["10,000", "1.100"], &["0.5", "0,5"], &["10", "x,y"], &[]]
        {
            assert_eq!(mark(cells), DecimalMark::Unclear, "{cells:?}");
        }
    }

    #[test]
    fn what_may_be_thousands_or_decimals_is_not_read_where_the_file_does_not_tell() {
        for cell in ["1,234", "1.234", "-812.000", "3.102%", "1.234e2"] {
            assert_eq!(DecimalMark::Unclear.write(cell.as_bytes(), false, &mut Vec::new()), Read::Ambiguous, "{cell}");
        }
        for (cell, want) in [("10", "10"), ("0.125", "0.125"), ("1 234", "1234"), ("1,234.5", "1234.5")] {
            assert_eq!(read(DecimalMark::Unclear, cell).as_deref(), Some(want), "{cell}");
        }
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
