//! The values of a message that have no parts: numbers, strings, flags.
//!
//! Each is kept as text while the message is parsed, and read once its path is known, so that a wrong type or a number
//! beyond f64 refuses only the result that contains it, and the refusal names the place.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde_json::value::RawValue;
use shrinkd_model::Direction;
use time::OffsetDateTime;

use super::refusal::{Leaf, Reason, Refusal, quote};
use super::timestamp;
use super::unknown::Part;
use super::{ExperimentKind, Scale};

/// The first version of the contract.
pub const SCHEMA_VERSION: u64 = 1;

/// The version that has `kind`, the last that this build reads. It differs in nothing else.
pub const SCHEMA_VERSION_WITH_KIND: u64 = 2;

/// Identifiers are 1 to this many bytes of UTF-8.
pub(super) const MAX_IDENTIFIER_BYTES: usize = 512;

/// The largest revision and count: what a signed 64-bit column holds.
pub(super) const MAX_INTEGER: u64 = i64::MAX as u64;

/// A number that is longer is not repeated in a sentence.
const MAX_SHOWN_NUMBER: usize = 40;

macro_rules! leaf {
    ($($(#[$doc:meta])* $name:ident { $($schema:tt)* })*) => {$(
        $(#[$doc])*
        #[derive(Deserialize)]
        #[serde(transparent)]
        pub(super) struct $name<'a>(#[serde(borrow)] &'a RawValue);

        impl JsonSchema for $name<'_> {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ $($schema)* })
            }
        }

        impl Part for $name<'_> {}
    )*};
}

leaf! {
    Version { "type": "integer", "enum": [SCHEMA_VERSION, SCHEMA_VERSION_WITH_KIND] }
    Identifier {
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_IDENTIFIER_BYTES,
        "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]*$"
    }
    Revision { "type": "integer", "minimum": 0, "maximum": MAX_INTEGER }
    Count { "type": "integer", "minimum": 0, "maximum": MAX_INTEGER }
    Number { "type": "number" }
    Level { "type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1 }
    Share { "type": "number", "exclusiveMinimum": 0, "maximum": 1 }
    Flag { "type": "boolean" }
    Timestamp {
        "type": "string",
        "format": "date-time",
        "pattern": "^\\d{4}-\\d{2}-\\d{2}[Tt ]\\d{2}:\\d{2}:\\d{2}(\\.\\d+)? ?([Zz]|UTC|[+-]\\d{2}(:?\\d{2})?)$"
    }
    ScaleName { "type": "string", "enum": ["absolute", "relative", "log_ratio", "log_odds"] }
    DirectionName { "type": "string", "enum": ["increase", "decrease"] }
    KindName { "type": "string", "enum": ["experiment", "holdout"] }
    Status { "type": "string", "enum": ["reported", "retracted"] }
    VarianceForm { "type": "string", "enum": ["delta", "scaled"] }
    /// Never refused: what is not a short plain string counts as no decision.
    Decision {}
}

impl Leaf for Version<'_> {
    type Value = u64;

    fn read(&self) -> Result<u64, Refusal> {
        let text = number_text(self.0)?;
        integer(text).filter(|version| (SCHEMA_VERSION..=SCHEMA_VERSION_WITH_KIND).contains(version)).ok_or_else(|| {
            let found = text.get(..20).unwrap_or(text);
            let detail = format!(
                "version {found} is not supported, send version {SCHEMA_VERSION} or {SCHEMA_VERSION_WITH_KIND}"
            );
            Refusal::new(Reason::UnsupportedVersion, detail)
        })
    }
}

impl<'a> Leaf for Identifier<'a> {
    type Value = Cow<'a, str>;

    fn read(&self) -> Result<Cow<'a, str>, Refusal> {
        if is_number(self.0) {
            let number = Some(self.0.get()).filter(|number| number.len() <= MAX_SHOWN_NUMBER);
            let advice = number.map_or("put it in quotes".to_owned(), |number| format!("send \"{number}\""));
            return Err(Refusal::violation(format!("must be a string, found a number: {advice}")));
        }
        let text = string(self.0)?;
        check_identifier(&text)?;
        Ok(text)
    }
}

