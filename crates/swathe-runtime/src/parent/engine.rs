//! The engine as its front ends see it: start, submit, wait, close, end.

use std::{
    any::Any,
    fmt,
    path::PathBuf,
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use parking_lot::Condvar;
use swathe_memory::Memory;
use swathe_os::{
    cores, descriptors,
    process::{self, Event},
    surroundings::Surroundings,
};
use swathe_protocol::JobTerms;

use crate::{
    error::EngineError,
    fault::Chaos,
    job::{End, Job, task::TaskRef},
    parent::{
        core::{Core, PoolPhase, StateLock},
        courier,
        handle::JobHandle,
        jobs::State,
        prepare::{self, prepare},
        user_code::Callbacks,
    },
    shared::{
        bytes,
        control::{Control, JOBS, MAX_PROCESSES},
        plan::PlanWords,
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
#[non_exhaustive]
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
        zygote::check_initialized()?;
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
            stock: prepare::stock(slots),
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
