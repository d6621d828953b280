//! The verbs of a batch whose results lie in a file.

use std::{any::type_name, sync::Arc};

use bytemuck::Pod;
use swathe_memory::{Array, OutputElement, npy_header};
use swathe_protocol::status::MAX_CHUNK_LEN;
use swathe_runtime::{Chunking, Engine, EngineError, Job, TaskRef};

use crate::resume::{
    InFile,
    checkpoint::Checkpointer,
    error::OutputError,
    files::{OutputFiles, Wanted},
    format::{Head, Identity},
};
use crate::{
    Batch, Error, Pending, Result,
    call::{
        job::{align_of_chunks, chunks_job, map_job_to},
        mode::Mode,
        options::Options,
        ready::Ready,
    },
    cross::{
        callable::{Callable, ChunkCallable},
        column::{Columns, Sliced},
        digest::Digest,
        item::Lowered,
        kind::Plain,
        over::{ChunkTask, Each, EachRow, Fallible, Star, TaskOver},
        parameters::Parameters,
    },
    lower::{self, wire::Decoder},
};

/// Chunks a worker under automatic chunking: each is a word that says how far it is.
const CHUNKS_A_WORKER: u64 = 512;

/// Likewise, for tasks that take whole chunks: as many as without a file.
const LARGE_CHUNKS_A_WORKER: u64 = 16;

/// The files of a job.
struct File {
    output: OutputFiles,
    /// Where the values begin.
    data_offset: usize,
}

