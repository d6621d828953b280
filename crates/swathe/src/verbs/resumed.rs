//! The verbs of a batch whose results lie in a file.

use std::{any::type_name, sync::Arc};

use bytemuck::Pod;
use swathe_memory::{Array, Memory, OutputElement, npy_header};
use swathe_protocol::status::MAX_CHUNK_LEN;
use swathe_runtime::{Chunking, Engine, EngineError, TaskRef};

use crate::resume::{
    InFile,
    checkpoint::Checkpointer,
    error::OutputError,
    files::{Output, Wanted},
    format::{Head, Identity},
};
use crate::{
    Batch, Error, Pending, Result,
    call::{
        callbacks::OnSuccess,
        mode::Mode,
        options::Options,
        plan::{Begun, Plan, align_of_chunks},
        ready::Ready,
    },
    cross::{
        arg::{Chunk, ChunkMut, Row},
        column::{Columns, RowsOf, Sliced},
        digest::Digest,
        input::{Input, StarInput},
        item::Lowered,
        kind::Plain,
        parameters::Parameters,
        task::Task,
    },
    lower::{self, Direct, Fallible, Finish, wire::Decoder},
    verbs::{
        chunks::chunks_plan,
        map::{ArgsOf, StarArgsOf},
        rows::lower_rows,
    },
};

/// Chunks a worker under automatic chunking: each is a word that says how far it is.
const CHUNKS_A_WORKER: u64 = 512;

/// Likewise, for tasks that take whole chunks: as many as without a file.
const LARGE_CHUNKS_A_WORKER: u64 = 16;

/// The files of a job.
struct File {
    output: Output,
    /// Where the values begin.
    data_offset: usize,
}

