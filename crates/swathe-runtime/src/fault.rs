//! Named points of a worker's life at which a fault can be made to happen (feature `chaos`).
//!
//! Without the feature a point is nothing. With it a pool can be given a [`Chaos`]: faults at named points, for tests of
//! each stage, and kills, stops and delays at random, for users who want to know what their own tasks make of that.

use std::time::Duration;

/// A stage of a worker's life, in the order in which they are passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u64)]
#[non_exhaustive]
pub enum Point {
    /// Before the initializer is called, in every new worker.
    Initializer = 1,
    /// Before each look for work.
    Idle,
    /// There is work; nothing of it is claimed yet.
    BeforeClaim,
    /// Something is claimed, and this is written down nowhere.
    Claimed,
    /// The worker is inside the job; no strip has begun. Arguments are read next.
    Reading,
    /// A strip is announced; the task is called next.
    Running,
    /// A result is half written: room for it is taken, or a copy over inputs begun, or the first value of a strip stored.
    Writing,
    /// A strip is written, and not published.
    Written,
    /// A strip is published.
    Published,
    /// The worker has run as much as it may, and hands the rest back.
    Recycling,
    /// Before the exit hook.
    ExitHook,
}

impl Point {
    /// All of them, in order.
    pub const ALL: [Self; 11] = [
        Self::Initializer,
        Self::Idle,
        Self::BeforeClaim,
        Self::Claimed,
        Self::Reading,
        Self::Running,
        Self::Writing,
        Self::Written,
        Self::Published,
        Self::Recycling,
        Self::ExitHook,
    ];
}

/// What happens there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// A panic.
    Panic,
    /// A panic while a panic unwinds: Rust aborts.
    DoublePanic,
    /// `process::exit` with this code.
    Exit(i32),
    /// `process::abort`.
    Abort,
    /// A write to address 0.
    Segfault,
    /// A read behind the end of a mapped file.
    BusError,
    /// SIGKILL.
    Kill,
    /// SIGSTOP: the process is alive and does nothing, until somebody sends SIGCONT.
    Stop,
    /// An endless loop.
    Loop,
    /// Private memory grows by this many bytes, all of them touched, and is never given back.
    Grow(u64),
    /// Sleeps this long.
    Delay(Duration),
}

impl Fault {
    fn to_words(self) -> [u64; 2] {
        match self {
            Self::Panic => [1, 0],
            Self::DoublePanic => [2, 0],
            Self::Exit(code) => [3, code as u64],
            Self::Abort => [4, 0],
            Self::Segfault => [5, 0],
            Self::BusError => [6, 0],
            Self::Kill => [7, 0],
            Self::Stop => [8, 0],
            Self::Loop => [9, 0],
            Self::Grow(bytes) => [10, bytes],
            Self::Delay(time) => [11, time.as_nanos() as u64],
        }
    }

    fn from_words(words: [u64; 2]) -> Option<Self> {
        Some(match words[0] {
            1 => Self::Panic,
            2 => Self::DoublePanic,
            3 => Self::Exit(words[1] as i32),
            4 => Self::Abort,
            5 => Self::Segfault,
            6 => Self::BusError,
            7 => Self::Kill,
            8 => Self::Stop,
            9 => Self::Loop,
            10 => Self::Grow(words[1]),
            11 => Self::Delay(Duration::from_nanos(words[1])),
            _ => return None,
        })
    }
}

/// One fault to be made: where, what, and in whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Injection {
    /// Where.
    pub point: Point,
    /// What.
    pub fault: Fault,
    /// In which worker; `None` for all.
    pub worker: Option<u32>,
    /// In which process of that number, from 1; `None` for all, so that replacements suffer it too.
    pub incarnation: Option<u32>,
    /// At which passage of the point, from 1.
    pub nth: u64,
}

/// What is to go wrong in a pool.
///
/// Faults of [`inject`](Self::inject) happen in the worker itself, at a point of its code. Those of
/// [`kill`](Self::kill), [`stop`](Self::stop) and [`delay`](Self::delay) come from outside, at times drawn from the seed:
/// exponentially distributed, each at a worker drawn anew.
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use = "chaos does nothing until a pool is given it"]
pub struct Chaos {
    pub(crate) seed: u64,
    pub(crate) kills: f64,
    pub(crate) stops: f64,
    pub(crate) delays: f64,
    pub(crate) longest_delay: Duration,
    pub(crate) injections: Vec<Injection>,
}

impl Chaos {
    /// No faults yet; random ones will be drawn from this seed.
    pub fn seeded(seed: u64) -> Self {
        Self {
            seed,
            ..Self::default()
        }
    }

    /// Kills (SIGKILL) this many workers a second on average.
    pub fn kill(mut self, per_second: f64) -> Self {
        self.kills = per_second.max(0.0);
        self
    }

