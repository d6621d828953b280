//! Running what is in a lane: take, run a strip, publish, count.

use std::{
    any::Any,
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::Ordering,
};

use swathe_memory::SharedSlice;
use swathe_os::image::{self, CodeRef};
use swathe_protocol::{ChunkStatus, GateState, JobCell, JobKey, JobTerms, Lane, Span, StatusWord};

use crate::{
    bytes,
    collect::{self, RecordKind},
    control::Control,
    strip::Pace,
    task::{Call, Trampoline},
    worker::{Worker, now, take_panic, task_code},
};

/// A worker inside one job.
pub(crate) struct Mowing<'w> {
    worker: &'w mut Worker,
    control: &'w Control,
    cell: &'w JobCell,
    key: JobKey,
    seen: GateState,
    terms: JobTerms,
    careful: bool,
    pace: Pace,
    cache: Option<Box<dyn Any>>,
}

/// The parts of a job that are looked up once.
struct Ground {
    task: Trampoline,
    status: SharedSlice<StatusWord>,
    params: Vec<u8>,
}

/// Whether to go on with the hand.
#[derive(PartialEq, Eq)]
enum Hand {
    Finished,
    GateChanged,
}

impl<'w> Mowing<'w> {
    pub(crate) fn new(
        worker: &'w mut Worker,
        control: &'w Control,
        cell: &'w JobCell,
        key: JobKey,
        seen: GateState,
        terms: JobTerms,
        careful: bool,
    ) -> Self {
        worker.heap.turn_to(key);
        Self {
            worker,
            control,
            cell,
            key,
            seen,
            terms,
            careful,
            pace: Pace::new(),
            cache: None,
        }
    }

    /// Until the lane is empty, the gate changes, or the worker's tasks are used up.
    pub(crate) fn run(&mut self) {
        let ground = match self.ground() {
            Ok(ground) => ground,
            Err(text) => return self.refuse(&text),
        };
        let control = self.control;
        let lane = control.lane(self.key, self.worker.index);
        while self.worker.tasks_left > 0 && self.cell.gate.still(self.seen) {
            let Some(hand) = lane.take(self.want(lane)) else {
                break;
            };
            if self.run_hand(&ground, hand) == Hand::GateChanged {
                break;
            }
            lane.count(hand);
        }
    }

    fn ground(&self) -> Result<Ground, String> {
        let data = &self.worker.plan.data;
        let code = CodeRef {
            object: self.terms.task_object,
            offset: self.terms.task_offset,
        };
        let address = image::resolve(code).ok_or(
            "the task's code is in an object that the workers have not loaded: a library opened at run time cannot \
             hold tasks",
        )?;
        let text = |e: swathe_memory::MemoryError| e.to_string();
        Ok(Ground {
            task: task_code::trampoline(address),
            status: SharedSlice::at(
                data,
                self.terms.status_offset as usize,
                self.terms.chunks as usize,
            )
            .map_err(text)?,
            params: bytes::read_segment(data, self.terms.params_offset, self.terms.params_len)
                .map_err(text)?,
        })
    }

    /// The job cannot be run here at all: leaves the reason and dies of it, as often as it takes to be believed.
    fn refuse(&self, text: &str) {
        self.worker.slot().write_last_words(text);
        std::process::abort();
    }

    fn want(&self, lane: &Lane) -> u32 {
        if self.careful || self.terms.has(JobTerms::WHOLE_CHUNKS) {
            return 1;
        }
        let strip_chunks = self.pace.chunks(self.terms.chunk_len, lane.waiting().len());
        let budget = (self.worker.tasks_left / self.terms.chunk_len.max(1)).max(1);
        strip_chunks.min(budget.min(u64::from(u32::MAX)) as u32)
    }

    fn run_hand(&mut self, ground: &Ground, hand: Span) -> Hand {
        let words = &ground.status[hand.first as usize..hand.end as usize];
        let fresh = |word: &StatusWord| word.load() == ChunkStatus::Progress(0);
        if hand.len() > 1 && words.iter().all(fresh) {
            let range = hand.positions(&self.terms);
            self.run_strip(ground, range.start, range.end - range.start);
            words.iter().for_each(StatusWord::publish_final);
            return Hand::Finished;
        }
        for (word, chunk) in words.iter().zip(hand.first..) {
            if self.run_chunk(ground, word, Span::new(chunk, chunk + 1)) == Hand::GateChanged {
                return Hand::GateChanged;
            }
        }
        Hand::Finished
    }

