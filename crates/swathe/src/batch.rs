//! One call, with its options.

use std::{
    any::Any,
    fmt,
    marker::PhantomData,
    sync::Arc,
    time::{Duration, Instant},
};

use bytemuck::Pod;
use rkyv::util::AlignedVec;
use swathe_memory::{Memory, lease};
use swathe_runtime::{
    Chunking, Durable, End, Engine, Job, JobHandle, JobTraits, Outcome, Region, Retries, TaskRef,
    user_code::{Kept, contain},
};

use crate::{
    Error, Partial, Result,
    column::Columns,
    datum::{Collection, Datum},
    durable::{InMemory, Keeper},
    error::JobError,
    handle::{Conclude, Pending},
    item::{Keep, Lowered},
    lower::{self, Finish, Output, wire::Encoder},
    parameters::{Parameters, With, Without},
    task::Task,
};

/// How the positions of a job are grouped into chunks, the unit that workers take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChunkSize {
    /// Fine enough to balance; workers take many chunks at a time while elements are short.
    #[default]
    Auto,
    /// As Python's `multiprocessing.Pool` does: the input's length divided by four times the number of workers,
    /// rounded up.
    Pool,
    /// This many elements a chunk, at least 1.
    Fixed(usize),
}

impl From<usize> for ChunkSize {
    fn from(elements: usize) -> Self {
        Self::Fixed(elements)
    }
}

/// What a call gives when positions fail: [`Strict`] or [`Collect`].
pub trait Mode: 'static {
    /// What a call that returns `O` gives.
    type Of<O: Collection>: Send + Sync + 'static;
    /// What `on_success` is shown of it.
    type Shown<O: Collection>: ?Sized;

    #[doc(hidden)]
    fn conclude<O: Collection>(outcome: &Arc<Outcome>, values: O) -> Result<Self::Of<O>>;
    #[doc(hidden)]
    fn show<O: Collection>(of: &Self::Of<O>) -> &Self::Shown<O>;
}

/// All values, or an error.
#[derive(Debug)]
pub enum Strict {}

/// The values there are, and why the others are missing; see [`Batch::collect_errors`].
#[derive(Debug)]
pub enum Collect {}

impl Mode for Strict {
    type Of<O: Collection> = O;
    type Shown<O: Collection> = O::Shown;

    fn conclude<O: Collection>(outcome: &Arc<Outcome>, values: O) -> Result<O> {
        if outcome.end == End::Complete && outcome.failures.is_empty() {
            Ok(values)
        } else {
            Err(JobError::new(outcome, Some(Box::new(values))).into())
        }
    }

    fn show<O: Collection>(of: &O) -> &O::Shown {
        of.shown()
    }
}

impl Mode for Collect {
    type Of<O: Collection> = Partial<O>;
    type Shown<O: Collection> = Partial<O>;

    fn conclude<O: Collection>(outcome: &Arc<Outcome>, values: O) -> Result<Partial<O>> {
        Ok(Partial::new(outcome.clone(), values))
    }

    fn show<O: Collection>(of: &Partial<O>) -> &Partial<O> {
        of
    }
}

/// Who wants to see the result `T`: [`Silent`] or a [`Callback`].
pub trait OnSuccess<T: ?Sized>: Send + 'static {
    /// Whether there is somebody to tell.
    #[doc(hidden)]
    const TELLS: bool = true;

    #[doc(hidden)]
    fn call(self, result: &T);
}

/// Nobody is told.
#[derive(Debug)]
pub struct Silent;

/// A function is called with the result; see [`Batch::on_success`].
pub struct Callback<T: ?Sized, F>(F, PhantomData<fn(&T)>);

impl<T: ?Sized> OnSuccess<T> for Silent {
    const TELLS: bool = false;

    fn call(self, _: &T) {}
}

impl<T: ?Sized + 'static, F: FnOnce(&T) + Send + 'static> OnSuccess<T> for Callback<T, F> {
    fn call(self, result: &T) {
        (self.0)(result);
    }
}

impl<T: ?Sized, F> fmt::Debug for Callback<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Callback")
    }
}

