//! The moves of the supervisor after a death: it looks what the dead worker may have left, hands that on, or has the claims of
//! all open jobs made anew from their status words.
//!
//! The worker was reaped: everything that it wrote is visible, and it writes no more. They are made under the parent's lock.

use core::ops::Range;

use crate::{
    job::{GateState, JobCell, JobKey, JobPhase},
    lane::{Hand, Lane, Span},
    order::Order,
    parent::{Epoch, Parent},
    slot::{SlotPhase, WorkerSlot},
    status::{self, StatusWord, Tag},
    sync::Ordering,
    words::{Outside, Words},
};

/// A worker that was reaped, and whose slot still says what it was about.
#[must_use = "what a dead worker held is lost until it is handed on, and its slot is nobody's until it is vacated"]
#[derive(Debug)]
pub struct Reaped<'a, O> {
    parent: Parent<'a, O>,
    worker: usize,
    phase: SlotPhase,
}

/// What a dead worker may have left.
#[derive(Debug)]
pub enum Left<'a, O> {
    /// Nothing that others do not see.
    Nothing,
    /// A hand and a lane.
    Claims(Claims<'a, O>),
    /// A run, or half a lane, that is written down nowhere: every open job is to be [closed](Parent::close), and rebuilt.
    Unwritten,
}

/// What a dead worker held of a job.
#[must_use = "nobody else will run these chunks"]
#[derive(Debug)]
pub struct Claims<'a, O> {
    parent: Parent<'a, O>,
    key: JobKey,
    cell: &'a JobCell,
    lane: &'a Lane,
    seen: GateState,
    held: Option<Span>,
}

/// What becomes of what a dead worker held.
#[derive(Debug)]
pub enum HandOn<'a, O> {
    /// Nothing: the job is over, stopped, or about to be rebuilt anyway.
    Void,
    /// Its words say what cannot be: the job was closed, and is to be rebuilt.
    Rebuild,
    /// It is to be claimed anew.
    Taken(Taken<'a, O>),
}

/// What was taken from a dead worker's hand and lane.
#[must_use = "nobody else will run these chunks"]
#[derive(Debug)]
pub struct Taken<'a, O> {
    epoch: Epoch<'a, O>,
    cell: &'a JobCell,
    lane: &'a Lane,
    held: Option<Span>,
    rest: Span,
}

/// Whether the claims of a job can be made anew.
#[derive(Debug)]
pub enum Rebuild<'a, O> {
    /// The job is not closed any more: it was stopped.
    Void,
    /// Somebody is inside. A living worker leaves by itself; after a dead one comes a recovery.
    NotYet,
    /// They can.
    Ready(Closed<'a, O>),
}

/// A closed job that nobody is inside of: no claim of it is worth anything.
#[must_use = "a job that is closed makes no progress"]
#[derive(Debug)]
pub struct Closed<'a, O> {
    parent: Parent<'a, O>,
    key: JobKey,
    cell: &'a JobCell,
    seen: GateState,
}

