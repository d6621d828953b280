//! Ranges of positions: what is final of a job.

use std::ops::Range;

use swathe_protocol::{ChunkStatus, JobTerms, StatusWord};

/// The positions that are final, as ascending disjoint ranges.
pub(crate) fn finals(status: &[StatusWord], terms: &JobTerms) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for (chunk, word) in (0..).zip(status) {
        let all = terms.positions_of(chunk, 1);
        let end = match word.load(terms.tag()) {
            ChunkStatus::Final => all.end,
            ChunkStatus::Progress(n) => (all.start + u64::from(n)).min(all.end),
        };
        match ranges.last_mut() {
            Some(last) if last.end == all.start => last.end = end,
            _ if end > all.start => ranges.push(all.start..end),
            _ => {}
        }
    }
    ranges
}

/// Ranges without some positions. Both ascend.
pub(crate) fn without(ranges: Vec<Range<u64>>, positions: &[u64]) -> Vec<Range<u64>> {
    let mut left = Vec::with_capacity(ranges.len());
    let mut holes = positions.iter().copied().peekable();
    for mut range in ranges {
        while let Some(hole) = holes.next_if(|hole| *hole < range.end) {
            if hole > range.start {
                left.push(range.start..hole);
            }
            range.start = range.start.max(hole + 1);
        }
        if !range.is_empty() {
            left.push(range);
        }
    }
    left
}
