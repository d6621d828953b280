//! How a pool is made.

use std::{any::Any, fmt, marker::PhantomData, path::PathBuf, time::Duration};

use swathe_memory::Memory;
use swathe_runtime::{Engine, EngineConfig, TaskRef};

use crate::{
    Error, Pool, Result,
    cross::{
        item::Lowered,
        over::{Fallible, Once, SetupTask},
    },
    lower,
};

type Setup = (TaskRef, Vec<u8>, Box<dyn Any + Send + Sync>);

/// Options of a pool; made by [`Pool::builder`].
///
/// ```
/// use swathe::Pool;
///
/// fn greet(main_id: u32) {
///     println!("pool process {} works for main process {main_id}", std::process::id());
/// }
///
/// fn main() -> swathe::Result<()> {
///     swathe::init();
///     let pool = Pool::builder()
///         .processes(2)
///         .initializer(greet, std::process::id())
///         .max_tasks_per_child(50)
///         .build()?;
///     assert_eq!(pool.map(|x: i32| x + 1, [1, 2, 3])?, [2, 3, 4]);
///     Ok(())
/// }
/// ```
#[must_use = "a builder does nothing until `build` is called"]
pub struct Builder<S = ()> {
    config: EngineConfig,
    setup: Result<Option<Setup>>,
    exit_hook: Result<Option<TaskRef>>,
    state: PhantomData<fn(S)>,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self {
            config: EngineConfig::default(),
            setup: Ok(None),
            exit_hook: Ok(None),
            state: PhantomData,
        }
    }
}

