//! What the supervisor does by the clock: deadlines of elements and jobs, workers that do not come to an end, rounds of
//! retries. It reads the workers' slots; they make no system call for it.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use swathe_os::process::monotonic_ns;
use swathe_protocol::{JobPhase, SlotPhase, WorkerSlot};

use crate::{
    job::End,
    state::{Core, State},
    supervisor::Supervisor,
    worker::RETIRE,
};

/// How long those that are at work may go on when their job's time is over: enough for the end of a strip.
const DEADLINE_GRACE: Duration = Duration::from_millis(3);
/// How long a worker may be between two strips of a job whose elements have deadlines, beyond such a deadline.
const STUCK: Duration = Duration::from_secs(1);
/// How long the zygote may take to report a worker that has hung up, or to fork one.
const ZYGOTE_SILENCE: Duration = Duration::from_secs(5);

/// Names one strip of one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StripId {
    pub(crate) first: u64,
    pub(crate) len: u64,
    started: u64,
}

impl StripId {
    /// The strip in work; of length 0 between strips. Read until it stands still, because its worker writes it.
    pub(crate) fn of(slot: &WorkerSlot) -> Self {
        let read = || Self {
            len: slot.strip_len.load(Ordering::Acquire),
            first: slot.strip_first.load(Ordering::Acquire),
            started: slot.strip_started.load(Ordering::Acquire),
        };
        let mut id = read();
        for _ in 0..4 {
            let again = read();
            if again == id {
                break;
            }
            id = again;
        }
        id
    }
}

/// Why the supervisor killed a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doom {
    /// This strip took longer than an element may.
    Late(StripId),
    /// It stood still between two strips.
    Stuck,
    /// Its job was stopped, and it did not leave.
    Stopped,
    /// Its initializer took too long.
    Setup,
    /// It was to leave, and did not come to an end.
    Exit,
}

/// What the clock has seen of a process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watch {
    /// When it was ordered.
    pub(crate) born: Instant,
    /// When its line was found closed.
    pub(crate) hung_up: Option<Instant>,
    /// Since when it is to leave and has not.
    leaving: Option<Instant>,
    /// What it did when it was last looked at, and since when it does.
    still: ([u64; 6], Instant),
}

impl Watch {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self {
            born: now,
            hung_up: None,
            leaving: None,
            still: ([u64::MAX; 6], now),
        }
    }

    /// Since when the worker has not moved.
    fn still_since(&mut self, slot: &WorkerSlot, between: bool, now: Instant) -> Instant {
        let marks = [
            // An idle worker may rest as long as there is nothing for it.
            u64::from(between),
            slot.phase() as u64,
            slot.inside().map_or(0, |key| key.to_word()),
            slot.strip_first.load(Ordering::Relaxed),
            slot.strip_started.load(Ordering::Relaxed),
            slot.elements.load(Ordering::Relaxed),
        ];
        if self.still.0 != marks {
            self.still = (marks, now);
        }
        self.still.1
    }
}

/// Times after which a worker is given up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    pub(crate) initializer: Option<Duration>,
    pub(crate) exit: Duration,
}

/// What is to be done about a process.
enum Look {
    Never,
    At(Instant),
    Kill(Doom),
}

impl Look {
    /// Looks again after the shortest deadline at the latest.
    fn or_sooner(self, now: Instant, shortest: Option<Duration>) -> Self {
        match (self, shortest) {
            (Self::At(at), Some(limit)) => Self::At(at.min(now + limit)),
            (Self::Never, Some(limit)) => Self::At(now + limit),
            (look, _) => look,
        }
    }
}

impl Supervisor {
    /// Does what is due. Gives the time of the next look.
    pub(crate) fn keep_time(&mut self, core: &Core, state: &mut State) -> Option<Instant> {
        let (now, clock) = (Instant::now(), monotonic_ns());
        let mut next: Option<Instant> = None;
        let mut note = |at: Option<Instant>| next = next.into_iter().chain(at).min();
        let mut shortest: Option<Duration> = None;
        for job in state.unfinished() {
            if job.terms.deadline_ns != 0 && job.terms.deadline_ns <= clock {
                state.stop(core, &job, End::TimedOut, DEADLINE_GRACE);
            } else if job.terms.deadline_ns != 0 {
                note(now.checked_add(Duration::from_nanos(job.terms.deadline_ns - clock)));
            }
            if job.terms.element_ns != 0 {
                let limit = Duration::from_nanos(job.terms.element_ns);
                shortest = shortest.into_iter().chain([limit]).min();
            }
        }
        state.begin_rounds(core);
        note(state.next_round_at());
        for index in 0..self.processes.len() {
            match self.look_at(core, state, index, (now, clock), shortest) {
                Look::Never => {}
                Look::At(at) => note(Some(at)),
                Look::Kill(doom) => self.doom(index, doom),
            }
        }
        note(self.look_at_zygote(now));
        next
    }

