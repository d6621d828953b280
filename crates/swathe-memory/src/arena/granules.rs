//! Which parts of an arena have pages.

use std::ops::Range;

use swathe_os::mapping::HUGE_PAGE;

/// The arena in pieces of one huge page each, and whether each is warm: has pages.
///
/// Pages come and go by whole granules, so that a granule is either all there or reads as zeros.
#[derive(Debug)]
pub(crate) struct Granules {
    warm: Vec<bool>,
    warm_count: usize,
}

impl Granules {
    /// All cold. `capacity` is a multiple of a huge page.
    pub(crate) fn new(capacity: usize) -> Granules {
        Granules {
            warm: vec![false; capacity / HUGE_PAGE],
            warm_count: 0,
        }
    }

    /// Bytes in warm granules.
    pub(crate) fn warm_bytes(&self) -> usize {
        self.warm_count * HUGE_PAGE
    }

    /// The cold parts of the granules that `bytes` touches, as maximal ranges of whole granules.
    pub(crate) fn cold(&self, bytes: &Range<usize>) -> Vec<Range<usize>> {
        let touched = bytes.start / HUGE_PAGE..bytes.end.div_ceil(HUGE_PAGE);
        self.runs(touched, false)
    }

    /// The warm granules that lie wholly in `bytes`, as maximal ranges.
    pub(crate) fn warm_inside(&self, bytes: &Range<usize>) -> Vec<Range<usize>> {
        let inside = bytes.start.div_ceil(HUGE_PAGE)..bytes.end / HUGE_PAGE;
        self.runs(inside, true)
    }

    /// Marks whole granules, none of which is in that state yet.
    pub(crate) fn mark(&mut self, bytes: &Range<usize>, warm: bool) {
        let granules = bytes.start / HUGE_PAGE..bytes.end / HUGE_PAGE;
        debug_assert!(self.warm[granules.clone()].iter().all(|&was| was != warm));
        match warm {
            true => self.warm_count += granules.len(),
            false => self.warm_count -= granules.len(),
        }
        self.warm[granules].fill(warm);
    }

    fn runs(&self, granules: Range<usize>, warm: bool) -> Vec<Range<usize>> {
        let mut runs: Vec<Range<usize>> = Vec::new();
        for granule in granules {
            if self.warm[granule] != warm {
                continue;
            }
            let start = granule * HUGE_PAGE;
            match runs.last_mut() {
                Some(run) if run.end == start => run.end += HUGE_PAGE,
                _ => runs.push(start..start + HUGE_PAGE),
            }
        }
        runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const H: usize = HUGE_PAGE;

    #[test]
    fn touched_granules_warm_and_only_whole_ones_cool() {
        let mut granules = Granules::new(8 * H);
        assert_eq!(granules.cold(&(H - 1..3 * H + 1)), vec![0..4 * H]);
        granules.mark(&(H..2 * H), true);
        granules.mark(&(3 * H..6 * H), true);
        assert_eq!(granules.warm_bytes(), 4 * H);
        assert_eq!(
            granules.cold(&(64..7 * H)),
            vec![0..H, 2 * H..3 * H, 6 * H..7 * H]
        );
        assert_eq!(granules.warm_inside(&(1..8 * H)), vec![H..2 * H, 3 * H..6 * H]);
        assert_eq!(granules.warm_inside(&(3 * H + 64..5 * H - 64)), vec![]);
        granules.mark(&(4 * H..5 * H), false);
        assert_eq!(
            granules.warm_inside(&(0..8 * H)),
            vec![H..2 * H, 3 * H..4 * H, 5 * H..6 * H]
        );
        assert_eq!(granules.cold(&(H..H)), vec![]);
    }
}
