//! The control segment: one small segment a pool, which holds the protocol's words.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use swathe_memory::{MemoryError, Segment, Shared, SharedSlice};
use swathe_protocol::{
    Header, JobCell, JobKey, Lane, Outside, Parent, ParkWord, Place, RingCell, RingEnds, RingView, Words,
    WorkerSlot, header::MAGIC,
};

use crate::{
    fault::{self, Point},
    shared::memory,
};

/// Job cells: how many jobs can be in work at once; more wait in the parent.
pub(crate) const JOBS: u32 = 256;
/// Ring cells: how many runs can wait at once; more wait in the parent.
pub(crate) const RING: u32 = 1024;
/// The most workers a pool can have.
pub const MAX_PROCESSES: usize = 1024;

/// What the kernel calls the segment; see [`crate::observe`].
pub(crate) const NAME: &str = "swathe-control";

/// The protocol's words, laid over a segment.
#[derive(Clone, Debug)]
pub(crate) struct Control {
    pub(crate) segment: Arc<Segment>,
    pub(crate) header: Shared<Header>,
    ends: Shared<RingEnds>,
    cells: SharedSlice<RingCell>,
    pub(crate) slots: SharedSlice<WorkerSlot>,
    pub(crate) parks: SharedSlice<ParkWord>,
    pub(crate) jobs: SharedSlice<JobCell>,
    lanes: SharedSlice<Lane>,
}

/// Where each part lies, bytes: header, ring ends, ring cells, slots, park words, job cells, lanes, end.
fn layout(slots: usize) -> [usize; 8] {
    let parts = [
        size_of::<Header>(),
        size_of::<RingEnds>(),
        size_of::<RingCell>() * RING as usize,
        size_of::<WorkerSlot>() * slots,
        size_of::<ParkWord>() * slots,
        size_of::<JobCell>() * JOBS as usize,
        size_of::<Lane>() * JOBS as usize * slots,
    ];
    let mut offsets = [0; 8];
    for (i, part) in parts.iter().enumerate() {
        offsets[i + 1] = (offsets[i] + part).next_multiple_of(128);
    }
    offsets
}

/// What the protocol's moves need of the system they run on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct System;

impl Outside for System {
    fn wake(&self, word: &AtomicU32, most: u32) {
        swathe_os::futex::wake(word, most);
    }

    #[inline]
    fn reached(&self, place: Place) {
        fault::point(match place {
            Place::BeforeClaim => Point::BeforeClaim,
            Place::Claimed => Point::Claimed,
            Place::Recycling => Point::Recycling,
        });
    }
}

impl Control {
    /// Bytes of a control segment.
    pub(crate) fn len(slots: usize) -> usize {
        layout(slots)[7].next_multiple_of(4096)
    }

    /// Makes the control segment of a new pool.
    pub(crate) fn create(slots: usize) -> Result<Self, MemoryError> {
        let segment = Segment::create(NAME, Self::len(slots))?;
        let control = Self::lay(segment, slots)?;
        control.header.magic.store(MAGIC, Ordering::Relaxed);
        control.header.slots.store(slots as u32, Ordering::Relaxed);
        control.header.jobs.store(JOBS, Ordering::Relaxed);
        control.header.ring.store(RING, Ordering::Relaxed);
        Ok(control)
    }

    /// Lays the words over a segment that the parent made for `slots` workers.
    pub(crate) fn lay(segment: Arc<Segment>, slots: usize) -> Result<Self, MemoryError> {
        // The number is another process's word. One more than there can be fits into no segment that was made.
        let slots = slots.min(MAX_PROCESSES + 1);
        let at = layout(slots);
        Ok(Self {
            header: memory::word(&segment, at[0])?,
            ends: memory::word(&segment, at[1])?,
            cells: memory::words(&segment, at[2], RING as usize)?,
            slots: memory::words(&segment, at[3], slots)?,
            parks: memory::words(&segment, at[4], slots)?,
            jobs: memory::words(&segment, at[5], JOBS as usize)?,
            lanes: memory::words(&segment, at[6], JOBS as usize * slots)?,
            segment,
        })
    }

    /// All words, for the protocol's moves.
    #[inline]
    pub(crate) fn words(&self) -> Words<'_> {
        Words {
            header: &self.header,
            ring: self.ring(),
            slots: &self.slots,
            parks: &self.parks,
            cells: &self.jobs,
            lanes: &self.lanes,
        }
    }

    /// The moves of whoever holds the state's lock.
    pub(crate) fn parent(&self) -> Parent<'_, System> {
        Parent::new(self.words(), &System)
    }

    /// The ring.
    pub(crate) fn ring(&self) -> RingView<'_> {
        RingView::new(&self.ends, &self.cells)
    }

    /// One worker's lane in a job.
    pub(crate) fn lane(&self, job: JobKey, worker: usize) -> &Lane {
        self.words().lane(job, worker)
    }

    /// The cell of a job.
    pub(crate) fn job(&self, key: JobKey) -> Option<&JobCell> {
        self.words().cell(key)
    }

    /// Says how many idle workers may stay awake: see [`Header::lookouts`].
    pub(crate) fn set_lookouts(&self, processes: usize, cores: usize) {
        let seats = if processes > cores { 0 } else { cores - 1 };
        self.header.lookouts.store(seats as u32, Ordering::Relaxed);
    }

    /// Wakes every sleeping worker, also one whose wake was lost by a death.
    pub(crate) fn wake_all(&self) {
        self.words().wake_all(&System);
    }

    /// Wakes the parent's courier.
    pub(crate) fn wake_courier(&self) {
        self.words().wake_courier(&System);
    }

    /// Makes those who wait for a job look at it.
    pub(crate) fn ring_bell(&self, key: JobKey) {
        let words = self.words();
        if let Some(cell) = words.cell(key) {
            words.ring_bell(&System, cell, false);
        }
    }
}
