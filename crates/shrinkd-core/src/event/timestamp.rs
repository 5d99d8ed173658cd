//! Times as producers write them: RFC 3339, and what else is an unambiguous instant. What is none is refused with the text to send.

use time::{Duration, OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};

use super::refusal::quote;

/// The length of a date, and of a date with a time to the second.
const DATE: usize = "2026-01-01".len();
const DATE_TIME: usize = "2026-01-01T00:00:00".len();

/// Reads an RFC 3339 time, also with a space for the T, with one before the offset, and with an offset such as `+00`, `+0000` or
/// ` UTC`, as databases print them.
///
/// # Errors
/// A sentence that says what is missing and what to send.
pub(super) fn parse(text: &str) -> Result<OffsetDateTime, String> {
    instant(text).ok_or_else(|| advice(text))
}

/// Why a number is no time, with the one that it stands for if it counts from 1970.
pub(super) fn of_number(number: &str) -> String {
    match since_1970(number) {
        Some((unit, time)) => {
            format!("must be an RFC 3339 time, found {number}: if these are {unit} since 1970, send {time}")
        }
        None => "must be an RFC 3339 time such as \"2026-11-01T12:00:00Z\", found a number".to_owned(),
    }
}

fn instant(text: &str) -> Option<OffsetDateTime> {
    let read = |text: &str| OffsetDateTime::parse(text, &Rfc3339).ok().or_else(|| past_the_months_end(text));
    let time = read(text).or_else(|| read(&normal(text)?))?;
    // In UTC the first and the last hours of RFC 3339's years are in years that no store can represent.
    let utc = time.checked_to_offset(UtcOffset::UTC)?;
    (0..=9999).contains(&utc.year()).then_some(time)
}

/// The same instant as RFC 3339 writes it.
fn normal(text: &str) -> Option<String> {
    let (date_time, rest) = text.split_at_checked(DATE_TIME)?;
    let (date, time) = date_time.split_at_checked(DATE)?;
    let time = time.strip_prefix(['T', 't', ' '])?;
    let end_of_fraction = rest.find(|c: char| c != '.' && !c.is_ascii_digit())?;
    let (fraction, offset) = rest.split_at_checked(end_of_fraction)?;
    let offset = offset.strip_prefix(' ').unwrap_or(offset);
    let offset = match (offset.get(..1), offset.get(1..).unwrap_or_default()) {
        (Some("Z" | "z"), "") | (Some("U"), "TC") => "Z".to_owned(),
        (Some(sign @ ("+" | "-")), digits) => {
            let (hours, minutes) = digits.split_at_checked(2)?;
            let minutes = minutes.strip_prefix(':').unwrap_or(minutes);
            format!("{sign}{hours}:{}", if digits.len() == 2 { "00" } else { minutes })
        }
        _ => return None,
    };
    Some(format!("{date}T{time}{fraction}{offset}"))
}

/// What is wrong with a text that is no instant, and what to send.
fn advice(text: &str) -> String {
    let with = |rest: &str| {
        let corrected = format!("{text}{rest}");
        instant(&corrected).and_then(shown)
    };
    if text.len() == DATE
        && let Some(midnight) = with("T00:00:00Z")
    {
        return format!("has no time of day, found {}: send {midnight}", quote(text));
    }
    if let Some(utc) = with("Z") {
        return format!("has no offset from UTC, found {}: if it is in UTC, send {utc}", quote(text));
    }
    if let Some((unit, time)) = since_1970(text) {
        return format!("must be an RFC 3339 time, found {}: if these are {unit} since 1970, send {time}", quote(text));
    }
    format!("must be an RFC 3339 time such as \"2026-11-01T12:00:00Z\", found {}", quote(text))
}

/// The time so many seconds, milliseconds, microseconds or nanoseconds after 1970, whichever lies from 2000 to 2100, in quotes.
fn since_1970(number: &str) -> Option<(&'static str, String)> {
    let number: f64 = number.parse().ok()?;
    [("seconds", 1.0), ("milliseconds", 1e3), ("microseconds", 1e6), ("nanoseconds", 1e9)].into_iter().find_map(
        |(unit, per_second)| {
            let seconds = number / per_second;
            let time = OffsetDateTime::from_unix_timestamp(seconds as i64).ok()?;
            (2000..2100).contains(&time.year()).then(|| shown(time).map(|time| (unit, time)))?
        },
    )
}

/// A time as it is to be sent.
fn shown(time: OffsetDateTime) -> Option<String> {
    time.format(&Rfc3339).ok().map(|text| format!("\"{text}\""))
}

/// Some platforms that do their own date arithmetic write `2020-02-30`; such a day is read as one of the next month. Nothing
/// is ordered by this time, so that it is no reason to lose an event.
fn past_the_months_end(text: &str) -> Option<OffsetDateTime> {
    let (month, rest) = text.split_at_checked(8)?;
    let (day, time) = rest.split_at_checked(2)?;
    let beyond = ["29", "30", "31"].iter().position(|&late| late == day)?;
    let last_safe_day = OffsetDateTime::parse(&format!("{month}28{time}"), &Rfc3339).ok()?;
    last_safe_day.checked_add(Duration::days(1 + i64::try_from(beyond).ok()?))
}
