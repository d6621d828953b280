//! A worker's slot: what the supervisor must know when the worker is dead, and what an onlooker may see at any time.
//!
//! Every word has one writer at a time: the worker while it lives, the supervisor before it starts and after it was
//! reaped.

use crate::{
    job::JobKey,
    order::OrderWord,
    sync::{AtomicU32, AtomicU64, Ordering, QuietU32, fence},
};

/// What a worker is doing, as far as recovery has to distinguish it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum SlotPhase {
    /// No process, or one that has not reached its main loop.
    Starting = 0,
    /// In the initializer.
    Initializing = 1,
    /// Holds nothing.
    Idle = 2,
    /// Between taking a run from the ring and filling its lane: what it holds is not written down.
    Popping = 3,
    /// Between taking half of another lane and filling its own: likewise.
    Stealing = 4,
    /// Takes from its own lane, runs, publishes: what it holds is exactly its hand and its lane.
    Working = 5,
    /// Goes of its own accord; what is left in its lane is to be handed on.
    Leaving = 6,
}

impl SlotPhase {
    fn from_word(word: u32) -> Self {
        match word {
            0 => Self::Starting,
            1 => Self::Initializing,
            2 => Self::Idle,
            3 => Self::Popping,
            4 => Self::Stealing,
            5 => Self::Working,
            _ => Self::Leaving,
        }
    }
}

/// Where in the strip in work the panic happened that has ended a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PanickedAt {
    /// In one of its elements.
    Somewhere,
    /// In the element with this number, from 0; those before it are done.
    Element(u64),
}

/// Words of text a worker can leave behind. (Few under loom, which pays for every atomic in every execution.)
pub const LAST_WORDS: usize = if cfg!(loom) { 1 } else { 64 };

/// The slot of one worker.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct WorkerSlot {
    /// The job the worker is inside of: its hazard word.
    inside: AtomicU64,
    phase: AtomicU32,
    /// Process id, set by the zygote when it has told the parent of this process, which waits for that; 0 for no process.
    pub pid: AtomicU32,
    /// How many processes have had this slot, set by the supervisor.
    pub incarnation: AtomicU32,
    /// Handles to shared arrays that this worker took out of task arguments and still holds.
    pub held_handles: QuietU32,
    /// The strip in work: see [`Strip`].
    pub strip_first: AtomicU64,
    /// Likewise.
    pub strip_len: AtomicU64,
    /// In-place jobs, while there is a strip: its positions before this one are settled, published or not.
    pub settled: AtomicU64,
    /// In-place jobs: the copy in work.
    pub copy: CopyWords,
    /// Set if the strip runs after a death, element by element.
    pub careful: QuietU32,
    /// As `strip_first`.
    pub strip_started: AtomicU64,
    /// Elements run by this process.
    pub elements: AtomicU64,
    /// Nanoseconds spent inside tasks by this process.
    pub busy: AtomicU64,
    /// What the parent asks of this very worker.
    pub order: OrderWord,
    /// What it has not used yet of the memory that it was given for the job that it runs.
    pub unused: UnusedWords,
    /// Of the panic that ends the process: 0 for none, 1 for one somewhere, 2 and more for one in the element with this
    /// number, less 2, of the strip in work.
    panicked: AtomicU64,
    /// Length of the text in `last_words`, bytes.
    last_words_len: AtomicU32,
    last_words: [AtomicU64; LAST_WORDS],
}

/// Memory that a worker was given for a job, and has not written to: its successor may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unused {
    /// The job.
    pub job: JobKey,
    /// The epoch for which `notes` were given.
    pub epoch: u32,
    /// For results: first byte, and the one behind the last, in the data segment.
    pub results: [u64; 2],
    /// For records of failures, likewise.
    pub notes: [u64; 2],
}

/// An [`Unused`] in shared words.
#[repr(C)]
#[derive(Debug, Default)]
pub struct UnusedWords {
    job: AtomicU64,
    epoch: AtomicU32,
    _reserved: AtomicU32,
    results: [AtomicU64; 2],
    notes: [AtomicU64; 2],
}

impl UnusedWords {
    /// The worker turns to a round of a job. It has nothing for results any more, unless it `keeps` that, and nothing for
    /// records of failures.
    pub fn turn_to(&self, job: JobKey, epoch: u32, keeps: bool) {
        self.notes[1].store(0, Ordering::Release);
        if !keeps {
            self.results[1].store(0, Ordering::Release);
        }
        self.job.store(job.to_word(), Ordering::Release);
        self.epoch.store(epoch, Ordering::Release);
    }

    /// Of what it has for results this is left. Said before anything is published that lies in front of it.
    #[inline]
    pub fn results_from(&self, next: u64) {
        // SYNC publish: whoever sees a result published sees that its place is used.
        self.results[0].store(next, Ordering::Relaxed);
    }

