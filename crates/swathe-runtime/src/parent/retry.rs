//! Rounds: one pass over all positions of a job, and one more over those that failed for each retry.
//!
//! A round of retries is the same job in the same cell with other claims: position `i` of the round stands for the
//! `i`-th of a list of spans. It begins when the last round is complete, nobody is inside, and the backoff is over; so
//! failed positions wait together, and no worker waits with them.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use swathe_memory::{Block, Memory, MemoryError, Segment, SharedSlice};
use swathe_protocol::{ChunkStatus, JobTerms, Span, StatusWord, Tag};

use crate::{
    job::{Durable, Failure, FailureKind, Retries},
    shared::scratch::{Board, DEATHS, DEATHS_WORDS},
};

/// Positions of the job that one position of a round of retries stands for: one, or a chunk of a task that takes whole
/// chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pick {
    pub(crate) first: u64,
    pub(crate) len: u64,
}

/// The claims of one pass.
pub(crate) struct Round {
    pub(crate) terms: JobTerms,
    board: Arc<Board>,
    /// The status words, if they lie in a file.
    file: Option<SharedSlice<StatusWord>>,
    /// Empty in the first round.
    pub(crate) picks: Vec<Pick>,
    /// Holds them for the workers.
    _picks: Option<Arc<Block>>,
}

