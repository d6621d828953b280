//! Who sees to it that what was done is on the disk, too.

use std::{
    fmt, io,
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, atomic::Ordering},
    task::Waker,
    time::{Duration, Instant},
};

use swathe_os::process;
use swathe_protocol::{ChunkStatus, Tag};
use swathe_runtime::{
    End, EngineError, Outcome,
    user_code::{Promise, contain},
};

use super::{
    error::OutputError,
    files::{ProgressFile, failed},
    format::{Checkpoint, Session},
};

/// The least time between two checkpoints.
const EVERY: Duration = Duration::from_secs(1);
/// Checkpoints may take one part in this many of the time.
const SHARE: u32 = 20;

impl ProgressFile {
    /// Brings all values to the disk that are there now, and then writes down how many these are.
    fn checkpoint(&mut self) -> Result<(), OutputError> {
        let done = self.done();
        if done == self.saved.done {
            return Ok(());
        }
        let files = &self.files;
        files.values.sync_data().map_err(failed("sync", &files.path))?;
        let next = Checkpoint {
            sequence: self.saved.sequence + 1,
            done,
        };
        // The other slot stays as it is until this one is whole.
        let slot = self.layout.slots[(next.sequence % 2) as usize];
        files
            .progress
            .write_all_at(&next.to_bytes(&self.head), slot as u64)
            .and_then(|()| files.progress.sync_data())
            .map_err(failed("sync", &files.progress_path))?;
        self.saved = next;
        Ok(())
    }

    /// How many positions at the start of each chunk have a value.
    fn done(&self) -> Vec<u32> {
        let chunks = self.status.iter().enumerate();
        chunks
            .map(|(chunk, word)| {
                let positions = self.layout.positions_of(chunk);
                // SYNC publish: bits and values that belong to this status are visible.
                let end = match word.load(Tag::NONE) {
                    ChunkStatus::Final => positions.end,
                    ChunkStatus::Progress(done) => (positions.start + u64::from(done)).min(positions.end),
                };
                (self.first_failed(positions.start..end).unwrap_or(end) - positions.start) as u32
            })
            .collect()
    }

    fn first_failed(&self, positions: std::ops::Range<u64>) -> Option<u64> {
        let words = positions.start / 64..positions.end.div_ceil(64);
        for word in words {
            let mut bits = self.failed[word as usize].load(Ordering::Acquire);
            if word == positions.start / 64 {
                bits &= u64::MAX << (positions.start % 64);
            }
            if bits != 0 {
                let position = word * 64 + u64::from(bits.trailing_zeros());
                return (position < positions.end).then_some(position);
            }
        }
        None
    }

    /// A job that ended by itself knows which positions have no value. A bit that says more is of a failure that was
    /// written down by a worker that died before it could publish it.
    fn settle(&self, outcome: &Outcome) {
        if outcome.end != End::Complete {
            return;
        }
        for (word, bits) in (0..).zip(self.failed.iter()) {
            let mut left = bits.load(Ordering::Acquire);
            while left != 0 {
                let bit = left.trailing_zeros();
                left &= left - 1;
                if outcome.failure(word * 64 + u64::from(bit)).is_none() {
                    bits.fetch_and(!(1 << bit), Ordering::Relaxed);
                }
            }
        }
    }

    /// The disk has lost values that the status words speak of: only the last checkpoint counts from now on.
    fn distrust(&self) {
        let _ = self.files.write_session(&Session::of_no_boot());
    }
}

/// A thread that makes a checkpoint now and then while the job runs, and a last one when it is over. Nobody else waits for
/// the disk: not the pool's threads, and not who polls the job.
#[derive(Debug)]
pub(crate) struct Checkpointer {
    shared: Arc<Shared>,
    /// `fork_generation` of the process that has the thread.
    forks: u64,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
    /// What the system said, if the last values could not be saved; there when the thread has let go of the files.
    over: OnceLock<Option<(io::ErrorKind, String)>>,
}

#[derive(Default)]
struct State {
    asked: Option<Asked>,
    wakers: Vec<Waker>,
    callbacks: Vec<(Promise, Box<dyn FnOnce() + Send>)>,
}

