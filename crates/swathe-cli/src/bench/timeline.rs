//! Who was at work when: one more run whose task writes down worker, start and end of every chunk.

use rustix::time::{ClockId, clock_gettime};
use swathe::{Context, Pool, SharedArray};

use super::{
    kernel::{Kernel, Step},
    run::BenchPlan,
};
use crate::failure::Result;

/// Into how many chunks the input is cut.
const CHUNKS: usize = 300;

/// A chunk's run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bar {
    pub(crate) worker: usize,
    /// Seconds since the job was submitted.
    pub(crate) start: f64,
    pub(crate) end: f64,
}

/// A run of the kernel, chunk by chunk.
pub(crate) struct Timeline {
    pub(crate) workers: usize,
    pub(crate) bars: Vec<Bar>,
    /// From submission until the caller had the result, seconds.
    pub(crate) wall: f64,
}

/// Words that a chunk writes: worker + 1, start, end.
const WORDS: usize = 3;

/// What the tasks are told: where to write, and how long a chunk is.
type Log = (SharedArray<u64>, u64);

/// Does a chunk's work and writes down when.
fn timed<S: Step>(log: &Log, context: &Context, xs: &[S::In], out: &mut [S::Out]) {
    let start = now();
    for (x, out) in xs.iter().zip(out) {
        *out = S::step(*x);
    }
    let end = now();
    let (words, size) = log;
    let first = WORDS * (context.position() / size) as usize;
    words.store(first, context.worker() as u64 + 1);
    words.store(first + 1, start);
    words.store(first + 2, end);
}

/// Nanoseconds of the clock that all processes share.
fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Runs the kernel once more on the largest pool.
pub(crate) fn timeline<S: Step>(kernel: &Kernel<S>, plan: &BenchPlan) -> Result<Timeline> {
    let workers = plan.most_processes();
    let pool = Pool::builder().processes(workers).build()?;
    let len = kernel.input.len();
    let size = len.div_ceil(CHUNKS);
    // Once to warm up: a picture of page faults and of processes that start would hide what is usual.
    drop(run(&pool, kernel, size)?);
    let (begin, log, end) = run(&pool, kernel, size)?;
    let seconds = |ns: u64| ns.saturating_sub(begin) as f64 / 1e9;
    let bars = log.chunks_exact(WORDS).filter(|words| words[0] > 0);
    Ok(Timeline {
        workers,
        bars: bars
            .map(|words| Bar {
                worker: words[0] as usize - 1,
                start: seconds(words[1]),
                end: seconds(words[2]),
            })
            .collect(),
        wall: seconds(end),
    })
}

/// One run: when it began, what was written down, when it was over.
fn run<S: Step>(pool: &Pool, kernel: &Kernel<S>, size: usize) -> Result<(u64, Vec<u64>, u64)> {
    let chunks = kernel.input.len().div_ceil(size);
    let log: Log = (SharedArray::zeros(WORDS * chunks)?, size as u64);
    let begin = now();
    let values = pool
        .batch()
        .chunk_size(size)
        .with(&log)?
        .map_chunks(timed::<S>, &kernel.input)?;
    let end = now();
    drop(values);
    Ok((begin, log.0.to_vec(), end))
}
