//! Who may be in the middle of a push: the numbers under which producers hold nodes of a queue.

use std::{
    process,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use swathe_memory::{MemoryError, Segment, SharedSlice};
use swathe_os::process::{exists, fork_generation};
use swathe_protocol::queue::QueueView;

/// How many handles can put into one queue at once, all processes together.
pub(super) const MAX_PRODUCERS: usize = 1024;

/// A counter, and a table with a word for each producer: 0 when the place is free, else the producer's number in the upper
/// half and its process id in the lower.
///
/// The number is what the queue knows the producer by. Process ids would not do: one that is given out again between the
/// look whether its producer is dead and the recovery would have a live producer's node freed. Numbers come again after
/// 2^32 producers only.
#[derive(Clone)]
pub(super) struct Producers(SharedSlice<AtomicU64>);

impl Producers {
    /// How many words they take.
    pub(super) const WORDS: usize = 1 + MAX_PRODUCERS;

    pub(super) fn at(segment: &Arc<Segment>, offset: usize) -> Result<Self, MemoryError> {
        super::body(segment, offset, Self::WORDS).map(Self)
    }

    /// Makes a handle of this process a producer, if there is a place.
    pub(super) fn register(&self) -> Option<Producer> {
        self.register_for(process::id())
    }

    pub(super) fn register_for(&self, pid: u32) -> Option<Producer> {
        let (next, table) = self.0.split_first()?;
        let number = next.fetch_add(1, Ordering::Relaxed) as u32;
        let word = u64::from(number) << 32 | u64::from(pid);
        let first = number as usize % table.len();
        let free = |&i: &usize| {
            let taken = table[i].compare_exchange(0, word, Ordering::AcqRel, Ordering::Relaxed);
            taken.is_ok()
        };
        let index = (first..table.len()).chain(0..first).find(free)?;
        Some(Producer {
            number,
            word,
            index,
            generation: fork_generation(),
            producers: self.clone(),
        })
    }

    /// Gives the queue back what dead processes hold of it, and frees their places. A process that has given its id to
    /// another one is found dead only when that one is.
    pub(super) fn recover_dead(&self, queue: &QueueView<'_>) {
        for place in &self.0[1..] {
            let word = place.load(Ordering::Acquire);
            if word != 0 && !exists(word as u32) {
                // In this order: a recovery that dies half way is done again.
                queue.recover((word >> 32) as u32);
                let _ = place.compare_exchange(word, 0, Ordering::AcqRel, Ordering::Relaxed);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.0[1..]
            .iter()
            .filter(|place| place.load(Ordering::Relaxed) != 0)
            .count()
    }
}

/// A handle that puts into the queue. Its place is free again when this is dropped, and nothing must be half pushed then.
pub(super) struct Producer {
    number: u32,
    word: u64,
    index: usize,
    generation: u64,
    producers: Producers,
}

impl Producer {
    /// Its number, for the queue.
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// Whether it is this process's own, not one that it inherited by a fork.
    pub(super) fn is_ours(&self) -> bool {
        self.generation == fork_generation()
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        if self.is_ours() {
            let place = &self.producers.0[1 + self.index];
            let _ = place.compare_exchange(self.word, 0, Ordering::AcqRel, Ordering::Relaxed);
        }
    }
}
