//! Log lines about input, which can come by the thousand: one of each kind a minute, with how many were left out before it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The time between two lines of one kind.
const PAUSE: Duration = Duration::from_secs(60);

/// When a line of each kind was last written, and how many were left out since.
#[derive(Debug)]
pub(super) struct Occasional<K>(BTreeMap<K, (Instant, u64)>);

impl<K: Ord> Occasional<K> {
    pub fn new() -> Occasional<K> {
        Occasional(BTreeMap::new())
    }

    /// The kinds of which lines were left out since the last, and how many.
    pub fn left_out(&self) -> impl Iterator<Item = (&K, u64)> {
        self.0.iter().map(|(kind, &(_, left_out))| (kind, left_out)).filter(|(_, left_out)| *left_out > 0)
    }

    /// Whether to write a line of this kind now: `None` if not, else how many were left out since the last.
    pub fn take(&mut self, kind: K, now: Instant) -> Option<u64> {
        match self.0.get_mut(&kind) {
            Some((last, left_out)) if now.saturating_duration_since(*last) < PAUSE => {
                *left_out += 1;
                None
            }
            Some(said) => Some(std::mem::replace(said, (now, 0)).1),
            None => {
                self.0.insert(kind, (now, 0));
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_each_kind_is_written_once_a_minute_and_says_how_many_were_left_out() {
        let (mut lines, start) = (Occasional::new(), Instant::now());
        assert_eq!(lines.take("a", start), Some(0));
        assert_eq!(lines.take("b", start), Some(0));
        for second in 1..60 {
            assert_eq!(lines.take("a", start + Duration::from_secs(second)), None);
        }
        assert_eq!(lines.left_out().collect::<Vec<_>>(), [(&"a", 59)]);
        assert_eq!(lines.take("a", start + PAUSE), Some(59));
        assert_eq!(lines.take("a", start + 2 * PAUSE), Some(0));
    }
}
