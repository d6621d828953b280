//! The supervisor: one thread of the parent that starts processes, learns of their deaths, and has the dead's work
//! handed on. It answers workers that ask for memory. It waits for no worker, and for no callback.

use std::{
    collections::VecDeque,
    io,
    os::fd::OwnedFd,
    process::Child,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use swathe_memory::{Access, registry};
use swathe_os::{
    AsFd, image,
    process::{self, ExitCause, Pidfd},
    socket::Socket,
};
use swathe_protocol::{Header, JobKey};

use crate::{
    chaos::Strikes,
    deadlines::{Doom, Patience, Watch},
    engine::ZygoteRecipe,
    fault::Chaos,
    job::End,
    recovery::{self, Death, Verdict},
    state::{Core, PoolPhase, State},
    wire::{Kind, Message},
};

/// How often in a row one slot's process may fail to come to work.
const SETUP_TRIES: u32 = 3;
/// How often in a row the zygote may be lost.
const ZYGOTE_TRIES: u32 = 5;
/// How long a stopping pool lets workers finish what they do, before SIGTERM.
const GRACE: Duration = Duration::from_millis(50);
/// A stopping pool's zygote kills who does not leave.
const NEVER: Duration = Duration::MAX;
/// How long a stopping pool waits for its zygote before it is killed.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long the supervisor sleeps when it waits for something that nobody will tell it.
const RESTLESS: Duration = Duration::from_millis(1);
/// How long a starting zygote may take to answer.
const READY: Duration = Duration::from_secs(30);

/// A zygote that answered.
pub(crate) struct Zygote {
    child: Child,
    socket: Socket,
}

/// Nobody else waits for it.
impl Drop for Zygote {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The process of a slot.
pub(crate) struct Process {
    incarnation: u32,
    pub(crate) pid: u32,
    pub(crate) pidfd: Option<Pidfd>,
    line: Option<Socket>,
    pub(crate) watch: Watch,
    /// Why it was killed, if the supervisor has done so.
    pub(crate) doom: Option<Doom>,
    /// Whether chaos has struck it. That it does not come to work is then not the initializer's fault.
    pub(crate) struck: bool,
}

/// What a pool bears before it gives up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) patience: Patience,
    /// How many workers may die in which time.
    pub(crate) restarts: (u32, Duration),
    pub(crate) max_memory: Option<u64>,
}

/// The supervisor's own view, beside the shared state.
pub(crate) struct Supervisor {
    core: Arc<Core>,
    recipe: ZygoteRecipe,
    zygote: Option<Zygote>,
    pub(crate) processes: Vec<Option<Process>>,
    pub(crate) patience: Patience,
    limits: Limits,
    /// When workers have died lately.
    deaths: VecDeque<Instant>,
    setup_failures: Vec<u32>,
    zygote_failures: u32,
    stopping: Option<Instant>,
    pub(crate) draining: bool,
    /// When to look at the clock again.
    next_look: Option<Instant>,
    strikes: Strikes,
}

/// Spawns a zygote and greets it.
pub(crate) fn start_zygote(core: &Core, recipe: &ZygoteRecipe) -> Result<Zygote, String> {
    let (ours, theirs) = Socket::pair().map_err(|e| format!("no socket could be made: {e}"))?;
    let environment = recipe.environment();
    let mut child = process::spawn_self("swathe-zygote", OwnedFd::from(theirs), &environment)
        .map_err(|e| format!("this program's own executable could not be started: {e}"))?;
    let (control, data) = (&core.control.segment, core.memory.segment());
    let words = [
        control.id().to_bits(),
        control.len() as u64,
        data.id().to_bits(),
        data.len() as u64,
        core.control.slots.len() as u64,
        recipe.plan.offset() as u64,
        recipe.plan_len as u64,
    ];
    let answer = Message::new(Kind::Hello, &words)
        .send(&ours, &[control.fd(), data.fd()])
        .and_then(|()| await_message(&ours, READY));
    let refused = match answer {
        Ok(Some(ready)) if ready.kind == Kind::Ready && ready.text == image::build_id() => {
            return Ok(Zygote { child, socket: ours });
        }
        Ok(Some(ready)) if ready.kind == Kind::Ready => {
            "the executable was replaced by another build while it ran".to_owned()
        }
        Ok(Some(_)) => "the process that starts workers gave an answer that is none".to_owned(),
        Ok(None) => "the process that starts workers ended before it was ready".to_owned(),
        Err(e) => format!("the process that starts workers did not answer: {e}"),
    };
    let _ = child.kill();
    let _ = child.wait();
    Err(refused)
}

fn await_message(socket: &Socket, patience: Duration) -> io::Result<Option<Message>> {
    if process::poll(&[socket.as_fd()], Some(patience))?[0] {
        Message::receive(socket)
    } else {
        Err(io::ErrorKind::TimedOut.into())
    }
}

impl Supervisor {
    pub(crate) fn new(
        core: Arc<Core>,
        recipe: ZygoteRecipe,
        zygote: Zygote,
        limits: Limits,
        chaos: &Chaos,
    ) -> Self {
        let slots = core.control.slots.len();
        Self {
            patience: limits.patience,
            limits,
            deaths: VecDeque::new(),
            next_look: None,
            strikes: Strikes::new(chaos),
            core,
            recipe,
            zygote: Some(zygote),
            processes: (0..slots).map(|_| None).collect(),
            setup_failures: vec![0; slots],
            zygote_failures: 0,
            stopping: None,
            draining: false,
        }
    }

    /// Until the pool has stopped and no process is left.
    pub(crate) fn run(mut self) {
        while self.turn() {
            let ready = self.wait();
            self.core.event.lower();
            self.hear_zygote();
            for (slot, _) in ready.iter().enumerate().filter(|(_, ready)| **ready) {
                self.hear_worker(slot);
            }
        }
        self.finish();
    }

    /// Waits for the event, the zygote or a worker; gives a flag for each slot.
    fn wait(&self) -> Vec<bool> {
        let restless = self.core.state.lock().is_restless();
        let restless = restless || self.stopping.is_some();
        let next_look = self
            .next_look
            .map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = next_look.into_iter().chain(restless.then_some(RESTLESS)).min();
        let lines: Vec<_> = self
            .processes
            .iter()
            .enumerate()
            .filter_map(|(slot, p)| Some((slot, p.as_ref()?.line.as_ref()?)))
            .collect();
        let mut fds = vec![self.core.event.as_fd()];
        fds.extend(lines.iter().map(|(_, line)| line.as_fd()));
        fds.extend(self.zygote.iter().map(|zygote| zygote.socket.as_fd()));
        let ready = process::poll(&fds, timeout).unwrap_or_else(|_| vec![true; fds.len()]);
        let mut flags = vec![false; self.processes.len()];
        for ((slot, _), ready) in lines.iter().zip(&ready[1..]) {
            flags[*slot] = *ready;
        }
        flags
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
            core.control
                .header
                .shutdown
                .store(Header::DRAIN, Ordering::Release);
            core.control.wake_all();
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
        if self.stopping.is_some_and(|since| since.elapsed() > PATIENCE) {
            self.kill_zygote();
        }
        self.stopping.is_none() || self.zygote.is_some()
    }

    /// The workers die with it. The end of its socket tells the rest.
    pub(crate) fn kill_zygote(&mut self) {
        if let Some(zygote) = &mut self.zygote {
            let _ = zygote.child.kill();
        }
    }

    /// Makes everybody leave. The jobs are ended when nobody is left.
    fn stop(&mut self, core: &Core, state: &mut State) {
        if self.stopping.is_some() {
            return;
        }
        self.stopping = Some(Instant::now());
        core.control
            .header
            .shutdown
            .store(Header::STOP, Ordering::Release);
        let ending = ending_of(&state.phase);
        for job in state.unfinished() {
            state.stop(core, &job, ending.clone(), NEVER);
        }
        core.control.wake_all();
        if let Some(zygote) = &self.zygote {
            let grace = Message::new(Kind::Stop, &[GRACE.as_millis() as u64]);
            let _ = grace.send(&zygote.socket, &[]);
        }
    }

    /// Starts the workers that should be there, asks those to leave that should not.
    fn staff(&mut self, core: &Core, state: &mut State) {
        for slot in 0..self.processes.len() {
            let wanted = slot < state.target || state.has_errand(core, slot);
            match (&self.processes[slot], wanted) {
                (None, true) => self.start_worker(core, state, slot),
                (Some(_), false) => {
                    core.control.slots[slot]
                        .errand
                        .store(crate::worker::RETIRE, Ordering::Release);
                    if core.control.parks[slot].claim_wake() {
                        swathe_os::futex::wake(core.control.parks[slot].word(), 1);
                    }
                }
                _ => {}
            }
        }
    }

    fn start_worker(&mut self, core: &Core, state: &mut State, slot: usize) {
        let Some(zygote) = &self.zygote else { return };
        let words = &core.control.slots[slot];
        words.renew();
        let _ = words
            .errand
            .compare_exchange(crate::worker::RETIRE, 0, Ordering::AcqRel, Ordering::Relaxed);
        let incarnation = words.incarnation.load(Ordering::Relaxed);
        let sent = Socket::pair().and_then(|(line, theirs)| {
            let order = Message::new(Kind::Fork, &[slot as u64, u64::from(incarnation)]);
            order.send(&zygote.socket, &[theirs.as_fd()]).map(|()| line)
        });
        match sent {
            Ok(line) => {
                self.processes[slot] = Some(Process {
                    incarnation,
                    pid: 0,
                    pidfd: None,
                    line: Some(line),
                    watch: Watch::new(),
                    doom: None,
                    struck: false,
                });
            }
            // A zygote that is gone is heard of soon, and replaced.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {}
            Err(e) => {
                state.phase = PoolPhase::Broken(format!("a worker could not be started: {e}"));
                core.event.raise();
            }
        }
    }

    /// Everything the zygote has said.
    fn hear_zygote(&mut self) {
        while let Some(zygote) = &self.zygote {
            match Message::try_receive(&zygote.socket) {
                Ok(Some(message)) => self.obey_zygote(message),
                Ok(None) => return self.lose_zygote(),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return self.lose_zygote(),
            }
        }
    }

    fn obey_zygote(&mut self, mut message: Message) {
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
                let watched = process.pidfd.is_some();
                self.core.state.lock().pids[slot] = Some(pid as u32);
                if !watched {
                    self.give_up(
                        "a worker cannot be watched over: this process may open no more files".to_owned(),
                    );
                }
            }
            Kind::ForkFailed => {
                let text = String::from_utf8_lossy(&message.text).into_owned();
                self.processes[slot] = None;
                self.give_up(text);
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

    /// A worker is gone: its work is handed on, its slot is free.
    fn bury(&mut self, slot: usize, pid: u32, cause: ExitCause, peak_memory: Option<u64>) {
        // What it still asked for is answered by nobody, and it waits no more.
        let process = self.processes[slot].take();
        let (doom, struck) = process.map_or((None, false), |process| (process.doom, process.struck));
        let core = self.core.clone();
        let mut state = core.state.lock();
        state.pids[slot] = None;
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
        if self.stopping.is_none()
            && verdict != Verdict::Left
            && doom.is_none()
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
                self.zygote_failures = 0;
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
        tracing::error!(text, "the pool is broken");
        state.phase = PoolPhase::Broken(text);
        core.event.raise();
    }

    /// The zygote is gone, and with it, by their parent-death signal, all workers.
    fn lose_zygote(&mut self) {
        self.zygote = None;
        for slot in 0..self.processes.len() {
            let Some(process) = &self.processes[slot] else {
                continue;
            };
            let pid = process.pid;
            if let Some(pidfd) = &process.pidfd {
                pidfd.kill();
                pidfd.wait_gone(PATIENCE);
            }
            self.bury(slot, pid, ExitCause::Unknown, None);
        }
        if self.stopping.is_some() {
            return;
        }
        self.zygote_failures += 1;
        if self.zygote_failures > ZYGOTE_TRIES {
            return self
                .give_up("the process that starts workers was lost several times in a row".to_owned());
        }
        match start_zygote(&self.core, &self.recipe) {
            Ok(zygote) => self.zygote = Some(zygote),
            Err(text) => self.give_up(text),
        }
    }

    fn give_up(&self, text: String) {
        let mut state = self.core.state.lock();
        if !state.phase.is_stopping() {
            tracing::error!(text, "the pool is broken");
            state.phase = PoolPhase::Broken(text);
        }
        self.core.event.raise();
    }

    /// A worker asks for memory.
    fn hear_worker(&mut self, slot: usize) {
        let Some(line) = self.line(slot) else { return };
        let Ok(Some(question)) = Message::try_receive(line) else {
            // Gone, or talking nonsense. Not polled again: a line that hung up would be ready for ever.
            if let Some(process) = &mut self.processes[slot] {
                process.line = None;
                process.watch.hung_up.get_or_insert_with(Instant::now);
            }
            return;
        };
        let answer = match question.kind {
            Kind::WantBlock => self.grant_block(question.words[0], question.words[1]),
            // It is watched over in the next turn.
            Kind::Leaving => return,
            Kind::WantSegment => return self.send_segment(slot, question.words[0]),
            _ => Err("the parent does not understand the question".to_owned()),
        };
        let answer = answer.unwrap_or_else(|why| Message::new(Kind::Refused, &[]).with_text(why.as_bytes()));
        let _ = answer.send(line, &[]);
    }

    fn line(&self, slot: usize) -> Option<&Socket> {
        self.processes[slot].as_ref()?.line.as_ref()
    }

    fn grant_block(&self, job: u64, bytes: u64) -> Result<Message, String> {
        let state = self.core.state.lock();
        let job = state
            .job(JobKey::from_word(job))
            .filter(|job| !job.is_over())
            .ok_or("the job is over")?;
        let len = usize::try_from(bytes).map_err(|_| "a block of that size cannot exist")?;
        let block = self.core.memory.alloc(len, 64).map_err(|e| e.to_string())?;
        let answer = Message::new(Kind::Block, &[block.offset() as u64, block.len() as u64]);
        job.inner.lock().heap.push(Arc::new(block));
        Ok(answer)
    }

    fn send_segment(&self, slot: usize, id: u64) {
        let Some(line) = self.line(slot) else { return };
        let answer = match registry::find(swathe_memory::SegmentId::from_bits(id)) {
            Some(segment) => {
                let writable = u64::from(segment.access() == Access::ReadWrite);
                Message::new(Kind::Segment, &[segment.len() as u64, writable]).send(line, &[segment.fd()])
            }
            None => Message::new(Kind::Refused, &[])
                .with_text(b"the array it belongs to no longer exists in the parent")
                .send(line, &[]),
        };
        if let Err(e) = answer {
            tracing::debug!(slot, %e, "a worker went away while it was answered");
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

/// How jobs end that a stopping pool has not finished.
fn ending_of(phase: &PoolPhase) -> End {
    match phase {
        PoolPhase::Broken(text) => End::Broken(text.clone()),
        _ => End::Terminated,
    }
}
