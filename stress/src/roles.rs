//! Small processes that do one thing each with a doorbell or a lock in shared memory, and end: the engine's own
//! doorbells, and those of `raw_sync` for comparison.

use std::{
    env, io,
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{
            AtomicU32,
            Ordering::{AcqRel, Acquire, Relaxed, Release},
        },
    },
    thread,
    time::{Duration, Instant},
};

use swathe_memory::{Access, MemoryError, Segment, SegmentId, Shared};
use swathe_os::{descriptors, futex, process};
use swathe_protocol::{Bell, ParkWord, bell};

use crate::{
    raw,
    tracee::{LOOK, marker, sleeps_on_futex},
};

/// Set in the environment of a role, and nowhere else: what it is, and where its ground is.
const ROLE: &str = "SWATHE_STRESS_ROLE";
/// Longer than anybody here sleeps with a right doorbell: a wake that is lost must be seen.
const FOR_EVER: Duration = Duration::from_secs(3600);
/// Bytes of a ground.
const GROUND: usize = 4096;
/// Where the words of `raw_sync` lie, and how many bytes they may take.
const RAW: (usize, usize) = (2048, 1024);

/// What a role works with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitKind {
    /// The park word of a worker, and runs to be taken.
    Park,
    /// The bell of a job.
    Bell,
    /// `raw_sync`'s event, manually reset.
    RawEvent,
    /// `raw_sync`'s mutex.
    RawMutex,
}

/// What it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Waits until something has happened. With a mutex: locks, counts, unlocks.
    Wait,
    /// Makes it happen, and wakes who waits.
    Wake,
    /// Makes it not have happened.
    Reset,
}

/// The words that the roles share.
#[derive(Debug)]
pub struct Ground {
    segment: Arc<Segment>,
    /// The next role starts when this is 1.
    go: Shared<AtomicU32>,
    /// Runs that were given, and taken.
    given: Shared<AtomicU32>,
    taken: Shared<AtomicU32>,
    /// Whether the event that the bell tells of has happened: what the gate is to a job.
    happened: Shared<AtomicU32>,
    counter: Shared<AtomicU32>,
    park: Shared<ParkWord>,
    bell: Shared<Bell>,
}

impl Ground {
    /// A new one.
    ///
    /// # Errors
    /// If memory cannot be had, or `raw_sync` refuses it.
    pub fn new() -> io::Result<Self> {
        let ground = Segment::create("stress-ground", GROUND)
            .and_then(Self::lay)
            .map_err(io::Error::other)?;
        raw::create(&ground.segment, RAW)?;
        Ok(ground)
    }

    fn lay(segment: Arc<Segment>) -> Result<Self, MemoryError> {
        #[expect(unsafe_code, reason = "words over memory that both processes know")]
        // SAFETY: the segment is for these words, each of which has a place of its own, a pair of cache lines; what `raw` puts
        // into it lies behind them.
        unsafe {
            Ok(Self {
                go: Shared::at(&segment, 0)?,
                given: Shared::at(&segment, 128)?,
                taken: Shared::at(&segment, 256)?,
                happened: Shared::at(&segment, 384)?,
                counter: Shared::at(&segment, 512)?,
                park: Shared::at(&segment, 640)?,
                bell: Shared::at(&segment, 768)?,
                segment,
            })
        }
    }

    /// Starts a role. It waits for [`start`](Self::start) if that is wanted.
    ///
    /// # Errors
    /// If no process can be started.
    pub fn spawn(&self, kind: WaitKind, act: Act, held: bool) -> io::Result<Role> {
        self.go.store(u32::from(!held), Release);
        let role = format!(
            "{} {} {} {}",
            kind as u32,
            act as u32,
            self.segment.id().to_bits(),
            std::process::id()
        );
        #[expect(unsafe_code, reason = "a descriptor is passed on")]
        // SAFETY: the role maps it, and no array lies in it.
        let stdin = unsafe { self.segment.fd() }.try_clone_to_owned()?;
        let mut command = Command::new("/proc/self/exe");
        let command = command.arg0("stress-role").env(ROLE, role);
        Ok(Role(command.stdin(Stdio::from(stdin)).spawn()?))
    }

    /// Lets the role that waits go.
    pub fn start(&self) {
        self.go.store(1, Release);
        futex::wake(&self.go, u32::MAX);
    }

    /// Whether who waits next need not be woken.
    pub fn has_happened(&self, kind: WaitKind) -> bool {
        match kind {
            WaitKind::Park => self.given.load(Acquire) > self.taken.load(Acquire),
            WaitKind::Bell => self.happened.load(Acquire) != 0,
            WaitKind::RawEvent | WaitKind::RawMutex => false,
        }
    }

    /// What the supervisor does after every death, whoever died. (`raw_sync` has no rule.)
    pub fn recover(&self, kind: WaitKind) {
        match kind {
            WaitKind::Park => {
                bell::publish_fence();
                self.park.unpark_self();
                futex::wake(self.park.word(), u32::MAX);
            }
            WaitKind::Bell if self.has_happened(kind) => {
                let _ = self.bell.ring();
                futex::wake(self.bell.word(), u32::MAX);
            }
            _ => {}
        }
    }

