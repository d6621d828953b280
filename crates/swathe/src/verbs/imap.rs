//! Streams: `imap` and its relatives.

use std::{marker::PhantomData, sync::Arc, time::Instant};

use swathe_runtime::{Chunking, End, Engine, Outcome};

use crate::{
    Batch, Imap, Pool, Result, Status,
    call::{
        callbacks::Silent,
        mode::Strict,
        options::Options,
        plan::{Encoded, MapOutput, Plan},
    },
    cross::{
        column::Columns,
        datum::{Collection, Datum},
        item::{Item, Rows},
        kind::{ByRow, Single},
        parameters::Parameters,
        task::Task,
    },
    error::ItemError,
    lower::{Direct, Fallible, Finish},
    results::stream::{Block, LONGEST_BLOCK, Results},
};

/// What all blocks of a stream have in common.
struct Stream<'p, W> {
    engine: &'p Engine,
    options: Options,
    parameters: Arc<Encoded>,
    ordered: bool,
    types: PhantomData<fn(W)>,
}

impl<W: Parameters> Stream<'_, W> {
    fn block<F, S, R, KR, M, N, K>(
        &self,
        task: F,
        rows: Vec<R>,
        base: u64,
        fixed: bool,
    ) -> Result<Block<N::Value>>
    where
        F: Task<S, W::Value, <R::Columns as Columns>::Args, M>,
        S: 'static,
        R: Rows<KR>,
        N: Finish<F::Output, Value: Datum<K>>,
    {
        self.engine.check()?;
        let memory = self.engine.memory();
        let len = rows.len();
        let mut lowered = R::lower_rows(rows, memory)?;
        lowered.lends |= self.parameters.lends;
        lowered.keep.push(Box::new(self.parameters.clone()));
        let bytes = lowered.bytes + len * size_of::<<N::Value as Datum<K>>::Slot>();
        let (mut plan, output) =
            Plan::of_map::<F, S, W, R::Columns, M, N, K>(task, lowered, &self.parameters.bytes, memory)?;
        plan.base = base;
        // A stream in order waits for its first block. One without order waits for any, and must be told of each; so must
        // one with retries, which are not to wait until it is their block's turn.
        plan.traits.attended = !self.ordered || self.options.retries.more > 0;
        // One worker takes the whole block, unless it is so long that waiting for one would hold up the stream.
        let chunking = if fixed || len <= LONGEST_BLOCK {
            Chunking::Size(len as u64)
        } else {
            Chunking::Auto
        };
        let options = Options {
            chunking,
            ..self.options
        };
        let submitted = Instant::now();
        let job = plan.submit(self.engine, &options, None)?;
        let results = Box::new(move |outcome: &Arc<Outcome>| results::<N::Value, K>(outcome, &output, base));
        Ok(Block {
            job,
            len,
            bytes,
            submitted,
            results,
        })
    }
}

/// The results of a block that is over.
fn results<B: Datum<K>, K>(outcome: &Arc<Outcome>, output: &MapOutput<B, K>, base: u64) -> Results<B> {
    let values = B::collect(output.when_over(outcome), outcome);
    if outcome.end == End::Complete
        && outcome.failures.is_empty()
        && let Ok(all) = values.fetch_all()
    {
        return Results::All(all.into_iter());
    }
    let result = |at: u64| {
        let failed = |status, message| ItemError::without_worker(base + at, status, message);
        match outcome.failure(at) {
            Some(failure) => Err(ItemError::new(failure, base)),
            None if outcome.is_final(at) => values
                .fetch(at as usize)
                .map_err(|error| failed(Status::Failed, error.to_string())),
            None => Err(failed(Status::Cancelled, "the pool stopped before".to_owned())),
        }
    };
    Results::Mixed((0..outcome.positions).map(result).collect())
}

