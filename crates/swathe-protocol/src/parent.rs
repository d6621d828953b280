//! The moves of the parent: it opens a job, or another round of it, gives orders, stops, and uses a cell again.
//!
//! They are made by one thread at a time, under the parent's lock. What may be done next is what the value in hand offers: a
//! [`VacantCell`] can be opened, which gives an [`Epoch`] in which claims may be made; an [`Unoccupied`] cell can be opened for
//! another round, or vacated. (What it does after a death: [`recovery`](crate::recovery).)

use crate::{
    job::{GateState, JobCell, JobKey, JobPhase, JobTerms},
    lane::{Lane, Span},
    order::Order,
    ring::Descriptor,
    sync::Ordering,
    words::{Outside, Words},
};

/// The parent, or the supervisor: whoever holds the lock.
#[derive(Debug)]
pub struct Parent<'a, O> {
    pub(crate) words: Words<'a>,
    pub(crate) outside: &'a O,
}

impl<O> Clone for Parent<'_, O> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<O> Copy for Parent<'_, O> {}

/// A cell that holds no job, and that nobody is inside of. There is one value for each such cell.
#[must_use = "a vacant cell that is forgotten is never used again"]
#[derive(Debug)]
pub struct VacantCell {
    index: u32,
    generation: u32,
}

impl VacantCell {
    /// All cells of a pool that has just been made, the last first.
    pub fn all(cells: u32) -> Vec<Self> {
        let vacant = |index| Self { index, generation: 0 };
        (0..cells).rev().map(vacant).collect()
    }

    /// What the next job of the cell is called.
    pub fn next_key(&self) -> JobKey {
        JobKey::new(self.index, self.generation.wrapping_add(1).max(1))
    }
}

/// The cell of a job that is over, or whose round is, and that nobody is inside of: nobody else changes it.
#[must_use = "the cell is the parent's alone now"]
#[derive(Debug)]
pub struct Unoccupied<'a, O> {
    parent: Parent<'a, O>,
    key: JobKey,
    cell: &'a JobCell,
}

/// What a job, or a round of it, is opened with.
#[derive(Clone, Copy, Debug)]
pub struct Opening {
    /// The terms.
    pub terms: JobTerms,
    /// How many chunks will be claimed.
    pub chunks: u32,
    /// Whether some of them may have progress already.
    pub disturbed: bool,
}

/// How a job stands that the parent has not ended yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It goes on.
    Open,
    /// It was stopped, and somebody is still inside.
    Leaving {
        /// The gate.
        gate: GateState,
    },
    /// Its gate says so. Whoever counted last has seen every count.
    Complete {
        /// The gate.
        gate: GateState,
        /// The newest record of a failure, 0 for none.
        newest: u64,
    },
    /// Nobody is inside of it any more.
    Stopped {
        /// The gate.
        gate: GateState,
        /// As above.
        newest: u64,
    },
    /// Its gate says what it never says of a job that is not over: somebody wrote where it should not. Workers may be
    /// `inside` still.
    Overwritten {
        /// Whether any is.
        inside: bool,
    },
}

/// An epoch of a job whose gate was open when this was made: claims may be made in it. If it has come to its end meanwhile
/// they are void, and dropped by whoever finds them.
#[must_use = "a job whose claims are not made never ends"]
#[derive(Debug)]
pub struct Epoch<'a, O> {
    parent: Parent<'a, O>,
    key: JobKey,
    cell: &'a JobCell,
    gate: GateState,
}

impl<'a, O: Outside> Parent<'a, O> {
    /// Whoever holds the lock.
    pub fn new(words: Words<'a>, outside: &'a O) -> Self {
        Self { words, outside }
    }

