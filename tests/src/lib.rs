//! What the tests share: a watchdog that tells where every process is, waiting with a deadline, and a check that nothing
//! is left behind.
//!
//! Nothing here asserts a maximum time: the deadlines only turn a hang into a failure that says where.

mod constructor;
pub mod stranger;

pub use constructor::constructed;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt::{self, Write as _},
    fs,
    io::{self, Write as _},
    ops::Deref,
    path::{Path, PathBuf},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use swathe::Pool;

/// After this long a test is taken to hang.
const PATIENCE: Duration = Duration::from_secs(90);

/// Ends the whole test program, with a report of all its processes, unless it is dropped in time.
#[derive(Debug)]
pub struct Watch {
    _alive: mpsc::Sender<()>,
}

/// Watches over the rest of the calling test.
pub fn watch() -> Watch {
    let test = thread::current().name().unwrap_or("a test").to_owned();
    let (alive, ended) = mpsc::channel();
    thread::spawn(move || {
        if ended.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            // Not `eprintln!`: the harness would keep it to itself until the test is over.
            let _ = io::stderr().write_all(format!("{test} hangs\n{}", report()).as_bytes());
            std::process::abort();
        }
    });
    Watch { _alive: alive }
}

/// A value with a watchdog that barks until it is dropped, or while it is.
#[derive(Debug)]
pub struct Watched<T> {
    value: T,
    _watch: Watch,
}

impl<T> Deref for Watched<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// A pool of this many processes, under watch.
///
/// # Panics
/// If it cannot be built.
pub fn pool(processes: usize) -> Watched<Pool> {
    watched(Pool::builder().processes(processes).build())
}

/// A pool that the test built itself, under watch.
///
/// # Panics
/// If it could not be built.
pub fn watched<S>(pool: swathe::Result<Pool<S>>) -> Watched<Pool<S>> {
    Watched {
        value: pool.unwrap_or_else(|error| panic!("{error}")),
        _watch: watch(),
    }
}

/// Waits until something holds.
///
/// # Panics
/// If it does not for a long time.
pub fn until(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(
            start.elapsed() < PATIENCE / 2,
            "waited in vain until {what}\n{}",
            report()
        );
        thread::sleep(Duration::from_millis(2));
    }
}

/// Whether a process is there and no zombie.
pub fn runs(pid: u32) -> bool {
    Process::read(pid).is_some_and(|process| process.state != 'Z')
}

/// One process, as the kernel describes it.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// The id of its parent.
    pub parent: u32,
    /// Its short name.
    pub name: String,
    /// `R` running, `S` sleeping, `Z` zombie, ...
    pub state: char,
}

impl Process {
    /// Looks a process up.
    pub fn read(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // pid (name) state parent ...; the name may hold anything.
        let (head, tail) = stat.rsplit_once(')')?;
        let name = head.split_once('(')?.1.to_owned();
        let mut fields = tail.split_whitespace();
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        Some(Self {
            pid,
            parent,
            name,
            state,
        })
    }

    /// What each of its threads is doing.
    fn threads(&self) -> Vec<String> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid))
            .into_iter()
            .flatten()
            .flatten();
        let read = |path: &Path, file| {
            fs::read_to_string(path.join(file))
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        tasks
            .map(|task| {
                let path = task.path();
                let (name, wchan, call) = (read(&path, "comm"), read(&path, "wchan"), read(&path, "syscall"));
                let call = call.split_whitespace().next().unwrap_or("?");
                format!("{name} in {wchan}, system call {call}")
            })
            .collect()
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} of {}, state {}",
            self.pid, self.name, self.parent, self.state
        )
    }
}

/// All processes that this one has started, and their descendants, zombies included.
pub fn descendants() -> Vec<Process> {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let all: Vec<Process> = pids
        .filter_map(|entry| Process::read(entry.file_name().to_str()?.parse().ok()?))
        .collect();
    let mut family = vec![std::process::id()];
    let mut found: Vec<Process> = Vec::new();
    while let Some(parent) = family.pop() {
        let children = all.iter().filter(|process| process.parent == parent);
        found.extend(children.clone().cloned());
        family.extend(children.map(|child| child.pid));
    }
    found
}

/// The processes of pools among the [`descendants`].
pub fn pool_processes() -> Vec<Process> {
    descendants()
        .into_iter()
        .filter(|process| process.name.starts_with("swathe-"))
        .collect()
}

/// Where this process and its descendants are.
pub fn report() -> String {
    let mut text = String::new();
    for process in Process::read(std::process::id()).into_iter().chain(descendants()) {
        let _ = writeln!(text, "{process}");
        for thread in process.threads() {
            let _ = writeln!(text, "    {thread}");
        }
    }
    text
}

/// What must be the same after a pool as before: no process, the same open files, the same names in `/dev/shm`.
///
/// Only for programs whose tests run one after the other.
#[derive(Debug, PartialEq, Eq)]
pub struct Holdings {
    /// Descriptors by what they refer to.
    files: BTreeMap<PathBuf, usize>,
    shared_memory: Vec<OsString>,
    processes: Vec<u32>,
}

impl Holdings {
    /// What there is now.
    ///
    /// # Panics
    /// If `/proc` cannot be read.
    pub fn now() -> Self {
        let mut files = BTreeMap::new();
        let open: Vec<_> = fs::read_dir("/proc/self/fd")
            .expect("/proc is there")
            .flatten()
            .collect();
        for file in open {
            // The directory's own descriptor is closed by now.
            if let Ok(target) = fs::read_link(file.path()) {
                *files.entry(numberless(&target)).or_insert(0) += 1;
            }
        }
        let names = fs::read_dir("/dev/shm").into_iter().flatten().flatten();
        let mut shared_memory: Vec<_> = names.map(|name| name.file_name()).collect();
        shared_memory.sort();
        let processes = pool_processes().iter().map(|process| process.pid).collect();
        Self {
            files,
            shared_memory,
            processes,
        }
    }

    /// Waits until everything is as it was.
    ///
    /// # Panics
    /// If it never is.
    pub fn assert_restored(&self, after: &str) {
        let start = Instant::now();
        while *self != Self::now() {
            let now = Self::now();
            assert!(
                start.elapsed() < PATIENCE / 2,
                "after {after}, something is left\nbefore: {self:#?}\nnow: {now:#?}\n{}",
                report()
            );
            thread::sleep(Duration::from_millis(2));
        }
    }
}

/// `socket:[1234]` without its number, which says nothing.
fn numberless(target: &Path) -> PathBuf {
    let text = target.to_string_lossy();
    text.split_once(":[")
        .map_or_else(|| target.to_owned(), |(kind, _)| PathBuf::from(kind))
}

/// The listings of the README, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
mod readme {}

/// The listings of the page on failures, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../docs/failures.md")]
mod failures {}

/// The listings of the guide, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../docs/guide.md")]
mod guide {}

/// The listings of the page on other programs, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../docs/embedding.md")]
mod embedding {}
