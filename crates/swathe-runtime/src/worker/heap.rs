//! Where workers put what has no fixed size: variable-length results and the texts of failures.
//!
//! Only the parent allocates. A job may bring a first block, from which its workers take pieces by `fetch_add`; when
//! that is used up a worker asks the parent for a block of its own. Whatever a dead worker had is still the job's, and what it
//! had not used yet is given to the next who asks: workers that live for one element do not take a block each.

use std::{
    io,
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use swathe_memory::{Block, Segment};
use swathe_os::{descriptors, socket::Socket};
use swathe_protocol::{JobCell, JobKey, JobTerms, Unused, UnusedWords};

use crate::{
    job::task::HeapSpan,
    shared::{
        control::Control,
        messages::{Kind, Message},
    },
    worker::Plan,
};

/// The first block a worker asks for, bytes; each further one of the same job is twice as large.
const FIRST_ASK: u64 = 64 << 10;
/// The largest block a worker asks for, unless a single result needs more.
const LARGEST_ASK: u64 = 8 << 20;
/// The pieces a worker takes from the job's first block, bytes.
const PIECE: u64 = 4 << 10;
const ALIGN: u64 = 16;

/// A worker's line to the parent, for the few things that are not in shared memory. Shared with user threads of the
/// worker, hence the lock; one question, one answer.
///
/// A task may close descriptors that it does not own. Then the number may stand for something of the task's by now, which
/// must not be written to: so it is looked at before it is used.
#[derive(Debug)]
pub(crate) struct ParentLine {
    socket: Mutex<Socket>,
    identity: Option<(u64, u64)>,
}

impl ParentLine {
    pub(crate) fn new(socket: Socket) -> Self {
        Self {
            identity: descriptors::identity(&socket),
            socket: Mutex::new(socket),
        }
    }

    fn is_still(&self, socket: &Socket) -> bool {
        self.identity.is_some() && descriptors::identity(socket) == self.identity
    }

    /// Says something that needs no answer. A parent that is gone need not know it.
    pub(crate) fn tell(&self, message: &Message) {
        let socket = self.socket.lock();
        if self.is_still(&socket) {
            let _ = message.send(&socket, &[]);
        }
    }

    /// Asks, and waits for the answer. A parent that is gone ends this process.
    pub(crate) fn ask(&self, question: &Message) -> Result<Message, String> {
        let socket = self.socket.lock();
        if !self.is_still(&socket) {
            return Err(
                "a task or an initializer has closed the descriptor by which this worker speaks to its pool"
                    .to_owned(),
            );
        }
        let answer = question
            .send(&socket, &[])
            .and_then(|()| Message::receive(&socket));
        match answer {
            Ok(Some(answer)) if answer.kind == Kind::Refused => {
                Err(String::from_utf8_lossy(&answer.text).into())
            }
            Ok(Some(answer)) => Ok(answer),
            // There is nobody left to work for.
            Ok(None) => std::process::exit(1),
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => std::process::exit(1),
            Err(e) => Err(format!("the worker could not talk to its parent: {e}")),
        }
    }
}

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

/// What a worker wants a block for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Purpose {
    Results = 0,
    /// Records of failures with their texts.
    Texts = 1,
    /// Records of failures without texts: without room for them the job cannot go on.
    Records = 2,
}

impl Purpose {
    pub(crate) fn from_word(word: u64) -> Option<Self> {
        [Self::Results, Self::Texts, Self::Records]
            .into_iter()
            .find(|purpose| *purpose as u64 == word)
    }
}

/// What dead workers have left of the blocks that they had for a job.
#[derive(Debug, Default)]
pub(crate) struct Spares {
    results: Vec<[u64; 2]>,
    /// Of blocks that are let go at the end of the round.
    notes: Vec<[u64; 2]>,
    /// The epoch of `notes`.
    epoch: u32,
}

impl Spares {
    /// Less is not worth keeping.
    const LEAST: u64 = 1 << 10;

