//! `map_reduce`: one value of all elements.

use std::sync::Arc;

use swathe_runtime::{Chunking, End, Engine, Job, JobTraits, Outcome, TaskRef};

use crate::{
    Batch, Pool, Result,
    call::{
        batch::Call,
        job::{Encoded, heap_hint, run},
        options::Options,
    },
    cross::{
        datum::{Collection, Datum},
        item::{Lowered, lower_records},
        over::{CombineTask, Each, Fallible, TaskOver},
        parameters::Parameters,
    },
    error::JobError,
    lower::{self, Output, wire::Encoder},
};

/// Blocks that an input is reduced to first, unless a chunk size is set: many more than there are workers, and few
/// enough for one worker to combine.
const BLOCKS: u64 = 1024;

impl<S: 'static, P: Parameters> Batch<'_, S, P> {
    /// As [`Pool::map_reduce`], with the options of this batch. A chunk size sets the length of the blocks, and so the
    /// shape of the tree.
    pub fn map_reduce<F, G, I, X, Y, B>(self, task: F, combine: G, input: I) -> Result<Option<B>>
    where
        F: TaskOver<Each<I>, X, S, P, Value = B>,
        G: CombineTask<B, Y, S, P>,
        B: 'static,
    {
        self.reduce(task, combine, Each(input))
    }

    /// As [`Pool::try_map_reduce`], with the options of this batch.
    pub fn try_map_reduce<F, G, I, X, Y, B>(self, task: F, combine: G, input: I) -> Result<Option<B>>
    where
        F: TaskOver<Fallible<Each<I>>, X, S, P, Value = B>,
        G: CombineTask<B, Y, S, P>,
        B: 'static,
    {
        self.reduce(task, combine, Fallible(Each(input)))
    }

    fn reduce<F, G, In, X, Y>(self, task: F, combine: G, input: In) -> Result<Option<F::Value>>
    where
        F: TaskOver<In, X, S, P>,
        G: CombineTask<F::Value, Y, S, P>,
    {
        let Call {
            engine,
            options,
            parameters,
            callbacks,
        } = self.call;
        let callbacks = callbacks.of_call()?;
        let reduction = Reduction {
            engine,
            options,
            parameters: Arc::new(parameters),
        };
        let reduce = || {
            let blocks = lower::reduce_task::<F::Bound, G, Y, S, P, F::Kind>(task, combine)?;
            let tree = lower::combine_task::<G, Y, F::Value, F::Kind, S, P>(combine)?;
            let lowered = F::lower(input, engine.memory())?;
            reduction.run::<F::Value, F::Kind>(blocks, tree, lowered)
        };
        let result = reduce();
        callbacks.tell(&result, |value| value);
        result
    }
}

/// One call of `map_reduce`.
struct Reduction<'p> {
    engine: &'p Engine,
    options: Options,
    parameters: Arc<Encoded>,
}

