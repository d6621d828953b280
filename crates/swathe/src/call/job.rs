//! A call as the engine takes it.

use std::sync::Arc;

use bytemuck::Pod;
use swathe_memory::Memory;
use swathe_runtime::{Engine, Job, JobTraits, Outcome, TaskRef};

use crate::call::options::Options;
use crate::{
    Result,
    cross::{
        datum::Datum,
        item::{Keep, Lowered},
    },
    lower::{Output, wire::Encoder},
};

/// The parameters of a call, ready to cross.
#[derive(Default)]
pub(crate) struct Encoded {
    pub(crate) bytes: Vec<u8>,
    pub(crate) keep: Keep,
    /// Whether they hold arrays.
    pub(crate) lends: bool,
}

/// The slab of a job that returns `B`s.
pub(crate) type MapOutput<B, K> = Output<<B as Datum<K>>::Slot>;

/// A job of one call a position, with a slab of its own.
pub(crate) fn map_job<B: Datum<K>, K>(
    options: &Options,
    task: TaskRef,
    lowered: Lowered,
    parameters: &[u8],
    memory: &Memory,
) -> Result<(Job, MapOutput<B, K>)> {
    let output = |len, wire: &mut Encoder| Output::new(memory, len, wire);
    map_job_to::<B, K>(options, task, lowered, parameters, output)
}

/// As [`map_job`], with the slab that `output` makes: it is given the number of values.
pub(crate) fn map_job_to<B: Datum<K>, K>(
    options: &Options,
    task: TaskRef,
    lowered: Lowered,
    parameters: &[u8],
    output: impl FnOnce(usize, &mut Encoder) -> Result<MapOutput<B, K>>,
) -> Result<(Job, MapOutput<B, K>)> {
    let mut wire = Encoder::default();
    wire.bytes(parameters);
    // What has been lowered was counted in memory, or checked to fit.
    let values = lowered.len as usize;
    let output = output(values, &mut wire)?;
    wire.append(&lowered.wire);
    let job = Job {
        params: wire.into_bytes(),
        chunk_align: align_of_chunks::<B::Slot>(),
        heap_hint: heap_hint::<B, K>(values),
        bytes: lowered.bytes as u64 + lowered.len * size_of::<B::Slot>() as u64,
        lends: lowered.lends,
        keep: Box::new((lowered.keep, output.clone())),
        ..options.job(task, lowered.len)?
    };
    Ok((job, output))
}

/// A job of one call a chunk, with the slab that `output` makes: it is given the number of values, and says whether nobody
/// has left anything in it.
pub(crate) fn chunks_job<B: Pod + Send + Sync>(
    options: &Options,
    task: TaskRef,
    lowered: Lowered,
    parameters: Encoded,
    output: impl FnOnce(usize, &mut Encoder) -> Result<(Output<B>, bool)>,
) -> Result<(Job, Output<B>)> {
    let mut inner = Encoder::default();
    inner.bytes(&parameters.bytes);
    let (output, is_fresh) = output(lowered.len as usize, &mut inner)?;
    inner.append(&lowered.wire);
    let mut wire = Encoder::default();
    wire.pod(&u64::from(is_fresh));
    wire.bytes(inner.as_bytes());
    let job = options.job(task, lowered.len)?;
    let job = Job {
        params: wire.into_bytes(),
        chunk_align: align_of_chunks::<B>(),
        traits: JobTraits {
            whole_chunks: true,
            ..job.traits
        },
        bytes: lowered.bytes as u64 + lowered.len * size_of::<B>() as u64,
        lends: parameters.lends,
        keep: Box::new((lowered.keep, parameters.keep, output.clone())),
        ..job
    };
    Ok((job, output))
}

/// Submits a job, and waits for its end.
pub(crate) fn run(engine: &Engine, mut job: Job) -> Result<Arc<Outcome>> {
    job.traits.watched = true;
    let job = engine.submit(job)?;
    job.wait(None);
    Ok(job.outcome().expect("a job that is over has an outcome"))
}

/// Bytes of heap that so many values will probably take.
pub(crate) fn heap_hint<B: Datum<K>, K>(values: usize) -> usize {
    values.saturating_mul(B::HEAP).min(1 << 20)
}

/// Positions after which a chunk of the output may end, so that no two workers write to one cache line.
pub(crate) fn align_of_chunks<T: Pod>() -> u64 {
    const LINE: usize = 64;
    match size_of::<T>() {
        0 => 1,
        size if LINE.is_multiple_of(size) => (LINE / size) as u64,
        _ => 1,
    }
}
