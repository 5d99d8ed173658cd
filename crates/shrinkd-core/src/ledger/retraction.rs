//! Retractions by scope: a retraction names a key, or leaves its segment or scale open and so covers keys not seen yet.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::event::{ResultKey, Scale};

/// The keys of a metric that a retraction covers; `None` means all.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Scope {
    pub metric: String,
    pub segment: Option<String>,
    pub scale: Option<Scale>,
}

/// The largest retracted revision of each scope, without scopes that a wider one supersedes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Retractions(BTreeMap<Scope, u64>);

impl Scope {
    pub fn single(key: &ResultKey) -> Scope {
        Scope { metric: key.metric.clone(), segment: Some(key.segment.clone()), scale: Some(key.scale) }
    }

    pub fn is_single(&self) -> bool {
        self.segment.is_some() && self.scale.is_some()
    }

    pub fn covers(&self, key: &ResultKey) -> bool {
        self.metric == key.metric
            && self.segment.as_ref().is_none_or(|segment| *segment == key.segment)
            && self.scale.is_none_or(|scale| scale == key.scale)
    }

    /// The range of keys that contains all covered keys.
    pub fn keys(&self) -> Range<ResultKey> {
        let key = |metric: &str, segment: &str| ResultKey {
            metric: metric.to_owned(),
            segment: segment.to_owned(),
            scale: Scale::Absolute,
        };
        match &self.segment {
            Some(segment) => key(&self.metric, segment)..key(&self.metric, &successor(segment)),
            None => key(&self.metric, "")..key(&successor(&self.metric), ""),
        }
    }

    fn includes(&self, other: &Scope) -> bool {
        self.metric == other.metric
            && (self.segment.is_none() || self.segment == other.segment)
            && (self.scale.is_none() || self.scale == other.scale)
    }

    /// The range of scopes that contains all included scopes.
    fn scopes(&self) -> Range<Scope> {
        let end = match &self.segment {
            Some(segment) => Scope { segment: Some(successor(segment)), scale: None, ..self.clone() },
            None => Scope { metric: successor(&self.metric), segment: None, scale: None },
        };
        Scope { scale: None, ..self.clone() }..end
    }

    /// The scopes that include this one, itself included.
    fn wider(&self) -> [Scope; 4] {
        let open_segment = Scope { segment: None, ..self.clone() };
        let open_scale = Scope { scale: None, ..self.clone() };
        let open = Scope { metric: self.metric.clone(), segment: None, scale: None };
        [self.clone(), open_segment, open_scale, open]
    }
}

impl Retractions {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The largest revision that retracted a key.
    pub fn newest_of(&self, key: &ResultKey) -> Option<u64> {
        if self.0.is_empty() { None } else { self.newest(&Scope::single(key)) }
    }

    /// The largest revision that retracted all of a scope.
    pub fn newest(&self, scope: &Scope) -> Option<u64> {
        scope.wider().iter().filter_map(|other| self.0.get(other)).max().copied()
    }

    /// Adds a retraction, and drops the narrower ones that it supersedes.
    pub fn remember(&mut self, scope: Scope, revision: u64) {
        self.0
            .extract_if(scope.scopes(), |other, retracted| scope.includes(other) && *retracted <= revision)
            .for_each(drop);
        if self.newest(&scope) < Some(revision) {
            self.0.insert(scope, revision);
        }
    }

    /// Drops the retraction of exactly this key, which holds a newer result.
    pub fn forget(&mut self, key: &ResultKey) {
        if !self.0.is_empty() {
            self.0.remove(&Scope::single(key));
        }
    }
}

/// The smallest string above `text`.
fn successor(text: &str) -> String {
    format!("{text}\0")
}
