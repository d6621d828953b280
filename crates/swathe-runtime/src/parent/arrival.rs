//! One wait for the end of any of several jobs.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// The longest wait for an arrival without a look around.
const ARRIVAL_NAP: Duration = Duration::from_secs(1);

/// Wakes who waits for any of several jobs.
#[derive(Debug, Default)]
pub struct Arrival {
    count: Mutex<u64>,
    changed: Condvar,
}

impl Arrival {
    /// How many jobs have ended.
    pub fn count(&self) -> u64 {
        *self.count.lock()
    }

    /// Waits until the count is another than `seen`. Gives whether it is.
    pub fn wait(&self, seen: u64, deadline: Option<Instant>) -> bool {
        let mut count = self.count.lock();
        while *count == seen {
            match deadline {
                None => _ = self.changed.wait_for(&mut count, ARRIVAL_NAP),
                Some(deadline) if Instant::now() >= deadline => return false,
                Some(deadline) => _ = self.changed.wait_until(&mut count, deadline),
            }
        }
        true
    }

    /// One more: who waits is woken.
    pub fn ring(&self) {
        *self.count.lock() += 1;
        self.changed.notify_all();
    }
}
