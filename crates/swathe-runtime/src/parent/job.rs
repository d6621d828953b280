//! The parent's side of one job, from its submission to its outcome.

use std::{
    any::Any,
    collections::HashMap,
    ops::Range,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Waker,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use swathe_memory::{Block, SharedSlice};
use swathe_os::process::{self};
use swathe_protocol::{JobKey, JobTerms, Tally, Unused};

use crate::{
    job::{End, Failure, Job, OnDone, Outcome, Region, Retries, report::Report},
    parent::{
        arrival::Arrival,
        core::{Core, Sides},
        failures::{self, Failures, Rerun},
        ranges,
        retry::Round,
        spares::Spares,
        user_code::contain,
    },
    shared::{memory, messages::Purpose, picks::Pick, records, scratch::Scratch},
};

/// A job with more chunks, or more failures, is not read with the lock held.
const QUICK: (u64, u64) = (1 << 13, 16);

/// The parent's side of a job.
pub(crate) struct JobEntry {
    /// As it was submitted; each round has terms of its own.
    pub(crate) terms: JobTerms,
    /// Parameters, status words of the first round, tallies of all.
    pub(crate) scratch: Arc<Scratch>,
    pub(crate) max_deaths: u32,
    pub(crate) in_place: Option<Region>,
    pub(super) retries: Retries,
    /// Whether its caller waits for it.
    pub(crate) watched: bool,
    /// Bits of failed positions in a file.
    pub(super) failed_bits: Option<SharedSlice<AtomicU64>>,
    /// When it was submitted, nanoseconds of the monotonic clock.
    pub(super) submitted: u64,
    /// Bytes of inputs and output.
    pub(super) bytes: u64,
    pub(super) key: OnceLock<JobKey>,
    pub(super) over: AtomicBool,
    pub(super) outcome: OnceLock<Arc<Outcome>>,
    pub(crate) inner: Mutex<JobInner>,
    /// Notified when the job gets its cell or is over.
    pub(crate) signal: Condvar,
}

/// The part of a job that changes.
pub(crate) struct JobInner {
    pub(super) keep: Option<Box<dyn Any + Send + Sync>>,
    pub(super) lends: bool,
    pub(super) on_done: Option<OnDone>,
    pub(crate) wakers: Vec<Waker>,
    pub(crate) arrivals: Vec<Arc<Arrival>>,
    pub(crate) heap: Vec<Arc<Block>>,
    /// The blocks that failures are written to, until they are read.
    pub(crate) notes: Vec<Arc<Block>>,
    pub(crate) spares: Spares,
    /// How many bytes of texts the job's failures may still have.
    pub(crate) text_left: u64,
    pub(super) round: Arc<Round>,
    /// What the rounds before this one have left.
    pub(super) failures: Failures,
    /// How many positions these are.
    pub(super) failed: u64,
    pub(super) stage: Stage,
    /// Positions that a file says are final and failed: run after the first round.
    pub(super) redo: Vec<u64>,
    /// Failures of this round that the parent found itself.
    pub(crate) lost: Vec<Failure>,
    pub(crate) reruns: Vec<Rerun>,
    /// Deaths by position, of all rounds.
    pub(crate) deaths: HashMap<u64, u32>,
    /// How many workers died in it.
    pub(crate) workers_lost: u64,
    /// Why the job was stopped, if it was.
    pub(super) ending: Option<End>,
    /// When those are killed that are still inside of a job that was stopped.
    pub(crate) kill_at: Option<Instant>,
}

/// How far the parent has come with a job.
pub(crate) enum Stage {
    /// It has no cell yet.
    Waiting,
    /// It has one. Its gate says whether workers may go on.
    Placed,
    /// Its gate was closed: its claims are made anew when nobody is inside.
    Rebuilding,
    /// Nobody works on it. What it has brought is read by whoever takes this, without the lock.
    Unread(Reading),
    /// Somebody reads it.
    BeingRead,
    /// A round is over, and the next has not begun.
    Pausing(Pause),
    /// It has an outcome. Its cell is free when nobody is inside.
    Over,
}

impl Stage {
    /// Whether somebody reads it, or is to.
    pub(super) fn is_reading(&self) -> bool {
        matches!(self, Self::Unread(_) | Self::BeingRead)
    }
}

/// A pause between two rounds.
pub(crate) struct Pause {
    pub(super) until: Instant,
    /// What is run then.
    pub(super) round: Arc<Round>,
}

/// A job that nobody works on any more, or a round of it: what is to be read.
pub(crate) struct Reading {
    pub(super) end: End,
    /// The newest record of a failure, if the round has just come to its end.
    pub(super) newest: Option<u64>,
    /// What the next round would have run, if one was planned.
    waiting: Option<Vec<Pick>>,
}

/// What was read.
pub(crate) enum Read {
    Again(Pause, Failures),
    Over(Outcome),
}

/// What reading needs of a job, so that nothing of it is locked meanwhile.
struct Unread {
    failures: Failures,
    redo: Vec<u64>,
    /// What the next round would have run, if one was planned.
    waiting: Option<Vec<Pick>>,
    round: Arc<Round>,
    is_ending: bool,
}

impl Unread {
    /// Positions that a file says are failed, and that were to be run again and were not: they have neither a value nor
    /// a record of this run. Ascending.
    pub(super) fn holes(&self) -> Vec<u64> {
        let waiting = self.waiting.iter().flatten();
        let numbers = self.round.picks.iter().enumerate();
        let begun = numbers.filter(|(number, _)| !self.round.is_final(*number));
        let picks = waiting.chain(begun.map(|(_, pick)| pick));
        let unknown = picks.filter(|pick| !self.failures.contains(pick.first));
        unknown
            .flat_map(|pick| pick.first..pick.first + pick.len)
            .collect()
    }

    pub(super) fn finals(&self, terms: &JobTerms, end: &End) -> Vec<Range<u64>> {
        // After the first round every position has a value or a failure.
        let first_is_over = !self.round.picks.is_empty() || self.waiting.is_some() || *end == End::Complete;
        match first_is_over {
            true => ranges::without(std::iter::once(0..terms.positions).collect(), &self.holes()),
            false => ranges::without(ranges::finals(self.round.status(), &self.round.terms), &self.redo),
        }
    }
}

impl JobEntry {
    pub(crate) fn new(
        job: Job,
        terms: JobTerms,
        round: Round,
        scratch: Arc<Scratch>,
        heap: Option<Arc<Block>>,
        text_left: u64,
    ) -> Result<Self, swathe_memory::MemoryError> {
        let bits = |durable: &crate::job::Durable| {
            let words = terms.positions.div_ceil(64) as usize;
            memory::words(&durable.segment, durable.failed_offset, words)
        };
        let failed_bits = job.durable.as_ref().map(bits).transpose()?;
        let file = job.durable.as_ref().map(|durable| durable.segment.clone());
        Ok(Self {
            terms,
            scratch,
            max_deaths: job.max_deaths.max(1),
            in_place: job.in_place,
            retries: job.retries,
            watched: job.traits.watched,
            failed_bits,
            submitted: process::monotonic_ns(),
            bytes: job.bytes,
            key: OnceLock::new(),
            over: AtomicBool::new(false),
            outcome: OnceLock::new(),
            inner: Mutex::new(JobInner {
                keep: Some(match file {
                    Some(file) => Box::new((job.keep, file)),
                    None => job.keep,
                }),
                lends: job.lends,
                on_done: job.on_done,
                wakers: Vec::new(),
                arrivals: Vec::new(),
                heap: heap.into_iter().collect(),
                notes: Vec::new(),
                spares: Spares::default(),
                text_left,
                round: Arc::new(round),
                failures: Failures::default(),
                failed: 0,
                stage: Stage::Waiting,
                redo: job.durable.map(|durable| durable.redo).unwrap_or_default(),
                lost: Vec::new(),
                reruns: Vec::new(),
                deaths: HashMap::new(),
                workers_lost: 0,
                ending: None,
                kill_at: None,
            }),
            signal: Condvar::new(),
        })
    }

    /// The round in work, or the last one.
    pub(crate) fn round(&self) -> Arc<Round> {
        self.inner.lock().round.clone()
    }

    /// It gets a cell. Gives its first round.
    pub(super) fn place(&self) -> Arc<Round> {
        let mut inner = self.inner.lock();
        inner.stage = Stage::Placed;
        inner.round.clone()
    }

    /// Failures that the parent knows of are noted where they outlive the job.
    pub(crate) fn mark_failed(&self, positions: Range<u64>) {
        if let Some(bits) = &self.failed_bits {
            positions.for_each(|position| records::mark_failed(bits, position));
        }
    }

    /// These positions are run again: what a file says of them is void.
    pub(crate) fn unmark_failed(&self, positions: Range<u64>) {
        if let Some(bits) = &self.failed_bits {
            positions.for_each(|position| records::mark_done(bits, position));
        }
    }

    /// Positions that are settled so far, and how many of them failed, `failed` of them in this round.
    pub(crate) fn progress(&self, failed: u64) -> (u64, u64) {
        let inner = self.inner.lock();
        // What a job that is over had to say is in its outcome; its status words may be another job's.
        if !self.is_over() && inner.round.picks.is_empty() && !matches!(inner.stage, Stage::Pausing(_)) {
            let finals = ranges::finals(inner.round.status(), &inner.round.terms);
            let done: u64 = finals.iter().map(|range| range.end - range.start).sum();
            return (done.saturating_sub(inner.redo.len() as u64), failed);
        }
        (self.terms.positions, inner.failed)
    }

    /// Where its time went until now.
    pub(super) fn report(&self, workers_lost: u64, core: &Core) -> Report {
        let used = core.control.header.used_slots.load(Ordering::Relaxed) as usize;
        let tallies = self.scratch.tallies.iter().take(used).enumerate();
        let read = |(worker, tally): (usize, &Tally)| Some((worker, tally.read(self.terms.serial)?));
        let there: Vec<_> = tallies
            .filter_map(read)
            .filter(|(_, tally)| tally.strips > 0 || tally.spent > 0)
            .collect();
        Report::new(
            (self.submitted, process::monotonic_ns()),
            (self.terms.positions, self.bytes),
            workers_lost,
            &there,
        )
    }

    /// Whether reading it takes no longer than placing a job.
    pub(super) fn is_quick(&self, failed: u64) -> bool {
        let inner = self.inner.lock();
        let (chunks, failures) = QUICK;
        let known = inner.lost.len() + inner.failures.len() + inner.redo.len();
        self.terms.chunks <= chunks && failed + known as u64 <= failures
    }

    /// Nobody works on it any more, and it is read from here on: what is to be read.
    pub(super) fn begin_reading(&self, end: End, newest: Option<u64>) -> Reading {
        let before = std::mem::replace(&mut self.inner.lock().stage, Stage::BeingRead);
        let waiting = match before {
            Stage::Pausing(pause) => Some(pause.round.picks.clone()),
            _ => None,
        };
        Reading { end, newest, waiting }
    }

    /// What is to be read, for the one who does.
    pub(super) fn take_unread(&self) -> Option<Reading> {
        let stage = &mut self.inner.lock().stage;
        match std::mem::replace(stage, Stage::BeingRead) {
            Stage::Unread(reading) => Some(reading),
            other => {
                *stage = other;
                None
            }
        }
    }

    /// As [`read`](Self::read). Even if a fault of ours is in the way, the job comes to an end.
    pub(super) fn read_somehow(&self, core: &Core, reading: Reading) -> Read {
        contain("reading a job", || self.read(core, reading)).unwrap_or_else(|| {
            let end =
                End::Broken("what the job has brought could not be read: Swathe has a fault".to_owned());
            Read::Over(self.nothing(end, core))
        })
    }

    /// What the round in work has brought is added to what the others have. If there is another, it is laid out;
    /// otherwise the outcome is made. No lock is held but for moments.
    pub(crate) fn read(&self, core: &Core, reading: Reading) -> Read {
        let mut unread = self.settle_round(reading.newest, reading.waiting);
        if reading.end == End::Complete
            && !unread.is_ending
            && let Some(pause) = self.plan_round(core, &mut unread)
        {
            return Read::Again(pause, unread.failures);
        }
        let finals = match self.key() {
            None => Vec::new(),
            Some(_) => unread.finals(&self.terms, &reading.end),
        };
        let (heap, workers_lost) = {
            let mut inner = self.inner.lock();
            (std::mem::take(&mut inner.heap), inner.workers_lost)
        };
        Read::Over(Outcome {
            end: reading.end,
            positions: self.terms.positions,
            failures: unread.failures.into_vec(),
            finals,
            chunks: (self.terms.chunks, self.terms.chunk_len),
            heap,
            report: self.report(workers_lost, core),
        })
    }

    fn settle_round(&self, newest_record: Option<u64>, waiting: Option<Vec<Pick>>) -> Unread {
        let mut inner = self.inner.lock();
        let mut unread = Unread {
            failures: std::mem::take(&mut inner.failures),
            redo: std::mem::take(&mut inner.redo),
            waiting,
            round: inner.round.clone(),
            is_ending: inner.ending.is_some(),
        };
        let Some(newest) = newest_record else {
            return unread;
        };
        let (lost, reruns) = (std::mem::take(&mut inner.lost), std::mem::take(&mut inner.reruns));
        let (notes, deaths) = (std::mem::take(&mut inner.notes), inner.deaths.clone());
        inner.spares.drop_notes();
        drop(inner);
        let records = failures::read_records(newest, &notes, &self.terms, &reruns);
        // From here on there is one copy of each text.
        drop(notes);
        let tries = unread.round.terms.attempt as u32;
        let attempts = |position| tries + deaths.get(&position).copied().unwrap_or(0);
        let found = failures::merge(lost, records, attempts);
        unread.failures.settle(&unread.round, found);
        unread
    }

    /// After a complete round: whether there is another.
    fn plan_round(&self, core: &Core, unread: &mut Unread) -> Option<Pause> {
        let tries = unread.round.terms.attempt as u32;
        let redo = std::mem::take(&mut unread.redo);
        let (picks, attempt, wait) = if redo.is_empty() {
            let picks = unread.failures.retryable(self.retries, tries);
            (picks, tries + 1, self.retries.wait_after(tries))
        } else {
            (self.picks_of(&redo), tries, Duration::ZERO)
        };
        if picks.is_empty() {
            return None;
        }
        let last = attempt > self.retries.more;
        match Round::again(&core.memory, &self.terms, picks.clone(), attempt, last) {
            Ok(round) => Some(Pause {
                until: Instant::now() + wait,
                round: Arc::new(round),
            }),
            Err(e) => {
                tracing::warn!(%e, "no memory to try failed positions again; they stay failed");
                unread.waiting = Some(picks);
                None
            }
        }
    }

    pub(super) fn picks_of(&self, positions: &[u64]) -> Vec<Pick> {
        let whole = self.terms.has(JobTerms::WHOLE_CHUNKS);
        let mut picks: Vec<Pick> = Vec::with_capacity(positions.len());
        for &position in positions
            .iter()
            .filter(|position| **position < self.terms.positions)
        {
            let span = match whole {
                true => self
                    .terms
                    .positions_of((position / self.terms.chunk_len) as u32, 1),
                false => position..position + 1,
            };
            if picks.last().is_none_or(|last| last.first != span.start) {
                picks.push(Pick {
                    first: span.start,
                    len: span.end - span.start,
                });
            }
        }
        picks
    }

    /// The outcome of a job that cannot be read.
    pub(super) fn nothing(&self, end: End, core: &Core) -> Outcome {
        Outcome {
            end,
            positions: self.terms.positions,
            failures: Vec::new(),
            finals: Vec::new(),
            chunks: (self.terms.chunks, self.terms.chunk_len),
            heap: Vec::new(),
            report: self.report(0, core),
        }
    }

    /// Room for so many bytes of texts, if the job's failures may have as many.
    pub(crate) fn take_text(&self, bytes: u64) -> Result<(), String> {
        let mut inner = self.inner.lock();
        let left = inner.text_left.checked_sub(bytes);
        inner.text_left = left.ok_or("the texts of this job's failures have taken all that they may take")?;
        Ok(())
    }

    /// Keeps what a dead worker has not used of the job's blocks, for whoever asks next.
    pub(crate) fn keep_unused(&self, left: Unused, epoch: u32) {
        let inner = &mut *self.inner.lock();
        // Who reads the failures lets their blocks go, with whatever is left of them.
        if matches!(inner.stage, Stage::Placed | Stage::Rebuilding) {
            inner.spares.keep(left, &inner.heap, &inner.notes, epoch);
        }
    }

    /// A block that a worker has for the job.
    pub(crate) fn keep_block(&self, block: Block, purpose: Purpose) {
        let mut inner = self.inner.lock();
        match purpose {
            Purpose::Results => inner.heap.push(Arc::new(block)),
            Purpose::Texts | Purpose::Records => inner.notes.push(Arc::new(block)),
        }
    }

    /// Whether the parent has something to do with it: it is being read, or between two rounds.
    pub(crate) fn is_in_hand(&self) -> bool {
        let inner = self.inner.lock();
        inner.stage.is_reading() || matches!(inner.stage, Stage::Pausing(_))
    }

    pub(crate) fn key(&self) -> Option<JobKey> {
        self.key.get().copied()
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    pub(crate) fn outcome(&self) -> Option<&Arc<Outcome>> {
        self.outcome.get()
    }

    /// Gives the job its result, and has told who wants to know. The caller holds the state's lock.
    pub(super) fn finish(&self, outcome: Outcome, sides: &Sides) {
        let outcome = Arc::new(outcome);
        let mut inner = self.inner.lock();
        inner.stage = Stage::Over;
        let _ = self.outcome.set(outcome.clone());
        self.over.store(true, Ordering::Release);
        self.signal.notify_all();
        inner.arrivals.drain(..).for_each(|arrival| arrival.ring());
        if let Some(on_done) = inner.on_done.take() {
            sides.callbacks.0.push(move || on_done(&outcome));
        }
        for waker in inner.wakers.drain(..) {
            sides.wakers.push(move || waker.wake());
        }
    }
}
