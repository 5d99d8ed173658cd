//! The results of one experiment by key, in a sorted list: most experiments have few results, and a node of a B-tree has
//! room for eleven.

use std::ops::Range;

use super::Entry;
use crate::event::ResultKey;

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Results(Vec<(ResultKey, Entry)>);

impl Results {
    pub fn get(&self, key: &ResultKey) -> Option<&Entry> {
        let index = self.position(key).ok()?;
        self.0.get(index).map(|(_, entry)| entry)
    }

    /// Inserts an entry and returns the one that it replaces.
    pub fn insert(&mut self, key: ResultKey, entry: Entry) -> Option<Entry> {
        match self.position(&key) {
            Ok(index) => self.0.get_mut(index).map(|(_, held)| std::mem::replace(held, entry)),
            Err(index) => {
                if self.0.is_empty() {
                    self.0.reserve_exact(1);
                }
                self.0.insert(index, (key, entry));
                None
            }
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&ResultKey, &Entry)> {
        self.0.iter().map(|(key, entry)| (key, entry))
    }

    pub fn range(&self, keys: Range<ResultKey>) -> impl Iterator<Item = (&ResultKey, &Entry)> {
        self.0[self.indices(&keys)].iter().map(|(key, entry)| (key, entry))
    }

    /// Removes the entries of a range of keys that fit.
    pub fn extract_if(
        &mut self,
        keys: Range<ResultKey>,
        mut fits: impl FnMut(&ResultKey, &Entry) -> bool,
    ) -> impl Iterator<Item = (ResultKey, Entry)> {
        let indices = self.indices(&keys);
        self.0.extract_if(indices, move |(key, entry)| fits(key, entry))
    }

    fn position(&self, key: &ResultKey) -> Result<usize, usize> {
        self.0.binary_search_by(|(own, _)| own.cmp(key))
    }

    fn indices(&self, keys: &Range<ResultKey>) -> Range<usize> {
        let before = |key: &ResultKey| self.0.partition_point(|(own, _)| own < key);
        before(&keys.start)..before(&keys.end)
    }
}

impl IntoIterator for Results {
    type Item = (ResultKey, Entry);
    type IntoIter = std::vec::IntoIter<(ResultKey, Entry)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
