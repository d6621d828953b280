//! The engine as its front ends see it: start, submit, wait, close, end.

use std::{
    any::Any,
    fmt,
    path::PathBuf,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    task::Waker,
    time::{Duration, Instant},
};

use parking_lot::Condvar;
use swathe_memory::Memory;
use swathe_os::{
    cores, descriptors,
    process::{self, Event},
    surroundings::Surroundings,
};
use swathe_protocol::{JobPhase, JobTerms, status::MAX_CHUNK_LEN};

use crate::{
    error::EngineError,
    fault::Chaos,
    job::{Chunking, End, Job, Outcome, report::Report, task::TaskRef},
    parent::{
        arrival::Arrival,
        core::{Core, PoolPhase, StateLock},
        courier,
        job::JobState,
        jobs::State,
        look_around,
        retry::Round,
        user_code::Callbacks,
    },
    shared::{
        bytes,
        control::{Control, JOBS, MAX_PROCESSES, System},
        naps,
        plan::PlanWords,
        scratch::Boards,
    },
    supervisor::{Limits, Supervisor, clock::Patience, launch::Zygote, recipe::Recipe},
    zygote,
};

/// What a pool is made of.
#[derive(Default)]
pub struct EngineConfig {
    /// Worker processes; `None` for as many as cores may be used.
    pub processes: Option<usize>,
    /// Builds each worker's state: the function, its encoded arguments, and what they refer to.
    pub setup: Option<(TaskRef, Vec<u8>, Box<dyn Any + Send + Sync>)>,
    /// Runs when a worker leaves of its own accord.
    pub exit_hook: Option<TaskRef>,
    /// Elements after which a worker is replaced by a fresh one.
    pub max_tasks_per_child: Option<u64>,
    /// Private memory that a worker may have, bytes.
    pub max_memory: Option<u64>,
    /// Private memory that a worker may gain from its initializer on, bytes; then it is replaced by a fresh one.
    pub max_growth: Option<u64>,
    /// How long an initializer may take.
    pub initializer_timeout: Option<Duration>,
    /// How long a worker that leaves may take, its exit hook included.
    pub exit_timeout: Option<Duration>,
    /// How long a shortage (of processes, descriptors, memory) may last in which no worker can be started.
    pub start_patience: Option<Duration>,
    /// The program that workers are started from, if it is another than this one.
    pub worker_executable: Option<PathBuf>,
    /// How many workers may die, and in which time, before the pool gives up.
    pub restarts: Option<(u32, Duration)>,
    /// Faults that are to happen. Without the feature `chaos` those at named points do not.
    pub chaos: Chaos,
    /// Pin worker `w` to the `w`-th core that this process may use.
    pub pin: bool,
    /// Where inputs and outputs lie; `None` for the process's own arena.
    pub memory: Option<Memory>,
}

impl fmt::Debug for EngineConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineConfig")
            .field("processes", &self.processes)
            .finish_non_exhaustive()
    }
}

/// How long a worker that leaves may take, unless the pool says otherwise.
const EXIT_TIMEOUT: Duration = Duration::from_secs(30);
/// How many workers may die, and in which time, unless the pool says otherwise: more than a job with some hundred deadly
/// elements needs, and an end within seconds for one in which every element is deadly.
const RESTARTS: (u32, Duration) = (1000, Duration::from_secs(60));

/// How long a shortage may last while a pool is built, and in which a running one has no worker, unless the pool says
/// otherwise.
const START_PATIENCE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Descriptors that a pool needs besides two a worker.
const DESCRIPTORS: u64 = 8;
/// The longest wait for the end of a pool without a look around.
const LOOK_AROUND: Duration = Duration::from_millis(200);
/// How often `join` looks whether a job is over that nobody waits for.
const LOOK_FOR_JOBS: Duration = Duration::from_millis(10);
/// Bytes of texts that the failures of one job may have, and the part of its memory that they may take.
const TEXTS: (u64, u64) = (64 << 20, 8);

