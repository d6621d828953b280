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
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use swathe_memory::{MemoryError, Segment, SharedSlice};
use swathe_os::{
    file::open_memory_file,
    process::{self, monotonic_ns},
};
use swathe_protocol::{JobKey, JobPhase, SlotPhase, header::MAGIC};

use crate::shared::{
    control::{Control, JOBS, MAX_PROCESSES, NAME, RING},
    memory,
};

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
    /// It has more of what looks like a pool than any program has pools.
    #[error(
        "process {pid} has more than {most} memory files that are named as the pools of Swathe are; it is not looked at"
    )]
    TooMany {
        /// The process.
        pid: u32,
        /// The most pools that are looked at.
        most: usize,
    },
    /// Its pool has another layout.
    #[error("what process {0} has for a pool was made by another version of Swathe, or is none")]
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
#[non_exhaustive]
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
#[non_exhaustive]
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
#[non_exhaustive]
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
    /// Where the copy lies: all pools of a process are copied to one place.
    copy: Control,
    words: SharedSlice<AtomicU64>,
    turn: Arc<Mutex<()>>,
}

/// The most pools of a process that are looked at.
const MOST_POOLS: usize = 256;
/// So many bytes are copied at a time.
const PIECE: usize = 64 << 10;

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
    let mut found = Vec::new();
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
        // Only what is a memory file is opened: a pipe of that name would be waited for.
        let file = match open_memory_file(&path) {
            Ok(Some(file)) => file,
            Ok(None) => {
                others = true;
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(error)),
        };
        let Ok(facts) = file.metadata() else { continue };
        if !seen.insert((facts.dev(), facts.ino())) {
            continue;
        }
        if seen.len() > MOST_POOLS {
            return Err(ObserveError::TooMany {
                pid,
                most: MOST_POOLS,
            });
        }
        match slots_of(&file, facts.len()) {
            Some(slots) => found.push((file, slots)),
            None => others = true,
        }
    }
    match (found.is_empty(), others) {
        (false, _) => Ok(lay_out(found)?),
        (true, true) => Err(ObserveError::OtherVersion(pid)),
        (true, false) => Err(ObserveError::NoPool(pid)),
    }
}

/// How many slots a control segment has; `None` if its words are not laid out as ours are.
fn slots_of(file: &fs::File, len: u64) -> Option<usize> {
    let mut head = [0; 24];
    file.read_exact_at(&mut head, 0).ok()?;
    let word = |i: usize| u32::from_le_bytes(head[i..i + 4].try_into().expect("4 bytes"));
    let (slots, jobs, ring) = (word(8) as usize, word(12), word(16));
    let ours = head[..8] == MAGIC.to_le_bytes() && jobs == JOBS && ring == RING && slots <= MAX_PROCESSES;
    (ours && Control::len(slots) as u64 == len).then_some(slots)
}

/// Makes one place for the copies of all of them, as long as the longest.
fn lay_out(found: Vec<(fs::File, usize)>) -> Result<Vec<ObservedPool>, MemoryError> {
    let most = found.iter().map(|(_, slots)| *slots).max().unwrap_or(0);
    let segment: Arc<Segment> = Segment::create("swathe-onlooker", Control::len(most))?;
    let turn = Arc::new(Mutex::new(()));
    let pools = found.into_iter().map(|(file, slots)| {
        Ok(ObservedPool {
            file,
            copy: Control::lay(segment.clone(), slots)?,
            words: memory::copied_words(&segment, Control::len(slots) / 8)?,
            turn: turn.clone(),
        })
    });
    pools.collect()
}

impl ObservedPool {
    /// The pool as it is now. After the death of its process: as it was at the end.
    pub fn look(&self) -> PoolView {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = vec![0; PIECE];
        let mut offset = 0;
        for piece in self.words.chunks(PIECE / 8) {
            let bytes = &mut bytes[..piece.len() * 8];
            // Its size is sealed, so nothing is cut short; should it fail all the same, an empty pool is seen.
            if self.file.read_exact_at(bytes, offset).is_err() {
                bytes.fill(0);
            }
            offset += bytes.len() as u64;
            for (word, bytes) in piece.iter().zip(bytes.chunks_exact(8)) {
                word.store(
                    u64::from_le_bytes(bytes.try_into().expect("8 bytes")),
                    Ordering::Relaxed,
                );
            }
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
    let counted = swathe_protocol::lane::counted(|| control.words().lanes_of(key));
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

#[cfg(test)]
mod tests {
    use swathe_os::memfd;

    use super::*;

    /// Memory files that only have the name: others' sizes, no seals, nothing in them, a header that lies.
    #[test]
    fn what_only_looks_like_a_pool_is_passed_over() {
        let of_us = || pools(std::process::id());
        let unsealed = memfd::unsealed(NAME).unwrap();
        let held: Vec<_> = [0, 8, 4096, 1 << 40]
            .map(|len| memfd::create(NAME, len).unwrap())
            .into();
        let liar = Control::create(2).unwrap();
        liar.header.slots.store(MAX_PROCESSES as u32, Ordering::Relaxed);
        liar.header.used_slots.store(1000, Ordering::Relaxed);
        // Other tests of this process may have control segments as well.
        let processes = || -> Vec<_> {
            let found = of_us().unwrap_or_default();
            found.iter().map(|pool| pool.look().processes).collect()
        };
        assert!(!processes().contains(&1000));

        let control = Control::create(4).unwrap();
        control.header.used_slots.store(u32::MAX, Ordering::Relaxed);
        let larger = Control::create(40).unwrap();
        larger.header.used_slots.store(37, Ordering::Relaxed);
        for _ in 0..2 {
            let seen = processes();
            assert!(
                seen.contains(&4) && seen.contains(&37),
                "copied to one place, one after the other: {seen:?}"
            );
        }
        let many: Vec<_> = (0..MOST_POOLS)
            .map(|_| memfd::create(NAME, 4096).unwrap())
            .collect();
        let text = of_us().unwrap_err().to_string();
        assert!(
            text.contains("has more than 256 memory files that are named"),
            "{text}"
        );
        drop((unsealed, held, many));
    }
}
