//! A look at the pools of any process of the same user, from outside.
//!
//! A pool's control segment is a memory file that its parent holds open, so it can be found among the descriptors of
//! that process. An onlooker reads it (`pread`) into memory of its own and lays the protocol's words over the copy: the
//! pool is not disturbed, does not know, and cannot be harmed. Each word is as it was at some moment of the copy; two
//! words need not be of the same moment.

use std::{
    collections::BTreeSet,
    fmt, fs, io,
    ops::Range,
    os::unix::fs::{FileExt, MetadataExt},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use swathe_memory::{MemoryError, Segment, SharedSlice};
use swathe_os::process::{self, monotonic_ns};
use swathe_protocol::{JobKey, JobPhase, SlotPhase, header::MAGIC};

use crate::control::{Control, JOBS, MAX_PROCESSES, NAME, RING};

/// Why a process's pools cannot be seen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObserveError {
    /// There is no such process.
    #[error("there is no process {0}")]
    NoProcess(u32),
    /// It is somebody else's.
    #[error("the descriptors of process {0} may not be read: it belongs to another user, or protects itself")]
    NotAllowed(u32),
    /// It has no pool.
    #[error("process {0} has no pool: give the id of the process that built it")]
    NoPool(u32),
    /// Its pool has another layout.
    #[error("the pool of process {0} was built by another version of Swathe")]
    OtherVersion(u32),
    /// It could not be read.
    #[error("process {pid} could not be looked at: {source}")]
    Io {
        /// The process.
        pid: u32,
        /// What the system said.
        source: io::Error,
    },
    /// There is no memory for the copy.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// What a worker is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// No process yet, or one that has not got to its initializer.
    Starting,
    /// In the initializer.
    Initializing,
    /// Nothing.
    Idle,
    /// Takes work.
    Claiming,
    /// Runs tasks.
    Working,
    /// Leaves.
    Leaving,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Starting => "starting",
            Self::Initializing => "initializing",
            Self::Idle => "idle",
            Self::Claiming => "claiming",
            Self::Working => "working",
            Self::Leaving => "leaving",
        })
    }
}

/// What becomes of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum JobState {
    /// Workers are at it.
    Running,
    /// After a death its claims are made anew.
    Recovering,
    /// All chunks are done.
    Complete,
    /// It was cancelled, or stopped by a failure, a deadline, or the end of its pool.
    Stopped,
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Running => "running",
            Self::Recovering => "recovering",
            Self::Complete => "complete",
            Self::Stopped => "stopped",
        })
    }
}

/// A worker, as it was.
#[derive(Clone, Debug)]
pub struct WorkerView {
    /// Its number.
    pub index: usize,
    /// Its process id, 0 when there is none.
    pub pid: u32,
    /// How many processes have had this number.
    pub incarnation: u32,
    /// What it is doing.
    pub phase: Phase,
    /// Whether it sleeps until there is work.
    pub is_asleep: bool,
    /// The job it is in; see [`JobView::id`].
    pub job: Option<u32>,
    /// Positions of the strip in work.
    pub strip: Option<Range<u64>>,
    /// For how long it has been in work.
    pub strip_age: Option<Duration>,
    /// Whether somebody has died over this chunk before.
    pub is_rerun: bool,
    /// Elements that this process has run.
    pub elements: u64,
    /// How long it has spent in tasks.
    pub busy: Duration,
}

/// A job, as it was.
#[derive(Clone, Debug)]
pub struct JobView {
    /// Tells it from the other jobs of its pool that are there at the same time.
    pub id: u32,
    /// What becomes of it.
    pub state: JobState,
    /// Its elements.
    pub positions: u64,
    /// Its chunks; of a round of retries, the positions (chunks, for a task that takes whole chunks) that are tried again.
    pub chunks: u64,
    /// Those of them that are done.
    pub chunks_done: u64,
    /// Positions that have failed so far.
    pub failed: u64,
    /// 1, and one more for each round of retries.
    pub attempt: u64,
}

/// A pool, as it was.
#[derive(Clone, Debug)]
pub struct PoolView {
    /// When, on the monotonic clock.
    pub at: Duration,
    /// Worker slots in use, those of workers that have left for good included.
    pub processes: usize,
    /// Whether its workers were told to leave.
    pub is_closing: bool,
    /// Its workers, by number.
    pub workers: Vec<WorkerView>,
    /// Its open jobs; those that wait for a cell or for a retry's backoff are not among them.
    pub jobs: Vec<JobView>,
}

/// A pool of another process, found by [`pools`].
pub struct ObservedPool {
    file: fs::File,
    /// Where the copy lies.
    copy: Control,
    words: SharedSlice<AtomicU64>,
}

impl fmt::Debug for ObservedPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObservedPool").finish_non_exhaustive()
    }
}

