//! The supervisor: one thread of the parent that starts processes, learns of their deaths, and has the dead's work
//! handed on. It answers workers that ask for memory. It waits for no worker, and for no callback.

mod chaos;
pub(crate) mod clock;
pub(crate) mod launch;
pub(crate) mod recipe;
pub(crate) mod recovery;
mod redo;

use std::{
    any::Any,
    collections::VecDeque,
    io,
    os::unix::ffi::OsStrExt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use swathe_memory::{Access, registry};
use swathe_os::{
    image,
    memory_limits::{OomKill, OomKills},
    process::{self, ExitCause, Pidfd},
    socket::Socket,
};
use swathe_protocol::{Header, JobKey, Order};

use crate::{
    fault::Chaos,
    job::End,
    parent::{
        core::{Core, PoolPhase},
        jobs::{STOP_GRACE, State},
        user_code::{contain, discard, panic_text},
    },
    shared::messages::{Kind, Message, Purpose, WORDS},
    supervisor::{
        chaos::Strikes,
        clock::{Doom, Patience, Pauses, Watch},
        launch::{Backoff, Loss, Zygote, is_shortage},
        recipe::Recipe,
        recovery::{Death, Verdict},
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
    pub(crate) doom: Option<Doom>,
    /// Whether chaos has struck it. That it does not come to work is then not the initializer's fault.
    pub(crate) struck: bool,
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
    pub(crate) stopping: Option<Instant>,
    told_to_stop: bool,
    /// Its descriptors are no longer its own.
    abandoned: bool,
    pub(crate) draining: bool,
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
            stopping: None,
            told_to_stop: false,
            abandoned: false,
            draining: false,
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
        let born = Instant::now();
        while self.turn() {
            let reads = self.oom_kills.is_none() || self.unexplained > 0;
            let timeout = self.timeout().into_iter().chain(reads.then_some(LULL)).min();
            self.pass_work();
            let ready = self.sources.wait(timeout);
            self.pass_wait(timeout);
            let lull = reads && ready.as_ref().is_ok_and(Vec::is_empty);
            if lull || (self.oom_kills.is_none() && born.elapsed() > AT_LAST) {
                self.count_oom_kills();
            }
            #[cfg(feature = "chaos")]
            assert!(
                !self.core.supervisor_panics.load(Ordering::Relaxed),
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
                    self.bury_orphans();
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
            _ => self.bury_orphans(),
        }
    }

    /// How long to wait for the event, the zygote or a worker.
    fn timeout(&self) -> Option<Duration> {
        let unwatched = |process: &Process| process.orphan && process.pidfd.is_none();
        let restless = self.core.state.lock().is_restless()
            || self.stopping.is_some()
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
        state.look_at_limbo(&core);
        state.pump(&core);
        if state.phase.is_stopping() {
            self.stop(&core, &mut state);
        } else if state.phase == PoolPhase::Closed && !state.has_unfinished() && !self.draining {
            self.draining = true;
            core.control.parent().shut_down(Header::DRAIN);
        }
        if self.stopping.is_none() && !self.draining {
            self.staff(&core, &mut state);
        }
        self.next_look = self.keep_time(&core, &mut state);
        if self.stopping.is_none() && !self.draining {
            let strike = self.strikes.due(&mut self.processes, &core.control.slots);
            self.next_look = self.next_look.into_iter().chain(strike).min();
        }
        let empty = self.processes.iter().all(Option::is_none);
        if self.draining && empty && self.stopping.is_none() {
            self.stop(&core, &mut state);
        }
        drop(state);
        self.look_for_orphans();
        let Some(since) = self.stopping else { return true };
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
        if self.stopping.is_some() {
            return;
        }
        self.stopping = Some(Instant::now());
        let ending = ending_of(&state.phase);
        for job in state.unfinished() {
            state.stop(core, &job, ending.clone(), NEVER);
        }
        core.control.parent().shut_down(Header::STOP);
    }

    fn tell_to_stop(&mut self) {
        if let (false, Some(zygote)) = (self.told_to_stop, &self.zygote) {
            let grace = Message::new(Kind::Stop, &[GRACE.as_millis() as u64]);
            self.told_to_stop = grace.try_send(&zygote.socket, &[]).is_ok();
        }
    }

    /// Starts the processes that should be there, asks those to leave that should not.
    fn staff(&mut self, core: &Core, state: &mut State) {
        self.replace_zygote(core, state);
        let mut orders = self
            .processes
            .iter()
            .flatten()
            .filter(|process| process.is_unborn())
            .count();
        for slot in 0..self.processes.len() {
            let wanted = slot < state.target || state.has_errand(core, slot);
            match (&self.processes[slot], wanted) {
                (None, true) if orders < ORDERS => {
                    orders += usize::from(self.start_worker(core, slot));
                }
                (Some(_), false) => core.control.parent().retire(slot),
                _ => {}
            }
        }
        self.despair(state);
    }

    /// Starts another zygote if there is none and it is time.
    fn replace_zygote(&mut self, core: &Core, state: &mut State) {
        if self.zygote.is_some() || self.backoff.must_wait() {
            return;
        }
        let started = Zygote::start(core, &self.recipe).and_then(|zygote| {
            self.sources.add(&zygote.socket, mark::ZYGOTE)?;
            Ok(zygote)
        });
        match started {
            Ok(zygote) => self.zygote = Some(zygote),
            Err(e) if is_shortage(&e) => self.fall_short(Loss::at_start(&e).to_string()),
            Err(e) => state.break_down(core, Loss::at_start(&e).to_string()),
        }
    }

    /// Something that processes are made of is short. That may pass.
    fn fall_short(&mut self, what: String) {
        tracing::debug!(what, "a process could not be started, and is tried again");
        self.backoff.fail();
        let living = |process: &Process| process.pid != 0 && !process.orphan;
        if !self.processes.iter().flatten().any(living) {
            let since = self.nobody.take().map_or_else(Instant::now, |(since, _)| since);
            self.nobody = Some((since, what));
        }
    }

    fn despair(&mut self, state: &mut State) {
        if let Some((since, what)) = &self.nobody
            && since.elapsed() > self.limits.start
        {
            let text = format!("no worker could be started for {:?}: {what}", self.limits.start);
            state.break_down(&self.core, text);
        }
    }

    /// When those processes are tried again that could not be started.
    pub(crate) fn next_start(&self) -> Option<Instant> {
        let wanted = self.stopping.is_none() && !self.draining;
        let waits = self.zygote.is_none() || self.processes.iter().any(Option::is_none);
        // What was due has just been tried.
        let next = self.backoff.next().filter(|next| *next > Instant::now());
        next.filter(|_| wanted && waits)
    }

    /// Gives whether an order is under way.
    fn start_worker(&mut self, core: &Core, slot: usize) -> bool {
        let ready = self.zygote.as_ref().filter(|zygote| zygote.ready);
        let (Some(zygote), false) = (ready, self.backoff.must_wait()) else {
            return false;
        };
        let words = &core.control.slots[slot];
        let sent = Socket::pair().and_then(|(line, theirs)| {
            self.sources.add(&line, mark::LINE | slot as u64)?;
            words.renew();
            words.order.clear(Order::Retire);
            // It needs a core from now on.
            core.control.parks[slot].unpark_self();
            let incarnation = words.incarnation.load(Ordering::Relaxed);
            let order = Message::new(Kind::Fork, &[slot as u64, u64::from(incarnation)]);
            order.try_send(&zygote.socket, &[swathe_os::AsFd::as_fd(&theirs)])?;
            Ok((line, incarnation))
        });
        match sent {
            Ok((line, incarnation)) => {
                self.processes[slot] = Some(Process {
                    incarnation,
                    pid: 0,
                    pidfd: None,
                    line: Some(line),
                    watch: Watch::new(),
                    doom: None,
                    struck: false,
                    orphan: false,
                });
                true
            }
            Err(e) => {
                core.control.words().vacate(slot);
                // A zygote that is gone is heard of soon, and replaced.
                if e.kind() != io::ErrorKind::BrokenPipe {
                    self.fall_short(format!("a worker could not be started: {e}"));
                }
                false
            }
        }
    }

    /// Everything the zygote has said.
    fn hear_zygote(&mut self) {
        while let Some(zygote) = &self.zygote {
            match Message::try_receive(&zygote.socket) {
                Ok(Some(message)) => self.obey_zygote(message),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                // No room for a descriptor that came with a message: the next look may find some.
                Err(e) if is_shortage(&e) => {
                    return self.fall_short(format!("the zygote cannot be heard: {e}"));
                }
                Ok(None) | Err(_) => return self.lose_zygote(),
            }
        }
    }

    fn obey_zygote(&mut self, mut message: Message) {
        let Some(zygote) = &mut self.zygote else { return };
        zygote.asked = None;
        match message.kind {
            Kind::Ready => match zygote.hear_ready(&message) {
                Ok(()) => self.core.event.raise(),
                Err(text) => self.give_up(text),
            },
            Kind::Pong => self.bury_unreported(),
            _ => {}
        }
        let [slot, incarnation, pid, by, number, peak_kib, ..] = message.words;
        let slot = slot as usize;
        let Some(Some(process)) = self.processes.get_mut(slot) else {
            return;
        };
        if u64::from(process.incarnation) != incarnation {
            return;
        }
        match message.kind {
            Kind::Forked => {
                process.pid = pid as u32;
                process.pidfd = message.fds.pop().map(Pidfd::from);
                self.backoff.succeed();
                self.nobody = None;
                self.core.state.lock().pids[slot] = Some(pid as u32);
                // More orders may be sent.
                self.core.event.raise();
            }
            Kind::ForkFailed => {
                let text = String::from_utf8_lossy(&message.text).into_owned();
                self.forget(slot);
                self.core.control.words().vacate(slot);
                self.fall_short(text);
            }
            Kind::Died => {
                let cause = match by {
                    0 => ExitCause::Code(number as i32),
                    1 => ExitCause::Signal(number as i32),
                    _ => ExitCause::Unknown,
                };
                self.bury(slot, pid as u32, cause, Some(peak_kib.saturating_mul(1024)));
            }
            _ => {}
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

    /// Begins to count the kernel's kills, and takes those into account for which it was not asked when they were heard of.
    fn count_oom_kills(&mut self) {
        let kills = self.oom_kills.get_or_insert_with(OomKills::from_now);
        for _ in 0..std::mem::take(&mut self.unexplained) {
            kills.claim();
        }
    }

    /// Whether the kernel has sent the SIGKILL of which a worker has just died.
    fn explain_kill(&mut self) -> Option<OomKill> {
        self.count_oom_kills();
        self.oom_kills.as_mut()?.claim()
    }

    /// A worker is gone: its work is handed on, its slot is free.
    fn bury(&mut self, slot: usize, pid: u32, cause: ExitCause, peak_memory: Option<u64>) {
        // What it still asked for is answered by nobody, and it waits no more.
        let process = self.forget(slot);
        let (doom, struck) = process.map_or((None, false), |process| (process.doom, process.struck));
        let core = self.core.clone();
        let mut state = core.state.lock();
        state.pids[slot] = None;
        // Who sent SIGKILL is asked when it is to be said; otherwise later, so that the work of the dead is handed on at once.
        let killed = cause == ExitCause::Signal(KILL) && doom.is_none();
        let asked = killed && state.may_blame_next_death();
        if asked && let Some(kill) = self.explain_kill() {
            core.control.slots[slot].write_last_words(&format!("it {kill}"));
        }
        let verdict = recovery::bury(
            &core,
            &mut state,
            Death {
                worker: slot,
                pid,
                cause,
                peak_memory,
                doom,
                max_memory: self.limits.max_memory,
            },
        );
        core.changed.notify_all();
        self.unexplained += u32::from(killed && !asked);
        if self.stopping.is_none()
            && !matches!(verdict, Verdict::Left | Verdict::Panicked)
            && doom.is_none_or(Doom::is_own_fault)
            && cause != ExitCause::Unknown
        {
            self.count_death(&core, &mut state, slot, pid, cause);
        }
        match verdict {
            // Lost with the zygote, or on purpose: that is not the initializer's fault.
            Verdict::NeverWorked(_) if struck || cause == ExitCause::Unknown => {}
            Verdict::NeverWorked(text) if self.stopping.is_none() => {
                self.setup_failures[slot] += 1;
                let tries = self.setup_failures[slot];
                if tries >= SETUP_TRIES {
                    drop(state);
                    self.give_up(match text.is_empty() {
                        _ if doom == Some(Doom::Setup) => format!(
                            "the initializer did not end within {:?}, {tries} times in a row (last in pid {pid})",
                            self.patience.initializer.unwrap_or_default()
                        ),
                        false => format!("the initializer failed {tries} times in a row, last with: {text}"),
                        true => format!(
                            "worker {slot} {cause} before it came to work, {tries} times in a row (last pid {pid})"
                        ),
                    });
                }
            }
            _ => {
                self.setup_failures[slot] = 0;
                self.crashes = 0;
            }
        }
    }

    /// Workers that die again and again are replaced only so often.
    fn count_death(&mut self, core: &Core, state: &mut State, slot: usize, pid: u32, cause: ExitCause) {
        let (most, within) = self.limits.restarts;
        let now = Instant::now();
        self.deaths.push_back(now);
        while self
            .deaths
            .front()
            .is_some_and(|at| now.duration_since(*at) > within)
        {
            self.deaths.pop_front();
        }
        if self.deaths.len() as u64 <= u64::from(most) || state.phase.is_stopping() {
            return;
        }
        let words = recovery::last_words(&core.control.slots[slot]);
        let words = if words.is_empty() {
            words
        } else {
            format!(", and said last: {words}")
        };
        let text = format!(
            "{} workers died within {within:?}, and it may lose {most} in that time; the last, worker {slot} (pid {pid}), \
             {cause}{words}",
            self.deaths.len()
        );
        state.break_down(core, text);
    }

    /// The zygote is gone, and with it, by their parent-death signal, all workers. Their work is handed on when they have
    /// really ended.
    fn lose_zygote(&mut self) {
        let Some(mut zygote) = self.zygote.take() else {
            return;
        };
        self.sources.remove(&zygote.socket);
        let loss = zygote.end();
        if process::adopts_orphans() {
            self.orphanage = Some(Instant::now() + ORPHANAGE);
        }
        for slot in 0..self.processes.len() {
            let Some(process) = &mut self.processes[slot] else {
                continue;
            };
            if process.is_unborn() {
                // It was never told that it may begin, and has ended, or is about to.
                self.bury(slot, 0, ExitCause::Unknown, None);
                continue;
            }
            process.orphan = true;
            if let Some(pidfd) = &process.pidfd {
                pidfd.kill();
                let _ = self.sources.add(pidfd, mark::ORPHAN | slot as u64);
            }
        }
        self.bury_orphans();
        if self.stopping.is_some() {
            return;
        }
        if loss.is_crash() {
            self.crashes += 1;
        }
        match loss.is_final(self.crashes) {
            true => self.give_up(loss.to_string()),
            false => self.fall_short(loss.to_string()),
        }
    }

    /// Those that have ended and whose zygote is lost.
    fn bury_orphans(&mut self) {
        for slot in 0..self.processes.len() {
            if let Some(process) = &self.processes[slot]
                && process.orphan
                && process.is_gone()
            {
                let pid = process.pid;
                self.bury(slot, pid, ExitCause::Unknown, None);
            }
        }
    }

    /// The zygote answers, and has not reported some that have ended: somebody else has reaped them.
    fn bury_unreported(&mut self) {
        for slot in 0..self.processes.len() {
            if let Some(process) = &self.processes[slot]
                && process.watch.hung_up.is_some()
                && process.pid != 0
                && process.is_gone()
            {
                let pid = process.pid;
                self.bury(slot, pid, ExitCause::Unknown, None);
            }
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
            let order = Message::new(Kind::Kill, &[slot as u64, u64::from(process.incarnation)]);
            let _ = order.try_send(&zygote.socket, &[]);
        }
    }

    fn give_up(&self, text: String) {
        self.core.state.lock().break_down(&self.core, text);
    }

    /// A worker asks for something, or has something to say.
    fn hear_worker(&mut self, slot: usize) {
        let Some(line) = self.line(slot) else { return };
        let question = match Message::try_receive(line) {
            Ok(Some(question)) => question,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
            // Gone, or talking nonsense, or a task has closed it. It is not heard again: a line that hung up would be ready
            // for ever.
            Ok(None) | Err(_) => return self.lose_line(slot),
        };
        let answer = match question.kind {
            Kind::WantBlock => self.grant_block(question.words),
            // It is watched over in the next turn.
            Kind::Leaving => return,
            Kind::WantSegment => return self.send_segment(slot, question.words[0]),
            Kind::WantObject => image::path_of(question.words[0])
                .map(|path| Message::new(Kind::Object, &[]).with_text(path.as_os_str().as_bytes())),
            Kind::CannotRun => Ok(self.end_job(&question)),
            _ => Err("the parent does not understand the question".to_owned()),
        };
        let answer = answer.unwrap_or_else(|why| Message::new(Kind::Refused, &[]).with_text(why.as_bytes()));
        // It waits for its answer, so there is room, unless it asks and never reads: then it is not heard any more.
        if answer.try_send(line, &[]).is_err() {
            self.lose_line(slot);
        }
    }

    fn lose_line(&mut self, slot: usize) {
        let Some(mut process) = self.processes[slot].take() else {
            return;
        };
        self.hang_up(&mut process);
        process.watch.hung_up.get_or_insert_with(Instant::now);
        self.processes[slot] = Some(process);
        // Whether it still is a worker is looked at in the next turn.
        self.next_look = Some(Instant::now());
    }

    fn line(&self, slot: usize) -> Option<&Socket> {
        self.processes[slot].as_ref()?.line.as_ref()
    }

    fn grant_block(&self, [job, bytes, purpose, least, ..]: [u64; WORDS]) -> Result<Message, String> {
        let purpose = Purpose::from_word(purpose).ok_or("that is nothing to want a block for")?;
        let key = JobKey::from_word(job);
        let job = self.core.state.lock().job(key);
        let job = job.filter(|job| !job.is_over()).ok_or("the job is over")?;
        let epoch = self
            .core
            .control
            .job(key)
            .map_or(0, |cell| cell.gate.state().epoch);
        if let Some([first, end]) = job.inner.lock().spares.take(purpose, least, epoch) {
            return Ok(Message::new(Kind::Block, &[first, end - first]));
        }
        let len = usize::try_from(bytes).map_err(|_| "a block of that size cannot exist")?;
        if purpose == Purpose::Texts {
            job.take_text(bytes)?;
        }
        // Without the lock: taking its pages is what takes long.
        let block = match self.core.memory.alloc(len, 64) {
            Ok(block) => block,
            Err(e) if purpose == Purpose::Records => {
                let text = format!("no memory was left to report the failures of this job: {e}");
                let mut state = self.core.state.lock();
                state.stop(&self.core, &job, End::Shortage(text), STOP_GRACE);
                return Err(e.to_string());
            }
            Err(e) => return Err(e.to_string()),
        };
        let answer = Message::new(Kind::Block, &[block.offset() as u64, block.len() as u64]);
        job.keep_block(block, purpose);
        Ok(answer)
    }

    /// A job that one worker cannot run is run by none: they are all alike.
    fn end_job(&self, complaint: &Message) -> Message {
        let why = String::from_utf8_lossy(&complaint.text);
        let mut state = self.core.state.lock();
        if let Some(job) = state.job(JobKey::from_word(complaint.words[0])) {
            let ending = End::CannotRun(format!("the workers cannot run this job: {why}"));
            state.stop(&self.core, &job, ending, STOP_GRACE);
        }
        Message::new(Kind::Noted, &[])
    }

    fn send_segment(&mut self, slot: usize, id: u64) {
        let Some(line) = self.line(slot) else { return };
        let answer = match registry::find(swathe_memory::SegmentId::from_bits(id)) {
            Some(segment) => {
                let writable = u64::from(segment.access() == Access::ReadWrite);
                Message::new(Kind::Segment, &[segment.len() as u64, writable]).try_send(line, &[segment.fd()])
            }
            None => Message::new(Kind::Refused, &[])
                .with_text(b"the array it belongs to no longer exists in the parent")
                .try_send(line, &[]),
        };
        if let Err(e) = answer {
            tracing::debug!(slot, %e, "a worker went away while it was answered, or does not read");
            self.lose_line(slot);
        }
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