    /// Likewise for records of failures.
    #[inline]
    pub fn notes_from(&self, next: u64) {
        self.notes[0].store(next, Ordering::Relaxed);
    }

    /// It was given this for results.
    pub fn give_results(&self, range: [u64; 2]) {
        Self::give(&self.results, range);
    }

    /// Likewise for records of failures.
    pub fn give_notes(&self, range: [u64; 2]) {
        Self::give(&self.notes, range);
    }

    /// Never one end of this and the other of what was there before.
    fn give(words: &[AtomicU64; 2], [first, end]: [u64; 2]) {
        words[1].store(0, Ordering::Release);
        words[0].store(first, Ordering::Release);
        words[1].store(end, Ordering::Release);
    }

    /// What a dead worker has left. From now on it is the reader's.
    pub fn take(&self) -> Unused {
        let read = |words: &[AtomicU64; 2]| [0, 1].map(|i| words[i].load(Ordering::Relaxed));
        let unused = Unused {
            job: JobKey::from_word(self.job.load(Ordering::Relaxed)),
            epoch: self.epoch.load(Ordering::Relaxed),
            results: read(&self.results),
            notes: read(&self.notes),
        };
        self.turn_to(JobKey::from_word(0), 0, false);
        unused
    }
}

/// The positions that a worker runs between two publications.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Strip {
    /// Its first position.
    pub first: u64,
    /// How many positions; 0 from its publication to the next strip.
    pub len: u64,
    /// Monotonic clock, nanoseconds, at its start; 0 while the worker says which strip is the next.
    pub started: u64,
}

impl Strip {
    /// Whether it is in work, and known as a whole: otherwise nothing can be late, and nothing can be blamed.
    pub fn is_in_work(self) -> bool {
        self.len != 0 && self.started != 0
    }
}

/// Results that are copied over their inputs. Once it is written down the copy is made, by the worker or, after its
/// death, by the supervisor: from any state in between, because it is the same copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InPlaceCopy {
    /// Where the results lie, bytes into the data segment.
    pub from: u64,
    /// The segment of the inputs.
    pub to_segment: u64,
    /// Where they lie in there, bytes.
    pub to: u64,
    /// How many bytes.
    pub len: u64,
    /// The position behind the last that is settled by it.
    pub end: u64,
}

/// A [`struct@InPlaceCopy`] in shared words.
#[repr(C)]
#[derive(Debug, Default)]
pub struct CopyWords {
    words: [AtomicU64; 5],
    armed: AtomicU32,
    _reserved: AtomicU32,
}

impl CopyWords {
    /// The worker is about to make this copy. Its source is complete.
    pub fn arm(&self, copy: InPlaceCopy) {
        let values = [copy.from, copy.to_segment, copy.to, copy.len, copy.end];
        for (word, value) in self.words.iter().zip(values) {
            word.store(value, Ordering::Relaxed);
        }
        self.armed.store(1, Ordering::Release);
        // No byte of the copy before the word that announces it, in program order too: a death is a cut through that.
        fence(Ordering::SeqCst);
    }

    /// It is made. What it settled must have been said before.
    pub fn disarm(&self) {
        self.armed.store(0, Ordering::Release);
    }

    /// The copy that a dead worker may not have finished.
    pub fn armed(&self) -> Option<InPlaceCopy> {
        if self.armed.load(Ordering::Acquire) == 0 {
            return None;
        }
        let [from, to_segment, to, len, end] =
            core::array::from_fn(|i| self.words[i].load(Ordering::Relaxed));
        Some(InPlaceCopy {
            from,
            to_segment,
            to,
            len,
            end,
        })
    }
}

impl Default for WorkerSlot {
    fn default() -> Self {
        Self {
            inside: AtomicU64::default(),
            phase: AtomicU32::default(),
            pid: AtomicU32::default(),
            incarnation: AtomicU32::default(),
            held_handles: QuietU32::default(),
            strip_first: AtomicU64::default(),
            strip_len: AtomicU64::default(),
            settled: AtomicU64::default(),
            copy: CopyWords::default(),
            careful: QuietU32::default(),
            strip_started: AtomicU64::default(),
            elements: AtomicU64::default(),
            busy: AtomicU64::default(),
            order: OrderWord::default(),
            unused: UnusedWords::default(),
            panicked: AtomicU64::default(),
            last_words_len: AtomicU32::default(),
            last_words: core::array::from_fn(|_| AtomicU64::default()),
        }
    }
}

impl WorkerSlot {
    /// Announces the job that the worker is about to touch. [`crate::Gate::enter`] is the way in.
    #[inline]
    pub(crate) fn announce(&self, key: JobKey) {
        self.inside.store(key.to_word(), Ordering::Relaxed);
    }

    /// The worker touches no job any more. Everything it did comes before.
    #[inline]
    pub fn leave(&self) {
        // SYNC leave: pairs with `inside`; who sees the worker outside sees all that it did inside.
        self.inside.store(0, Ordering::Release);
    }

