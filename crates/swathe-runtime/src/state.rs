//! What the parent knows about its jobs and workers, behind one lock.
//!
//! The lock is the parent's own: no worker ever waits for it. Workers learn of everything here through the control
//! segment.

use std::{
    any::Any,
    collections::{HashMap, VecDeque},
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::Waker,
};

use parking_lot::{Condvar, Mutex};
use swathe_memory::{Block, Memory, SharedSlice};
use swathe_os::process::Event;
use swathe_protocol::{Descriptor, GateState, JobKey, JobPhase, JobTerms, StatusWord};

use crate::{
    collect::{self, Rerun},
    control::Control,
    job::{End, Failure, OnDone, Outcome},
};

/// How often `clear_limbo` looks before it leaves a job to the supervisor.
const LEAVING_SPINS: usize = 64;

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
    waiting: VecDeque<Arc<JobState>>,
    /// Runs that found the ring full.
    overflow: VecDeque<Descriptor>,
    /// Jobs whose claims are to be rebuilt once nobody is inside.
    pub(crate) rebuilding: Vec<JobKey>,
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
    pub(crate) terms: JobTerms,
    pub(crate) max_deaths: u32,
    pub(crate) status: SharedSlice<StatusWord>,
    key: OnceLock<JobKey>,
    over: AtomicBool,
    outcome: OnceLock<Arc<Outcome>>,
    pub(crate) inner: Mutex<JobInner>,
    /// Notified when the job gets its cell or is over.
    pub(crate) signal: Condvar,
}

/// The part of a job that changes.
pub(crate) struct JobInner {
    pub(crate) keep: Option<Box<dyn Any + Send + Sync>>,
    pub(crate) lends: bool,
    pub(crate) block: Option<Arc<Block>>,
    pub(crate) on_done: Option<OnDone>,
    pub(crate) wakers: Vec<Waker>,
    pub(crate) heap: Vec<Arc<Block>>,
    /// Failures that the parent found itself.
    pub(crate) lost: Vec<Failure>,
    pub(crate) reruns: Vec<Rerun>,
    /// Deaths by position.
    pub(crate) deaths: HashMap<u64, u32>,
    /// Why the job was stopped, if it was.
    pub(crate) ending: Option<End>,
}

impl JobState {
    pub(crate) fn new(
        terms: JobTerms,
        max_deaths: u32,
        status: SharedSlice<StatusWord>,
        inner: JobInner,
    ) -> Self {
        Self {
            terms,
            max_deaths,
            status,
            key: OnceLock::new(),
            over: AtomicBool::new(false),
            outcome: OnceLock::new(),
            inner: Mutex::new(inner),
            signal: Condvar::new(),
        }
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
            limbo: Vec::new(),
            quarantine: Vec::new(),
            notices: VecDeque::new(),
            telling: false,
            finished: false,
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
            core.control.wake_for(1);
        }
        while !self.waiting.is_empty() {
            let Some(index) = self.free.pop() else { break };
            let Some(job) = self.waiting.pop_front() else {
                break;
            };
            self.place(core, index, job);
        }
    }

    /// Frees the cells of jobs that are over and that nobody is inside of.
    pub(crate) fn look_at_limbo(&mut self, core: &Core) {
        let (inside, outside): (Vec<_>, Vec<_>) = self
            .limbo
            .iter()
            .partition(|key| core.control.anyone_inside(**key));
        self.limbo = inside;
        outside.into_iter().for_each(|key| self.vacate(core, key));
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
            let (keep, _) = (inner.keep.take(), inner.block.take());
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
        let cell = &core.control.jobs[index as usize];
        core.control
            .lanes(key)
            .iter()
            .for_each(swathe_protocol::Lane::reset);
        cell.failures.store(0, Ordering::Relaxed);
        cell.failed.store(0, Ordering::Relaxed);
        cell.heap_used.store(0, Ordering::Relaxed);
        cell.target.store(job.terms.chunks, Ordering::Relaxed);
        cell.bell.reset();
        cell.write_terms(job.terms);
        cell.gate.set(GateState {
            generation: key.generation,
            epoch: 0,
            phase: JobPhase::Open,
        });
        let _ = job.key.set(key);
        let chunks = job.terms.chunks as u32;
        self.jobs[index as usize] = Some(job.clone());
        if job.terms.has(JobTerms::PINNED) {
            (0..chunks).for_each(|chunk| self.send_errand(core, key, chunk));
            core.control.wake_all();
        } else {
            let runs = chunks.min(self.target as u32).max(1);
            for run in 0..runs {
                let cut = |i: u32| (u64::from(chunks) * u64::from(i) / u64::from(runs)) as u32;
                self.push_run(core, key, 0, cut(run)..cut(run + 1), false);
            }
            core.control.wake_for(runs as usize);
        }
        job.signal.notify_all();
    }

    /// Gives worker `chunk` its own chunk of a pinned job.
    pub(crate) fn send_errand(&mut self, core: &Core, key: JobKey, chunk: u32) {
        core.control
            .lane(key, chunk as usize)
            .fill(swathe_protocol::Span::new(chunk, chunk + 1));
        core.control.slots[chunk as usize]
            .errand
            .store(key.to_word(), Ordering::Release);
    }

    /// Puts a run into the ring, or aside until there is room.
    pub(crate) fn push_run(
        &mut self,
        core: &Core,
        job: JobKey,
        epoch: u32,
        chunks: std::ops::Range<u32>,
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
            return true;
        };
        let cell = &core.control.jobs[key.index as usize];
        let ending = match cell.gate.state().phase {
            JobPhase::Complete => End::Complete,
            JobPhase::Stopped if !core.control.anyone_inside(key) => {
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

    /// Gathers the outcome of a job that nobody works on any more.
    fn conclude(&mut self, core: &Core, job: &Arc<JobState>, end: End) {
        let terms = &job.terms;
        let failures = job.key().map_or(0, |key| {
            core.control.jobs[key.index as usize]
                .failures
                .load(Ordering::Acquire)
        });
        let outcome = {
            let mut inner = job.inner.lock();
            let lost = std::mem::take(&mut inner.lost);
            let records = collect::read_records(failures, &inner.heap, terms, &inner.reruns);
            let finals = match (&end, job.key()) {
                (_, None) => Vec::new(),
                (End::Complete, _) => std::iter::once(0..terms.positions).collect(),
                _ => collect::finals(&job.status, terms),
            };
            Outcome {
                end,
                positions: terms.positions,
                failures: collect::merge(lost, records),
                finals,
                chunks: (terms.chunks, terms.chunk_len),
                heap: std::mem::take(&mut inner.heap),
            }
        };
        if let Some(notice) = job.finish(outcome) {
            self.notices.push_back(notice);
            core.control.wake_courier();
        }
        if let Some(key) = job.key() {
            // Those that sleep on the bell look at the job, not at the cell, when they wake.
            core.control
                .ring_over(&core.control.jobs[key.index as usize], false);
        }
        if self.phase == PoolPhase::Closed && !self.has_unfinished() {
            core.event.raise();
        }
    }

    /// Stops a job: its workers leave after their strip. `finalize` ends it when they have.
    pub(crate) fn stop(&mut self, core: &Core, job: &Arc<JobState>, ending: End) {
        if job.is_over() {
            return;
        }
        job.inner.lock().ending.get_or_insert(ending);
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
        self.finalize(core, job);
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