/// A pool of processes for untyped jobs. A cheap clone; the pool is terminated when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Engine(Arc<Owner>);

/// Terminates the pool when it is dropped. Handles of jobs do not hold it.
#[derive(Debug)]
struct Owner {
    core: Arc<Core>,
}

/// What is known about a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerInfo {
    /// Its number.
    pub index: usize,
    /// Its process id.
    pub pid: u32,
    /// How many processes have had this number.
    pub incarnation: u32,
    /// Elements this process has run.
    pub elements: u64,
    /// How long it has spent inside tasks.
    pub busy: Duration,
}

impl Engine {
    /// Starts the processes. Returns when the zygote is ready; workers may still be in their initializer.
    ///
    /// # Errors
    /// If the program never called [`crate::init`], the number of processes is 0 or too large, memory cannot be had, or
    /// no process can be started.
    pub fn start(config: EngineConfig) -> Result<Self, EngineError> {
        if !zygote::is_initialized() {
            return Err(EngineError::NotInitialized);
        }
        if process::has_raised_privileges() {
            return Err(EngineError::RaisedPrivileges);
        }
        cores::check_variable().map_err(|e| EngineError::Start(e.to_string()))?;
        let cores = cores::cores().count;
        let processes = config.processes.unwrap_or(cores);
        EngineError::check_processes(processes, MAX_PROCESSES)?;
        let slots = processes.max(2 * cores).clamp(16, MAX_PROCESSES);
        // Before room is made: workers have the limits that were found.
        let surroundings = Surroundings::of_this_process();
        make_room(processes)?;
        let memory = match &config.memory {
            Some(memory) => memory.clone(),
            None => Memory::global()?,
        };
        let share = (cores / processes).max(1);
        let params = config.setup.as_ref().map_or(&[][..], |(_, params, _)| params);
        let plan_bytes = plan_words(&config, processes, share).encode(&config.chaos, params);
        let plan = Arc::new(memory.alloc(plan_bytes.len().next_multiple_of(8), 64)?);
        bytes::write_block(&plan, &plan_bytes)?;
        let control = Control::create(slots)?;
        control
            .header
            .used_slots
            .store(processes as u32, Ordering::Relaxed);
        control.set_lookouts(processes, cores);
        let limits = limits(&config);
        let patience = config.start_patience.unwrap_or(START_PATIENCE.0);
        let recipe = Recipe::record(
            surroundings,
            config.worker_executable,
            share,
            (plan, plan_bytes.len()),
            config.setup.map(|(.., keep)| keep),
        )
        .map_err(EngineError::Start)?;
        Self::launch(
            control,
            memory,
            recipe,
            (processes, patience),
            limits,
            &config.chaos,
        )
    }

    fn launch(
        control: Control,
        memory: Memory,
        recipe: Recipe,
        (processes, patience): (usize, Duration),
        limits: Limits,
        chaos: &Chaos,
    ) -> Result<Self, EngineError> {
        let start = |e: std::io::Error| EngineError::Start(e.to_string());
        let slots = control.slots.len();
        let event = Event::new().map_err(start)?;
        let state = State::new(processes, slots, JOBS);
        let core = Arc::new_cyclic(|core: &Weak<Core>| Core {
            control,
            memory,
            boards: boards(slots),
            state: StateLock::new(state, core.clone()),
            changed: Condvar::new(),
            event,
            forks: process::fork_generation(),
            #[cfg(feature = "chaos")]
            supervisor_panics: false.into(),
        });
        let zygote = Zygote::start_ready(&core, &recipe, patience).map_err(EngineError::Start)?;
        let mut supervisor = Supervisor::new(core.clone(), recipe, zygote, limits, chaos).map_err(start)?;
        // Workers are started while the threads are.
        supervisor.begin();
        process::spawn_thread("swathe-super", move || supervisor.run()).map_err(start)?;
        let for_courier = core.clone();
        // Dropped, it ends the supervisor and its processes.
        let engine = Self(Arc::new(Owner { core }));
        process::spawn_thread("swathe-courier", move || courier::run(&for_courier)).map_err(start)?;
        Ok(engine)
    }