impl<'a, O: Outside> Parent<'a, O> {
    /// A worker that has ended and was reaped, and never one before.
    pub fn reaped(self, worker: usize) -> Reaped<'a, O> {
        let phase = self.words.slots[worker].phase();
        Reaped {
            parent: self,
            worker,
            phase,
        }
    }

    /// Closes a job for a rebuild. `false`: it is not open, so there is nothing to rebuild; a worker may complete it at this
    /// very moment.
    pub fn close(self, key: JobKey) -> bool {
        let Some(cell) = self.words.cell(key) else {
            return false;
        };
        let seen = cell.gate.state();
        seen.generation == key.generation && cell.gate.close(seen).is_some()
    }

    /// Does not believe a gate that says that its job is over: it is closed, for a rebuild. `false`: it says something else by
    /// now.
    pub fn recall(self, key: JobKey, seen: GateState) -> bool {
        let cell = self.words.cell(key);
        cell.is_some_and(|cell| cell.gate.recall(seen).is_some())
    }

    /// Closes a job of which nobody holds anything, and nothing waits to be taken: what is left of it is written down nowhere.
    pub fn close_stray(self, key: JobKey) -> bool {
        let Some(cell) = self.words.cell(key) else {
            return false;
        };
        let seen = cell.gate.state();
        // Twice, because an onlooker may miss a theft that is under way.
        (0..2).all(|_| self.nothing_waits(key, seen.epoch) && !self.words.anyone_at(key))
            && seen.phase == JobPhase::Open
            && cell.gate.close(seen).is_some()
    }

    /// Whether nothing of a job lies where a worker will find it.
    fn nothing_waits(self, job: JobKey, epoch: u32) -> bool {
        let order = Order::Run { job, epoch };
        let mut slots = self.words.slots.iter();
        self.words.ring.is_empty() && slots.all(|slot| slot.order.read() != order)
    }

    /// Clears the ring: the gates of all jobs are closed, so all that is there is void. Left to the workers, each run would
    /// cost a claim, and lie in the way of the new ones. `true`: the ends of the ring had been overwritten.
    pub fn clear_ring(self) -> bool {
        self.words.ring.clear()
    }

    /// Whether the claims of a closed job can be made anew.
    pub fn rebuild(self, key: JobKey) -> Rebuild<'a, O> {
        let Some(cell) = self.words.cell(key) else {
            return Rebuild::Void;
        };
        let seen = cell.gate.state();
        if seen.phase != JobPhase::Closed || seen.generation != key.generation {
            return Rebuild::Void;
        }
        if self.words.anyone_inside(key) {
            return Rebuild::NotYet;
        }
        Rebuild::Ready(Closed {
            parent: self,
            key,
            cell,
            seen,
        })
    }

    /// For every job that is not over, when a dead worker's slot is vacated: the dead may have left the job and not yet have
    /// compared the counts, or have rung and owe the wake. A worker leaves before it compares, so which job it was cannot be
    /// known.
    pub fn make_up_for_the_dead(self, key: JobKey) {
        let words = self.words;
        let Some(cell) = words.cell(key) else { return };
        let seen = cell.gate.state();
        if seen.generation == key.generation && seen.phase == JobPhase::Open {
            cell.complete_if_counted(seen, || words.lanes_of(key));
        }
        words.wake_waiters(self.outside, cell);
    }
}

impl<'a, O: Outside> Reaped<'a, O> {
    /// What it was about.
    pub fn phase(&self) -> SlotPhase {
        self.phase
    }

    fn slot(&self) -> &'a WorkerSlot {
        &self.parent.words.slots[self.worker]
    }

    /// What it may have left.
    pub fn left(&self) -> Left<'a, O> {
        match self.phase {
            SlotPhase::Starting | SlotPhase::Initializing | SlotPhase::Idle => Left::Nothing,
            SlotPhase::Working | SlotPhase::Leaving => self.claims().map_or(Left::Nothing, Left::Claims),
            SlotPhase::Popping | SlotPhase::Stealing => {
                // A rebuild waits until nobody is inside.
                self.slot().leave();
                Left::Unwritten
            }
        }
    }

    fn claims(&self) -> Option<Claims<'a, O>> {
        let key = self.slot().inside()?;
        let cell = self.parent.words.cell(key)?;
        let seen = cell.gate.state();
        let lane = self.parent.words.lane(key, self.worker);
        // Before the lane is drained: the front tells whether the hand was taken.
        let held = match lane.hand() {
            Hand::Held(held) => Some(held),
            _ => None,
        };
        (seen.generation == key.generation).then_some(Claims {
            parent: self.parent,
            key,
            cell,
            lane,
            seen,
            held,
        })
    }

    /// The slot is nobody's, and everybody looks again: a wake may have been meant for the dead, or owed by it.
    pub fn vacate(self) {
        let words = self.parent.words;
        words.vacate(self.worker);
        words.wake_all(self.parent.outside);
        words.wake_courier_anyway(self.parent.outside);
    }
}

