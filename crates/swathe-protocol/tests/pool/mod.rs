//! The words of a small pool with one cell, for models whose threads make the protocol's moves on them.

use swathe_protocol::{
    Header, JobCell, JobKey, JobTerms, Lane, Member, Opening, Parent, ParkWord, RingCell, RingEnds, RingView,
    VacantCell, Words, WorkerSlot, sync::Ordering::Relaxed,
};

/// The first job of the cell.
pub(crate) const KEY: JobKey = JobKey::new(0, 1);

#[derive(Default)]
pub(crate) struct Pool<const WORKERS: usize>
where
    [ParkWord; WORKERS]: Default,
    [Lane; WORKERS]: Default,
    [WorkerSlot; WORKERS]: Default,
{
    header: Header,
    ends: RingEnds,
    ring: [RingCell; 4],
    parks: [ParkWord; WORKERS],
    pub(crate) cell: JobCell,
    lanes: [Lane; WORKERS],
    pub(crate) slots: [WorkerSlot; WORKERS],
}

impl<const WORKERS: usize> Pool<WORKERS>
where
    [ParkWord; WORKERS]: Default,
    [Lane; WORKERS]: Default,
    [WorkerSlot; WORKERS]: Default,
{
    /// Workers have come, and the cell is vacant.
    pub(crate) fn new() -> (Self, VacantCell) {
        let pool = Self::default();
        pool.header.used_slots.store(WORKERS as u32, Relaxed);
        (pool, VacantCell::all(1).pop().unwrap())
    }

    pub(crate) fn words(&self) -> Words<'_> {
        Words {
            header: &self.header,
            ring: RingView::new(&self.ends, &self.ring),
            slots: &self.slots,
            parks: &self.parks,
            cells: std::slice::from_ref(&self.cell),
            lanes: &self.lanes,
        }
    }

    pub(crate) fn member(&self, me: usize) -> Member<'_, ()> {
        Member::new(self.words(), &(), me)
    }

    pub(crate) fn parent(&self) -> Parent<'_, ()> {
        Parent::new(self.words(), &())
    }
}

/// Fresh chunks.
pub(crate) fn opening(chunks: u32) -> Opening {
    Opening {
        terms: JobTerms::default(),
        chunks,
        disturbed: false,
    }
}
