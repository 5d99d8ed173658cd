//! Reads the merged table as keys. The deserializer of the `toml` crate would do, but for its errors: they repeat values, and
//! a value may be a secret in the wrong place.

use std::fmt::{self, Display};

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{Deserializer, Error, Expected, IntoDeserializer, Unexpected, Visitor};
use serde::forward_to_deserialize_any;
use toml::{Table, Value};

use super::Invalid;
use super::secret::plain_name;
use super::sections::Keys;

/// # Errors
/// For a key that is unknown, or has a value that it does not take.
pub(super) fn read_keys(table: &Table) -> Result<Keys, Invalid> {
    serde_path_to_error::deserialize(Node(Value::Table(table.clone())))
        .map_err(|error| Invalid::new(error.path().to_string(), error.inner().to_string()))
}

/// A value that is being read.
struct Node(Value);

impl<'de> Deserializer<'de> for Node {
    type Error = Problem;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match self.0 {
            Value::String(text) => visitor.visit_string(text),
            Value::Integer(number) => visitor.visit_i64(number),
            Value::Float(number) => visitor.visit_f64(number),
            Value::Boolean(boolean) => visitor.visit_bool(boolean),
            Value::Datetime(moment) => visitor.visit_string(moment.to_string()),
            Value::Array(items) => visitor.visit_seq(SeqDeserializer::new(items.into_iter().map(Node))),
            Value::Table(table) => {
                visitor.visit_map(MapDeserializer::new(table.into_iter().map(|(key, value)| (key, Node(value)))))
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_some(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        match self.0 {
            Value::String(text) => visitor.visit_enum(text.into_deserializer()),
            _ => Node(self.0).deserialize_any(visitor),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

impl IntoDeserializer<'_, Problem> for Node {
    type Deserializer = Node;

    fn into_deserializer(self) -> Node {
        self
    }
}

/// What is wrong with a value, in words that do not take a knowledge of Rust.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Problem(String);

impl Error for Problem {
    fn custom<T: Display>(message: T) -> Problem {
        Problem(message.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Problem {
        let found = match found {
            Unexpected::Str(_) => "text",
            Unexpected::Signed(_) | Unexpected::Unsigned(_) => "a whole number",
            Unexpected::Float(_) => "a number",
            Unexpected::Bool(_) => "true or false",
            Unexpected::Seq => "a list",
            Unexpected::Map => "a table",
            _ => "something else",
        };
        Problem(format!("is {found}: expected {}", in_plain_words(expected)))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Problem {
        match found {
            // A number where one is expected is none that anybody would hide.
            Unexpected::Signed(number) => Problem(format!("is {number}: expected {}", in_plain_words(expected))),
            Unexpected::Unsigned(number) => Problem(format!("is {number}: expected {}", in_plain_words(expected))),
            _ => Problem(format!("is not valid: expected {}", in_plain_words(expected))),
        }
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Problem {
        Problem(format!("is not a known value: expected {}", OneOf(expected)))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Problem {
        Problem(format!("unknown field `{}`, expected {}", plain_name(field), OneOf(expected)))
    }
}

fn in_plain_words(expected: &dyn Expected) -> String {
    let expected = expected.to_string();
    match expected.as_str() {
        "a nonzero usize" | "a nonzero u32" | "a nonzero u64" => "a whole number above 0",
        "u64" | "usize" | "u32" => "a whole number, 0 or above",
        "f64" => "a number",
        "a boolean" => "true or false",
        "a string" | "path string" => "text",
        "a map" => "a table",
        "a sequence" => "a list",
        other => other,
    }
    .to_owned()
}

/// Names in a sentence.
struct OneOf(&'static [&'static str]);

impl Display for OneOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.0.iter().map(|name| format!("`{name}`")).collect();
        match names.as_slice() {
            [name] => write!(f, "{name}"),
            names => write!(f, "one of {}", names.join(", ")),
        }
    }
}
