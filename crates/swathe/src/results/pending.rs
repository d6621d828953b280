//! Handles of jobs that run while the caller goes on.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use swathe_runtime::{JobHandle, Outcome, Report};

use crate::{Error, Result, resume::Checkpointer};

/// How long a running element may take to end when its job is cancelled.
const CANCEL_GRACE: Duration = Duration::from_millis(100);

/// Makes the result of an outcome.
pub(crate) type Conclude<T> = Arc<dyn Fn(&Arc<Outcome>) -> Result<T> + Send + Sync>;

/// The result of a job that may still be running; what `map_async` and the like return.
///
/// It is also a future. Dropping it lets the job go on, unless [`cancel_on_drop`](Self::cancel_on_drop) was called;
/// [`cancel`](Self::cancel) stops it.
///
/// In a process that was forked from the one that made it, a result that was there can be read. Of any other job every
/// method answers at once: with [`EngineError::Forked`](crate::EngineError::Forked) where it can, else as if the job were
/// not over; and nothing is done to the job.
///
/// ```
/// use swathe::Pool;
///
/// fn main() -> swathe::Result<()> {
///     swathe::init();
///     let pool = Pool::builder().processes(2).build()?;
///     let pending = pool.map_async(|x: i64| x * x, 1..=10)?;
///     // ... other work ...
///     assert_eq!(pending.get()?[9], 100);
///     assert!(pending.successful()?);
///     Ok(())
/// }
/// ```
pub struct Pending<T> {
    job: JobHandle,
    restored: u64,
    conclude: Conclude<T>,
    /// Brings the results to a file.
    finish: Option<Arc<Checkpointer>>,
    cancels_on_drop: bool,
}

impl<T> Pending<T> {
    pub(crate) fn new(
        job: JobHandle,
        restored: u64,
        conclude: Conclude<T>,
        finish: Option<Arc<Checkpointer>>,
    ) -> Self {
        Self {
            job,
            restored,
            conclude,
            finish,
            cancels_on_drop: false,
        }
    }

    /// Waits for the result. It may be asked for again: every call gives the same.
    ///
    /// # Errors
    /// If the job failed; see [`Error::Job`].
    pub fn get(&self) -> Result<T> {
        self.wait_within(None);
        self.conclude()
    }

    /// Waits for the result at most this long.
    ///
    /// # Errors
    /// [`Error::Timeout`] if the job is not over by then (it goes on), or [`Error::Job`] if it failed.
    pub fn get_timeout(&self, timeout: Duration) -> Result<T> {
        self.wait_within(Some(timeout));
        self.conclude()
    }

    /// Waits until the job is over, at most this long. Gives whether it is.
    pub fn wait(&self, timeout: Duration) -> bool {
        self.wait_within(Some(timeout))
    }

    fn wait_within(&self, timeout: Option<Duration>) -> bool {
        let start = Instant::now();
        self.job.wait(timeout)
            && self
                .finish
                .iter()
                .zip(self.job.outcome())
                .all(|(checkpointer, outcome)| {
                    let left = timeout.map(|timeout| timeout.saturating_sub(start.elapsed()));
                    checkpointer.finish(&outcome, left)
                })
    }

    /// Whether the job is over.
    pub fn ready(&self) -> bool {
        self.job.is_over() && self.finish.is_none() || self.wait_within(Some(Duration::ZERO))
    }

    /// Whether the job brought every value.
    ///
    /// # Errors
    /// [`Error::NotReady`] if it is not over.
    pub fn successful(&self) -> Result<bool> {
        if self.ready() {
            Ok(self.conclude().is_ok())
        } else {
            self.job.check_process()?;
            Err(Error::NotReady)
        }
    }

    /// Stops the job: what has not been started is not run, and what is running is killed unless it ends within 100 ms.
    /// Values that are there already stay; see [`JobError::into_partial`](crate::JobError::into_partial).
    pub fn cancel(&self) {
        self.cancel_within(CANCEL_GRACE);
    }

