//! What the supervisor does by the clock: deadlines of elements and jobs, workers that do not come to an end, rounds of
//! retries. It reads the workers' slots; they make no system call for it.
//!
//! Time in which the supervisor itself did not run counts for nobody: a group that was stopped and goes on (Ctrl-Z, a
//! batch system that suspends, a frozen container, a laptop's lid) is not late. The deadline of a whole call goes on counting.

use std::{
    collections::VecDeque,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use swathe_os::process::{self, monotonic_ns};
use swathe_protocol::{JobPhase, Order, SlotPhase, Strip, WorkerSlot};

use crate::{
    job::End,
    parent::{core::Core, jobs::State},
    shared::messages::{Message, MessageKind},
    supervisor::{Course, Supervisor},
};

/// How long those that are at work may go on when their job's time is over: enough for the end of a strip.
const DEADLINE_GRACE: Duration = Duration::from_millis(3);
/// How long a worker may be between two strips of a job whose elements have deadlines, beyond such a deadline.
const STUCK: Duration = Duration::from_secs(1);
/// How long the zygote may take to report a worker that has ended, or to start one, before it is asked whether it answers.
const ZYGOTE_QUESTION: Duration = Duration::from_secs(1);
/// How long it may take to answer that.
const ZYGOTE_SILENCE: Duration = Duration::from_secs(4);
/// How often a worker whose line is closed is looked at: it may have become another program.
const LOOK_AT_PROGRAM: Duration = Duration::from_secs(1);
/// How long the end of a worker may take to be heard of after its line was closed.
const HEARD_OF: Duration = Duration::from_millis(20);
/// The longest sleep while anything is timed: so exactly is known how long the whole group was stopped.
const TICK: Duration = Duration::from_millis(100);

/// Why the supervisor killed a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KillReason {
    /// This strip took longer than an element may.
    Late(Strip),
    /// It stood still between two strips.
    Stuck,
    /// Its job was stopped, and it did not leave.
    Stopped,
    /// Its initializer took too long.
    Setup,
    /// It was to leave, and did not come to an end.
    Exit,
    /// Its task has turned it into another program.
    Exec,
}

impl KillReason {
    /// Whether it died of what its task did, and not of what the pool wanted.
    pub(crate) fn is_own_fault(self) -> bool {
        self == Self::Exec
    }
}

/// Pauses in which the supervisor did not run.
#[derive(Debug)]
pub(crate) struct Pauses {
    looked: Instant,
    /// The processor time that this thread had had by then, or some short turns before.
    had: Duration,
    /// How many turns ago.
    turns: u32,
    /// When each ended, nanoseconds of the monotonic clock, and what was granted for it.
    list: VecDeque<(u64, Duration)>,
}

impl Pauses {
    /// More than this late is a pause.
    const LATE: Duration = Duration::from_millis(50);
    const KEPT: usize = 64;
    /// Asking for the processor time costs a system call. So many short turns take far less of it than what counts as late.
    const SHORT_TURNS: u32 = 64;

    pub(crate) fn new() -> Self {
        Self {
            looked: Instant::now(),
            had: process::thread_time(),
            turns: 0,
            list: VecDeque::new(),
        }
    }

    /// After a wait that was to take `meant` at most, `None` for as long as it likes. Gives what everybody is to be granted,
    /// if that is anything.
    fn pass_wait(&mut self, meant: Option<Duration>) -> Option<Duration> {
        let passed = self.pass();
        self.grant(late_by(passed, meant?)?)
    }

    /// After work. What this thread has not spent on a processor it has stood still, or waited for something that is as short
    /// for everybody.
    fn pass_work(&mut self) -> Option<Duration> {
        let passed = self.pass();
        self.turns += 1;
        if passed <= Self::LATE && self.turns < Self::SHORT_TURNS {
            return None;
        }
        let had = process::thread_time();
        let worked = had.saturating_sub(std::mem::replace(&mut self.had, had));
        self.turns = 0;
        self.grant(Some(passed.saturating_sub(worked)).filter(|stood| *stood > Self::LATE)?)
    }

    fn pass(&mut self) -> Duration {
        let now = Instant::now();
        now.duration_since(std::mem::replace(&mut self.looked, now))
    }

    fn grant(&mut self, lost: Duration) -> Option<Duration> {
        if self.list.len() == Self::KEPT {
            self.list.pop_front();
        }
        self.list.push_back((monotonic_ns(), lost));
        Some(lost)
    }

    /// What is granted to somebody who began then.
    fn since(&self, began: u64) -> Duration {
        let pauses = self.list.iter().rev().take_while(|(end, _)| *end > began);
        pauses.map(|(_, lost)| *lost).sum()
    }
}

