//! What can go wrong.

use std::{any::Any, fmt, sync::Arc};

use swathe_memory::MemoryError;
use swathe_os::text::shown;
use swathe_runtime::{End, EngineError, ExitCause, Failure, FailureKind, Outcome};

use crate::{Partial, Status};

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a pool could not do what was asked.
///
/// What `{:?}` gives is what `{}` gives, because that is what `main() -> swathe::Result<()>` and `unwrap` print.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The pool refused, or cannot go on.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Memory could not be had or shared.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The job ran, and not every position has a value.
    #[error(transparent)]
    Job(#[from] Box<JobError>),
    /// One element of a stream has no value.
    #[error(transparent)]
    Item(#[from] ItemError),
    /// The time is over, and the job goes on.
    #[error("the result is not ready in time; the job goes on")]
    Timeout,
    /// `successful()` was asked of a job that is not over.
    #[error("the result is not ready: whether the job was successful is not known yet")]
    NotReady,
    /// `on_success` was given a function that takes something else than the call gives.
    #[error(
        "the function given to on_success takes `{takes}`, and this call gives it `{gives}`; nothing was run"
    )]
    Callback {
        /// The type of the function's argument.
        takes: &'static str,
        /// The type of what the call shows it.
        gives: &'static str,
    },
    /// A stream was given a callback.
    #[error(
        "a stream gives its results and errors one by one and calls nobody back: look at each result where the stream is drained, \
         or use map_async"
    )]
    StreamCallback,
    /// A thread was to ask the input of a stream, and there is none to be had.
    #[error("no thread can be started to ask the input of the stream: {error}")]
    Thread {
        /// What the system says.
        error: std::io::Error,
    },
    /// The columns of a `starmap` have different lengths.
    #[error(
        "the columns of a starmap must be equally long: column 0 has {first} elements, column {column} has {len}"
    )]
    Columns {
        /// The first column that does not fit, from 0.
        column: usize,
        /// Its length.
        len: u64,
        /// The length of column 0.
        first: u64,
    },
    /// A range has more elements than can be counted.
    #[error("the input has more elements than this machine can address")]
    TooLong,
    /// The iterator of the input panicked.
    #[error("the input's iterator panicked at position {position}: {}", shown(message))]
    Iterator {
        /// How many items it gave before.
        position: usize,
        /// The panic's message.
        message: String,
    },
    /// An element of the input cannot cross to another process.
    #[error(
        "element {position} of the input cannot cross to the workers: {}",
        shown(message)
    )]
    Element {
        /// Its position.
        position: usize,
        /// Why.
        message: String,
    },
    /// The parameters of the call cannot cross to another process.
    #[error("the parameters cannot cross to the workers: {}", shown(message))]
    Parameters {
        /// Why.
        message: String,
    },
    /// A result was asked for at a position that does not exist.
    #[error("there is no position {position}: the results have {positions}")]
    NoSuchPosition {
        /// What was asked for.
        position: usize,
        /// How many there are.
        positions: usize,
    },
    /// A result was damaged after its task returned it.
    #[error(
        "the result at position {position} was damaged by a worker: {}",
        shown(message)
    )]
    Damaged {
        /// Its position.
        position: usize,
        /// What was found.
        message: String,
    },
    /// Nothing is damaged, and the result cannot be read all the same: its element has no value, it has too many levels for
    /// the stack of this thread, or it holds an array that nobody has kept alive.
    #[error("the result at position {position} cannot be read: {}", shown(message))]
    Unreadable {
        /// Its position.
        position: usize,
        /// Why.
        message: String,
    },
    /// The axis of `map_rows` does not exist.
    #[error("the array has {axes} axes, and rows along axis {axis} were asked for")]
    Axis {
        /// What was asked for.
        axis: usize,
        /// How many there are.
        axes: usize,
    },
    /// A shared queue refused.
    #[error(transparent)]
    Queue(#[from] crate::QueueError),
    /// The results cannot lie in the file they are to lie in.
    #[error(transparent)]
    Output(#[from] crate::OutputError),
    /// `timeout(Duration::ZERO)`.
    #[error("an element cannot be done in no time: a timeout must be longer than 0")]
    ZeroTimeout,
    /// `max_tasks_per_child(0)`.
    #[error(
        "a worker runs at least 1 element before it is replaced: max_tasks_per_child(0) would replace it for ever"
    )]
    ZeroTasks,
    /// The code of a task lies in no loaded object (it was made at run time).
    #[error("the task's code lies in no loaded executable or library, so workers cannot find it")]
    NoCode,
}

