//! What the parent knows about its jobs and workers, behind one lock.
//!
//! The lock is the parent's own: no worker ever waits for it. Workers learn of everything here through the control
//! segment.

use std::{
    any::Any,
    collections::{HashMap, VecDeque},
    fmt,
    ops::Range,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Waker,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use swathe_memory::{Block, Memory, SharedSlice};
use swathe_os::process::{self, Event};
use swathe_protocol::{Descriptor, GateState, JobKey, JobPhase, JobTerms, Tally};

use crate::{
    account::Report,
    board::{Board, Boards},
    collect::{self, Rerun},
    control::Control,
    job::{End, Failure, Job, OnDone, Outcome, Region, Retries},
    report,
    round::{Failures, Pick, Round},
};

/// How often `clear_limbo` looks before it leaves a job to the supervisor.
const LEAVING_SPINS: usize = 64;
/// How long those that are still at work may go on when a job stops at its first failure.
pub(crate) const STOP_GRACE: Duration = Duration::from_millis(100);

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
    pub(crate) state: Mutex<State>,
    /// Notified when the pool's phase or its processes change.
    pub(crate) changed: Condvar,
    /// Wakes the supervisor.
    pub(crate) event: Event,
    /// `fork_generation` of the process that built the pool.
    pub(crate) forks: u64,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").finish_non_exhaustive()
    }
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
    generations: Vec<u32>,
    free: Vec<u32>,
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
    /// What the courier has to tell.
    pub(crate) notices: VecDeque<Notice>,
    /// Whether the courier is telling something.
    pub(crate) telling: bool,
    /// No process is left, and none will be started.
    pub(crate) finished: bool,
}

/// Kept in place until these workers (slot, incarnation) hold nothing any more.
struct Quarantined {
    holders: Vec<(usize, u32)>,
    _keep: Option<Box<dyn Any + Send + Sync>>,
}

/// Something to be told on the courier's thread.
pub(crate) struct Notice {
    pub(crate) outcome: Arc<Outcome>,
    pub(crate) on_done: Option<OnDone>,
    pub(crate) wakers: Vec<Waker>,
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
    pub(crate) heap: Vec<Arc<Block>>,
    round: Arc<Round>,
    /// What the rounds before this one have left.
    failures: Failures,
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

impl JobInner {
    /// Positions that a file says are failed, and that were to be run again and were not: they have neither a value nor
    /// a record of this run. Ascending.
    fn holes(&self) -> Vec<u64> {
        let waiting = self.rest.iter().flat_map(|rest| rest.picks.iter());
        let numbers = self.round.picks.iter().enumerate();
        let begun = numbers.filter(|(number, _)| !self.round.is_final(*number));
        let picks = waiting.chain(begun.map(|(_, pick)| pick));
        let unknown = picks.filter(|pick| !self.failures.contains(pick.first));
        unknown
            .flat_map(|pick| pick.first..pick.first + pick.len)
            .collect()
    }
}

/// A pause between two rounds.
struct Rest {
    until: Instant,
    picks: Vec<Pick>,
    attempt: u32,
}

impl JobState {
    pub(crate) fn new(
        job: Job,
        terms: JobTerms,
        round: Round,
        board: Arc<Board>,
        heap: Option<Arc<Block>>,
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
                heap: heap.into_iter().collect(),
                round: Arc::new(round),
                failures: Failures::default(),
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
            positions.for_each(|position| report::mark_failed(bits, position));
        }
    }

    /// These positions are run again: what a file says of them is void.
    pub(crate) fn unmark_failed(&self, positions: Range<u64>) {
        if let Some(bits) = &self.failed_bits {
            positions.for_each(|position| report::mark_done(bits, position));
        }
    }

    /// Positions that are settled so far, and how many of them failed, `failed` of them in this round.
    pub(crate) fn progress(&self, failed: u64) -> (u64, u64) {
        let inner = self.inner.lock();
        // What a job that is over had to say is in its outcome; its status words may be another job's.
        if !self.is_over() && inner.round.picks.is_empty() && inner.rest.is_none() {
            let finals = collect::finals(inner.round.status(), &inner.round.terms);
            let done: u64 = finals.iter().map(|range| range.end - range.start).sum();
            return (done.saturating_sub(inner.redo.len() as u64), failed);
        }
        (self.terms.positions, inner.failures.count())
    }