    /// The job the worker is inside of, if any.
    #[inline]
    pub fn inside(&self) -> Option<JobKey> {
        // SYNC leave: pairs with `leave`.
        let key = JobKey::from_word(self.inside.load(Ordering::Acquire));
        key.is_some().then_some(key)
    }

    /// What the worker is doing.
    #[inline]
    pub fn phase(&self) -> SlotPhase {
        SlotPhase::from_word(self.phase.load(Ordering::Acquire))
    }

    /// The worker says what it is doing now.
    #[inline]
    pub fn set_phase(&self, phase: SlotPhase) {
        self.phase.store(phase as u32, Ordering::Release);
    }

    /// The supervisor makes the slot ready for a new process. What a parent asked of the slot stays.
    pub fn renew(&self) {
        self.vacate();
        for word in [&self.held_handles, &self.careful] {
            word.store(0, Ordering::Relaxed);
        }
        for word in [&self.copy.armed, &self.last_words_len] {
            word.store(0, Ordering::Relaxed);
        }
        for word in [
            &self.strip_first,
            &self.strip_len,
            &self.settled,
            &self.strip_started,
            &self.elements,
            &self.busy,
            &self.panicked,
        ] {
            word.store(0, Ordering::Relaxed);
        }
        self.incarnation.fetch_add(1, Ordering::Release);
    }

    /// The worker says which positions it runs next, so that a death can be blamed on them, and a hang be noticed.
    #[inline]
    pub fn announce_strip(&self, strip: Strip) {
        // SYNC strip: no start is seen beside the positions of another strip, or one would be blamed for what the other
        // has done. It goes first and comes last.
        self.strip_started.store(0, Ordering::Relaxed);
        self.strip_first.store(strip.first, Ordering::Release);
        self.strip_started.store(strip.started, Ordering::Release);
        self.strip_len.store(strip.len, Ordering::Release);
    }

    /// The strip in work. Its worker may be announcing another one meanwhile: then it has no start.
    pub fn strip(&self) -> Strip {
        // SYNC strip: pairs with `announce_strip`.
        let started = self.strip_started.load(Ordering::Acquire);
        let first = self.strip_first.load(Ordering::Acquire);
        let len = self.strip_len.load(Ordering::Acquire);
        let still = self.strip_started.load(Ordering::Relaxed) == started;
        Strip {
            first,
            len,
            started: if still { started } else { 0 },
        }
    }

    /// The supervisor has handed on what the dead worker held: nobody has the slot. Its last words and figures stay, until
    /// the slot is made ready for another.
    pub fn vacate(&self) {
        self.leave();
        self.set_phase(SlotPhase::Starting);
        self.pid.store(0, Ordering::Relaxed);
    }

    /// Leaves a text for whoever finds the worker dead; cut to what fits.
    pub fn write_last_words(&self, text: &str) {
        self.say_last_words(self.prepare_last_words(text));
    }

    /// Writes a text down that nobody takes for said yet; cut to what fits. Gives its length in bytes.
    pub fn prepare_last_words(&self, text: &str) -> u32 {
        self.say_last_words(0);
        let fits = (0..=text.len().min(LAST_WORDS * 8))
            .rev()
            .find(|end| text.is_char_boundary(*end));
        let bytes = &text.as_bytes()[..fits.unwrap_or(0)];
        for (word, chunk) in self.last_words.iter().zip(bytes.chunks(8)) {
            let mut buffer = [0; 8];
            buffer[..chunk.len()].copy_from_slice(chunk);
            word.store(u64::from_le_bytes(buffer), Ordering::Relaxed);
        }
        bytes.len() as u32
    }

    /// Says the text that was prepared, of this length. Nothing but a store, so that a signal handler may do it.
    pub fn say_last_words(&self, len: u32) {
        self.last_words_len.store(len, Ordering::Release);
    }

    /// The process is ending of a panic. Nothing but a store, so that a signal handler may do it.
    pub fn say_panicked(&self, at: PanickedAt) {
        let word = match at {
            PanickedAt::Somewhere => 1,
            PanickedAt::Element(within) => within.saturating_add(2),
        };
        self.panicked.store(word, Ordering::Release);
    }

    /// The panic of which the process has ended, if it was one.
    pub fn panicked(&self) -> Option<PanickedAt> {
        match self.panicked.load(Ordering::Acquire) {
            0 => None,
            1 => Some(PanickedAt::Somewhere),
            word => Some(PanickedAt::Element(word - 2)),
        }
    }

    /// Reads that text into `out`; returns its length in bytes. Any bytes may come: the writer is not trusted.
    pub fn read_last_words(&self, out: &mut [u8; LAST_WORDS * 8]) -> usize {
        let len = (self.last_words_len.load(Ordering::Acquire) as usize).min(out.len());
        for (word, chunk) in self.last_words.iter().zip(out.chunks_mut(8)) {
            chunk.copy_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
        }
        len
    }
}