/// The verbs that can be resumed.
impl<'p, S: 'static, W: Parameters, E: Mode, C> Batch<'p, S, W, E, C, InFile> {
    /// As [`Pool::map`](crate::Pool::map), with the results in the file.
    ///
    /// # Errors
    /// As there, and [`Error::Output`].
    pub fn map<F, I, K, M, B>(self, task: F, input: I) -> Result<E::Of<Array<B>>>
    where
        I: Input<K>,
        F: Task<S, W::Value, ArgsOf<I, K>, M, Output = B>,
        B: OutputElement,
        C: OnSuccess<E::Shown<Array<B>>>,
    {
        self.prepare_file::<F, (I::Column,), M, Direct, B>(task, |memory| input.lower(memory))?
            .wait(E::show)
    }

    /// As [`map`](Self::map), and does not wait.
    ///
    /// # Errors
    /// As [`Pool::map_async`](crate::Pool::map_async), and [`Error::Output`].
    pub fn map_async<F, I, K, M, B>(self, task: F, input: I) -> Result<Pending<E::Of<Array<B>>>>
    where
        I: Input<K>,
        F: Task<S, W::Value, ArgsOf<I, K>, M, Output = B>,
        B: OutputElement,
        C: OnSuccess<E::Shown<Array<B>>>,
    {
        self.prepare_file::<F, (I::Column,), M, Direct, B>(task, |memory| input.lower(memory))?
            .start(E::show)
    }

    /// As [`Pool::try_map`](crate::Pool::try_map), with the results in the file.
    ///
    /// # Errors
    /// As there, and [`Error::Output`].
    pub fn try_map<F, I, K, M, B, X>(self, task: F, input: I) -> Result<E::Of<Array<B>>>
    where
        I: Input<K>,
        F: Task<S, W::Value, ArgsOf<I, K>, M, Output = Result<B, X>>,
        B: OutputElement,
        X: Into<Box<dyn std::error::Error>>,
        C: OnSuccess<E::Shown<Array<B>>>,
    {
        self.prepare_file::<F, (I::Column,), M, Fallible, B>(task, |memory| input.lower(memory))?
            .wait(E::show)
    }

    /// As [`try_map`](Self::try_map), and does not wait.
    ///
    /// # Errors
    /// As [`Pool::map_async`](crate::Pool::map_async), and [`Error::Output`].
    pub fn try_map_async<F, I, K, M, B, X>(self, task: F, input: I) -> Result<Pending<E::Of<Array<B>>>>
    where
        I: Input<K>,
        F: Task<S, W::Value, ArgsOf<I, K>, M, Output = Result<B, X>>,
        B: OutputElement,
        X: Into<Box<dyn std::error::Error>>,
        C: OnSuccess<E::Shown<Array<B>>>,
    {
        self.prepare_file::<F, (I::Column,), M, Fallible, B>(task, |memory| input.lower(memory))?
            .start(E::show)
    }

    /// As [`Pool::starmap`](crate::Pool::starmap), with the results in the file.
    ///
    /// # Errors
    /// As there, and [`Error::Output`].
    pub fn starmap<F, I, K, M, B>(self, task: F, input: I) -> Result<E::Of<Array<B>>>
    where
        I: StarInput<K>,
        F: Task<S, W::Value, StarArgsOf<I, K>, M, Output = B>,
        B: OutputElement,
        C: OnSuccess<E::Shown<Array<B>>>,
    {
        self.prepare_file::<F, I::Columns, M, Direct, B>(task, |memory| input.lower(memory))?
            .wait(E::show)
    }

    /// As [`starmap`](Self::starmap), and does not wait.
    ///
    /// # Errors
    /// As [`Pool::starmap_async`](crate::Pool::starmap_async), and [`Error::Output`].
    pub fn starmap_async<F, I, K, M, B>(self, task: F, input: I) -> Result<Pending<E::Of<Array<B>>>>
    where
        I: StarInput<K>,
        F: Task<S, W::Value, StarArgsOf<I, K>, M, Output = B>,
        B: OutputElement,
        C: OnSuccess<E::Shown<Array<B>>>,
    {
        self.prepare_file::<F, I::Columns, M, Direct, B>(task, |memory| input.lower(memory))?
            .start(E::show)
    }

    /// As [`Pool::try_starmap`](crate::Pool::try_starmap), with the results in the file.
    ///
    /// # Errors
    /// As there, and [`Error::Output`].
    pub fn try_starmap<F, I, K, M, B, X>(self, task: F, input: I) -> Result<E::Of<Array<B>>>
    where
        I: StarInput<K>,
        F: Task<S, W::Value, StarArgsOf<I, K>, M, Output = Result<B, X>>,
        B: OutputElement,
        X: Into<Box<dyn std::error::Error>>,
        C: OnSuccess<E::Shown<Array<B>>>,
    {
        self.prepare_file::<F, I::Columns, M, Fallible, B>(task, |memory| input.lower(memory))?
            .wait(E::show)
    }

    /// As [`try_starmap`](Self::try_starmap), and does not wait.
    ///
    /// # Errors
    /// As [`Pool::starmap_async`](crate::Pool::starmap_async), and [`Error::Output`].
    pub fn try_starmap_async<F, I, K, M, B, X>(self, task: F, input: I) -> Result<Pending<E::Of<Array<B>>>>
    where
        I: StarInput<K>,
        F: Task<S, W::Value, StarArgsOf<I, K>, M, Output = Result<B, X>>,
        B: OutputElement,
        X: Into<Box<dyn std::error::Error>>,
        C: OnSuccess<E::Shown<Array<B>>>,
    {
        self.prepare_file::<F, I::Columns, M, Fallible, B>(task, |memory| input.lower(memory))?
            .start(E::show)
    }

    /// As [`Pool::map_rows`](crate::Pool::map_rows), with the results in the file.
    ///
    /// # Errors
    /// As there, and [`Error::Output`].
    pub fn map_rows<F, T, M, B>(self, task: F, array: &Array<T>, axis: usize) -> Result<E::Of<Array<B>>>
    where
        T: Pod + Send + Sync,
        F: Task<S, W::Value, (Row<T>,), M, Output = B>,
        B: OutputElement,
        C: OnSuccess<E::Shown<Array<B>>>,
    {
        self.prepare_file::<F, (RowsOf<T>,), M, Direct, B>(task, |_| lower_rows(array, axis))?
            .wait(E::show)
    }

    /// As [`Pool::try_map_rows`](crate::Pool::try_map_rows), with the results in the file.
    ///
    /// # Errors
    /// As there, and [`Error::Output`].
    pub fn try_map_rows<F, T, M, B, X>(
        self,
        task: F,
        array: &Array<T>,
        axis: usize,
    ) -> Result<E::Of<Array<B>>>
    where
        T: Pod + Send + Sync,
        F: Task<S, W::Value, (Row<T>,), M, Output = Result<B, X>>,
        B: OutputElement,
        X: Into<Box<dyn std::error::Error>>,
        C: OnSuccess<E::Shown<Array<B>>>,
    {
        self.prepare_file::<F, (RowsOf<T>,), M, Fallible, B>(task, |_| lower_rows(array, axis))?
            .wait(E::show)
    }

    /// As [`Pool::map_chunks`](crate::Pool::map_chunks), with the results in the file. A chunk that was not done as a whole is
    /// done again as a whole.
    ///
    /// # Errors
    /// As there, and [`Error::Output`].
    pub fn map_chunks<F, I, K, A, B, M>(self, task: F, input: I) -> Result<E::Of<Array<B>>>
    where
        A: Pod + Send + Sync,
        B: OutputElement,
        I: Input<K, Column = Sliced<A>>,
        F: Task<S, W::Value, (Chunk<A>, ChunkMut<B>), M, Output = ()>,
        C: OnSuccess<E::Shown<Array<B>>>,
    {
        self.prepare_file_chunks::<F, I, K, A, B, M, Direct>(task, input)?
            .wait(E::show)
    }

    /// As [`Pool::try_map_chunks`](crate::Pool::try_map_chunks), with the results in the file; see
    /// [`map_chunks`](Self::map_chunks).
    ///
    /// # Errors
    /// As there, and [`Error::Output`].
    pub fn try_map_chunks<F, I, K, A, B, M, X>(self, task: F, input: I) -> Result<E::Of<Array<B>>>
    where
        A: Pod + Send + Sync,
        B: OutputElement,
        I: Input<K, Column = Sliced<A>>,
        F: Task<S, W::Value, (Chunk<A>, ChunkMut<B>), M, Output = Result<(), X>>,
        X: Into<Box<dyn std::error::Error>>,
        C: OnSuccess<E::Shown<Array<B>>>,
    {
        self.prepare_file_chunks::<F, I, K, A, B, M, Fallible>(task, input)?
            .wait(E::show)
    }

    fn prepare_file<F, Cols, M, N, B>(
        mut self,
        task: F,
        lower: impl FnOnce(&Memory) -> Result<Lowered>,
    ) -> Result<Ready<'p, E::Of<Array<B>>, C>>
    where
        F: Task<S, W::Value, Cols::Args, M>,
        Cols: Columns,
        N: Finish<F::Output, Value = B>,
        B: OutputElement,
    {
        self.engine.check()?;
        let mut lowered = lower(self.engine.memory())?;
        let code = lower::map_task::<F, S, W, Cols, M, N, Plain>(task)?;
        let file = self.open_file::<F, Cols, B>(code, &lowered, false)?;
        lowered.lends |= self.parameters.lends;
        lowered.keep.append(&mut self.parameters.keep);
        let values = file.output.values.clone();
        let (plan, output) = Plan::of_map_to::<F, S, W, Cols, M, N, Plain>(
            task,
            lowered,
            &self.parameters.bytes,
            |len, wire| lower::Output::in_file(values, file.data_offset, len, wire),
        )?;
        self.finish_file(file, plan, output)
    }

    fn prepare_file_chunks<F, I, K, A, B, M, N>(
        mut self,
        task: F,
        input: I,
    ) -> Result<Ready<'p, E::Of<Array<B>>, C>>
    where
        A: Pod + Send + Sync,
        B: OutputElement,
        I: Input<K, Column = Sliced<A>>,
        F: Task<S, W::Value, (Chunk<A>, ChunkMut<B>), M>,
        N: Finish<F::Output, Value = ()>,
    {
        self.engine.check()?;
        let mut lowered = input.lower(self.engine.memory())?;
        let code = lower::chunks_task::<F, S, W, A, B, M, N>(task)?;
        let file = self.open_file::<F, (Sliced<A>,), B>(code, &lowered, true)?;
        lowered.keep.append(&mut self.parameters.keep);
        let values = file.output.values.clone();
        let (plan, output) = chunks_plan(code, lowered, &self.parameters, |len, wire| {
            // An earlier run may have left a chunk half done there.
            lower::Output::in_file(values, file.data_offset, len, wire).map(|output| (output, false))
        })?;
        self.finish_file(file, plan, output)
    }

    /// Begins the files of a job, or goes on with them. A task that takes whole chunks has larger ones.
    fn open_file<F, Cols: Columns, B: OutputElement>(
        &self,
        code: TaskRef,
        lowered: &Lowered,
        whole_chunks: bool,
    ) -> Result<File> {
        let (input, parameters) = self.fingerprints::<Cols>(lowered)?;
        let header = npy_header::<B>(lowered.len as usize);
        let identity = Identity {
            positions: lowered.len,
            element: &B::dtype().to_string(),
            seed: self.options.seed,
            input,
            parameters,
            task_name: type_name::<F>(),
            task_version: self.output.task_version.as_deref(),
            code: &code_id(code),
        };
        let chunks = if whole_chunks {
            LARGE_CHUNKS_A_WORKER
        } else {
            CHUNKS_A_WORKER
        };
        let chunk_len = chunk_len(
            &self.options,
            lowered.len,
            align_of_chunks::<B>(),
            chunks,
            self.engine,
        )?;
        let data_offset = header.len();
        let wanted = Wanted {
            path: &self.output.path,
            head: Head::new(&identity, chunk_len),
            value_size: size_of::<B>(),
            header,
            whole_chunks,
            unlocked: self.output.unlocked,
        };
        Ok(File {
            output: wanted.open()?,
            data_offset,
        })
    }

    /// The job over its files.
    fn finish_file<B: OutputElement>(
        self,
        file: File,
        mut plan: Plan,
        output: lower::Output<B>,
    ) -> Result<Ready<'p, E::Of<Array<B>>, C>> {
        let file = file.output;
        let layout = file.progress_file.layout;
        plan.durable = Some(Begun {
            restored: file.progress_file.restored() - file.redo.len() as u64,
            durable: lower::handles::durable(file.progress, layout.status, layout.failed, file.redo),
        });
        let mut options = self.options;
        options.chunking = Chunking::Size(layout.chunk_len);
        let checkpointer = Arc::new(Checkpointer::start(file.progress_file)?);
        let finish = checkpointer.clone();
        let conclude = move |outcome: &Arc<_>| {
            checkpointer.conclude(outcome)?;
            E::conclude(outcome, output.when_over(outcome))
        };
        let ready = Ready::new(
            self.engine,
            options,
            plan,
            conclude,
            self.on_success,
            self.on_error,
        );
        Ok(ready.finished_by(finish))
    }

    /// Of the input and of the parameters: what the workers will read, by content.
    fn fingerprints<Cols: Columns>(&self, lowered: &Lowered) -> Result<([u64; 2], [u64; 2])> {
        let incomparable = |message| OutputError::Incomparable {
            path: self.output.path.clone(),
            message,
        };
        let mut input = Digest::new();
        Cols::attach(&mut Decoder::new(lowered.wire.as_bytes()))
            .and_then(|columns| columns.digest(lowered.lends, &mut input))
            .map_err(incomparable)?;
        let mut parameters = Digest::new();
        W::digest(&self.parameters.bytes, self.parameters.lends, &mut parameters).map_err(incomparable)?;
        Ok((input.finish(), parameters.finish()))
    }
}