impl<'p, S: 'static, W: Parameters> Batch<'p, S, W, Strict, Silent> {
    fn stream<F, I, KR, M, N, K>(self, task: F, input: I, ordered: bool) -> Imap<'p, I::IntoIter, N::Value>
    where
        I: IntoIterator<Item: Rows<KR>>,
        F: Task<S, W::Value, <<I::Item as Rows<KR>>::Columns as Columns>::Args, M>,
        N: Finish<F::Output, Value: Datum<K>>,
    {
        let chunk_size = match self.options.chunking {
            Chunking::Size(elements) => Some(usize::try_from(elements).unwrap_or(usize::MAX)),
            _ => None,
        };
        let stream = Stream::<W> {
            engine: self.engine,
            options: self.options,
            parameters: Arc::new(self.parameters),
            ordered,
            types: PhantomData,
        };
        let submit =
            move |rows, base, fixed| stream.block::<F, S, I::Item, KR, M, N, K>(task, rows, base, fixed);
        Imap::new(
            input.into_iter(),
            submit,
            ordered,
            chunk_size,
            self.engine.processes(),
        )
    }

    /// As [`Pool::imap`], with the options of this batch.
    pub fn imap<F, I, K, M, B, KB>(self, task: F, input: I) -> Imap<'p, I::IntoIter, B>
    where
        I: IntoIterator<Item: Item<K>>,
        F: Task<S, W::Value, <<I::Item as Rows<Single<K>>>::Columns as Columns>::Args, M, Output = B>,
        B: Datum<KB>,
    {
        self.stream::<F, I, Single<K>, M, Direct, KB>(task, input, true)
    }

    /// As [`Pool::imap_unordered`], with the options of this batch.
    pub fn imap_unordered<F, I, K, M, B, KB>(self, task: F, input: I) -> Imap<'p, I::IntoIter, B>
    where
        I: IntoIterator<Item: Item<K>>,
        F: Task<S, W::Value, <<I::Item as Rows<Single<K>>>::Columns as Columns>::Args, M, Output = B>,
        B: Datum<KB>,
    {
        self.stream::<F, I, Single<K>, M, Direct, KB>(task, input, false)
    }

    /// As [`Pool::istarmap`], with the options of this batch.
    pub fn istarmap<F, I, K, M, B, KB>(self, task: F, input: I) -> Imap<'p, I::IntoIter, B>
    where
        I: IntoIterator<Item: Rows<ByRow<K>>>,
        F: Task<S, W::Value, <<I::Item as Rows<ByRow<K>>>::Columns as Columns>::Args, M, Output = B>,
        B: Datum<KB>,
    {
        self.stream::<F, I, ByRow<K>, M, Direct, KB>(task, input, true)
    }

    /// As [`Pool::istarmap_unordered`], with the options of this batch.
    pub fn istarmap_unordered<F, I, K, M, B, KB>(self, task: F, input: I) -> Imap<'p, I::IntoIter, B>
    where
        I: IntoIterator<Item: Rows<ByRow<K>>>,
        F: Task<S, W::Value, <<I::Item as Rows<ByRow<K>>>::Columns as Columns>::Args, M, Output = B>,
        B: Datum<KB>,
    {
        self.stream::<F, I, ByRow<K>, M, Direct, KB>(task, input, false)
    }

    /// As [`Pool::try_imap`], with the options of this batch.
    pub fn try_imap<F, I, K, M, B, KB, X>(self, task: F, input: I) -> Imap<'p, I::IntoIter, B>
    where
        I: IntoIterator<Item: Item<K>>,
        F: Task<
                S,
                W::Value,
                <<I::Item as Rows<Single<K>>>::Columns as Columns>::Args,
                M,
                Output = Result<B, X>,
            >,
        B: Datum<KB>,
        X: Into<Box<dyn std::error::Error>>,
    {
        self.stream::<F, I, Single<K>, M, Fallible, KB>(task, input, true)
    }

    /// As [`Pool::try_imap_unordered`], with the options of this batch.
    pub fn try_imap_unordered<F, I, K, M, B, KB, X>(self, task: F, input: I) -> Imap<'p, I::IntoIter, B>
    where
        I: IntoIterator<Item: Item<K>>,
        F: Task<
                S,
                W::Value,
                <<I::Item as Rows<Single<K>>>::Columns as Columns>::Args,
                M,
                Output = Result<B, X>,
            >,
        B: Datum<KB>,
        X: Into<Box<dyn std::error::Error>>,
    {
        self.stream::<F, I, Single<K>, M, Fallible, KB>(task, input, false)
    }

    /// As [`Pool::try_istarmap`], with the options of this batch.
    pub fn try_istarmap<F, I, K, M, B, KB, X>(self, task: F, input: I) -> Imap<'p, I::IntoIter, B>
    where
        I: IntoIterator<Item: Rows<ByRow<K>>>,
        F: Task<
                S,
                W::Value,
                <<I::Item as Rows<ByRow<K>>>::Columns as Columns>::Args,
                M,
                Output = Result<B, X>,
            >,
        B: Datum<KB>,
        X: Into<Box<dyn std::error::Error>>,
    {
        self.stream::<F, I, ByRow<K>, M, Fallible, KB>(task, input, true)
    }

    /// As [`Pool::try_istarmap_unordered`], with the options of this batch.
    pub fn try_istarmap_unordered<F, I, K, M, B, KB, X>(self, task: F, input: I) -> Imap<'p, I::IntoIter, B>
    where
        I: IntoIterator<Item: Rows<ByRow<K>>>,
        F: Task<
                S,
                W::Value,
                <<I::Item as Rows<ByRow<K>>>::Columns as Columns>::Args,
                M,
                Output = Result<B, X>,
            >,
        B: Datum<KB>,
        X: Into<Box<dyn std::error::Error>>,
    {
        self.stream::<F, I, ByRow<K>, M, Fallible, KB>(task, input, false)
    }
}

