//! Faults found while a message or a result is read, of which one is reported.

use super::leaf::{Leaf, missing, violation};
use super::lenient::Lenient;
use super::path::Path;
use super::{Reason, Refusal};

/// The fault to report: of all that were found the one whose reason is checked first, and of those the first found.
///
/// Reading goes on after a fault with a default in place of the value, so that an earlier reason further on in the
/// message still wins. That default can only add faults whose reason comes later than the one noted.
#[derive(Default)]
pub(super) struct Faults(Option<Refusal>);

impl Faults {
    pub(super) fn note(&mut self, path: Path<'_>, refusal: Refusal) {
        if self.0.as_ref().is_none_or(|first| refusal.reason < first.reason) {
            self.0 = Some(refusal.at(path));
        }
    }

    pub(super) fn note_repeated_key(&mut self, path: Path<'_>, repeated: Option<&str>) {
        if let Some(key) = repeated {
            self.note(path.field(key), violation("stands twice in its object, keep one"));
        }
    }

    /// The fault to report where another one ended the reading.
    pub(super) fn first_of(&mut self, path: Path<'_>, refusal: Refusal) -> Refusal {
        match self.0.take() {
            Some(first) if first.reason <= refusal.reason => first,
            _ => refusal.at(path),
        }
    }

    /// # Errors
    /// The fault to report, if any was noted.
    pub(super) fn into_result(self) -> Result<(), Refusal> {
        self.0.map_or(Ok(()), Err)
    }

    /// A value that must be there.
    pub(super) fn required<L: Leaf>(&mut self, path: Path<'_>, leaf: Option<&L>) -> Option<L::Value> {
        if leaf.is_none() {
            self.note(path, missing());
        }
        self.optional(path, leaf)
    }

    /// A value that may be absent; None also where it was at fault.
    pub(super) fn optional<L: Leaf>(&mut self, path: Path<'_>, leaf: Option<&L>) -> Option<L::Value> {
        leaf?.read().map_err(|refusal| self.note(path, refusal)).ok()
    }

    /// An object or array of the right kind.
    pub(super) fn shape<T>(&mut self, path: Path<'_>, lenient: Option<Lenient<T>>) -> Option<T> {
        lenient?.shape().map_err(|refusal| self.note(path, refusal)).ok()
    }
}

impl Refusal {
    /// The same refusal, its sentence opened by where in the message the fault stands.
    pub(super) fn at(self, path: Path<'_>) -> Refusal {
        let separator = if self.reason <= Reason::NonFinite { " " } else { ": " };
        Refusal { detail: format!("{path}{separator}{}", self.detail), ..self }
    }
}
