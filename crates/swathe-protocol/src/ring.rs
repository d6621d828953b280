//! The ring of run descriptors: one producer (the parent, under its own lock), any number of consumers.
//!
//! A descriptor is a *run*: some consecutive chunks of one job. No item is ever copied through the ring.
//!
//! Why a consumer copies the cell first and claims it afterwards: the claim is then one compare-exchange on `head`, and
//! a consumer that dies before it has taken nothing, one that dies after it has taken the run whole. There is no cell
//! that a dead consumer still "owns", so the producer never waits for one.

use crate::{
    job::JobKey,
    sync::{AtomicU64, Ordering},
};

/// Some consecutive chunks of one job, waiting for a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// The job.
    pub job: JobKey,
    /// The job's epoch for which this run was made; a run of an older epoch is dropped by whoever takes it.
    pub epoch: u32,
    /// First chunk.
    pub first: u32,
    /// Number of chunks.
    pub chunks: u32,
    /// Run the elements one at a time and publish after each: somebody died in here.
    pub careful: bool,
}

/// One cell of the ring.
#[repr(C)]
#[derive(Debug, Default)]
pub struct RingCell {
    words: [AtomicU64; 3],
}

/// The two ends of the ring, each on its own cache line.
#[repr(C, align(128))]
#[derive(Debug, Default)]
pub struct RingEnds {
    head: Head,
    tail: Tail,
}

#[repr(C, align(128))]
#[derive(Debug, Default)]
struct Head(AtomicU64);

#[repr(C, align(128))]
#[derive(Debug, Default)]
struct Tail(
    AtomicU64,
    /// The producer's own: where the head was when it last looked.
    AtomicU64,
);

/// A ring over borrowed words. The number of cells is a power of two.
#[derive(Clone, Copy, Debug)]
pub struct RingView<'a> {
    ends: &'a RingEnds,
    cells: &'a [RingCell],
}

impl<'a> RingView<'a> {
    /// Lays a ring over its words.
    ///
    /// # Panics
    /// If the number of cells is not a power of two.
    #[inline]
    pub fn new(ends: &'a RingEnds, cells: &'a [RingCell]) -> Self {
        assert!(
            cells.len().is_power_of_two(),
            "a ring has a power of two of cells, not {}",
            cells.len()
        );
        Self { ends, cells }
    }

    /// Puts a run at the end; gives it back if the ring is full. One producer at a time: the caller holds a lock.
    #[inline]
    pub fn push(&self, run: Descriptor) -> Result<(), Descriptor> {
        let cells = self.cells.len() as u64;
        let tail = self.ends.tail.0.load(Ordering::Relaxed);
        // The consumers' line is looked at only when the ring may be full, once a lap.
        if tail.wrapping_sub(self.ends.tail.1.load(Ordering::Relaxed)) >= cells {
            // Pairs with the claim in `pop`: a cell is overwritten only after its reader has finished with it.
            let head = self.ends.head.0.load(Ordering::Acquire);
            self.ends.tail.1.store(head, Ordering::Relaxed);
            if tail.wrapping_sub(head) >= cells {
                return Err(run);
            }
        }
        self.cell(tail).write(run);
        // SYNC ring-publish: pairs with the acquire of `tail` in `pop`.
        self.ends.tail.0.store(tail.wrapping_add(1), Ordering::Release);
        Ok(())
    }

    /// Claims the run at the front, or `None` when the ring is empty. Lock-free; any number of consumers.
    #[inline]
    pub fn pop(&self) -> Option<Descriptor> {
        let mut head = self.ends.head.0.load(Ordering::Acquire);
        loop {
            // SYNC ring-publish: pairs with the release of `tail` in `push`.
            let tail = self.ends.tail.0.load(Ordering::Acquire);
            if tail.wrapping_sub(head) as i64 <= 0 {
                return None;
            }
            // May be torn by a producer that laps us, but then `head` has moved and the claim below fails.
            let run = self.cell(head).read();
            match self.ends.head.0.compare_exchange_weak(
                head,
                head.wrapping_add(1),
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => return Some(run),
                Err(now) => head = now,
            }
        }
    }

    /// How many runs are waiting, at this instant.
    pub fn len(&self) -> u64 {
        let head = self.ends.head.0.load(Ordering::Acquire);
        let waiting = self.ends.tail.0.load(Ordering::Acquire).wrapping_sub(head) as i64;
        waiting.clamp(0, self.cells.len() as i64) as u64
    }

    /// Whether a run is waiting, at this instant.
    #[inline]
    pub fn is_empty(&self) -> bool {
        let head = self.ends.head.0.load(Ordering::Relaxed);
        self.ends.tail.0.load(Ordering::Relaxed).wrapping_sub(head) as i64 <= 0
    }

    fn cell(&self, ticket: u64) -> &RingCell {
        &self.cells[ticket as usize & (self.cells.len() - 1)]
    }
}

const CAREFUL: u64 = 1;

impl RingCell {
    fn write(&self, run: Descriptor) {
        let flags = if run.careful { CAREFUL } else { 0 };
        self.words[0].store(run.job.to_word(), Ordering::Relaxed);
        self.words[1].store(
            u64::from(run.first) << 32 | u64::from(run.chunks),
            Ordering::Relaxed,
        );
        self.words[2].store(u64::from(run.epoch) << 32 | flags, Ordering::Relaxed);
    }

    fn read(&self) -> Descriptor {
        let span = self.words[1].load(Ordering::Relaxed);
        let rest = self.words[2].load(Ordering::Relaxed);
        Descriptor {
            job: JobKey::from_word(self.words[0].load(Ordering::Relaxed)),
            epoch: (rest >> 32) as u32,
            first: (span >> 32) as u32,
            chunks: span as u32,
            careful: rest & CAREFUL != 0,
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn run(first: u32) -> Descriptor {
        Descriptor {
            job: JobKey::new(3, 7),
            epoch: 5,
            first,
            chunks: 2,
            careful: first % 2 == 1,
        }
    }

    #[test]
    fn a_full_ring_gives_the_run_back_and_an_empty_one_gives_nothing() {
        let (ends, cells) = (RingEnds::default(), [RingCell::default(), RingCell::default()]);
        let ring = RingView::new(&ends, &cells);
        for lap in 0..5 {
            assert_eq!(ring.pop(), None);
            ring.push(run(lap)).unwrap();
            ring.push(run(lap + 1)).unwrap();
            assert_eq!(ring.push(run(9)), Err(run(9)));
            assert_eq!(ring.pop(), Some(run(lap)));
            assert_eq!(ring.pop(), Some(run(lap + 1)));
            assert!(ring.is_empty());
        }
    }
}
