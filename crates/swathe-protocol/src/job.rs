//! A job's cell: its gate, its terms, and the bell its waiters listen to.

use crate::{
    bell::Bell,
    lane::{self, Lane},
    slot::WorkerSlot,
    status::Tag,
    sync::{AtomicU32, AtomicU64, Ordering, fence},
};

/// Names a job: the index of its cell and how often the cell was used. The zero word is "no job": generations start
/// at 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobKey {
    /// Index of the cell.
    pub index: u32,
    /// Which use of the cell, from 1.
    pub generation: u32,
}

impl JobKey {
    /// Makes a key.
    #[inline]
    pub const fn new(index: u32, generation: u32) -> Self {
        Self { index, generation }
    }

    /// The key as one word.
    #[inline]
    pub const fn to_word(self) -> u64 {
        (self.generation as u64) << 32 | self.index as u64
    }

    /// The key of a word.
    #[inline]
    pub const fn from_word(word: u64) -> Self {
        Self {
            index: word as u32,
            generation: (word >> 32) as u32,
        }
    }

    /// Whether this names a job at all.
    pub const fn is_some(self) -> bool {
        self.generation != 0
    }
}

/// What may be done with a job now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum JobPhase {
    /// The cell holds no job.
    Vacant = 0,
    /// Workers may enter, claim, steal and publish.
    Open = 1,
    /// The supervisor is about to rebuild the claims from the status words: workers leave after their strip.
    Closed = 2,
    /// Every chunk is final.
    Complete = 3,
    /// Cancelled, failed fast or terminated: workers leave after their strip, the rest is not run.
    Stopped = 4,
}

/// The gate word, read as one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GateState {
    /// Which use of the cell.
    pub generation: u32,
    /// How often the claims were rebuilt, 24 bits.
    pub epoch: u32,
    /// What may be done.
    pub phase: JobPhase,
}

pub(crate) const EPOCH_MASK: u32 = (1 << 24) - 1;

impl GateState {
    fn to_word(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.epoch & EPOCH_MASK) << 8 | self.phase as u64
    }

    fn from_word(word: u64) -> Self {
        let phase = match word as u8 {
            0 => JobPhase::Vacant,
            1 => JobPhase::Open,
            2 => JobPhase::Closed,
            3 => JobPhase::Complete,
            _ => JobPhase::Stopped,
        };
        Self {
            generation: (word >> 32) as u32,
            epoch: (word >> 8) as u32 & EPOCH_MASK,
            phase,
        }
    }

    /// The same job, rebuilt once more.
    #[must_use]
    pub fn next_epoch(self, phase: JobPhase) -> Self {
        Self {
            epoch: self.epoch.wrapping_add(1) & EPOCH_MASK,
            phase,
            ..self
        }
    }
}

/// The one word that decides whether a worker may touch a job.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Gate(AtomicU64);

impl Gate {
    /// The gate now.
    #[inline]
    pub fn state(&self) -> GateState {
        // SYNC gate: pairs with the releases below; who sees `Complete` may read the slab.
        GateState::from_word(self.0.load(Ordering::Acquire))
    }

    /// The parent sets the gate of a cell that nobody else may change: one that is vacant, or whose job is over.
    /// Everything written before is visible to whoever enters. Every change of an open or closed gate is an
    /// [`Gate::advance`] or a [`Gate::close`], or it would overwrite a completion.
    pub fn set(&self, state: GateState) {
        self.0.store(state.to_word(), Ordering::Release);
        // Step P1 of the hazard rule: the new gate before the scan of the slots.
        fence(Ordering::SeqCst);
    }

    /// Changes the phase if the gate still is what the caller saw. `true` for the one who did it.
    pub fn advance(&self, seen: GateState, phase: JobPhase) -> bool {
        self.change(seen, GateState { phase, ..seen })
    }

    /// The supervisor closes an open job, to rebuild its claims: the next epoch, closed. `None` if the job is not as
    /// it was seen: a worker completed it meanwhile, or the caller stopped it.
    pub fn close(&self, seen: GateState) -> Option<GateState> {
        let closed = seen.next_epoch(JobPhase::Closed);
        (seen.phase == JobPhase::Open && self.change(seen, closed)).then_some(closed)
    }

    /// The parent does not believe that a job is over: it is closed, to be rebuilt, as by [`Gate::close`].
    pub fn recall(&self, seen: GateState) -> Option<GateState> {
        let closed = seen.next_epoch(JobPhase::Closed);
        self.change(seen, closed).then_some(closed)
    }

