//! What the parent knows about its jobs and workers, behind one lock.
//!
//! The lock is the parent's own: no worker ever waits for it. Workers learn of everything here through the control
//! segment.

use std::{
    any::Any,
    collections::{HashMap, VecDeque},
    fmt,
    ops::{Deref, DerefMut, Range},
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Waker,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex, MutexGuard};
use swathe_memory::{Block, Memory, SharedSlice};
use swathe_os::process::{self, Event};
use swathe_protocol::{
    Descriptor, Epoch, GateState, JobKey, JobPhase, JobTerms, Opening, Span, Standing, Tally, Unoccupied,
    Unused, VacantCell, status,
};

use crate::{
    error::EngineError,
    job::{End, Failure, Job, OnDone, Outcome, Region, Retries, report::Report},
    parent::{
        retry::{Failures, Pick, Round},
        user_code::{Callbacks, SideThread, contain},
    },
    shared::{
        control::{Control, System},
        failures::{self, Rerun},
        scratch::{Board, Boards},
    },
    worker::{
        heap::{Purpose, Spares},
        reporter,
    },
};

/// How often `clear_limbo` looks before it leaves a job to the supervisor.
const LEAVING_SPINS: usize = 64;
/// How long those that are still at work may go on when a job stops at its first failure.
pub(crate) const STOP_GRACE: Duration = Duration::from_millis(100);
/// A job with more chunks, or more failures, is not read with the lock held.
const QUICK: (u64, u64) = (1 << 13, 16);
/// Bytes of inputs and output that are let go on a thread of their own.
const MUCH: u64 = 16 << 20;

/// What a pool does for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PoolPhase {
    /// Takes jobs.
    Running,
    /// Takes no more jobs, finishes those it has.
    Closed,
    /// Stops.
    Terminated,
    /// Stops, because it cannot go on.
    Broken(String),
}

impl PoolPhase {
    pub(crate) fn is_stopping(&self) -> bool {
        matches!(self, Self::Terminated | Self::Broken(_))
    }
}

/// Everything the threads of the parent share.
pub(crate) struct Core {
    pub(crate) control: Control,
    pub(crate) memory: Memory,
    pub(crate) boards: Boards,
    pub(crate) state: StateLock,
    /// Notified when the pool's phase or its processes change.
    pub(crate) changed: Condvar,
    /// Wakes the supervisor.
    pub(crate) event: Event,
    /// `fork_generation` of the process that built the pool.
    pub(crate) forks: u64,
    /// Whether the supervisor is to panic.
    #[cfg(feature = "chaos")]
    pub(crate) supervisor_panics: AtomicBool,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").finish_non_exhaustive()
    }
}

impl Core {
    /// Whether this process has the pool's threads. A forked child has not; asked before any lock is taken, which another
    /// thread of its parent may have held.
    pub(crate) fn check_process(&self) -> Result<(), EngineError> {
        if process::fork_generation() == self.forks {
            Ok(())
        } else {
            Err(EngineError::Forked)
        }
    }

    /// Reads what a job has brought that is to be read without the lock, unless another thread does. Gives whether the
    /// job is over.
    pub(crate) fn read(&self, job: &Arc<JobState>) -> bool {
        // It may have been stopped while it was read: then it is to be read once more, by whoever has read it.
        while let Some(reading) = { job.inner.lock().unread.take() } {
            let read = job.read_somehow(self, reading);
            self.state.lock_for(job).settle(self, job, read);
        }
        job.is_over()
    }
}

/// The parent's one lock. When it is let go, and not before, what was left behind it is dropped, and threads are told what
/// there is to do for them: see [`Left`].
pub(crate) struct StateLock {
    state: Mutex<State>,
    /// For whoever reads a job later.
    core: Weak<Core>,
    pub(crate) sides: Sides,
}

/// The threads that run what users wrote, and what takes long.
pub(crate) struct Sides {
    pub(crate) callbacks: Callbacks,
    pub(crate) wakers: SideThread,
    /// Drops what jobs have kept.
    pub(crate) drops: SideThread,
    /// Reads jobs with many failures or chunks.
    readers: SideThread,
}

impl Sides {
    fn new() -> Self {
        Self {
            callbacks: Callbacks(SideThread::new("swathe-callback", "a callback")),
            wakers: SideThread::new("swathe-waker", "a waker"),
            drops: SideThread::new("swathe-drop", "a destructor of what a job has kept"),
            readers: SideThread::new("swathe-reader", "reading a job"),
        }
    }

    fn all(&self) -> [&SideThread; 4] {
        [&self.callbacks.0, &self.wakers, &self.drops, &self.readers]
    }

    /// Sees to it that what there is to do is done.
    pub(crate) fn kick(&self) {
        self.all().into_iter().for_each(SideThread::kick);
    }

