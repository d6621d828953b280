//! What is there of a job that did not bring everything.

use std::{fmt, sync::Arc};

use swathe_runtime::{End, FailureKind, Outcome, Report};

use crate::{
    Error, Result,
    cross::datum::Collection,
    error::{ItemError, status_without_value, summary, without_value},
};

/// What became of one position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Status {
    /// It has a value.
    Done,
    /// Its task returned an error.
    Failed,
    /// Its task panicked.
    Panicked,
    /// Its worker died while it ran, as often as the job allows.
    Lost,
    /// It took longer than an element may, or it had no value when the time of its job was over.
    TimedOut,
    /// The job was cancelled, or its pool terminated, before it was its turn.
    Cancelled,
    /// The job stopped at a failure before it was its turn.
    NotRun,
}

/// The results of a job by position, where some may be missing. `O` is the collection of a complete job: `Array<B>` or
/// `Records<B>`.
///
/// ```
/// use swathe::Pool;
///
/// fn main() -> swathe::Result<()> {
///     swathe::init();
///     let pool = Pool::builder().processes(2).build()?;
///     let halves = pool
///         .batch()
///         .collect_errors()
///         .try_map(|x: u32| if x % 2 == 0 { Ok(x / 2) } else { Err(format!("{x} is odd")) }, 0..5)?;
///     assert_eq!(halves.value(4)?, Some(2));
///     assert_eq!(halves.value(3)?, None);
///     assert_eq!(halves.failures().len(), 2);
///     assert_eq!(halves.to_vec_or(99)?, [0, 99, 1, 99, 2]);
///     Ok(())
/// }
/// ```
#[derive(Clone)]
pub struct Partial<O> {
    outcome: Arc<Outcome>,
    values: O,
}

impl<O> Partial<O> {
    pub(crate) fn new(outcome: Arc<Outcome>, values: O) -> Self {
        Self { outcome, values }
    }

    /// How many positions there are.
    pub fn len(&self) -> usize {
        self.outcome.positions as usize
    }

    /// Whether there are no positions.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether every position has a value.
    pub fn is_complete(&self) -> bool {
        self.outcome.end == End::Complete && self.outcome.failures.is_empty()
    }

    /// Why the job did not come to its end, if it did not: it was cancelled, stopped at a failure or a deadline, or its pool
    /// was terminated or broke. Failed positions alone are no such reason.
    pub fn why_stopped(&self) -> Option<&str> {
        crate::error::why_stopped(&self.outcome.end)
    }

    /// What became of a position. One that does not exist was not run.
    pub fn status(&self, position: usize) -> Status {
        let at = position as u64;
        if at >= self.outcome.positions {
            return Status::NotRun;
        }
        match self.outcome.failure(at).map(|failure| &failure.kind) {
            Some(FailureKind::Panic) => Status::Panicked,
            Some(FailureKind::Lost(_)) => Status::Lost,
            Some(FailureKind::TimedOut) => Status::TimedOut,
            Some(_) => Status::Failed,
            None if self.outcome.is_final(at) => Status::Done,
            None => status_without_value(&self.outcome.end),
        }
    }

    /// Where the time of the job went; see [`Pending::report`](crate::Pending::report).
    pub fn report(&self) -> &Report {
        &self.outcome.report
    }

    /// Every position without a value and why, ascending. Positions that a stopped job did not come to are one entry for as
    /// many as lie beside each other: see [`ItemError::span`].
    pub fn failures(&self) -> Vec<ItemError> {
        without_value(&self.outcome)
    }

    /// How many positions have a value, and how many have none for which reason, in one line:
    /// `196 done, 1 panicked, 1 timed out, 2 lost`.
    pub fn summary(&self) -> String {
        summary(self.outcome.positions, &self.failures())
    }

    /// What lies there, whatever the statuses say: positions without a value hold zeros, in [`Records`](crate::Records) an
    /// error, in an array that was changed in place what they held before, and in a file what this job has left there.
    pub fn into_values(self) -> O {
        self.values
    }

    /// All values, if every position has one.
    ///
    /// # Errors
    /// The partial result itself, if not.
    pub fn into_complete(self) -> Result<O, Self> {
        if self.is_complete() {
            Ok(self.values)
        } else {
            Err(self)
        }
    }
}

impl<O: Collection> Partial<O> {
    /// The value at a position; `None` if there is none.
    ///
    /// # Errors
    /// If the position does not exist, or a record was damaged.
    pub fn value(&self, position: usize) -> Result<Option<O::Item>> {
        if position >= self.len() {
            return Err(Error::NoSuchPosition {
                position,
                positions: self.len(),
            });
        }
        match self.status(position) {
            Status::Done => self.values.fetch(position).map(Some),
            _ => Ok(None),
        }
    }

    /// What came of each position, in order: its value, or why there is none.
    ///
    /// ```
    /// use swathe::Pool;
    ///
    /// fn main() -> swathe::Result<()> {
    ///     swathe::init();
    ///     let pool = Pool::builder().processes(2).build()?;
    ///     let halve = |x: u32| if x % 2 == 0 { Ok(x / 2) } else { Err(format!("{x} is odd")) };
    ///     let halves = pool.batch().collect_errors().try_map(halve, 0..4)?;
    ///     for (x, half) in halves.iter().enumerate() {
    ///         match half {
    ///             Ok(half) => assert_eq!(2 * half, x as u32),
    ///             Err(error) => assert_eq!(error.message(), format!("{x} is odd")),
    ///         }
    ///     }
    ///     assert_eq!(halves.summary(), "2 done, 2 failed");
    ///     Ok(())
    /// }
    /// ```
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Result<O::Item, ItemError>> {
        (0..self.len()).map(|position| {
            let failed = |message| ItemError::without_worker(position as u64, self.status(position), message);
            match self.outcome.failure(position as u64) {
                Some(failure) => Err(ItemError::new(failure, 0)),
                None if self.status(position) == Status::Done => {
                    self.values.fetch(position).map_err(|error| {
                        let message = error.to_string();
                        ItemError::without_worker(position as u64, Status::Failed, message)
                    })
                }
                None => Err(failed(self.why_stopped().unwrap_or_default().to_owned())),
            }
        })
    }

    /// All values, with `substitute` where there is none.
    ///
    /// # Errors
    /// If a record was damaged.
    pub fn to_vec_or(&self, substitute: O::Item) -> Result<Vec<O::Item>>
    where
        O::Item: Clone,
    {
        (0..self.len())
            .map(|i| Ok(self.value(i)?.unwrap_or_else(|| substitute.clone())))
            .collect()
    }
}

impl<O> fmt::Debug for Partial<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Partial")
            .field("len", &self.len())
            .field("summary", &format_args!("{}", self.summary()))
            .field("stopped", &self.why_stopped())
            .finish_non_exhaustive()
    }
}
