//! Dates and times of a table. Without an offset they are taken as UTC.

use std::ops::RangeInclusive;

use time::format_description::well_known::Rfc3339;
use time::{Date, Duration, Month, OffsetDateTime, PrimitiveDateTime, Time, UtcOffset};

/// The order of day and month in dates such as `31/1/2026`, the same in the whole file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DateOrder {
    DayFirst,
    MonthFirst,
}

impl DateOrder {
    /// The order of a file, told by the dates in its beginning of which one part is no month. `None` where there are none, or both kinds.
    pub(crate) fn of<'a>(cells: impl Iterator<Item = &'a [u8]>) -> Option<DateOrder> {
        let (mut is_day_first, mut is_month_first) = (false, false);
        for cell in cells {
            let numbers =
                cell.split(|byte| !byte.is_ascii_digit()).map(|part| number(std::str::from_utf8(part).ok()?, 1..=2));
            if let [Some(first), Some(second)] = numbers.take(2).collect::<Vec<_>>()[..] {
                is_day_first |= first > 12;
                is_month_first |= second > 12;
            }
        }
        match (is_day_first, is_month_first) {
            (true, false) => Some(DateOrder::DayFirst),
            (false, true) => Some(DateOrder::MonthFirst),
            _ => None,
        }
    }
}

/// Reads `2026-01-31`, `20260131`, `31.1.2026`, `Jan 31, 2026`, and in a known order `31/1/2026`, each alone or before a time such as
/// `12:00`, `T12:00:00.5+02:00`, `12:00:00 UTC` or `2:30 PM`; or seconds or milliseconds since 1970. `None` for anything else.
pub(crate) fn read(cell: &str, order: Option<DateOrder>) -> Option<OffsetDateTime> {
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
    let Some(colon) = cell.find(':') else { return Some(date_of(cell, order)?.midnight().assume_utc()) };
    let (date, time) = cell.split_at_checked(cell.get(..colon)?.rfind(['T', 't', ' '])?)?;
    let (date, time) = (date_of(date, order)?, time.get(1..)?);
    let end = time.find(|c: char| !(c.is_ascii_digit() || c == ':' || c == '.')).unwrap_or(time.len());
    let (clock, rest) = time.split_at_checked(end)?;
    let (clock, rest) = (time_of(clock)?, rest.trim());
    let (clock, offset) = match (clock.hour(), rest.to_ascii_lowercase().as_str()) {
        (1..=11, "am") | (12, "pm") => (clock, UtcOffset::UTC),
        (12, "am") => (clock.replace_hour(0).ok()?, UtcOffset::UTC),
        (hour @ 1..=11, "pm") => (clock.replace_hour(hour + 12).ok()?, UtcOffset::UTC),
        _ => (clock, offset_of(rest)?),
    };
    Some(PrimitiveDateTime::new(date, clock).assume_offset(offset))
}

/// The date of a year in four digits, a day, and a month in digits or as an English name.
fn date_of(text: &str, order: Option<DateOrder>) -> Option<Date> {
    if text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return date(text.get(..4)?, text.get(4..6)?, text.get(6..)?);
    }
    let mut parts = text.split(['-', '/', '.', ' ', ',']).filter(|part| !part.is_empty());
    let (first, second, third) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let is_name = |part: &str| part.starts_with(|c: char| c.is_ascii_alphabetic());
    match order {
        _ if first.len() == 4 && !is_name(first) => date(first, second, third),
        _ if is_name(first) => date(third, first, second),
        _ if is_name(second) || text.contains('.') => date(third, second, first),
        Some(DateOrder::DayFirst) => date(third, second, first),
        Some(DateOrder::MonthFirst) => date(third, first, second),
        None => None,
    }
}

fn date(year: &str, month: &str, day: &str) -> Option<Date> {
    const NAMES: [&str; 12] = [
        "january",
        "february",
        "march",
        "april",
        "may",
        "june",
        "july",
        "august",
        "september",
        "october",
        "november",
        "december",
    ];
    let name = month.to_ascii_lowercase();
    let named = NAMES.iter().zip(1..).find(|(full, _)| *full == &name || (name.len() == 3 && full.starts_with(&name)));
    let month = named.map(|(_, month)| month).or_else(|| number(month, 1..=2))?;
    let month = Month::try_from(u8::try_from(month).ok()?).ok()?;
    let day = u8::try_from(number(day, 1..=2)?).ok()?;
    Date::from_calendar_date(i32::from(number(year, 4..=4)?), month, day).ok()
}

