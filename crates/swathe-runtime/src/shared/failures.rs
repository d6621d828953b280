//! Failure records: written by workers into a job's heap, read by the parent when the job is over.
//!
//! A record is published by one compare-exchange on the job's list head; a worker that dies before leaves a record that
//! nobody sees, one that dies after leaves it whole.

use std::{
    ops::Range,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

use swathe_memory::{Block, SharedSlice};
use swathe_protocol::{ChunkStatus, JobCell, JobTerms, StatusWord};

use crate::{
    job::{Failure, FailureKind},
    shared::bytes,
    worker::heap::{Shortage, WorkerHeap},
};

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
const HEAD: usize = 6;
/// Longest text kept, bytes.
const MAX_TEXT: usize = 64 << 10;

/// The length of a text for which there was no room.
const DROPPED: u64 = u64::MAX;

/// What stands for such a text.
static DROPPED_TEXT: LazyLock<Arc<str>> = LazyLock::new(|| {
    Arc::from("(text dropped: the texts of this job's failures have taken all the memory that they may take)")
});

/// The beginning of a text, as long as a record may have it.
pub(crate) fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT)]
}

/// Worker side: writes a record and publishes it; without its text if there is no room for that.
pub(crate) fn push_record(record: &Record, heap: &mut WorkerHeap, cell: &JobCell) -> Result<(), Shortage> {
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
    let words: SharedSlice<AtomicU64> = SharedSlice::at(
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

/// The link to a record: never 0, which ends the list. (A record may lie at offset 0: offsets are multiples of 8.)
fn link_to(offset: u64) -> u64 {
    offset + 1
}

/// Positions that were started again after a death, and the newest record at that moment: older records about them are
/// void.
#[derive(Clone, Debug)]
pub(crate) struct Rerun {
    pub(crate) positions: Range<u64>,
    pub(crate) newest: u64,
}

/// Parent side: all valid records, newest first. Damaged ones end the list: their links cannot be trusted.
pub(crate) fn read_records(
    head: u64,
    heap: &[Arc<Block>],
    terms: &JobTerms,
    reruns: &[Rerun],
) -> Vec<Record> {
    let mut records: Vec<Record> = Vec::new();
    let mut void: Vec<&Rerun> = Vec::new();
    let mut next = head;
    // Records do not overlap: a list that is longer than its heap is a ring.
    let mut left: usize = heap.iter().map(|block| block.len()).sum();
    while next != 0 {
        void.extend(reruns.iter().filter(|rerun| rerun.newest == next));
        let read = read_record(next, heap, terms)
            .and_then(|(record, after, len)| Some((left.checked_sub(len)?, record, after)));
        let Some((room, record, after)) = read else {
            tracing::warn!(
                link = next,
                "a failure record is damaged; it and older ones are not reported"
            );
            break;
        };
        left = room;
        if !void
            .iter()
            .any(|rerun| rerun.positions.contains(&record.position))
        {
            records.push(record);
        }
        next = after;
    }
    records
}

/// The record behind a link, the next link, and how many bytes the record takes.
fn read_record(link: u64, heap: &[Arc<Block>], terms: &JobTerms) -> Option<(Record, u64, usize)> {
    let offset = link.checked_sub(1)?;
    let (block, within) = heap.iter().find_map(|block| {
        let within = (offset as usize).checked_sub(block.offset())?;
        (within < block.len()).then_some((block, within))
    })?;
    let head: SharedSlice<AtomicU64> = SharedSlice::in_block(block, within, HEAD).ok()?;
    let word = |i: usize| head[i].load(Ordering::Relaxed);
    let (text, len) = match word(5) {
        DROPPED => (DROPPED_TEXT.clone(), 0),
        len => {
            let len = usize::try_from(len).ok().filter(|len| *len <= MAX_TEXT)?;
            let text = SharedSlice::in_block(block, within + 8 * HEAD, bytes::words_for(len)).ok()?;
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

/// One failure a position, ascending: what the parent found (deaths) before what workers wrote, newer before older.
/// `attempts` says how often a position was started.
pub(crate) fn merge(lost: Vec<Failure>, records: Vec<Record>, attempts: impl Fn(u64) -> u32) -> Vec<Failure> {
    let mut failures = lost;
    failures.extend(records.into_iter().map(|record| Failure {
        position: record.position,
        span: record.span,
        kind: match record.kind {
            RecordKind::Error => FailureKind::Error,
            RecordKind::Panic => FailureKind::Panic,
        },
        message: record.text,
        worker: record.worker,
        pid: record.pid,
        attempts: attempts(record.position),
        peak_memory: None,
    }));
    // Stable: of those about one position the first stays.
    failures.sort_by_key(|failure| failure.position);
    failures.dedup_by_key(|failure| failure.position);
    // Spans do not overlap, whatever the records say.
    for i in 1..failures.len() {
        let next = failures[i].position;
        let before = &mut failures[i - 1];
        before.span = before.span.min(next - before.position);
    }
    failures
}

/// The positions that are final, as ascending disjoint ranges.
pub(crate) fn finals(status: &[StatusWord], terms: &JobTerms) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for (chunk, word) in (0..).zip(status) {
        let all = terms.positions_of(chunk, 1);
        let end = match word.load(terms.tag()) {
            ChunkStatus::Final => all.end,
            ChunkStatus::Progress(n) => (all.start + u64::from(n)).min(all.end),
        };
        match ranges.last_mut() {
            Some(last) if last.end == all.start => last.end = end,
            _ if end > all.start => ranges.push(all.start..end),
            _ => {}
        }
    }
    ranges
}

/// Ranges without some positions. Both ascend.
pub(crate) fn without(ranges: Vec<Range<u64>>, positions: &[u64]) -> Vec<Range<u64>> {
    let mut left = Vec::with_capacity(ranges.len());
    let mut holes = positions.iter().copied().peekable();
    for mut range in ranges {
        while let Some(hole) = holes.next_if(|hole| *hole < range.end) {
            if hole > range.start {
                left.push(range.start..hole);
            }
            range.start = range.start.max(hole + 1);
        }
        if !range.is_empty() {
            left.push(range);
        }
    }
    left
}
