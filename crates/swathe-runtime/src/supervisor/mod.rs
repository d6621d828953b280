//! The supervisor: one thread of the parent that starts processes, learns of their deaths, and has the dead's work
//! handed on. It answers workers that ask for memory. It waits for no worker, and for no callback.

mod chaos;
pub(crate) mod clock;
mod deaths;
pub(crate) mod launch;
pub(crate) mod recipe;
pub(crate) mod recovery;
mod redo;
mod requests;
mod staff;

use std::{
    any::Any,
    collections::VecDeque,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use swathe_os::{
    memory_limits::OomKills,
    process::{self, Pidfd},
    socket::Socket,
};
use swathe_protocol::Header;

use crate::{
    fault::Chaos,
    job::End,
    parent::{
        core::{Core, PoolPhase},
        jobs::State,
        user_code::{contain, discard, panic_text},
    },
    shared::messages::{Message, MessageKind},
    supervisor::{
        chaos::Strikes,
        clock::{KillReason, Patience, Pauses, Watch},
        launch::{Backoff, Zygote},
        recipe::Recipe,
    },
};

/// How often in a row one slot's process may fail to come to work.
const SETUP_TRIES: u32 = 3;
/// How long a stopping pool lets workers finish what they do, before SIGTERM.
const GRACE: Duration = Duration::from_millis(50);
/// A stopping pool's zygote kills who does not leave.
const NEVER: Duration = Duration::MAX;
/// How long a stopping pool waits for its zygote before it is killed, and then for workers that the kernel cannot end.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long the supervisor sleeps when it waits for something that nobody will tell it.
const RESTLESS: Duration = Duration::from_millis(1);
/// The longest sleep: a host may close the very descriptors that would end it.
const LONGEST: Duration = Duration::from_secs(1);
/// Orders to start a worker that may be under way at once: fewer than fill the zygote's socket, whose orders and answers
/// would wait for each other then.
const ORDERS: usize = 64;
/// When nothing has come for so long there is time to read what the kernel counts. That is begun after so long in any case.
const LULL: Duration = Duration::from_millis(2);
const AT_LAST: Duration = Duration::from_millis(100);
/// How long after the loss of a zygote its workers may come back to a program that adopts orphans.
const ORPHANAGE: Duration = Duration::from_secs(2);

/// SIGKILL, which does not say who sent it.
const KILL: i32 = 9;

/// What the supervisor waits for, as marks: which kind in the upper half, which slot in the lower.
mod mark {
    pub(super) const EVENT: u64 = 0;
    pub(super) const ZYGOTE: u64 = 1 << 32;
    pub(super) const LINE: u64 = 2 << 32;
    /// The end of a worker that no zygote reports any more.
    pub(super) const ORPHAN: u64 = 3 << 32;

    pub(super) fn split(mark: u64) -> (u64, usize) {
        (mark & !u64::from(u32::MAX), mark as u32 as usize)
    }
}

/// The process of a slot.
pub(crate) struct Process {
    pub(crate) incarnation: u32,
    /// 0 until the zygote has told.
    pub(crate) pid: u32,
    /// None where it could not be had: then the zygote is asked to kill.
    pub(crate) pidfd: Option<Pidfd>,
    line: Option<Socket>,
    pub(crate) watch: Watch,
    /// Why it was killed, if the supervisor has done so.
    pub(crate) kill_reason: Option<KillReason>,
    /// Whether chaos has hit_by_chaos it. That it does not come to work is then not the initializer's fault.
    pub(crate) hit_by_chaos: bool,
    /// Its zygote is lost: its end is heard from the kernel.
    orphan: bool,
}

/// What a pool bears before it gives up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) patience: Patience,
    /// How many workers may die in which time.
    pub(crate) restarts: (u32, Duration),
    pub(crate) max_memory: Option<u64>,
    /// How long there may be no worker, because none can be started.
    pub(crate) start: Duration,
}

/// What the supervisor is about with its processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Course {
    /// There are as many as there should be.
    Staffing,
    /// The pool is closed and has no more jobs: they leave when they find nothing to do.
    Draining,
    /// They are to leave, and are killed if they do not.
    Stopping {
        since: Instant,
        /// Whether the zygote has been told.
        told: bool,
    },
}