    /// Where its time went until now.
    fn report(&self, inner: &JobInner, core: &Core) -> Report {
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
            inner.buried,
            &there,
        )
    }

    /// What the round in work has brought is added to what the others have.
    fn settle_round(&self, newest_record: u64) {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let lost = std::mem::take(&mut inner.lost);
        let reruns = std::mem::take(&mut inner.reruns);
        let records = collect::read_records(newest_record, &inner.heap, &self.terms, &reruns);
        let (deaths, tries) = (&inner.deaths, inner.round.terms.attempt as u32);
        let attempts = |position| tries + deaths.get(&position).copied().unwrap_or(0);
        let found = collect::merge(lost, records, attempts);
        inner.failures.settle(&inner.round, found);
    }

    /// After a complete round: whether there is another.
    fn plan_round(&self) -> bool {
        let mut inner = self.inner.lock();
        if inner.ending.is_some() {
            return false;
        }
        let tries = inner.round.terms.attempt as u32;
        let redo = std::mem::take(&mut inner.redo);
        let (picks, attempt, wait) = if redo.is_empty() {
            let picks = inner.failures.retryable(self.retries, tries);
            (picks, tries + 1, self.retries.wait_after(tries))
        } else {
            (self.picks_of(&redo), tries, Duration::ZERO)
        };
        if picks.is_empty() {
            return false;
        }
        let until = Instant::now() + wait;
        inner.rest = Some(Rest {
            until,
            picks,
            attempt,
        });
        true
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

    /// The round that the rest was for.
    fn next_round(&self, core: &Core) -> Result<Option<Arc<Round>>, swathe_memory::MemoryError> {
        let mut inner = self.inner.lock();
        let Some(rest) = &inner.rest else {
            return Ok(None);
        };
        let last = rest.attempt > self.retries.more;
        let picks = rest.picks.clone();
        let round = Round::again(&core.memory, &self.terms, picks, rest.attempt, last)?;
        inner.round = Arc::new(round);
        inner.rest = None;
        let round = inner.round.clone();
        Ok(Some(round))
    }

    /// Whether it is between two rounds.
    pub(crate) fn is_resting(&self) -> bool {
        self.inner.lock().rest.is_some()
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

    /// Gives the job its result. The caller holds the state's lock.
    fn finish(&self, outcome: Outcome) -> Option<Notice> {
        let outcome = Arc::new(outcome);
        let mut inner = self.inner.lock();
        let _ = self.outcome.set(outcome.clone());
        self.over.store(true, Ordering::Release);
        self.signal.notify_all();
        let (on_done, wakers) = (inner.on_done.take(), std::mem::take(&mut inner.wakers));
        (on_done.is_some() || !wakers.is_empty()).then_some(Notice {
            outcome,
            on_done,
            wakers,
        })
    }
}

impl State {
    pub(crate) fn new(target: usize, slots: usize, jobs: u32) -> Self {
        Self {
            phase: PoolPhase::Running,
            target,
            pids: vec![None; slots],
            jobs: vec![None; jobs as usize],
            generations: vec![0; jobs as usize],
            free: (0..jobs).rev().collect(),
            waiting: VecDeque::new(),
            overflow: VecDeque::new(),
            rebuilding: Vec::new(),
            resting: Vec::new(),
            limbo: Vec::new(),
            quarantine: Vec::new(),
            notices: VecDeque::new(),
            telling: false,
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
            if !due || core.control.anyone_inside(key) {
                self.resting.push(key);
                continue;
            }
            match job.next_round(core) {
                Ok(Some(round)) => self.open(core, key, &job, &round, true),
                Ok(None) => {}
                Err(e) => {
                    tracing::warn!(%e, "no memory to try failed positions again; they stay failed");
                    self.conclude(core, &job, End::Complete);
                    self.limbo.push(key);
                }
            }
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
            if let Err(run) = core.control.push(run) {
                self.overflow.push_front(run);
                break;
            }
            core.control.wake_for_runs();
        }
        while !self.waiting.is_empty() {
            let Some(index) = self.free.pop() else { break };
            let Some(job) = self.next_waiting() else {
                self.free.push(index);
                break;
            };
            self.place(core, index, job);
        }
    }

    /// Frees the cells of jobs that are over and that nobody is inside of.
    pub(crate) fn look_at_limbo(&mut self, core: &Core) {
        let mut next = 0;
        while let Some(key) = self.limbo.get(next).copied() {
            if core.control.anyone_inside(key) {
                next += 1;
            } else {
                self.limbo.swap_remove(next);
                self.vacate(core, key);
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

    fn vacate(&mut self, core: &Core, key: JobKey) {
        self.quarantine
            .retain(|lent| lent.holders.iter().any(|holder| still_holds(core, *holder)));
        if let Some(job) = self.jobs[key.index as usize].take() {
            let mut inner = job.inner.lock();
            let keep = inner.keep.take();
            core.boards.give(job.board.clone());
            let holders = if inner.lends { holders(core) } else { Vec::new() };
            if !holders.is_empty() {
                self.quarantine.push(Quarantined { holders, _keep: keep });
            }
        }
        core.control.jobs[key.index as usize].gate.set(GateState {
            generation: key.generation,
            epoch: 0,
            phase: JobPhase::Vacant,
        });
        self.free.push(key.index);
    }

    /// Opens a cell for a job and hands out its runs: one a worker at most, of equal length.
    fn place(&mut self, core: &Core, index: u32, job: Arc<JobState>) {
        let generation = &mut self.generations[index as usize];
        *generation = generation.wrapping_add(1).max(1);
        let key = JobKey::new(index, *generation);
        let _ = job.key.set(key);
        self.jobs[index as usize] = Some(job.clone());
        self.open(core, key, &job, &job.round(), false);
        job.signal.notify_all();
    }

    /// Opens the gate to a round, of a cell that nobody is inside of, and hands out its runs.
    fn open(&mut self, core: &Core, key: JobKey, job: &Arc<JobState>, round: &Round, again: bool) {
        let cell = &core.control.jobs[key.index as usize];
        core.control
            .lanes(key)
            .iter()
            .for_each(swathe_protocol::Lane::reset);
        cell.failures.store(0, Ordering::Relaxed);
        if !again {
            cell.failed.store(0, Ordering::Relaxed);
            cell.heap_used.store(0, Ordering::Relaxed);
        }
        // A job that goes on where a file says has chunks that are final already.
        let durable = round.terms.has(JobTerms::DURABLE);
        cell.disturbed.store(u32::from(durable), Ordering::Relaxed);
        let runs = match durable {
            true => collect::unfinished(round.status(), round.terms.tag()),
            false => std::iter::once(0..round.terms.chunks as u32).collect(),
        };
        let chunks: u32 = runs.iter().map(|run| run.end - run.start).sum();
        cell.target.store(u64::from(chunks), Ordering::Relaxed);
        cell.write_terms(round.terms);
        let opened = match again {
            // Runs of the last round that still lie in the ring are of another epoch, and are dropped.
            true => cell.gate.state().next_epoch(JobPhase::Open),
            false => GateState {
                generation: key.generation,
                epoch: 0,
                phase: JobPhase::Open,
            },
        };
        cell.gate.set(opened);
        if job.terms.has(JobTerms::PINNED) {
            (0..chunks).for_each(|chunk| self.send_errand(core, key, opened.epoch, round, chunk));
            return core.control.wake_all();
        }
        // A caller who waits looks a moment later whether they have begun, and wakes workers if not: whoever is awake most
        // likely has, and would be disturbed by a look at its slot now. Otherwise all are told at once.
        let awake = match job.watched && !again {
            true => core.control.awake(),
            false => 0,
        };
        self.push_runs(core, key, opened.epoch, &runs, chunks, awake);
        if chunks == 0 && core.control.complete_if_counted(key, cell, opened) {
            core.control.ring_bell(cell, job.terms.has(JobTerms::ATTENDED));
        }
        if awake == 0 {
            core.control.wake_for_runs();
        }
    }

    /// About one run, of equal length, for each that is awake, or for each worker if none is; the others will steal.
    fn push_runs(
        &mut self,
        core: &Core,
        key: JobKey,
        epoch: u32,
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
                self.push_run(core, key, epoch, cut(part)..cut(part + 1), false);
            }
        }
    }

    /// Puts a run into the ring, or aside until there is room.
    pub(crate) fn push_run(
        &mut self,
        core: &Core,
        job: JobKey,
        epoch: u32,
        chunks: Range<u32>,
        careful: bool,
    ) {
        let run = Descriptor {
            job,
            epoch,
            first: chunks.start,
            chunks: chunks.end - chunks.start,
            careful,
        };
        if !self.overflow.is_empty() {
            self.overflow.push_back(run);
        } else if let Err(run) = core.control.push(run) {
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
            core.boards.give(job.board.clone());
            return true;
        };
        let resting = job.is_resting();
        let seen = core.control.jobs[key.index as usize].gate.state();
        // No gate of a job that is not over ever says that: somebody wrote where it should not.
        let overwritten = seen.generation != key.generation || seen.phase == JobPhase::Vacant;
        let ending = match seen.phase {
            _ if overwritten && core.control.anyone_inside(key) => return false,
            _ if overwritten => {
                End::Broken("a worker has overwritten the words by which the others find this job".to_owned())
            }
            _ if resting => match job.inner.lock().ending.clone() {
                Some(ending) => ending,
                None => return false,
            },
            _ if self.doubts(core, job, key, seen) => return false,
            JobPhase::Complete => {
                self.settle_round(core, job, key);
                if job.plan_round() {
                    self.resting.push(key);
                    core.event.raise();
                    return false;
                }
                End::Complete
            }
            JobPhase::Stopped if core.control.anyone_inside(key) => {
                let mut inner = job.inner.lock();
                if inner.kill_at.is_none() {
                    inner.kill_at = Some(Instant::now() + STOP_GRACE);
                    core.event.raise();
                }
                return false;
            }
            JobPhase::Stopped => {
                self.settle_round(core, job, key);
                job.inner.lock().ending.clone().unwrap_or(End::FailedFast)
            }
            _ => return false,
        };
        self.conclude(core, job, ending);
        self.limbo.push(key);
        self.clear_limbo(core);
        self.pump(core);
        true
    }

    /// Whether a job says that it is over and is not: somebody wrote where it should not. It is rebuilt.
    fn doubts(&mut self, core: &Core, job: &JobState, key: JobKey, seen: GateState) -> bool {
        let cell = &core.control.jobs[key.index as usize];
        let round = job.round();
        let is_over = match seen.phase {
            JobPhase::Complete if cell.is_vouched(seen) => true,
            // After a death it usually is as it says.
            JobPhase::Complete => collect::unfinished(round.status(), round.terms.tag()).is_empty(),
            JobPhase::Stopped => round.terms.has(JobTerms::FAIL_FAST) || job.inner.lock().ending.is_some(),
            _ => return false,
        };
        if !is_over && cell.gate.recall(seen).is_some() {
            tracing::error!(
                ?seen,
                "the words of a job were overwritten; it is rebuilt from what is final"
            );
            self.rebuilding.push(key);
            core.event.raise();
        }
        !is_over
    }

    fn settle_round(&self, core: &Core, job: &JobState, key: JobKey) {
        let cell = &core.control.jobs[key.index as usize];
        job.settle_round(cell.failures.load(Ordering::Acquire));
    }

    /// Gathers the outcome of a job that nobody works on any more.
    fn conclude(&mut self, core: &Core, job: &Arc<JobState>, end: End) {
        let terms = &job.terms;
        let outcome = {
            let mut inner = job.inner.lock();
            // After the first round every position has a value or a failure.
            let first_is_over = !inner.round.picks.is_empty() || inner.rest.is_some() || end == End::Complete;
            let finals = match job.key() {
                None => Vec::new(),
                Some(_) if first_is_over => {
                    collect::without(std::iter::once(0..terms.positions).collect(), &inner.holes())
                }
                Some(_) => collect::without(
                    collect::finals(inner.round.status(), &inner.round.terms),
                    &inner.redo,
                ),
            };
            Outcome {
                end,
                positions: terms.positions,
                failures: std::mem::take(&mut inner.failures).into_vec(),
                finals,
                chunks: (terms.chunks, terms.chunk_len),
                heap: std::mem::take(&mut inner.heap),
                report: job.report(&inner, core),
            }
        };
        if let Some(notice) = job.finish(outcome) {
            self.notices.push_back(notice);
            core.control.wake_courier();
        }
        if let Some(key) = job.key() {
            // Those that sleep on the bell look at the job, not at the cell, when they wake.
            core.control
                .ring_bell(&core.control.jobs[key.index as usize], false);
        }
        let surplus_may_leave = job.terms.has(JobTerms::PINNED);
        if surplus_may_leave || (self.phase == PoolPhase::Closed && !self.has_unfinished()) {
            core.event.raise();
        }
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
            let gate = &core.control.jobs[key.index as usize].gate;
            self.rebuilding.retain(|other| *other != key);
            loop {
                let seen = gate.state();
                let may_stop = matches!(seen.phase, JobPhase::Open | JobPhase::Closed);
                if !may_stop || gate.advance(seen, JobPhase::Stopped) {
                    break;
                }
            }
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
            if !job.is_over() {
                self.conclude(core, &job, ending.clone());
            }
        }
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