/// What a job is asked for besides its task.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) chunking: Chunking,
    pub(crate) fail_fast: bool,
    pub(crate) seed: u64,
    /// `None`: unless the retries ask for more, [`MAX_DEATHS`].
    pub(crate) max_deaths: Option<u32>,
    pub(crate) retries: Retries,
    /// How long an element may take.
    pub(crate) timeout: Option<Duration>,
    /// When the job must be over.
    pub(crate) deadline: Option<Instant>,
}

/// After how many deaths an element is given up, unless the batch says otherwise.
const MAX_DEATHS: u32 = 3;
/// How long failed elements wait for their first retry, unless the batch says otherwise.
const BACKOFF: Duration = Duration::from_millis(10);
/// The longest that they wait.
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);

impl Default for Options {
    fn default() -> Self {
        Self {
            chunking: Chunking::Auto,
            fail_fast: false,
            seed: 0,
            max_deaths: None,
            retries: Retries {
                more: 0,
                backoff: BACKOFF,
                longest: LONGEST_BACKOFF,
            },
            timeout: None,
            deadline: None,
        }
    }
}

/// Runs when a job is over.
type OnDone = Box<dyn FnOnce(&Arc<Outcome>) + Send>;
/// The values of a task that returns `R`.
type Given<N, R, K> = <<N as Finish<R>>::Value as Datum<K>>::Output;
/// A map of such a task.
type ReadyMap<'p, E, N, R, K, C> = Ready<'p, <E as Mode>::Of<Given<N, R, K>>, C>;
/// A batch that got its parameters.
type Parametrised<'p, S, P, K, E, C, O> = Batch<'p, S, With<P, K>, E, C, O>;
pub(crate) type OnError = Box<dyn FnOnce(&Error) + Send>;

/// The parameters of a call, ready to cross.
#[derive(Default)]
pub(crate) struct Encoded {
    pub(crate) bytes: Vec<u8>,
    pub(crate) keep: Keep,
    /// Whether they hold arrays.
    pub(crate) lends: bool,
}

/// One call of a pool with its options; made by [`Pool::batch`](crate::Pool::batch). It has the verbs of
/// [`Pool`](crate::Pool).
///
/// The type parameters are inferred: `S` is the workers' state, `W` the parameters, `E` says what happens to failures,
/// `C` is the callback, `O` where the results lie.
///
/// ```
/// use swathe::Pool;
///
/// fn main() -> swathe::Result<()> {
///     swathe::init();
///     let pool = Pool::builder().processes(2).build()?;
///     let pending = pool
///         .batch()
///         .chunk_size(2)
///         .on_success(|squares: &[i64]| println!("Received result as: {squares:?}"))
///         .on_error(|error| eprintln!("Error: {error}"))
///         .map_async(|x: i64| x * x, 1..=10)?;
///     pool.close();
///     pool.join()?;
///     assert_eq!(pending.get()?[9], 100);
///     Ok(())
/// }
/// ```
#[must_use = "a batch does nothing until one of its verbs is called"]
pub struct Batch<'p, S = (), W = Without, E = Strict, C = Silent, O = InMemory> {
    pub(crate) engine: &'p Engine,
    pub(crate) options: Options,
    pub(crate) parameters: Encoded,
    pub(crate) on_success: C,
    pub(crate) on_error: Option<OnError>,
    pub(crate) output: O,
    pub(crate) types: PhantomData<fn(S, W, E)>,
}

impl<S, W, E, C, O> fmt::Debug for Batch<'_, S, W, E, C, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl<'p, S> Batch<'p, S> {
    pub(crate) fn new(engine: &'p Engine) -> Self {
        Self {
            engine,
            options: Options::default(),
            parameters: Encoded::default(),
            on_success: Silent,
            on_error: None,
            output: InMemory,
            types: PhantomData,
        }
    }
}

/// Options.
impl<'p, S, W, E, C, O> Batch<'p, S, W, E, C, O> {
    /// How many elements a worker takes at a time: a number of at least 1, or a [`ChunkSize`].
    pub fn chunk_size(mut self, size: impl Into<ChunkSize>) -> Self {
        self.options.chunking = match size.into() {
            ChunkSize::Auto => Chunking::Auto,
            ChunkSize::Pool => Chunking::Pool,
            ChunkSize::Fixed(elements) => Chunking::Size(elements as u64),
        };
        self
    }

