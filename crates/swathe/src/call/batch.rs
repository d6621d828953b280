//! One call, with its options.

use std::{
    fmt,
    marker::PhantomData,
    sync::Arc,
    time::{Duration, Instant},
};

use rkyv::util::AlignedVec;
use swathe_memory::{Memory, lease};
use swathe_runtime::{Chunking, Engine, Outcome, user_code::Kept};

use crate::call::{
    callbacks::{Callback, OnError, Silent},
    mode::{Collect, Mode, Strict},
    options::{ChunkSize, Options},
    plan::{Encoded, Plan},
    ready::Ready,
};
use crate::{
    Error, Result,
    cross::{
        column::Columns,
        datum::Datum,
        item::{Keep, Lowered},
        parameters::{Parameters, With, Without},
        task::Task,
    },
    lower::{Finish, Vouch},
    resume::InMemory,
};

/// The values of a task that returns `R`.
type Given<N, R, K> = <<N as Finish<R>>::Value as Datum<K>>::Output;
/// A map of such a task.
type ReadyMap<'p, E, N, R, K, C> = Ready<'p, <E as Mode>::Of<Given<N, R, K>>, C>;
/// A batch that got its parameters.
type Parametrised<'p, S, P, K, E, C, O> = Batch<'p, S, With<P, K>, E, C, O>;
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

    /// Makes the verbs return what there is, a [`Partial`](crate::Partial), instead of failing when elements fail.
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
        let handle = P::decode(&bytes, Vouch::OURS).map_err(|message| Error::Parameters { message })?;
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
