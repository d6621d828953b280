//! Streams: `imap` and its relatives.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use swathe_memory::Memory;
use swathe_runtime::{Chunking, End, Engine, Outcome, TaskRef};

use crate::{
    Batch, Error, Imap, Pool, Result, Status,
    call::{
        batch::Call,
        job::{Encoded, MapOutput, map_job},
        options::Options,
    },
    cross::{
        datum::{Collection, Datum},
        item::Lowered,
        over::{Each, Fallible, Star, TaskOver},
        parameters::Parameters,
    },
    error::{ItemError, why_stopped},
    lower,
    results::stream::{Block, Brought, LONGEST_BLOCK, Place, Results, Terms},
};

/// What items of a stream are, as an input.
trait OfItems<T> {
    fn of_items(items: Vec<T>) -> Self;
}

impl<T> OfItems<T> for Each<Vec<T>> {
    fn of_items(items: Vec<T>) -> Self {
        Self(items)
    }
}

impl<T> OfItems<T> for Star<Vec<T>> {
    fn of_items(items: Vec<T>) -> Self {
        Self(items)
    }
}

impl<In: OfItems<T>, T> OfItems<T> for Fallible<In> {
    fn of_items(items: Vec<T>) -> Self {
        Self(In::of_items(items))
    }
}

/// What all blocks of a stream have in common.
struct Stream<'p> {
    engine: &'p Engine,
    options: Options,
    parameters: Arc<Encoded>,
    task: TaskRef,
}

impl Stream<'_> {
    /// Submits the elements that `lower` lowers.
    fn block<B: Datum<K>, K: 'static>(
        &self,
        lower: impl FnOnce(&Memory) -> Result<Lowered>,
        place: Place,
    ) -> Result<Block<B>> {
        self.engine.check()?;
        let memory = self.engine.memory();
        let mut lowered = lower(memory)?;
        lowered.lends |= self.parameters.lends;
        lowered.keep.push(Box::new(self.parameters.clone()));
        let len = lowered.len as usize;
        let bytes = lowered.bytes + len * size_of::<B::Slot>();
        let (mut job, output) =
            map_job::<B, K>(&self.options, self.task, lowered, &self.parameters.bytes, memory)?;
        let base = place.base;
        job.base = base;
        // Retries are not to wait until it is their block's turn.
        job.traits.attended = place.attended || self.options.retries.more > 0;
        // One worker takes the whole block, unless it is so long that waiting for one would hold up the stream.
        job.chunking = if place.is_fixed || len <= LONGEST_BLOCK {
            Chunking::Size(len as u64)
        } else {
            Chunking::Auto
        };
        let submitted = Instant::now();
        let job = self.engine.submit(job)?;
        let results = Box::new(move |outcome: &Arc<Outcome>| brought::<B, K>(outcome, &output, base));
        Ok(Block {
            job,
            len,
            bytes,
            submitted,
            results,
        })
    }
}

/// What a block has brought that is over.
fn brought<B: Datum<K>, K>(outcome: &Arc<Outcome>, output: &MapOutput<B, K>, base: u64) -> Brought<B> {
    let values = B::collect(output.when_over(outcome), outcome);
    let mut late = Vec::new();
    if outcome.end == End::Complete
        && outcome.failures.is_empty()
        && let Ok(all) = values.fetch_all()
    {
        let results = Results::All(base, all.into_iter());
        return Brought { results, late };
    }
    let mut results = VecDeque::new();
    for at in 0..outcome.positions {
        let position = base + at;
        let failed = |status, message| ItemError::without_worker(position, status, message);
        let result = match outcome.failure(at) {
            Some(failure) => Err(ItemError::new(failure, base)),
            None if outcome.is_final(at) => values
                .fetch(at as usize)
                .map_err(|error| failed(Status::Failed, error.to_string())),
            None if outcome.end == End::TimedOut => {
                late.push(position);
                continue;
            }
            // The stream ends behind the failure.
            None if outcome.end == End::FailedFast => continue,
            None => {
                let why = why_stopped(&outcome.end).unwrap_or("the pool stopped before");
                Err(failed(Status::Cancelled, why.to_owned()))
            }
        };
        results.push_back((position, result));
    }
    Brought {
        results: Results::Mixed(results),
        late,
    }
}

