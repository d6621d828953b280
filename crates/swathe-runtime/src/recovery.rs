//! After a death: whatever the dead worker held is handed on, and nothing is handed on twice.
//!
//! The cases, and why they are exact, are in the protocol's README. In short: a worker that died while it mowed left its
//! hand and its lane, which say exactly what it held; one that died in the few instructions between taking and writing
//! down makes every open job be rebuilt from its status words.

use std::{ops::Range, sync::Arc, sync::atomic::Ordering};

use swathe_os::process::ExitCause;
use swathe_protocol::{
    ChunkStatus, Hand, JobKey, JobPhase, JobTerms, SlotPhase, Span, WorkerSlot, slot::LAST_WORDS,
};

use crate::{
    collect::{self, Rerun},
    job::{End, Failure, FailureKind},
    state::{Core, JobState, State},
};

/// A worker that is gone, and was reaped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Death {
    pub(crate) worker: usize,
    pub(crate) pid: u32,
    pub(crate) cause: ExitCause,
}

/// What the supervisor has to know of a death besides.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It left of its own accord.
    Left,
    /// It died at work or idle.
    Died,
    /// It never came to work; the text says why, if it could.
    NeverWorked(String),
}

/// Hands on what the dead worker held. Its slot is free afterwards.
pub(crate) fn bury(core: &Core, state: &mut State, death: Death) -> Verdict {
    let slot = &core.control.slots[death.worker];
    let phase = slot.phase();
    tracing::debug!(worker = death.worker, pid = death.pid, cause = %death.cause, ?phase, "worker gone");
    match phase {
        SlotPhase::Working | SlotPhase::Leaving => {
            if let Some(key) = slot.inside() {
                hand_on(core, state, death, key, phase == SlotPhase::Leaving);
            }
        }
        SlotPhase::Popping | SlotPhase::Stealing => {
            slot.leave();
            rebuild_all(core, state);
        }
        SlotPhase::Starting | SlotPhase::Initializing | SlotPhase::Idle => {}
    }
    slot.leave();
    // A wake may have been meant for the dead, or owed by it: everybody looks again.
    core.control.wake_all();
    for job in state.unfinished() {
        let cell = job.key().map(|key| &core.control.jobs[key.index as usize]);
        state.finalize(core, &job);
        if let Some(cell) = cell {
            core.control.wake_waiters(cell);
        }
    }
    core.control.wake_courier_anyway();
    match phase {
        SlotPhase::Leaving => Verdict::Left,
        SlotPhase::Starting | SlotPhase::Initializing => Verdict::NeverWorked(last_words(slot)),
        _ => Verdict::Died,
    }
}

/// The text a dead worker left, if any.
pub(crate) fn last_words(slot: &WorkerSlot) -> String {
    let mut buffer = [0; LAST_WORDS * 8];
    let len = slot.read_last_words(&mut buffer);
    String::from_utf8_lossy(&buffer[..len]).into_owned()
}

/// The exact path: hand and lane say what the worker held.
fn hand_on(core: &Core, state: &mut State, death: Death, key: JobKey, left: bool) {
    let Some(job) = state.job(key) else { return };
    let cell = &core.control.jobs[key.index as usize];
    let seen = cell.gate.state();
    if seen.generation != key.generation || seen.phase != JobPhase::Open {
        return; // Stopped, or about to be rebuilt anyway.
    }
    let lane = core.control.lane(key, death.worker);
    let hand = lane.hand();
    let rest = lane.drain();
    if let Hand::Held(held) = hand {
        let held = Span::new(held.first, held.end.min(job.terms.chunks as u32));
        // Who died with the zygote was killed by its parent-death signal, not by its element.
        let innocent = left || death.cause == ExitCause::Unknown;
        let suspects = if innocent && !is_torn(core, &job, death) {
            None
        } else {
            blame(core, &job, death, held)
        };
        let words = &job.status[held.first as usize..held.end as usize];
        let finals = words
            .iter()
            .filter(|word| word.load() == ChunkStatus::Final)
            .count();
        lane.settle(finals as u32);
        for run in collect::unfinished(words) {
            let run = held.first + run.start..held.first + run.end;
            note_rerun(core, &job, key, run.clone());
            give(core, state, &job, key, seen.epoch, run, suspects.is_some());
        }
    }
    let rest = rest.first..rest.end.min(job.terms.chunks as u32);
    if !rest.is_empty() {
        give(core, state, &job, key, seen.epoch, rest, false);
    }
    if core.control.complete_if_counted(key, cell, seen) {
        core.control.ring_over(cell, job.terms.has(JobTerms::ATTENDED));
    }
}

fn give(
    core: &Core,
    state: &mut State,
    job: &JobState,
    key: JobKey,
    epoch: u32,
    chunks: Range<u32>,
    careful: bool,
) {
    if job.terms.has(JobTerms::PINNED) {
        chunks.for_each(|chunk| state.send_errand(core, key, chunk));
    } else {
        state.push_run(core, key, epoch, chunks, careful);
    }
}

/// Older failure records about the positions of these chunks that are not final are void: those positions are run
/// again.
fn note_rerun(core: &Core, job: &JobState, key: JobKey, chunks: Range<u32>) {
    let newest = core.control.jobs[key.index as usize]
        .failures
        .load(Ordering::Acquire);
    if newest == 0 {
        return;
    }
    let mut again: Vec<Range<u64>> = Vec::new();
    for chunk in chunks {
        let range = job.terms.positions_of(chunk, 1);
        let start = match job.status[chunk as usize].load() {
            ChunkStatus::Final => range.end,
            ChunkStatus::Progress(n) => range.start + u64::from(n),
        };
        match again.last_mut() {
            Some(last) if last.end == start => last.end = range.end,
            _ => again.push(start..range.end),
        }
    }
    let reruns = again.into_iter().map(|positions| Rerun { positions, newest });
    job.inner.lock().reruns.extend(reruns);
}

