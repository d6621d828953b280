//! All words of a pool, borrowed: what the moves are made on.

use crate::{
    bell::{self, ParkWord},
    header::Header,
    job::{JobCell, JobKey},
    lane::Lane,
    ring::RingView,
    slot::{SlotPhase, WorkerSlot},
    sync::{AtomicU32, Ordering},
};

/// All words of a pool, wherever they lie.
#[derive(Clone, Copy, Debug)]
pub struct Words<'a> {
    /// What concerns everybody.
    pub header: &'a Header,
    /// The runs that wait.
    pub ring: RingView<'a>,
    /// One for each worker.
    pub slots: &'a [WorkerSlot],
    /// Likewise.
    pub parks: &'a [ParkWord],
    /// One for each job.
    pub cells: &'a [JobCell],
    /// One for each worker in each job, job by job.
    pub lanes: &'a [Lane],
}

/// What the moves need besides words: the kernel, and whoever wants to end the process at a certain place.
pub trait Outside {
    /// Wakes so many at most of those that sleep on a word.
    fn wake(&self, word: &AtomicU32, most: u32);

    /// A move has come to this place.
    #[inline]
    fn reached(&self, place: Place) {
        let _ = place;
    }
}

/// Where nobody sleeps on a word, as in most models.
impl Outside for () {
    fn wake(&self, _: &AtomicU32, _: u32) {}
}

/// A place in a worker's moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It is about to say that it claims something.
    BeforeClaim,
    /// It has claimed something, which is written down nowhere.
    Claimed,
    /// It leaves for good, in the middle of a job.
    Recycling,
}

impl<'a> Words<'a> {
    /// Slots that ever had a worker.
    #[inline]
    pub fn used_slots(&self) -> usize {
        (self.header.used_slots.load(Ordering::Relaxed) as usize).min(self.slots.len())
    }

    /// The cell of a job. The key may be any process's word.
    #[inline]
    pub fn cell(&self, key: JobKey) -> Option<&'a JobCell> {
        self.cells.get(key.index as usize)
    }

    /// One worker's lane in a job that has a cell.
    #[inline]
    pub fn lane(&self, key: JobKey, worker: usize) -> &'a Lane {
        &self.lanes[key.index as usize * self.slots.len() + worker]
    }

    /// All lanes of a job that a worker was ever inside of.
    #[inline]
    pub fn lanes_of(&self, key: JobKey) -> &'a [Lane] {
        let first = key.index as usize * self.slots.len();
        &self.lanes[first..first + self.used_slots()]
    }

    /// Whether any worker announces this job. Asked when its gate is not open any more, whoever has changed it.
    pub fn anyone_inside(&self, key: JobKey) -> bool {
        // Step P1 of the hazard rule: the gate that was seen before the scan of the slots.
        bell::publish_fence();
        let mut slots = self.slots.iter().take(self.used_slots());
        slots.any(|slot| slot.inside() == Some(key))
    }

    /// Whether anybody may hold something of a job, or be about to say that it is over. An onlooker may miss a theft that is
    /// under way: ask twice.
    pub fn anyone_at(&self, key: JobKey) -> bool {
        bell::publish_fence();
        let mut slots = self.slots.iter().take(self.used_slots());
        slots.any(|slot| match slot.phase() {
            SlotPhase::Popping | SlotPhase::Stealing => true,
            // It has left a job, and has not yet compared the counts or rung.
            SlotPhase::Working => slot.inside().is_none_or(|inside| inside == key),
            _ => slot.inside() == Some(key),
        })
    }
}