impl Error {
    /// The failure of one call that stands for this many positions of the input.
    pub(crate) fn covering(mut self, positions: u64) -> Self {
        if let Self::Job(job) = &mut self {
            for failure in &mut job.failures {
                failure.0.span = positions;
            }
        }
        self
    }
}

/// Why one element has no value.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
pub struct ItemError(Box<Facts>);

/// What is known of it. Boxed, so that the result of an element is hardly larger than its value.
#[derive(Clone, PartialEq, Eq)]
struct Facts {
    position: u64,
    span: u64,
    status: Status,
    cause: Option<ExitCause>,
    message: Arc<str>,
    /// The worker's number and process id, where a worker was involved.
    worker: Option<(usize, u32)>,
    attempts: u32,
    peak_memory: Option<u64>,
}

impl ItemError {
    pub(crate) fn new(failure: &Failure, base: u64) -> Self {
        let (status, cause) = match failure.kind {
            FailureKind::Error => (Status::Failed, None),
            FailureKind::Panic => (Status::Panicked, None),
            FailureKind::Lost(cause) => (Status::Lost, Some(cause)),
            FailureKind::TimedOut => (Status::TimedOut, None),
            _ => (Status::Failed, None),
        };
        Self(Box::new(Facts {
            position: base + failure.position,
            span: failure.span.max(1),
            status,
            cause,
            message: failure.message.clone(),
            worker: Some((failure.worker as usize, failure.pid)),
            attempts: failure.attempts,
            peak_memory: failure.peak_memory,
        }))
    }

    /// An element that no worker is to blame for.
    pub(crate) fn without_worker(position: u64, status: Status, message: String) -> Self {
        Self(Box::new(Facts {
            position,
            span: 1,
            status,
            cause: None,
            message: message.into(),
            worker: None,
            attempts: 0,
            peak_memory: None,
        }))
    }

    /// The element's position in the input, from 0. Where a task takes many elements at once, the first of them.
    pub fn position(&self) -> u64 {
        self.0.position
    }

    /// How many elements failed together: 1, or the length of the chunk for tasks that take a whole chunk.
    pub fn span(&self) -> u64 {
        self.0.span
    }

    /// What happened, in one word.
    pub fn status(&self) -> Status {
        self.0.status
    }

    /// The text of the returned error (with its causes), or of the panic (with its source line), or the last words of a
    /// worker that died. As it was said: what is printed of an error has its control characters escaped, and is cut after
    /// some thousand bytes.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// How the worker died, if it did.
    pub fn cause(&self) -> Option<ExitCause> {
        self.0.cause
    }

    /// The worker's number.
    pub fn worker(&self) -> Option<usize> {
        self.0.worker.map(|(number, _)| number)
    }

    /// The worker's process id.
    pub fn pid(&self) -> Option<u32> {
        self.0.worker.map(|(_, pid)| pid)
    }

    /// How often the element was started, as far as is known.
    pub fn attempts(&self) -> u32 {
        self.0.attempts
    }

    /// The most memory that the dead worker ever had resident, bytes, pages of shared segments included. `None` if no
    /// worker died of it.
    pub fn peak_memory(&self) -> Option<u64> {
        self.0.peak_memory
    }
}

