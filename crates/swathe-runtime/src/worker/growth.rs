//! Memory that a worker gains, and for which it is recycled.

use std::time::{Duration, Instant};

use swathe_os::process::{self};

/// Watches what a worker's private memory gains: for tasks that leak.
#[derive(Debug)]
pub(crate) struct Growth {
    /// Bytes at which the worker is recycled.
    limit: Option<u64>,
    looked: Instant,
}

impl Growth {
    /// How often the kernel is asked.
    const EVERY: Duration = Duration::from_millis(10);

    /// From what there is now.
    pub(crate) fn of_at_most(gain: u64) -> Self {
        let limit = (gain != 0).then(process::private_memory).flatten();
        Self {
            limit: limit.map(|now| now.saturating_add(gain)),
            looked: Instant::now(),
        }
    }

    pub(crate) fn is_too_much(&mut self) -> bool {
        let Some(limit) = self.limit else { return false };
        if self.looked.elapsed() < Self::EVERY {
            return false;
        }
        self.looked = Instant::now();
        process::private_memory().is_some_and(|now| now > limit)
    }
}