impl Course {
    /// Since when the pool stops, if it does.
    pub(crate) fn stopping(self) -> Option<Instant> {
        match self {
            Self::Stopping { since, .. } => Some(since),
            Self::Staffing | Self::Draining => None,
        }
    }
}

/// The supervisor's own view, beside the shared state.
pub(crate) struct Supervisor {
    pub(crate) core: Arc<Core>,
    recipe: Recipe,
    sources: process::Watch,
    pub(crate) zygote: Option<Zygote>,
    pub(crate) processes: Vec<Option<Process>>,
    pub(crate) patience: Patience,
    pub(crate) limits: Limits,
    /// When workers have died lately.
    deaths: VecDeque<Instant>,
    setup_failures: Vec<u32>,
    /// Zygotes that crashed, one after the other.
    crashes: u32,
    /// When to try again to start a process.
    backoff: Backoff,
    /// Since when no worker lives because none could be started, and what was short.
    pub(crate) nobody: Option<(Instant, String)>,
    /// Until when orphans are looked for.
    pub(crate) orphanage: Option<Instant>,
    pub(crate) course: Course,
    /// Its descriptors are no longer its own.
    abandoned: bool,
    /// When to look at the clock again.
    next_look: Option<Instant>,
    pub(crate) pauses: Pauses,
    strikes: Strikes,
    /// Made when the first workers have been ordered: until then nobody is killed.
    oom_kills: Option<OomKills>,
    /// Deaths by SIGKILL for which it was not yet asked: reading the counts takes longer than all the rest of a recovery.
    unexplained: u32,
}

impl Supervisor {
    pub(crate) fn new(
        core: Arc<Core>,
        recipe: Recipe,
        zygote: Zygote,
        limits: Limits,
        chaos: &Chaos,
    ) -> io::Result<Self> {
        let slots = core.control.slots.len();
        let sources = process::Watch::new()?;
        sources.add(&core.event, mark::EVENT)?;
        sources.add(&zygote.socket, mark::ZYGOTE)?;
        Ok(Self {
            patience: limits.patience,
            limits,
            deaths: VecDeque::new(),
            next_look: None,
            strikes: Strikes::new(chaos),
            oom_kills: None,
            unexplained: 0,
            core,
            recipe,
            sources,
            zygote: Some(zygote),
            processes: (0..slots).map(|_| None).collect(),
            setup_failures: vec![0; slots],
            crashes: 0,
            backoff: Backoff::default(),
            nobody: None,
            orphanage: None,
            course: Course::Staffing,
            abandoned: false,
            pauses: Pauses::new(),
        })
    }

    /// Orders the first workers.
    pub(crate) fn begin(&mut self) {
        self.turn();
    }

    /// Until the pool has stopped and no process is left.
    pub(crate) fn run(mut self) {
        // The processor time of another thread is no measure of this one's.
        self.pauses = Pauses::new();
        let ran = catch_unwind(AssertUnwindSafe(|| self.supervise()));
        if let Err(payload) = ran {
            self.end_after_panic(payload);
        }
        self.core.state.sides.end();
        if self.abandoned {
            return std::mem::forget(self);
        }
        // What the workers' setup refers to is a user's.
        contain("a destructor of what an initializer has kept", || drop(self));
    }

    fn supervise(&mut self) {
        let started = Instant::now();
        while self.turn() {
            let reads = self.oom_kills.is_none() || self.unexplained > 0;
            let timeout = self.timeout().into_iter().chain(reads.then_some(LULL)).min();
            self.pass_work();
            let ready = self.sources.wait(timeout);
            self.pass_wait(timeout);
            let lull = reads && ready.as_ref().is_ok_and(Vec::is_empty);
            if lull || (self.oom_kills.is_none() && started.elapsed() > AT_LAST) {
                self.count_oom_kills();
            }
            #[cfg(feature = "chaos")]
            assert!(
                !self
                    .core
                    .supervisor_panics
                    .load(std::sync::atomic::Ordering::Relaxed),
                "as it was told to"
            );
            match ready {
                Ok(marks) => {
                    marks.into_iter().for_each(|mark| self.hear(mark));
                    // Whoever asks now waits for the answer, and for no process that is ordered in the next turn.
                    let more = self.sources.wait(Some(Duration::ZERO)).unwrap_or_default();
                    more.into_iter().for_each(|mark| self.hear(mark));
                }
                Err(e) => {
                    self.give_up(format!(
                        "the program has closed descriptors of the pool's, by which its processes are heard: {e}"
                    ));
                    self.abandon();
                    std::thread::sleep(RESTLESS);
                    self.recover_orphans();
                }
            }
        }
        self.finish();
    }

