//! Who sees to it that what was done is on the disk, too.

use std::{
    io,
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, PoisonError, atomic::Ordering},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use swathe_protocol::{ChunkStatus, Tag};
use swathe_runtime::{End, Outcome};

use super::{
    error::OutputError,
    file::{Ledger, failed},
    format::{Checkpoint, Session},
};

/// The least time between two checkpoints.
const EVERY: Duration = Duration::from_secs(1);
/// Checkpoints may take one part in this many of the time.
const SHARE: u32 = 20;

impl Ledger {
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

/// A thread that makes a checkpoint now and then while the job runs, and a last one when it is over.
#[derive(Debug)]
pub(super) struct Keeper {
    path: PathBuf,
    stop: Arc<Stop>,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Running(JoinHandle<(Ledger, Result<(), OutputError>)>),
    /// What the system said, if the last values could not be saved.
    Over(Option<(io::ErrorKind, String)>),
}

#[derive(Debug, Default)]
struct Stop {
    asked: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    fn ask(&self) {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Whether it was asked for within this time.
    fn wait(&self, time: Duration) -> bool {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let (asked, _) = self
            .changed
            .wait_timeout_while(asked, time, |asked| !*asked)
            .unwrap_or_else(PoisonError::into_inner);
        *asked
    }
}

impl Keeper {
    pub(super) fn start(ledger: Ledger) -> Result<Self, OutputError> {
        let path = ledger.files.path.clone();
        let stop = Arc::new(Stop::default());
        let asked = stop.clone();
        let thread = thread::Builder::new()
            .name("swathe-keeper".into())
            .spawn(move || keep(ledger, &asked))
            .map_err(failed("start a thread for", &path))?;
        Ok(Self {
            path,
            stop,
            state: Mutex::new(State::Running(thread)),
        })
    }

    /// The job is over: what it has brought is on the disk when this returns.
    pub(super) fn conclude(&self, outcome: &Outcome) -> Result<(), OutputError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Running(_) = *state {
            let State::Running(thread) = std::mem::replace(&mut *state, State::Over(None)) else {
                unreachable!("it was running a line ago");
            };
            self.stop.ask();
            let result = thread.join().map_or_else(
                |_| Err(io::Error::other("its keeper panicked")),
                |(ledger, so_far)| {
                    ledger.settle(outcome);
                    last(ledger, so_far)
                },
            );
            *state = State::Over(result.err().map(|error| (error.kind(), error.to_string())));
        }
        match &*state {
            State::Over(Some((kind, text))) => Err(OutputError::NotWritten {
                path: self.path.clone(),
                source: io::Error::new(*kind, text.clone()),
            }),
            _ => Ok(()),
        }
    }
}

/// A job that was never concluded; its files are exact all the same, but for a power failure.
impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop.ask();
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let State::Running(thread) = std::mem::replace(state, State::Over(None)) {
            let _ = thread.join();
        }
    }
}

fn keep(mut ledger: Ledger, stop: &Stop) -> (Ledger, Result<(), OutputError>) {
    let mut pause = EVERY;
    while !stop.wait(pause) {
        let begun = Instant::now();
        if let Err(error) = ledger.checkpoint() {
            ledger.distrust();
            tracing::error!(%error, "what a job has done so far could not be saved");
            return (ledger, Err(error));
        }
        pause = EVERY.max(begun.elapsed() * SHARE);
    }
    (ledger, Ok(()))
}

fn last(mut ledger: Ledger, so_far: Result<(), OutputError>) -> io::Result<()> {
    so_far
        .and_then(|()| ledger.checkpoint())
        .inspect_err(|_| ledger.distrust())
        .map_err(|error| match error {
            OutputError::Io { source, .. } => source,
            other => io::Error::other(other),
        })
}
