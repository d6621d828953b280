//! `map_chunks`: the task gets a whole chunk.

use bytemuck::Pod;
use swathe_memory::Array;

use crate::{
    Batch, Pool, Result,
    call::{batch::Call, job::chunks_job, mode::Mode, ready::Ready},
    cross::{
        over::{ChunkTask, Each, Fallible},
        parameters::Parameters,
    },
    lower::{self, Output},
};

impl<'p, S: 'static, P: Parameters, E: Mode> Batch<'p, S, P, E> {
    /// As [`Pool::map_chunks`], with the options of this batch.
    pub fn map_chunks<F, I, X, B>(self, task: F, input: I) -> Result<E::Of<Array<B>>>
    where
        F: ChunkTask<Each<I>, X, S, P, Element = B>,
        B: Pod + Send + Sync,
    {
        self.prepare_chunks(task, Each(input))?.wait(E::show)
    }

    /// As [`Pool::try_map_chunks`], with the options of this batch.
    pub fn try_map_chunks<F, I, X, B>(self, task: F, input: I) -> Result<E::Of<Array<B>>>
    where
        F: ChunkTask<Fallible<Each<I>>, X, S, P, Element = B>,
        B: Pod + Send + Sync,
    {
        self.prepare_chunks(task, Fallible(Each(input)))?.wait(E::show)
    }

    fn prepare_chunks<F, In, X>(self, task: F, input: In) -> Result<Ready<'p, E::Of<Array<F::Element>>>>
    where
        F: ChunkTask<In, X, S, P>,
    {
        let Call {
            engine,
            options,
            parameters,
            callbacks,
        } = self.call;
        engine.check()?;
        let lowered = F::lower(input, engine.memory())?;
        let task = lower::chunks_task::<F::Bound, S, P>(task)?;
        let (job, output) = chunks_job(&options, task, lowered, parameters, |len, wire| {
            Output::new_noting(engine.memory(), len, wire)
        })?;
        let conclude = move |outcome: &_| E::conclude(outcome, output.when_over(outcome));
        Ok(Ready::new(engine, job, callbacks, conclude))
    }
}

impl<S: 'static> Pool<S> {
    /// Calls the task with whole chunks: a slice of the input, and the slice of the output that belongs to it. For
    /// tasks that work on many elements at once.
    ///
    /// Input and output are plain data of equal length. The chunks are cut as
    /// [`chunk_size`](Batch::chunk_size) says. The output slice holds zeros at first. A chunk fails as a whole.
    ///
    /// ```
    /// use swathe::Pool;
    ///
    /// fn cumulate(x: &[f64], sums: &mut [f64]) {
    ///     let mut sum = 0.0;
    ///     for (x, out) in x.iter().zip(sums) {
    ///         sum += x;
    ///         *out = sum;
    ///     }
    /// }
    ///
    /// fn main() -> swathe::Result<()> {
    ///     swathe::init();
    ///     let pool = Pool::builder().processes(2).build()?;
    ///     let sums = pool.batch().chunk_size(3).map_chunks(cumulate, [1.0; 5])?;
    ///     assert_eq!(sums, [1.0, 2.0, 3.0, 1.0, 2.0]);
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`map`](Self::map).
    pub fn map_chunks<F, I, X, B>(&self, task: F, input: I) -> Result<Array<B>>
    where
        F: ChunkTask<Each<I>, X, S, Element = B>,
        B: Pod + Send + Sync,
    {
        self.batch().map_chunks(task, input)
    }

    /// As [`map_chunks`](Self::map_chunks), for a task that returns a `Result<(), _>`; see [`try_map`](Self::try_map).
    ///
    /// # Errors
    /// As [`map`](Self::map).
    pub fn try_map_chunks<F, I, X, B>(&self, task: F, input: I) -> Result<Array<B>>
    where
        F: ChunkTask<Fallible<Each<I>>, X, S, Element = B>,
        B: Pod + Send + Sync,
    {
        self.batch().try_map_chunks(task, input)
    }
}