    /// One chunk, from its progress on, in strips.
    fn run_chunk(&mut self, ground: &Ground, word: &StatusWord, chunk: Span) -> Hand {
        let range = chunk.positions(&self.terms);
        let ChunkStatus::Progress(begun) = word.load() else {
            return Hand::Finished;
        };
        let mut next = range.start + u64::from(begun);
        loop {
            let len = self.strip_len().min(range.end - next);
            self.run_strip(ground, next, len);
            next += len;
            if next >= range.end {
                word.publish_final();
                return Hand::Finished;
            }
            word.publish_progress((next - range.start) as u32);
            if self.worker.tasks_left == 0 || !self.cell.gate.still(self.seen) {
                return Hand::GateChanged;
            }
        }
    }

    fn strip_len(&self) -> u64 {
        if self.terms.has(JobTerms::WHOLE_CHUNKS) {
            u64::MAX
        } else if self.careful {
            1
        } else {
            self.pace.strip().min(self.worker.tasks_left)
        }
    }

    /// Runs some positions; afterwards each has its value in the slab or a failure record.
    fn run_strip(&mut self, ground: &Ground, first: u64, len: u64) {
        let slot = &self.control.slots[self.worker.index];
        let started = now();
        slot.strip_first.store(first, Ordering::Relaxed);
        slot.strip_started.store(started, Ordering::Relaxed);
        slot.strip_len.store(len, Ordering::Release);
        let mut next = first;
        while next < first + len {
            next += self.call(ground, next, first + len - next);
        }
        slot.strip_len.store(0, Ordering::Release);
        let spent = now() - started;
        self.pace.learn(len, spent);
        self.worker.tasks_left = self.worker.tasks_left.saturating_sub(len);
        slot.elements
            .store(slot.elements.load(Ordering::Relaxed) + len, Ordering::Relaxed);
        slot.busy
            .store(slot.busy.load(Ordering::Relaxed) + spent, Ordering::Relaxed);
    }

    /// One call of the trampoline. Gives how many positions are settled: all, or up to and with one that panicked.
    fn call(&mut self, ground: &Ground, first: u64, len: u64) -> u64 {
        if self.worker.heap.left() < 1024 {
            self.worker.heap.refill(self.cell, &self.terms, 0);
        }
        let slot = &self.control.slots[self.worker.index];
        let cursor = Cell::new(0);
        let mut failures = Vec::new();
        let writing_back = |on: bool| slot.writing_back.store(u32::from(on), Ordering::Release);
        let mut call = Call {
            first,
            len,
            base: self.terms.base,
            seed: self.terms.seed,
            params: &ground.params,
            worker: self.worker.facts,
            careful: self.careful,
            state: &mut *self.worker.state,
            cursor: &cursor,
            cache: &mut self.cache,
            heap: &mut self.worker.heap,
            failures: &mut failures,
            writing_back: &writing_back,
        };
        let result = catch_unwind(AssertUnwindSafe(|| (ground.task)(&mut call)));
        for (within, text) in failures {
            let span = if self.terms.has(JobTerms::WHOLE_CHUNKS) {
                len
            } else {
                1
            };
            self.record(first + within, span, RecordKind::Error, &text);
        }
        if result.is_ok() {
            return len;
        }
        writing_back(false);
        let (at, span) = if self.terms.has(JobTerms::WHOLE_CHUNKS) {
            (0, len)
        } else {
            (cursor.get().min(len - 1), 1)
        };
        self.record(first + at, span, RecordKind::Panic, &take_panic());
        // Reported: a later death must not be blamed on it.
        self.worker.slot().write_last_words("");
        at + span
    }

    fn record(&mut self, position: u64, span: u64, kind: RecordKind, text: &str) {
        let record = collect::Record {
            position,
            span,
            kind,
            worker: self.worker.index as u32,
            pid: std::process::id(),
            text: text.to_owned(),
        };
        if let Err(why) = collect::push_record(&record, &mut self.worker.heap, self.cell) {
            // Without room for a sentence the failure must still be one: this worker's death is recorded by the parent.
            let text = format!("{text} (and no memory was left to report it: {why})");
            self.worker.slot().write_last_words(&text);
            std::process::abort();
        }
        self.cell.failed.fetch_add(span, Ordering::Relaxed);
        if self.terms.has(JobTerms::FAIL_FAST) {
            self.cell
                .gate
                .advance(self.seen, swathe_protocol::JobPhase::Stopped);
        }
    }
}
