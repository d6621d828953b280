//! Where workers put what has no fixed size: variable-length results and the texts of failures.
//!
//! Only the parent allocates. A job may bring a first block, from which its workers take pieces by `fetch_add`; when
//! that is used up a worker asks the parent for a block of its own. Whatever a dead worker had is still the job's, and what it
//! had not used yet is given to the next who asks: workers that live for one element do not take a block each.

use std::{
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use swathe_memory::Segment;
use swathe_protocol::{JobCell, JobKey, JobTerms, UnusedWords};

use crate::{
    job::task::HeapSpan,
    shared::{
        control::Control,
        messages::{ALIGN, Message, MessageKind, Purpose},
        plan::WorkerPlan,
    },
    worker::line::ParentLine,
};

/// The first block a worker asks for, bytes; each further one of the same job is twice as large.
const FIRST_ASK: u64 = 64 << 10;
/// The largest block a worker asks for, unless a single result needs more.
const LARGEST_ASK: u64 = 8 << 20;
/// The pieces a worker takes from the job's first block, bytes.
const PIECE: u64 = 4 << 10;

/// The block that a worker fills at present.
#[derive(Debug)]
pub(crate) struct WorkerHeap {
    line: Arc<ParentLine>,
    data: Arc<Segment>,
    control: Arc<Control>,
    /// The number of the worker.
    index: usize,
    job: JobKey,
    epoch: u32,
    results: Piece,
    /// For the records of failures, in blocks of their own: the parent lets these go when it has read them, at the end of
    /// each round.
    notes: Piece,
    /// There is no room for further texts of failures.
    no_texts: bool,
}

/// The rest of a block.
#[derive(Clone, Copy, Debug)]
struct Piece {
    next: u64,
    end: u64,
    /// How much is asked for next.
    ask: u64,
}

impl Piece {
    const NONE: Self = Self {
        next: 0,
        end: 0,
        ask: FIRST_ASK,
    };

    fn left(&self) -> u64 {
        self.end - self.next
    }
}

/// There is no memory even for the record of a failure; the text says why.
#[derive(Debug)]
pub(crate) struct Shortage(pub(crate) String);

impl WorkerHeap {
    pub(crate) fn new(line: Arc<ParentLine>, plan: &WorkerPlan, index: usize) -> Self {
        Self {
            line,
            data: plan.data.clone(),
            control: plan.control.clone(),
            index,
            job: JobKey::new(0, 0),
            epoch: 0,
            results: Piece::NONE,
            notes: Piece::NONE,
            no_texts: false,
        }
    }

    /// From now on everything is for this round of this job.
    pub(crate) fn turn_to(&mut self, job: JobKey, epoch: u32) {
        if (self.job, self.epoch) == (job, epoch) {
            return;
        }
        self.unused().turn_to(job, epoch, self.job == job);
        if self.job != job {
            self.results = Piece::NONE;
        }
        (self.notes, self.no_texts) = (Piece::NONE, false);
        (self.job, self.epoch) = (job, epoch);
    }

    /// For the recovery after this worker.
    fn unused(&self) -> &UnusedWords {
        &self.control.slots[self.index].unused
    }

    /// Takes a piece of the job's first block, if there is one left.
    pub(crate) fn refill(&mut self, cell: &JobCell, terms: &JobTerms, len: u64) -> bool {
        let piece = len.max(PIECE).next_multiple_of(ALIGN);
        if !first_block_has(&cell.heap_used, terms, piece) {
            return false;
        }
        let start = cell.heap_used.fetch_add(piece, Ordering::Relaxed);
        if start + piece > terms.heap_len {
            return false;
        }
        let start = terms.heap_offset + start;
        (self.results.next, self.results.end) = (start, start + piece);
        self.unused().give_results([start, start + piece]);
        true
    }

    /// Room for `len` bytes, from the present block or a new one.
    pub(crate) fn allocate(&mut self, len: usize) -> Result<HeapSpan, String> {
        let len = len as u64;
        if self.results.left() < len {
            self.results = self.ask_parent(self.results.ask, len, Purpose::Results)?;
            self.unused().give_results([self.results.next, self.results.end]);
        }
        let offset = self.results.next;
        self.results.next = (offset + len).next_multiple_of(ALIGN).min(self.results.end);
        self.unused().results_from(self.results.next);
        self.span(offset, len)
    }

    /// Room for the record of a failure, with its text or without.
    pub(crate) fn allocate_note(&mut self, len: usize, with_text: bool) -> Result<HeapSpan, Shortage> {
        let len = len as u64;
        if self.notes.left() < len {
            if with_text && self.no_texts {
                return Err(Shortage(String::new()));
            }
            self.notes = self.ask_for_notes(len, with_text)?;
            self.unused().give_notes([self.notes.next, self.notes.end]);
        }
        let offset = self.notes.next;
        self.notes.next = (offset + len).next_multiple_of(ALIGN).min(self.notes.end);
        self.unused().notes_from(self.notes.next);
        self.span(offset, len).map_err(Shortage)
    }

    fn ask_for_notes(&mut self, len: u64, with_text: bool) -> Result<Piece, Shortage> {
        if !with_text {
            return self
                .ask_parent(FIRST_ASK, len, Purpose::Records)
                .map_err(Shortage);
        }
        let answer = self.ask_parent(self.notes.ask, len, Purpose::Texts);
        self.no_texts = answer.is_err();
        answer.map_err(Shortage)
    }

    fn span(&self, offset: u64, len: u64) -> Result<HeapSpan, String> {
        let pointer: NonNull<u8> = self
            .data
            .range(offset as usize, len as usize)
            .map_err(|e| e.to_string())?;
        Ok(HeapSpan {
            pointer,
            segment: self.data.id(),
            offset,
        })
    }

    fn ask_parent(&self, ask: u64, len: u64, purpose: Purpose) -> Result<Piece, String> {
        let least = len.next_multiple_of(ALIGN);
        let answer = self.line.ask(&Message::new(
            MessageKind::WantBlock,
            &[self.job.to_word(), ask.max(least), purpose as u64, least],
        ))?;
        Ok(Piece {
            next: answer.words[0],
            end: answer.words[0] + answer.words[1],
            ask: (ask * 2).min(LARGEST_ASK),
        })
    }

    /// Whom this worker asks.
    pub(crate) fn line(&self) -> &ParentLine {
        &self.line
    }

    /// The segment that all blocks lie in.
    pub(crate) fn data(&self) -> &Arc<Segment> {
        &self.data
    }

    /// Bytes left in the present block.
    pub(crate) fn left(&self) -> u64 {
        self.results.left()
    }
}

fn first_block_has(used: &AtomicU64, terms: &JobTerms, piece: u64) -> bool {
    used.load(Ordering::Relaxed).saturating_add(piece) <= terms.heap_len
}