    fn change(&self, seen: GateState, next: GateState) -> bool {
        let done = self
            .0
            .compare_exchange(
                seen.to_word(),
                next.to_word(),
                Ordering::AcqRel,
                Ordering::Relaxed,
            )
            .is_ok();
        // Step P1 again.
        fence(Ordering::SeqCst);
        done
    }

    /// A worker enters: it announces the job in its slot, then looks at the gate. `None`: it may not, and has left.
    ///
    /// Either the parent's scan of the slots sees the announcement, or this sees the parent's new gate.
    #[inline]
    pub fn enter(&self, slot: &WorkerSlot, key: JobKey) -> Option<GateState> {
        slot.announce(key);
        // Step W1 of the hazard rule: the announcement before the look at the gate.
        fence(Ordering::SeqCst);
        let seen = self.state();
        if seen.generation == key.generation && seen.phase == JobPhase::Open {
            Some(seen)
        } else {
            slot.leave();
            None
        }
    }

    /// A worker leaves a job that it did nothing in, or was refused by. `true`: the job was stopped, and whoever waits for the
    /// last to leave it may have seen the announcement: ring.
    #[must_use]
    pub fn withdraw(&self, slot: &WorkerSlot) -> bool {
        slot.leave();
        // The end of the announcement before the look at the gate; pairs with step P1, as in `enter`.
        fence(Ordering::SeqCst);
        self.state().phase == JobPhase::Stopped
    }

    /// Whether nothing has changed since `seen`: asked by a worker before every strip.
    #[inline]
    pub fn still(&self, seen: GateState) -> bool {
        self.0.load(Ordering::Relaxed) == seen.to_word()
    }
}