impl<S: 'static> Builder<S> {
    /// How many worker processes, at least 1. Unless set, one for each core that this process may use: see
    /// [`cores`](crate::cores()), and the environment variable `SWATHE_CORES` that bounds them.
    pub fn processes(mut self, processes: usize) -> Self {
        self.config.processes = Some(processes);
        self
    }

    /// Replaces a worker by a fresh process after this many elements, at least 1: for tasks that leak.
    pub fn max_tasks_per_child(mut self, elements: u64) -> Self {
        self.config.max_tasks_per_child = Some(elements);
        self
    }

    /// Private memory (heap, stacks) that a worker may have, bytes; arrays in shared memory do not count. An allocation
    /// beyond that fails, which ends most programs: the worker dies, and that is recovered and reported as any death. It
    /// is the kernel's limit on data (RLIMIT_DATA), and so counts memory that is reserved and not touched.
    pub fn max_memory_per_child(mut self, bytes: u64) -> Self {
        self.config.max_memory = Some(bytes);
        self
    }

    /// Replaces a worker by a fresh process when its private memory has grown by this many bytes since its initializer:
    /// for tasks that leak. It is looked at between strips, every 10 ms at most.
    pub fn max_growth_per_child(mut self, bytes: u64) -> Self {
        self.config.max_growth = Some(bytes);
        self
    }

    /// How long an initializer may take. A worker whose initializer takes longer is killed and started again; after the
    /// third time in a row the pool is broken. Unless set, as long as it likes.
    pub fn initializer_timeout(mut self, limit: Duration) -> Self {
        self.config.initializer_timeout = Some(limit);
        self
    }

    /// How long a worker that leaves may take, its exit hook included; 30 s unless set. Then it is killed. When the jobs of a
    /// closed pool are over, all of its workers are to leave, whatever they do.
    pub fn exit_timeout(mut self, limit: Duration) -> Self {
        self.config.exit_timeout = Some(limit);
        self
    }

    /// How long there may be no worker because none can be started, for want of processes, descriptors or memory; 30 s unless
    /// set. While others work a shortage is waited for as long as it takes. A pool that is built waits 1 s unless set.
    pub fn start_patience(mut self, patience: Duration) -> Self {
        self.config.start_patience = Some(patience);
        self
    }

    /// The program that workers are started from, if it cannot be this one: where this program was started by a loader, an
    /// emulator or an interpreter. Its first act must be [`init`](crate::init), and it must have loaded the same library
    /// that holds Swathe's code here. The environment variable `SWATHE_WORKER` does the same for every pool of a program.
    pub fn worker_executable(mut self, path: impl Into<PathBuf>) -> Self {
        self.config.worker_executable = Some(path.into());
        self
    }

    /// How many workers may die (be killed, crash, exit) within which time; 1000 in a minute unless set. One more, and the
    /// pool is broken: its jobs end with the results that they have, and with the cause of the last death. Workers that
    /// are recycled, or that the pool itself kills, do not count.
    pub fn restart_budget(mut self, deaths: u32, within: Duration) -> Self {
        self.config.restarts = Some((deaths, within));
        self
    }

    /// Has things go wrong in this pool, for tests of what its tasks make of that: see [`Chaos`](crate::chaos::Chaos).
    #[cfg(feature = "chaos")]
    pub fn chaos(mut self, chaos: crate::chaos::Chaos) -> Self {
        self.config.chaos = chaos;
        self
    }

    /// Pins worker `w` to the `w`-th core that this process may use.
    pub fn pin(mut self, pin: bool) -> Self {
        self.config.pin = pin;
        self
    }

    /// Where inputs are copied to and results are written to. Unless set, [`Memory::global`].
    pub fn memory(mut self, memory: Memory) -> Self {
        self.config.memory = Some(memory);
        self
    }

    /// Runs a function with these arguments (one value, or a tuple) in every worker before its first task, also in
    /// those that replace others. What it returns is dropped; to keep it, use [`state`](Self::state), whose place it
    /// takes.
    pub fn initializer<F: SetupTask<Once<A>, X>, A, X>(self, initializer: F, arguments: A) -> Builder {
        let task = lower::initializer_task(initializer);
        self.set_up(task, |memory| F::lower(Once(arguments), memory))
    }

    /// As [`initializer`](Self::initializer), for a function that may fail: see [`try_state`](Self::try_state).
    pub fn try_initializer<F: SetupTask<Fallible<Once<A>>, X>, A, X>(
        self,
        initializer: F,
        arguments: A,
    ) -> Builder {
        let task = lower::initializer_task(initializer);
        self.set_up(task, |memory| F::lower(Fallible(Once(arguments)), memory))
    }

    /// Builds the state of every worker, also of those that replace others: `build` is called with these arguments (one
    /// value, or a tuple) in the worker, and tasks that take a `&mut S` first see what it returned. It takes the place
    /// of an [`initializer`](Self::initializer).
    ///
    /// The state stays in its worker: it may hold whatever cannot cross between processes.
    ///
    /// ```
    /// use swathe::{Array, Pool};
    ///
    /// struct Table {
    ///     values: Array<f64>,
    ///     lookups: u64,
    /// }
    ///
    /// fn load(values: Array<f64>) -> Table {
    ///     Table { values, lookups: 0 }
    /// }
    ///
    /// fn look_up(table: &mut Table, i: usize) -> f64 {
    ///     table.lookups += 1;
    ///     table.values[i]
    /// }
    ///
    /// fn main() -> swathe::Result<()> {
    ///     swathe::init();
    ///     let values = Array::from_fn(100, |i| i as f64 / 2.0)?;
    ///     let pool = Pool::builder().processes(2).state(load, values).build()?;
    ///     assert_eq!(pool.map(look_up, [3, 5, 99])?, [1.5, 2.5, 49.5]);
    ///     Ok(())
    /// }
    /// ```
    pub fn state<F: SetupTask<Once<A>, X>, A, X>(self, build: F, arguments: A) -> Builder<F::State> {
        let task = lower::setup_task(build);
        self.set_up(task, |memory| F::lower(Once(arguments), memory))
    }

    /// As [`state`](Self::state), for a function that may fail: a worker whose state cannot be built is started again
    /// within a limit, and then the pool breaks with the function's error.
    pub fn try_state<F: SetupTask<Fallible<Once<A>>, X>, A, X>(
        self,
        build: F,
        arguments: A,
    ) -> Builder<F::State> {
        let task = lower::setup_task(build);
        self.set_up(task, |memory| F::lower(Fallible(Once(arguments)), memory))
    }

    /// Runs a function with the worker's state when a worker leaves of its own accord: when it is replaced, when the
    /// pool shrinks, or when a closed pool has finished. It does not run in workers that die or are killed. Set it after
    /// the state: another state or initializer removes it.
    pub fn exit_hook<F: Fn(&mut S) + Copy + Send + Sync + 'static>(mut self, hook: F) -> Self {
        self.exit_hook = lower::exit_task(hook).map(Some);
        self
    }

    /// Starts the processes.
    ///
    /// # Errors
    /// If the program did not call [`init`](crate::init), the options make no sense, or no processes or memory are to
    /// be had.
    pub fn build(self) -> Result<Pool<S>> {
        if self.config.max_tasks_per_child == Some(0) {
            return Err(Error::ZeroTasks);
        }
        let config = EngineConfig {
            setup: self.setup?,
            exit_hook: self.exit_hook?,
            ..self.config
        };
        Ok(Pool::of_engine(Engine::start(config)?))
    }

    /// The same pool with workers whose state is of type `T`.
    fn set_up<T>(self, task: Result<TaskRef>, lower: impl FnOnce(&Memory) -> Result<Lowered>) -> Builder<T> {
        let setup = || -> Result<Option<Setup>> {
            let task = task?;
            let memory = match &self.config.memory {
                Some(memory) => memory.clone(),
                None => Memory::global()?,
            };
            let lowered = lower(&memory)?;
            Ok(Some((task, lowered.wire.into_bytes(), Box::new(lowered.keep))))
        };
        // A hook for another state would never find it.
        Builder {
            setup: setup(),
            config: self.config,
            exit_hook: Ok(None),
            state: PhantomData,
        }
    }
}

impl<S> fmt::Debug for Builder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