    /// Stops (SIGSTOP) this many workers a second on average. They hang, alive, until a deadline of the job has them
    /// killed: a job without one will wait for them.
    pub fn stop(mut self, per_second: f64) -> Self {
        self.stops = per_second.max(0.0);
        self
    }

    /// Stops this many workers a second on average, and lets them go on after a time of at most `longest`.
    pub fn delay(mut self, per_second: f64, longest: Duration) -> Self {
        (self.delays, self.longest_delay) = (per_second.max(0.0), longest);
        self
    }

    /// Has a fault happen at a named point.
    pub fn inject(mut self, injection: Injection) -> Self {
        self.injections.push(injection);
        self
    }

    const WORDS: usize = 6;

    pub(crate) fn encode(&self) -> Vec<u8> {
        let words = self.injections.iter().flat_map(|injection| {
            let [fault, argument] = injection.fault.to_words();
            [
                injection.point as u64,
                fault,
                argument,
                injection.worker.map_or(u64::MAX, u64::from),
                injection.incarnation.map_or(u64::MAX, u64::from),
                injection.nth,
            ]
        });
        words.flat_map(u64::to_le_bytes).collect()
    }

    /// Words that make no injection are left out.
    pub(crate) fn decode(bytes: &[u8]) -> Vec<Injection> {
        let words: Vec<u64> = bytes
            .chunks_exact(8)
            .map(|word| u64::from_le_bytes(word.try_into().expect("chunks of 8 bytes")))
            .collect();
        let some = |word: u64| u32::try_from(word).ok();
        words
            .chunks_exact(Self::WORDS)
            .filter_map(|w| {
                Some(Injection {
                    point: Point::ALL.into_iter().find(|point| *point as u64 == w[0])?,
                    fault: Fault::from_words([w[1], w[2]])?,
                    worker: some(w[3]),
                    incarnation: some(w[4]),
                    nth: w[5],
                })
            })
            .collect()
    }
}

/// The worker passes a point.
#[inline(always)]
pub(crate) fn point(point: Point) {
    #[cfg(feature = "chaos")]
    armed::pass(point);
    #[cfg(not(feature = "chaos"))]
    let _ = point;
}

/// This process is a worker, and these faults are planned.
pub(crate) fn arm(planned: Vec<Injection>, worker: u32, incarnation: u32) {
    #[cfg(feature = "chaos")]
    armed::arm(planned, worker, incarnation);
    #[cfg(not(feature = "chaos"))]
    let _ = (planned, worker, incarnation);
}

#[cfg(feature = "chaos")]
mod armed {
    use std::{
        sync::{
            OnceLock,
            atomic::{AtomicU64, Ordering},
        },
        time::Duration,
    };

    use swathe_os::faults;

    use super::{Fault, Injection, Point};

    static PLANNED: OnceLock<Vec<(Injection, AtomicU64)>> = OnceLock::new();

    pub(super) fn arm(planned: Vec<Injection>, worker: u32, incarnation: u32) {
        let mine = |injection: &Injection| {
            injection.worker.is_none_or(|only| only == worker)
                && injection.incarnation.is_none_or(|only| only == incarnation)
        };
        let counted = planned.into_iter().filter(mine);
        let _ = PLANNED.set(counted.map(|injection| (injection, AtomicU64::new(0))).collect());
    }

    pub(super) fn pass(point: Point) {
        for (injection, passed) in PLANNED.get().into_iter().flatten() {
            if injection.point == point && passed.fetch_add(1, Ordering::Relaxed) + 1 == injection.nth {
                happen(injection.fault, point);
            }
        }
    }

    fn happen(fault: Fault, point: Point) {
        match fault {
            Fault::Panic => panic!("injected at {point:?}"),
            Fault::DoublePanic => {
                struct Again;
                impl Drop for Again {
                    fn drop(&mut self) {
                        panic!("injected again");
                    }
                }
                let _again = Again;
                panic!("injected at {point:?}");
            }
            Fault::Exit(code) => std::process::exit(code),
            Fault::Abort => std::process::abort(),
            Fault::Segfault => faults::segfault(),
            Fault::BusError => faults::bus_error(),
            Fault::Kill => faults::kill_self(),
            Fault::Stop => faults::stop_self(),
            Fault::Loop => loop {
                std::hint::spin_loop();
            },
            Fault::Grow(bytes) => faults::grow(bytes),
            Fault::Delay(time) => std::thread::sleep(time.min(Duration::from_secs(3600))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn injections_cross_as_they_are_and_garbage_is_left_out() {
        let injection = |point, fault| Injection {
            point,
            fault,
            worker: Some(3),
            incarnation: None,
            nth: 7,
        };
        let chaos = Chaos::seeded(1)
            .inject(injection(Point::Claimed, Fault::Exit(-1)))
            .inject(injection(Point::ExitHook, Fault::Delay(Duration::from_millis(5))));
        assert_eq!(Chaos::decode(&chaos.encode()), chaos.injections);
        assert!(Chaos::decode(&[0xff; 96]).is_empty());
    }
}