/// Writes [`JobTerms`] down once: its fields are its words, in this order.
macro_rules! terms {
    ($($(#[$doc:meta])* $field:ident,)*) => {
        /// What a job is: written by the parent while the cell is vacant, read by workers that entered.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[repr(C)]
        pub struct JobTerms {
            $($(#[$doc])* pub $field: u64,)*
        }

        impl JobTerms {
            fn to_words(self) -> [u64; TERMS] {
                [$(self.$field),*]
            }

            fn of_words(words: [u64; TERMS]) -> Self {
                let [$($field),*] = words;
                Self { $($field),* }
            }
        }
    };
}

terms! {
    /// The object that holds the task's trampoline, 0 for the main executable.
    task_object,
    /// The trampoline's offset in that object.
    task_offset,
    /// Number of positions.
    positions,
    /// Positions a chunk; the last chunk may be shorter.
    chunk_len,
    /// Number of chunks.
    chunks,
    /// Where the chunk status words lie, bytes into the pool's data segment.
    status_offset,
    /// Where the parameter bytes lie, likewise.
    params_offset,
    /// How many parameter bytes.
    params_len,
    /// Flags of [`JobTerms`]: see the associated constants.
    flags,
    /// Seed of the per-position random generators.
    seed,
    /// First position of this job in the caller's numbering (streams number on over many jobs).
    base,
    /// Where the job's first heap block lies, bytes into the data segment.
    heap_offset,
    /// How many bytes it has.
    heap_len,
    /// The segment that the status words of the first round lie in: 0 for the pool's data segment.
    durable_segment,
    /// Where the bits of failed positions lie, bytes into that segment ([`JobTerms::DURABLE`]).
    failed_offset,
    /// Where the spans of a retry round lie, bytes into the data segment ([`JobTerms::PICKS`]).
    picks_offset,
    /// Where the parent writes which positions have cost workers, bytes into the data segment.
    deaths_offset,
    /// Which round this is: 1, and one more for each retry.
    attempt,
    /// How long one element may take, nanoseconds; 0 for as long as it likes.
    element_ns,
    /// When the job must be over, nanoseconds of the monotonic clock; 0 for never.
    deadline_ns,
    /// Where the workers' tallies lie, one a slot, bytes into the data segment.
    tallies_offset,
    /// The serial number by which tallies of this job are known.
    serial,
    /// The tag of the job's status words, as a word.
    tag,
}

/// How many words the terms of a job are.
const TERMS: usize = size_of::<JobTerms>() / size_of::<u64>();
/// Which of them has the flags.
const FLAGS: usize = core::mem::offset_of!(JobTerms, flags) / size_of::<u64>();

impl JobTerms {
    /// Chunk `w` belongs to worker `w` alone and is not stolen.
    pub const PINNED: u64 = 1;
    /// Input and output are the same memory: results are copied over their inputs strip by strip.
    pub const IN_PLACE: u64 = 2;
    /// The parent's courier wants to be woken on completion.
    pub const ATTENDED: u64 = 4;
    /// Stop the job at the first failed position.
    pub const FAIL_FAST: u64 = 8;
    /// A chunk is one call of the task: never cut into strips, never merged.
    pub const WHOLE_CHUNKS: u64 = 16;

    /// Status words and failed bits lie in a file that outlives the job.
    pub const DURABLE: u64 = 32;
    /// A round of retries: position `i` of the job stands for the `i`-th span of a list.
    pub const PICKS: u64 = 64;

    /// The tag of the job's status words.
    #[inline]
    pub fn tag(&self) -> Tag {
        Tag::from_word(self.tag)
    }

    /// Whether a flag is set.
    #[inline]
    pub fn has(&self, flag: u64) -> bool {
        self.flags & flag != 0
    }

    /// The positions of some chunks.
    #[inline]
    pub fn positions_of(&self, first: u32, chunks: u32) -> core::ops::Range<u64> {
        let start = u64::from(first)
            .saturating_mul(self.chunk_len)
            .min(self.positions);
        let end = (u64::from(first) + u64::from(chunks))
            .saturating_mul(self.chunk_len)
            .min(self.positions);
        start..end
    }
}

/// The cell of one job.
#[repr(C, align(128))]
#[derive(Debug, Default)]
pub struct JobCell {
    /// Decides who may enter.
    pub gate: Gate,
    /// Chunks that this epoch's lanes must count for the job to be complete.
    pub target: AtomicU64,
    /// The open gate of an epoch whose chunks somebody found to be counted, to the number; written before that gate is
    /// completed. A gate that is complete without it was overwritten.
    vouched: AtomicU64,
    /// Head of the list of failure records: an offset into the data segment, 0 for none. Pushed to by one
    /// compare-exchange; read when the job is over.
    pub failures: AtomicU64,
    /// Positions that failed so far, for progress displays only.
    pub failed: AtomicU64,
    /// Bytes of the first heap block that are given away, by `fetch_add`.
    pub heap_used: AtomicU64,
    /// Rung when the job is over. Who rings late rings for the cell's next job, whose waiters look and wait on.
    pub bell: Bell,
    /// Not 0: among the chunks that are still to be taken some may have progress. Set before their runs are pushed, so
    /// whoever takes one of them sees it.
    pub disturbed: AtomicU32,
    terms: [AtomicU64; TERMS],
}

impl JobCell {
    /// Writes the terms. The gate must be vacant, and is opened afterwards.
    pub fn write_terms(&self, terms: JobTerms) {
        for (word, value) in self.terms.iter().zip(terms.to_words()) {
            word.store(value, Ordering::Relaxed);
        }
    }

    /// Completes a job if all its chunks are counted, from the gate that was seen. `true` for the one who did it.
    #[inline]
    pub fn complete_if_counted<'l>(&self, seen: GateState, lanes: impl FnOnce() -> &'l [Lane]) -> bool {
        let counted = lane::counted(lanes);
        let target = self.target.load(Ordering::Relaxed);
        if counted < target {
            return false;
        }
        if counted == target {
            // Before the gate, on the same cache line: it costs nothing, and nobody waits for it.
            self.vouched.store(seen.to_word(), Ordering::Relaxed);
        }
        self.gate.advance(seen, JobPhase::Complete)
    }

    /// Whether a completion that the parent has seen is what it says: somebody has counted exactly all chunks, and nobody
    /// has died in this epoch, who may have written anything anywhere. If not, the parent looks at the status words.
    pub fn is_vouched(&self, complete: GateState) -> bool {
        let open = GateState {
            phase: JobPhase::Open,
            ..complete
        };
        self.vouched.load(Ordering::Relaxed) == open.to_word() && self.disturbed.load(Ordering::Relaxed) == 0
    }

    /// A worker puts a record at the front of the list of failures. It is written already, but for the link to the record
    /// behind it, which `link` writes: a death before leaves a record that nobody sees, one behind leaves it whole.
    pub fn push_failure(&self, record: u64, link: impl Fn(u64)) {
        let mut head = self.failures.load(Ordering::Relaxed);
        loop {
            link(head);
            // SYNC record: pairs with the acquire of whoever reads the list.
            match self
                .failures
                .compare_exchange_weak(head, record, Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    /// Whether a flag of the terms is set. Exact for whoever entered by the gate.
    #[inline]
    pub fn has(&self, flag: u64) -> bool {
        self.terms[FLAGS].load(Ordering::Relaxed) & flag != 0
    }

    /// Reads the terms. Exact for whoever entered by the gate.
    pub fn terms(&self) -> JobTerms {
        JobTerms::of_words(core::array::from_fn(|i| self.terms[i].load(Ordering::Relaxed)))
    }
}