    fn core(&self) -> &Arc<Core> {
        &self.0.core
    }

    fn check_process(&self) -> Result<(), EngineError> {
        self.core().check_process()
    }

    /// Whether a job could be submitted now: asked before its memory is allocated.
    ///
    /// # Errors
    /// If the pool is not running, or belongs to another process.
    pub fn check(&self) -> Result<(), EngineError> {
        self.check_process()?;
        check_running(&self.core().state.lock().phase)
    }

    /// Queues a job. One without positions is over at once.
    ///
    /// # Errors
    /// If the pool is not running, the chunk size is impossible, or memory cannot be had.
    pub fn submit(&self, job: Job) -> Result<JobHandle, EngineError> {
        self.check_process()?;
        let core = self.core();
        let processes = {
            let state = core.state.lock();
            check_running(&state.phase)?;
            if job.traits.pinned {
                state.target
            } else {
                state.target.max(1)
            }
        };
        let job = Arc::new(prepare(core, job, processes)?);
        let mut state = core.state.lock();
        check_running(&state.phase)?;
        if job.terms.positions == 0 {
            state.stop(core, &job, End::Complete, Duration::ZERO);
        } else {
            state.admit(core, job.clone());
            if job.terms.element_ns != 0 || job.terms.deadline_ns != 0 {
                core.event.raise(); // The supervisor keeps the time.
            }
        }
        drop(state);
        Ok(JobHandle {
            core: core.clone(),
            job,
        })
    }

    /// Takes no more jobs; those there are will be finished. Idempotent; no effect after [`Engine::terminate`].
    pub fn close(&self) {
        if self.check_process().is_err() {
            return;
        }
        let mut state = self.core().state.lock();
        if state.phase == PoolPhase::Running {
            state.phase = PoolPhase::Closed;
        }
        self.core().event.raise();
    }

    /// Waits until a closed or terminated pool has finished its jobs, told all callbacks, and ended its processes.
    ///
    /// Called from a callback of this pool it does not wait for callbacks.
    ///
    /// # Errors
    /// If the pool is still running, or broke.
    pub fn join(&self) -> Result<(), EngineError> {
        self.check_process()?;
        let core = self.core();
        let callbacks = &core.state.sides.callbacks.0;
        if core.state.lock().phase == PoolPhase::Running {
            return Err(EngineError::StillRunning);
        }
        let ended = loop {
            let patience = self.end_unattended();
            let mut state = core.state.lock();
            if state.finished && !state.has_unfinished() {
                break match &state.phase {
                    PoolPhase::Broken(text) => Err(EngineError::Broken(text.clone())),
                    _ => Ok(()),
                };
            }
            state.wait(&core.changed, patience);
        };
        while !callbacks.is_current() && !callbacks.wait_idle(LOOK_AROUND) {}
        ended
    }

    /// Ends those jobs of closed pools that are over and that nobody waits for: of a stream whose results nobody takes. Gives
    /// when to look again.
    fn end_unattended(&self) -> Duration {
        let core = self.core();
        let mut state = core.state.lock();
        let mut jobs = state.unfinished();
        jobs.retain(|job| !job.terms.has(JobTerms::ATTENDED));
        match jobs.iter().filter(|job| !state.finalize(core, job)).count() {
            0 => LOOK_AROUND,
            _ => LOOK_FOR_JOBS,
        }
    }

    /// Stops everything: running tasks are killed after a short grace, open jobs end as terminated, no process stays.
    /// Idempotent; returns when it is done.
    pub fn terminate(&self) {
        self.0.terminate();
    }

