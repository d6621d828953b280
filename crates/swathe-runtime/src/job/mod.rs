//! Jobs as the engine sees them, and how they end.

pub(crate) mod report;
pub(crate) mod task;

use std::{any::Any, fmt, sync::Arc, time::Duration};

use swathe_memory::{Block, Segment, SegmentId};
use swathe_os::process::ExitCause;

use crate::job::{report::Report, task::TaskRef};

/// How positions are grouped into chunks: the unit that is claimed, published, and counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Chunking {
    /// Fine enough to balance (up to some thousand chunks); workers take many at a time while tasks are short.
    #[default]
    Auto,
    /// As Python's Pool does: `ceil(len / (4 * workers))`.
    Pool,
    /// This many positions a chunk.
    Size(u64),
}

/// Properties of a job that not every job has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JobTraits {
    /// Position `w` is run by worker `w`; there are as many positions as workers.
    pub pinned: bool,
    /// One chunk is one call of the task.
    pub whole_chunks: bool,
    /// Stop at the first failure.
    pub fail_fast: bool,
    /// Nobody waits for it in the submitting thread: the courier finishes it.
    pub attended: bool,
    /// The submitting thread waits for it at once: it may be left to a worker that is awake, because who waits wakes others
    /// if it is not soon over.
    pub watched: bool,
}

/// How often positions are tried again that returned an error, panicked or took too long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retries {
    /// Tries after the first.
    pub more: u32,
    /// How long failed positions wait before the first retry; twice as long before each further one.
    pub backoff: Duration,
    /// The longest wait.
    pub longest: Duration,
}

impl Retries {
    /// How long to wait after this many tries.
    pub(crate) fn wait_after(self, tries: u32) -> Duration {
        let doubled = 2u32.saturating_pow(tries.saturating_sub(1));
        self.backoff
            .saturating_mul(doubled)
            .min(self.longest.max(self.backoff))
    }
}

/// Memory that a job in place changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    pub(crate) segment: SegmentId,
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

#[expect(unsafe_code, reason = "the engine writes there for workers that have died")]
impl Region {
    /// `len` bytes of a segment, from byte `offset` on.
    ///
    /// # Safety
    /// From when a job that has the region is submitted until it is over, nobody in the process that submits it reads or
    /// writes these bytes: a copy of results that a worker had begun when it died is made once more, there.
    pub unsafe fn new(segment: SegmentId, offset: u64, len: u64) -> Self {
        Self { segment, offset, len }
    }

    /// How many bytes.
    pub fn bytes(&self) -> u64 {
        self.len
    }
}

/// Status words and failed bits that lie in a file and outlive the job: it goes on where they say that it was.
#[derive(Clone, Debug)]
pub struct Durable {
    /// The file, mapped to be written.
    pub(crate) segment: Arc<Segment>,
    /// Where a status word for each chunk lies in there, bytes. The job's chunking is [`Chunking::Size`], as it was when
    /// the words were made.
    pub(crate) status_offset: usize,
    /// Where a bit for each position lies: bit `i % 64` of word `i / 64` is set if position `i` is final and has no value.
    pub(crate) failed_offset: usize,
    /// Positions that are final there but are to be run again, ascending.
    pub(crate) redo: Vec<u64>,
}

#[expect(unsafe_code, reason = "the engine lays words over the segment")]
impl Durable {
    /// Words in a file that is mapped to be written.
    ///
    /// From byte `status_offset` on lies a status word for each chunk: the job's chunking is [`Chunking::Size`], as it was when
    /// the words were made. From byte `failed_offset` on lies a bit for each position: bit `i % 64` of word `i / 64` is set if
    /// position `i` is final and has no value. `redo` are positions that are final there but are to be run again, ascending.
    ///
    /// # Safety
    /// What [`SharedSlice::at`](swathe_memory::SharedSlice::at) asks, for both, until the job is over.
    pub unsafe fn new(
        segment: Arc<Segment>,
        status_offset: usize,
        failed_offset: usize,
        redo: Vec<u64>,
    ) -> Self {
        Self {
            segment,
            status_offset,
            failed_offset,
            redo,
        }
    }
}

/// What is called back when a job is over.
pub type OnDone = Box<dyn FnOnce(&Arc<Outcome>) + Send>;