impl fmt::Debug for ItemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for ItemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.span {
            1 => write!(f, "position {} ", self.0.position)?,
            span => write!(
                f,
                "positions {} to {} ",
                self.0.position,
                self.0.position + (span - 1)
            )?,
        }
        let message = shown(&self.0.message);
        match (self.0.status, self.0.cause) {
            (Status::Lost, Some(cause)) => {
                write!(f, "was lost: its worker {cause}")?;
                if self.0.attempts > 1 {
                    write!(f, ", {} times", self.0.attempts)?;
                }
                if !self.0.message.is_empty() {
                    write!(f, ", and said last: {message}")?;
                }
            }
            (Status::TimedOut, _) => write!(f, "timed out: {message}")?,
            (Status::Panicked, _) => write!(f, "failed: panicked: {message}")?,
            (Status::Cancelled | Status::NotRun, _) => match self.0.span {
                1 => write!(f, "was not run: {message}")?,
                _ => write!(f, "were not run: {message}")?,
            },
            _ => write!(f, "failed: {message}")?,
        }
        let Some((number, pid)) = self.0.worker else {
            return Ok(());
        };
        write!(f, " (worker {number}, pid {pid}")?;
        match (self.0.status, self.0.attempts) {
            // Said already.
            (Status::Lost, _) | (_, 0 | 1) => f.write_str(")"),
            (_, attempts) => write!(f, ", attempt {attempts})"),
        }
    }
}

/// Every position of a job that has no value, ascending.
pub(crate) fn without_value(outcome: &Outcome) -> Vec<ItemError> {
    let failed = |failure| ItemError::new(failure, 0);
    if outcome.end == End::Complete {
        return outcome.failures.iter().map(failed).collect();
    }
    let why: Arc<str> = why_stopped(&outcome.end).unwrap_or_default().into();
    let gap = |from: u64, to: u64| {
        let mut error = ItemError::without_worker(from, status_without_value(&outcome.end), String::new());
        (error.0.span, error.0.message) = (to - from, why.clone());
        error
    };
    let mut all = Vec::with_capacity(outcome.failures.len() + outcome.finals.len() + 1);
    let mut failures = outcome.failures.iter().peekable();
    let mut end = 0;
    for range in outcome
        .finals
        .iter()
        .cloned()
        .chain(std::iter::once(outcome.positions..outcome.positions))
    {
        if range.start > end {
            all.push(gap(end, range.start));
        }
        while let Some(failure) = failures.next_if(|failure| failure.position < range.end) {
            all.push(failed(failure));
        }
        end = range.end;
    }
    all
}

/// What became of positions to which a job that ended so did not come.
pub(crate) fn status_without_value(end: &End) -> Status {
    match end {
        End::FailedFast | End::CannotRun(_) => Status::NotRun,
        End::TimedOut => Status::TimedOut,
        _ => Status::Cancelled,
    }
}

/// Positions by what became of them, in one line.
pub(crate) fn summary(positions: u64, without_value: &[ItemError]) -> String {
    let words = [
        (Status::Failed, "failed"),
        (Status::Panicked, "panicked"),
        (Status::TimedOut, "timed out"),
        (Status::Lost, "lost"),
        (Status::Cancelled, "cancelled"),
        (Status::NotRun, "not run"),
    ];
    let count = |status| -> u64 {
        let same = without_value.iter().filter(|error| error.status() == status);
        same.map(ItemError::span).sum()
    };
    let missing: u64 = without_value.iter().map(ItemError::span).sum();
    let mut line = format!("{} done", positions.saturating_sub(missing));
    for (status, word) in words {
        match count(status) {
            0 => {}
            n => line.push_str(&format!(", {n} {word}")),
        }
    }
    line
}

/// Why a job did not come to its end.
pub(crate) fn why_stopped(end: &End) -> Option<&str> {
    match end {
        End::Cancelled => Some("the job was cancelled"),
        End::Terminated => Some("the pool was terminated"),
        End::FailedFast => Some("the job stopped at its first failure"),
        End::TimedOut => Some("the job's deadline has passed"),
        End::Shortage(text) | End::Broken(text) | End::CannotRun(text) => Some(text),
        _ => None,
    }
}