    /// Ends the job at its first failure: what has not been started is not run.
    pub fn fail_fast(mut self) -> Self {
        self.options.fail_fast = true;
        self
    }

    /// Seed of [`Context::rng`](crate::Context::rng); 0 unless set.
    pub fn seed(mut self, seed: u64) -> Self {
        self.options.seed = seed;
        self
    }

    /// After how many deaths of a worker at one and the same element the element is given up as
    /// [`Lost`](crate::Status::Lost): at least 1. Unless set it is 3, or one more than the [`retries`](Self::retries) if
    /// that is more: a worker may die of something else than its element.
    pub fn max_deaths(mut self, deaths: u32) -> Self {
        self.options.max_deaths = Some(deaths.max(1));
        self
    }

    /// Tries elements again that returned an error, panicked or timed out, up to `n` times each; 0 unless set. They are
    /// tried again together, after all others had their turn and a pause: see [`backoff`](Self::backoff). With
    /// [`fail_fast`](Self::fail_fast) it is a failure of the last try that ends the job.
    ///
    /// ```
    /// use swathe::{Context, Pool};
    ///
    /// fn flaky(context: &Context, x: u32) -> Result<u32, String> {
    ///     if x == 3 && context.attempt() < 3 { Err("not yet".into()) } else { Ok(x * x) }
    /// }
    ///
    /// fn main() -> swathe::Result<()> {
    ///     swathe::init();
    ///     let pool = Pool::builder().processes(2).build()?;
    ///     assert_eq!(pool.batch().retries(2).try_map(flaky, 0..5)?, [0, 1, 4, 9, 16]);
    ///     Ok(())
    /// }
    /// ```
    pub fn retries(mut self, n: u32) -> Self {
        self.options.retries.more = n;
        self
    }

    /// How long failed elements wait before they are tried again: `first` before the first retry, twice as long before
    /// each further one, `longest` at most. 10 ms and 10 s unless set. No worker waits with them.
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        (self.options.retries.backoff, self.options.retries.longest) = (first, longest);
        self
    }

    /// How long one call of the task may take. When that is over its worker is killed and replaced, the element gets
    /// [`TimedOut`](crate::Status::TimedOut), and the rest of its chunk is done by another worker. A task that takes many
    /// elements at once (`map_chunks`, `map_reduce`) has this time for each chunk or block.
    ///
    /// The task can ask how much time is left ([`Context::time_left`](crate::Context::time_left)), and return an error
    /// before. An element costs about 50 ns more under a timeout, because each is timed; short elements are better kept
    /// in bounds by [`deadline`](Self::deadline).
    pub fn timeout(mut self, each: Duration) -> Self {
        self.options.timeout = Some(each);
        self
    }

    /// How long the whole call may take, retries included, counted from here. Then the job ends, what is still running
    /// is killed, and what has no value gets [`TimedOut`](crate::Status::TimedOut). Results that are there stay.
    pub fn deadline(mut self, within: Duration) -> Self {
        self.options.deadline = Instant::now().checked_add(within);
        self
    }

    /// Has a function called once with the error, if the job fails.
    ///
    /// The callbacks of asynchronous calls run one at a time on a thread of the pool's own, those of other calls on the
    /// caller's. If one panics, the panic is reported and harms nothing else.
    pub fn on_error(mut self, callback: impl FnOnce(&Error) + Send + 'static) -> Self {
        self.on_error = Some(Box::new(callback));
        self
    }

    /// Has a function called once with the result, if the job succeeds: `&[B]` for plain results, `&`[`Records`]`<B>`
    /// for others, `&B` for `apply`. An empty input succeeds too. See [`on_error`](Self::on_error) for where it runs.
    ///
    /// [`Records`]: crate::Records
    pub fn on_success<T: ?Sized + 'static, F: FnOnce(&T) + Send + 'static>(
        self,
        callback: F,
    ) -> Batch<'p, S, W, E, Callback<T, F>, O> {
        let Self {
            engine,
            options,
            parameters,
            on_error,
            output,
            ..
        } = self;
        let on_success = Callback(callback, PhantomData);
        Batch {
            engine,
            options,
            parameters,
            on_success,
            on_error,
            output,
            types: PhantomData,
        }
    }

    /// Makes the verbs return what there is, a [`Partial`], instead of failing when elements fail.
    pub fn collect_errors(self) -> Batch<'p, S, W, Collect, C, O> {
        let Self {
            engine,
            options,
            parameters,
            on_success,
            on_error,
            output,
            ..
        } = self;
        Batch {
            engine,
            options,
            parameters,
            on_success,
            on_error,
            output,
            types: PhantomData,
        }
    }

    /// Gives every task of this call a reference to the same parameters. They cross once a worker, however many
    /// elements there are.
    ///
    /// ```
    /// use swathe::Pool;
    ///
    /// fn main() -> swathe::Result<()> {
    ///     swathe::init();
    ///     let pool = Pool::builder().processes(2).build()?;
    ///     let slope_and_offset = (2.0, 1.0);
    ///     let line = |p: &(f64, f64), x: f64| p.0 * x + p.1;
    ///     assert_eq!(pool.batch().with(&slope_and_offset)?.map(line, [0.0, 1.0, 2.0])?, [1.0, 3.0, 5.0]);
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// If they cannot be encoded.
    pub fn with<P: Datum<K>, K: 'static>(self, parameters: &P) -> Result<Parametrised<'p, S, P, K, E, C, O>> {
        let mut bytes = AlignedVec::new();
        let lent = lease::lent();
        let encoded = parameters.encode(&mut bytes);
        encoded.map_err(|message| Error::Parameters { message })?;
        let lends = lease::lent() != lent;
        // Decoded here as well: arrays in them stay in place for as long as this handle of them. What cannot be decoded is
        // refused here, and not in every worker.
        let handle = P::decode(&bytes).map_err(|message| Error::Parameters { message })?;
        let handle = Kept::new(vec![handle]);
        let mut keep: Keep = Vec::new();
        if lends {
            keep.push(Box::new(handle));
        }
        let Self {
            engine,
            options,
            on_success,
            on_error,
            output,
            ..
        } = self;
        let parameters = Encoded {
            bytes: bytes.to_vec(),
            keep,
            lends,
        };
        Ok(Batch {
            engine,
            options,
            parameters,
            on_success,
            on_error,
            output,
            types: PhantomData,
        })
    }
}