    /// Changes the number of workers. New ones start at once; surplus ones leave after their strip.
    ///
    /// # Errors
    /// If the number is 0 or more than the pool has room for, or the pool is not running.
    pub fn resize(&self, processes: usize) -> Result<(), EngineError> {
        self.check_process()?;
        let core = self.core();
        EngineError::check_processes(processes, core.control.slots.len())?;
        make_room(processes.saturating_sub(self.processes()))?;
        let mut state = core.state.lock();
        check_running(&state.phase)?;
        let used = core.control.header.used_slots.load(Ordering::Relaxed) as usize;
        for (index, job) in state.jobs.iter().enumerate() {
            let Some(key) = job.as_ref().and_then(|job| job.key()) else {
                continue;
            };
            debug_assert_eq!(key.index as usize, index);
            // A lane that no worker had yet may hold the leavings of an earlier job.
            (used..processes).for_each(|worker| core.control.lane(key, worker).reset());
        }
        core.control
            .header
            .used_slots
            .store(used.max(processes) as u32, Ordering::Release);
        core.control.set_lookouts(processes, cores::cores().count);
        state.target = processes;
        core.event.raise();
        Ok(())
    }

    /// How many workers there should be; 0 in a forked child, which has none.
    pub fn processes(&self) -> usize {
        match self.check_process() {
            Ok(()) => self.core().state.lock().target,
            Err(_) => 0,
        }
    }

    /// The workers there are now; none in a forked child.
    pub fn workers(&self) -> Vec<WorkerInfo> {
        if self.check_process().is_err() {
            return Vec::new();
        }
        let core = self.core();
        let state = core.state.lock();
        // One that works already may not have been heard of yet.
        let announced = |index: usize| core.control.slots[index].pid.load(Ordering::Acquire);
        let known = state.pids.iter().enumerate().filter_map(|(index, pid)| {
            let pid = pid.unwrap_or_else(|| announced(index));
            (pid != 0).then_some((index, pid))
        });
        known
            .map(|(index, pid)| {
                let slot = &core.control.slots[index];
                WorkerInfo {
                    index,
                    pid,
                    incarnation: slot.incarnation.load(Ordering::Relaxed),
                    elements: slot.elements.load(Ordering::Relaxed),
                    busy: Duration::from_nanos(slot.busy.load(Ordering::Relaxed)),
                }
            })
            .collect()
    }

    /// Where the pool's inputs and outputs lie.
    pub fn memory(&self) -> &Memory {
        &self.core().memory
    }

    /// The callbacks of the pool's jobs.
    pub fn callbacks(&self) -> Callbacks {
        self.core().state.sides.callbacks.clone()
    }

    /// Has the supervisor's thread panic, as a fault of ours would.
    #[cfg(feature = "chaos")]
    #[doc(hidden)]
    pub fn panic_supervisor(&self) {
        self.core().supervisor_panics.store(true, Ordering::Relaxed);
        self.core().event.raise();
    }
}