/// A job that did not bring all values: which positions failed, how, and all the values that did arrive.
///
/// ```
/// use swathe::{Array, Error, Pool, Status};
///
/// fn invert(x: i64) -> Result<f64, String> {
///     if x == 0 { Err("division by zero".into()) } else { Ok(1.0 / x as f64) }
/// }
///
/// fn main() -> swathe::Result<()> {
///     swathe::init();
///     let pool = Pool::builder().processes(2).build()?;
///     let Err(Error::Job(error)) = pool.try_map(invert, -2..=2) else { panic!("0 has no inverse") };
///     assert!(error.to_string().starts_with("position 2 failed: division by zero"));
///     let partial = error.into_partial::<Array<f64>>().expect("these are floats");
///     assert_eq!(partial.value(4)?, Some(0.5));
///     assert_eq!(partial.status(2), Status::Failed);
///     Ok(())
/// }
/// ```
pub struct JobError {
    outcome: Arc<Outcome>,
    failures: Vec<ItemError>,
    values: Option<Box<dyn Any + Send + Sync>>,
}

impl JobError {
    pub(crate) fn new(outcome: &Arc<Outcome>, values: Option<Box<dyn Any + Send + Sync>>) -> Box<Self> {
        let failures = without_value(outcome);
        Box::new(Self {
            outcome: outcome.clone(),
            failures,
            values,
        })
    }

    /// Every position without a value and why, ascending. Positions that a stopped job did not come to are one entry for as
    /// many as lie beside each other: see [`ItemError::span`].
    pub fn failures(&self) -> &[ItemError] {
        &self.failures
    }

    /// The failure at the lowest position; if nothing has failed, the first positions that the job did not come to.
    pub fn first(&self) -> Option<&ItemError> {
        self.failed().next().or_else(|| self.failures.first())
    }

    /// How many positions have a value, and how many have none for which reason, in one line:
    /// `196 done, 1 panicked, 1 timed out, 2 lost`.
    pub fn summary(&self) -> String {
        summary(self.outcome.positions, &self.failures)
    }

    /// Positions that have failed, without those that were not run.
    fn failed(&self) -> impl Iterator<Item = &ItemError> {
        self.failures.iter().filter(|failure| failure.0.worker.is_some())
    }

    /// Whether the job ended early: it was cancelled, its deadline passed, its pool was terminated or broke, or it stopped
    /// at its first failure.
    pub fn is_stopped(&self) -> bool {
        self.outcome.end != End::Complete
    }

    /// Values and statuses by position, of a job that returns `O`: `Array<B>` or `Records<B>`.
    ///
    /// # Errors
    /// The error itself, if the job's results are of another type.
    pub fn into_partial<O: Any + Send + Sync>(mut self: Box<Self>) -> Result<Partial<O>, Box<Self>> {
        match self.values.take().map(<Box<dyn Any + Send + Sync>>::downcast) {
            Some(Ok(values)) => Ok(Partial::new(self.outcome, *values)),
            Some(Err(values)) => {
                self.values = Some(values);
                Err(self)
            }
            None => Err(self),
        }
    }
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let finals: u64 = self
            .outcome
            .finals
            .iter()
            .map(|range| range.end - range.start)
            .sum();
        let of = self.outcome.positions;
        let why = shown(why_stopped(&self.outcome.end).unwrap_or_default());
        let Some(first) = self.failed().next() else {
            return write!(f, "{why}: {finals} of {of} positions were done");
        };
        write!(f, "{first}")?;
        let others = self.failed().map(ItemError::span).sum::<u64>() - first.span();
        match others {
            0 => {}
            1 => f.write_str("; 1 other position failed too")?,
            n => write!(f, "; {n} other positions failed too")?,
        }
        match self.is_stopped() {
            true => write!(f, "; {why}, with {finals} of {of} positions done"),
            false => Ok(()),
        }
    }
}

/// As it is displayed: that is what `unwrap` prints, and there may be a million failures.
impl fmt::Debug for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for JobError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.first().map(|first| first as _)
    }
}