impl Words<'_> {
    /// No process is in a slot, or it is gone: nobody is awake there, or looks for work.
    pub fn vacate(&self, worker: usize) {
        self.slots[worker].vacate();
        self.parks[worker].vacate();
    }
}

impl<'a, O: Outside> Claims<'a, O> {
    /// The job.
    pub fn key(&self) -> JobKey {
        self.key
    }

    /// The chunks in its hand, of the `chunks` that the job has. What an in-place strip has settled of them is published
    /// before anything else, whatever the gate says.
    pub fn held(&self, chunks: u32) -> Option<Span> {
        let held = self.held?;
        Some(Span::new(held.first.min(chunks), held.end.min(chunks)))
    }

    /// Takes all of it, if the job goes on.
    pub fn hand_on(self, chunks: u32) -> HandOn<'a, O> {
        if self.seen.phase != JobPhase::Open {
            return HandOn::Void;
        }
        let ends = [self.lane.waiting().end, self.held.map_or(0, |held| held.end)];
        if ends.into_iter().any(|end| end > chunks) {
            // Chunks that there are not: what the worker held is not to be known from its words.
            return match self.cell.gate.close(self.seen) {
                Some(_) => HandOn::Rebuild,
                None => HandOn::Void,
            };
        }
        HandOn::Taken(Taken {
            held: self.held,
            // Thieves may go on until then; they do not move the front.
            rest: self.lane.drain(),
            epoch: Epoch::of(self.parent, self.key, self.cell, self.seen),
            cell: self.cell,
            lane: self.lane,
        })
    }
}

impl<'a, O: Outside> Taken<'a, O> {
    /// The chunks that were in its hand. Which of them are final may still be said on behalf of the dead.
    pub fn held(&self) -> Option<Span> {
        self.held
    }

    /// Counts those of its hand that are final. Gives the others, and what was left in the lane, both to be claimed in
    /// [this epoch](Self::epoch).
    pub fn settle(&self, status: &[StatusWord], tag: Tag) -> (Vec<Span>, Option<Span>) {
        let rest = (!self.rest.is_empty()).then_some(self.rest);
        let Some(held) = self.held else {
            return (Vec::new(), rest);
        };
        let words = status.get(held.first as usize..held.end as usize).unwrap_or(&[]);
        let place = |run: Range<u32>| Span::new(held.first + run.start, held.first + run.end);
        let open: Vec<Span> = status::unfinished(words, tag).into_iter().map(place).collect();
        let left: u32 = open.iter().map(|run| run.len()).sum();
        self.lane.settle(held.len() - left);
        // Before they are pushed: whoever takes one of them looks for progress.
        self.cell.disturbed.store(1, Ordering::Relaxed);
        (open, rest)
    }

    /// Where they are claimed anew. When all are, this is completed if it can be: the dead may have been the last to count.
    pub fn epoch(self) -> Epoch<'a, O> {
        self.epoch
    }
}

impl<'a, O: Outside> Closed<'a, O> {
    /// Opens the job, in the epoch in which it was closed, for the `chunks` that are not final. `None`: it was stopped.
    pub fn reopen(self, chunks: u32) -> Option<Epoch<'a, O>> {
        self.parent.words.lanes_of(self.key).iter().for_each(Lane::reset);
        self.cell.target.store(u64::from(chunks), Ordering::Relaxed);
        self.cell.disturbed.store(1, Ordering::Relaxed);
        // Before any run is pushed: one that is found in front of a closed gate is dropped.
        self.cell.gate.advance(self.seen, JobPhase::Open).then(|| {
            let open = GateState {
                phase: JobPhase::Open,
                ..self.seen
            };
            Epoch::of(self.parent, self.key, self.cell, open)
        })
    }
}
