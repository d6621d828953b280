//! Who may be in the middle of a push: the names under which producers hold nodes of a queue.

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
pub(super) const SEATS: usize = 1024;

/// A counter, and a word for each seat: 0 when it is free, else the owner's number in the upper half and its process id
/// in the lower.
///
/// The number is what the queue knows the owner by. Process ids would not do: one that is given out again between the
/// look whether its owner is dead and the recovery would have a live owner's node freed. Numbers come again after 2^32
/// seats only.
#[derive(Clone)]
pub(super) struct Seats(SharedSlice<AtomicU64>);

impl Seats {
    /// How many words they take.
    pub(super) const WORDS: usize = 1 + SEATS;

    pub(super) fn at(segment: &Arc<Segment>, offset: usize) -> Result<Self, MemoryError> {
        super::body(segment, offset, Self::WORDS).map(Self)
    }

    /// A seat for this process, if one is free.
    pub(super) fn take(&self) -> Option<Seat> {
        self.take_for(process::id())
    }

    pub(super) fn take_for(&self, pid: u32) -> Option<Seat> {
        let (next, table) = self.0.split_first()?;
        let number = next.fetch_add(1, Ordering::Relaxed) as u32;
        let word = u64::from(number) << 32 | u64::from(pid);
        let first = number as usize % table.len();
        let free = |&i: &usize| {
            let taken = table[i].compare_exchange(0, word, Ordering::AcqRel, Ordering::Relaxed);
            taken.is_ok()
        };
        let index = (first..table.len()).chain(0..first).find(free)?;
        Some(Seat {
            number,
            word,
            index,
            generation: fork_generation(),
            seats: self.clone(),
        })
    }

    /// Gives the queue back what dead processes hold of it, and frees their seats. A process that has given its id to
    /// another one is found dead only when that one is.
    pub(super) fn recover_dead(&self, queue: &QueueView<'_>) {
        for seat in &self.0[1..] {
            let word = seat.load(Ordering::Acquire);
            if word != 0 && !exists(word as u32) {
                // In this order: a recovery that dies half way is done again.
                queue.recover((word >> 32) as u32);
                let _ = seat.compare_exchange(word, 0, Ordering::AcqRel, Ordering::Relaxed);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn taken(&self) -> usize {
        self.0[1..]
            .iter()
            .filter(|seat| seat.load(Ordering::Relaxed) != 0)
            .count()
    }
}

/// A handle's seat. It is free again when dropped, and nothing must be half pushed then.
pub(super) struct Seat {
    number: u32,
    word: u64,
    index: usize,
    generation: u64,
    seats: Seats,
}

impl Seat {
    /// The owner's number, for the queue.
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// Whether the seat is this process's own, not one that it inherited by a fork.
    pub(super) fn is_ours(&self) -> bool {
        self.generation == fork_generation()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.is_ours() {
            let seat = &self.seats.0[1 + self.index];
            let _ = seat.compare_exchange(self.word, 0, Ordering::AcqRel, Ordering::Relaxed);
        }
    }
}
