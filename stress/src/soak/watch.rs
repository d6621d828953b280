//! A watchdog for jobs: one that takes too long ends the soak with a report of where every process is.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// What is being done, by number.
#[derive(Clone, Debug, Default)]
pub(super) struct Board(Arc<Mutex<BTreeMap<u64, (String, Instant)>>>);

/// Something that is being done; over when dropped.
pub(super) struct Entry {
    board: Board,
    number: u64,
}

impl Board {
    /// Something begins.
    pub(super) fn begin(&self, what: String) -> Entry {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = entries.last_key_value().map_or(0, |(last, _)| last + 1);
        entries.insert(number, (what, Instant::now()));
        Entry {
            board: self.clone(),
            number,
        }
    }

    /// What has been going on for longer than that.
    pub(super) fn older_than(&self, patience: Duration) -> Vec<String> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let old = entries.values().filter(|(_, since)| since.elapsed() > patience);
        old.map(|(what, _)| what.clone()).collect()
    }

    /// Everything that is going on.
    pub(super) fn all(&self) -> Vec<String> {
        self.older_than(Duration::ZERO)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut entries = self.board.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.remove(&self.number);
    }
}
