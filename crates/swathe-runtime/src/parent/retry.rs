//! Rounds: one pass over all positions of a job, and one more over those that failed for each retry.
//!
//! A round of retries is the same job in the same cell with other claims: position `i` of the round stands for the
//! `i`-th of a list of spans. It begins when the last round is complete, nobody is inside, and the backoff is over; so
//! failed positions wait together, and no worker waits with them.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use swathe_memory::{Block, Memory, MemoryError, SharedSlice};
use swathe_protocol::{ChunkStatus, JobTerms, Span, StatusWord, Tag};

use crate::{
    job::Durable,
    shared::{
        memory,
        picks::Pick,
        scratch::{DEATHS, Scratch},
    },
};

/// The claims of one pass.
pub(crate) struct Round {
    pub(crate) terms: JobTerms,
    scratch: Arc<Scratch>,
    /// The status words, if they lie in a file.
    file: Option<SharedSlice<StatusWord>>,
    /// Empty in the first round.
    pub(crate) picks: Vec<Pick>,
    /// Holds them for the workers.
    _picks: Option<Arc<Block>>,
}

impl Round {
    /// The first round, on the job's scratch area. A durable job brings its status words.
    pub(crate) fn first(
        terms: &mut JobTerms,
        scratch: Arc<Scratch>,
        durable: Option<&Durable>,
        last: bool,
    ) -> Result<Self, MemoryError> {
        terms.params_offset = scratch.params_offset();
        terms.deaths_offset = scratch.deaths_offset();
        terms.tallies_offset = scratch.tallies_offset();
        let file = match durable {
            None => {
                terms.status_offset = scratch.status_offset();
                terms.tag = scratch.tag().to_word();
                None
            }
            Some(durable) => {
                terms.status_offset = durable.status_offset as u64;
                terms.durable_segment = durable.segment.id().to_bits();
                terms.failed_offset = durable.failed_offset as u64;
                terms.tag = Tag::NONE.to_word();
                Some(memory::words(
                    &durable.segment,
                    durable.status_offset,
                    terms.chunks as usize,
                )?)
            }
        };
        Ok(Self {
            terms: if last { *terms } else { slow(*terms) },
            scratch,
            file,
            picks: Vec::new(),
            _picks: None,
        })
    }

    /// A round of retries over some spans of a job.
    pub(crate) fn again(
        memory: &Memory,
        job: &JobTerms,
        picks: Vec<Pick>,
        attempt: u32,
        last: bool,
    ) -> Result<Self, MemoryError> {
        let block = Arc::new(memory.alloc(picks.len() * 16, 64)?);
        let words: SharedSlice<AtomicU64> = memory::words_in(&block, 0, picks.len() * 2)?;
        for (pair, pick) in words.chunks_exact(2).zip(&picks) {
            pair[0].store(pick.first, Ordering::Relaxed);
            pair[1].store(pick.len, Ordering::Relaxed);
        }
        // An area of its own, without parameters and tallies: those are the job's.
        let scratch = Scratch::new(memory, 0, picks.len(), 0)?;
        let terms = JobTerms {
            chunk_len: 1,
            chunks: picks.len() as u64,
            status_offset: scratch.status_offset(),
            tag: scratch.tag().to_word(),
            deaths_offset: scratch.deaths_offset(),
            picks_offset: block.offset() as u64,
            attempt: u64::from(attempt),
            flags: job.flags | JobTerms::PICKS,
            ..*job
        };
        Ok(Self {
            terms: if last { terms } else { slow(terms) },
            scratch: Arc::new(scratch),
            file: None,
            picks,
            _picks: Some(block),
        })
    }

    /// A status word for each chunk; they are read under the tag of the terms.
    pub(crate) fn status(&self) -> &[StatusWord] {
        match &self.file {
            Some(words) => words,
            None => self.scratch.status(self.terms.chunks as usize),
        }
    }

    /// The status of a chunk.
    pub(crate) fn chunk(&self, chunk: u32) -> ChunkStatus {
        self.status()[chunk as usize].load(self.terms.tag())
    }

    /// The numbers that a run of chunks covers, as the slots announce them and the status words count them.
    pub(crate) fn numbers(&self, chunks: Span) -> std::ops::Range<u64> {
        if self.picks.is_empty() {
            chunks.positions(&self.terms)
        } else {
            u64::from(chunks.first)..u64::from(chunks.end)
        }
    }

    /// The positions of the job behind some of these numbers.
    pub(crate) fn positions(&self, numbers: std::ops::Range<u64>) -> Pick {
        if self.picks.is_empty() {
            return Pick {
                first: numbers.start,
                len: numbers.end.saturating_sub(numbers.start),
            };
        }
        let nothing = Pick {
            first: self.terms.positions,
            len: 0,
        };
        self.picks.get(numbers.start as usize).copied().unwrap_or(nothing)
    }

    /// Tells tasks that ask which try this is how many workers a position has cost.
    pub(crate) fn note_death(&self, position: u64, deaths: u32) {
        let count = self.scratch.deaths[0].load(Ordering::Relaxed);
        let entry = |i: u64| &self.scratch.deaths[1 + 2 * i as usize..3 + 2 * i as usize];
        let known = (0..count.min(DEATHS)).find(|i| entry(*i)[0].load(Ordering::Relaxed) == position);
        let at = known.unwrap_or(count % DEATHS);
        entry(at)[0].store(position, Ordering::Relaxed);
        entry(at)[1].store(u64::from(deaths), Ordering::Relaxed);
        if known.is_none() {
            self.scratch.deaths[0].store(count + 1, Ordering::Release);
        }
    }

    /// Whether a number of the round is final.
    pub(crate) fn is_final(&self, number: usize) -> bool {
        self.chunk(number as u32) == ChunkStatus::Final
    }
}

/// A failure that will be tried again does not stop the job.
fn slow(terms: JobTerms) -> JobTerms {
    JobTerms {
        flags: terms.flags & !JobTerms::FAIL_FAST,
        ..terms
    }
}
