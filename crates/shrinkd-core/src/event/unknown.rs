//! Fields that the contract does not have. They are ignored, and reported, because many are misspelt.

use std::fmt;

use super::lenient::Lenient;
use super::refusal::{Path, Refusal, quote, shortened};
use super::wire::{AtMost, OBJECTS};

/// The most unknown fields that are reported of one message.
const MAX_REPORTED: usize = 16;

/// A field that the contract does not have, at the first place where a message has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnknownField {
    /// Its place as a JSON path, such as `$.results[0].segmnt`.
    pub path: String,
    /// Its name, at most 60 characters of it; others than printable ones are escaped.
    pub name: String,
}

/// The field of the contract that a name was probably meant to be, whichever object it belongs to; a name of the contract is its own
/// nearest.
pub fn nearest_field(name: &str) -> Option<&'static str> {
    nearest_name(name, OBJECTS.iter().flat_map(|(_, fields)| *fields).copied())
}

/// What a name was probably meant to be: of the known ones that differ in at most a third of their letters (insertions, deletions,
/// substitutions and swaps of neighbours), the one that differs least. Case and underscores do not count, so that `experimentId` is near
/// `experiment_id`.
pub fn nearest_name<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let bare = |name: &str| name.replace(['_', '-'], "").to_lowercase();
    let wanted = bare(name);
    let near = |known: &'k str| {
        let bare = bare(known);
        let distance = strsim::osa_distance(&wanted, &bare);
        (distance <= wanted.chars().count().max(bare.chars().count()) / 3).then_some((distance, known))
    };
    known.into_iter().filter_map(near).min().map(|(_, known)| known)
}

impl fmt::Display for UnknownField {
    /// Says what was probably meant: `$.results[0].segmnt: did you mean segment?`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(field) = nearest_field(&self.name) else {
            return write!(f, "{}: not a field of the contract, ignored", self.path);
        };
        if field != self.name {
            return write!(f, "{}: did you mean {field}?", self.path);
        }
        let owners: Vec<&str> =
            OBJECTS.iter().filter(|(_, fields)| fields.contains(&field)).map(|(object, _)| *object).collect();
        write!(f, "{}: ignored here, {field} is a field of {}", self.path, owners.join(" and "))
    }
}

/// The unknown fields of a message, each name once.
#[derive(Default)]
pub(super) struct UnknownFields(Vec<UnknownField>);

impl UnknownFields {
    /// Notes the unknown keys of the object at `at`.
    pub(super) fn note<'k>(&mut self, at: Path<'_>, keys: impl IntoIterator<Item = &'k str>) {
        for key in keys {
            if self.0.len() == MAX_REPORTED {
                return;
            }
            let name = shortened(key);
            if !self.0.iter().any(|known| known.name == name) {
                self.0.push(UnknownField { path: at.field(key).to_string(), name });
            }
        }
    }

    /// The same refusal; where a field is missing that an unknown one is near, it says so, and where the message seems to be no event at
    /// all, which fields it has instead.
    pub(super) fn explain(&self, refusal: Refusal) -> Refusal {
        let is_near = |unknown: &&UnknownField| {
            nearest_field(&unknown.name).is_some_and(|field| {
                let object = unknown.path.strip_suffix(&unknown.name).unwrap_or_default();
                refusal.detail.starts_with(&format!("{object}{field} is required"))
            })
        };
        match self.0.iter().find(is_near) {
            Some(unknown) => {
                Refusal { detail: format!("{}; is it {}?", refusal.detail, quote(&unknown.name)), ..refusal }
            }
            None if refusal.detail.starts_with("$.schema_version is required") && !self.0.is_empty() => {
                let names: Vec<String> = self.0.iter().take(5).map(|unknown| quote(&unknown.name)).collect();
                let detail = format!(
                    "{}; it has {}, which no event has: `shrinkd schema` prints what events are",
                    refusal.detail,
                    names.join(", ")
                );
                Refusal { detail, ..refusal }
            }
            None => refusal,
        }
    }

    pub(super) fn into_vec(self) -> Vec<UnknownField> {
        self.0
    }
}

/// A part of a message, in which unknown fields are looked for.
pub(super) trait Part {
    fn note_unknown(&self, _at: Path<'_>, _found: &mut UnknownFields) {}
}

impl<T: Part> Part for Box<T> {
    fn note_unknown(&self, at: Path<'_>, found: &mut UnknownFields) {
        (**self).note_unknown(at, found);
    }
}

impl<T: Part> Part for Option<T> {
    fn note_unknown(&self, at: Path<'_>, found: &mut UnknownFields) {
        self.iter().for_each(|part| part.note_unknown(at, found));
    }
}

impl<T: Part> Part for Lenient<T> {
    fn note_unknown(&self, at: Path<'_>, found: &mut UnknownFields) {
        if let Lenient::Right(part) = self {
            part.note_unknown(at, found);
        }
    }
}

impl<T: Part, const MOST: usize> Part for AtMost<T, MOST> {
    fn note_unknown(&self, at: Path<'_>, found: &mut UnknownFields) {
        self.0.iter().enumerate().for_each(|(index, item)| item.note_unknown(at.item(index), found));
    }
}