impl<'p, S: 'static, P: Parameters> Batch<'p, S, P> {
    fn stream<F, In, X, I>(self, task: F, input: I, ordered: bool) -> Imap<'p, I::IntoIter, F::Value>
    where
        I: IntoIterator,
        In: OfItems<I::Item>,
        F: TaskOver<In, X, S, P>,
    {
        let Call {
            engine,
            options,
            parameters,
            callbacks,
        } = self.call;
        let chunk_size = match options.chunking {
            Chunking::Size(elements) => Some(usize::try_from(elements).unwrap_or(usize::MAX)),
            _ => None,
        };
        let task = callbacks
            .of_stream()
            .and_then(|()| lower::map_task::<F::Bound, S, P, F::Kind>(task));
        let terms = Terms {
            ordered,
            chunk_size,
            processes: engine.processes(),
            fail_fast: options.fail_fast,
            deadline: options.deadline,
        };
        let task = match task {
            Ok(task) => task,
            Err(error) => {
                let mut refused = Imap::new(input.into_iter(), |_, _| Err(Error::NotReady), terms);
                refused.refuse(&error);
                return refused;
            }
        };
        let stream = Stream {
            engine,
            options,
            parameters: Arc::new(parameters),
            task,
        };
        let submit = move |items, place| {
            let lower = |memory: &Memory| F::lower(In::of_items(items), memory);
            stream.block::<F::Value, F::Kind>(lower, place)
        };
        Imap::new(input.into_iter(), submit, terms)
    }

    /// As [`Pool::imap`], with the options of this batch.
    pub fn imap<F, I, X, B>(self, task: F, input: I) -> Imap<'p, I::IntoIter, B>
    where
        I: IntoIterator,
        F: TaskOver<Each<Vec<I::Item>>, X, S, P, Value = B>,
    {
        self.stream::<F, _, X, I>(task, input, true)
    }

    /// As [`Pool::imap_unordered`], with the options of this batch.
    pub fn imap_unordered<F, I, X, B>(self, task: F, input: I) -> Imap<'p, I::IntoIter, B>
    where
        I: IntoIterator,
        F: TaskOver<Each<Vec<I::Item>>, X, S, P, Value = B>,
    {
        self.stream::<F, _, X, I>(task, input, false)
    }

    /// As [`Pool::istarmap`], with the options of this batch.
    pub fn istarmap<F, I, X, B>(self, task: F, input: I) -> Imap<'p, I::IntoIter, B>
    where
        I: IntoIterator,
        F: TaskOver<Star<Vec<I::Item>>, X, S, P, Value = B>,
    {
        self.stream::<F, _, X, I>(task, input, true)
    }

    /// As [`Pool::istarmap_unordered`], with the options of this batch.
    pub fn istarmap_unordered<F, I, X, B>(self, task: F, input: I) -> Imap<'p, I::IntoIter, B>
    where
        I: IntoIterator,
        F: TaskOver<Star<Vec<I::Item>>, X, S, P, Value = B>,
    {
        self.stream::<F, _, X, I>(task, input, false)
    }

    /// As [`Pool::try_imap`], with the options of this batch.
    pub fn try_imap<F, I, X, B>(self, task: F, input: I) -> Imap<'p, I::IntoIter, B>
    where
        I: IntoIterator,
        F: TaskOver<Fallible<Each<Vec<I::Item>>>, X, S, P, Value = B>,
    {
        self.stream::<F, _, X, I>(task, input, true)
    }

    /// As [`Pool::try_imap_unordered`], with the options of this batch.
    pub fn try_imap_unordered<F, I, X, B>(self, task: F, input: I) -> Imap<'p, I::IntoIter, B>
    where
        I: IntoIterator,
        F: TaskOver<Fallible<Each<Vec<I::Item>>>, X, S, P, Value = B>,
    {
        self.stream::<F, _, X, I>(task, input, false)
    }

    /// As [`Pool::try_istarmap`], with the options of this batch.
    pub fn try_istarmap<F, I, X, B>(self, task: F, input: I) -> Imap<'p, I::IntoIter, B>
    where
        I: IntoIterator,
        F: TaskOver<Fallible<Star<Vec<I::Item>>>, X, S, P, Value = B>,
    {
        self.stream::<F, _, X, I>(task, input, true)
    }

    /// As [`Pool::try_istarmap_unordered`], with the options of this batch.
    pub fn try_istarmap_unordered<F, I, X, B>(self, task: F, input: I) -> Imap<'p, I::IntoIter, B>
    where
        I: IntoIterator,
        F: TaskOver<Fallible<Star<Vec<I::Item>>>, X, S, P, Value = B>,
    {
        self.stream::<F, _, X, I>(task, input, false)
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
    pub fn imap<F, I, X, B>(&self, task: F, input: I) -> Imap<'_, I::IntoIter, B>
    where
        I: IntoIterator,
        F: TaskOver<Each<Vec<I::Item>>, X, S, Value = B>,
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
    pub fn imap_unordered<F, I, X, B>(&self, task: F, input: I) -> Imap<'_, I::IntoIter, B>
    where
        I: IntoIterator,
        F: TaskOver<Each<Vec<I::Item>>, X, S, Value = B>,
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
    pub fn istarmap<F, I, X, B>(&self, task: F, input: I) -> Imap<'_, I::IntoIter, B>
    where
        I: IntoIterator,
        F: TaskOver<Star<Vec<I::Item>>, X, S, Value = B>,
    {
        self.batch().istarmap(task, input)
    }

    /// As [`istarmap`](Self::istarmap), and the results come in the order in which blocks are finished.
    pub fn istarmap_unordered<F, I, X, B>(&self, task: F, input: I) -> Imap<'_, I::IntoIter, B>
    where
        I: IntoIterator,
        F: TaskOver<Star<Vec<I::Item>>, X, S, Value = B>,
    {
        self.batch().istarmap_unordered(task, input)
    }

    /// As [`imap`](Self::imap), for a task that returns a `Result`; see [`try_map`](Self::try_map).
    pub fn try_imap<F, I, X, B>(&self, task: F, input: I) -> Imap<'_, I::IntoIter, B>
    where
        I: IntoIterator,
        F: TaskOver<Fallible<Each<Vec<I::Item>>>, X, S, Value = B>,
    {
        self.batch().try_imap(task, input)
    }

    /// As [`imap_unordered`](Self::imap_unordered), for a task that returns a `Result`; see [`try_map`](Self::try_map).
    pub fn try_imap_unordered<F, I, X, B>(&self, task: F, input: I) -> Imap<'_, I::IntoIter, B>
    where
        I: IntoIterator,
        F: TaskOver<Fallible<Each<Vec<I::Item>>>, X, S, Value = B>,
    {
        self.batch().try_imap_unordered(task, input)
    }

    /// As [`istarmap`](Self::istarmap), for a task that returns a `Result`; see [`try_map`](Self::try_map).
    pub fn try_istarmap<F, I, X, B>(&self, task: F, input: I) -> Imap<'_, I::IntoIter, B>
    where
        I: IntoIterator,
        F: TaskOver<Fallible<Star<Vec<I::Item>>>, X, S, Value = B>,
    {
        self.batch().try_istarmap(task, input)
    }

    /// As [`istarmap_unordered`](Self::istarmap_unordered), for a task that returns a `Result`; see [`try_map`](Self::try_map).
    pub fn try_istarmap_unordered<F, I, X, B>(&self, task: F, input: I) -> Imap<'_, I::IntoIter, B>
    where
        I: IntoIterator,
        F: TaskOver<Fallible<Star<Vec<I::Item>>>, X, S, Value = B>,
    {
        self.batch().try_istarmap_unordered(task, input)
    }
}
