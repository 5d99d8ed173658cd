//! Dates and times of a table. Without an offset they are taken as UTC.

use time::format_description::well_known::Rfc3339;
use time::{Date, Duration, Month, OffsetDateTime, PrimitiveDateTime, Time, UtcOffset};

/// Reads `2026-01-31`, `2026-01-31 12:00`, `2026-01-31T12:00:00.5+02:00`, `2026-01-31 12:00:00 UTC`, or seconds or milliseconds since
/// 1970. `None` for anything else, such as `1/2/2026`, which is January here and February there.
pub(crate) fn read(cell: &str) -> Option<OffsetDateTime> {
    if let Ok(moment) = OffsetDateTime::parse(cell, &Rfc3339) {
        return Some(moment);
    }
    if cell.len() >= 9 && cell.bytes().all(|byte| byte.is_ascii_digit()) {
        let number: i64 = cell.parse().ok()?;
        // Seconds reach the year 5138 with 11 digits; milliseconds have 12 from 1973 on.
        return match cell.len() {
            9..=11 => OffsetDateTime::from_unix_timestamp(number).ok(),
            _ => OffsetDateTime::UNIX_EPOCH.checked_add(Duration::milliseconds(number)),
        };
    }
    let (date, rest) = cell.split_at_checked(10)?;
    let separator = [b'-', b'/'].into_iter().find(|separator| date.as_bytes().get(4) == Some(separator))?;
    let mut parts = date.split(char::from(separator));
    let (year, month, day) = (number(parts.next()?, 4)?, number(parts.next()?, 2)?, number(parts.next()?, 2)?);
    let month = Month::try_from(u8::try_from(month).ok()?).ok()?;
    let date = Date::from_calendar_date(i32::from(year), month, u8::try_from(day).ok()?).ok()?;
    if rest.is_empty() {
        return Some(date.midnight().assume_utc());
    }
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let end = rest.find(|c: char| !(c.is_ascii_digit() || c == ':' || c == '.')).unwrap_or(rest.len());
    let (clock, offset) = rest.split_at_checked(end)?;
    Some(PrimitiveDateTime::new(date, time_of(clock)?).assume_offset(offset_of(offset.trim())?))
}

/// `12:00`, `12:00:00`, `12:00:00.123456`
fn time_of(clock: &str) -> Option<Time> {
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let mut parts = clock.split(':');
    let mut next = || u8::try_from(number(parts.next()?, 2)?).ok();
    let (hour, minute) = (next()?, next()?);
    let second = if clock.len() > 5 { next()? } else { 0 };
    if parts.next().is_some() || fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanos: u32 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    Time::from_hms_nano(hour, minute, second, nanos).ok()
}

/// `Z`, `UTC`, `GMT`, nothing, `+02`, `+0200`, `+02:00`
fn offset_of(text: &str) -> Option<UtcOffset> {
    if ["", "z", "utc", "gmt"].iter().any(|utc| text.eq_ignore_ascii_case(utc)) {
        return Some(UtcOffset::UTC);
    }
    let sign = match text.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let digits: String = text.get(1..)?.chars().filter(|c| *c != ':').collect();
    let (hours, minutes) = match digits.len() {
        2 => (digits.as_str(), "00"),
        4 => digits.split_at_checked(2)?,
        _ => return None,
    };
    let part = |text| i8::try_from(number(text, 2)?).ok();
    UtcOffset::from_hms(sign * part(hours)?, sign * part(minutes)?, 0).ok()
}

/// A number of exactly so many digits.
fn number(text: &str, digits: usize) -> Option<u16> {
    (text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

/// As the event contract has it.
pub(crate) fn rfc3339(moment: OffsetDateTime) -> Option<String> {
    moment.format(&Rfc3339).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_naive_times_are_utc_and_offsets_are_kept() {
        for (cell, want) in [
            ("2026-01-31", "2026-01-31T00:00:00Z"),
            ("2026/01/31", "2026-01-31T00:00:00Z"),
            ("2026-01-31 12:30", "2026-01-31T12:30:00Z"),
            ("2026-01-31T12:30:15", "2026-01-31T12:30:15Z"),
            ("2026-01-31 12:30:15.25", "2026-01-31T12:30:15.25Z"),
            ("2026-01-31 12:30:15 UTC", "2026-01-31T12:30:15Z"),
            ("2026-01-31 12:30:15+00", "2026-01-31T12:30:15Z"),
            ("2026-01-31T12:30:15+0230", "2026-01-31T12:30:15+02:30"),
            ("2026-01-31T12:30:15-08:00", "2026-01-31T12:30:15-08:00"),
            ("1767225600", "2026-01-01T00:00:00Z"),
            ("1767225600000", "2026-01-01T00:00:00Z"),
        ] {
            let read = read(cell).unwrap_or_else(|| panic!("{cell} is not read"));
            assert_eq!(rfc3339(read).as_deref(), Some(want), "{cell}");
        }
    }

    #[test]
    fn what_is_no_date_or_could_be_two_is_not_read() {
        for cell in [
            "",
            "1/2/2026",
            "01-02-2026",
            "2026-02-30",
            "2026-13-01",
            "2026-01-31 25:00",
            "2026-01-31x",
            "2026-01-31 1:2",
            "soon",
            "2026",
        ] {
            assert_eq!(read(cell), None, "{cell}");
        }
    }
}