impl Leaf for Revision<'_> {
    type Value = u64;

    fn read(&self) -> Result<u64, Refusal> {
        whole_number(number_text(self.0)?)
    }
}

impl Leaf for Count<'_> {
    type Value = u64;

    fn read(&self) -> Result<u64, Refusal> {
        let text = number_text(self.0)?;
        whole_number(text).or_else(|refusal| finite(text).and(Err(refusal)))
    }
}

impl Leaf for Number<'_> {
    type Value = f64;

    fn read(&self) -> Result<f64, Refusal> {
        finite(number_text(self.0)?)
    }
}

impl Leaf for Level<'_> {
    type Value = f64;

    fn read(&self) -> Result<f64, Refusal> {
        let level = finite(number_text(self.0)?)?;
        if level > 0.0 && level < 1.0 {
            return Ok(level);
        }
        Err(Refusal::violation(format!("must be a share between 0 and 1 such as 0.95, found {level}")))
    }
}

impl Leaf for Share<'_> {
    type Value = f64;

    fn read(&self) -> Result<f64, Refusal> {
        let share = finite(number_text(self.0)?)?;
        if share > 0.0 && share <= 1.0 {
            return Ok(share);
        }
        let detail = format!("must be a share above 0 and at most 1, found {share}");
        Err(Refusal::violation(if share > 1.0 && share <= 100.0 {
            format!("{detail}: send {} for {share}%", share / 100.0)
        } else {
            detail
        }))
    }
}

impl Leaf for DirectionName<'_> {
    type Value = Direction;

    fn read(&self) -> Result<Direction, Refusal> {
        one_of(self.0, &Direction::ALL, Direction::as_str)
    }
}

impl Leaf for KindName<'_> {
    type Value = ExperimentKind;

    fn read(&self) -> Result<ExperimentKind, Refusal> {
        one_of(self.0, &ExperimentKind::ALL, ExperimentKind::as_str)
    }
}

impl Leaf for Flag<'_> {
    type Value = bool;

    fn read(&self) -> Result<bool, Refusal> {
        match self.0.get() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(Refusal::violation(format!("must be true or false, found {}", kind(self.0)))),
        }
    }
}

impl Leaf for Timestamp<'_> {
    type Value = OffsetDateTime;

    fn read(&self) -> Result<OffsetDateTime, Refusal> {
        if is_number(self.0) {
            return Err(Refusal::violation(timestamp::of_number(self.0.get())));
        }
        timestamp::parse(&string(self.0)?).map_err(Refusal::violation)
    }
}

impl Leaf for ScaleName<'_> {
    type Value = Scale;

    fn read(&self) -> Result<Scale, Refusal> {
        one_of(self.0, &Scale::ALL, Scale::as_str)
    }
}

impl Leaf for Status<'_> {
    /// Whether the result is retracted.
    type Value = bool;

    fn read(&self) -> Result<bool, Refusal> {
        match &*string(self.0)? {
            "reported" => Ok(false),
            "retracted" => Ok(true),
            other => Err(Refusal::violation(format!("must be reported or retracted, found {}", quote(other)))),
        }
    }
}

impl Leaf for VarianceForm<'_> {
    /// Whether variances are scaled: the treatment's own and the control's, added up.
    type Value = bool;

    fn read(&self) -> Result<bool, Refusal> {
        match &*string(self.0)? {
            "delta" => Ok(false),
            "scaled" => Ok(true),
            other => Err(Refusal::violation(format!("must be delta or scaled, found {}", quote(other)))),
        }
    }
}

impl Leaf for Decision<'_> {
    type Value = Option<String>;

    fn read(&self) -> Result<Option<String>, Refusal> {
        Ok(string(self.0).ok().filter(|text| check_identifier(text).is_ok()).map(Cow::into_owned))
    }
}

/// # Errors
/// `invalid_identifier` where the text is empty, longer than [`MAX_IDENTIFIER_BYTES`] or contains a control character, which
/// tables, metrics and logs cannot represent.
pub(super) fn check_identifier(text: &str) -> Result<(), Refusal> {
    let invalid = |detail| Err(Refusal::new(Reason::InvalidIdentifier, detail));
    if text.is_empty() {
        return invalid("must not be empty".to_owned());
    }
    if text.len() > MAX_IDENTIFIER_BYTES {
        return invalid(format!("has {} bytes, at most {MAX_IDENTIFIER_BYTES} are accepted", text.len()));
    }
    // Nearly all are plain ASCII, which is quicker to see.
    if !text.bytes().all(|byte| matches!(byte, b' '..=b'~')) && text.chars().any(char::is_control) {
        return invalid(format!("must not hold control characters, found {}", quote(text)));
    }
    Ok(())
}

