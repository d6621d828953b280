//! Small blocks that were just freed.

use std::ops::Range;

/// Blocks of at most this many bytes are kept aside.
const SMALL: usize = 64 << 10;
/// How many.
const KEPT: usize = 32;

/// The small blocks that were freed last, kept as they are: what repeats the same job takes the same blocks again, without
/// a search for a place, and their lines are still in a cache. They are free, but not among the free ranges.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    /// Oldest first.
    blocks: Vec<Range<usize>>,
}

impl Recent {
    /// Takes a block of exactly this many bytes, the last one that was freed.
    pub(crate) fn take(&mut self, len: usize, align: usize) -> Option<usize> {
        if len > SMALL {
            return None;
        }
        let fits = |block: &Range<usize>| block.len() == len && block.start.is_multiple_of(align);
        let at = self.blocks.iter().rposition(fits)?;
        Some(self.blocks.remove(at).start)
    }

    /// Keeps a freed block. Gives back what is to be made free for good: a long one itself, or the oldest.
    pub(crate) fn give(&mut self, block: Range<usize>) -> Option<Range<usize>> {
        if block.len() > SMALL {
            return Some(block);
        }
        let oldest = (self.blocks.len() == KEPT).then(|| self.blocks.remove(0));
        self.blocks.push(block);
        oldest
    }

    /// Gives all of them back.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Range<usize>> {
        self.blocks.drain(..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_freed_is_the_first_taken_and_the_oldest_goes() {
        let mut recent = Recent::default();
        for i in 0..KEPT {
            assert_eq!(recent.give(i * 64..i * 64 + 64), None);
        }
        assert_eq!(recent.give(KEPT * 64..KEPT * 64 + 64), Some(0..64));
        assert_eq!(recent.take(128, 64), None, "another length");
        assert_eq!(recent.take(64, 64), Some(KEPT * 64));
        assert_eq!(recent.take(64, 4096), None, "none of the 31 others starts there");
        assert_eq!(recent.drain().count(), KEPT - 1);
        assert_eq!(
            recent.give(0..SMALL + 64),
            Some(0..SMALL + 64),
            "too long to keep"
        );
    }
}
