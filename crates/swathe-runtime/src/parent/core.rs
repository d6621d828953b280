//! What the threads of the parent share, and the one lock among them.
//!
//! The lock is the parent's own: no worker ever waits for it. When it is let go, and not before, what was left behind it is
//! dropped, and threads are told what there is to do for them.

use std::{
    any::Any,
    fmt,
    ops::{Deref, DerefMut},
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::{Condvar, Mutex, MutexGuard};
use swathe_memory::Memory;
use swathe_os::process::{self, Event};

use crate::{
    error::EngineError,
    parent::{
        job::JobEntry,
        jobs::State,
        user_code::{Callbacks, SideThread, contain},
    },
    shared::{control::Control, scratch::ScratchStock},
};

/// What a pool does for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PoolPhase {
    /// Takes jobs.
    Running,
    /// Takes no more jobs, finishes those it has.
    Closed,
    /// Stops.
    Terminated,
    /// Stops, because it cannot go on.
    Broken(String),
}

impl PoolPhase {
    pub(crate) fn is_stopping(&self) -> bool {
        matches!(self, Self::Terminated | Self::Broken(_))
    }
}

/// Everything the threads of the parent share.
pub(crate) struct Core {
    pub(crate) control: Control,
    pub(crate) memory: Memory,
    pub(crate) stock: ScratchStock,
    pub(crate) state: StateLock,
    /// Notified when the pool's phase or its processes change.
    pub(crate) changed: Condvar,
    /// Wakes the supervisor.
    pub(crate) event: Event,
    /// `fork_generation` of the process that built the pool.
    pub(crate) forks: u64,
    /// Whether the supervisor is to panic.
    #[cfg(feature = "chaos")]
    pub(crate) supervisor_panics: std::sync::atomic::AtomicBool,
}

#[cfg(feature = "chaos")]
impl Drop for Core {
    fn drop(&mut self) {
        crate::shared::naps::add(&self.control);
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").finish_non_exhaustive()
    }
}

impl Core {
    /// Whether this process has the pool's threads. A forked child has not; asked before any lock is taken, which another
    /// thread of its parent may have held.
    pub(crate) fn check_process(&self) -> Result<(), EngineError> {
        if process::fork_generation() == self.forks {
            Ok(())
        } else {
            Err(EngineError::Forked)
        }
    }

    /// Reads what a job has brought that is to be read without the lock, unless another thread does. Gives whether the
    /// job is over.
    pub(crate) fn read(&self, job: &Arc<JobEntry>) -> bool {
        // It may have been stopped while it was read: then it is to be read once more, by whoever has read it.
        while let Some(reading) = job.take_unread() {
            let read = job.read_somehow(self, reading);
            self.state.lock_for(job).settle(self, job, read);
        }
        job.is_over()
    }
}

/// The parent's one lock. When it is let go, and not before, what was left behind it is dropped, and threads are told what
/// there is to do for them: see [`Left`].
pub(crate) struct StateLock {
    state: Mutex<State>,
    /// For whoever reads a job later.
    core: Weak<Core>,
    pub(crate) sides: Sides,
}

/// The threads that run what users wrote, and what takes long.
pub(crate) struct Sides {
    pub(crate) callbacks: Callbacks,
    pub(crate) wakers: SideThread,
    /// Drops what jobs have kept.
    pub(crate) drops: SideThread,
    /// Reads jobs with many failures or chunks.
    pub(super) readers: SideThread,
}

impl Sides {
    fn new() -> Self {
        Self {
            callbacks: Callbacks(SideThread::new("swathe-callback", "a callback")),
            wakers: SideThread::new("swathe-waker", "a waker"),
            drops: SideThread::new("swathe-drop", "a destructor of what a job has kept"),
            readers: SideThread::new("swathe-reader", "reading a job"),
        }
    }

    fn all(&self) -> [&SideThread; 4] {
        [&self.callbacks.0, &self.wakers, &self.drops, &self.readers]
    }

    /// Sees to it that what there is to do is done.
    pub(crate) fn kick(&self) {
        self.all().into_iter().for_each(SideThread::kick);
    }

    /// Nothing more will come but what these threads bring themselves.
    pub(crate) fn end(&self) {
        self.all().into_iter().for_each(SideThread::end);
    }
}

impl StateLock {
    pub(crate) fn new(state: State, core: Weak<Core>) -> Self {
        Self {
            state: Mutex::new(state),
            core,
            sides: Sides::new(),
        }
    }

    pub(crate) fn lock(&self) -> Locked<'_> {
        Locked {
            lock: self,
            guard: Some(self.state.lock()),
            mine: None,
        }
    }

    /// For a caller who waits for this job: what it has kept is dropped on the caller's thread, and what it has brought is
    /// read there.
    pub(crate) fn lock_for<'a>(&'a self, job: &'a JobEntry) -> Locked<'a> {
        let mut locked = self.lock();
        locked.mine = Some(job);
        locked
    }
}

/// The state, locked.
pub(crate) struct Locked<'a> {
    lock: &'a StateLock,
    guard: Option<MutexGuard<'a, State>>,
    mine: Option<&'a JobEntry>,
}

impl Locked<'_> {
    /// Lets the lock go until something has changed, or the time is over.
    pub(crate) fn wait(&mut self, changed: &Condvar, patience: Duration) {
        if let Some(guard) = &mut self.guard {
            changed.wait_for(guard, patience);
        }
    }

    fn is_mine(&self, job: &Arc<JobEntry>) -> bool {
        self.mine.is_some_and(|mine| std::ptr::eq(mine, &raw const **job))
    }
}

impl Deref for Locked<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        self.guard.as_ref().expect("it is taken when this is dropped")
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut State {
        self.guard.as_mut().expect("it is taken when this is dropped")
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let Some(mut guard) = self.guard.take() else {
            return;
        };
        if !std::mem::take(&mut guard.something_left) {
            return;
        }
        let (left, unread) = (std::mem::take(&mut guard.left), std::mem::take(&mut guard.unread));
        drop(guard);
        for left in left {
            // Values of users, of some other caller's job: this one may hold locks that their destructors want. Nor is it to
            // wait for the system, which takes long to take much memory back.
            if (left.lends || left.job.bytes > MUCH) && !self.is_mine(&left.job) {
                self.lock.sides.drops.push(move || drop(left));
            } else {
                contain("a destructor of what a job has kept", || drop(left));
            }
        }
        for job in unread.into_iter().filter(|job| !self.is_mine(job)) {
            let core = self.lock.core.clone();
            let read = move || _ = core.upgrade().map(|core| core.read(&job));
            self.lock.sides.readers.push(read);
        }
        self.lock.sides.kick();
    }
}

/// What is dropped when the lock is let go: destructors of users must not run behind it, and giving memory back calls the
/// system.
pub(super) struct Left {
    pub(super) job: Arc<JobEntry>,
    /// Whether destructors of users are among it.
    pub(super) lends: bool,
    pub(super) _what: Option<Box<dyn Any + Send + Sync>>,
}

/// Bytes of inputs and output that are let go on a thread of their own.
const MUCH: u64 = 16 << 20;