    /// Nothing more will come but what these threads bring themselves.
    pub(crate) fn end(&self) {
        self.all().into_iter().for_each(SideThread::end);
    }
}

impl StateLock {
    pub(crate) fn new(state: State, core: Weak<Core>) -> Self {
        Self {
            state: Mutex::new(state),
            core,
            sides: Sides::new(),
        }
    }

    pub(crate) fn lock(&self) -> Locked<'_> {
        Locked {
            lock: self,
            guard: Some(self.state.lock()),
            mine: None,
        }
    }

    /// For a caller who waits for this job: what it has kept is dropped on the caller's thread, and what it has brought is
    /// read there.
    pub(crate) fn lock_for<'a>(&'a self, job: &'a JobState) -> Locked<'a> {
        let mut locked = self.lock();
        locked.mine = Some(job);
        locked
    }
}

/// The state, locked.
pub(crate) struct Locked<'a> {
    lock: &'a StateLock,
    guard: Option<MutexGuard<'a, State>>,
    mine: Option<&'a JobState>,
}

impl Locked<'_> {
    /// Lets the lock go until something has changed, or the time is over.
    pub(crate) fn wait(&mut self, changed: &Condvar, patience: Duration) {
        if let Some(guard) = &mut self.guard {
            changed.wait_for(guard, patience);
        }
    }

    fn is_mine(&self, job: &Arc<JobState>) -> bool {
        self.mine.is_some_and(|mine| std::ptr::eq(mine, &raw const **job))
    }
}

impl Deref for Locked<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        self.guard.as_ref().expect("it is taken when this is dropped")
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut State {
        self.guard.as_mut().expect("it is taken when this is dropped")
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let Some(mut guard) = self.guard.take() else {
            return;
        };
        if !std::mem::take(&mut guard.something_left) {
            return;
        }
        let (left, unread) = (std::mem::take(&mut guard.left), std::mem::take(&mut guard.unread));
        drop(guard);
        for left in left {
            // Values of users, of some other caller's job: this one may hold locks that their destructors want. Nor is it to
            // wait for the system, which takes long to take much memory back.
            if (left.lends || left.job.bytes > MUCH) && !self.is_mine(&left.job) {
                self.lock.sides.drops.push(move || drop(left));
            } else {
                contain("a destructor of what a job has kept", || drop(left));
            }
        }
        for job in unread.into_iter().filter(|job| !self.is_mine(job)) {
            let core = self.lock.core.clone();
            let read = move || _ = core.upgrade().map(|core| core.read(&job));
            self.lock.sides.readers.push(read);
        }
        self.lock.sides.kick();
    }
}

/// What is dropped when the lock is let go: destructors of users must not run behind it, and giving memory back calls the
/// system.
struct Left {
    job: Arc<JobState>,
    /// Whether destructors of users are among it.
    lends: bool,
    _what: Option<Box<dyn Any + Send + Sync>>,
}

/// The part behind the lock.
pub(crate) struct State {
    pub(crate) phase: PoolPhase,
    /// Workers there should be.
    pub(crate) target: usize,
    /// The pids and incarnations of the workers there are, by slot.
    pub(crate) pids: Vec<Option<u32>>,
    /// The job of each cell, until no worker can be inside of it any more.
    pub(crate) jobs: Vec<Option<Arc<JobState>>>,
    free: Vec<VacantCell>,
    /// Jobs that have no cell yet.
    pub(crate) waiting: VecDeque<Arc<JobState>>,
    /// Runs that found the ring full.
    pub(crate) overflow: VecDeque<Descriptor>,
    /// Jobs whose claims are to be rebuilt once nobody is inside.
    pub(crate) rebuilding: Vec<JobKey>,
    /// Jobs between two rounds.
    resting: Vec<JobKey>,
    /// Jobs that are over, and whose cells somebody may still be inside of.
    limbo: Vec<JobKey>,
    /// What jobs that are over have lent to workers that may still hold it.
    quarantine: Vec<Quarantined>,
    left: Vec<Left>,
    /// Jobs that are to be read without the lock.
    unread: Vec<Arc<JobState>>,
    /// Whether there is something to do when the lock is let go.
    something_left: bool,
    /// No process is left, and none will be started.
    pub(crate) finished: bool,
}

/// Kept in place until these workers (slot, incarnation) hold nothing any more.
struct Quarantined {
    holders: Vec<(usize, u32)>,
    left: Left,
}

