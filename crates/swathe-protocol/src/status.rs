//! The truth about a chunk: one word, written by the one worker that holds the chunk.

use crate::sync::{AtomicU32, Ordering};

/// A chunk's status word: final or not, and how many of its positions are final.
#[repr(transparent)]
#[derive(Debug, Default)]
pub struct StatusWord(AtomicU32);

/// A chunk's status, as one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkStatus {
    /// The first `n` positions are final, the others are not.
    Progress(u32),
    /// All positions are final: each has its value in the slab or a failure record.
    Final,
}

const FINAL: u32 = 1 << 31;

/// The most positions a chunk can have: progress is 31 bits.
pub const MAX_CHUNK_LEN: u64 = (FINAL - 1) as u64;

impl StatusWord {
    /// The status now. Who sees `Final` may read the chunk's part of the slab.
    #[inline]
    pub fn load(&self) -> ChunkStatus {
        // SYNC publish: pairs with the releases below.
        let word = self.0.load(Ordering::Acquire);
        if word & FINAL != 0 {
            ChunkStatus::Final
        } else {
            ChunkStatus::Progress(word)
        }
    }

    /// Whether nothing of the chunk is final. Asked by its holder, who alone changes that.
    #[inline]
    pub fn is_fresh(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    /// The holder of the chunk says that its first `n` positions are final.
    #[inline]
    pub fn publish_progress(&self, n: u32) {
        // SYNC publish: the values in the slab come before.
        self.0.store(n & !FINAL, Ordering::Release);
    }

    /// The holder of the chunk says that all positions are final.
    #[inline]
    pub fn publish_final(&self) {
        // SYNC publish: the values in the slab come before.
        self.0.store(FINAL, Ordering::Release);
    }

    /// The parent clears the word of a new job.
    pub fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}
