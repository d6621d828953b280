//! Failure records: written by workers into a job's heap, read by the parent when the job is over.
//!
//! A record is published by one compare-exchange on the job's list head; a worker that dies before leaves a record that
//! nobody sees, one that dies after leaves it whole.

use std::sync::{
    Arc, LazyLock,
    atomic::{AtomicU64, Ordering},
};

use swathe_memory::{Block, SharedSlice};
use swathe_protocol::JobTerms;

use crate::shared::{bytes, memory};

/// What a worker reports about a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecordKind {
    Error = 1,
    Panic = 2,
}

/// A failure record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) position: u64,
    /// Positions that failed together: more than 1 only for tasks that take a whole chunk.
    pub(crate) span: u64,
    pub(crate) kind: RecordKind,
    pub(crate) worker: u32,
    pub(crate) pid: u32,
    pub(crate) text: Arc<str>,
}

/// next, position, span, kind, worker and pid, length of the text; then the text.
pub(crate) const HEAD: usize = 6;
/// Longest text kept, bytes.
const MAX_TEXT: usize = 64 << 10;

/// The length of a text for which there was no room.
pub(crate) const DROPPED: u64 = u64::MAX;

/// What stands for such a text.
static DROPPED_TEXT: LazyLock<Arc<str>> = LazyLock::new(|| {
    Arc::from("(text dropped: the texts of this job's failures have taken all the memory that they may take)")
});

/// The beginning of a text, as long as a record may have it.
pub(crate) fn cut(text: &str) -> &str {
    swathe_os::text::beginning(text, MAX_TEXT)
}

/// The link to a record: never 0, which ends the list. (A record may lie at offset 0: offsets are multiples of 8.)
pub(crate) fn link_to(offset: u64) -> u64 {
    offset + 1
}

/// The record behind a link, the next link, and how many bytes the record takes.
pub(crate) fn read_record(link: u64, heap: &[Arc<Block>], terms: &JobTerms) -> Option<(Record, u64, usize)> {
    let offset = link.checked_sub(1)?;
    let (block, within) = heap.iter().find_map(|block| {
        let within = (offset as usize).checked_sub(block.offset())?;
        (within < block.len()).then_some((block, within))
    })?;
    let head: SharedSlice<AtomicU64> = memory::words_in(block, within, HEAD).ok()?;
    let word = |i: usize| head[i].load(Ordering::Relaxed);
    let (text, len) = match word(5) {
        DROPPED => (DROPPED_TEXT.clone(), 0),
        len => {
            let len = usize::try_from(len).ok().filter(|len| *len <= MAX_TEXT)?;
            let text = memory::words_in(block, within + 8 * HEAD, bytes::words_for(len)).ok()?;
            (String::from_utf8_lossy(&bytes::read(&text, len)).into(), len)
        }
    };
    let kind = match word(3) {
        1 => RecordKind::Error,
        2 => RecordKind::Panic,
        _ => return None,
    };
    let (position, span) = (word(1), word(2));
    let inside = position
        .checked_add(span)
        .is_some_and(|end| end <= terms.positions);
    let record = Record {
        position,
        span,
        kind,
        worker: (word(4) >> 32) as u32,
        pid: word(4) as u32,
        text,
    };
    (inside && span > 0).then(|| (record, word(0), 8 * (HEAD + bytes::words_for(len))))
}

/// In a file that outlives the job: this position is final and has no value.
pub(crate) fn mark_failed(bits: &[AtomicU64], position: u64) {
    if let Some(word) = bits.get((position / 64) as usize) {
        word.fetch_or(1 << (position % 64), Ordering::Release);
    }
}

/// It has one now.
pub(crate) fn mark_done(bits: &[AtomicU64], position: u64) {
    if let Some(word) = bits.get((position / 64) as usize) {
        // A look first: most words have no bit set, and lie in a file whose pages need not be dirtied.
        if word.load(Ordering::Acquire) & 1 << (position % 64) != 0 {
            word.fetch_and(!(1 << (position % 64)), Ordering::Release);
        }
    }
}