/// An untyped job.
pub struct Job {
    /// What to run.
    pub task: TaskRef,
    /// Bytes of heap that its workers will probably need for variable-length results, 0 for none.
    pub heap_hint: usize,
    /// How many positions.
    pub positions: u64,
    /// How they are grouped.
    pub chunking: Chunking,
    /// Alignment of chunk borders, in positions (1 for none): chunks of at least this length are cut at multiples.
    pub chunk_align: u64,
    /// Bytes for the trampoline.
    pub params: Vec<u8>,
    /// Properties.
    pub traits: JobTraits,
    /// Seed of the per-position random generators.
    pub seed: u64,
    /// Added to positions in the caller's numbering.
    pub base: u64,
    /// After how many deaths a single position is given up, at least 1.
    pub max_deaths: u32,
    /// How often failed positions are tried again.
    pub retries: Retries,
    /// How long one element may take (one chunk, for a task that takes whole chunks): then its worker is killed.
    pub element_timeout: Option<Duration>,
    /// How long the job may take from now: then it is stopped, and what is still running is killed.
    pub timeout: Option<Duration>,
    /// The output lies over the input, here.
    pub in_place: Option<Region>,
    /// Its progress lies in a file.
    pub durable: Option<Durable>,
    /// Bytes of inputs and output, for reports.
    pub bytes: u64,
    /// Whether its bytes refer to arrays that a task may take out and hold on to.
    pub lends: bool,
    /// Inputs and outputs: kept until no worker can touch them any more.
    pub keep: Box<dyn Any + Send + Sync>,
    /// Called once on the callbacks' thread when the job is over.
    pub on_done: Option<OnDone>,
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("task", &self.task)
            .field("positions", &self.positions)
            .finish_non_exhaustive()
    }
}

/// What became of one position.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailureKind {
    /// The task returned an error.
    Error,
    /// The task panicked; the message ends with the source line.
    Panic,
    /// Its worker died while it ran, as often as the job allows.
    Lost(ExitCause),
    /// It took longer than the job allows, and its worker was killed.
    TimedOut,
}

/// One failed position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which, in the job's own numbering from 0.
    pub position: u64,
    /// How many positions failed together, from `position` on: more than 1 only for tasks that take a whole chunk.
    pub span: u64,
    /// What happened.
    pub kind: FailureKind,
    /// The error's text, the panic's message and line, or a dead worker's last words.
    pub message: Arc<str>,
    /// Number of the worker.
    pub worker: u32,
    /// Its process id.
    pub pid: u32,
    /// How often the position was started, as far as is known.
    pub attempts: u32,
    /// The most memory that its worker ever had resident, bytes, shared memory included; known of dead workers only.
    pub peak_memory: Option<u64>,
}

/// Why a job is over.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// Every position is final.
    Complete,
    /// [`crate::JobHandle::cancel`] was called.
    Cancelled,
    /// The job asked to stop at the first failure, and there was one.
    FailedFast,
    /// The job took longer than it may.
    TimedOut,
    /// The pool was terminated or dropped.
    Terminated,
    /// There was no memory left to go on with this job; the text says for what.
    Shortage(String),
    /// The pool cannot go on; the text says why.
    Broken(String),
    /// A worker could not begin it; the text says why. The pool goes on.
    CannotRun(String),
}

/// How a job ended.
#[derive(Debug)]
pub struct Outcome {
    /// Why it is over.
    pub end: End,
    /// Number of positions.
    pub positions: u64,
    /// Failed positions, ascending, each once.
    pub failures: Vec<Failure>,
    /// The positions that have a value or a failure, as ascending disjoint ranges.
    pub finals: Vec<std::ops::Range<u64>>,
    /// Chunks, and how many elements each has (the last may have fewer).
    pub chunks: (u64, u64),
    /// The blocks that workers wrote variable-length results to.
    pub heap: Vec<Arc<Block>>,
    /// Where its time went.
    pub report: Report,
}

impl Outcome {
    /// Whether the position is final: it has a value, or a record of its failure.
    pub fn is_final(&self, position: u64) -> bool {
        let i = self.finals.partition_point(|range| range.end <= position);
        self.finals.get(i).is_some_and(|range| range.contains(&position))
    }

    /// The failure at a position, if it failed.
    pub fn failure(&self, position: u64) -> Option<&Failure> {
        let i = self.failures.partition_point(|f| f.position + f.span <= position);
        self.failures.get(i).filter(|f| f.position <= position)
    }
}