impl Round {
    /// The first round, on the job's board. A durable job brings its status words.
    pub(crate) fn first(
        terms: &mut JobTerms,
        board: Arc<Board>,
        durable: Option<&Durable>,
        last: bool,
    ) -> Result<Self, MemoryError> {
        terms.params_offset = board.params_offset();
        terms.deaths_offset = board.deaths_offset();
        terms.tallies_offset = board.tallies_offset();
        let file = match durable {
            None => {
                terms.status_offset = board.status_offset();
                terms.tag = board.tag().to_word();
                None
            }
            Some(durable) => {
                terms.status_offset = durable.status_offset as u64;
                terms.durable_segment = durable.segment.id().to_bits();
                terms.failed_offset = durable.failed_offset as u64;
                terms.tag = Tag::NONE.to_word();
                Some(SharedSlice::at(
                    &durable.segment,
                    durable.status_offset,
                    terms.chunks as usize,
                )?)
            }
        };
        Ok(Self {
            terms: if last { *terms } else { slow(*terms) },
            board,
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
        let words: SharedSlice<AtomicU64> = SharedSlice::in_block(&block, 0, picks.len() * 2)?;
        for (pair, pick) in words.chunks_exact(2).zip(&picks) {
            pair[0].store(pick.first, Ordering::Relaxed);
            pair[1].store(pick.len, Ordering::Relaxed);
        }
        // A board of its own, without parameters and tallies: those are the job's.
        let board = Board::new(memory, 0, picks.len(), 0)?;
        let terms = JobTerms {
            chunk_len: 1,
            chunks: picks.len() as u64,
            status_offset: board.status_offset(),
            tag: board.tag().to_word(),
            deaths_offset: board.deaths_offset(),
            picks_offset: block.offset() as u64,
            attempt: u64::from(attempt),
            flags: job.flags | JobTerms::PICKS,
            ..*job
        };
        Ok(Self {
            terms: if last { terms } else { slow(terms) },
            board: Arc::new(board),
            file: None,
            picks,
            _picks: Some(block),
        })
    }

    /// A status word for each chunk; they are read under the tag of the terms.
    pub(crate) fn status(&self) -> &[StatusWord] {
        match &self.file {
            Some(words) => words,
            None => self.board.status(self.terms.chunks as usize),
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
        let count = self.board.deaths[0].load(Ordering::Relaxed);
        let entry = |i: u64| &self.board.deaths[1 + 2 * i as usize..3 + 2 * i as usize];
        let known = (0..count.min(DEATHS)).find(|i| entry(*i)[0].load(Ordering::Relaxed) == position);
        let at = known.unwrap_or(count % DEATHS);
        entry(at)[0].store(position, Ordering::Relaxed);
        entry(at)[1].store(u64::from(deaths), Ordering::Relaxed);
        if known.is_none() {
            self.board.deaths[0].store(count + 1, Ordering::Release);
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

/// Worker side: the spans of a round of retries.
pub(crate) fn read_picks(data: &Arc<Segment>, terms: &JobTerms) -> Result<Vec<Pick>, MemoryError> {
    let words: SharedSlice<AtomicU64> =
        SharedSlice::at(data, terms.picks_offset as usize, terms.chunks as usize * 2)?;
    let pick = |pair: &[AtomicU64]| Pick {
        first: pair[0].load(Ordering::Relaxed),
        len: pair[1].load(Ordering::Relaxed),
    };
    Ok(words.chunks_exact(2).map(pick).collect())
}

/// Worker side: how many workers a position has cost, as far as is remembered.
pub(crate) fn read_deaths(data: &Arc<Segment>, terms: &JobTerms, position: u64) -> u32 {
    let Ok(words) = SharedSlice::<AtomicU64>::at(data, terms.deaths_offset as usize, DEATHS_WORDS) else {
        return 0;
    };
    let count = words[0].load(Ordering::Acquire).min(DEATHS) as usize;
    let mut entries = words[1..].chunks_exact(2).take(count);
    let entry = entries.find(|entry| entry[0].load(Ordering::Relaxed) == position);
    entry.map_or(0, |entry| entry[1].load(Ordering::Relaxed) as u32)
}

/// What a job knows about its failed positions after the rounds so far: ascending, each once.
#[derive(Debug, Default)]
pub(crate) struct Failures(Vec<Failure>);

impl Failures {
    /// What a round brought, complete or not.
    pub(crate) fn settle(&mut self, round: &Round, found: Vec<Failure>) {
        if round.picks.is_empty() {
            self.0 = found;
            return;
        }
        let picked = |failure: &Failure| {
            round
                .picks
                .binary_search_by_key(&failure.position, |pick| pick.first)
        };
        let mut found = found;
        found.retain(|failure| picked(failure).is_ok());
        let before = std::mem::take(&mut self.0);
        let mut found = found.into_iter().peekable();
        let mut numbers = round.picks.iter().enumerate().peekable();
        // Everything ascends. What was not run again has failed as it had.
        for old in before {
            while found.peek().is_some_and(|new| new.position < old.position) {
                self.0.extend(found.next());
            }
            while numbers.next_if(|(_, pick)| pick.first < old.position).is_some() {}
            let again = numbers.next_if(|(_, pick)| pick.first == old.position);
            let new = found.next_if(|new| new.position == old.position);
            let done = again.is_some_and(|(number, _)| round.is_final(number));
            match new {
                Some(new) => self.0.push(new),
                None if done => {}
                None => self.0.push(old),
            }
        }
        self.0.extend(found);
    }

    /// What may be tried again after a complete round. Lost positions have had their tries.
    pub(crate) fn retryable(&self, retries: Retries, attempt: u32) -> Vec<Pick> {
        if attempt > retries.more {
            return Vec::new();
        }
        let again = |kind: &FailureKind| !matches!(kind, FailureKind::Lost(_));
        let failures = self.0.iter().filter(|failure| again(&failure.kind));
        let pick = |failure: &Failure| Pick {
            first: failure.position,
            len: failure.span,
        };
        failures.map(pick).collect()
    }

    pub(crate) fn contains(&self, position: u64) -> bool {
        self.0
            .binary_search_by_key(&position, |failure| failure.position)
            .is_ok()
    }

    pub(crate) fn into_vec(self) -> Vec<Failure> {
        self.0
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// How many positions have failed.
    pub(crate) fn count(&self) -> u64 {
        self.0.iter().map(|failure| failure.span).sum()
    }
}