    /// A fault of ours: nobody supervises any more, so nobody may wait for it. All processes end, and all jobs.
    fn end_after_panic(&mut self, payload: Box<dyn Any + Send>) {
        let text = format!("the supervisor panicked: {}", panic_text(&*payload));
        discard(payload);
        contain("ending a pool whose supervisor panicked", || self.give_up(text));
        self.zygote = None;
        for process in self.processes.iter().flatten() {
            process.pidfd.iter().for_each(|pidfd| {
                pidfd.kill();
            });
        }
        if contain("ending the jobs of a broken pool", || self.finish()).is_none() {
            self.core.state.lock().finish_at_any_rate(&self.core);
            self.core.control.wake_courier();
        }
    }

    fn hear(&mut self, mark: u64) {
        match mark::split(mark) {
            (mark::EVENT, _) => self.core.event.lower(),
            (mark::ZYGOTE, _) => self.hear_zygote(),
            (mark::LINE, slot) => self.hear_worker(slot),
            _ => self.recover_orphans(),
        }
    }

    /// How long to wait for the event, the zygote or a worker.
    fn timeout(&self) -> Option<Duration> {
        let unwatched = |process: &Process| process.orphan && process.pidfd.is_none();
        let restless = self.core.state.lock().is_restless()
            || self.course.stopping().is_some()
            || self.processes.iter().flatten().any(unwatched);
        let next_look = self
            .next_look
            .map(|at| at.saturating_duration_since(Instant::now()));
        let wanted = next_look.into_iter().chain(restless.then_some(RESTLESS));
        wanted.chain([LONGEST]).min()
    }

    /// The host has closed our descriptors, and may have others under their numbers by now: none is used or closed any more.
    /// The zygote sees its socket end, and takes the workers with it.
    fn abandon(&mut self) {
        if let Some(zygote) = self.zygote.take() {
            std::mem::forget(zygote);
            // Their event and memory file are as lost.
            std::mem::forget(self.core.clone());
        }
        for process in self.processes.iter_mut().flatten() {
            std::mem::forget(process.line.take());
            std::mem::forget(process.pidfd.take());
            process.orphan = true;
        }
        self.orphanage = Some(Instant::now() + ORPHANAGE);
        self.abandoned = true;
    }

    /// Does what the state asks for; `false` when there is nothing left to supervise.
    fn turn(&mut self) -> bool {
        let core = self.core.clone();
        let mut state = core.state.lock();
        recovery::rebuild_ready(&core, &mut state);
        state.free_cells(&core);
        state.pump(&core);
        if state.phase.is_stopping() {
            self.stop(&core, &mut state);
        } else if state.phase == PoolPhase::Closed
            && !state.has_unfinished()
            && self.course == Course::Staffing
        {
            self.course = Course::Draining;
            core.control.parent().shut_down(Header::DRAIN);
        }
        if self.course == Course::Staffing {
            self.staff(&core, &mut state);
        }
        self.next_look = self.keep_time(&core, &mut state);
        if self.course == Course::Staffing {
            let strike = self.strikes.due(&mut self.processes, &core.control.slots);
            self.next_look = self.next_look.into_iter().chain(strike).min();
        }
        let empty = self.processes.iter().all(Option::is_none);
        if self.course == Course::Draining && empty {
            self.stop(&core, &mut state);
        }
        drop(state);
        self.look_for_orphans();
        let Some(since) = self.course.stopping() else {
            return true;
        };
        self.tell_to_stop();
        if since.elapsed() > PATIENCE {
            self.kill_zygote();
        }
        if since.elapsed() > 2 * PATIENCE && !empty {
            // The kernel cannot end them now, and may still write where they were told to: that memory is nobody's.
            tracing::error!(
                "workers of a pool cannot be ended; what they may still write to is never used again"
            );
            std::mem::forget(core);
            return self.zygote.is_some();
        }
        self.zygote.is_some() || !empty
    }