/// The type of a JSON value, with its article.
fn kind(raw: &RawValue) -> &'static str {
    match raw.get().as_bytes().first() {
        Some(b'"') => "a string",
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

fn is_number(raw: &RawValue) -> bool {
    matches!(raw.get().as_bytes().first(), Some(b'-' | b'0'..=b'9'))
}

fn number_text(raw: &RawValue) -> Result<&str, Refusal> {
    if is_number(raw) {
        return Ok(raw.get());
    }
    match kind(raw) {
        "a string" => Err(Refusal::violation(match string(raw) {
            Ok(text) if text.parse().is_ok_and(f64::is_finite) => {
                format!("must be a number, found the string {}: send {text} without quotes", quote(&text))
            }
            _ => "must be a number, found a string".to_owned(),
        })),
        found => Err(Refusal::violation(format!("must be a number, found {found}"))),
    }
}

fn string(raw: &RawValue) -> Result<Cow<'_, str>, Refusal> {
    let quoted = raw.get().strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    match quoted {
        Some(text) if !text.contains('\\') => Ok(Cow::Borrowed(text)),
        Some(_) => serde_json::from_str(raw.get())
            .map(Cow::Owned)
            .map_err(|error| Refusal::violation(format!("is not a string of Unicode characters: {error}"))),
        None => Err(Refusal::violation(format!("must be a string, found {}", kind(raw)))),
    }
}

/// One of some values, by its name.
fn one_of<T: Copy>(raw: &RawValue, all: &[T], name: fn(T) -> &'static str) -> Result<T, Refusal> {
    let text = string(raw)?;
    all.iter().copied().find(|value| name(*value) == text).ok_or_else(|| {
        let names: Vec<&str> = all.iter().copied().map(name).collect();
        let names = match names.as_slice() {
            [others @ .., last] if !others.is_empty() => format!("{} or {last}", others.join(", ")),
            names => names.concat(),
        };
        Refusal::violation(format!("must be {names}, found {}", quote(&text)))
    })
}

fn finite(text: &str) -> Result<f64, Refusal> {
    // The standard library rounds correctly; serde_json's default parser may be off by one unit in the last place.
    let number: f64 = text.parse().map_err(|_| Refusal::violation("is not a number"))?;
    if number.is_finite() {
        Ok(number)
    } else {
        Err(Refusal::new(Reason::NonFinite, "is beyond what a 64-bit float holds (about 1.8e308)"))
    }
}

fn whole_number(text: &str) -> Result<u64, Refusal> {
    integer(text)
        .filter(|&number| number <= MAX_INTEGER)
        .ok_or_else(|| Refusal::violation(format!("must be a whole number from 0 to {MAX_INTEGER}")))
}

/// A JSON number as a whole number, exactly, whichever way it is written (`1000`, `1000.0`, `1e3`); None where it has
/// a fraction, is negative or exceeds u64.
fn integer(text: &str) -> Option<u64> {
    if let Ok(plain) = text.parse() {
        return Some(plain);
    }
    let (negative, magnitude) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (decimal, exponent) = magnitude.split_once(['e', 'E']).unwrap_or((magnitude, "0"));
    let (whole, fraction) = decimal.split_once('.').unwrap_or((decimal, ""));
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_end_matches('0');
    let mantissa = significant.trim_start_matches('0');
    if mantissa.is_empty() {
        return Some(0);
    }
    let dropped = digits.len() - significant.len();
    let exponent: i64 = exponent.parse().ok()?;
    let shift = exponent.checked_sub_unsigned(fraction.len() as u64)?.checked_add_unsigned(dropped as u64)?;
    let power = 10_u64.checked_pow(u32::try_from(shift).ok()?)?;
    mantissa.parse::<u64>().ok()?.checked_mul(power).filter(|_| !negative)
}
