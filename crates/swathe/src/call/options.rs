//! Options that all verbs have.

use std::time::{Duration, Instant};

use swathe_runtime::{Chunking, Job, JobTraits, Retries, TaskRef};

use crate::{Error, Result};

/// How the positions of a job are grouped into chunks, the unit that workers take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChunkSize {
    /// Fine enough to balance; workers take many chunks at a time while elements are short.
    #[default]
    Auto,
    /// As Python's `multiprocessing.Pool` does: the input's length divided by four times the number of workers,
    /// rounded up.
    Pool,
    /// This many elements a chunk, at least 1.
    Fixed(usize),
}

impl From<usize> for ChunkSize {
    fn from(elements: usize) -> Self {
        Self::Fixed(elements)
    }
}

/// What a job is asked for besides its task.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) chunking: Chunking,
    pub(crate) fail_fast: bool,
    pub(crate) seed: u64,
    /// `None`: unless the retries ask for more, [`MAX_DEATHS`].
    pub(crate) max_deaths: Option<u32>,
    pub(crate) retries: Retries,
    /// How long an element may take.
    pub(crate) timeout: Option<Duration>,
    /// When the job must be over.
    pub(crate) deadline: Option<Instant>,
}

/// After how many deaths an element is given up, unless the batch says otherwise.
pub(crate) const MAX_DEATHS: u32 = 3;

/// How long failed elements wait for their first retry, unless the batch says otherwise.
pub(crate) const BACKOFF: Duration = Duration::from_millis(10);

/// The longest that they wait.
pub(crate) const LONGEST_BACKOFF: Duration = Duration::from_secs(10);

impl Default for Options {
    fn default() -> Self {
        Self {
            chunking: Chunking::Auto,
            fail_fast: false,
            seed: 0,
            max_deaths: None,
            retries: Retries {
                more: 0,
                backoff: BACKOFF,
                longest: LONGEST_BACKOFF,
            },
            timeout: None,
            deadline: None,
        }
    }
}

impl Options {
    /// A job of so many positions that these options ask for, without input and output.
    pub(crate) fn job(&self, task: TaskRef, positions: u64) -> Result<Job> {
        if self.timeout == Some(Duration::ZERO) {
            return Err(Error::ZeroTimeout);
        }
        let (retries, deadline) = (self.retries, self.deadline);
        Ok(Job {
            task,
            positions,
            params: Vec::new(),
            chunking: self.chunking,
            chunk_align: 1,
            traits: JobTraits {
                fail_fast: self.fail_fast,
                ..JobTraits::default()
            },
            seed: self.seed,
            base: 0,
            max_deaths: self
                .max_deaths
                .unwrap_or(MAX_DEATHS.max(retries.more.saturating_add(1))),
            retries,
            element_timeout: self.timeout,
            timeout: deadline.map(|at| at.saturating_duration_since(Instant::now())),
            in_place: None,
            durable: None,
            heap_hint: 0,
            bytes: 0,
            lends: false,
            keep: Box::new(()),
            on_done: None,
        })
    }
}