/// The pools of a process: of the program that built them, or of one of its workers.
///
/// # Errors
/// If there is no such process or it is another user's, or it has no pool that this version of Swathe can read.
pub fn pools(pid: u32) -> Result<Vec<ObservedPool>, ObserveError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::PermissionDenied => ObserveError::NotAllowed(pid),
        _ if !process::exists(pid) => ObserveError::NoProcess(pid),
        _ => ObserveError::Io { pid, source },
    };
    let mut seen = BTreeSet::new();
    let mut pools = Vec::new();
    let mut others = false;
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).map_err(failed)? {
        // A descriptor may be closed, and a process may end, between two looks.
        let Ok(path) = entry.map(|entry| entry.path()) else {
            continue;
        };
        let is_control = fs::read_link(&path)
            .is_ok_and(|target| target.to_string_lossy().starts_with(&format!("/memfd:{NAME}")));
        if !is_control {
            continue;
        }
        let Ok(file) = fs::File::open(&path) else { continue };
        let Ok(facts) = file.metadata() else { continue };
        if !seen.insert((facts.dev(), facts.ino())) {
            continue;
        }
        match ObservedPool::open(file, facts.len())? {
            Some(pool) => pools.push(pool),
            None => others = true,
        }
    }
    match (pools.is_empty(), others) {
        (false, _) => Ok(pools),
        (true, true) => Err(ObserveError::OtherVersion(pid)),
        (true, false) => Err(ObserveError::NoPool(pid)),
    }
}

impl ObservedPool {
    /// `None` if the words are not laid out as ours are.
    fn open(file: fs::File, len: u64) -> Result<Option<Self>, ObserveError> {
        let mut head = [0; 24];
        if file.read_exact_at(&mut head, 0).is_err() {
            return Ok(None);
        }
        let word = |i: usize| u32::from_le_bytes(head[i..i + 4].try_into().expect("4 bytes"));
        let (slots, jobs, ring) = (word(8) as usize, word(12), word(16));
        let ours = head[..8] == MAGIC.to_le_bytes() && jobs == JOBS && ring == RING && slots <= MAX_PROCESSES;
        if !ours || Control::len(slots) as u64 != len {
            return Ok(None);
        }
        let segment: Arc<Segment> = Segment::create("swathe-onlooker", len as usize)?;
        Ok(Some(Self {
            file,
            copy: Control::lay(segment.clone(), slots)?,
            words: SharedSlice::at(&segment, 0, len as usize / 8)?,
        }))
    }

    /// The pool as it is now. After the death of its process: as it was at the end.
    pub fn look(&self) -> PoolView {
        let mut bytes = vec![0; self.words.len() * 8];
        // Its size is sealed, so nothing is cut short; should it fail all the same, an empty pool is seen.
        let _ = self.file.read_exact_at(&mut bytes, 0);
        for (word, bytes) in self.words.iter().zip(bytes.chunks_exact(8)) {
            word.store(
                u64::from_le_bytes(bytes.try_into().expect("8 bytes")),
                Ordering::Relaxed,
            );
        }
        view(&self.copy, monotonic_ns())
    }
}

fn view(control: &Control, now: u64) -> PoolView {
    let used = control.header.used_slots.load(Ordering::Relaxed) as usize;
    let processes = used.min(control.slots.len());
    PoolView {
        at: Duration::from_nanos(now),
        processes,
        is_closing: control.header.shutdown.load(Ordering::Relaxed) != 0,
        workers: (0..processes)
            .map(|index| worker_view(control, index, now))
            .collect(),
        jobs: (0..JOBS).filter_map(|index| job_view(control, index)).collect(),
    }
}

fn worker_view(control: &Control, index: usize, now: u64) -> WorkerView {
    let slot = &control.slots[index];
    let phase = match slot.phase() {
        SlotPhase::Starting => Phase::Starting,
        SlotPhase::Initializing => Phase::Initializing,
        SlotPhase::Idle => Phase::Idle,
        SlotPhase::Popping | SlotPhase::Stealing => Phase::Claiming,
        SlotPhase::Working => Phase::Working,
        SlotPhase::Leaving => Phase::Leaving,
    };
    let seen = slot.strip();
    let strip = (phase == Phase::Working && seen.is_in_work()).then_some(seen);
    WorkerView {
        index,
        pid: slot.pid.load(Ordering::Relaxed),
        incarnation: slot.incarnation.load(Ordering::Relaxed),
        phase,
        is_asleep: !control.parks[index].is_awake(),
        job: slot.inside().map(|key| key.index),
        strip: strip.map(|strip| strip.first..strip.first.saturating_add(strip.len)),
        strip_age: strip.map(|strip| Duration::from_nanos(now.saturating_sub(strip.started))),
        is_rerun: slot.careful.load(Ordering::Relaxed) != 0,
        elements: slot.elements.load(Ordering::Relaxed),
        busy: Duration::from_nanos(slot.busy.load(Ordering::Relaxed)),
    }
}

fn job_view(control: &Control, index: u32) -> Option<JobView> {
    let cell = &control.jobs[index as usize];
    let gate = cell.gate.state();
    let state = match gate.phase {
        JobPhase::Vacant => return None,
        JobPhase::Open => JobState::Running,
        JobPhase::Closed => JobState::Recovering,
        JobPhase::Complete => JobState::Complete,
        JobPhase::Stopped => JobState::Stopped,
    };
    let terms = cell.terms();
    let key = JobKey::new(index, gate.generation);
    // Of this epoch's chunks; those of earlier ones are no target any more.
    let counted = swathe_protocol::lane::counted(|| control.lanes(key));
    let left = cell.target.load(Ordering::Relaxed).saturating_sub(counted);
    Some(JobView {
        id: index,
        state,
        positions: terms.positions,
        chunks: terms.chunks,
        chunks_done: terms.chunks.saturating_sub(left),
        failed: cell.failed.load(Ordering::Relaxed),
        attempt: terms.attempt,
    })
}