impl Reduction<'_> {
    fn run<B: Datum<K>, K: 'static>(
        &self,
        blocks: TaskRef,
        tree: TaskRef,
        input: Lowered,
    ) -> Result<Option<B>> {
        let positions = input.len;
        let mut values = self.blocks::<B, K>(blocks, input)?;
        if values.len() < 2 {
            return Ok(values.pop());
        }
        let value = self.tree::<B, K>(tree, &values);
        value.map_err(|error| error.covering(positions))
    }

    /// Reduces each block, in a job of one chunk a block.
    fn blocks<B: Datum<K>, K: 'static>(&self, task: TaskRef, input: Lowered) -> Result<Vec<B>> {
        let positions = input.len;
        let block = match self.options.chunking {
            Chunking::Size(elements) => elements,
            // A function of the input's length alone, so that the tree is the same for any number of workers.
            _ => positions.div_ceil(BLOCKS).max(1),
        };
        let job = self.options.job(task, positions)?;
        let job = Job {
            chunking: Chunking::Size(block),
            traits: JobTraits {
                whole_chunks: true,
                ..job.traits
            },
            ..job
        };
        // A block of no elements is refused by the engine.
        let blocks = positions.div_ceil(block.max(1)) as usize;
        self.values_of::<B, K>(job, input, block, blocks)
    }

    /// Combines neighbours until one value is left, in a job of one call.
    fn tree<B: Datum<K>, K: 'static>(&self, task: TaskRef, values: &[B]) -> Result<Option<B>> {
        let input = lower_records(values.iter(), self.engine.memory())?;
        let count = input.len;
        let job = Job {
            chunking: Chunking::Auto,
            ..self.options.job(task, 1)?
        };
        Ok(self.values_of::<B, K>(job, input, count, 1)?.pop())
    }

    /// Runs a job whose parameters start with a number, and gives the values in its slots.
    fn values_of<B: Datum<K>, K: 'static>(
        &self,
        job: Job,
        input: Lowered,
        number: u64,
        slots: usize,
    ) -> Result<Vec<B>> {
        let mut inner = Encoder::default();
        inner.bytes(&self.parameters.bytes);
        let output = Output::<B::Slot>::new(self.engine.memory(), slots, &mut inner)?;
        inner.append(&input.wire);
        let mut wire = Encoder::default();
        wire.pod(&number);
        wire.bytes(&inner.into_bytes());
        let job = Job {
            params: wire.into_bytes(),
            heap_hint: heap_hint::<B, K>(slots),
            bytes: input.bytes as u64,
            lends: input.lends | self.parameters.lends,
            keep: Box::new((input.keep, self.parameters.clone(), output.clone())),
            ..job
        };
        let outcome: Arc<Outcome> = run(self.engine, job)?;
        if outcome.end != End::Complete || !outcome.failures.is_empty() {
            return Err(JobError::new(&outcome, None).into());
        }
        let values = B::collect(output.when_over(&outcome), &outcome);
        (0..slots).map(|slot| values.fetch(slot)).collect()
    }
}

impl<S: 'static> Pool<S> {
    /// Calls the task with each element, and combines all results to one; `None` for an empty input.
    ///
    /// The order is fixed by positions alone: blocks of consecutive elements (the input's length over 1024, or
    /// [`chunk_size`](Batch::chunk_size)) are combined from left to right, then neighbouring blocks, then neighbours of
    /// these. So a sum of floats has the same bits for any number of workers. `combine` must be associative for the
    /// result to be what a loop would give; it need not be commutative. Both tasks run in the workers.
    ///
    /// ```
    /// use swathe::Pool;
    ///
    /// fn main() -> swathe::Result<()> {
    ///     swathe::init();
    ///     let pool = Pool::builder().processes(2).build()?;
    ///     let sum = pool.map_reduce(|x: u64| x * x, |a: u64, b: u64| a + b, 1..=1000)?;
    ///     assert_eq!(sum, Some(333_833_500));
    ///     let longest = |a: String, b: String| if b.len() > a.len() { b } else { a };
    ///     let word = pool.map_reduce(|word: &str| word.to_owned(), longest, ["a", "swathe", "of", "grass"])?;
    ///     assert_eq!(word.as_deref(), Some("swathe"));
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`map`](Self::map), without partial results. A block fails as a whole, and the error names its positions.
    pub fn map_reduce<F, G, I, X, Y, B>(&self, task: F, combine: G, input: I) -> Result<Option<B>>
    where
        F: TaskOver<Each<I>, X, S, Value = B>,
        G: CombineTask<B, Y, S>,
        B: 'static,
    {
        self.batch().map_reduce(task, combine, input)
    }

    /// As [`map_reduce`](Self::map_reduce), for a task that returns a `Result`: its error is the failure of the block that the
    /// element lies in. `combine` cannot fail.
    ///
    /// ```
    /// use swathe::Pool;
    ///
    /// fn main() -> swathe::Result<()> {
    ///     swathe::init();
    ///     let pool = Pool::builder().processes(2).build()?;
    ///     let sum = |a: i64, b: i64| a + b;
    ///     let parse = |text: &str| text.parse::<i64>();
    ///     assert_eq!(pool.try_map_reduce(parse, sum, ["1", "2", "39"])?, Some(42));
    ///     let error = pool.try_map_reduce(parse, sum, ["1", "two"]).unwrap_err();
    ///     assert!(error.to_string().starts_with("position 1 failed: invalid digit"), "{error}");
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`map_reduce`](Self::map_reduce).
    pub fn try_map_reduce<F, G, I, X, Y, B>(&self, task: F, combine: G, input: I) -> Result<Option<B>>
    where
        F: TaskOver<Fallible<Each<I>>, X, S, Value = B>,
        G: CombineTask<B, Y, S>,
        B: 'static,
    {
        self.batch().try_map_reduce(task, combine, input)
    }
}
