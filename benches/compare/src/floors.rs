//! What the machine itself takes: the floors that Swathe's figures are held against.

use std::{
    hint::black_box,
    process::{Command, ExitCode, Stdio},
    sync::atomic::{
        AtomicU32,
        Ordering::{Acquire, Release},
    },
    thread,
    time::Duration,
};

use rustix::thread::{CpuSet, futex};

use crate::{Result, harness::timed};

/// A word that shares its cache line with nothing.
#[repr(align(128))]
#[derive(Default)]
struct Line(AtomicU32);

/// How one of two threads waits for the other.
trait Wait: Copy + Send {
    /// Waits until the word is another than `seen`, and gives it.
    fn other(self, word: &AtomicU32, seen: u32) -> u32;
    /// Says that the word has changed.
    fn tell(self, word: &AtomicU32);
}

#[derive(Clone, Copy)]
struct Spin;

impl Wait for Spin {
    fn other(self, word: &AtomicU32, seen: u32) -> u32 {
        loop {
            match word.load(Acquire) {
                same if same == seen => std::hint::spin_loop(),
                other => return other,
            }
        }
    }

    fn tell(self, _: &AtomicU32) {}
}

#[derive(Clone, Copy)]
struct Futex;

impl Wait for Futex {
    fn other(self, word: &AtomicU32, seen: u32) -> u32 {
        loop {
            match word.load(Acquire) {
                // Woken, interrupted or too late: the word tells.
                same if same == seen => drop(futex::wait(word, futex::Flags::PRIVATE, seen, None)),
                other => return other,
            }
        }
    }

    fn tell(self, word: &AtomicU32) {
        let _ = futex::wake(word, futex::Flags::PRIVATE, 1);
    }
}

/// What the word says when there are no more turns.
const OVER: u32 = u32::MAX;

/// Where the two threads are.
#[derive(Clone, Copy)]
enum Cores {
    /// Where the system puts them: two that take turns may well share a core.
    Any,
    /// On a core each, as a caller and a worker that was asleep are.
    Two,
}

impl Cores {
    /// Keeps the calling thread on the `which`-th core that this process may use.
    fn take(self, which: usize) {
        if let Self::Two = self
            && let Ok(allowed) = rustix::thread::sched_getaffinity(None)
        {
            let mut cores = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
            if let Some(core) = cores.nth(which) {
                let mut one = CpuSet::new();
                one.set(core);
                let _ = rustix::thread::sched_setaffinity(None, &one); // a core of those that are allowed
            }
        }
    }
}

/// Lets two threads count a word up in turn; `pause` comes before every turn. The seconds of each round trip.
fn ping_pong(how: impl Wait, cores: Cores, turns: u32, pause: impl Fn() + Send) -> Vec<f64> {
    // In threads of its own: this one stays free to run anywhere.
    let trips = thread::scope(|scope| scope.spawn(move || trips(how, cores, turns, pause)).join());
    trips.expect("neither thread panics")
}

fn trips(how: impl Wait, cores: Cores, turns: u32, pause: impl Fn()) -> Vec<f64> {
    let line = Line::default();
    let word = &line.0;
    thread::scope(|scope| {
        // Started before this thread is confined to a core: it would inherit that.
        scope.spawn(move || {
            cores.take(1);
            let mut mine = 0;
            loop {
                match how.other(word, mine) {
                    OVER => return,
                    theirs => mine = theirs + 1,
                }
                word.store(mine, Release);
                how.tell(word);
            }
        });
        cores.take(0);
        let trips = (0..turns)
            .map(|turn| {
                pause();
                let begun = std::time::Instant::now();
                word.store(2 * turn + 1, Release);
                how.tell(word);
                how.other(word, 2 * turn + 1);
                begun.elapsed().as_secs_f64()
            })
            .collect();
        word.store(OVER, Release);
        how.tell(word);
        trips
    })
}

/// The seconds that a cache line takes from one core to another and back.
pub(crate) fn line_round_trip(turns: u32) -> f64 {
    let (seconds, _) = timed(|| black_box(ping_pong(Spin, Cores::Two, turns, || ())));
    seconds / f64::from(turns)
}

/// The seconds that it takes to wake a thread on another core and to be woken by it, one after the other without pause.
pub(crate) fn futex_round_trip(turns: u32) -> f64 {
    let (seconds, _) = timed(|| black_box(ping_pong(Futex, Cores::Two, turns, || ())));
    seconds / f64::from(turns)
}

/// The same where the system puts the two threads: mostly on one core, where a switch is all it takes.
pub(crate) fn futex_round_trip_anywhere(turns: u32) -> f64 {
    let (seconds, _) = timed(|| black_box(ping_pong(Futex, Cores::Any, turns, || ())));
    seconds / f64::from(turns)
}

/// The same on two cores, when both have slept for `pause` before; the median.
pub(crate) fn futex_round_trip_after(pause: Duration, turns: u32) -> f64 {
    let mut trips = ping_pong(Futex, Cores::Two, turns, || thread::sleep(pause));
    trips.sort_unstable_by(f64::total_cmp);
    trips[trips.len() / 2]
}

/// The seconds of starting a trivial program and waiting for its end.
pub(crate) fn spawn_and_exit() -> Result<f64> {
    let (seconds, status) = timed(|| Command::new("/bin/true").stdin(Stdio::null()).status());
    if status?.success() {
        Ok(seconds)
    } else {
        Err("/bin/true fails".into())
    }
}

/// The first word of a command line that makes this program a child of itself.
const FORKS: &str = "--measure-forks";

/// The seconds of fork, exit and wait, in a small process of its own: this one's many mappings would make it slow.
pub(crate) fn fork_and_exit(times: usize) -> Result<f64> {
    let output = Command::new(std::env::current_exe()?)
        .args([FORKS, &times.to_string()])
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim()
        .parse()
        .map_err(|_| format!("the child that forks says {text:?}").into())
}

/// The part of the child, if this is one.
pub(crate) fn child() -> Option<ExitCode> {
    let mut words = std::env::args().skip(1);
    if words.next()? != FORKS {
        return None;
    }
    let times: u32 = words.next()?.parse().ok()?;
    let (seconds, done) = timed(|| (0..times).all(|_| fork_once()));
    println!("{:e}", seconds / f64::from(times));
    Some(if done {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

#[allow(unsafe_code, reason = "the standard library cannot fork")]
fn fork_once() -> bool {
    // SAFETY: this process has one thread, and its child calls nothing but _exit.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: ends the child, without anything that belongs to its parent.
        unsafe { libc::_exit(0) }
    }
    let mut status = 0;
    // SAFETY: `status` is a place for one.
    pid > 0 && unsafe { libc::waitpid(pid, &raw mut status, 0) } == pid
}
