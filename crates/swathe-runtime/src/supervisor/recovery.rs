//! After a death: whatever the dead worker held is handed on, and nothing is handed on twice.
//!
//! The cases, and why they are exact, are in the protocol's README. In short: a worker that died while it worked left its
//! hand and its lane, which say exactly what it held; one that died in the few instructions between taking and writing
//! down makes every open job be rebuilt from its status words.

use std::{
    ops::Range,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use swathe_os::process::{ExitCause, monotonic_ns};
use swathe_protocol::{
    ChunkStatus, Claims, Closed, Epoch, HandOn, JobKey, JobPhase, JobTerms, Left, PanickedAt, Rebuild,
    SlotPhase, Span, Strip, WorkerSlot, slot::LAST_WORDS, status,
};

use crate::{
    job::{End, Failure, FailureKind},
    parent::{
        core::Core,
        failures::Rerun,
        job::{JobEntry, Stage},
        jobs::{STOP_GRACE, State},
        retry::Round,
    },
    shared::{control::System, picks::Pick},
    supervisor::clock::KillReason,
};

/// A worker that is gone, and was reaped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Death {
    pub(crate) worker: usize,
    pub(crate) pid: u32,
    pub(crate) cause: ExitCause,
    /// The most memory that it ever had resident, bytes.
    pub(crate) peak_memory: Option<u64>,
    /// Why the supervisor killed it, if it did.
    pub(crate) kill_reason: Option<KillReason>,
    /// Private memory that it was allowed, bytes.
    pub(crate) max_memory: Option<u64>,
}

impl Death {
    /// Whether its element cannot be blamed: the worker was killed for another reason, or with the zygote, by its
    /// parent-death signal.
    fn is_innocent(&self) -> bool {
        self.cause == ExitCause::Unknown
            || self
                .kill_reason
                .is_some_and(|kill_reason| !kill_reason.is_own_fault())
    }
}

/// What the supervisor has to know of a death besides.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum DeathKind {
    /// It left of its own accord.
    Left,
    /// It died at work or idle.
    Died,
    /// A task panicked, and that ended it.
    Panicked,
    /// It never came to work; the text says why, if it could.
    NeverWorked(String),
}

/// What it had of the memory of a job goes to the next who asks for some.
fn keep_unused(core: &Core, state: &State, slot: &WorkerSlot) {
    let left = slot.unused.take();
    let place = core.control.job(left.job).zip(state.job(left.job));
    if let Some((cell, job)) = place.filter(|(_, job)| !job.is_over()) {
        job.keep_unused(left, cell.gate.state().epoch);
    }
}

/// Hands on what the dead worker held. Its slot is free afterwards.
pub(crate) fn recover(core: &Core, state: &mut State, death: Death) -> DeathKind {
    let parent = core.control.parent();
    let slot = &core.control.slots[death.worker];
    let dead = parent.reaped(death.worker);
    let phase = dead.phase();
    if phase != SlotPhase::Leaving {
        core.stock.renounce();
    }
    tracing::debug!(worker = death.worker, pid = death.pid, cause = %death.cause, ?phase, "worker gone");
    let panicked = phase == SlotPhase::Working
        && slot.strip_len.load(Ordering::Acquire) != 0
        && slot.panicked().is_some();
    match dead.left() {
        Left::Claims(claims) => hand_on(core, state, death, claims, phase == SlotPhase::Leaving),
        Left::Unwritten => rebuild_all(core, state),
        Left::Nothing => {}
    }
    keep_unused(core, state, slot);
    dead.vacate();
    for job in state.unfinished() {
        job.key()
            .into_iter()
            .for_each(|key| parent.make_up_for_the_dead(key));
        state.finalize(core, &job);
    }
    match phase {
        SlotPhase::Leaving => DeathKind::Left,
        SlotPhase::Starting | SlotPhase::Initializing => DeathKind::NeverWorked(last_words(slot)),
        _ if panicked => DeathKind::Panicked,
        _ => DeathKind::Died,
    }
}

/// The text a dead worker left, if any.
pub(crate) fn last_words(slot: &WorkerSlot) -> String {
    let mut buffer = [0; LAST_WORDS * 8];
    let len = slot.read_last_words(&mut buffer);
    String::from_utf8_lossy(&buffer[..len]).into_owned()
}

