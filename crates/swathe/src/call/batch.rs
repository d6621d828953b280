//! One call, with its options.

use std::{
    fmt,
    marker::PhantomData,
    sync::Arc,
    time::{Duration, Instant},
};

use rkyv::util::AlignedVec;
use swathe_memory::lease;
use swathe_runtime::{Chunking, Engine, Outcome, TaskRef, user_code::Kept};

use crate::call::{
    callbacks::Callbacks,
    job::{Encoded, map_job},
    mode::{Collect, Mode, Strict},
    options::{ChunkSize, Options},
    ready::Ready,
};
use crate::{
    Error, Result,
    cross::{
        datum::Datum,
        item::{Keep, Lowered},
        over::TaskOver,
        parameters::{Parameters, With, Without},
    },
    lower::{self, Vouch},
    resume::InMemory,
};

/// One call of a pool with its options; made by [`Pool::batch`](crate::Pool::batch). It has the verbs of
/// [`Pool`](crate::Pool).
///
/// The type parameters are inferred: `S` is the workers' state, `P` the parameters, `E` says what happens to failures,
/// `O` where the results lie.
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
pub struct Batch<'p, S = (), P = Without, E = Strict, O = InMemory> {
    pub(crate) call: Call<'p>,
    pub(crate) output: O,
    types: PhantomData<fn(S, P, E)>,
}

/// What a call knows whatever its types are.
pub(crate) struct Call<'p> {
    pub(crate) engine: &'p Engine,
    pub(crate) options: Options,
    pub(crate) parameters: Encoded,
    pub(crate) callbacks: Callbacks,
}

impl<S, P, E, O> fmt::Debug for Batch<'_, S, P, E, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("options", &self.call.options)
            .finish_non_exhaustive()
    }
}

impl<'p, S> Batch<'p, S> {
    pub(crate) fn new(engine: &'p Engine) -> Self {
        let call = Call {
            engine,
            options: Options::default(),
            parameters: Encoded::default(),
            callbacks: Callbacks::default(),
        };
        Self {
            call,
            output: InMemory,
            types: PhantomData,
        }
    }
}

/// Options.
impl<'p, S, P, E, O> Batch<'p, S, P, E, O> {
    /// How many elements a worker takes at a time: a number of at least 1, or a [`ChunkSize`].
    pub fn chunk_size(mut self, size: impl Into<ChunkSize>) -> Self {
        self.call.options.chunking = match size.into() {
            ChunkSize::Auto => Chunking::Auto,
            ChunkSize::Pool => Chunking::Pool,
            ChunkSize::Fixed(elements) => Chunking::Size(elements as u64),
        };
        self
    }

    /// Ends the job at its first failure: what has not been started is not run.
    pub fn fail_fast(mut self) -> Self {
        self.call.options.fail_fast = true;
        self
    }

    /// Seed of [`Context::rng`](crate::Context::rng); 0 unless set.
    pub fn seed(mut self, seed: u64) -> Self {
        self.call.options.seed = seed;
        self
    }

    /// After how many deaths of a worker at one and the same element the element is given up as
    /// [`Lost`](crate::Status::Lost): at least 1. Unless set it is 3, or one more than the [`retries`](Self::retries) if
    /// that is more: a worker may die of something else than its element.
    pub fn max_deaths(mut self, deaths: u32) -> Self {
        self.call.options.max_deaths = Some(deaths.max(1));
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
        self.call.options.retries.more = n;
        self
    }