    fn act(&self, kind: WaitKind, act: Act) -> io::Result<()> {
        match (kind, act) {
            (WaitKind::Park, Act::Wait) => self.take(),
            (WaitKind::Park, Act::Wake) => self.give(),
            (WaitKind::Park, Act::Reset) => {}
            (WaitKind::Bell, Act::Wait) => self.listen(),
            (WaitKind::Bell, Act::Wake) => self.ring(),
            (WaitKind::Bell, Act::Reset) => self.happened.store(0, Relaxed),
            (WaitKind::RawEvent, _) => raw::event(&self.segment, RAW, act)?,
            (WaitKind::RawMutex, Act::Wait) => raw::locked(&self.segment, RAW, || {
                self.counter.store(self.counter.load(Relaxed) + 1, Relaxed);
            })?,
            (WaitKind::RawMutex, _) => {}
        }
        Ok(())
    }

    /// A worker that wants one run: as in the protocol's README, 8.
    fn take(&self) {
        let one = || {
            let (given, taken) = (self.given.load(Acquire), self.taken.load(Acquire));
            given > taken
                && self
                    .taken
                    .compare_exchange(taken, taken + 1, AcqRel, Relaxed)
                    .is_ok()
        };
        while !one() {
            self.park.prepare();
            if !self.has_happened(WaitKind::Park) {
                while !self.park.is_awake() {
                    futex::wait(self.park.word(), ParkWord::PARKED, FOR_EVER);
                }
            }
            self.park.unpark_self();
        }
    }

    fn give(&self) {
        self.given.fetch_add(1, Release);
        bell::publish_fence();
        if self.park.claim_wake() {
            futex::wake(self.park.word(), 1);
        }
    }

    fn listen(&self) {
        while !self.has_happened(WaitKind::Bell) {
            let waited = self.bell.prepare();
            if !self.has_happened(WaitKind::Bell) {
                futex::wait(self.bell.word(), waited, FOR_EVER);
            }
        }
    }

    fn ring(&self) {
        self.happened.store(1, Release);
        if self.bell.ring() {
            futex::wake(self.bell.word(), u32::MAX);
        }
    }
}

/// A role's process. Dropped, it is killed.
#[derive(Debug)]
pub struct Role(Child);

impl Role {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Waits until it sleeps, or has ended.
    ///
    /// # Errors
    /// If it does neither.
    pub fn await_sleep(&mut self) -> io::Result<()> {
        let start = Instant::now();
        while !sleeps_on_futex(self.pid()) && self.0.try_wait()?.is_none() {
            if start.elapsed() > Duration::from_secs(20) {
                return Err(io::Error::other("a role neither sleeps nor ends"));
            }
            thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Whether it ends by then.
    ///
    /// # Errors
    /// If that cannot be told.
    pub fn ends(&mut self, patience: Duration) -> io::Result<bool> {
        let start = Instant::now();
        loop {
            if self.0.try_wait()?.is_some() {
                return Ok(true);
            }
            if start.elapsed() > patience {
                return Ok(false);
            }
            thread::sleep(LOOK);
        }
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// In a role's process this plays the role and does not return. Call it on the first line of `main`.
pub fn init() {
    let Ok(role) = env::var(ROLE) else { return };
    let code = match play(&role) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("a role could not be played: {error}");
            1
        }
    };
    std::process::exit(code);
}

fn play(role: &str) -> io::Result<()> {
    let words: Vec<u64> = role.split(' ').filter_map(|word| word.parse().ok()).collect();
    let &[kind, act, id, parent] = words.as_slice() else {
        return Err(io::Error::other(format!("{role:?} is no role")));
    };
    if !process::die_with_parent(parent as u32) {
        return Ok(());
    }
    let kind = [
        WaitKind::Park,
        WaitKind::Bell,
        WaitKind::RawEvent,
        WaitKind::RawMutex,
    ][kind as usize & 3];
    let act = [Act::Wait, Act::Wake, Act::Reset][act as usize % 3];
    #[expect(
        unsafe_code,
        reason = "descriptors that nobody owns yet are closed, and descriptor 0 is taken"
    )]
    // SAFETY: this is the first line of `main`: what is open was inherited, and has no owner.
    let fd = unsafe { descriptors::take_stdin_and_close_rest() }?;
    let id = SegmentId::from_bits(id);
    #[expect(unsafe_code, reason = "a segment of the process that started this one")]
    // SAFETY: it gave the segment this id, and this file as descriptor 0.
    let segment = unsafe { Segment::attach(id, fd, GROUND, Access::ReadWrite) };
    let ground = segment.and_then(Ground::lay).map_err(io::Error::other)?;
    while ground.go.load(Acquire) == 0 {
        futex::wait(&ground.go, 0, FOR_EVER);
    }
    marker();
    ground.act(kind, act)?;
    marker();
    Ok(())
}