    /// The workers die with it. The end of its socket tells the rest.
    pub(crate) fn kill_zygote(&mut self) {
        if let Some(zygote) = &mut self.zygote {
            zygote.kill();
        }
    }

    /// A program that adopts orphans (PID 1, a subreaper) gets a lost zygote's workers as children: they are reaped, also
    /// those that it has never heard of.
    fn look_for_orphans(&mut self) {
        let Some(until) = self.orphanage else { return };
        let now = Instant::now();
        process::reap_named(|name| name == crate::zygote::NAME || crate::job::task::is_worker_name(name));
        let next = now + Duration::from_millis(50);
        if until <= now {
            self.orphanage = None;
        } else {
            self.next_look = self.next_look.into_iter().chain([next]).min();
        }
    }

    /// Makes everybody leave. The jobs are ended when nobody is left.
    fn stop(&mut self, core: &Core, state: &mut State) {
        if self.course.stopping().is_some() {
            return;
        }
        self.course = Course::Stopping {
            since: Instant::now(),
            told: false,
        };
        let ending = ending_of(&state.phase);
        for job in state.unfinished() {
            state.stop(core, &job, ending.clone(), NEVER);
        }
        core.control.parent().shut_down(Header::STOP);
    }

    fn tell_to_stop(&mut self) {
        if let (Course::Stopping { told, .. }, Some(zygote)) = (&mut self.course, &self.zygote)
            && !*told
        {
            let grace = Message::new(MessageKind::Stop, &[GRACE.as_millis() as u64]);
            *told = grace.try_send(&zygote.socket, &[]).is_ok();
        }
    }

    /// The slot has no process. Gives what it had.
    fn forget(&mut self, slot: usize) -> Option<Process> {
        let mut process = self.processes[slot].take()?;
        self.hang_up(&mut process);
        if let (true, Some(pidfd)) = (process.orphan, &process.pidfd) {
            self.sources.remove(pidfd);
            pidfd.reap();
        }
        Some(process)
    }

    /// What a closed line is part of is not closed with it where a forked child of the host holds another name of it.
    fn hang_up(&self, process: &mut Process) {
        if let Some(line) = process.line.take() {
            self.sources.remove(&line);
        }
    }

    /// Kills a worker; where this process may not, its zygote does.
    pub(crate) fn kill(&self, slot: usize) {
        let Some(process) = &self.processes[slot] else {
            return;
        };
        if process.pidfd.as_ref().is_some_and(Pidfd::kill) {
            return;
        }
        if let Some(zygote) = &self.zygote {
            let order = Message::new(MessageKind::Kill, &[slot as u64, u64::from(process.incarnation)]);
            let _ = order.try_send(&zygote.socket, &[]);
        }
    }

    fn give_up(&self, text: String) {
        self.core.state.lock().break_down(&self.core, text);
    }

    /// Nobody is left: the jobs that are not over never will be.
    fn finish(&mut self) {
        let core = self.core.clone();
        let mut state = core.state.lock();
        let ending = ending_of(&state.phase);
        state.end_all(&core, &ending);
        state.finished = true;
        core.changed.notify_all();
        core.control.wake_courier();
    }
}

impl Process {
    /// Ordered, and not yet reported.
    pub(crate) fn is_unborn(&self) -> bool {
        self.pid == 0
    }

    /// Whether it has ended, as far as can be told.
    pub(crate) fn is_gone(&self) -> bool {
        match &self.pidfd {
            Some(pidfd) => pidfd.is_gone(),
            None => !process::is_running(self.pid),
        }
    }
}

/// How jobs end that a stopping pool has not finished.
fn ending_of(phase: &PoolPhase) -> End {
    match phase {
        PoolPhase::Broken(text) => End::Broken(text.clone()),
        _ => End::Terminated,
    }
}