impl<'p, S, W, E, C> Batch<'p, S, W, E, C> {
    /// The same call, with its results elsewhere.
    pub(crate) fn with_output<O>(self, output: O) -> Batch<'p, S, W, E, C, O> {
        let Self {
            engine,
            options,
            parameters,
            on_success,
            on_error,
            ..
        } = self;
        Batch {
            engine,
            options,
            parameters,
            on_success,
            on_error,
            output,
            types: PhantomData,
        }
    }
}

/// The part of a job that lies in a file.
pub(crate) struct Begun {
    pub(crate) durable: Durable,
    /// Positions that an earlier run has done.
    pub(crate) restored: u64,
}

/// What the engine must know of a job.
pub(crate) struct Plan {
    pub(crate) task: TaskRef,
    pub(crate) positions: u64,
    pub(crate) chunk_align: u64,
    pub(crate) wire: Encoder,
    pub(crate) traits: JobTraits,
    /// The memory that the job changes in place.
    pub(crate) in_place: Option<Region>,
    /// What of it lies in a file.
    pub(crate) durable: Option<Begun>,
    pub(crate) base: u64,
    pub(crate) heap_hint: usize,
    /// Of inputs and output slab.
    pub(crate) bytes: u64,
    pub(crate) lends: bool,
    pub(crate) keep: Box<dyn Any + Send + Sync>,
}

impl Plan {
    /// A job of one call a position, with a slab of its own: the job and its slab.
    pub(crate) fn of_map<F, S, W, C, M, N, K>(
        task: F,
        lowered: Lowered,
        parameters: &[u8],
        memory: &Memory,
    ) -> Result<(Self, MapOutput<N::Value, K>)>
    where
        F: Task<S, W::Value, C::Args, M>,
        S: 'static,
        W: Parameters,
        C: Columns,
        N: Finish<F::Output, Value: Datum<K>>,
    {
        Self::of_map_to::<F, S, W, C, M, N, K>(task, lowered, parameters, |len, wire| {
            Output::new(memory, len, wire)
        })
    }