impl Owner {
    fn terminate(&self) {
        if process::fork_generation() != self.core.forks {
            return; // The workers are another process's.
        }
        let mut state = self.core.state.lock();
        if !state.phase.is_stopping() {
            state.phase = PoolPhase::Terminated;
        }
        self.core.event.raise();
        while !state.finished {
            state.wait(&self.core.changed, LOOK_AROUND);
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.terminate();
    }
}

/// Room for the descriptors of so many workers: a line and a handle for each.
fn make_room(workers: usize) -> Result<(), EngineError> {
    descriptors::make_room_for(2 * workers as u64 + DESCRIPTORS).map_err(|short| {
        EngineError::TooFewDescriptors {
            workers,
            needed: short.needed,
            limit: short.limit,
        }
    })
}

fn limits(config: &EngineConfig) -> Limits {
    Limits {
        patience: Patience {
            initializer: config.initializer_timeout,
            exit: config.exit_timeout.unwrap_or(EXIT_TIMEOUT),
        },
        restarts: config.restarts.unwrap_or(RESTARTS),
        max_memory: config.max_memory,
        start: config.start_patience.unwrap_or(START_PATIENCE.1),
    }
}

fn plan_words(config: &EngineConfig, processes: usize, share: usize) -> PlanWords {
    PlanWords {
        setup: config
            .setup
            .as_ref()
            .map_or([0; 2], |(task, ..)| [task.0.object, task.0.offset]),
        exit_hook: config
            .exit_hook
            .map_or([0; 2], |task| [task.0.object, task.0.offset]),
        max_tasks: config.max_tasks_per_child.unwrap_or(0),
        processes: processes as u64,
        share: share as u64,
        pin: u64::from(config.pin),
        max_memory: config.max_memory.unwrap_or(0),
        max_growth: config.max_growth.unwrap_or(0),
        chaos: 0,
    }
}

fn check_running(phase: &PoolPhase) -> Result<(), EngineError> {
    match phase {
        PoolPhase::Running => Ok(()),
        PoolPhase::Closed => Err(EngineError::Closed),
        PoolPhase::Terminated => Err(EngineError::Terminated),
        PoolPhase::Broken(text) => Err(EngineError::Broken(text.clone())),
    }
}

/// Decides the chunks, and lays parameters and status words out in one block.
pub(crate) fn prepare(core: &Core, job: Job, processes: usize) -> Result<JobState, EngineError> {
    let chunk_len = chunk_len(&job, processes as u64)?;
    let chunks = job.positions.div_ceil(chunk_len);
    if chunks > u64::from(u32::MAX - 1) {
        return Err(EngineError::TooManyChunks {
            chunks,
            max: u64::from(u32::MAX - 1),
        });
    }
    let heap = match job.heap_hint {
        0 => None,
        bytes => Some(Arc::new(core.memory.alloc(bytes.next_multiple_of(64), 64)?)),
    };
    let flag = |on: bool, flag: u64| if on { flag } else { 0 };
    let nanoseconds =
        |time: Option<Duration>| time.map_or(0, |t| (t.as_nanos().min(u64::MAX.into()) as u64).max(1));
    let mut terms = JobTerms {
        task_object: job.task.0.object,
        task_offset: job.task.0.offset,
        positions: job.positions,
        chunk_len,
        chunks,
        flags: flag(job.traits.pinned, JobTerms::PINNED)
            | flag(job.in_place.is_some(), JobTerms::IN_PLACE)
            | flag(job.traits.whole_chunks, JobTerms::WHOLE_CHUNKS)
            // With retries it is the last round whose failures stop the job.
            | flag(job.traits.fail_fast, JobTerms::FAIL_FAST)
            | flag(job.traits.attended || job.on_done.is_some(), JobTerms::ATTENDED)
            | flag(job.durable.is_some(), JobTerms::DURABLE),
        seed: job.seed,
        base: job.base,
        heap_offset: heap.as_ref().map_or(0, |block| block.offset() as u64),
        heap_len: heap.as_ref().map_or(0, |block| block.len() as u64),
        params_len: job.params.len() as u64,
        attempt: 1,
        serial: serial(),
        element_ns: nanoseconds(job.element_timeout),
        deadline_ns: job.timeout.map_or(0, |time| {
            process::monotonic_ns().saturating_add(nanoseconds(Some(time)))
        }),
        ..JobTerms::default()
    };
    let last = job.retries.more == 0;
    let words = if job.durable.is_some() { 0 } else { chunks as usize };
    let board = core.boards.take(&core.memory, &job.params, words)?;
    let round = Round::first(&mut terms, board.clone(), job.durable.as_ref(), last)?;
    let (most, part) = TEXTS;
    let texts = most.min(core.memory.segment().len() as u64 / part);
    Ok(JobState::new(job, terms, round, board, heap, texts)?)
}

/// A number that no other job has, and that memory which was used for something else hardly holds.
fn serial() -> u64 {
    static JOBS: AtomicU64 = AtomicU64::new(1);
    let job = JOBS.fetch_add(1, Ordering::Relaxed);
    job.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Chunks a worker should find under automatic chunking: enough that the last ones even out.
const CHUNKS_A_WORKER: u64 = 256;

/// Boards for jobs that are cut automatically.
pub(crate) fn boards(slots: usize) -> Boards {
    Boards::new(CHUNKS_A_WORKER as usize * slots, slots)
}

fn chunk_len(job: &Job, processes: u64) -> Result<u64, EngineError> {
    if job.traits.pinned {
        return Ok(1);
    }
    let wanted = match job.chunking {
        Chunking::Size(0) => return Err(EngineError::ZeroChunk),
        Chunking::Size(n) if n > MAX_CHUNK_LEN && job.positions > MAX_CHUNK_LEN => {
            return Err(EngineError::ChunkTooLong {
                asked: n,
                max: MAX_CHUNK_LEN,
            });
        }
        Chunking::Size(n) => return Ok(n.min(MAX_CHUNK_LEN)),
        Chunking::Pool => return Ok(job.positions.div_ceil(4 * processes).clamp(1, MAX_CHUNK_LEN)),
        Chunking::Auto if job.traits.whole_chunks => job.positions.div_ceil(16 * processes),
        Chunking::Auto => job.positions.div_ceil(CHUNKS_A_WORKER * processes),
    };
    let align = job.chunk_align.max(1);
    let aligned = if wanted > align {
        wanted.next_multiple_of(align)
    } else {
        wanted
    };
    Ok(aligned.clamp(1, MAX_CHUNK_LEN))
}

/// A job that was submitted. A cheap clone; the job goes on when all are dropped.
#[derive(Clone)]
pub struct JobHandle {
    core: Arc<Core>,
    job: Arc<JobState>,
}

impl fmt::Debug for JobHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobHandle")
            .field("over", &self.is_over())
            .finish_non_exhaustive()
    }
}