/// The parent's side of a job.
pub(crate) struct JobState {
    /// As it was submitted; each round has terms of its own.
    pub(crate) terms: JobTerms,
    /// Parameters, status words of the first round, tallies of all.
    pub(crate) board: Arc<Board>,
    pub(crate) max_deaths: u32,
    pub(crate) in_place: Option<Region>,
    retries: Retries,
    /// Whether its caller waits for it.
    pub(crate) watched: bool,
    /// Bits of failed positions in a file.
    failed_bits: Option<SharedSlice<AtomicU64>>,
    /// When it was submitted, nanoseconds of the monotonic clock.
    submitted: u64,
    /// Bytes of inputs and output.
    bytes: u64,
    key: OnceLock<JobKey>,
    over: AtomicBool,
    outcome: OnceLock<Arc<Outcome>>,
    pub(crate) inner: Mutex<JobInner>,
    /// Notified when the job gets its cell or is over.
    pub(crate) signal: Condvar,
}

/// The part of a job that changes.
pub(crate) struct JobInner {
    keep: Option<Box<dyn Any + Send + Sync>>,
    lends: bool,
    on_done: Option<OnDone>,
    pub(crate) wakers: Vec<Waker>,
    pub(crate) arrivals: Vec<Arc<Arrival>>,
    pub(crate) heap: Vec<Arc<Block>>,
    /// The blocks that failures are written to, until they are read.
    pub(crate) notes: Vec<Arc<Block>>,
    pub(crate) spares: Spares,
    /// How many bytes of texts the job's failures may still have.
    pub(crate) text_left: u64,
    round: Arc<Round>,
    /// What the rounds before this one have left.
    failures: Failures,
    /// How many positions these are.
    failed: u64,
    /// What is to be read of it, until somebody does.
    unread: Option<Reading>,
    /// Whether it is being read, or is to be.
    reading: bool,
    /// Positions that a file says are final and failed: run after the first round.
    redo: Vec<u64>,
    /// Between two rounds: when the next begins, and with what.
    rest: Option<Rest>,
    /// Failures of this round that the parent found itself.
    pub(crate) lost: Vec<Failure>,
    pub(crate) reruns: Vec<Rerun>,
    /// Deaths by position, of all rounds.
    pub(crate) deaths: HashMap<u64, u32>,
    /// How many workers died in it.
    pub(crate) buried: u64,
    /// Why the job was stopped, if it was.
    ending: Option<End>,
    /// When those are killed that are still inside of a job that was stopped.
    pub(crate) kill_at: Option<Instant>,
}

/// A pause between two rounds.
pub(crate) struct Rest {
    until: Instant,
    /// What is run then.
    round: Arc<Round>,
}

/// A job that nobody works on any more, or a round of it: what is to be read.
pub(crate) struct Reading {
    end: End,
    /// The newest record of a failure, if the round has just come to its end.
    newest: Option<u64>,
}

/// What was read.
pub(crate) enum Read {
    Again(Rest, Failures),
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
    fn holes(&self) -> Vec<u64> {
        let waiting = self.waiting.iter().flatten();
        let numbers = self.round.picks.iter().enumerate();
        let begun = numbers.filter(|(number, _)| !self.round.is_final(*number));
        let picks = waiting.chain(begun.map(|(_, pick)| pick));
        let unknown = picks.filter(|pick| !self.failures.contains(pick.first));
        unknown
            .flat_map(|pick| pick.first..pick.first + pick.len)
            .collect()
    }

    fn finals(&self, terms: &JobTerms, end: &End) -> Vec<Range<u64>> {
        // After the first round every position has a value or a failure.
        let first_is_over = !self.round.picks.is_empty() || self.waiting.is_some() || *end == End::Complete;
        match first_is_over {
            true => failures::without(std::iter::once(0..terms.positions).collect(), &self.holes()),
            false => failures::without(
                failures::finals(self.round.status(), &self.round.terms),
                &self.redo,
            ),
        }
    }
}

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

    pub(crate) fn ring(&self) {
        *self.count.lock() += 1;
        self.changed.notify_all();
    }
}

