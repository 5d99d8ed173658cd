//! Objects and arrays that may be of the wrong type.
//!
//! A value of the wrong type does not stop the parser: it is kept as such, and refused later with its path. So only text that
//! is not JSON fails to parse, and a result is refused without the others.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::refusal::Refusal;

/// An object or array where one is expected, or what is there instead.
pub(super) enum Lenient<T> {
    Right(T),
    Wrong { found: &'static str },
}

impl<T> Lenient<T> {
    fn boxed(self) -> Lenient<Box<T>> {
        match self {
            Lenient::Right(shape) => Lenient::Right(Box::new(shape)),
            Lenient::Wrong { found } => Lenient::Wrong { found },
        }
    }

    /// # Errors
    /// `schema_violation` where something else is there.
    pub(super) fn shape<'de>(self) -> Result<T, Refusal>
    where
        T: Shape<'de>,
    {
        match self {
            Lenient::Right(shape) => Ok(shape),
            Lenient::Wrong { found } => Err(Refusal::violation(format!("must be {}, found {found}", T::EXPECTED))),
        }
    }
}

/// What an object or an array is read into. An implementation reads one of the two.
pub(super) trait Shape<'de>: Sized {
    const EXPECTED: &'static str;

    fn from_map<A: MapAccess<'de>>(mut map: A) -> Result<Lenient<Self>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Lenient::Wrong { found: "an object" })
    }

    fn from_seq<A: SeqAccess<'de>>(mut seq: A) -> Result<Lenient<Self>, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Lenient::Wrong { found: "an array" })
    }
}

impl<'de, T: Shape<'de>> Shape<'de> for Box<T> {
    const EXPECTED: &'static str = T::EXPECTED;

    fn from_map<A: MapAccess<'de>>(map: A) -> Result<Lenient<Self>, A::Error> {
        T::from_map(map).map(Lenient::boxed)
    }

    fn from_seq<A: SeqAccess<'de>>(seq: A) -> Result<Lenient<Self>, A::Error> {
        T::from_seq(seq).map(Lenient::boxed)
    }
}

/// An object's key, borrowed unless it is written with escapes.
pub(super) struct Key<'a>(pub(super) Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_borrowed_str<E: Error>(self, key: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(key)))
            }

            fn visit_str<E: Error>(self, key: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(key.to_owned())))
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}

impl<'de, T: Shape<'de>> Deserialize<'de> for Lenient<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ShapeVisitor(PhantomData))
    }
}

struct ShapeVisitor<T>(PhantomData<T>);

impl<T> ShapeVisitor<T> {
    fn wrong<E>(self, found: &'static str) -> Result<Lenient<T>, E> {
        Ok(Lenient::Wrong { found })
    }
}

impl<'de, T: Shape<'de>> Visitor<'de> for ShapeVisitor<T> {
    type Value = Lenient<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Lenient<T>, A::Error> {
        T::from_map(map)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Lenient<T>, A::Error> {
        T::from_seq(seq)
    }

    fn visit_unit<E: Error>(self) -> Result<Lenient<T>, E> {
        self.wrong("null")
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Lenient<T>, E> {
        self.wrong("a boolean")
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Lenient<T>, E> {
        self.wrong("a number")
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Lenient<T>, E> {
        self.wrong("a number")
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Lenient<T>, E> {
        self.wrong("a number")
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Lenient<T>, E> {
        self.wrong("a string")
    }
}

impl<T: JsonSchema> JsonSchema for Lenient<T> {
    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}