    /// As [`of_map`](Self::of_map), with the slab that `output` makes: it is given the number of values.
    pub(crate) fn of_map_to<F, S, W, C, M, N, K>(
        task: F,
        lowered: Lowered,
        parameters: &[u8],
        output: impl FnOnce(usize, &mut Encoder) -> Result<MapOutput<N::Value, K>>,
    ) -> Result<(Self, MapOutput<N::Value, K>)>
    where
        F: Task<S, W::Value, C::Args, M>,
        S: 'static,
        W: Parameters,
        C: Columns,
        N: Finish<F::Output, Value: Datum<K>>,
    {
        let task = lower::map_task::<F, S, W, C, M, N, K>(task)?;
        let mut wire = Encoder::default();
        wire.bytes(parameters);
        // What has been lowered was counted in memory, or checked to fit.
        let output = output(lowered.len as usize, &mut wire)?;
        wire.append(&lowered.wire);
        let hint = (lowered.len as usize)
            .saturating_mul(<N::Value as Datum<K>>::HEAP)
            .min(1 << 20);
        let plan = Self {
            task,
            positions: lowered.len,
            chunk_align: align_of_chunks::<<N::Value as Datum<K>>::Slot>(),
            wire,
            traits: JobTraits::default(),
            in_place: None,
            durable: None,
            base: 0,
            heap_hint: hint,
            bytes: lowered.bytes as u64 + lowered.len * size_of::<<N::Value as Datum<K>>::Slot>() as u64,
            lends: lowered.lends,
            keep: Box::new((lowered.keep, output.clone())),
        };
        Ok((plan, output))
    }

    pub(crate) fn submit(
        self,
        engine: &Engine,
        options: &Options,
        on_done: Option<OnDone>,
    ) -> Result<JobHandle> {
        if options.timeout == Some(Duration::ZERO) {
            return Err(Error::ZeroTimeout);
        }
        let traits = JobTraits {
            fail_fast: options.fail_fast,
            ..self.traits
        };
        Ok(engine.submit(Job {
            task: self.task,
            heap_hint: self.heap_hint,
            positions: self.positions,
            chunking: options.chunking,
            chunk_align: self.chunk_align,
            params: self.wire.into_bytes(),
            traits,
            seed: options.seed,
            base: self.base,
            max_deaths: options
                .max_deaths
                .unwrap_or(MAX_DEATHS.max(options.retries.more.saturating_add(1))),
            retries: options.retries,
            element_timeout: options.timeout,
            timeout: options
                .deadline
                .map(|at| at.saturating_duration_since(Instant::now())),
            in_place: self.in_place,
            durable: self.durable.map(|begun| begun.durable),
            bytes: self.bytes,
            lends: self.lends,
            keep: self.keep,
            on_done,
        })?)
    }

    /// Submits, and waits for the end.
    pub(crate) fn run(mut self, engine: &Engine, options: &Options) -> Result<Arc<Outcome>> {
        self.traits.watched = true;
        let job = self.submit(engine, options, None)?;
        while !job.wait(None) {}
        Ok(job.outcome().expect("a job that is over has an outcome"))
    }
}

/// The slab of a job that returns `B`s.
pub(crate) type MapOutput<B, K> = Output<<B as Datum<K>>::Slot>;

/// Positions after which a chunk of the output may end, so that no two workers write to one cache line.
pub(crate) fn align_of_chunks<T: Pod>() -> u64 {
    const LINE: usize = 64;
    match size_of::<T>() {
        0 => 1,
        size if LINE.is_multiple_of(size) => (LINE / size) as u64,
        _ => 1,
    }
}

/// A job that is ready to run, and who wants to know of its end.
pub(crate) struct Ready<'p, T, C> {
    engine: &'p Engine,
    options: Options,
    pub(crate) plan: Plan,
    conclude: Conclude<T>,
    on_success: C,
    on_error: Option<OnError>,
    finish: Option<Arc<Keeper>>,
}