/// Why the thread is to come to its end.
#[derive(Clone)]
enum Asked {
    /// The job is over.
    Finish(Arc<Outcome>),
    /// Nobody will know of its end. The files are exact all the same, but for a power failure.
    Leave,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, why: Asked) {
        self.lock().asked.get_or_insert(why);
        self.changed.notify_all();
    }

    /// What was asked for within this time, if anything was.
    fn asked_within(&self, time: Duration) -> Option<Asked> {
        let (state, _) = self
            .changed
            .wait_timeout_while(self.lock(), time, |state| state.asked.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        state.asked.clone()
    }

    /// Until the job is over, or its checkpointer is dropped.
    fn keep(&self, progress_file: ProgressFile) {
        let kept = contain("the checkpointer of an output file", || {
            self.keep_and_finish(progress_file)
        });
        let kept = kept.unwrap_or_else(|| Err(io::Error::other("its checkpointer panicked")));
        let (wakers, callbacks) = {
            let mut state = self.lock();
            let _ = self
                .over
                .set(kept.err().map(|error| (error.kind(), error.to_string())));
            self.changed.notify_all();
            (
                std::mem::take(&mut state.wakers),
                std::mem::take(&mut state.callbacks),
            )
        };
        for (promise, callback) in callbacks {
            promise.keep(callback);
        }
        for waker in wakers {
            contain("a waker", || waker.wake());
        }
    }

    fn keep_and_finish(&self, mut progress_file: ProgressFile) -> io::Result<()> {
        let mut pause = EVERY;
        let mut so_far = Ok(());
        let why = loop {
            if let Some(why) = self.asked_within(pause) {
                break why;
            }
            let begun = Instant::now();
            if so_far.is_ok() {
                so_far = progress_file.checkpoint();
            }
            if let Err(error) = &so_far {
                progress_file.distrust();
                tracing::error!(%error, "what a job has done so far could not be saved");
                pause = Duration::MAX;
                continue;
            }
            pause = EVERY.max(begun.elapsed() * SHARE);
        };
        match why {
            Asked::Leave => Ok(()),
            Asked::Finish(outcome) => {
                progress_file.settle(&outcome);
                last(progress_file, so_far)
            }
        }
    }
}

impl Checkpointer {
    pub(crate) fn start(progress_file: ProgressFile) -> Result<Self, OutputError> {
        let path = progress_file.files.path.clone();
        let shared = Arc::new(Shared {
            path: path.clone(),
            state: Mutex::default(),
            changed: Condvar::new(),
            over: OnceLock::new(),
        });
        let mine = shared.clone();
        process::spawn_thread("swathe-resume", move || mine.keep(progress_file))
            .map_err(failed("start a thread for", &path))?;
        Ok(Self {
            shared,
            forks: process::fork_generation(),
        })
    }

    /// Whether the thread is this process's, and not that of the one which it was forked from.
    fn is_ours(&self) -> bool {
        self.forks == process::fork_generation()
    }

    /// Whether it has finished.
    pub(crate) fn is_finished(&self) -> bool {
        self.shared.over.get().is_some()
    }

    /// The job is over. Waits until what it has brought is on the disk, or the time is over. Gives whether it has finished.
    pub(crate) fn finish(&self, outcome: &Arc<Outcome>, timeout: Option<Duration>) -> bool {
        if self.is_finished() || !self.is_ours() {
            return self.is_finished();
        }
        self.shared.ask(Asked::Finish(outcome.clone()));
        let going_on = |_: &mut State| !self.is_finished();
        let (state, changed) = (self.shared.lock(), &self.shared.changed);
        match timeout {
            None => drop(changed.wait_while(state, going_on)),
            Some(timeout) => drop(changed.wait_timeout_while(state, timeout, going_on)),
        }
        self.is_finished()
    }

    /// The job is over. Gives whether this has finished; if not, it wakes the waker when it has.
    pub(crate) fn poll(&self, outcome: &Arc<Outcome>, waker: &Waker) -> bool {
        if self.finish(outcome, Some(Duration::ZERO)) || !self.is_ours() {
            return true;
        }
        // Cloned and dropped with no lock held.
        let mut mine = Some(waker.clone());
        let mut state = self.shared.lock();
        if self.is_finished() {
            return true;
        }
        if !state.wakers.iter().any(|known| known.will_wake(waker)) {
            state.wakers.extend(mine.take());
        }
        false
    }

    /// The job is over. Calls back when this has finished.
    pub(crate) fn when_finished(
        &self,
        outcome: &Arc<Outcome>,
        promise: Promise,
        callback: Box<dyn FnOnce() + Send>,
    ) {
        self.shared.ask(Asked::Finish(outcome.clone()));
        let mut state = self.shared.lock();
        if self.is_finished() {
            drop(state);
            promise.keep(callback);
        } else {
            state.callbacks.push((promise, callback));
        }
    }

    /// The job is over: what it has brought is on the disk when this returns.
    pub(crate) fn conclude(&self, outcome: &Arc<Outcome>) -> crate::Result<()> {
        self.finish(outcome, None);
        match self.shared.over.get() {
            Some(Some((kind, text))) => Err(OutputError::NotWritten {
                path: self.shared.path.clone(),
                source: io::Error::new(*kind, text.clone()),
            }
            .into()),
            Some(None) => Ok(()),
            None => Err(EngineError::Forked.into()),
        }
    }
}

/// The files are let go when this returns.
impl Drop for Checkpointer {
    fn drop(&mut self) {
        if self.is_finished() || !self.is_ours() {
            return;
        }
        self.shared.ask(Asked::Leave);
        let going_on = |_: &mut State| !self.is_finished();
        drop(self.shared.changed.wait_while(self.shared.lock(), going_on));
    }
}

fn last(mut progress_file: ProgressFile, so_far: Result<(), OutputError>) -> io::Result<()> {
    so_far
        .and_then(|()| progress_file.checkpoint())
        .inspect_err(|_| progress_file.distrust())
        .map_err(|error| match error {
            OutputError::Io { source, .. } => source,
            other => io::Error::other(other),
        })
}
