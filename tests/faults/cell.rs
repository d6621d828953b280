//! One cell: a pool in which one thing goes wrong once, and what must become of its jobs.

use std::{cell::Cell, fs::File, thread, time::Duration};

use swathe::{
    Builder, ChunkSize, ExitCause, ItemError, Pool, Result, Status, Value,
    chaos::{Chaos, Injection, Point},
};
use swathe_tests::{Process, Watched, runs, until, watched};

use crate::{
    shape::{Options, Shape},
    table::{FaultKind, Outcome, outcome},
};

/// Private memory that a worker may have, bytes.
pub(crate) const MAX_MEMORY: u64 = 32 << 20;
/// Private memory that it may gain, bytes.
pub(crate) const MAX_GROWTH: u64 = 8 << 20;
/// How long anything may take in pools in which something hangs: more than it takes on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_millis(500);
/// After so many jobs a fault should have happened.
const MANY_JOBS: u32 = 1000;

/// One way to fill a cell.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trial {
    pub(crate) stage: &'static str,
    pub(crate) point: Point,
    pub(crate) kind: FaultKind,
    pub(crate) shape: Shape,
    /// At which passage of the point.
    pub(crate) nth: u64,
    /// One death is enough to give an element up, and elements are announced one by one.
    pub(crate) strict: bool,
}

/// A pool that writes down who was born and who left in good order.
struct Ledger {
    pool: Watched<Pool<Value<u32>>>,
    births: Value<u32>,
    departures: Value<u32>,
}

impl Trial {
    fn expected(&self) -> Outcome {
        outcome(self.stage, self.kind)
    }

    fn is_farewell(&self) -> bool {
        matches!(self.point, Point::Recycling | Point::ExitHook)
    }

    fn options(&self) -> Options {
        let minute = Duration::from_secs(60);
        Options {
            chunk: if self.nth == 1 {
                ChunkSize::Auto
            } else {
                ChunkSize::Fixed(5)
            },
            timeout: match self.kind.hangs() {
                true => Some(LIMIT),
                false => self.strict.then_some(minute),
            },
            strict: self.strict,
        }
    }

    fn ledger(&self) -> Result<Ledger> {
        let fault = self.kind.fault().expect("errors are returned, not injected");
        let chaos = Chaos::seeded(0).inject(Injection {
            point: self.point,
            fault,
            worker: Some(0),
            incarnation: Some(1),
            nth: self.nth,
        });
        let mut builder = Pool::builder().processes(2).chaos(chaos);
        if self.is_farewell() {
            builder = builder.max_tasks_per_child(5);
        }
        if self.kind == FaultKind::Memory {
            builder = builder.max_memory_per_child(MAX_MEMORY);
        }
        if self.kind == FaultKind::Growth {
            builder = builder.max_growth_per_child(MAX_GROWTH);
        }
        if self.kind.hangs() {
            builder = builder.initializer_timeout(LIMIT).exit_timeout(LIMIT);
        }
        Ledger::of(builder)
    }

    /// Injects the fault, and checks everything.
    pub(crate) fn run(&self) -> Result<()> {
        let ledger = self.ledger()?;
        let pool = &ledger.pool;
        let zygote = zygote(pool);
        let mut failures = Vec::new();
        // Once more until the fault has happened: worker 0 may have been too late for a job.
        for job in 1.. {
            failures.extend(self.shape.run(pool, &self.options())?);
            if self.has_happened(pool, &failures) {
                break;
            }
            assert!(job < MANY_JOBS, "the fault has not happened in {job} jobs");
        }
        self.judge(&failures);
        let later = self.shape.run(pool, &self.options())?;
        assert!(later.is_empty(), "the pool does not work any more: {later:?}");
        let last = pool.workers();
        let pids: Vec<u32> = last.iter().map(|worker| worker.pid).chain([zygote]).collect();
        pool.close();
        pool.join()?;
        assert!(pids.into_iter().all(|pid| !runs(pid)), "a process is left");
        let missing = ledger.births.load() - ledger.departures.load();
        let expected = self.missing_departures();
        assert_eq!(
            missing,
            expected,
            "of {} lives, the last {last:?}",
            ledger.births.load()
        );
        Ok(())
    }