    /// How long failed elements wait before they are tried again: `first` before the first retry, twice as long before
    /// each further one, `longest` at most. 10 ms and 10 s unless set. No worker waits with them.
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        (
            self.call.options.retries.backoff,
            self.call.options.retries.longest,
        ) = (first, longest);
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
        self.call.options.timeout = Some(each);
        self
    }

    /// How long the whole call may take, retries included, counted from here. Then the job ends, what is still running
    /// is killed, and what has no value gets [`TimedOut`](crate::Status::TimedOut). Results that are there stay.
    pub fn deadline(mut self, within: Duration) -> Self {
        self.call.options.deadline = Instant::now().checked_add(within);
        self
    }

    /// Has a function called once with the error, if the job fails.
    ///
    /// The callbacks of asynchronous calls run one at a time on a thread of the pool's own, those of other calls on the
    /// caller's. If one panics, the panic is reported and harms nothing else.
    pub fn on_error(mut self, callback: impl FnOnce(&Error) + Send + 'static) -> Self {
        self.call.callbacks.on_error = Some(Box::new(callback));
        self
    }

    /// Has a function called once with the result, if the job succeeds: `&[B]` for plain results, `&`[`Records`]`<B>`
    /// for others, `&B` for `apply`. An empty input succeeds too. See [`on_error`](Self::on_error) for where it runs.
    ///
    /// [`Records`]: crate::Records
    ///
    /// The callback names its argument's type. If a verb gives something else, it returns
    /// [`Error::Callback`](crate::Error::Callback) and nothing is run.
    pub fn on_success<T: ?Sized + 'static>(mut self, callback: impl FnOnce(&T) + Send + 'static) -> Self {
        self.call.callbacks.set_on_success(callback);
        self
    }

    /// Makes the verbs return what there is, a [`Partial`](crate::Partial), instead of failing when elements fail.
    pub fn collect_errors(self) -> Batch<'p, S, P, Collect, O> {
        self.of_types()
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
    pub fn with<D: Datum<K>, K: 'static>(mut self, parameters: &D) -> Result<Batch<'p, S, With<D, K>, E, O>> {
        self.call.parameters = encode(parameters).map_err(|message| Error::Parameters { message })?;
        Ok(self.of_types())
    }

    /// The same call, of other types.
    fn of_types<S2, P2, E2>(self) -> Batch<'p, S2, P2, E2, O> {
        Batch {
            call: self.call,
            output: self.output,
            types: PhantomData,
        }
    }

    /// The same call, with its results elsewhere.
    pub(crate) fn with_output<O2>(self, output: O2) -> Batch<'p, S, P, E, O2> {
        Batch {
            call: self.call,
            output,
            types: PhantomData,
        }
    }
}

/// Parameters as they cross.
fn encode<D: Datum<K>, K>(parameters: &D) -> Result<Encoded, String> {
    let mut bytes = AlignedVec::new();
    let lent = lease::lent();
    parameters.encode(&mut bytes)?;
    let lends = lease::lent() != lent;
    // Decoded here as well: arrays in them stay in place for as long as this handle of them. What cannot be decoded is
    // refused here, and not in every worker.
    let handle = Kept::new(vec![D::decode(&bytes, Vouch::OURS)?]);
    let mut keep: Keep = Vec::new();
    if lends {
        keep.push(Box::new(handle));
    }
    Ok(Encoded {
        bytes: bytes.to_vec(),
        keep,
        lends,
    })
}

impl<'p, S: 'static, P: Parameters, E: Mode> Batch<'p, S, P, E> {
    /// One call of the task a position; the results in a slab.
    pub(crate) fn prepare<F, In, X>(self, task: F, input: In) -> Result<Ready<'p, E::Of<F::Values>>>
    where
        F: TaskOver<In, X, S, P>,
    {
        self.call.engine.check()?;
        let lowered = F::lower(input, self.call.engine.memory())?;
        let task = lower::map_task::<F::Bound, S, P, F::Kind>(task)?;
        self.call.map::<F::Value, F::Kind, _>(task, lowered, E::conclude)
    }
}

impl<'p> Call<'p> {
    /// One call of a task a position; the results in a slab. What the task is, nobody knows from here on.
    pub(crate) fn map<B: Datum<K>, K: 'static, T: 'static>(
        self,
        task: TaskRef,
        mut lowered: Lowered,
        conclude: fn(&Arc<Outcome>, B::Output) -> Result<T>,
    ) -> Result<Ready<'p, T>> {
        lowered.lends |= self.parameters.lends;
        lowered.keep.extend(self.parameters.keep);
        let (memory, parameters) = (self.engine.memory(), &self.parameters.bytes);
        let (job, output) = map_job::<B, K>(&self.options, task, lowered, parameters, memory)?;
        let conclude =
            move |outcome: &Arc<Outcome>| conclude(outcome, B::collect(output.when_over(outcome), outcome));
        Ok(Ready::new(self.engine, job, self.callbacks, conclude))
    }
}
