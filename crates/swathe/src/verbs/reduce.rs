//! `map_reduce`: one value of all elements.

use std::{any::Any, sync::Arc};

use swathe_runtime::{Chunking, End, JobTraits, Outcome};

use crate::{
    Batch, Pool, Result,
    call::{
        callbacks::{OnSuccess, tell},
        mode::Strict,
        options::Options,
        plan::{Encoded, Plan},
    },
    cross::{
        arg::ByValue,
        datum::{Collection, Datum},
        input::Input,
        item::{Lowered, lower_records},
        parameters::Parameters,
        task::Task,
    },
    error::JobError,
    lower::{self, Output, wire::Encoder},
    verbs::map::ArgsOf,
};

/// Blocks that an input is reduced to first, unless a chunk size is set: many more than there are workers, and few
/// enough for one worker to combine.
const BLOCKS: u64 = 1024;

impl<S: 'static, W: Parameters, C> Batch<'_, S, W, Strict, C> {
    /// As [`Pool::map_reduce`], with the options of this batch. A chunk size sets the length of the blocks, and so the
    /// shape of the tree.
    pub fn map_reduce<F, G, I, K, M, MG, B, KB>(mut self, task: F, combine: G, input: I) -> Result<Option<B>>
    where
        I: Input<K>,
        F: Task<S, W::Value, ArgsOf<I, K>, M, Output = B>,
        G: Task<S, W::Value, (ByValue<B>, ByValue<B>), MG, Output = B>,
        B: Datum<KB>,
        KB: 'static,
        C: OnSuccess<Option<B>>,
    {
        let (on_success, on_error) = (self.on_success, self.on_error.take());
        let call = Reduction {
            engine: self.engine,
            options: self.options,
            parameters: Arc::new(self.parameters),
        };
        let result = call
            .blocks::<F, G, S, W, I, K, M, MG, B, KB>(task, combine, input)
            .and_then(|(blocks, positions)| call.tree::<G, B, S, W, MG, KB>(combine, blocks, positions));
        tell(&result, |value| value, on_success, on_error);
        result
    }
}

/// One call of `map_reduce`.
struct Reduction<'p> {
    engine: &'p swathe_runtime::Engine,
    options: Options,
    parameters: Arc<Encoded>,
}

impl Reduction<'_> {
    /// Reduces each block, in a job of one chunk a block. Gives the values, and the length of the input.
    fn blocks<F, G, S, W, I, K, M, MG, B, KB>(&self, task: F, combine: G, input: I) -> Result<(Vec<B>, u64)>
    where
        I: Input<K>,
        F: Task<S, W::Value, ArgsOf<I, K>, M, Output = B>,
        G: Task<S, W::Value, (ByValue<B>, ByValue<B>), MG, Output = B>,
        B: Datum<KB>,
        S: 'static,
        W: Parameters,
    {
        let task = lower::reduce_task::<F, G, S, W, (I::Column,), M, MG, KB>(task, combine)?;
        let lowered = input.lower(self.engine.memory())?;
        let positions = lowered.len;
        let block = match self.options.chunking {
            Chunking::Size(elements) => elements,
            // A function of the input's length alone, so that the tree is the same for any number of workers.
            _ => positions.div_ceil(BLOCKS).max(1),
        };
        let traits = JobTraits {
            whole_chunks: true,
            ..JobTraits::default()
        };
        let options = Options {
            chunking: Chunking::Size(block),
            ..self.options
        };
        // A block of no elements is refused by the engine.
        let blocks = positions.div_ceil(block.max(1)) as usize;
        let values = self.run::<B, KB>(task, lowered, positions, block, blocks, traits, options)?;
        Ok((values, positions))
    }

    /// Combines neighbours until one value is left, in a job of one call.
    fn tree<G, B, S, W, MG, KB>(&self, combine: G, mut values: Vec<B>, positions: u64) -> Result<Option<B>>
    where
        G: Task<S, W::Value, (ByValue<B>, ByValue<B>), MG, Output = B>,
        B: Datum<KB>,
        S: 'static,
        W: Parameters,
        KB: 'static,
    {
        if values.len() < 2 {
            return Ok(values.pop());
        }
        let task = lower::combine_task::<G, B, S, W, MG, KB>(combine)?;
        let lowered = lower_records(values.iter(), self.engine.memory())?;
        let count = lowered.len;
        let options = Options {
            chunking: Chunking::Auto,
            ..self.options
        };
        let mut last = self
            .run::<B, KB>(task, lowered, 1, count, 1, JobTraits::default(), options)
            .map_err(|error| error.covering(positions))?;
        Ok(last.pop())
    }

    /// Runs a job whose parameters start with a number, and gives all values.
    #[expect(
        clippy::too_many_arguments,
        reason = "two callers, which differ in each of them"
    )]
    fn run<B: Datum<KB>, KB>(
        &self,
        task: swathe_runtime::TaskRef,
        lowered: Lowered,
        positions: u64,
        number: u64,
        slots: usize,
        traits: JobTraits,
        options: Options,
    ) -> Result<Vec<B>> {
        let mut inner = Encoder::default();
        inner.bytes(&self.parameters.bytes);
        let output = Output::<B::Slot>::new(self.engine.memory(), slots, &mut inner)?;
        inner.append(&lowered.wire);
        let mut wire = Encoder::default();
        wire.pod(&number);
        wire.bytes(&inner.into_bytes());
        let keep: Box<dyn Any + Send + Sync> =
            Box::new((lowered.keep, self.parameters.clone(), output.clone()));
        let heap_hint = slots.saturating_mul(B::HEAP).min(1 << 20);
        let plan = Plan {
            task,
            positions,
            chunk_align: 1,
            wire,
            traits,
            in_place: None,
            durable: None,
            base: 0,
            heap_hint,
            bytes: lowered.bytes as u64,
            lends: lowered.lends | self.parameters.lends,
            keep,
        };
        let outcome: Arc<Outcome> = plan.run(self.engine, &options)?;
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
    pub fn map_reduce<F, G, I, K, M, MG, B, KB>(&self, task: F, combine: G, input: I) -> Result<Option<B>>
    where
        I: Input<K>,
        F: Task<S, (), ArgsOf<I, K>, M, Output = B>,
        G: Task<S, (), (ByValue<B>, ByValue<B>), MG, Output = B>,
        B: Datum<KB>,
        KB: 'static,
    {
        self.batch().map_reduce(task, combine, input)
    }
}
