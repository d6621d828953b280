//! Sleeping until something in shared memory changes, without a count that the dead could leave wrong.

use std::{
    sync::{Arc, atomic::AtomicU32},
    time::Duration,
};

use swathe_memory::{MemoryError, Segment, SharedSlice};
use swathe_os::futex;
use swathe_protocol::DoorbellView;

use crate::lower::handles::words;

/// The words of a [`DoorbellView`]. Who sleeps looks again by himself [`NAP`](super::queue::NAP) later.
pub(super) struct Doorbell(SharedSlice<AtomicU32>);

impl Doorbell {
    pub(super) fn at(segment: &Arc<Segment>, offset: usize) -> Result<Self, MemoryError> {
        words(segment, offset, 2).map(Self)
    }

    fn view(&self) -> DoorbellView<'_> {
        DoorbellView {
            rung: &self.0[0],
            asleep: &self.0[1],
        }
    }

    /// After a change: wakes whoever sleeps. No system call, and no write, while nobody does.
    pub(super) fn ring(&self) {
        if self.view().ring() {
            futex::wake(self.view().rung, i32::MAX as u32);
        }
    }

    /// Before sleeping: the caller looks once more for a change and then sleeps with what this returned.
    pub(super) fn announce(&self) -> u32 {
        self.view().announce()
    }

    /// Sleeps until the bell is rung after the announcement, or the time is over, or for no reason.
    pub(super) fn sleep(&self, heard: u32, at_most: Duration) {
        futex::wait(self.view().rung, heard, at_most);
    }
}