/// Streams: the results are taken one by one, while the input is still being read.
impl<S: 'static> Pool<S> {
    /// Calls the task with each element of a stream; the results come in the order of the input, as they are asked for.
    ///
    /// The input is any iterator, even an endless one: it is pulled when the results are, at most a
    /// [look-ahead](Imap::look_ahead) in advance. Elements travel in blocks that start with one element and grow while
    /// input and results are quick; a [`chunk_size`](Batch::chunk_size) fixes them.
    ///
    /// ```
    /// use swathe::Pool;
    ///
    /// fn main() -> swathe::Result<()> {
    ///     swathe::init();
    ///     let pool = Pool::builder().processes(2).build()?;
    ///     let mut found = 0;
    ///     for square in pool.imap(|x: u64| x * x, 0..) {
    ///         found = square?;
    ///         if found > 1000 {
    ///             break;
    ///         }
    ///     }
    ///     assert_eq!(found, 1024);
    ///     Ok(())
    /// }
    /// ```
    pub fn imap<F, I, K, M, B, KB>(&self, task: F, input: I) -> Imap<'_, I::IntoIter, B>
    where
        I: IntoIterator<Item: Item<K>>,
        F: Task<S, (), <<I::Item as Rows<Single<K>>>::Columns as Columns>::Args, M, Output = B>,
        B: Datum<KB>,
    {
        self.batch().imap(task, input)
    }

    /// As [`imap`](Self::imap), and the results come in the order in which blocks are finished.
    ///
    /// ```
    /// use swathe::Pool;
    ///
    /// fn main() -> swathe::Result<()> {
    ///     swathe::init();
    ///     let pool = Pool::builder().processes(2).build()?;
    ///     let mut squares = pool.imap_unordered(|x: u64| x * x, 0..100).collect::<Result<Vec<_>, _>>()?;
    ///     squares.sort();
    ///     assert_eq!(squares[99], 9801);
    ///     Ok(())
    /// }
    /// ```
    pub fn imap_unordered<F, I, K, M, B, KB>(&self, task: F, input: I) -> Imap<'_, I::IntoIter, B>
    where
        I: IntoIterator<Item: Item<K>>,
        F: Task<S, (), <<I::Item as Rows<Single<K>>>::Columns as Columns>::Args, M, Output = B>,
        B: Datum<KB>,
    {
        self.batch().imap_unordered(task, input)
    }

    /// As [`imap`](Self::imap), for a task of several arguments: the items are tuples.
    ///
    /// ```
    /// use swathe::Pool;
    ///
    /// fn main() -> swathe::Result<()> {
    ///     swathe::init();
    ///     let pool = Pool::builder().processes(2).build()?;
    ///     let items = (1..=3).zip(["a", "b", "c"]);
    ///     let texts = pool.istarmap(|n: usize, text: &str| text.repeat(n), items).collect::<Result<Vec<_>, _>>()?;
    ///     assert_eq!(texts, ["a", "bb", "ccc"]);
    ///     Ok(())
    /// }
    /// ```
    pub fn istarmap<F, I, K, M, B, KB>(&self, task: F, input: I) -> Imap<'_, I::IntoIter, B>
    where
        I: IntoIterator<Item: Rows<ByRow<K>>>,
        F: Task<S, (), <<I::Item as Rows<ByRow<K>>>::Columns as Columns>::Args, M, Output = B>,
        B: Datum<KB>,
    {
        self.batch().istarmap(task, input)
    }

    /// As [`istarmap`](Self::istarmap), and the results come in the order in which blocks are finished.
    pub fn istarmap_unordered<F, I, K, M, B, KB>(&self, task: F, input: I) -> Imap<'_, I::IntoIter, B>
    where
        I: IntoIterator<Item: Rows<ByRow<K>>>,
        F: Task<S, (), <<I::Item as Rows<ByRow<K>>>::Columns as Columns>::Args, M, Output = B>,
        B: Datum<KB>,
    {
        self.batch().istarmap_unordered(task, input)
    }

    /// As [`imap`](Self::imap), for a task that returns a `Result`; see [`try_map`](Self::try_map).
    pub fn try_imap<F, I, K, M, B, KB, X>(&self, task: F, input: I) -> Imap<'_, I::IntoIter, B>
    where
        I: IntoIterator<Item: Item<K>>,
        F: Task<S, (), <<I::Item as Rows<Single<K>>>::Columns as Columns>::Args, M, Output = Result<B, X>>,
        B: Datum<KB>,
        X: Into<Box<dyn std::error::Error>>,
    {
        self.batch().try_imap(task, input)
    }

    /// As [`imap_unordered`](Self::imap_unordered), for a task that returns a `Result`; see [`try_map`](Self::try_map).
    pub fn try_imap_unordered<F, I, K, M, B, KB, X>(&self, task: F, input: I) -> Imap<'_, I::IntoIter, B>
    where
        I: IntoIterator<Item: Item<K>>,
        F: Task<S, (), <<I::Item as Rows<Single<K>>>::Columns as Columns>::Args, M, Output = Result<B, X>>,
        B: Datum<KB>,
        X: Into<Box<dyn std::error::Error>>,
    {
        self.batch().try_imap_unordered(task, input)
    }

    /// As [`istarmap`](Self::istarmap), for a task that returns a `Result`; see [`try_map`](Self::try_map).
    pub fn try_istarmap<F, I, K, M, B, KB, X>(&self, task: F, input: I) -> Imap<'_, I::IntoIter, B>
    where
        I: IntoIterator<Item: Rows<ByRow<K>>>,
        F: Task<S, (), <<I::Item as Rows<ByRow<K>>>::Columns as Columns>::Args, M, Output = Result<B, X>>,
        B: Datum<KB>,
        X: Into<Box<dyn std::error::Error>>,
    {
        self.batch().try_istarmap(task, input)
    }

    /// As [`istarmap_unordered`](Self::istarmap_unordered), for a task that returns a `Result`; see [`try_map`](Self::try_map).
    pub fn try_istarmap_unordered<F, I, K, M, B, KB, X>(&self, task: F, input: I) -> Imap<'_, I::IntoIter, B>
    where
        I: IntoIterator<Item: Rows<ByRow<K>>>,
        F: Task<S, (), <<I::Item as Rows<ByRow<K>>>::Columns as Columns>::Args, M, Output = Result<B, X>>,
        B: Datum<KB>,
        X: Into<Box<dyn std::error::Error>>,
    {
        self.batch().try_istarmap_unordered(task, input)
    }
}