/// How long a waiter watches the gate before it sleeps: about what two wakes take, the worker's and its own, which it
/// spares itself so. It stops at once when the workers need its core.
const WATCH: Duration = Duration::from_micros(100);
/// The longest sleep without a look around.
const NAP: Duration = Duration::from_millis(100);
/// The longest sleep of a caller who has just woken workers for what nobody had begun.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

impl JobHandle {
    /// Whether this process may do something with the job but look at its outcome.
    ///
    /// # Errors
    /// If the process was forked from the one that submitted it: its parent's locks and threads are not here.
    pub fn check_process(&self) -> Result<(), EngineError> {
        self.core.check_process()
    }

    /// Waits until the job is over, or the time is. Gives whether it is over. In a forked child it does not wait.
    pub fn wait(&self, timeout: Option<Duration>) -> bool {
        let start = timeout.map(|_| Instant::now());
        let mut watched = false;
        loop {
            if self.try_end(timeout.is_none()) {
                return true;
            }
            if self.check_process().is_err() {
                return false;
            }
            let left = match timeout.zip(start) {
                Some((timeout, start)) => match timeout.checked_sub(start.elapsed()) {
                    Some(left) if !left.is_zero() => left.min(NAP),
                    _ => return false,
                },
                None => NAP,
            };
            if watched {
                self.sleep(left, timeout.is_none());
            } else {
                self.watch();
                watched = true;
            }
        }
    }

    /// Whether the job is over.
    pub fn is_over(&self) -> bool {
        self.job.is_over()
    }

    /// How it ended, once it is over.
    pub fn outcome(&self) -> Option<Arc<Outcome>> {
        self.job.outcome().cloned()
    }

    /// Where its time went, once it is over.
    pub fn report(&self) -> Option<Report> {
        self.job.outcome().map(|outcome| outcome.report.clone())
    }

    /// Stops the job: what is not started is not run. What is running may finish its element within `grace`; then its
    /// worker is killed and replaced.
    ///
    /// In a forked child it does nothing.
    pub fn cancel(&self, grace: Duration) {
        if self.check_process().is_err() {
            return;
        }
        let mut state = self.core.state.lock();
        state.stop(&self.core, &self.job, End::Cancelled, grace);
    }

