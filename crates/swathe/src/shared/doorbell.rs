//! Sleeping until something in shared memory changes, without a count that the dead could leave wrong.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering, fence},
    },
    time::Duration,
};

use swathe_memory::{MemoryError, Segment, SharedSlice};
use swathe_os::futex;

/// Two words: how often the bell was rung, on which sleepers sleep, and whether somebody may be asleep.
///
/// The second is only a hint and heals by itself: whoever rings clears it, whoever goes to sleep sets it. A sleeper that
/// is killed leaves it set, which costs the next ringer one system call; a ringer that is killed between clearing and
/// ringing lets sleepers sleep until they look again by themselves, [`NAP`](super::queue::NAP) later.
pub(super) struct Doorbell(SharedSlice<AtomicU32>);

impl Doorbell {
    pub(super) fn at(segment: &Arc<Segment>, offset: usize) -> Result<Self, MemoryError> {
        SharedSlice::at(segment, offset, 2).map(Self)
    }

    fn rung(&self) -> &AtomicU32 {
        &self.0[0]
    }

    fn asleep(&self) -> &AtomicU32 {
        &self.0[1]
    }

    /// After a change: wakes whoever sleeps. No system call, and no write, while nobody does.
    pub(super) fn ring(&self) {
        // SYNC doorbell: either the sleeper, looking again after its fence, sees the change before this one, or its
        // announcement is seen here.
        fence(Ordering::SeqCst);
        if self.asleep().load(Ordering::Relaxed) != 0 && self.asleep().swap(0, Ordering::AcqRel) != 0 {
            self.rung().fetch_add(1, Ordering::Release);
            futex::wake(self.rung(), i32::MAX as u32);
        }
    }

    /// Before sleeping: the caller looks once more for a change and then sleeps with what this returned.
    pub(super) fn announce(&self) -> u32 {
        // Read before the announcement: a ring that answers the announcement makes the number stale.
        let heard = self.rung().load(Ordering::Acquire);
        self.asleep().store(1, Ordering::Relaxed);
        // SYNC doorbell: see `ring`.
        fence(Ordering::SeqCst);
        heard
    }

    /// Sleeps until the bell is rung after the announcement, or the time is over, or for no reason.
    pub(super) fn sleep(&self, heard: u32, at_most: Duration) {
        futex::wait(self.rung(), heard, at_most);
    }
}
