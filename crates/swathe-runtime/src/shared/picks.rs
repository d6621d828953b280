//! What a round of retries is about: spans of positions, and which positions have cost workers. The parent writes both, workers
//! read them.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use swathe_memory::{MemoryError, Segment, SharedSlice};
use swathe_protocol::JobTerms;

use crate::shared::{
    memory,
    scratch::{DEATHS, DEATHS_WORDS},
};

/// Positions of the job that one position of a round of retries stands for: one, or a chunk of a task that takes whole
/// chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pick {
    pub(crate) first: u64,
    pub(crate) len: u64,
}

/// Worker side: the spans of a round of retries.
pub(crate) fn read_picks(data: &Arc<Segment>, terms: &JobTerms) -> Result<Vec<Pick>, MemoryError> {
    let words: SharedSlice<AtomicU64> =
        memory::words(data, terms.picks_offset as usize, terms.chunks as usize * 2)?;
    let pick = |pair: &[AtomicU64]| Pick {
        first: pair[0].load(Ordering::Relaxed),
        len: pair[1].load(Ordering::Relaxed),
    };
    Ok(words.chunks_exact(2).map(pick).collect())
}

/// Worker side: how many workers a position has cost, as far as is remembered.
pub(crate) fn read_deaths(data: &Arc<Segment>, terms: &JobTerms, position: u64) -> u32 {
    let Ok(words) = memory::words::<AtomicU64>(data, terms.deaths_offset as usize, DEATHS_WORDS) else {
        return 0;
    };
    let count = words[0].load(Ordering::Acquire).min(DEATHS) as usize;
    let mut entries = words[1..].chunks_exact(2).take(count);
    let entry = entries.find(|entry| entry[0].load(Ordering::Relaxed) == position);
    entry.map_or(0, |entry| entry[1].load(Ordering::Relaxed) as u32)
}
