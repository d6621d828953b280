//! Which ranges of an arena are free.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// The free ranges, maximal (no two touch), found by address and by length.
///
/// Best fit: an allocation takes the shortest range that holds it, the lowest of equals. Freed ranges in the middle
/// are therefore used before the untouched rest of the arena, which is always the longest.
#[derive(Debug)]
pub(crate) struct FreeRanges {
    by_start: BTreeMap<usize, usize>,
    by_len: BTreeSet<(usize, usize)>,
}

impl FreeRanges {
    /// Everything from 0 to `capacity` is free.
    pub(crate) fn new(capacity: usize) -> FreeRanges {
        let mut ranges = FreeRanges {
            by_start: BTreeMap::new(),
            by_len: BTreeSet::new(),
        };
        ranges.insert(0..capacity);
        ranges
    }

    /// Takes `len` bytes that start at a multiple of `align`; `None` when no free range holds them.
    pub(crate) fn take(&mut self, len: usize, align: usize) -> Option<usize> {
        let (start, found) = self
            .by_len
            .range((len, 0)..)
            .find_map(|&(free_len, free_start)| {
                let start = free_start.checked_next_multiple_of(align)?;
                let fits = start.checked_add(len)? <= free_start + free_len;
                fits.then_some((start, free_start..free_start + free_len))
            })?;
        self.remove(&found);
        self.insert(found.start..start);
        self.insert(start + len..found.end);
        Some(start)
    }

    /// Makes a taken range free again, merges it with free neighbours, and returns the merged range.
    pub(crate) fn give(&mut self, range: Range<usize>) -> Range<usize> {
        let mut merged = range;
        if let Some(before) = self.last_before(merged.start)
            && before.end == merged.start
        {
            self.remove(&before);
            merged.start = before.start;
        }
        if let Some(&len) = self.by_start.get(&merged.end) {
            let after = merged.end..merged.end + len;
            self.remove(&after);
            merged.end = after.end;
        }
        self.insert(merged.clone());
        merged
    }

    /// Length of the longest free range that starts at a multiple of `align`, 0 when there is none.
    pub(crate) fn longest(&self, align: usize) -> usize {
        let aligned = self.by_start.iter().map(|(&start, &len)| {
            let skipped = start.checked_next_multiple_of(align).map_or(len, |at| at - start);
            len.saturating_sub(skipped)
        });
        aligned.max().unwrap_or(0)
    }

    /// The free ranges from the highest address down.
    pub(crate) fn descending(&self) -> impl Iterator<Item = Range<usize>> {
        self.by_start
            .iter()
            .rev()
            .map(|(&start, &len)| start..start + len)
    }

    fn last_before(&self, address: usize) -> Option<Range<usize>> {
        let (&start, &len) = self.by_start.range(..address).next_back()?;
        Some(start..start + len)
    }

    fn insert(&mut self, range: Range<usize>) {
        if !range.is_empty() {
            self.by_start.insert(range.start, range.len());
            self.by_len.insert((range.len(), range.start));
        }
    }

    fn remove(&mut self, range: &Range<usize>) {
        self.by_start.remove(&range.start);
        self.by_len.remove(&(range.len(), range.start));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One bool a byte: slow, and plainly right.
    struct Oracle {
        taken: Vec<bool>,
    }

    impl Oracle {
        /// The maximal free ranges, in address order.
        fn free(&self) -> Vec<Range<usize>> {
            let mut ranges = Vec::new();
            let mut start = None;
            for (at, taken) in self.taken.iter().copied().chain([true]).enumerate() {
                match (taken, start) {
                    (false, None) => start = Some(at),
                    (true, Some(from)) => {
                        ranges.push(from..at);
                        start = None;
                    }
                    _ => {}
                }
            }
            ranges
        }

        /// The start that best fit must choose.
        fn best_fit(&self, len: usize, align: usize) -> Option<usize> {
            let fitting = self.free().into_iter().filter_map(|range| {
                let start = range.start.next_multiple_of(align);
                (start + len <= range.end).then_some((range.len(), start))
            });
            fitting.min().map(|(_, start)| start)
        }

        fn set(&mut self, range: Range<usize>, taken: bool) {
            for byte in &mut self.taken[range] {
                assert_ne!(*byte, taken, "taken twice or given twice");
                *byte = taken;
            }
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Take { len: usize, align: usize },
        Give { which: usize },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (1..200_usize, 0..6_u32).prop_map(|(len, log)| Step::Take { len, align: 1 << log }),
            2 => any::<usize>().prop_map(|which| Step::Give { which }),
        ]
    }

    proptest! {
        #[test]
        fn agrees_with_a_byte_map(capacity in 1..1500_usize, steps in prop::collection::vec(step(), 1..120)) {
            let mut ranges = FreeRanges::new(capacity);
            let mut oracle = Oracle { taken: vec![false; capacity] };
            let mut held: Vec<Range<usize>> = Vec::new();
            for step in steps {
                match step {
                    Step::Take { len, align } => {
                        let start = ranges.take(len, align);
                        prop_assert_eq!(start, oracle.best_fit(len, align));
                        if let Some(start) = start {
                            oracle.set(start..start + len, true);
                            held.push(start..start + len);
                        }
                    }
                    Step::Give { which } if !held.is_empty() => {
                        let range = held.swap_remove(which % held.len());
                        oracle.set(range.clone(), false);
                        let merged = ranges.give(range);
                        prop_assert!(oracle.free().contains(&merged));
                    }
                    Step::Give { .. } => {}
                }
                let mut free: Vec<_> = ranges.descending().collect();
                free.reverse();
                prop_assert_eq!(&free, &oracle.free());
                prop_assert_eq!(ranges.longest(1), free.iter().map(Range::len).max().unwrap_or(0));
                for align in [1, 8, 32] {
                    let longest = ranges.longest(align);
                    prop_assert_eq!(oracle.best_fit(longest + 1, align), None);
                    prop_assert!(longest == 0 || oracle.best_fit(longest, align).is_some());
                }
                prop_assert_eq!(ranges.by_len.len(), ranges.by_start.len());
            }
        }
    }
}