    /// Stops the job as [`cancel`](Self::cancel) does. What is running may take this long to end its element;
    /// [`Duration::MAX`] lets it.
    pub fn cancel_within(&self, grace: Duration) {
        self.job.cancel(grace);
    }

    /// Has the job stopped as [`cancel`](Self::cancel) does when this handle is dropped before the job is over: for requests whose
    /// client may go away, and futures that lose a race.
    ///
    /// ```
    /// use std::{thread::sleep, time::Duration};
    /// use swathe::Pool;
    ///
    /// fn main() -> swathe::Result<()> {
    ///     swathe::init();
    ///     let pool = Pool::builder().processes(1).build()?;
    ///     let hour = |_: u32| sleep(Duration::from_secs(3600));
    ///     drop(pool.map_async(hour, 0..24)?.cancel_on_drop());
    ///     assert_eq!(pool.apply(|x: u32| x + 1, 1)?, 2); // the worker is free
    ///     Ok(())
    /// }
    /// ```
    pub fn cancel_on_drop(mut self) -> Self {
        self.cancels_on_drop = true;
        self
    }

    /// How many positions an earlier run of the program had done, so that this one need not: 0 but for
    /// [`Batch::output_file`](crate::Batch::output_file).
    pub fn restored(&self) -> u64 {
        self.restored
    }

    /// How many positions are settled, and how many of these failed. It is read from shared memory: no worker
    /// is asked, but each look fetches the lines of memory that workers publish to.
    pub fn progress(&self) -> (u64, u64) {
        self.job.progress()
    }

    /// Where the time of the job went, once it is over: what each worker spent in starting, work, waiting and recovery, the
    /// slowest strips, elements and bytes a second. It is always there; keeping it costs a worker some nanoseconds a strip.
    ///
    /// ```
    /// use swathe::{Array, Pool};
    ///
    /// fn main() -> swathe::Result<()> {
    ///     swathe::init();
    ///     let pool = Pool::builder().processes(2).build()?;
    ///     let x = Array::from_fn(100_000, |i| i as f64)?;
    ///     let pending = pool.map_async(|x: f64| x.sqrt(), &x)?;
    ///     pending.get()?;
    ///     let report = pending.report().expect("the job is over");
    ///     assert_eq!((report.elements, report.bytes), (100_000, 1_600_000));
    ///     for worker in &report.workers {
    ///         let times = worker.start + worker.work + worker.wait + worker.recovery;
    ///         assert_eq!(times, report.elapsed);
    ///     }
    ///     println!("{report}");
    ///     Ok(())
    /// }
    /// ```
    pub fn report(&self) -> Option<Report> {
        self.job.report()
    }

    /// The result of a job that is over.
    fn conclude(&self) -> Result<T> {
        let finished = self
            .finish
            .as_ref()
            .is_none_or(|checkpointer| checkpointer.is_finished());
        match self.job.outcome().filter(|_| finished) {
            Some(outcome) => (self.conclude)(&outcome),
            None => {
                self.job.check_process()?;
                Err(Error::Timeout)
            }
        }
    }

    /// Whether the result is there. If not, the waker is woken when it may be.
    fn is_ready(&self, waker: &Waker) -> bool {
        // A job that ends between the two wakes the waker at once.
        if !self.job.is_over() {
            self.job.register_waker(waker);
        }
        let Some(outcome) = self.job.outcome() else {
            return false;
        };
        self.finish
            .as_ref()
            .is_none_or(|checkpointer| checkpointer.poll(&outcome, waker))
    }
}

impl<T> Future for Pending<T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        if self.job.check_process().is_err() || self.is_ready(context.waker()) {
            Poll::Ready(self.conclude())
        } else {
            Poll::Pending
        }
    }
}

impl<T> Drop for Pending<T> {
    fn drop(&mut self) {
        if self.cancels_on_drop && !self.job.is_over() {
            self.cancel();
        }
    }
}

impl<T> fmt::Debug for Pending<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending")
            .field("ready", &self.ready())
            .finish_non_exhaustive()
    }
}