/// A little late is late by the difference. Much later than was meant means that the whole group stood still, for as long
/// as that: when it began is not known.
fn late_by(passed: Duration, meant: Duration) -> Option<Duration> {
    let late = passed.checked_sub(meant).filter(|late| *late > Pauses::LATE)?;
    Some(if late > meant { passed } else { late })
}

/// What the clock has seen of a process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watch {
    /// When it was ordered.
    pub(crate) started: Instant,
    /// When its line was found closed.
    pub(crate) hung_up: Option<Instant>,
    /// Since when it is to leave and has not.
    leaving: Option<Instant>,
    /// What it did when it was last looked at, and since when it does.
    still: ([u64; 6], Instant),
    /// When it is to be looked at whether it still is the pool's program.
    program: Option<Instant>,
}

impl Watch {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self {
            started: now,
            hung_up: None,
            leaving: None,
            still: ([u64::MAX; 6], now),
            program: None,
        }
    }

    /// Time in which nobody watched does not count.
    pub(crate) fn grant(&mut self, lost: Duration) {
        let times = [
            Some(&mut self.started),
            self.hung_up.as_mut(),
            self.leaving.as_mut(),
        ];
        for at in times.into_iter().flatten() {
            *at += lost;
        }
        self.still.1 += lost;
    }

    /// Whether it is time to look what program a worker with a closed line runs. `None`: its line is not closed.
    fn looks_at_program(&mut self, now: Instant) -> Option<bool> {
        // A line is closed by its worker's end as well, which is heard of at once.
        let at = self.program.get_or_insert(self.hung_up? + HEARD_OF);
        let due = *at <= now;
        if due {
            *at = now + LOOK_AT_PROGRAM;
        }
        Some(due)
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
    Kill(KillReason),
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
    /// Before the supervisor waits.
    pub(crate) fn pass_work(&mut self) {
        if let Some(lost) = self.pauses.pass_work() {
            self.grant(&mut self.core.clone().state.lock(), lost);
        }
    }

    /// After it has waited, at most as long as was `meant`.
    pub(crate) fn pass_wait(&mut self, meant: Option<Duration>) {
        if let Some(lost) = self.pauses.pass_wait(meant) {
            self.grant(&mut self.core.clone().state.lock(), lost);
        }
    }

    /// Time in which this thread did not run, though it meant to, is granted to everybody whom it watches over.
    fn grant(&mut self, state: &mut State, lost: Duration) {
        tracing::debug!(
            ?lost,
            "the supervisor did not run, and grants everybody that time"
        );
        for process in self.processes.iter_mut().flatten() {
            process.watch.grant(lost);
        }
        if let Some(zygote) = &mut self.zygote {
            zygote.grant(lost);
        }
        let stopping = match &mut self.course {
            Course::Stopping { since, .. } => Some(since),
            Course::Staffing | Course::Draining => None,
        };
        for at in stopping.into_iter().chain(&mut self.orphanage) {
            *at += lost;
        }
        if let Some((since, _)) = &mut self.nobody {
            *since += lost;
        }
        state.grant(lost);
    }

    /// Does what is due. Gives the time of the next look.
    pub(crate) fn keep_time(&mut self, core: &Core, state: &mut State) -> Option<Instant> {
        // If the whole group was stopped just before this, nobody is late.
        if let Some(lost) = self.pauses.pass_work() {
            self.grant(state, lost);
        }
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
                Look::Kill(kill_reason) => self.kill_reason(index, kill_reason),
            }
            note(self.look_at_program(index, now));
        }
        note(self.look_at_zygote(now));
        note(self.next_start());
        next.map(|at| at.min(now + TICK))
    }

    /// A worker whose line is closed may have become another program. If it has, nobody will ever hear of its element.
    fn look_at_program(&mut self, index: usize, now: Instant) -> Option<Instant> {
        let process = self.processes[index].as_mut()?;
        if process.kill_reason.is_some() || process.is_unborn() {
            return None;
        }
        if !process.watch.looks_at_program(now)? {
            return process.watch.program;
        }
        if process::maps_memory_file(process.pid, crate::shared::control::NAME) == Some(false) {
            self.kill_reason(index, KillReason::Exec);
            return None;
        }
        process.watch.program
    }

    fn kill_reason(&mut self, index: usize, kill_reason: KillReason) {
        if let Some(process) = &mut self.processes[index] {
            tracing::debug!(
                worker = index,
                pid = process.pid,
                ?kill_reason,
                "killing a worker"
            );
            process.kill_reason = Some(kill_reason);
            self.kill(index);
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
        let draining = self.course == Course::Draining;
        let patience = self.patience;
        let Some(process) = &mut self.processes[index] else {
            return Look::Never;
        };
        if process.is_unborn() || process.kill_reason.is_some() {
            return Look::Never;
        }
        let slot = &core.control.slots[index];
        let phase = slot.phase();
        let to_leave = slot.order.read() == Order::Retire;
        match phase {
            // All jobs are over: wherever it is, it is to leave.
            _ if draining => {}
            SlotPhase::Starting | SlotPhase::Initializing => {
                let limit = patience
                    .initializer
                    .and_then(|limit| process.watch.started.checked_add(limit));
                let look = limit.map_or(Look::Never, |at| due(at, now, KillReason::Setup));
                // It may come to work before that, and to an element with a deadline.
                return look.or_sooner(now, shortest);
            }
            SlotPhase::Leaving => {}
            SlotPhase::Idle if to_leave => {}
            _ => {
                process.watch.leaving = None;
                let clock = (now, clock, &self.pauses);
                return look_at_work(core, state, slot, &mut process.watch, clock, shortest);
            }
        }
        let since = *process.watch.leaving.get_or_insert(now);
        due(since + patience.exit, now, KillReason::Exit)
    }

    /// A zygote that is silent about what must have happened is asked whether it answers. If it does not it is hung: it is
    /// killed, and everything starts anew.
    fn look_at_zygote(&mut self, now: Instant) -> Option<Instant> {
        let waited = |process: &crate::supervisor::Process| {
            let unborn = process.is_unborn().then_some(process.watch.started);
            let unreported = process.watch.hung_up.filter(|_| process.is_gone());
            unborn.or(unreported)
        };
        let start = self.limits.start;
        let zygote = self.zygote.as_mut()?;
        let (since, patience) = match (zygote.ready, zygote.asked) {
            (false, _) => (zygote.started, start),
            (true, Some(asked)) => (asked, ZYGOTE_SILENCE),
            (true, None) => (
                self.processes.iter().flatten().filter_map(waited).min()?,
                ZYGOTE_QUESTION,
            ),
        };
        let at = since + patience;
        if at > now {
            return Some(at);
        }
        if zygote.ready && zygote.asked.is_none() {
            let _ = Message::new(MessageKind::Ping, &[]).try_send(&zygote.socket, &[]);
            zygote.asked = Some(now);
            return Some(now + ZYGOTE_SILENCE);
        }
        tracing::warn!("the process that starts workers does not answer; it is replaced");
        self.kill_zygote();
        None
    }
}