impl<'p, T: 'static, C> Ready<'p, T, C> {
    pub(crate) fn new(
        engine: &'p Engine,
        options: Options,
        plan: Plan,
        conclude: impl Fn(&Arc<Outcome>) -> Result<T> + Send + Sync + 'static,
        on_success: C,
        on_error: Option<OnError>,
    ) -> Self {
        Self {
            engine,
            options,
            plan,
            conclude: Arc::new(conclude),
            on_success,
            on_error,
            finish: None,
        }
    }

    /// The result is there when this has finished, too.
    pub(crate) fn finished_by(self, keeper: Arc<Keeper>) -> Self {
        Self {
            finish: Some(keeper),
            ..self
        }
    }

    /// Runs it, and waits for the end.
    pub(crate) fn wait<R: ?Sized>(self, show: fn(&T) -> &R) -> Result<T>
    where
        C: OnSuccess<R>,
    {
        let outcome = self.plan.run(self.engine, &self.options)?;
        let result = (self.conclude)(&outcome);
        tell(&result, show, self.on_success, self.on_error);
        result
    }

    /// Runs it, and does not wait.
    pub(crate) fn start<R: ?Sized + 'static>(mut self, show: fn(&T) -> &R) -> Result<Pending<T>>
    where
        C: OnSuccess<R>,
    {
        self.plan.traits.attended = true;
        let restored = self.plan.durable.as_ref().map_or(0, |begun| begun.restored);
        let tells = C::TELLS || self.on_error.is_some();
        let (conclude, on_success, on_error) = (self.conclude.clone(), self.on_success, self.on_error);
        let told = move |outcome: &Arc<Outcome>| tell(&conclude(outcome), show, on_success, on_error);
        let on_done: Option<OnDone> = match &self.finish {
            None if !tells => None,
            None => Some(Box::new(told)),
            Some(keeper) => {
                let (keeper, callbacks) = (keeper.clone(), self.engine.callbacks());
                Some(Box::new(move |outcome| {
                    let (promise, over) = (callbacks.promise(), outcome.clone());
                    keeper.when_finished(outcome, promise, Box::new(move || told(&over)));
                }))
            }
        };
        let job = self.plan.submit(self.engine, &self.options, on_done)?;
        Ok(Pending::new(job, restored, self.conclude, self.finish))
    }
}

/// Calls back.
pub(crate) fn tell<T, R: ?Sized>(
    result: &Result<T>,
    show: fn(&T) -> &R,
    on_success: impl OnSuccess<R>,
    on_error: Option<OnError>,
) {
    contain("a callback", || match result {
        Ok(value) => on_success.call(show(value)),
        Err(error) => on_error.into_iter().for_each(|callback| callback(error)),
    });
}

impl<'p, S: 'static, W: Parameters, E: Mode, C> Batch<'p, S, W, E, C> {
    /// One call of the task a position; the results in a slab.
    pub(crate) fn prepare<F, Cols, M, N, K>(
        self,
        task: F,
        lower: impl FnOnce(&Memory) -> Result<Lowered>,
    ) -> Result<ReadyMap<'p, E, N, F::Output, K, C>>
    where
        F: Task<S, W::Value, Cols::Args, M>,
        Cols: Columns,
        N: Finish<F::Output, Value: Datum<K>>,
    {
        self.prepare_with::<F, Cols, M, N, K, _>(task, lower, |outcome, values| E::conclude(outcome, values))
    }

    /// As [`prepare`](Self::prepare), with another view of the outcome.
    pub(crate) fn prepare_with<F, Cols, M, N, K, T: 'static>(
        self,
        task: F,
        lower: impl FnOnce(&Memory) -> Result<Lowered>,
        conclude: impl Fn(&Arc<Outcome>, Given<N, F::Output, K>) -> Result<T> + Send + Sync + 'static,
    ) -> Result<Ready<'p, T, C>>
    where
        F: Task<S, W::Value, Cols::Args, M>,
        Cols: Columns,
        N: Finish<F::Output, Value: Datum<K>>,
    {
        let memory = self.engine.memory();
        self.engine.check()?;
        let mut lowered = lower(memory)?;
        lowered.lends |= self.parameters.lends;
        lowered.keep.extend(self.parameters.keep);
        let (plan, output) =
            Plan::of_map::<F, S, W, Cols, M, N, K>(task, lowered, &self.parameters.bytes, memory)?;
        let conclude = move |outcome: &Arc<Outcome>| {
            conclude(
                outcome,
                <N::Value as Datum<K>>::collect(output.when_over(outcome), outcome),
            )
        };
        Ok(Ready::new(
            self.engine,
            self.options,
            plan,
            conclude,
            self.on_success,
            self.on_error,
        ))
    }
}
