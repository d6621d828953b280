//! What a worker says about a strip while it runs it: failures, room for results, copies over inputs.
//!
//! Everything is written down at once and before the strip is published: a worker may die at any instruction, and what it
//! has settled must be settled with all that belongs to it.

use std::sync::atomic::{AtomicU64, Ordering};

use swathe_memory::SharedSlice;
use swathe_protocol::{GateState, InPlaceCopy, JobCell, JobTerms, WorkerSlot};

use crate::{
    fault::{self, Point},
    job::task::{HeapSpan, Sink, WriteBack},
    shared::{
        bytes, memory,
        records::{DROPPED, HEAD, Record, RecordKind, cut, link_to, mark_failed},
    },
    worker::heap::{Shortage, WorkerHeap},
};

/// The worker, as far as a trampoline may speak to it.
pub(crate) struct Reporter<'a> {
    pub(crate) heap: &'a mut WorkerHeap,
    pub(crate) slot: &'a WorkerSlot,
    pub(crate) cell: &'a JobCell,
    pub(crate) seen: GateState,
    pub(crate) terms: &'a JobTerms,
    pub(crate) failed_bits: Option<&'a SharedSlice<AtomicU64>>,
    pub(crate) worker: u32,
    /// The strip, in the job's own positions.
    pub(crate) first: u64,
    pub(crate) len: u64,
    /// Where the strip starts in the numbers that the slot announces (another than `first` in a round of retries).
    pub(crate) announced: u64,
    /// Whether something of the strip has failed.
    pub(crate) failed: bool,
    /// The first position of the strip whose failure could not be written down: it is not settled, nor is what follows.
    pub(crate) unwritten: Option<u64>,
}

impl Reporter<'_> {
    /// Writes a failure down. A task that takes a whole chunk fails whole.
    pub(crate) fn record(&mut self, within: u64, kind: RecordKind, text: &str) {
        if self.unwritten.is_some() {
            return;
        }
        let whole = self.terms.has(JobTerms::WHOLE_CHUNKS);
        let (position, span) = match whole {
            true => (self.first, self.len),
            false => (self.first + within, 1),
        };
        self.failed = true;
        if let Some(bits) = self.failed_bits {
            (position..position + span).for_each(|i| mark_failed(bits, i));
        }
        let record = Record {
            position,
            span,
            kind,
            worker: self.worker,
            pid: std::process::id(),
            text: cut(text).into(),
        };
        if let Err(Shortage(why)) = push_record(&record, self.heap, self.cell) {
            self.unwritten = Some(within);
            if self.cell.gate.still(self.seen) {
                // The parent stops a job whose failures it has no room for. It has not, so it could not be asked: this
                // worker's death is what it will hear of.
                let text = format!("no memory was left to report a failure: {why}; the failure was: {text}");
                self.slot.write_last_words(&text);
                std::process::abort();
            }
            return;
        }
        self.cell.failed.fetch_add(span, Ordering::Relaxed);
    }
}

impl Sink for Reporter<'_> {
    fn fail_all(&mut self, message: &str) {
        if self.terms.has(JobTerms::WHOLE_CHUNKS) {
            return self.record(0, RecordKind::Error, message);
        }
        for within in 0..self.len {
            self.record(within, RecordKind::Error, message);
        }
    }

    fn fail(&mut self, within_strip: u64, message: &str) {
        self.record(within_strip, RecordKind::Error, message);
    }

    fn heap(&mut self, len: usize) -> Result<HeapSpan, String> {
        let span = self.heap.allocate(len);
        fault::point(Point::Writing);
        span
    }

    fn copy_begins(&mut self, copy: &WriteBack) {
        self.slot.copy.arm(InPlaceCopy {
            from: copy.from,
            to_segment: copy.to_segment.to_bits(),
            to: copy.to,
            len: copy.len,
            end: self.announced + copy.settled,
        });
        fault::point(Point::Writing);
    }

    fn copy_ends(&mut self, copy: &WriteBack) {
        // Settled before disarmed: in between both say the same.
        self.slot
            .settled
            .store(self.announced + copy.settled, Ordering::Release);
        self.slot.copy.disarm();
    }

    fn point(&self, point: Point) {
        fault::point(point);
    }
}

/// Worker side: writes a record and publishes it; without its text if there is no room for that.
fn push_record(record: &Record, heap: &mut WorkerHeap, cell: &JobCell) -> Result<(), Shortage> {
    let mut text = cut(&record.text).as_bytes();
    let mut len = text.len() as u64;
    let room = 8 * (HEAD + bytes::words_for(text.len()));
    let span = match heap.allocate_note(room, true) {
        Ok(span) => span,
        Err(_) => {
            (text, len) = (&[], DROPPED);
            heap.allocate_note(8 * HEAD, false)?
        }
    };
    let words: SharedSlice<AtomicU64> = memory::words(
        heap.data(),
        span.offset as usize,
        HEAD + bytes::words_for(text.len()),
    )
    .map_err(|e| Shortage(e.to_string()))?;
    let who = u64::from(record.worker) << 32 | u64::from(record.pid);
    let fixed = [record.position, record.span, record.kind as u64, who, len];
    for (word, value) in words[1..].iter().zip(fixed) {
        word.store(value, Ordering::Relaxed);
    }
    bytes::write(&words[HEAD..], text);
    cell.push_failure(link_to(span.offset), |next| {
        words[0].store(next, Ordering::Relaxed);
    });
    Ok(())
}
