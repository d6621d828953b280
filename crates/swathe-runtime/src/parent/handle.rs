//! What a caller has of its job: it waits for it, watches it, cancels it.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
    task::Waker,
    time::{Duration, Instant},
};

use swathe_protocol::{JobPhase, JobTerms};

use crate::{
    error::EngineError,
    job::{End, Outcome, report::Report},
    parent::{arrival::Arrival, core::Core, job::JobEntry, look_around},
    shared::{control::System, naps},
};

/// A job that was submitted. A cheap clone; the job goes on when all are dropped.
#[derive(Clone)]
pub struct JobHandle {
    pub(super) core: Arc<Core>,
    pub(super) job: Arc<JobEntry>,
}

impl fmt::Debug for JobHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobHandle")
            .field("over", &self.is_over())
            .finish_non_exhaustive()
    }
}

/// How long a waiter watches the gate before it sleeps: about what two wakes take, the worker's and its own, which it
/// spares itself so. It stops at once when the workers need its core.
const WATCH: Duration = Duration::from_micros(100);

/// The longest sleep without a look around.
const NAP: Duration = Duration::from_millis(100);

/// The longest sleep of a caller who has just woken workers for what nobody had begun.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

impl JobHandle {
    /// Whether this process may do something with the job but look at its outcome.
    ///
    /// # Errors
    /// If the process was forked from the one that submitted it: its parent's locks and threads are not here.
    pub fn check_process(&self) -> Result<(), EngineError> {
        self.core.check_process()
    }

    /// Waits until the job is over, or the time is. Gives whether it is over. In a forked child it does not wait.
    pub fn wait(&self, timeout: Option<Duration>) -> bool {
        let start = timeout.map(|_| Instant::now());
        let mut watched = false;
        loop {
            if self.try_end(timeout.is_none()) {
                return true;
            }
            if self.check_process().is_err() {
                return false;
            }
            let left = match timeout.zip(start) {
                Some((timeout, start)) => match timeout.checked_sub(start.elapsed()) {
                    Some(left) if !left.is_zero() => left.min(NAP),
                    _ => return false,
                },
                None => NAP,
            };
            if watched {
                self.sleep(left, timeout.is_none());
            } else {
                self.watch();
                watched = true;
            }
        }
    }

    /// Whether the job is over.
    pub fn is_over(&self) -> bool {
        self.job.is_over()
    }

    /// How it ended, once it is over.
    pub fn outcome(&self) -> Option<Arc<Outcome>> {
        self.job.outcome().cloned()
    }

    /// Where its time went, once it is over.
    pub fn report(&self) -> Option<Report> {
        self.job.outcome().map(|outcome| outcome.report.clone())
    }

    /// Stops the job: what is not started is not run. What is running may finish its element within `grace`; then its
    /// worker is killed and replaced.
    ///
    /// In a forked child it does nothing.
    pub fn cancel(&self, grace: Duration) {
        if self.check_process().is_err() {
            return;
        }
        let mut state = self.core.state.lock();
        state.stop(&self.core, &self.job, End::Cancelled, grace);
    }

    /// Positions that are settled so far, and how many of them failed. Cheap for the workers: read from their memory. Of a
    /// job that was not over when this process was forked, none are known.
    pub fn progress(&self) -> (u64, u64) {
        if let Some(outcome) = self.job.outcome() {
            let done = outcome.finals.iter().map(|range| range.end - range.start).sum();
            return (done, outcome.failures.iter().map(|failure| failure.span).sum());
        }
        if self.check_process().is_err() {
            return (0, 0);
        }
        let failed = self
            .job
            .key()
            .and_then(|key| self.core.control.job(key))
            .map_or(0, |cell| cell.failed.load(Ordering::Relaxed));
        self.job.progress(failed)
    }

    /// Has this waker called, once, when the job is over. The job must be attended.
    pub fn register_waker(&self, waker: &Waker) {
        // Cloned and dropped with no lock held: a waker is a user's.
        let mut mine = Some(waker.clone());
        {
            let mut inner = self.job.inner.lock();
            if !self.job.is_over() {
                if !inner.wakers.iter().any(|known| known.will_wake(waker)) {
                    inner.wakers.extend(mine.take());
                }
                return;
            }
        }
        mine.into_iter().for_each(Waker::wake);
    }

    /// Has the arrival of this job noted when it is over. The job must be attended.
    pub fn register_arrival(&self, arrival: &Arc<Arrival>) {
        let mut inner = self.job.inner.lock();
        match self.job.is_over() {
            true => arrival.ring(),
            false => inner.arrivals.push(arrival.clone()),
        }
    }

    /// Ends the job here if its workers have finished with it; if `reads`, also if it has brought much that must be read
    /// for that.
    fn try_end(&self, reads: bool) -> bool {
        if self.job.is_over() {
            return true;
        }
        let ready = self
            .job
            .key()
            .and_then(|key| self.core.control.job(key))
            .is_some_and(|cell| !matches!(cell.gate.state().phase, JobPhase::Open | JobPhase::Closed));
        if !ready || self.check_process().is_err() {
            return false;
        }
        let state = &self.core.state;
        match reads {
            true => state.lock_for(&self.job).finalize(&self.core, &self.job) || self.core.read(&self.job),
            false => state.lock().finalize(&self.core, &self.job),
        }
    }

    fn watch(&self) {
        let Some(cell) = self.job.key().and_then(|key| self.core.control.job(key)) else {
            return;
        };
        let a_core_is_mine = self.core.control.header.lookouts.load(Ordering::Relaxed) > 0;
        let watch = |looks: usize| {
            (0..looks).any(|_| {
                std::hint::spin_loop();
                cell.gate.state().phase != JobPhase::Open
            })
        };
        // The clock costs more than some looks at the gate: first a shortest job's time without it.
        if a_core_is_mine && watch(64) {
            return;
        }
        if self.job.watched {
            // Those that were awake may have fallen asleep, or be busy.
            self.core.control.words().wake_for_runs(&System);
        }
        if a_core_is_mine {
            let start = Instant::now();
            while self.core.control.words().spares_a_core() && !watch(64) && start.elapsed() < WATCH {}
        }
    }

    fn sleep(&self, patience: Duration, reads: bool) {
        let place = || {
            self.job
                .key()
                .and_then(|key| Some((key, self.core.control.job(key)?)))
        };
        let Some((key, cell)) = place() else {
            let mut inner = self.job.inner.lock();
            if self.job.key().is_none() && !self.job.is_over() {
                self.job.signal.wait_for(&mut inner, patience);
            }
            return;
        };
        let waited = cell.bell.prepare();
        if self.try_end(reads) {
            return;
        }
        let woke =
            !self.job.terms.has(JobTerms::PINNED) && self.core.control.words().wake_for_rest(&System, key);
        // Those that were woken may have looked just when a thief had its stolen in hand.
        let patience = if woke { patience.min(LOOK_AGAIN) } else { patience };
        if naps::sleep(cell.bell.word(), waited, patience) && patience == NAP {
            look_around::of_caller(&self.core, &self.job, key, waited);
        }
    }
}
