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
            if !self.is_between(head, tail) {
                let now = self.ends.head.0.load(Ordering::Acquire);
                if now == head {
                    return None; // Empty, or damaged.
                }
                head = now;
                continue;
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

    /// How many runs are waiting, at this instant: none in a ring that is damaged.
    pub fn len(&self) -> u64 {
        self.waiting().unwrap_or(0)
    }

    /// Whether a run is waiting, at this instant.
    #[inline]
    pub fn is_empty(&self) -> bool {
        let head = self.ends.head.0.load(Ordering::Relaxed);
        let tail = self.ends.tail.0.load(Ordering::Relaxed);
        tail == head || (!self.is_between(head, tail) && self.len() == 0)
    }

    /// Whether the ends are where no ring has them: somebody wrote where it should not. Nobody finds a run in it, and none
    /// finds room.
    pub fn is_damaged(&self) -> bool {
        self.waiting().is_none()
    }

    /// The producer makes the ring an empty one, whatever it is, damaged or not. All runs that were there are void: the gates
    /// were closed before, and the claims of all jobs are made anew. Gives whether it was damaged.
    pub fn clear(&self) -> bool {
        let tail = self.ends.tail.0.load(Ordering::Relaxed);
        // No ticket that was ever claimed: a claim that is under way fails.
        let head = self.ends.head.0.swap(tail, Ordering::AcqRel);
        self.ends.tail.1.store(tail, Ordering::Relaxed);
        tail.wrapping_sub(head) > self.cells.len() as u64
    }

    /// `None`: damaged.
    fn waiting(&self) -> Option<u64> {
        let mut head = self.ends.head.0.load(Ordering::Acquire);
        loop {
            let tail = self.ends.tail.0.load(Ordering::Acquire);
            let now = self.ends.head.0.load(Ordering::Acquire);
            // Between two looks that find the head in the same place it has not moved: nor is the tail older or newer.
            if now == head {
                let waiting = tail.wrapping_sub(head);
                return (waiting <= self.cells.len() as u64).then_some(waiting);
            }
            head = now;
        }
    }

    /// Whether there is a run at this head, before this tail.
    #[inline]
    fn is_between(&self, head: u64, tail: u64) -> bool {
        let waiting = tail.wrapping_sub(head);
        waiting != 0 && waiting <= self.cells.len() as u64
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
    fn a_ring_whose_ends_were_overwritten_is_empty_until_it_is_cleared() {
        for wild in [0, 7, 8, 9, 10, 11, u64::MAX] {
            for end in 0..2 {
                let (ends, cells) = (RingEnds::default(), [RingCell::default(), RingCell::default()]);
                let ring = RingView::new(&ends, &cells);
                for first in 0..9 {
                    ring.push(run(first)).unwrap();
                    assert_eq!(ring.pop(), Some(run(first)));
                }
                [&ends.head.0, &ends.tail.0][end].store(wild, Ordering::Relaxed);
                let waiting = if end == 0 {
                    9_u64.wrapping_sub(wild)
                } else {
                    wild.wrapping_sub(9)
                };
                assert_eq!(ring.is_damaged(), waiting > 2, "{wild}");
                if ring.is_damaged() {
                    assert_eq!((ring.len(), ring.is_empty(), ring.pop()), (0, true, None));
                    ring.clear();
                    assert!(!ring.is_damaged() && ring.is_empty());
                    ring.push(run(1)).unwrap();
                    ring.push(run(2)).unwrap();
                    assert_eq!(ring.push(run(3)), Err(run(3)));
                    assert_eq!((ring.pop(), ring.pop()), (Some(run(1)), Some(run(2))));
                }
            }
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
