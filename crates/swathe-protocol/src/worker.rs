//! The moves of a worker: it finds a job, enters it, takes chunks, counts them, leaves.
//!
//! What it may do next is what the value in its hands offers: a [`Member`] is inside of no job, [`Inside`] is, [`Held`] chunks
//! are in its hand. Each move sets the phase, from which the recovery after a death knows what may be left (README, "A worker").
//! Workers and models run this code.

use crate::{
    job::{GateState, JobCell, JobKey, JobPhase, JobTerms},
    lane::{Hand, Lane, Span},
    order::Order,
    slot::{SlotPhase, WorkerSlot},
    sync::{LOOKS_FIRST, Ordering, QuietU32},
    words::{Outside, Place, Words},
};

/// A worker that is inside of no job.
#[derive(Debug)]
pub struct Member<'a, O> {
    words: Words<'a>,
    outside: &'a O,
    me: usize,
}

impl<O> Clone for Member<'_, O> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<O> Copy for Member<'_, O> {}

/// A worker that is inside of a job, with something in its lane.
#[must_use = "a worker that is inside of a job keeps its cell from all others until it leaves"]
#[derive(Debug)]
pub struct Inside<'a, O> {
    member: Member<'a, O>,
    key: JobKey,
    cell: &'a JobCell,
    seen: GateState,
    careful: bool,
    /// What it was ordered by, cleared at the very end: a death before leaves it to the replacement, whose lane tells what
    /// is left of it.
    order: Option<Order>,
}

/// What came of a look at the ring.
#[derive(Debug)]
pub enum Found<'a, O> {
    /// There is no run.
    Nothing,
    /// A run of an older epoch, or of a job that is over: it was dropped, for the claims that were made since cover it.
    Void,
    /// A run, in the worker's lane by now.
    Run(Inside<'a, O>),
}

/// Chunks in a worker's hand.
#[must_use = "chunks in hand are counted, or else void"]
#[derive(Debug)]
pub struct Held<'a> {
    lane: &'a Lane,
    chunks: Span,
}

impl<'a, O: Outside> Member<'a, O> {
    /// The worker with this number.
    pub fn new(words: Words<'a>, outside: &'a O, me: usize) -> Self {
        Self { words, outside, me }
    }

    #[inline]
    fn slot(&self) -> &'a WorkerSlot {
        &self.words.slots[self.me]
    }

    /// Does as it was ordered: its lane is filled already. `None`: the order was void, and is cleared.
    pub fn follow(&self, order: Order) -> Option<Inside<'a, O>> {
        let Order::Run { job, epoch } = order else {
            return None;
        };
        self.outside.reached(Place::BeforeClaim);
        self.slot().set_phase(SlotPhase::Popping);
        self.outside.reached(Place::Claimed);
        let Some((cell, seen)) = self.enter(job, epoch) else {
            self.slot().set_phase(SlotPhase::Idle);
            self.slot().order.clear(order);
            return None;
        };
        Some(self.begin(job, cell, seen, false, Some(order)))
    }

    /// Takes a run from the ring, and enters its job.
    pub fn take_run(&self) -> Found<'a, O> {
        // A death in `Popping` costs a rebuild of every open job.
        if LOOKS_FIRST && self.words.ring.is_empty() {
            return Found::Nothing;
        }
        self.outside.reached(Place::BeforeClaim);
        self.slot().set_phase(SlotPhase::Popping);
        let Some(run) = self.words.ring.pop() else {
            self.slot().set_phase(SlotPhase::Idle);
            return Found::Nothing;
        };
        self.outside.reached(Place::Claimed);
        let Some((cell, seen)) = self.enter(run.job, run.epoch) else {
            self.slot().set_phase(SlotPhase::Idle);
            return Found::Void;
        };
        let chunks = Span::new(run.first, run.first.saturating_add(run.chunks));
        self.words.lane(run.job, self.me).fill(chunks);
        Found::Run(self.begin(run.job, cell, seen, run.careful, None))
    }

    /// Takes half of what another worker has not begun, and enters the job. `None`: nobody has anything to spare.
    pub fn steal(&self) -> Option<Inside<'a, O>> {
        let used = self.words.used_slots();
        (1..used).find_map(|step| self.steal_from((self.me + step) % used))
    }

    fn steal_from(&self, victim: usize) -> Option<Inside<'a, O>> {
        let key = self.words.slots[victim].inside()?;
        let cell = self.words.cell(key)?;
        let lane = self.words.lane(key, victim);
        if LOOKS_FIRST && lane.waiting().is_empty() {
            return None;
        }
        self.outside.reached(Place::BeforeClaim);
        self.slot().set_phase(SlotPhase::Stealing);
        if let Some(seen) = cell.gate.enter(self.slot(), key) {
            let careful = self.words.slots[victim].careful.load(Ordering::Relaxed) != 0;
            // What is ordered of one worker is no other's.
            let stolen = if cell.has(JobTerms::PINNED) {
                None
            } else {
                lane.steal()
            };
            if let Some(stolen) = stolen {
                self.outside.reached(Place::Claimed);
                self.words.lane(key, self.me).fill(stolen);
                return Some(self.begin(key, cell, seen, careful, None));
            }
        }
        self.withdraw(cell);
        self.slot().set_phase(SlotPhase::Idle);
        None
    }

    /// Whether another worker has something to spare, at this instant: then it is worth while to [`steal`](Self::steal).
    pub fn sees_spare_chunks(&self) -> bool {
        let mut others = (0..self.words.used_slots()).filter(|victim| *victim != self.me);
        others.any(|victim| {
            let Some(key) = self.words.slots[victim].inside() else {
                return false;
            };
            self.words.cell(key).is_some_and(|cell| {
                !self.words.lane(key, victim).waiting().is_empty()
                    && cell.gate.state().phase == JobPhase::Open
                    && !cell.has(JobTerms::PINNED)
            })
        })
    }

    /// Enters a job for what was claimed in this epoch of it.
    fn enter(&self, job: JobKey, epoch: u32) -> Option<(&'a JobCell, GateState)> {
        let cell = self.words.cell(job)?;
        match cell.gate.enter(self.slot(), job) {
            Some(seen) if seen.epoch == epoch => Some((cell, seen)),
            _ => {
                self.withdraw(cell);
                None
            }
        }
    }

    /// Leaves a job that it has done nothing in.
    fn withdraw(&self, cell: &JobCell) {
        if cell.gate.withdraw(self.slot()) {
            self.words.ring_bell(self.outside, cell, true);
        }
    }

    /// The lane is filled: from now on hand and lane tell what this worker holds.
    fn begin(
        &self,
        key: JobKey,
        cell: &'a JobCell,
        seen: GateState,
        careful: bool,
        order: Option<Order>,
    ) -> Inside<'a, O> {
        self.slot().set_phase(SlotPhase::Working);
        set(&self.slot().careful, u32::from(careful), Ordering::Relaxed);
        Inside {
            member: *self,
            key,
            cell,
            seen,
            careful,
            order,
        }
    }
}