/// The build of the program, and where in it a task is. Two closures of one function have the same name.
fn code_id(task: TaskRef) -> Vec<u8> {
    let place = format!("{task:?}");
    [&swathe_os::image::build_id()[..], place.as_bytes()].concat()
}

/// How many positions a chunk has, if the file does not say so already; refused where the engine would refuse it, but
/// before there is a file.
fn chunk_len(
    options: &Options,
    positions: u64,
    align: u64,
    chunks_a_worker: u64,
    engine: &Engine,
) -> Result<u64> {
    let workers = engine.processes().max(1) as u64;
    let len = match options.chunking {
        Chunking::Size(0) => return Err(EngineError::ZeroChunk.into()),
        Chunking::Size(asked) if asked.min(positions) > MAX_CHUNK_LEN => {
            return Err(EngineError::ChunkTooLong {
                asked,
                max: MAX_CHUNK_LEN,
            }
            .into());
        }
        Chunking::Size(asked) => asked,
        Chunking::Pool => positions.div_ceil(4 * workers),
        Chunking::Auto => match positions.div_ceil(chunks_a_worker * workers) {
            len if len > align => len.next_multiple_of(align),
            len => len,
        },
    };
    let len = len.clamp(1, MAX_CHUNK_LEN);
    let (chunks, max) = (positions.div_ceil(len), u64::from(u32::MAX - 1));
    if chunks > max {
        return Err(Error::from(EngineError::TooManyChunks { chunks, max }));
    }
    Ok(len)
}