    /// Positions that are settled so far, and how many of them failed. Cheap for the workers: read from their memory. Of a
    /// job that was not over when this process was forked, none are known.
    pub fn progress(&self) -> (u64, u64) {
        if let Some(outcome) = self.job.outcome() {
            let done = outcome.finals.iter().map(|range| range.end - range.start).sum();
            return (done, outcome.failures.iter().map(|failure| failure.span).sum());
        }
        if self.check_process().is_err() {
            return (0, 0);
        }
        let failed = self
            .job
            .key()
            .and_then(|key| self.core.control.job(key))
            .map_or(0, |cell| cell.failed.load(Ordering::Relaxed));
        self.job.progress(failed)
    }

    /// Has this waker called, once, when the job is over. The job must be attended.
    pub fn register_waker(&self, waker: &Waker) {
        // Cloned and dropped with no lock held: a waker is a user's.
        let mut mine = Some(waker.clone());
        {
            let mut inner = self.job.inner.lock();
            if !self.job.is_over() {
                if !inner.wakers.iter().any(|known| known.will_wake(waker)) {
                    inner.wakers.extend(mine.take());
                }
                return;
            }
        }
        mine.into_iter().for_each(Waker::wake);
    }

    /// Has the arrival of this job noted when it is over. The job must be attended.
    pub fn register_arrival(&self, arrival: &Arc<Arrival>) {
        let mut inner = self.job.inner.lock();
        match self.job.is_over() {
            true => arrival.ring(),
            false => inner.arrivals.push(arrival.clone()),
        }
    }

    /// Ends the job here if its workers have finished with it; if `reads`, also if it has brought much that must be read
    /// for that.
    fn try_end(&self, reads: bool) -> bool {
        if self.job.is_over() {
            return true;
        }
        let ready = self
            .job
            .key()
            .and_then(|key| self.core.control.job(key))
            .is_some_and(|cell| !matches!(cell.gate.state().phase, JobPhase::Open | JobPhase::Closed));
        if !ready || self.check_process().is_err() {
            return false;
        }
        let state = &self.core.state;
        match reads {
            true => state.lock_for(&self.job).finalize(&self.core, &self.job) || self.core.read(&self.job),
            false => state.lock().finalize(&self.core, &self.job),
        }
    }

    fn watch(&self) {
        let Some(cell) = self.job.key().and_then(|key| self.core.control.job(key)) else {
            return;
        };
        let a_core_is_mine = self.core.control.header.lookouts.load(Ordering::Relaxed) > 0;
        let watch = |looks: usize| {
            (0..looks).any(|_| {
                std::hint::spin_loop();
                cell.gate.state().phase != JobPhase::Open
            })
        };
        // The clock costs more than some looks at the gate: first a shortest job's time without it.
        if a_core_is_mine && watch(64) {
            return;
        }
        if self.job.watched {
            // Those that were awake may have fallen asleep, or be busy.
            self.core.control.words().wake_for_runs(&System);
        }
        if a_core_is_mine {
            let start = Instant::now();
            while self.core.control.words().spares_a_core() && !watch(64) && start.elapsed() < WATCH {}
        }
    }

    fn sleep(&self, patience: Duration, reads: bool) {
        let place = || {
            self.job
                .key()
                .and_then(|key| Some((key, self.core.control.job(key)?)))
        };
        let Some((key, cell)) = place() else {
            let mut inner = self.job.inner.lock();
            if self.job.key().is_none() && !self.job.is_over() {
                self.job.signal.wait_for(&mut inner, patience);
            }
            return;
        };
        let waited = cell.bell.prepare();
        if self.try_end(reads) {
            return;
        }
        let woke =
            !self.job.terms.has(JobTerms::PINNED) && self.core.control.words().wake_for_rest(&System, key);
        // Those that were woken may have looked just when a thief had its loot in hand.
        let patience = if woke { patience.min(LOOK_AGAIN) } else { patience };
        if naps::sleep(cell.bell.word(), waited, patience) && patience == NAP {
            look_around::of_caller(&self.core, &self.job, key, waited);
        }
    }
}