impl<'a, O: Outside> Inside<'a, O> {
    /// The job.
    pub fn key(&self) -> JobKey {
        self.key
    }

    /// Its cell.
    pub fn cell(&self) -> &'a JobCell {
        self.cell
    }

    /// The gate that the worker came in by.
    pub fn seen(&self) -> GateState {
        self.seen
    }

    /// Whether strips are run one element at a time, after a death.
    pub fn is_careful(&self) -> bool {
        self.careful
    }

    /// Whether the worker may go on: nobody has closed, stopped or completed the job. Asked before every strip.
    #[inline]
    pub fn may_go_on(&self) -> bool {
        self.cell.gate.still(self.seen)
    }

    /// What is still to be taken, at this instant.
    #[inline]
    pub fn waiting(&self) -> Span {
        self.lane().waiting()
    }

    /// Takes up to `want` chunks into its hand.
    #[inline]
    pub fn take(&self, want: u32) -> Option<Held<'a>> {
        let lane = self.lane();
        lane.take(want).map(|chunks| Held { lane, chunks })
    }

    #[inline]
    fn lane(&self) -> &'a Lane {
        self.member.words.lane(self.key, self.member.me)
    }

    /// Stops the job, unless it is over or closed, and has those who wait for it look.
    pub fn stop(&self, attended: bool) {
        if self.cell.gate.advance(self.seen, JobPhase::Stopped) {
            let Member { words, outside, .. } = self.member;
            words.ring_bell(outside, self.cell, attended);
        }
    }

    /// Leaves the job. `handles` is how many handles to shared arrays it has taken out of arguments and keeps; `attended`
    /// says whether the courier wants to be woken when the job is over.
    pub fn leave(self, handles: u32, attended: bool) {
        self.say_what_it_keeps(handles);
        self.go(attended);
    }

    /// Leaves for good, maybe in the middle of the job: then the slot announces the job until the recovery, and what is
    /// left in hand and lane is found there and handed on.
    pub fn recycle(self, handles: u32, attended: bool) {
        self.say_what_it_keeps(handles);
        if self.may_go_on() {
            self.member.slot().set_phase(SlotPhase::Leaving);
            self.member.outside.reached(Place::Recycling);
            if !self.waiting().is_empty() || self.lane().hand() != Hand::Empty {
                return self.clear_order();
            }
        }
        self.go(attended);
    }

    /// Before it leaves: what it still holds of the job's arguments must stay in place.
    fn say_what_it_keeps(&self, handles: u32) {
        set(&self.member.slot().held_handles, handles, Ordering::Release);
    }

    fn go(self, attended: bool) {
        let (slot, words, cell) = (self.member.slot(), self.member.words, self.cell);
        // Left first: the parent need not wait until it may use the cell again. From here on that may happen at any time;
        // then the gate is not as it was seen, and those who hear the bell look and wait on.
        slot.leave();
        let completed = cell.complete_if_counted(self.seen, || words.lanes_of(self.key));
        // The last to leave a job that was stopped ends it, whether somebody waits for that or nobody does.
        let stopped = !completed && cell.gate.state().phase == JobPhase::Stopped;
        if completed || stopped {
            words.ring_bell(self.member.outside, cell, stopped || attended);
        }
        slot.set_phase(SlotPhase::Idle);
        self.clear_order();
    }

    /// If the parent has given another order meanwhile, of this very job in its next epoch, that stays.
    fn clear_order(&self) {
        if let Some(order) = self.order {
            self.member.slot().order.clear(order);
        }
    }
}

impl Held<'_> {
    /// Which they are.
    pub fn chunks(&self) -> Span {
        self.chunks
    }

    /// All of them are published as final.
    #[inline]
    pub fn count(self) {
        self.lane.count(self.chunks);
    }

    /// The gate has changed: what was claimed in the old epoch is no claim any more.
    pub fn forgo(self) {}
}

/// Only this worker writes the word, and mostly what stands there already: then others need not fetch its line.
#[inline]
fn set(word: &QuietU32, value: u32, order: Ordering) {
    if word.load(Ordering::Relaxed) != value {
        word.store(value, order);
    }
}