/// `12:00`, `9:05`, `12:00:00`, `12:00:00.123456`
fn time_of(clock: &str) -> Option<Time> {
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let mut parts = clock.split(':');
    let hour = u8::try_from(number(parts.next()?, 1..=2)?).ok()?;
    let mut next = || parts.next().map(|part| u8::try_from(number(part, 2..=2)?).ok());
    let minute = next()??;
    let second = next().unwrap_or(Some(0))?;
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
    let part = |text| i8::try_from(number(text, 2..=2)?).ok();
    UtcOffset::from_hms(sign * part(hours)?, sign * part(minutes)?, 0).ok()
}

/// A number of so many digits.
fn number(text: &str, digits: RangeInclusive<usize>) -> Option<u16> {
    (digits.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| text.parse().ok())
        .flatten()
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
            ("2026/1/31", "2026-01-31T00:00:00Z"),
            ("20260131", "2026-01-31T00:00:00Z"),
            ("31.01.2026", "2026-01-31T00:00:00Z"),
            ("1.2.2026 9:05", "2026-02-01T09:05:00Z"),
            ("Jan 31, 2026", "2026-01-31T00:00:00Z"),
            ("31 january 2026", "2026-01-31T00:00:00Z"),
            ("31-Oct-2026 12:30 am", "2026-10-31T00:30:00Z"),
            ("2026-01-31 12:30", "2026-01-31T12:30:00Z"),
            ("2026-01-31 2:30 PM", "2026-01-31T14:30:00Z"),
            ("2026-01-31T12:30:15", "2026-01-31T12:30:15Z"),
            ("2026-01-31 12:30:15.25", "2026-01-31T12:30:15.25Z"),
            ("2026-01-31 12:30:15 UTC", "2026-01-31T12:30:15Z"),
            ("2026-01-31 12:30:15+00", "2026-01-31T12:30:15Z"),
            ("2026-01-31T12:30:15+0230", "2026-01-31T12:30:15+02:30"),
            ("2026-01-31T12:30:15-08:00", "2026-01-31T12:30:15-08:00"),
            ("1767225600", "2026-01-01T00:00:00Z"),
            ("1767225600000", "2026-01-01T00:00:00Z"),
        ] {
            let read = read(cell, None).unwrap_or_else(|| panic!("{cell} is not read"));
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
            "31.1.26",
            "Jan 2026",
            "Foo 31, 2026",
            "2026-01-31 25:00",
            "2026-01-31 14:30 PM",
            "2026-01-31x",
            "2026-01-31 1:2",
            "2026-01-31 1:02:3",
            "soon",
            "2026",
            "46053",
        ] {
            assert_eq!(read(cell, None), None, "{cell}");
        }
    }

    #[test]
    fn the_order_of_day_and_month_is_told_by_dates_of_which_one_part_is_no_month() {
        let order = |cells: &[&str]| DateOrder::of(cells.iter().map(|cell| cell.as_bytes()));
        assert_eq!(order(&["1/2/2026", "31/1/2026"]), Some(DateOrder::DayFirst));
        assert_eq!(order(&["1/2/2026 13:00", "1/31/2026"]), Some(DateOrder::MonthFirst));
        for cells in [&["1/2/2026"][..], &["31/1/2026", "1/31/2026"], &["2026-01-31"], &["Jan 31, 2026"], &[]] {
            assert_eq!(order(cells), None, "{cells:?}");
        }
        let read = |order| read("1/2/2026", order).and_then(rfc3339);
        assert_eq!(read(Some(DateOrder::DayFirst)).as_deref(), Some("2026-02-01T00:00:00Z"));
        assert_eq!(read(Some(DateOrder::MonthFirst)).as_deref(), Some("2026-01-02T00:00:00Z"));
    }
}
