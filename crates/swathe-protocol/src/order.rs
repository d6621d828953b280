//! What the parent asks of one worker: its own chunk of a job that wants every worker itself, or to leave for good.

use crate::{
    job::{EPOCH_MASK, JobKey},
    sync::{AtomicU64, Ordering},
};

/// An order, as one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Nothing is asked.
    None,
    /// Leave for good: the worker is one too many.
    Retire,
    /// Run what lies in your lane of this job.
    Run {
        /// The job.
        job: JobKey,
        /// The job's epoch for which the lane was filled, 24 bits. An order of an older epoch is dropped by whoever finds
        /// it: the same job is ordered anew in each round, and after each rebuild.
        epoch: u32,
    },
}

impl Order {
    /// How many job cells an order can tell apart.
    pub const CELLS: u32 = 1 << Self::CELL_BITS;

    const CELL_BITS: u32 = 8;
    /// No order to run looks like this: its generation is 0, which names no job.
    const RETIRE: u64 = 1;

    fn to_word(self) -> u64 {
        match self {
            Self::None => 0,
            Self::Retire => Self::RETIRE,
            Self::Run { job, epoch } => {
                debug_assert!(job.is_some() && job.index < Self::CELLS, "{job:?}");
                u64::from(job.generation) << 32
                    | u64::from(epoch & EPOCH_MASK) << Self::CELL_BITS
                    | u64::from(job.index & (Self::CELLS - 1))
            }
        }
    }

    fn from_word(word: u64) -> Self {
        let job = JobKey::new(word as u32 & (Self::CELLS - 1), (word >> 32) as u32);
        match word {
            Self::RETIRE => Self::Retire,
            _ if !job.is_some() => Self::None,
            _ => Self::Run {
                job,
                epoch: word as u32 >> Self::CELL_BITS,
            },
        }
    }
}

/// The word in a worker's slot that holds its [`Order`]. Zero is none.
///
/// The parent writes, under its lock: whatever stands there is void or done by then. The worker clears what it has read
/// when it is done with it, and nothing else: a later order, of the same job too, is another word.
#[repr(transparent)]
#[derive(Debug, Default)]
pub struct OrderWord(AtomicU64);

impl OrderWord {
    /// The parent gives an order. The lane that it is about was filled before, and the gate opened.
    pub fn give(&self, order: Order) {
        // SYNC order: pairs with the acquire in `read`; the lane and the gate come before. An exchange, though nothing is
        // done with the old value: loom does not know that a store cannot come between the two halves of `clear`.
        self.0.swap(order.to_word(), Ordering::AcqRel);
    }

    /// What is asked now.
    #[inline]
    pub fn read(&self) -> Order {
        // SYNC order: pairs with the release in `give`.
        Order::from_word(self.0.load(Ordering::Acquire))
    }

    /// Clears an order that is done with: the worker at the very end of what it did for it, so that a death before leaves
    /// it to the replacement. Nothing happens if another order stands there by now.
    pub fn clear(&self, done: Order) {
        let _ = self
            .0
            .compare_exchange(done.to_word(), 0, Ordering::AcqRel, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn orders_are_told_apart() {
        let run = |index, generation, epoch| Order::Run {
            job: JobKey::new(index, generation),
            epoch,
        };
        let orders = [
            Order::None,
            Order::Retire,
            run(0, 1, 0),
            run(1, 1, 0),
            run(0, 1, 1),
            run(0, 2, 0),
            run(Order::CELLS - 1, u32::MAX, EPOCH_MASK),
        ];
        for order in orders {
            let word = OrderWord::default();
            assert_eq!(word.read(), Order::None);
            word.give(order);
            assert_eq!(word.read(), order);
            for other in orders.into_iter().filter(|other| *other != order) {
                word.clear(other);
                assert_eq!(word.read(), order, "cleared by {other:?}");
            }
            word.clear(order);
            assert_eq!(word.read(), Order::None);
        }
    }
}