    fn doom(&mut self, index: usize, doom: Doom) {
        if let Some(process) = &mut self.processes[index]
            && let Some(pidfd) = &process.pidfd
        {
            tracing::debug!(worker = index, pid = process.pid, ?doom, "killing a worker");
            process.doom = Some(doom);
            pidfd.kill();
        }
    }

    fn look_at(
        &mut self,
        core: &Core,
        state: &State,
        index: usize,
        (now, clock): (Instant, u64),
        shortest: Option<Duration>,
    ) -> Look {
        let draining = self.draining;
        let patience = self.patience;
        let Some(process) = &mut self.processes[index] else {
            return Look::Never;
        };
        if process.pidfd.is_none() || process.doom.is_some() {
            return Look::Never;
        }
        let slot = &core.control.slots[index];
        let phase = slot.phase();
        let to_leave = slot.errand.load(Ordering::Relaxed) == RETIRE;
        match phase {
            // All jobs are over: wherever it is, it is to leave.
            _ if draining => {}
            SlotPhase::Starting | SlotPhase::Initializing => {
                let limit = patience
                    .initializer
                    .and_then(|limit| process.watch.born.checked_add(limit));
                let look = limit.map_or(Look::Never, |at| due(at, now, Doom::Setup));
                // It may come to work before that, and to an element with a deadline.
                return look.or_sooner(now, shortest);
            }
            SlotPhase::Leaving => {}
            SlotPhase::Idle if to_leave => {}
            _ => {
                process.watch.leaving = None;
                return look_at_work(core, state, slot, &mut process.watch, (now, clock), shortest);
            }
        }
        let since = *process.watch.leaving.get_or_insert(now);
        due(since + patience.exit, now, Doom::Exit)
    }

    /// A zygote that is silent about what must have happened is hung: it is killed, and everything starts anew.
    fn look_at_zygote(&mut self, now: Instant) -> Option<Instant> {
        let waited = |process: &crate::supervisor::Process| {
            let unborn = process.pidfd.is_none().then_some(process.watch.born);
            process.watch.hung_up.or(unborn)
        };
        let since = self.processes.iter().flatten().filter_map(waited).min()?;
        let at = since + ZYGOTE_SILENCE;
        if at > now {
            return Some(at);
        }
        tracing::warn!("the process that starts workers does not answer; it is replaced");
        self.kill_zygote();
        None
    }
}

fn due(at: Instant, now: Instant, doom: Doom) -> Look {
    if at <= now { Look::Kill(doom) } else { Look::At(at) }
}

fn look_at_work(
    core: &Core,
    state: &State,
    slot: &WorkerSlot,
    watch: &mut Watch,
    (now, clock): (Instant, u64),
    shortest: Option<Duration>,
) -> Look {
    let job = slot.inside().and_then(|key| state.job(key));
    if let Some(job) = &job {
        let stopped = job
            .key()
            .is_some_and(|key| core.control.jobs[key.index as usize].gate.state().phase == JobPhase::Stopped);
        if stopped && let Some(at) = job.inner.lock().kill_at {
            return due(at, now, Doom::Stopped);
        }
        let strip = StripId::of(slot);
        if job.terms.element_ns != 0 && strip.len != 0 {
            let end = strip.started.saturating_add(job.terms.element_ns);
            return match end <= clock {
                true => Look::Kill(Doom::Late(strip)),
                false => Look::At(now + Duration::from_nanos(end - clock)),
            };
        }
    }
    // Nothing in work now. What begins after this moment is due after the shortest deadline at the earliest.
    let Some(shortest) = shortest else {
        return Look::Never;
    };
    let between = match slot.phase() {
        // If everybody were stopped like that, nobody would take what lies there.
        SlotPhase::Idle => slot.errand.load(Ordering::Relaxed) != 0 || !core.control.ring().is_empty(),
        _ => slot.strip_len.load(Ordering::Relaxed) == 0,
    };
    let stuck = watch.still_since(slot, between, now) + shortest + STUCK;
    if between && stuck <= now {
        return Look::Kill(Doom::Stuck);
    }
    Look::At(now + shortest)
}