fn due(at: Instant, now: Instant, kill_reason: KillReason) -> Look {
    if at <= now {
        Look::Kill(kill_reason)
    } else {
        Look::At(at)
    }
}

fn look_at_work(
    core: &Core,
    state: &State,
    slot: &WorkerSlot,
    watch: &mut Watch,
    (now, clock, pauses): (Instant, u64, &Pauses),
    shortest: Option<Duration>,
) -> Look {
    let job = slot.inside().and_then(|key| state.job(key));
    if let Some(job) = &job {
        let stopped = job
            .key()
            .is_some_and(|key| core.control.jobs[key.index as usize].gate.state().phase == JobPhase::Stopped);
        if stopped && let Some(at) = job.inner.lock().kill_at {
            return due(at, now, KillReason::Stopped);
        }
        let strip = slot.strip();
        if job.terms.element_ns != 0 && strip.is_in_work() {
            let granted = pauses.since(strip.started).as_nanos() as u64;
            let end = strip
                .started
                .saturating_add(job.terms.element_ns)
                .saturating_add(granted);
            return match end <= clock {
                true => Look::Kill(KillReason::Late(strip)),
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
        SlotPhase::Idle => slot.order.read() != Order::None || !core.control.ring().is_empty(),
        _ => !slot.strip().is_in_work(),
    };
    let stuck = watch.still_since(slot, between, now) + shortest + STUCK;
    if between && stuck <= now {
        return Look::Kill(KillReason::Stuck);
    }
    Look::At(now + shortest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_while_it_works_is_granted() {
        let mut pauses = Pauses::new();
        let began = monotonic_ns();
        std::thread::sleep(2 * Pauses::LATE);
        let lost = pauses.pass_work().expect("it did not run");
        assert!(lost > Pauses::LATE);
        assert_eq!(pauses.since(began), lost);
        assert_eq!(pauses.since(monotonic_ns()), Duration::ZERO);
    }

    #[test]
    fn a_stop_is_granted_whole_and_a_delay_by_the_difference() {
        let ms = Duration::from_millis;
        // On time, or hardly late.
        assert_eq!(late_by(ms(100), ms(100)), None);
        assert_eq!(late_by(ms(140), ms(100)), None);
        assert_eq!(late_by(ms(3), ms(100)), None);
        // A machine that is busy.
        assert_eq!(late_by(ms(160), ms(100)), Some(ms(60)));
        // A group that was stopped.
        assert_eq!(late_by(ms(4100), ms(100)), Some(ms(4100)));
    }
}