/// The verbs that can be resumed.
impl<'p, S: 'static, P: Parameters, E: Mode> Batch<'p, S, P, E, InFile> {
    /// As [`Pool::map`](crate::Pool::map), with the results in the file.
    ///
    /// # Errors
    /// As there, and [`Error::Output`].
    pub fn map<F, I, X, B>(self, task: F, input: I) -> Result<E::Of<Array<B>>>
    where
        F: TaskOver<Each<I>, X, S, P, Value = B>,
        B: OutputElement,
    {
        self.prepare_file(task, Each(input))?.wait(E::show)
    }

    /// As [`map`](Self::map), and does not wait.
    ///
    /// # Errors
    /// As [`Pool::map_async`](crate::Pool::map_async), and [`Error::Output`].
    pub fn map_async<F, I, X, B>(self, task: F, input: I) -> Result<Pending<E::Of<Array<B>>>>
    where
        F: TaskOver<Each<I>, X, S, P, Value = B>,
        B: OutputElement,
    {
        self.prepare_file(task, Each(input))?.start(E::show)
    }

    /// As [`Pool::try_map`](crate::Pool::try_map), with the results in the file.
    ///
    /// # Errors
    /// As there, and [`Error::Output`].
    pub fn try_map<F, I, X, B>(self, task: F, input: I) -> Result<E::Of<Array<B>>>
    where
        F: TaskOver<Fallible<Each<I>>, X, S, P, Value = B>,
        B: OutputElement,
    {
        self.prepare_file(task, Fallible(Each(input)))?.wait(E::show)
    }

    /// As [`try_map`](Self::try_map), and does not wait.
    ///
    /// # Errors
    /// As [`Pool::map_async`](crate::Pool::map_async), and [`Error::Output`].
    pub fn try_map_async<F, I, X, B>(self, task: F, input: I) -> Result<Pending<E::Of<Array<B>>>>
    where
        F: TaskOver<Fallible<Each<I>>, X, S, P, Value = B>,
        B: OutputElement,
    {
        self.prepare_file(task, Fallible(Each(input)))?.start(E::show)
    }

    /// As [`Pool::starmap`](crate::Pool::starmap), with the results in the file.
    ///
    /// # Errors
    /// As there, and [`Error::Output`].
    pub fn starmap<F, I, X, B>(self, task: F, input: I) -> Result<E::Of<Array<B>>>
    where
        F: TaskOver<Star<I>, X, S, P, Value = B>,
        B: OutputElement,
    {
        self.prepare_file(task, Star(input))?.wait(E::show)
    }

    /// As [`starmap`](Self::starmap), and does not wait.
    ///
    /// # Errors
    /// As [`Pool::starmap_async`](crate::Pool::starmap_async), and [`Error::Output`].
    pub fn starmap_async<F, I, X, B>(self, task: F, input: I) -> Result<Pending<E::Of<Array<B>>>>
    where
        F: TaskOver<Star<I>, X, S, P, Value = B>,
        B: OutputElement,
    {
        self.prepare_file(task, Star(input))?.start(E::show)
    }

    /// As [`Pool::try_starmap`](crate::Pool::try_starmap), with the results in the file.
    ///
    /// # Errors
    /// As there, and [`Error::Output`].
    pub fn try_starmap<F, I, X, B>(self, task: F, input: I) -> Result<E::Of<Array<B>>>
    where
        F: TaskOver<Fallible<Star<I>>, X, S, P, Value = B>,
        B: OutputElement,
    {
        self.prepare_file(task, Fallible(Star(input)))?.wait(E::show)
    }

    /// As [`try_starmap`](Self::try_starmap), and does not wait.
    ///
    /// # Errors
    /// As [`Pool::starmap_async`](crate::Pool::starmap_async), and [`Error::Output`].
    pub fn try_starmap_async<F, I, X, B>(self, task: F, input: I) -> Result<Pending<E::Of<Array<B>>>>
    where
        F: TaskOver<Fallible<Star<I>>, X, S, P, Value = B>,
        B: OutputElement,
    {
        self.prepare_file(task, Fallible(Star(input)))?.start(E::show)
    }

    /// As [`Pool::map_rows`](crate::Pool::map_rows), with the results in the file.
    ///
    /// # Errors
    /// As there, and [`Error::Output`].
    pub fn map_rows<F, T, X, B>(self, task: F, array: &Array<T>, axis: usize) -> Result<E::Of<Array<B>>>
    where
        T: Pod,
        F: TaskOver<EachRow<T>, X, S, P, Value = B>,
        B: OutputElement,
    {
        let rows = EachRow {
            array: array.clone(),
            axis,
        };
        self.prepare_file(task, rows)?.wait(E::show)
    }

    /// As [`Pool::try_map_rows`](crate::Pool::try_map_rows), with the results in the file.
    ///
    /// # Errors
    /// As there, and [`Error::Output`].
    pub fn try_map_rows<F, T, X, B>(self, task: F, array: &Array<T>, axis: usize) -> Result<E::Of<Array<B>>>
    where
        T: Pod,
        F: TaskOver<Fallible<EachRow<T>>, X, S, P, Value = B>,
        B: OutputElement,
    {
        let rows = EachRow {
            array: array.clone(),
            axis,
        };
        self.prepare_file(task, Fallible(rows))?.wait(E::show)
    }

    /// As [`Pool::map_chunks`](crate::Pool::map_chunks), with the results in the file. A chunk that was not done as a whole is
    /// done again as a whole.
    ///
    /// # Errors
    /// As there, and [`Error::Output`].
    pub fn map_chunks<F, I, X, B>(self, task: F, input: I) -> Result<E::Of<Array<B>>>
    where
        F: ChunkTask<Each<I>, X, S, P, Element = B>,
        B: OutputElement,
    {
        self.prepare_file_chunks(task, Each(input))?.wait(E::show)
    }

    /// As [`Pool::try_map_chunks`](crate::Pool::try_map_chunks), with the results in the file; see
    /// [`map_chunks`](Self::map_chunks).
    ///
    /// # Errors
    /// As there, and [`Error::Output`].
    pub fn try_map_chunks<F, I, X, B>(self, task: F, input: I) -> Result<E::Of<Array<B>>>
    where
        F: ChunkTask<Fallible<Each<I>>, X, S, P, Element = B>,
        B: OutputElement,
    {
        self.prepare_file_chunks(task, Fallible(Each(input)))?
            .wait(E::show)
    }

    fn prepare_file<F, In, X>(mut self, task: F, input: In) -> Result<Ready<'p, E::Of<Array<F::Value>>>>
    where
        F: TaskOver<In, X, S, P, Value: OutputElement>,
    {
        self.call.engine.check()?;
        let mut lowered = F::lower(input, self.call.engine.memory())?;
        let task = lower::map_task::<F::Bound, S, P, Plain>(task)?;
        let file =
            self.open_file::<F, <F::Bound as Callable<S, P>>::Columns, F::Value>(task, &lowered, false)?;
        let parameters = &mut self.call.parameters;
        lowered.lends |= parameters.lends;
        lowered.keep.append(&mut parameters.keep);
        let values = file.output.values.clone();
        let (job, output) = map_job_to::<F::Value, Plain>(
            &self.call.options,
            task,
            lowered,
            &parameters.bytes,
            |len, wire| lower::Output::in_file(values, file.data_offset, len, wire),
        )?;
        self.finish_file(file, job, output)
    }

    fn prepare_file_chunks<F, In, X>(
        mut self,
        task: F,
        input: In,
    ) -> Result<Ready<'p, E::Of<Array<F::Element>>>>
    where
        F: ChunkTask<In, X, S, P, Element: OutputElement>,
    {
        self.call.engine.check()?;
        let lowered = F::lower(input, self.call.engine.memory())?;
        let task = lower::chunks_task::<F::Bound, S, P>(task)?;
        let file = self.open_file::<F, (Sliced<<F::Bound as ChunkCallable<S, P>>::Given>,), F::Element>(
            task, &lowered, true,
        )?;
        let values = file.output.values.clone();
        let parameters = std::mem::take(&mut self.call.parameters);
        let (job, output) = chunks_job(&self.call.options, task, lowered, parameters, |len, wire| {
            // An earlier run may have left a chunk half done there.
            lower::Output::in_file(values, file.data_offset, len, wire).map(|output| (output, false))
        })?;
        self.finish_file(file, job, output)
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
            seed: self.call.options.seed,
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
            &self.call.options,
            lowered.len,
            align_of_chunks::<B>(),
            chunks,
            self.call.engine,
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
        mut job: Job,
        output: lower::Output<B>,
    ) -> Result<Ready<'p, E::Of<Array<B>>>> {
        let file = file.output;
        let layout = file.progress_file.layout;
        let restored = file.progress_file.restored() - file.redo.len() as u64;
        job.durable = Some(lower::handles::durable(
            file.progress,
            layout.status,
            layout.failed,
            file.redo,
        ));
        job.chunking = Chunking::Size(layout.chunk_len);
        let checkpointer = Arc::new(Checkpointer::start(file.progress_file)?);
        let finish = checkpointer.clone();
        let conclude = move |outcome: &Arc<_>| {
            checkpointer.conclude(outcome)?;
            E::conclude(outcome, output.when_over(outcome))
        };
        let ready = Ready::new(self.call.engine, job, self.call.callbacks, conclude);
        Ok(ready.finished_by(finish, restored))
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
        P::digest(
            &self.call.parameters.bytes,
            self.call.parameters.lends,
            &mut parameters,
        )
        .map_err(incomparable)?;
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