    fn has_happened(&self, pool: &Pool<Value<u32>>, failures: &[ItemError]) -> bool {
        let worker = pool.workers().into_iter().find(|worker| worker.index == 0);
        match self.expected() {
            Outcome::Fails => !failures.is_empty(),
            Outcome::Spared => worker.is_some_and(|worker| hangs(worker.pid)),
            // It passes the point before it comes to work.
            Outcome::Nothing if self.point == Point::Initializer => {
                worker.is_some_and(|worker| worker.elements > 0)
            }
            _ => worker.is_some_and(|worker| worker.incarnation > 1),
        }
    }

    /// The failures must be those that the cell names.
    fn judge(&self, failures: &[ItemError]) {
        let expected = match self.expected() {
            Outcome::Fails => Some((Status::Panicked, None)),
            Outcome::Late => Some((Status::TimedOut, None)),
            Outcome::Blamed if self.strict => Some((Status::Lost, self.cause())),
            _ => None,
        };
        let found: Vec<_> = failures
            .iter()
            .map(|failure| (failure.status(), failure.cause()))
            .collect();
        assert_eq!(found, Vec::from_iter(expected), "{failures:?}");
    }

    fn cause(&self) -> Option<ExitCause> {
        Some(match self.kind {
            FaultKind::Exit => ExitCause::Code(0),
            FaultKind::Panic => ExitCause::Code(101),
            FaultKind::Segfault => ExitCause::Signal(libc::SIGSEGV),
            FaultKind::BusError => ExitCause::Signal(libc::SIGBUS),
            FaultKind::Kill => ExitCause::Signal(libc::SIGKILL),
            _ => ExitCause::Signal(libc::SIGABRT),
        })
    }

    /// How many came to work and did not leave in good order.
    fn missing_departures(&self) -> u32 {
        match self.expected() {
            Outcome::Nothing | Outcome::Again | Outcome::SlowStart | Outcome::Fails | Outcome::Recycled => 0,
            _ => 1,
        }
    }
}

impl Ledger {
    fn of(builder: Builder) -> Result<Self> {
        fn enter(births: Value<u32>, departures: Value<u32>) -> Value<u32> {
            births.fetch_add(1);
            // What aborts would tell the terminal.
            let nowhere = File::options()
                .write(true)
                .open("/dev/null")
                .expect("it is always there");
            nix::unistd::dup2_stderr(nowhere).expect("a descriptor can be replaced");
            departures
        }
        let (births, departures) = (Value::new(0)?, Value::new(0)?);
        let builder = builder
            .state(enter, (births.clone(), departures.clone()))
            .exit_hook(|departures: &mut Value<u32>| {
                departures.fetch_add(1);
            });
        Ok(Self {
            pool: watched(builder.build()),
            births,
            departures,
        })
    }
}

/// The process that forks a pool's workers.
pub(crate) fn zygote<S>(pool: &Pool<S>) -> u32 {
    let parent = || {
        let workers = pool.workers();
        let pids = workers.iter().map(|worker| worker.pid);
        pids.filter_map(Process::read)
            .map(|worker| worker.parent)
            .find(|pid| *pid > 1)
    };
    // Kept when it is seen: that worker may be the one that dies.
    let seen = Cell::new(None);
    until("a worker is there", || {
        seen.set(parent());
        seen.get().is_some()
    });
    seen.get().expect("a worker was there")
}

/// Whether an idle process does not sleep as it should.
fn hangs(pid: u32) -> bool {
    let looks = (0..20).map(|_| {
        thread::sleep(Duration::from_millis(1));
        Process::read(pid).map(|process| process.state)
    });
    let states: Vec<_> = looks.collect();
    states.iter().all(|state| *state == Some('T')) || states.iter().all(|state| *state == Some('R'))
}