    /// Keeps what a worker has left, of these blocks and this epoch. A worker that went wild may have written anything.
    pub(crate) fn keep(&mut self, left: Unused, results: &[Arc<Block>], notes: &[Arc<Block>], epoch: u32) {
        let lies_in = |blocks: &[Arc<Block>], [first, end]: [u64; 2]| {
            let within = |block: &Arc<Block>| {
                let start = block.offset() as u64;
                start <= first && end <= start + block.len() as u64
            };
            let is_worth_it = first.saturating_add(Self::LEAST) <= end && first.is_multiple_of(ALIGN);
            is_worth_it && blocks.iter().any(within)
        };
        if lies_in(results, left.results) {
            self.results.push(left.results);
        }
        if left.epoch == epoch && lies_in(notes, left.notes) {
            if self.epoch != epoch {
                (self.notes, self.epoch) = (Vec::new(), epoch);
            }
            self.notes.push(left.notes);
        }
    }

    /// The largest, if it has room for so much.
    pub(crate) fn take(&mut self, purpose: Purpose, least: u64, epoch: u32) -> Option<[u64; 2]> {
        let list = match purpose {
            Purpose::Results => &mut self.results,
            _ if self.epoch != epoch => return None,
            Purpose::Texts | Purpose::Records => &mut self.notes,
        };
        let len = |range: &[u64; 2]| range[1] - range[0];
        let (at, largest) = list.iter().enumerate().max_by_key(|(_, range)| len(range))?;
        (len(largest) >= least).then(|| list.swap_remove(at))
    }

    /// The blocks of failures are let go.
    pub(crate) fn drop_notes(&mut self) {
        self.notes.clear();
    }
}

/// There is no memory even for the record of a failure; the text says why.
#[derive(Debug)]
pub(crate) struct Shortage(pub(crate) String);

impl WorkerHeap {
    pub(crate) fn new(line: Arc<ParentLine>, plan: &Plan, index: usize) -> Self {
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

    /// For whoever buries this worker.
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
            Kind::WantBlock,
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

#[cfg(test)]
mod tests {
    use swathe_memory::Memory;

    use super::*;

    #[test]
    fn only_what_lies_in_a_block_of_the_round_is_kept() {
        let memory = Memory::with_capacity(1 << 20).expect("there is memory");
        let block = || Arc::new(memory.alloc(64 << 10, 64).expect("it fits"));
        let (results, notes) = ([block()], [block()]);
        let of = |block: &Arc<Block>, from: u64| {
            let start = block.offset() as u64;
            [start + from, start + block.len() as u64]
        };
        let left = Unused {
            job: JobKey::new(0, 1),
            epoch: 4,
            results: of(&results[0], 1008),
            notes: of(&notes[0], 0),
        };
        let mut spares = Spares::default();
        spares.keep(left, &results, &notes, 4);
        assert_eq!(spares.take(Purpose::Results, 64 << 10, 4), None);
        assert_eq!(spares.take(Purpose::Results, 60 << 10, 4), Some(left.results));
        assert_eq!(spares.take(Purpose::Results, 1, 4), None);
        // Of an earlier epoch.
        assert_eq!(spares.take(Purpose::Texts, 1, 5), None);
        spares.drop_notes();
        assert_eq!(spares.take(Purpose::Texts, 1, 4), None);
        spares.keep(left, &results, &notes, 5);
        assert_eq!(spares.take(Purpose::Texts, 1, 5), None);
        spares.results.clear();
        // Too little, or nonsense.
        for results_left in [
            of(&results[0], 64 << 10),
            of(&results[0], 1),
            [u64::MAX, 0],
            [0, u64::MAX],
            of(&notes[0], 0),
        ] {
            let wild = Unused {
                results: results_left,
                ..left
            };
            spares.keep(wild, &results, &notes, 4);
        }
        assert!(spares.results.is_empty(), "{spares:?}");
    }
}
