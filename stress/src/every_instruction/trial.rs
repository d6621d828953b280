//! One case: a worker is killed before every instruction of its way through a job, one instruction after the other.

use std::{
    io,
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use swathe::Pool;

use super::{
    MOST_HANGS, Pick,
    course::{Course, End},
    tally::Tally,
};
use crate::{
    tracee::{LOOK, Tracee, Went, kill_untraced, sleeps_on_futex},
    verdict::Verdict,
    watch::Watch,
};

/// A job that has not come to its end by then never will.
const PATIENCE: Duration = Duration::from_secs(20);

/// Who else works while the mortal is stepped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Company {
    /// Nobody: the pool has one worker.
    Alone,
    /// A second worker stands still in the middle of its first element, until the mortal is dead.
    Held,
    /// The same, and it is killed there right after the mortal.
    KilledToo,
}

/// What is done with a worker, and how it must end.
pub(super) struct Case {
    /// Its name.
    pub(super) name: &'static str,
    /// The pool it needs.
    pub(super) pool: fn() -> swathe::Result<Pool>,
    /// Who else works.
    pub(super) company: Company,
    /// Whether the course begins at the task's marker, not at the wake.
    pub(super) from_marker: bool,
    /// Where the course ends.
    pub(super) end: End,
    /// Starts the job.
    pub(super) start: fn(&Arc<Pool>) -> swathe::Result<Run>,
}

/// What is known when the worker is dead.
#[derive(Clone, Copy, Debug)]
pub(super) struct Death {
    /// How many were killed.
    pub(super) deaths: u32,
    /// How many positions were settled before, from position 0 on; `None` if that cannot be told.
    pub(super) settled: Option<u64>,
}

/// Judges the result.
pub(super) type Judge = Box<dyn FnOnce(Death) -> Verdict + Send>;

/// A job under way.
pub(super) struct Run {
    /// Positions settled by now.
    pub(super) settled: Box<dyn Fn() -> u64>,
    /// Comes when the job is over.
    pub(super) over: mpsc::Receiver<Judge>,
    /// Called when the worker is dead: makes the survivors act, if they would not of themselves.
    pub(super) then: Box<dyn FnOnce()>,
}

impl Run {
    /// A job that `wait` waits for on a thread of its own.
    pub(super) fn spawn(
        settled: impl Fn() -> u64 + 'static,
        wait: impl FnOnce() -> Judge + Send + 'static,
    ) -> Self {
        let (tell, over) = mpsc::channel();
        thread::spawn(move || tell.send(wait()));
        Self {
            settled: Box::new(settled),
            over,
            then: Box::new(|| ()),
        }
    }
}

/// Runs a case for the picked instructions.
///
/// # Errors
/// If processes cannot be stepped, or no job can be started.
pub(super) fn run(case: &Case, pick: Pick) -> io::Result<Tally> {
    let start = Instant::now();
    let watch = Watch::over(case.name);
    let mut stage = Stage::set(case)?;
    let mut course = stage.record()?;
    let mut tally = Tally::new(case.name, course.len());
    for index in pick.of(course.deaths()) {
        watch.still_alive();
        if index >= course.deaths() {
            break;
        }
        let deed = stage.kill_at(&course, index)?;
        let hung = deed.is_none();
        let complaint = match &deed {
            Some((_, verdict)) => verdict.complaint.as_deref(),
            None => Some("the job never ends"),
        };
        if let Some(complaint) = complaint {
            tally.complain(index, course.offset(index), complaint);
        }
        tally.count(deed);
        if hung {
            if tally.hung >= MOST_HANGS {
                break;
            }
            // The old pool is terminated. In the new one the same instructions have other addresses.
            stage = Stage::set(case)?;
            course = stage.record()?;
        }
    }
    tally.took = start.elapsed();
    Ok(tally)
}

/// What came of one trial. `None`: the job hung.
type Deed = Option<(Went, Verdict)>;

struct Stage<'c> {
    case: &'c Case,
    pool: Arc<Pool>,
}

fn other(error: impl std::error::Error) -> io::Error {
    io::Error::other(error.to_string())
}

impl<'c> Stage<'c> {
    fn set(case: &'c Case) -> io::Result<Self> {
        Ok(Self {
            case,
            pool: Arc::new((case.pool)().map_err(other)?),
        })
    }

    /// A worker that has run nothing yet and sleeps, stopped. One that has run something is replaced first, so that all
    /// that are stepped are alike.
    fn fresh(&self, index: usize) -> io::Result<Tracee> {
        let start = Instant::now();
        let mut killed = 0;
        loop {
            let worker = self
                .pool
                .workers()
                .into_iter()
                .find(|worker| worker.index == index);
            if let Some(worker) = worker.filter(|worker| worker.pid != killed && sleeps_on_futex(worker.pid))
            {
                if worker.elements == 0 {
                    match Tracee::attach(worker.pid) {
                        Ok(tracee) => return Ok(tracee),
                        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                        Err(error) => return Err(error),
                    }
                } else {
                    killed = worker.pid;
                    kill_untraced(worker.pid);
                }
            }
            if start.elapsed() > PATIENCE {
                let refusal = self.pool.map_async(|x: u8| x, [0]).err();
                return Err(io::Error::other(format!(
                    "worker {index} does not come to rest; there are {:?}; the pool says {refusal:?}",
                    self.pool.workers()
                )));
            }
            thread::sleep(LOOK);
        }
    }

    /// Both workers where the course begins, and the job under way.
    fn begin(&self) -> io::Result<(Tracee, Option<Tracee>, Run)> {
        let mut mortal = self.fresh(0)?;
        let mut companion = match self.case.company {
            Company::Alone => None,
            Company::Held | Company::KilledToo => Some(self.fresh(1)?),
        };
        let run = (self.case.start)(&self.pool).map_err(other)?;
        if let Some(companion) = &mut companion
            && companion.run_to_marker()? != Went::There
        {
            return Err(io::Error::other("the second worker does not come to its element"));
        }
        if self.case.from_marker && mortal.run_to_marker()? != Went::There {
            return Err(io::Error::other("the worker does not come to its marker"));
        }
        Ok((mortal, companion, run))
    }

    fn record(&self) -> io::Result<Course> {
        let (mut mortal, companion, run) = self.begin()?;
        let course = Course::record(&mut mortal, self.case.end)?;
        drop((mortal, companion));
        (run.then)();
        match run.over.recv_timeout(PATIENCE) {
            Ok(_) => Ok(course),
            Err(_) => Err(io::Error::other(
                "the job does not come to its end though nobody died",
            )),
        }
    }

    fn kill_at(&self, course: &Course, index: usize) -> io::Result<Deed> {
        let (mut mortal, companion, run) = self.begin()?;
        let went = course.bring(&mut mortal, index)?;
        // With the process asleep, or before its next instruction: what it did is done, and it does nothing more.
        let settled = (self.case.company == Company::Alone).then(|| (run.settled)());
        let mut deaths = 0;
        if went != Went::Ended {
            mortal.kill()?;
            deaths += 1;
        }
        if let Some(companion) = companion
            && self.case.company == Company::KilledToo
        {
            companion.kill()?;
            deaths += 1;
        }
        (run.then)();
        match run.over.recv_timeout(PATIENCE) {
            Ok(judge) => Ok(Some((went, judge(Death { deaths, settled })))),
            Err(RecvTimeoutError::Timeout) => {
                self.pool.terminate();
                Ok(None)
            }
            Err(RecvTimeoutError::Disconnected) => Err(io::Error::other("the waiting thread panicked")),
        }
    }
}
