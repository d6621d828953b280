//! `map_chunks`: the task gets a whole chunk.

use bytemuck::Pod;
use swathe_memory::Array;
use swathe_runtime::{JobTraits, TaskRef};

use crate::{
    Batch, Pool, Result,
    call::{
        callbacks::OnSuccess,
        mode::Mode,
        plan::{Encoded, Plan, align_of_chunks},
        ready::Ready,
    },
    cross::{
        arg::{Chunk, ChunkMut},
        column::Sliced,
        input::Input,
        item::Lowered,
        parameters::Parameters,
        task::Task,
    },
    lower::{self, Direct, Fallible, Finish, Output, wire::Encoder},
};

impl<'p, S: 'static, W: Parameters, E: Mode, C> Batch<'p, S, W, E, C> {
    /// As [`Pool::map_chunks`], with the options of this batch.
    pub fn map_chunks<F, I, K, A, B, M>(self, task: F, input: I) -> Result<E::Of<Array<B>>>
    where
        A: Pod + Send + Sync,
        B: Pod + Send + Sync,
        I: Input<K, Column = Sliced<A>>,
        F: Task<S, W::Value, (Chunk<A>, ChunkMut<B>), M, Output = ()>,
        C: OnSuccess<E::Shown<Array<B>>>,
    {
        self.prepare_chunks::<F, I, K, A, B, M, Direct>(task, input)?
            .wait(E::show)
    }

    /// As [`Pool::try_map_chunks`], with the options of this batch.
    pub fn try_map_chunks<F, I, K, A, B, M, X>(self, task: F, input: I) -> Result<E::Of<Array<B>>>
    where
        A: Pod + Send + Sync,
        B: Pod + Send + Sync,
        I: Input<K, Column = Sliced<A>>,
        F: Task<S, W::Value, (Chunk<A>, ChunkMut<B>), M, Output = Result<(), X>>,
        X: Into<Box<dyn std::error::Error>>,
        C: OnSuccess<E::Shown<Array<B>>>,
    {
        self.prepare_chunks::<F, I, K, A, B, M, Fallible>(task, input)?
            .wait(E::show)
    }

    fn prepare_chunks<F, I, K, A, B, M, N>(
        mut self,
        task: F,
        input: I,
    ) -> Result<Ready<'p, E::Of<Array<B>>, C>>
    where
        A: Pod + Send + Sync,
        B: Pod + Send + Sync,
        I: Input<K, Column = Sliced<A>>,
        F: Task<S, W::Value, (Chunk<A>, ChunkMut<B>), M>,
        N: Finish<F::Output, Value = ()>,
    {
        let memory = self.engine.memory();
        let task = lower::chunks_task::<F, S, W, A, B, M, N>(task)?;
        self.engine.check()?;
        let mut lowered = input.lower(memory)?;
        lowered.keep.append(&mut self.parameters.keep);
        let (plan, output) = chunks_plan(task, lowered, &self.parameters, |len, wire| {
            Output::new_noting(memory, len, wire)
        })?;
        let conclude = move |outcome: &_| E::conclude(outcome, output.when_over(outcome));
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

/// A job of one call a chunk, with the slab that `output` makes: it is given the number of values, and says whether nobody
/// has left anything in it.
pub(crate) fn chunks_plan<B: Pod + Send + Sync>(
    task: TaskRef,
    lowered: Lowered,
    parameters: &Encoded,
    output: impl FnOnce(usize, &mut Encoder) -> Result<(Output<B>, bool)>,
) -> Result<(Plan, Output<B>)> {
    let mut inner = Encoder::default();
    inner.bytes(&parameters.bytes);
    let (output, is_fresh) = output(lowered.len as usize, &mut inner)?;
    inner.append(&lowered.wire);
    let mut wire = Encoder::default();
    wire.pod(&u64::from(is_fresh));
    wire.bytes(inner.as_bytes());
    let plan = Plan {
        task,
        positions: lowered.len,
        chunk_align: align_of_chunks::<B>(),
        wire,
        traits: JobTraits {
            whole_chunks: true,
            ..JobTraits::default()
        },
        in_place: None,
        durable: None,
        base: 0,
        heap_hint: 0,
        bytes: lowered.bytes as u64 + lowered.len * size_of::<B>() as u64,
        lends: parameters.lends,
        keep: Box::new((lowered.keep, output.clone())),
    };
    Ok((plan, output))
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
    pub fn map_chunks<F, I, K, A, B, M>(&self, task: F, input: I) -> Result<Array<B>>
    where
        A: Pod + Send + Sync,
        B: Pod + Send + Sync,
        I: Input<K, Column = Sliced<A>>,
        F: Task<S, (), (Chunk<A>, ChunkMut<B>), M, Output = ()>,
    {
        self.batch().map_chunks(task, input)
    }

    /// As [`map_chunks`](Self::map_chunks), for a task that returns a `Result<(), _>`; see [`try_map`](Self::try_map).
    ///
    /// # Errors
    /// As [`map`](Self::map).
    pub fn try_map_chunks<F, I, K, A, B, M, X>(&self, task: F, input: I) -> Result<Array<B>>
    where
        A: Pod + Send + Sync,
        B: Pod + Send + Sync,
        I: Input<K, Column = Sliced<A>>,
        F: Task<S, (), (Chunk<A>, ChunkMut<B>), M, Output = Result<(), X>>,
        X: Into<Box<dyn std::error::Error>>,
    {
        self.batch().try_map_chunks(task, input)
    }
}