impl JobState {
    pub(crate) fn new(
        job: Job,
        terms: JobTerms,
        round: Round,
        board: Arc<Board>,
        heap: Option<Arc<Block>>,
        text_left: u64,
    ) -> Result<Self, swathe_memory::MemoryError> {
        let bits = |durable: &crate::job::Durable| {
            let words = terms.positions.div_ceil(64) as usize;
            SharedSlice::at(&durable.segment, durable.failed_offset, words)
        };
        let failed_bits = job.durable.as_ref().map(bits).transpose()?;
        let file = job.durable.as_ref().map(|durable| durable.segment.clone());
        Ok(Self {
            terms,
            board,
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
                unread: None,
                reading: false,
                redo: job.durable.map(|durable| durable.redo).unwrap_or_default(),
                rest: None,
                lost: Vec::new(),
                reruns: Vec::new(),
                deaths: HashMap::new(),
                buried: 0,
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

    /// Failures that the parent knows of are noted where they outlive the job.
    pub(crate) fn mark_failed(&self, positions: Range<u64>) {
        if let Some(bits) = &self.failed_bits {
            positions.for_each(|position| reporter::mark_failed(bits, position));
        }
    }

    /// These positions are run again: what a file says of them is void.
    pub(crate) fn unmark_failed(&self, positions: Range<u64>) {
        if let Some(bits) = &self.failed_bits {
            positions.for_each(|position| reporter::mark_done(bits, position));
        }
    }

    /// Positions that are settled so far, and how many of them failed, `failed` of them in this round.
    pub(crate) fn progress(&self, failed: u64) -> (u64, u64) {
        let inner = self.inner.lock();
        // What a job that is over had to say is in its outcome; its status words may be another job's.
        if !self.is_over() && inner.round.picks.is_empty() && inner.rest.is_none() {
            let finals = failures::finals(inner.round.status(), &inner.round.terms);
            let done: u64 = finals.iter().map(|range| range.end - range.start).sum();
            return (done.saturating_sub(inner.redo.len() as u64), failed);
        }
        (self.terms.positions, inner.failed)
    }

    /// Where its time went until now.
    fn report(&self, buried: u64, core: &Core) -> Report {
        let used = core.control.header.used_slots.load(Ordering::Relaxed) as usize;
        let tallies = self.board.tallies.iter().take(used).enumerate();
        let read = |(worker, tally): (usize, &Tally)| Some((worker, tally.read(self.terms.serial)?));
        let there: Vec<_> = tallies
            .filter_map(read)
            .filter(|(_, tally)| tally.strips > 0 || tally.spent > 0)
            .collect();
        Report::new(
            (self.submitted, process::monotonic_ns()),
            (self.terms.positions, self.bytes),
            buried,
            &there,
        )
    }

    /// Whether reading it takes no longer than placing a job.
    fn is_quick(&self, failed: u64) -> bool {
        let inner = self.inner.lock();
        let (chunks, failures) = QUICK;
        let known = inner.lost.len() + inner.failures.len() + inner.redo.len();
        self.terms.chunks <= chunks && failed + known as u64 <= failures
    }

    /// As [`read`](Self::read). Even if a fault of ours is in the way, the job comes to an end.
    fn read_somehow(&self, core: &Core, reading: Reading) -> Read {
        contain("reading a job", || self.read(core, reading)).unwrap_or_else(|| {
            let end =
                End::Broken("what the job has brought could not be read: Swathe has a fault".to_owned());
            Read::Over(self.nothing(end, core))
        })
    }

    /// What the round in work has brought is added to what the others have. If there is another, it is laid out;
    /// otherwise the outcome is made. No lock is held but for moments.
    pub(crate) fn read(&self, core: &Core, reading: Reading) -> Read {
        let mut unread = self.settle_round(reading.newest);
        if reading.end == End::Complete
            && !unread.is_ending
            && let Some(rest) = self.plan_round(core, &mut unread)
        {
            return Read::Again(rest, unread.failures);
        }
        let finals = match self.key() {
            None => Vec::new(),
            Some(_) => unread.finals(&self.terms, &reading.end),
        };
        let (heap, buried) = {
            let mut inner = self.inner.lock();
            (std::mem::take(&mut inner.heap), inner.buried)
        };
        Read::Over(Outcome {
            end: reading.end,
            positions: self.terms.positions,
            failures: unread.failures.into_vec(),
            finals,
            chunks: (self.terms.chunks, self.terms.chunk_len),
            heap,
            report: self.report(buried, core),
        })
    }

    fn settle_round(&self, newest_record: Option<u64>) -> Unread {
        let mut inner = self.inner.lock();
        let mut unread = Unread {
            failures: std::mem::take(&mut inner.failures),
            redo: std::mem::take(&mut inner.redo),
            waiting: inner.rest.take().map(|rest| rest.round.picks.clone()),
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
    fn plan_round(&self, core: &Core, unread: &mut Unread) -> Option<Rest> {
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
            Ok(round) => Some(Rest {
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

    fn picks_of(&self, positions: &[u64]) -> Vec<Pick> {
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
    fn nothing(&self, end: End, core: &Core) -> Outcome {
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
        if !inner.reading && inner.rest.is_none() {
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
        inner.reading || inner.rest.is_some()
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
    fn finish(&self, outcome: Outcome, sides: &Sides) {
        let outcome = Arc::new(outcome);
        let mut inner = self.inner.lock();
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

impl State {
    pub(crate) fn new(target: usize, slots: usize, jobs: u32) -> Self {
        Self {
            phase: PoolPhase::Running,
            target,
            pids: vec![None; slots],
            jobs: vec![None; jobs as usize],
            free: VacantCell::all(jobs),
            waiting: VecDeque::new(),
            overflow: VecDeque::new(),
            rebuilding: Vec::new(),
            resting: Vec::new(),
            limbo: Vec::new(),
            quarantine: Vec::new(),
            left: Vec::new(),
            unread: Vec::new(),
            something_left: false,
            finished: false,
        }
    }

    /// The pool cannot go on.
    pub(crate) fn break_down(&mut self, core: &Core, text: String) {
        if !self.phase.is_stopping() {
            tracing::error!(text, "the pool is broken");
            self.phase = PoolPhase::Broken(text);
        }
        core.event.raise();
    }

    /// Whether the next death may be one for which a job gives an element up, and says why.
    pub(crate) fn may_blame_next_death(&self) -> bool {
        let unfinished = self.unfinished();
        let mut jobs = unfinished.iter();
        jobs.any(|job| job.max_deaths == 1 || !job.inner.lock().deaths.is_empty())
    }

    /// Who was to be killed by the clock has this much longer.
    pub(crate) fn grant(&mut self, lost: Duration) {
        for job in self.unfinished() {
            if let Some(at) = &mut job.inner.lock().kill_at {
                *at += lost;
            }
        }
    }

    /// Whether a job is not over yet.
    pub(crate) fn has_unfinished(&self) -> bool {
        !self.waiting.is_empty() || self.jobs.iter().flatten().any(|job| !job.is_over())
    }

    /// Whether the supervisor must look again soon without being told.
    pub(crate) fn is_restless(&self) -> bool {
        !self.rebuilding.is_empty() || !self.overflow.is_empty() || !self.limbo.is_empty()
    }

    /// When the next round of any job begins.
    pub(crate) fn next_round_at(&self) -> Option<Instant> {
        let jobs = self.resting.iter().filter_map(|key| self.job(*key));
        jobs.filter_map(|job| Some(job.inner.lock().rest.as_ref()?.until))
            .min()
    }

    /// Begins those rounds that are due.
    pub(crate) fn begin_rounds(&mut self, core: &Core) {
        let now = Instant::now();
        for key in std::mem::take(&mut self.resting) {
            let Some(job) = self.job(key).filter(|job| !job.is_over()) else {
                continue;
            };
            let due = job
                .inner
                .lock()
                .rest
                .as_ref()
                .is_none_or(|rest| rest.until <= now);
            let cell = due.then(|| core.control.parent().unoccupied(key)).flatten();
            let Some(cell) = cell else {
                self.resting.push(key);
                continue;
            };
            let Some(rest) = job.inner.lock().rest.take() else {
                continue;
            };
            let before = std::mem::replace(&mut job.inner.lock().round, rest.round.clone());
            self.leave(&job, Some(Box::new(before)), false);
            let (opening, runs) = opening_of(&rest.round);
            let epoch = cell.open_round(opening);
            self.hand_out(core, epoch, &job, &rest.round, &runs, 0);
        }
    }

    /// The job of a key, if it still is the cell's.
    pub(crate) fn job(&self, key: JobKey) -> Option<Arc<JobState>> {
        self.jobs
            .get(key.index as usize)?
            .clone()
            .filter(|job| job.key() == Some(key))
    }

    /// Queues a new job, and gives it a cell at once if there is one.
    pub(crate) fn admit(&mut self, core: &Core, job: Arc<JobState>) {
        self.waiting.push_back(job);
        self.pump(core);
    }

    /// Moves what waits onwards: runs into the ring, jobs into cells.
    pub(crate) fn pump(&mut self, core: &Core) {
        while let Some(run) = self.overflow.pop_front() {
            if let Err(run) = core.control.parent().push(run) {
                self.overflow.push_front(run);
                break;
            }
            core.control.words().wake_for_runs(&System);
        }
        while !self.waiting.is_empty() {
            let Some(cell) = self.free.pop() else { break };
            let Some(job) = self.next_waiting() else {
                self.free.push(cell);
                break;
            };
            self.place(core, cell, job);
        }
    }

    /// Frees the cells of jobs that are over and that nobody is inside of.
    pub(crate) fn look_at_limbo(&mut self, core: &Core) {
        let mut next = 0;
        while let Some(key) = self.limbo.get(next).copied() {
            match core.control.parent().unoccupied(key) {
                None => next += 1,
                Some(cell) => {
                    self.limbo.swap_remove(next);
                    self.vacate(core, key, cell);
                }
            }
        }
    }

    /// The same, for a caller: the worker that completed its job is just on its way out. That is waited for, but for
    /// less than a system call takes; after that the supervisor looks again.
    fn clear_limbo(&mut self, core: &Core) {
        for _ in 0..LEAVING_SPINS {
            self.look_at_limbo(core);
            if self.limbo.is_empty() {
                return;
            }
            std::hint::spin_loop();
        }
        core.event.raise();
    }

    /// Has something dropped when the lock is let go.
    fn leave(&mut self, job: &Arc<JobState>, what: Option<Box<dyn Any + Send + Sync>>, lends: bool) {
        self.put_aside(Left {
            job: job.clone(),
            lends,
            _what: what,
        });
    }

    fn put_aside(&mut self, left: Left) {
        self.left.push(left);
        self.something_left = true;
    }

    /// Lets go what a job that is over has kept, unless workers may still hold it.
    fn let_go(&mut self, core: &Core, job: &Arc<JobState>) {
        let (keep, lends) = {
            let mut inner = job.inner.lock();
            (inner.keep.take(), inner.lends)
        };
        core.boards.give(job.board.clone());
        let holders = if lends { holders(core) } else { Vec::new() };
        if holders.is_empty() {
            return self.leave(job, keep, lends);
        }
        let left = Left {
            job: job.clone(),
            lends,
            _what: keep,
        };
        self.quarantine.push(Quarantined { holders, left });
    }

    fn vacate(&mut self, core: &Core, key: JobKey, cell: Unoccupied<'_, System>) {
        let held = |lent: &mut Quarantined| !lent.holders.iter().any(|holder| still_holds(core, *holder));
        let free: Vec<_> = self.quarantine.extract_if(.., held).collect();
        free.into_iter().for_each(|lent| self.put_aside(lent.left));
        if let Some(job) = self.jobs[key.index as usize].take() {
            self.let_go(core, &job);
        }
        self.free.push(cell.vacate());
    }

    /// Opens a cell for a job and hands out its runs: one a worker at most, of equal length.
    fn place(&mut self, core: &Core, cell: VacantCell, job: Arc<JobState>) {
        let key = cell.next_key();
        let _ = job.key.set(key);
        self.jobs[key.index as usize] = Some(job.clone());
        let round = job.round();
        let (opening, runs) = opening_of(&round);
        let epoch = core.control.parent().open(cell, opening);
        // A caller who waits looks a moment later whether they have begun, and wakes workers if not: whoever is awake most
        // likely has, and would be disturbed by a look at its slot now. Otherwise all are told at once.
        let awake = match job.watched {
            true => core.control.words().awake(),
            false => 0,
        };
        self.hand_out(core, epoch, &job, &round, &runs, awake);
        job.signal.notify_all();
    }

    /// Has the runs of a round claimed. Workers are woken for them, unless some are `awake`.
    fn hand_out(
        &mut self,
        core: &Core,
        epoch: Epoch<'_, System>,
        job: &Arc<JobState>,
        round: &Round,
        runs: &[Range<u32>],
        awake: usize,
    ) {
        let chunks: u32 = runs.iter().map(|run| run.end - run.start).sum();
        if job.terms.has(JobTerms::PINNED) {
            (0..chunks).for_each(|chunk| self.send_errand(core, &epoch, round, chunk));
            return core.control.wake_all();
        }
        self.push_runs(core, &epoch, runs, chunks, awake);
        if chunks == 0 {
            epoch.complete_if_counted(job.terms.has(JobTerms::ATTENDED));
        }
        if awake == 0 {
            core.control.words().wake_for_runs(&System);
        }
    }

    /// About one run, of equal length, for each that is awake, or for each worker if none is; the others will steal.
    fn push_runs(
        &mut self,
        core: &Core,
        epoch: &Epoch<'_, System>,
        runs: &[Range<u32>],
        chunks: u32,
        awake: usize,
    ) {
        let workers = match awake {
            0 => self.target.max(1) as u64,
            awake => awake as u64,
        };
        for run in runs {
            let len = u64::from(run.end - run.start);
            let parts = (workers * len)
                .div_ceil(u64::from(chunks.max(1)))
                .clamp(1, len.max(1));
            let cut = |part: u64| run.start + (len * part / parts) as u32;
            for part in 0..parts {
                let chunks = Span::new(cut(part), cut(part + 1));
                self.push_run(core, epoch.run(chunks, false));
            }
        }
    }

    /// Puts a run into the ring, or aside until there is room.
    pub(crate) fn push_run(&mut self, core: &Core, run: Descriptor) {
        if !self.overflow.is_empty() {
            self.overflow.push_back(run);
        } else if let Err(run) = core.control.parent().push(run) {
            self.overflow.push_back(run);
            core.event.raise();
        }
    }

    /// Ends a job if it can be ended now. Gives whether it is over.
    pub(crate) fn finalize(&mut self, core: &Core, job: &Arc<JobState>) -> bool {
        if job.is_over() {
            return true;
        }
        let Some(key) = job.key() else {
            let Some(ending) = job.inner.lock().ending.clone() else {
                return false;
            };
            self.waiting.retain(|other| !Arc::ptr_eq(other, job));
            self.conclude(core, job, ending);
            self.let_go(core, job);
            return true;
        };
        let (resting, reading) = {
            let inner = job.inner.lock();
            (inner.rest.is_some(), inner.reading)
        };
        if reading {
            return false;
        }
        let standing = core.control.parent().look(key);
        let ending = || job.inner.lock().ending.clone();
        let (end, newest) = match standing {
            Standing::Overwritten { inside: true } => return false,
            Standing::Overwritten { inside: false } => (
                End::Broken(
                    "a worker has overwritten the words by which the others find this job".to_owned(),
                ),
                None,
            ),
            _ if resting => match ending() {
                Some(ending) => (ending, None),
                None => return false,
            },
            Standing::Complete { gate, .. } | Standing::Leaving { gate } | Standing::Stopped { gate, .. }
                if self.doubts(core, job, key, gate) =>
            {
                return false;
            }
            Standing::Complete { newest, .. } => (End::Complete, Some(newest)),
            Standing::Stopped { newest, .. } => (ending().unwrap_or(End::FailedFast), Some(newest)),
            Standing::Leaving { .. } => {
                let mut inner = job.inner.lock();
                if inner.kill_at.is_none() {
                    inner.kill_at = Some(Instant::now() + STOP_GRACE);
                    core.event.raise();
                }
                return false;
            }
            Standing::Open => return false,
        };
        let reading = Reading { end, newest };
        let failed = core.control.jobs[key.index as usize]
            .failed
            .load(Ordering::Relaxed);
        job.inner.lock().reading = true;
        if job.is_quick(failed) {
            let read = job.read_somehow(core, reading);
            return self.settle(core, job, read);
        }
        job.inner.lock().unread = Some(reading);
        self.unread.push(job.clone());
        self.something_left = true;
        false
    }

    /// Whether a job says that it is over and is not: somebody wrote where it should not. It is rebuilt.
    fn doubts(&mut self, core: &Core, job: &JobState, key: JobKey, seen: GateState) -> bool {
        let cell = &core.control.jobs[key.index as usize];
        if seen.phase == JobPhase::Complete && cell.is_vouched(seen) {
            return false; // As nearly always.
        }
        let round = job.round();
        let is_over = match seen.phase {
            // After a death it usually is as it says.
            JobPhase::Complete => status::unfinished(round.status(), round.terms.tag()).is_empty(),
            JobPhase::Stopped => round.terms.has(JobTerms::FAIL_FAST) || job.inner.lock().ending.is_some(),
            _ => return false,
        };
        if !is_over && core.control.parent().recall(key, seen) {
            tracing::error!(
                ?seen,
                "the words of a job were overwritten; it is rebuilt from what is final"
            );
            self.rebuilding.push(key);
            core.event.raise();
        }
        !is_over
    }

    /// What was read of a job ends it, or begins its next round. Gives whether it is over.
    pub(crate) fn settle(&mut self, core: &Core, job: &Arc<JobState>, read: Read) -> bool {
        let (Some(key), false) = (job.key(), job.is_over()) else {
            return job.is_over();
        };
        match read {
            Read::Again(rest, failures) => {
                let mut inner = job.inner.lock();
                inner.failed = failures.count();
                (inner.failures, inner.rest, inner.reading) = (failures, Some(rest), false);
                let stopped = inner.ending.is_some();
                drop(inner);
                self.resting.push(key);
                core.event.raise();
                // Somebody may have stopped it meanwhile.
                stopped && self.finalize(core, job)
            }
            Read::Over(outcome) => {
                self.end(core, job, outcome);
                self.limbo.push(key);
                self.clear_limbo(core);
                self.pump(core);
                true
            }
        }
    }

    /// Ends a job that nobody works on any more with what is known of it.
    fn conclude(&mut self, core: &Core, job: &Arc<JobState>, end: End) {
        // It has come to this end whatever was planned for it.
        job.inner.lock().ending.get_or_insert_with(|| end.clone());
        if let Read::Over(outcome) = job.read(core, Reading { end, newest: None }) {
            self.end(core, job, outcome);
        }
    }

    fn end(&mut self, core: &Core, job: &Arc<JobState>, outcome: Outcome) {
        job.finish(outcome, &core.state.sides);
        self.something_left = true;
        if let Some(key) = job.key() {
            // Those that sleep on the bell look at the job, not at the cell, when they wake.
            core.control.ring_bell(key);
        }
        let surplus_may_leave = job.terms.has(JobTerms::PINNED);
        if surplus_may_leave || (self.phase == PoolPhase::Closed && !self.has_unfinished()) {
            core.event.raise();
        }
        core.changed.notify_all();
    }

    /// Stops a job: its workers leave after their strip, or are killed when `grace` is over. `finalize` ends it when they
    /// are gone.
    pub(crate) fn stop(&mut self, core: &Core, job: &Arc<JobState>, ending: End, grace: Duration) {
        if job.is_over() {
            return;
        }
        {
            let mut inner = job.inner.lock();
            inner.ending.get_or_insert(ending);
            let at = Instant::now().checked_add(grace);
            inner.kill_at = inner.kill_at.into_iter().chain(at).min();
        }
        if let Some(key) = job.key() {
            self.rebuilding.retain(|other| *other != key);
            core.control.parent().stop(key);
        }
        if !self.finalize(core, job) {
            core.event.raise();
        }
    }

    /// Nobody is left who could go on: every job is over, even one whose gate says what no gate ever says.
    pub(crate) fn end_all(&mut self, core: &Core, ending: &End) {
        for slot in core.control.slots.iter() {
            slot.leave();
        }
        for job in self.unfinished() {
            self.stop(core, &job, ending.clone(), Duration::MAX);
            // Who reads it ends it.
            if !job.is_over() && !job.inner.lock().reading {
                self.conclude(core, &job, ending.clone());
                self.limbo.extend(job.key());
            }
        }
        self.look_at_limbo(core);
        // Nobody holds anything any more.
        let lent = std::mem::take(&mut self.quarantine);
        lent.into_iter().for_each(|lent| self.put_aside(lent.left));
    }

    /// The same, where even that has failed: outcomes without anything in them.
    pub(crate) fn finish_at_any_rate(&mut self, core: &Core) {
        for job in self.unfinished() {
            let end = End::Broken("the pool is broken".to_owned());
            job.finish(job.nothing(end, core), &core.state.sides);
            job.key().into_iter().for_each(|key| core.control.ring_bell(key));
        }
        let waiting = std::mem::take(&mut self.waiting);
        waiting.iter().for_each(|job| self.let_go(core, job));
        (self.finished, self.something_left) = (true, true);
        core.changed.notify_all();
    }

    /// Reads what is to be read, for whoever has the state to itself.
    #[cfg(any(test, feature = "hostile"))]
    pub(crate) fn read_all(&mut self, core: &Core) {
        for job in std::mem::take(&mut self.unread) {
            let reading = job.inner.lock().unread.take();
            if let Some(reading) = reading {
                let read = job.read(core, reading);
                self.settle(core, &job, read);
            }
        }
    }

    /// Those of them that nobody may be waiting for: who has an asynchronous call, and who has stopped a job, goes on.
    pub(crate) fn attended(&self, core: &Core) -> Vec<Arc<JobState>> {
        let is_stopped =
            |key: JobKey| core.control.jobs[key.index as usize].gate.state().phase == JobPhase::Stopped;
        let mut jobs = self.unfinished();
        jobs.retain(|job| job.terms.has(JobTerms::ATTENDED) || job.key().is_some_and(is_stopped));
        jobs
    }

    /// All jobs that are not over.
    pub(crate) fn unfinished(&self) -> Vec<Arc<JobState>> {
        self.jobs
            .iter()
            .flatten()
            .chain(&self.waiting)
            .filter(|job| !job.is_over())
            .cloned()
            .collect()
    }
}

/// What a round is opened with, and the chunks that are to be run in it.
fn opening_of(round: &Round) -> (Opening, Vec<Range<u32>>) {
    // A job that goes on where a file says has chunks that are final already.
    let durable = round.terms.has(JobTerms::DURABLE);
    let runs = match durable {
        true => status::unfinished(round.status(), round.terms.tag()),
        false => std::iter::once(0..round.terms.chunks as u32).collect(),
    };
    let opening = Opening {
        terms: round.terms,
        chunks: runs.iter().map(|run| run.end - run.start).sum(),
        disturbed: durable,
    };
    (opening, runs)
}

/// The workers that hold handles which they took out of task arguments.
fn holders(core: &Core) -> Vec<(usize, u32)> {
    let slots = core.control.slots.iter().enumerate();
    slots
        .filter(|(_, slot)| slot.held_handles.load(Ordering::Acquire) != 0)
        .map(|(index, slot)| (index, slot.incarnation.load(Ordering::Acquire)))
        .collect()
}

fn still_holds(core: &Core, (index, incarnation): (usize, u32)) -> bool {
    let slot = &core.control.slots[index];
    slot.incarnation.load(Ordering::Acquire) == incarnation && slot.held_handles.load(Ordering::Acquire) != 0
}