/// The exact path: hand and lane say what the worker held.
fn hand_on(core: &Core, state: &mut State, death: Death, claims: Claims<'_, System>, left: bool) {
    let key = claims.key();
    let Some(job) = state.job(key) else { return };
    let round = job.round();
    let (chunks, tag) = (round.terms.chunks as u32, round.terms.tag());
    note_loss(&job, slot_of(core, death), left);
    if let Some(held) = claims.held(chunks) {
        finish_copy(core, &job, &round, death, held);
    }
    let taken = match claims.hand_on(chunks) {
        HandOn::Void => return,
        HandOn::Rebuild => return state.turn_to(key, Stage::Rebuilding),
        HandOn::Taken(taken) => taken,
    };
    let suspects = match taken.held() {
        Some(held) if !left => blame(core, &job, &round, death, held),
        _ => None,
    };
    let (begun, rest) = taken.settle(round.status(), tag);
    let epoch = taken.epoch();
    for run in begun {
        note_rerun(core, &job, &round, key, run.first..run.end);
        give(core, state, &epoch, &round, run, suspects.is_some());
    }
    if let Some(rest) = rest {
        give(core, state, &epoch, &round, rest, false);
    }
    epoch.complete_if_counted(job.terms.has(JobTerms::ATTENDED));
    if round.terms.has(JobTerms::FAIL_FAST) && !job.inner.lock().lost.is_empty() {
        state.stop(core, &job, End::FailedFast, STOP_GRACE);
    }
}

fn slot_of(core: &Core, death: Death) -> (&WorkerSlot, usize) {
    (&core.control.slots[death.worker], death.worker)
}

/// For the job's report: a worker died in it, and within a strip, whose time is lost.
fn note_loss(job: &JobEntry, (slot, worker): (&WorkerSlot, usize), left: bool) {
    if !left {
        job.inner.lock().workers_lost += 1;
    }
    let strip = slot.strip();
    if strip.is_in_work() {
        let tally = &job.scratch.tallies[worker];
        tally.open(job.terms.serial);
        tally.cut_short(monotonic_ns().saturating_sub(strip.started));
    }
}

/// Has chunks claimed anew.
fn give(
    core: &Core,
    state: &mut State,
    epoch: &Epoch<'_, System>,
    round: &Round,
    chunks: Span,
    careful: bool,
) {
    if round.terms.has(JobTerms::PINNED) {
        (chunks.first..chunks.end).for_each(|chunk| state.give_order(core, epoch, round, chunk));
    } else {
        state.push_run(core, epoch.run(chunks, careful));
    }
}

/// Older failure records about the positions of these chunks that are not final are void: those positions are run
/// again.
fn note_rerun(core: &Core, job: &JobEntry, round: &Round, key: JobKey, chunks: Range<u32>) {
    let newest = core.control.jobs[key.index as usize]
        .failures
        .load(Ordering::Acquire);
    if newest == 0 && !job.terms.has(JobTerms::DURABLE) {
        return;
    }
    let mut again: Vec<Range<u64>> = Vec::new();
    for chunk in chunks {
        let numbers = round.numbers(Span::new(chunk, chunk + 1));
        let open = match round.chunk(chunk) {
            ChunkStatus::Final => continue,
            ChunkStatus::Progress(n) => numbers.start + u64::from(n)..numbers.end,
        };
        let positions = round.positions(open);
        let end = positions.first + positions.len;
        job.unmark_failed(positions.first..end);
        match again.last_mut() {
            Some(last) if last.end == positions.first => last.end = end,
            _ => again.push(positions.first..end),
        }
    }
    let reruns = again.into_iter().map(|positions| Rerun { positions, newest });
    job.inner.lock().reruns.extend(reruns);
}

/// What the dead worker had settled of an in-place strip, and not published, is published; a copy over inputs that it
/// had begun is made once more.
fn finish_copy(core: &Core, job: &JobEntry, round: &Round, death: Death, held: Span) {
    let slot = &core.control.slots[death.worker];
    let Some(region) = job.in_place else { return };
    if slot.strip_len.load(Ordering::Acquire) == 0 {
        return; // No strip: everything is published.
    }
    let mut settled = slot.settled.load(Ordering::Acquire);
    if let Some(copy) = slot.copy.armed() {
        match region.copy_into(core, job, copy) {
            Ok(()) => settled = settled.max(copy.end),
            Err(why) => tracing::error!(
                worker = death.worker,
                why,
                "a copy of a dead worker makes no sense"
            ),
        }
    }
    pass_over(round, held, settled);
}

