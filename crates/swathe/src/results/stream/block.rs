//! Blocks: consecutive elements of a stream, being one job each.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
    vec,
};

use swathe_runtime::{EngineError, JobHandle, Outcome};

use crate::{Result, error::ItemError};

/// What a block has brought, by position.
pub(crate) enum Results<B> {
    /// A value for every element from a position on.
    All(u64, vec::IntoIter<B>),
    /// Values and errors.
    Mixed(VecDeque<(u64, Result<B, ItemError>)>),
}

impl<B> Results<B> {
    pub(super) fn none() -> Self {
        Self::Mixed(VecDeque::new())
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::All(_, values) => values.len(),
            Self::Mixed(results) => results.len(),
        }
    }

    #[inline]
    pub(super) fn pop(&mut self) -> Option<(u64, Result<B, ItemError>)> {
        match self {
            Self::All(position, values) => {
                let value = values.next()?;
                let at = *position;
                *position += 1;
                Some((at, Ok(value)))
            }
            Self::Mixed(results) => results.pop_front(),
        }
    }
}

/// What is there of a block that is over.
pub(crate) struct Brought<B> {
    pub(crate) results: Results<B>,
    /// Positions that have no value because the time of the stream was over.
    pub(crate) late: Vec<u64>,
}

/// Takes the results out of an outcome.
pub(crate) type TakeResults<B> = Box<dyn FnOnce(&Arc<Outcome>) -> Brought<B> + Send>;

/// Some consecutive elements of the stream, being one job.
pub(crate) struct Block<B> {
    pub(crate) job: JobHandle,
    pub(crate) len: usize,
    pub(crate) bytes: usize,
    pub(crate) submitted: Instant,
    pub(crate) results: TakeResults<B>,
}

/// A block on its way.
pub(super) enum Flight<B> {
    Job(Block<B>),
    /// It could not be submitted.
    Refused(Results<B>),
}

impl<B> Flight<B> {
    /// Ends its job, if that is over and nobody has noticed.
    pub(super) fn is_over(&self) -> bool {
        match self {
            Self::Job(block) => block.job.wait(Some(Duration::ZERO)),
            Self::Refused(_) => true,
        }
    }

    /// Why this process may not wait for it, if it may not.
    pub(super) fn not_ours(&self) -> Option<EngineError> {
        match self {
            Self::Job(block) => block.job.check_process().err(),
            Self::Refused(_) => None,
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Job(block) => block.len,
            Self::Refused(results) => results.len(),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Job(block) => block.bytes,
            Self::Refused(_) => 0,
        }
    }

    /// What is running may finish its element: nobody waits for it.
    pub(super) fn cancel(&self) {
        if let Self::Job(block) = self {
            block.job.cancel(Duration::MAX);
        }
    }
}
