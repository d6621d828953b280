//! The truth about a chunk: one word, written by the one worker that holds the chunk.
//!
//! Words are used by one job after another, and nobody clears them in between: each says for which [`Tag`] it was
//! written, and under any other it says that nothing is final. So a small job does not pay for moving all its words to
//! the parent's core and back.

use core::ops::Range;

use crate::sync::{AtomicU32, Ordering};

/// A chunk's status word: whose it is, final or not, and how many of its positions are final.
#[repr(transparent)]
#[derive(Debug, Default)]
pub struct StatusWord(AtomicU32);

/// Tells the words of one job from those that the job before it left in the same place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tag(u32);

/// A chunk's status, as one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkStatus {
    /// The first `n` positions are final, the others are not.
    Progress(u32),
    /// All positions are final: each has its value in the slab or a failure record.
    Final,
}

const FINAL: u32 = 1 << 31;
const TAG_SHIFT: u32 = 27;
const PROGRESS: u32 = (1 << TAG_SHIFT) - 1;

/// The most positions a chunk can have: progress is 27 bits.
pub const MAX_CHUNK_LEN: u64 = PROGRESS as u64;

impl Tag {
    /// The tag of words that only one job ever uses: those in files. A word of zero is fresh under it.
    pub const NONE: Self = Self(0);

    /// The first tag on words that were cleared.
    pub const FIRST: Self = Self(1);

    const LAST: u32 = 15;

    /// For the next job on the same words. `None`: all tags have been used, and the words must be cleared first.
    pub fn next(self) -> Option<Self> {
        (self.0 < Self::LAST).then_some(Self(self.0 + 1))
    }

    /// The tag as a word.
    pub fn to_word(self) -> u64 {
        u64::from(self.0)
    }

    /// The tag of a word. Any word is one.
    pub fn from_word(word: u64) -> Self {
        Self(word as u32 & Self::LAST)
    }

    #[inline]
    fn bits(self) -> u32 {
        self.0 << TAG_SHIFT
    }
}

impl StatusWord {
    /// The status now. Who sees `Final` may read the chunk's part of the slab.
    #[inline]
    pub fn load(&self, tag: Tag) -> ChunkStatus {
        // SYNC publish: pairs with the releases below.
        let word = self.0.load(Ordering::Acquire);
        if word & !(FINAL | PROGRESS) != tag.bits() {
            ChunkStatus::Progress(0)
        } else if word & FINAL != 0 {
            ChunkStatus::Final
        } else {
            ChunkStatus::Progress(word & PROGRESS)
        }
    }

    /// Whether nothing of the chunk is final. Asked by its holder, who alone changes that.
    #[inline]
    pub fn is_fresh(&self, tag: Tag) -> bool {
        let word = self.0.load(Ordering::Relaxed);
        word & !(FINAL | PROGRESS) != tag.bits() || word == tag.bits()
    }

    /// The holder of the chunk says that its first `n` positions are final.
    #[inline]
    pub fn publish_progress(&self, tag: Tag, n: u32) {
        // SYNC publish: the values in the slab come before.
        self.0.store(tag.bits() | (n & PROGRESS), Ordering::Release);
    }

    /// The holder of the chunk says that all positions are final.
    #[inline]
    pub fn publish_final(&self, tag: Tag) {
        // SYNC publish: the values in the slab come before.
        self.0.store(tag.bits() | FINAL, Ordering::Release);
    }

    /// Clears the word for all tags, when nobody uses it.
    #[inline]
    pub fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// The chunks that are not final, as ascending disjoint runs.
pub fn unfinished(status: &[StatusWord], tag: Tag) -> Vec<Range<u32>> {
    let mut runs: Vec<Range<u32>> = Vec::new();
    for (chunk, word) in (0..).zip(status) {
        if word.load(tag) == ChunkStatus::Final {
            continue;
        }
        match runs.last_mut() {
            Some(last) if last.end == chunk => last.end = chunk + 1,
            _ => runs.push(chunk..chunk + 1),
        }
    }
    runs
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_another_job_has_left_says_nothing() {
        let (word, mut tag) = (StatusWord::default(), Tag::NONE);
        let mut tags = 0;
        while let Some(next) = tag.next() {
            (tag, tags) = (next, tags + 1);
            assert!(word.is_fresh(tag), "{word:?} under {tag:?}");
            assert_eq!(word.load(tag), ChunkStatus::Progress(0));
            word.publish_progress(tag, MAX_CHUNK_LEN as u32);
            assert_eq!(word.load(tag), ChunkStatus::Progress(MAX_CHUNK_LEN as u32));
            assert!(!word.is_fresh(tag) && word.is_fresh(Tag::NONE));
            word.publish_progress(tag, 0);
            assert!(word.is_fresh(tag));
            word.publish_final(tag);
            assert_eq!(word.load(tag), ChunkStatus::Final);
            assert!(!word.is_fresh(tag));
            assert_eq!(Tag::from_word(tag.to_word()), tag);
        }
        assert_eq!(tags, 15);
    }
}