/// Who was running when the worker died? Gives the suspects if they are to be run again one by one. A position that has
/// cost as many workers as the job allows is lost, and the chunk goes on behind it.
fn blame(core: &Core, job: &JobState, death: Death, held: Span) -> Option<Range<u64>> {
    let slot = &core.control.slots[death.worker];
    let (first, len) = (
        slot.strip_first.load(Ordering::Relaxed),
        slot.strip_len.load(Ordering::Acquire),
    );
    let range = held.positions(&job.terms);
    let strip = first.max(range.start)..first.saturating_add(len).min(range.end);
    // What was published before the death is no suspect any more.
    let strip = published(job, held).max(strip.start)..strip.end;
    if strip.is_empty() {
        return None; // Killed between two strips: nobody's fault.
    }
    let torn = is_torn(core, job, death);
    let whole = job.terms.has(JobTerms::WHOLE_CHUNKS);
    if strip.end - strip.start > 1 && !whole && !torn {
        return Some(strip);
    }
    let mut inner = job.inner.lock();
    let deaths = inner.deaths.entry(strip.start).or_insert(0);
    *deaths += 1;
    let attempts = *deaths;
    if attempts < job.max_deaths && !torn {
        return Some(strip);
    }
    let mut message = last_words(slot);
    if torn {
        message =
            format!("its results were being written over its inputs, so it cannot be run again; {message}");
    }
    inner.lost.push(Failure {
        position: strip.start,
        span: strip.end - strip.start,
        kind: FailureKind::Lost(death.cause),
        message,
        worker: death.worker as u32,
        pid: death.pid,
        attempts,
    });
    drop(inner);
    pass_over(job, held, strip.end);
    None
}

/// Whether the worker died while it wrote results over their inputs.
fn is_torn(core: &Core, job: &JobState, death: Death) -> bool {
    let slot = &core.control.slots[death.worker];
    job.terms.has(JobTerms::IN_PLACE) && slot.writing_back.load(Ordering::Acquire) != 0
}

/// First position of the hand that is not final.
fn published(job: &JobState, held: Span) -> u64 {
    for (chunk, word) in (held.first..).zip(&job.status[held.first as usize..held.end as usize]) {
        let range = job.terms.positions_of(chunk, 1);
        match word.load() {
            ChunkStatus::Final => {}
            ChunkStatus::Progress(n) => return range.start + u64::from(n),
        }
    }
    held.positions(&job.terms).end
}

/// Publishes on behalf of the dead: everything in its hand before `end` is final.
fn pass_over(job: &JobState, held: Span, end: u64) {
    for (chunk, word) in (held.first..).zip(&job.status[held.first as usize..held.end as usize]) {
        let range = job.terms.positions_of(chunk, 1);
        if range.end <= end {
            word.publish_final();
        } else if range.start < end {
            word.publish_progress((end - range.start) as u32);
        }
    }
}

/// The safe path: all claims of all open jobs are void, and are made anew once nobody is inside.
fn rebuild_all(core: &Core, state: &mut State) {
    for job in state.unfinished() {
        let Some(key) = job.key() else { continue };
        let gate = &core.control.jobs[key.index as usize].gate;
        // A worker may complete the job at this very moment: then there is nothing to rebuild.
        if gate.close(gate.state()).is_some() {
            state.rebuilding.push(key);
        }
    }
    rebuild_ready(core, state);
}

/// Makes anew the claims of those closed jobs that nobody is inside of any more.
pub(crate) fn rebuild_ready(core: &Core, state: &mut State) {
    let (ready, waiting): (Vec<_>, Vec<_>) = state
        .rebuilding
        .iter()
        .partition(|key| !core.control.anyone_inside(**key));
    state.rebuilding = waiting;
    for key in ready {
        if let Some(job) = state.job(key).filter(|job| !job.is_over()) {
            rebuild(core, state, &job, key);
        }
    }
}

fn rebuild(core: &Core, state: &mut State, job: &Arc<JobState>, key: JobKey) {
    let cell = &core.control.jobs[key.index as usize];
    let seen = cell.gate.state();
    let runs = collect::unfinished(&job.status);
    core.control
        .lanes(key)
        .iter()
        .for_each(swathe_protocol::Lane::reset);
    cell.target.store(
        runs.iter().map(|run| u64::from(run.end - run.start)).sum(),
        Ordering::Relaxed,
    );
    for run in &runs {
        note_rerun(core, job, key, run.clone());
    }
    let opened = swathe_protocol::GateState {
        phase: JobPhase::Open,
        ..seen
    };
    cell.gate.set(opened);
    for run in runs {
        give(core, state, job, key, seen.epoch, run, false);
    }
    if core.control.complete_if_counted(key, cell, opened) {
        core.control.ring_over(cell, job.terms.has(JobTerms::ATTENDED));
        state.finalize(core, job);
    }
    core.control.wake_all();
    if job.terms.has(JobTerms::FAIL_FAST) && cell.failures.load(Ordering::Acquire) != 0 {
        state.stop(core, job, End::FailedFast);
    }
}