/// Who was running when the worker died? Gives the suspects if they are to be run again one by one. A position that has
/// cost as many workers as the job allows is lost, one that took too long has failed, and the chunk goes on behind it.
fn blame(core: &Core, job: &JobEntry, round: &Round, death: Death, held: Span) -> Option<Range<u64>> {
    let slot = &core.control.slots[death.worker];
    let announced = slot.strip();
    let range = round.numbers(held);
    let strip = announced.first..announced.first.saturating_add(announced.len);
    // What was published before the death is no suspect any more.
    let strip = published(round, held).max(strip.start).max(range.start)..strip.end.min(range.end);
    if strip.is_empty() || !announced.is_in_work() {
        return None; // Killed between two strips: nobody's fault.
    }
    if let Some(at) = slot.panicked() {
        return blame_panic((core, job, round), death, held, strip, announced, at);
    }
    let late = matches!(death.kill_reason, Some(KillReason::Late(strip)) if strip == announced);
    if death.is_innocent() && !late {
        return None;
    }
    let whole = round.terms.has(JobTerms::WHOLE_CHUNKS);
    if strip.end - strip.start > 1 && !whole {
        return Some(strip);
    }
    let positions = round.positions(strip.clone());
    let mut inner = job.inner.lock();
    let deaths = inner.deaths.entry(positions.first).or_insert(0);
    let tries = round.terms.attempt as u32;
    let (kind, attempts) = if late {
        (FailureKind::TimedOut, tries + *deaths)
    } else {
        *deaths += 1;
        round.note_death(positions.first, *deaths);
        (FailureKind::Lost(death.cause), *deaths + (tries - 1))
    };
    if !late && *deaths < job.max_deaths {
        return Some(strip);
    }
    drop(inner);
    let message = match late {
        true => format!(
            "it took longer than {:?}, and its worker was killed",
            Duration::from_nanos(round.terms.element_ns)
        ),
        false => what_is_said_of(slot, death),
    };
    give_up(job, death, (kind, message, attempts), positions);
    pass_over(round, held, strip.end);
    None
}

/// A panic has ended the worker. If it is known in which element, that one has panicked, as where panics unwind, and those
/// before it are done; otherwise all of the strip is run again one by one. Nobody counts such a death.
fn blame_panic(
    (core, job, round): (&Core, &JobEntry, &Round),
    death: Death,
    held: Span,
    strip: Range<u64>,
    announced: Strip,
    at: PanickedAt,
) -> Option<Range<u64>> {
    let single = strip.end - strip.start == 1 || round.terms.has(JobTerms::WHOLE_CHUNKS);
    let culprit = match at {
        _ if single => strip.clone(),
        // What a strip in place has done is not copied before its end.
        PanickedAt::Element(within) if job.in_place.is_none() => {
            let number = announced.first.saturating_add(within);
            number..number.saturating_add(1)
        }
        _ => return Some(strip),
    };
    if !strip.contains(&culprit.start) {
        return Some(strip); // Its words make no sense.
    }
    let end = culprit.end;
    let positions = round.positions(culprit);
    let deaths = job.inner.lock().deaths.get(&positions.first).copied();
    let attempts = round.terms.attempt as u32 + deaths.unwrap_or(0);
    let text = last_words(&core.control.slots[death.worker]);
    give_up(job, death, (FailureKind::Panic, text, attempts), positions);
    pass_over(round, held, end);
    None
}

/// These positions have failed: how, why, after how many attempts.
fn give_up(
    job: &JobEntry,
    death: Death,
    (kind, message, attempts): (FailureKind, String, u32),
    positions: Pick,
) {
    job.mark_failed(positions.first..positions.first + positions.len);
    job.inner.lock().lost.push(Failure {
        position: positions.first,
        span: positions.len,
        kind,
        message: message.into(),
        worker: death.worker as u32,
        pid: death.pid,
        attempts,
        peak_memory: death.peak_memory,
    });
}

/// What there is to say of a death besides its cause.
fn what_is_said_of(slot: &WorkerSlot, death: Death) -> String {
    const MIB: u64 = 1 << 20;
    let words = match death.kill_reason {
        Some(KillReason::Exec) => "its task has turned it into another program (exec)".to_owned(),
        _ => last_words(slot),
    };
    let Some(limit) = death.max_memory else {
        return words;
    };
    let peak = match death.peak_memory {
        Some(peak) => format!(", and had {} MiB resident at its peak", peak / MIB),
        None => String::new(),
    };
    let limit = format!("it was allowed {} MiB of private memory{peak}", limit / MIB);
    if words.is_empty() {
        limit
    } else {
        format!("{words}; {limit}")
    }
}

