//! What the parent knows about its jobs and workers, behind one lock.
//!
//! The lock is the parent's own: no worker ever waits for it. Workers learn of everything here through the control
//! segment.

use std::{
    any::Any,
    collections::VecDeque,
    ops::Range,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use swathe_protocol::{
    Descriptor, Epoch, GateState, JobKey, JobPhase, JobTerms, Opening, Span, Standing, Unoccupied,
    VacantCell, status,
};

use crate::{
    job::{End, Outcome},
    parent::{
        core::{Core, Left, PoolPhase},
        job::{JobEntry, Pause, Read, Stage},
        retry::Round,
    },
    shared::control::System,
};

/// How often a caller looks whether its job's cell can be freed before it leaves that to the supervisor.
const LEAVING_SPINS: usize = 64;
/// How long those that are still at work may go on when a job stops at its first failure.
pub(crate) const STOP_GRACE: Duration = Duration::from_millis(100);
/// The part behind the lock.
pub(crate) struct State {
    pub(crate) phase: PoolPhase,
    /// Workers there should be.
    pub(crate) target: usize,
    /// The pids and incarnations of the workers there are, by slot.
    pub(crate) pids: Vec<Option<u32>>,
    /// The job of each cell, until no worker can be inside of it any more.
    pub(crate) jobs: Vec<Option<Arc<JobEntry>>>,
    pub(super) free: Vec<VacantCell>,
    /// Jobs that have no cell yet.
    pub(crate) waiting: VecDeque<Arc<JobEntry>>,
    /// Runs that found the ring full.
    pub(crate) overflow: VecDeque<Descriptor>,
    /// Jobs in cells that there is something to be done for, sooner or later, by whoever comes by: their stage says what. They
    /// are being rebuilt, pause, or are over.
    attention: Vec<JobKey>,
    /// What jobs that are over have lent to workers that may still hold it.
    quarantine: Vec<Quarantined>,
    pub(super) left: Vec<Left>,
    /// Jobs that are to be read without the lock.
    pub(super) unread: Vec<Arc<JobEntry>>,
    /// Whether there is something to do when the lock is let go.
    pub(super) something_left: bool,
    /// No process is left, and none will be started.
    pub(crate) finished: bool,
}

/// Kept in place until these workers (slot, incarnation) hold nothing any more.
struct Quarantined {
    holders: Vec<(usize, u32)>,
    left: Left,
}

impl State {
    pub(crate) fn new(target: usize, slots: usize, jobs: u32) -> Self {
        Self {
            phase: PoolPhase::Running,
            target,
            pids: vec![None; slots],
            jobs: vec![None; jobs as usize],
            free: VacantCell::all(jobs),
            waiting: VecDeque::new(),
            overflow: VecDeque::new(),
            attention: Vec::new(),
            quarantine: Vec::new(),
            left: Vec::new(),
            unread: Vec::new(),
            something_left: false,
            finished: false,
        }
    }

    /// The pool cannot go on.
    pub(crate) fn break_down(&mut self, core: &Core, text: String) {
        if !self.phase.is_stopping() {
            tracing::error!(text, "the pool is broken");
            self.phase = PoolPhase::Broken(text);
        }
        core.event.raise();
    }

    /// Whether the next death may be one for which a job gives an element up, and says why.
    pub(crate) fn may_blame_next_death(&self) -> bool {
        let unfinished = self.unfinished();
        let mut jobs = unfinished.iter();
        jobs.any(|job| job.max_deaths == 1 || !job.inner.lock().deaths.is_empty())
    }

    /// Who was to be killed by the clock has this much longer.
    pub(crate) fn grant(&mut self, lost: Duration) {
        for job in self.unfinished() {
            if let Some(at) = &mut job.inner.lock().kill_at {
                *at += lost;
            }
        }
    }

    /// Whether a job is not over yet.
    pub(crate) fn has_unfinished(&self) -> bool {
        !self.waiting.is_empty() || self.jobs.iter().flatten().any(|job| !job.is_over())
    }

    /// Whether the supervisor must look again soon without being told.
    pub(crate) fn is_restless(&self) -> bool {
        let restless = |stage: &Stage| matches!(stage, Stage::Rebuilding | Stage::Over);
        !self.overflow.is_empty() || !self.of_stage(restless).is_empty()
    }

    /// Of those that there is something to be done for, those of such a stage.
    pub(crate) fn of_stage(&self, wanted: impl Fn(&Stage) -> bool) -> Vec<(JobKey, Arc<JobEntry>)> {
        let jobs = self
            .attention
            .iter()
            .filter_map(|key| Some((*key, self.job(*key)?)));
        jobs.filter(|(_, job)| wanted(&job.inner.lock().stage)).collect()
    }

    /// There is something to be done for a job.
    pub(crate) fn turn_to(&mut self, key: JobKey, stage: Stage) {
        let Some(job) = self.job(key) else { return };
        job.inner.lock().stage = stage;
        self.attend_to(key);
    }

    fn attend_to(&mut self, key: JobKey) {
        if !self.attention.contains(&key) {
            self.attention.push(key);
        }
    }

    /// It is done: workers may go on, or its gate says why not.
    pub(crate) fn resume(&mut self, key: JobKey) {
        self.attention.retain(|other| *other != key);
        if let Some(job) = self.job(key) {
            job.inner.lock().stage = Stage::Placed;
        }
    }

    /// Whether the claims of a job are to be made anew.
    pub(crate) fn is_rebuilding(&self, key: JobKey) -> bool {
        self.job(key)
            .is_some_and(|job| matches!(job.inner.lock().stage, Stage::Rebuilding))
    }

    /// When the next round of any job begins.
    pub(crate) fn next_round_at(&self) -> Option<Instant> {
        let pausing = self.of_stage(|stage| matches!(stage, Stage::Pausing(_)));
        let until = |job: &JobEntry| match &job.inner.lock().stage {
            Stage::Pausing(pause) => Some(pause.until),
            _ => None,
        };
        pausing.iter().filter_map(|(_, job)| until(job)).min()
    }

    /// Begins those rounds that are due.
    pub(crate) fn begin_rounds(&mut self, core: &Core) {
        let now = Instant::now();
        let is_due = |stage: &Stage| matches!(stage, Stage::Pausing(pause) if pause.until <= now);
        for (key, job) in self.of_stage(is_due) {
            let Some(cell) = core.control.parent().unoccupied(key) else {
                continue;
            };
            let Stage::Pausing(Pause { round, .. }) =
                std::mem::replace(&mut job.inner.lock().stage, Stage::Placed)
            else {
                continue;
            };
            self.resume(key);
            let before = std::mem::replace(&mut job.inner.lock().round, round.clone());
            self.leave(&job, Some(Box::new(before)), false);
            let (opening, runs) = opening_of(&round);
            let epoch = cell.open_round(opening);
            self.hand_out(core, epoch, &job, &round, &runs, 0);
        }
    }

    /// The job of a key, if it still is the cell's.
    pub(crate) fn job(&self, key: JobKey) -> Option<Arc<JobEntry>> {
        self.jobs
            .get(key.index as usize)?
            .clone()
            .filter(|job| job.key() == Some(key))
    }

    /// Queues a new job, and gives it a cell at once if there is one.
    pub(crate) fn admit(&mut self, core: &Core, job: Arc<JobEntry>) {
        self.waiting.push_back(job);
        self.pump(core);
    }

    /// Moves what waits onwards: runs into the ring, jobs into cells.
    pub(crate) fn pump(&mut self, core: &Core) {
        while let Some(run) = self.overflow.pop_front() {
            if let Err(run) = core.control.parent().push(run) {
                self.overflow.push_front(run);
                break;
            }
            core.control.words().wake_for_runs(&System);
        }
        while !self.waiting.is_empty() {
            let Some(cell) = self.free.pop() else { break };
            let Some(job) = self.next_waiting() else {
                self.free.push(cell);
                break;
            };
            self.place(core, cell, job);
        }
    }

    /// Frees the cells of jobs that are over and that nobody is inside of. Gives whether none is left.
    pub(crate) fn free_cells(&mut self, core: &Core) -> bool {
        let (mut next, mut all) = (0, true);
        while let Some(key) = self.attention.get(next).copied() {
            let job = self.jobs[key.index as usize].as_ref();
            let is_over = job.is_some_and(|job| job.is_over());
            match is_over.then(|| core.control.parent().unoccupied(key)).flatten() {
                Some(cell) => {
                    self.attention.swap_remove(next);
                    self.vacate(core, key, cell);
                }
                None => {
                    all &= !is_over;
                    next += 1;
                }
            }
        }
        all
    }

    /// The same, for a caller: the worker that completed its job is just on its way out. That is waited for, but for
    /// less than a system call takes; after that the supervisor looks again.
    fn free_cells_soon(&mut self, core: &Core) {
        for _ in 0..LEAVING_SPINS {
            if self.free_cells(core) {
                return;
            }
            std::hint::spin_loop();
        }
        core.event.raise();
    }

    /// Has something dropped when the lock is let go.
    fn leave(&mut self, job: &Arc<JobEntry>, what: Option<Box<dyn Any + Send + Sync>>, lends: bool) {
        self.put_aside(Left {
            job: job.clone(),
            lends,
            _what: what,
        });
    }

    fn put_aside(&mut self, left: Left) {
        self.left.push(left);
        self.something_left = true;
    }

    /// Lets go what a job that is over has kept, unless workers may still hold it.
    fn let_go(&mut self, core: &Core, job: &Arc<JobEntry>) {
        let (keep, lends) = {
            let mut inner = job.inner.lock();
            (inner.keep.take(), inner.lends)
        };
        core.stock.give(job.scratch.clone());
        let holders = if lends { holders(core) } else { Vec::new() };
        if holders.is_empty() {
            return self.leave(job, keep, lends);
        }
        let left = Left {
            job: job.clone(),
            lends,
            _what: keep,
        };
        self.quarantine.push(Quarantined { holders, left });
    }

    fn vacate(&mut self, core: &Core, key: JobKey, cell: Unoccupied<'_, System>) {
        let held = |lent: &mut Quarantined| !lent.holders.iter().any(|holder| still_holds(core, *holder));
        let free: Vec<_> = self.quarantine.extract_if(.., held).collect();
        free.into_iter().for_each(|lent| self.put_aside(lent.left));
        if let Some(job) = self.jobs[key.index as usize].take() {
            self.let_go(core, &job);
        }
        self.free.push(cell.vacate());
    }

    /// Opens a cell for a job and hands out its runs: one a worker at most, of equal length.
    fn place(&mut self, core: &Core, cell: VacantCell, job: Arc<JobEntry>) {
        let key = cell.next_key();
        let _ = job.key.set(key);
        self.jobs[key.index as usize] = Some(job.clone());
        let round = job.place();
        let (opening, runs) = opening_of(&round);
        let epoch = core.control.parent().open(cell, opening);
        // A caller who waits looks a moment later whether they have begun, and wakes workers if not: whoever is awake most
        // likely has, and would be disturbed by a look at its slot now. Otherwise all are told at once.
        let awake = match job.watched {
            true => core.control.words().awake(),
            false => 0,
        };
        self.hand_out(core, epoch, &job, &round, &runs, awake);
        job.signal.notify_all();
    }

    /// Has the runs of a round claimed. Workers are woken for them, unless some are `awake`.
    fn hand_out(
        &mut self,
        core: &Core,
        epoch: Epoch<'_, System>,
        job: &Arc<JobEntry>,
        round: &Round,
        runs: &[Range<u32>],
        awake: usize,
    ) {
        let chunks: u32 = runs.iter().map(|run| run.end - run.start).sum();
        if job.terms.has(JobTerms::PINNED) {
            (0..chunks).for_each(|chunk| self.give_order(core, &epoch, round, chunk));
            return core.control.wake_all();
        }
        self.push_runs(core, &epoch, runs, chunks, awake);
        if chunks == 0 {
            epoch.complete_if_counted(job.terms.has(JobTerms::ATTENDED));
        }
        if awake == 0 {
            core.control.words().wake_for_runs(&System);
        }
    }

    /// About one run, of equal length, for each that is awake, or for each worker if none is; the others will steal.
    fn push_runs(
        &mut self,
        core: &Core,
        epoch: &Epoch<'_, System>,
        runs: &[Range<u32>],
        chunks: u32,
        awake: usize,
    ) {
        let workers = match awake {
            0 => self.target.max(1) as u64,
            awake => awake as u64,
        };
        for run in runs {
            let len = u64::from(run.end - run.start);
            let parts = (workers * len)
                .div_ceil(u64::from(chunks.max(1)))
                .clamp(1, len.max(1));
            let cut = |part: u64| run.start + (len * part / parts) as u32;
            for part in 0..parts {
                let chunks = Span::new(cut(part), cut(part + 1));
                self.push_run(core, epoch.run(chunks, false));
            }
        }
    }

    /// Puts a run into the ring, or aside until there is room.
    pub(crate) fn push_run(&mut self, core: &Core, run: Descriptor) {
        if !self.overflow.is_empty() {
            self.overflow.push_back(run);
        } else if let Err(run) = core.control.parent().push(run) {
            self.overflow.push_back(run);
            core.event.raise();
        }
    }

    /// Ends a job if it can be ended now. Gives whether it is over.
    pub(crate) fn finalize(&mut self, core: &Core, job: &Arc<JobEntry>) -> bool {
        if job.is_over() {
            return true;
        }
        let Some(key) = job.key() else {
            let Some(ending) = job.inner.lock().ending.clone() else {
                return false;
            };
            self.waiting.retain(|other| !Arc::ptr_eq(other, job));
            self.conclude(core, job, ending);
            self.let_go(core, job);
            return true;
        };
        let pausing = match &job.inner.lock().stage {
            stage if stage.is_reading() => return false,
            stage => matches!(stage, Stage::Pausing(_)),
        };
        let standing = core.control.parent().look(key);
        let ending = || job.inner.lock().ending.clone();
        let (end, newest) = match standing {
            Standing::Overwritten { inside: true } => return false,
            Standing::Overwritten { inside: false } => (
                End::Broken(
                    "a worker has overwritten the words by which the others find this job".to_owned(),
                ),
                None,
            ),
            _ if pausing => match ending() {
                Some(ending) => (ending, None),
                None => return false,
            },
            Standing::Complete { gate, .. } | Standing::Leaving { gate } | Standing::Stopped { gate, .. }
                if self.doubts(core, job, key, gate) =>
            {
                return false;
            }
            Standing::Complete { newest, .. } => (End::Complete, Some(newest)),
            Standing::Stopped { newest, .. } => (ending().unwrap_or(End::FailedFast), Some(newest)),
            Standing::Leaving { .. } => {
                let mut inner = job.inner.lock();
                if inner.kill_at.is_none() {
                    inner.kill_at = Some(Instant::now() + STOP_GRACE);
                    core.event.raise();
                }
                return false;
            }
            Standing::Open => return false,
        };
        let reading = job.begin_reading(end, newest);
        let failed = core.control.jobs[key.index as usize]
            .failed
            .load(Ordering::Relaxed);
        if job.is_quick(failed) {
            let read = job.read_somehow(core, reading);
            return self.settle(core, job, read);
        }
        job.inner.lock().stage = Stage::Unread(reading);
        self.unread.push(job.clone());
        self.something_left = true;
        false
    }

    /// Whether a job says that it is over and is not: somebody wrote where it should not. It is rebuilt.
    fn doubts(&mut self, core: &Core, job: &JobEntry, key: JobKey, seen: GateState) -> bool {
        let cell = &core.control.jobs[key.index as usize];
        if seen.phase == JobPhase::Complete && cell.is_vouched(seen) {
            return false; // As nearly always.
        }
        let round = job.round();
        let is_over = match seen.phase {
            // After a death it usually is as it says.
            JobPhase::Complete => status::unfinished(round.status(), round.terms.tag()).is_empty(),
            JobPhase::Stopped => round.terms.has(JobTerms::FAIL_FAST) || job.inner.lock().ending.is_some(),
            _ => return false,
        };
        if !is_over && core.control.parent().recall(key, seen) {
            tracing::error!(
                ?seen,
                "the words of a job were overwritten; it is rebuilt from what is final"
            );
            self.turn_to(key, Stage::Rebuilding);
            core.event.raise();
        }
        !is_over
    }

    /// What was read of a job ends it, or begins its next round. Gives whether it is over.
    pub(crate) fn settle(&mut self, core: &Core, job: &Arc<JobEntry>, read: Read) -> bool {
        let (Some(key), false) = (job.key(), job.is_over()) else {
            return job.is_over();
        };
        match read {
            Read::Again(pause, failures) => {
                let mut inner = job.inner.lock();
                inner.failed = failures.count();
                inner.failures = failures;
                let stopped = inner.ending.is_some();
                drop(inner);
                self.turn_to(key, Stage::Pausing(pause));
                core.event.raise();
                // Somebody may have stopped it meanwhile.
                stopped && self.finalize(core, job)
            }
            Read::Over(outcome) => {
                self.end(core, job, outcome);
                self.free_cells_soon(core);
                self.pump(core);
                true
            }
        }
    }

    /// Ends a job that nobody works on any more with what is known of it.
    fn conclude(&mut self, core: &Core, job: &Arc<JobEntry>, end: End) {
        // It has come to this end whatever was planned for it.
        job.inner.lock().ending.get_or_insert_with(|| end.clone());
        let reading = job.begin_reading(end, None);
        if let Read::Over(outcome) = job.read(core, reading) {
            self.end(core, job, outcome);
        }
    }

    fn end(&mut self, core: &Core, job: &Arc<JobEntry>, outcome: Outcome) {
        job.finish(outcome, &core.state.sides);
        self.something_left = true;
        if let Some(key) = job.key() {
            // It says itself that it is over.
            self.attend_to(key);
            // Those that sleep on the bell look at the job, not at the cell, when they wake.
            core.control.ring_bell(key);
        }
        let surplus_may_leave = job.terms.has(JobTerms::PINNED);
        if surplus_may_leave || (self.phase == PoolPhase::Closed && !self.has_unfinished()) {
            core.event.raise();
        }
        core.changed.notify_all();
    }

    /// Stops a job: its workers leave after their strip, or are killed when `grace` is over. `finalize` ends it when they
    /// are gone.
    pub(crate) fn stop(&mut self, core: &Core, job: &Arc<JobEntry>, ending: End, grace: Duration) {
        if job.is_over() {
            return;
        }
        {
            let mut inner = job.inner.lock();
            inner.ending.get_or_insert(ending);
            let at = Instant::now().checked_add(grace);
            inner.kill_at = inner.kill_at.into_iter().chain(at).min();
        }
        if let Some(key) = job.key() {
            if self.is_rebuilding(key) {
                self.resume(key);
            }
            core.control.parent().stop(key);
        }
        if !self.finalize(core, job) {
            core.event.raise();
        }
    }

    /// Nobody is left who could go on: every job is over, even one whose gate says what no gate ever says.
    pub(crate) fn end_all(&mut self, core: &Core, ending: &End) {
        for slot in core.control.slots.iter() {
            slot.leave();
        }
        for job in self.unfinished() {
            self.stop(core, &job, ending.clone(), Duration::MAX);
            // Who reads it ends it.
            if !job.is_over() && !job.inner.lock().stage.is_reading() {
                self.conclude(core, &job, ending.clone());
            }
        }
        self.free_cells(core);
        // Nobody holds anything any more.
        let lent = std::mem::take(&mut self.quarantine);
        lent.into_iter().for_each(|lent| self.put_aside(lent.left));
    }

    /// The same, where even that has failed: outcomes without anything in them.
    pub(crate) fn finish_at_any_rate(&mut self, core: &Core) {
        for job in self.unfinished() {
            let end = End::Broken("the pool is broken".to_owned());
            job.finish(job.nothing(end, core), &core.state.sides);
            job.key().into_iter().for_each(|key| core.control.ring_bell(key));
        }
        let waiting = std::mem::take(&mut self.waiting);
        waiting.iter().for_each(|job| self.let_go(core, job));
        (self.finished, self.something_left) = (true, true);
        core.changed.notify_all();
    }

    /// Reads what is to be read, for whoever has the state to itself.
    #[cfg(any(test, feature = "_untrusted"))]
    pub(crate) fn read_all(&mut self, core: &Core) {
        for job in std::mem::take(&mut self.unread) {
            if let Some(reading) = job.take_unread() {
                let read = job.read(core, reading);
                self.settle(core, &job, read);
            }
        }
    }

    /// Those of them that nobody may be waiting for: who has an asynchronous call, and who has stopped a job, goes on.
    pub(crate) fn attended(&self, core: &Core) -> Vec<Arc<JobEntry>> {
        let is_stopped =
            |key: JobKey| core.control.jobs[key.index as usize].gate.state().phase == JobPhase::Stopped;
        let mut jobs = self.unfinished();
        jobs.retain(|job| job.terms.has(JobTerms::ATTENDED) || job.key().is_some_and(is_stopped));
        jobs
    }

    /// All jobs that are not over.
    pub(crate) fn unfinished(&self) -> Vec<Arc<JobEntry>> {
        self.jobs
            .iter()
            .flatten()
            .chain(&self.waiting)
            .filter(|job| !job.is_over())
            .cloned()
            .collect()
    }
}

/// What a round is opened with, and the chunks that are to be run in it.
fn opening_of(round: &Round) -> (Opening, Vec<Range<u32>>) {
    // A job that goes on where a file says has chunks that are final already.
    let durable = round.terms.has(JobTerms::DURABLE);
    let runs = match durable {
        true => status::unfinished(round.status(), round.terms.tag()),
        false => std::iter::once(0..round.terms.chunks as u32).collect(),
    };
    let opening = Opening {
        terms: round.terms,
        chunks: runs.iter().map(|run| run.end - run.start).sum(),
        disturbed: durable,
    };
    (opening, runs)
}

/// The workers that hold handles which they took out of task arguments.
fn holders(core: &Core) -> Vec<(usize, u32)> {
    let slots = core.control.slots.iter().enumerate();
    slots
        .filter(|(_, slot)| slot.held_handles.load(Ordering::Acquire) != 0)
        .map(|(index, slot)| (index, slot.incarnation.load(Ordering::Acquire)))
        .collect()
}

fn still_holds(core: &Core, (index, incarnation): (usize, u32)) -> bool {
    let slot = &core.control.slots[index];
    slot.incarnation.load(Ordering::Acquire) == incarnation && slot.held_handles.load(Ordering::Acquire) != 0
}