    /// Opens a vacant cell for the job that [`VacantCell::next_key`] names.
    pub fn open(self, cell: VacantCell, opening: Opening) -> Epoch<'a, O> {
        let key = cell.next_key();
        let cell = &self.words.cells[key.index as usize];
        cell.failed.store(0, Ordering::Relaxed);
        cell.heap_used.store(0, Ordering::Relaxed);
        let gate = GateState {
            generation: key.generation,
            epoch: 0,
            phase: JobPhase::Open,
        };
        self.open_gate(key, cell, opening, gate)
    }

    fn open_gate(self, key: JobKey, cell: &'a JobCell, opening: Opening, gate: GateState) -> Epoch<'a, O> {
        self.words.lanes_of(key).iter().for_each(Lane::reset);
        cell.failures.store(0, Ordering::Relaxed);
        cell.disturbed
            .store(u32::from(opening.disturbed), Ordering::Relaxed);
        cell.target.store(u64::from(opening.chunks), Ordering::Relaxed);
        cell.write_terms(opening.terms);
        // Before any run: one that is found in front of a gate that is not open is dropped.
        cell.gate.set(gate);
        Epoch {
            parent: self,
            key,
            cell,
            gate,
        }
    }

    /// The cell of a job that is over, or whose round is. `None`: somebody announces the job, and may still look at it.
    pub fn unoccupied(self, key: JobKey) -> Option<Unoccupied<'a, O>> {
        let cell = self.words.cell(key)?;
        (!self.words.anyone_inside(key)).then_some(Unoccupied {
            parent: self,
            key,
            cell,
        })
    }

    /// How a job stands.
    pub fn look(self, key: JobKey) -> Standing {
        let Some(cell) = self.words.cell(key) else {
            return Standing::Overwritten { inside: false };
        };
        let inside = || self.words.anyone_inside(key);
        // Only when everybody has left, or has counted: who is inside may be about to push one, and to publish its chunk.
        let newest = || cell.failures.load(Ordering::Acquire);
        let gate = cell.gate.state();
        match gate.phase {
            _ if gate.generation != key.generation => Standing::Overwritten { inside: inside() },
            JobPhase::Vacant => Standing::Overwritten { inside: inside() },
            JobPhase::Open | JobPhase::Closed => Standing::Open,
            JobPhase::Complete => Standing::Complete {
                gate,
                newest: newest(),
            },
            JobPhase::Stopped if inside() => Standing::Leaving { gate },
            JobPhase::Stopped => Standing::Stopped {
                gate,
                newest: newest(),
            },
        }
    }

    /// Puts a run into the ring.
    ///
    /// # Errors
    /// The run, if the ring is full: to be put there later, without waiting for it.
    pub fn push(self, run: Descriptor) -> Result<(), Descriptor> {
        self.words.ring.push(run)
    }

    /// Stops a job that is not over: its workers leave after their strip, and the last of them rings.
    pub fn stop(self, key: JobKey) {
        let Some(cell) = self.words.cell(key) else { return };
        loop {
            let seen = cell.gate.state();
            let may_stop = matches!(seen.phase, JobPhase::Open | JobPhase::Closed);
            if !may_stop || cell.gate.advance(seen, JobPhase::Stopped) {
                return;
            }
        }
    }

    /// Asks a worker to leave for good. What stands in its word must be void.
    pub fn retire(self, worker: usize) {
        self.words.slots[worker].order.give(Order::Retire);
        self.words.wake(self.outside, worker);
    }

    /// Tells all workers to leave: [`Header::DRAIN`](crate::Header::DRAIN) or [`Header::STOP`](crate::Header::STOP).
    pub fn shut_down(self, how: u32) {
        self.words.header.shutdown.store(how, Ordering::Release);
        self.words.wake_all(self.outside);
    }
}

impl<'a, O: Outside> Unoccupied<'a, O> {
    /// Opens another round of the job: the next epoch. A run of the last one that still lies in the ring is dropped for it.
    pub fn open_round(self, opening: Opening) -> Epoch<'a, O> {
        let gate = self.cell.gate.state().next_epoch(JobPhase::Open);
        self.parent.open_gate(self.key, self.cell, opening, gate)
    }

    /// The job is over: its cell is free for another.
    pub fn vacate(self) -> VacantCell {
        let JobKey { index, generation } = self.key;
        self.cell.gate.set(GateState {
            generation,
            epoch: 0,
            phase: JobPhase::Vacant,
        });
        VacantCell { index, generation }
    }
}

impl<'a, O: Outside> Epoch<'a, O> {
    pub(crate) fn of(parent: Parent<'a, O>, key: JobKey, cell: &'a JobCell, gate: GateState) -> Self {
        Self {
            parent,
            key,
            cell,
            gate,
        }
    }

    /// A run of these chunks, to be pushed. With `careful`, its strips are run one element at a time.
    pub fn run(&self, chunks: Span, careful: bool) -> Descriptor {
        Descriptor {
            job: self.key,
            epoch: self.gate.epoch,
            first: chunks.first,
            chunks: chunks.len(),
            careful,
        }
    }

    /// Orders one worker to run these chunks. It is woken by the caller, when it has given all orders.
    pub fn order(&self, worker: usize, chunks: Span) {
        let (job, epoch) = (self.key, self.gate.epoch);
        // The lane first: who reads the order finds it filled.
        self.parent.words.lane(job, worker).fill(chunks);
        self.parent.words.slots[worker]
            .order
            .give(Order::Run { job, epoch });
    }

    /// When all claims are made. There may have been none to make, or the dead may have been the last to count: then the job
    /// is complete, and this says so.
    pub fn complete_if_counted(self, attended: bool) -> bool {
        let words = self.parent.words;
        let completed = self
            .cell
            .complete_if_counted(self.gate, || words.lanes_of(self.key));
        if completed {
            words.ring_bell(self.parent.outside, self.cell, attended);
        }
        completed
    }
}