/// The first number of the hand that is not final.
fn published(round: &Round, held: Span) -> u64 {
    for chunk in held.first..held.end {
        match round.chunk(chunk) {
            ChunkStatus::Final => {}
            ChunkStatus::Progress(n) => {
                return round.numbers(Span::new(chunk, chunk + 1)).start + u64::from(n);
            }
        }
    }
    round.numbers(held).end
}

/// Publishes on behalf of the dead: everything in its hand before `end` is final.
fn pass_over(round: &Round, held: Span, end: u64) {
    let tag = round.terms.tag();
    for (chunk, word) in (held.first..).zip(&round.status()[held.first as usize..held.end as usize]) {
        let numbers = round.numbers(Span::new(chunk, chunk + 1));
        let ChunkStatus::Progress(begun) = word.load(tag) else {
            continue;
        };
        if numbers.end <= end {
            word.publish_final(tag);
        } else if numbers.start + u64::from(begun) < end {
            word.publish_progress(tag, (end - numbers.start) as u32);
        }
    }
}

/// The safe path: all claims of all open jobs are void, and are made anew once nobody is inside.
fn rebuild_all(core: &Core, state: &mut State) {
    let parent = core.control.parent();
    let open = state.unfinished().into_iter().filter_map(|job| job.key());
    for key in open.filter(|key| parent.close(*key)) {
        state.turn_to(key, Stage::Rebuilding);
    }
    // With many open jobs, workers that die claiming what is void would add more than they take.
    state.overflow.clear();
    if parent.clear_ring() {
        tracing::error!("the ends of the ring were overwritten; all claims are made anew");
    }
    rebuild_ready(core, state);
}

/// Makes anew the claims of those closed jobs that nobody is inside of any more.
pub(crate) fn rebuild_ready(core: &Core, state: &mut State) {
    if core.control.ring().is_damaged() {
        return rebuild_all(core, state);
    }
    for (key, job) in state.of_stage(|stage| matches!(stage, Stage::Rebuilding)) {
        match core.control.parent().rebuild(key) {
            Rebuild::Void => state.resume(key),
            Rebuild::NotYet => {}
            Rebuild::Ready(closed) => {
                state.resume(key);
                rebuild(core, state, &job, key, closed);
            }
        }
    }
}

/// Looks whether a job that does not end can do so. If nobody holds anything of it, and nothing of it waits to be taken,
/// what is left of it is written down nowhere: somebody wrote where it should not. It is rebuilt.
pub(crate) fn look_for_strays(core: &Core, state: &mut State, job: &JobEntry) {
    let Some(key) = job.key().filter(|_| !job.is_over()) else {
        return;
    };
    if core.control.ring().is_damaged() {
        return core.event.raise();
    }
    let seen = core.control.jobs[key.index as usize].gate.state();
    let stray = match seen.phase {
        _ if seen.generation != key.generation || state.is_rebuilding(key) => false,
        JobPhase::Closed => true,
        JobPhase::Open => state.overflow.is_empty() && core.control.parent().close_stray(key),
        _ => false,
    };
    if stray {
        tracing::error!(
            ?seen,
            "nobody has what is left of a job; it is rebuilt from what is final"
        );
        state.turn_to(key, Stage::Rebuilding);
        core.event.raise();
    }
}

fn rebuild(core: &Core, state: &mut State, job: &Arc<JobEntry>, key: JobKey, closed: Closed<'_, System>) {
    let round = job.round();
    let runs = status::unfinished(round.status(), round.terms.tag());
    for run in &runs {
        note_rerun(core, job, &round, key, run.clone());
    }
    let Some(epoch) = closed.reopen(runs.iter().map(|run| run.end - run.start).sum()) else {
        return; // Stopped meanwhile.
    };
    for run in runs {
        give(core, state, &epoch, &round, Span::new(run.start, run.end), false);
    }
    if epoch.complete_if_counted(job.terms.has(JobTerms::ATTENDED)) {
        state.finalize(core, job);
    }
    core.control.wake_all();
    let failed = core.control.jobs[key.index as usize]
        .failures
        .load(Ordering::Acquire)
        != 0;
    if round.terms.has(JobTerms::FAIL_FAST) && failed {
        state.stop(core, job, End::FailedFast, STOP_GRACE);
    }
}
