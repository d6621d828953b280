//! Failure records: written by workers into a job's heap, read by the parent when the job is over.
//!
//! A record is published by one compare-exchange on the job's list head; a worker that dies before leaves a record that
//! nobody sees, one that dies after leaves it whole.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use swathe_memory::{Block, SharedSlice};
use swathe_protocol::{ChunkStatus, JobCell, JobTerms, StatusWord, Tag};

use crate::{
    bytes,
    heap::WorkerHeap,
    job::{Failure, FailureKind},
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
    pub(crate) text: String,
}

/// next, position, span, kind, worker and pid, length of the text; then the text.
const HEAD: usize = 6;
/// Longest text kept, bytes.
const MAX_TEXT: usize = 64 << 10;

/// Worker side: writes a record and publishes it.
pub(crate) fn push_record(record: &Record, heap: &mut WorkerHeap, cell: &JobCell) -> Result<(), String> {
    let mut end = record.text.len().min(MAX_TEXT);
    while !record.text.is_char_boundary(end) {
        end -= 1;
    }
    let text = &record.text.as_bytes()[..end];
    let span = heap.allocate(8 * (HEAD + bytes::words_for(text.len())))?;
    let words: SharedSlice<AtomicU64> = SharedSlice::at(
        heap.data(),
        span.offset as usize,
        HEAD + bytes::words_for(text.len()),
    )
    .map_err(|e| e.to_string())?;
    let who = u64::from(record.worker) << 32 | u64::from(record.pid);
    let fixed = [
        record.position,
        record.span,
        record.kind as u64,
        who,
        text.len() as u64,
    ];
    for (word, value) in words[1..].iter().zip(fixed) {
        word.store(value, Ordering::Relaxed);
    }
    bytes::write(&words[HEAD..], text);
    cell.push_failure(link_to(span.offset), |next| words[0].store(next, Ordering::Relaxed));
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
    let mut records = Vec::new();
    let mut void: Vec<&Rerun> = Vec::new();
    let mut next = head;
    // Records do not overlap: a list that is longer than its heap is a ring.
    let mut left: usize = heap.iter().map(|block| block.len()).sum();
    while next != 0 {
        void.extend(reruns.iter().filter(|rerun| rerun.newest == next));
        let room = |record: &Record| left.checked_sub(8 * (HEAD + bytes::words_for(record.text.len())));
        let read =
            read_record(next, heap, terms).and_then(|(record, after)| Some((room(&record)?, record, after)));
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

fn read_record(link: u64, heap: &[Arc<Block>], terms: &JobTerms) -> Option<(Record, u64)> {
    let offset = link.checked_sub(1)?;
    let (block, within) = heap.iter().find_map(|block| {
        let within = (offset as usize).checked_sub(block.offset())?;
        (within < block.len()).then_some((block, within))
    })?;
    let head: SharedSlice<AtomicU64> = SharedSlice::in_block(block, within, HEAD).ok()?;
    let word = |i: usize| head[i].load(Ordering::Relaxed);
    let len = usize::try_from(word(5)).ok().filter(|len| *len <= MAX_TEXT)?;
    let text = SharedSlice::in_block(block, within + 8 * HEAD, bytes::words_for(len)).ok()?;
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
        text: String::from_utf8_lossy(&bytes::read(&text, len)).into_owned(),
    };
    (inside && span > 0).then_some((record, word(0)))
}

/// One failure a position, ascending: what the parent found (deaths) before what workers wrote, newer before older.
/// `attempts` says how often a position was started.
pub(crate) fn merge(lost: Vec<Failure>, records: Vec<Record>, attempts: impl Fn(u64) -> u32) -> Vec<Failure> {
    let mut by_position: BTreeMap<u64, Failure> = BTreeMap::new();
    for failure in lost {
        by_position.entry(failure.position).or_insert(failure);
    }
    for record in records {
        let kind = match record.kind {
            RecordKind::Error => FailureKind::Error,
            RecordKind::Panic => FailureKind::Panic,
        };
        by_position.entry(record.position).or_insert(Failure {
            position: record.position,
            span: record.span,
            kind,
            message: record.text,
            worker: record.worker,
            pid: record.pid,
            attempts: attempts(record.position),
            peak_memory: None,
        });
    }
    let mut failures: Vec<Failure> = by_position.into_values().collect();
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

/// The chunks that are not final, as ascending disjoint runs.
pub(crate) fn unfinished(status: &[StatusWord], tag: Tag) -> Vec<Range<u32>> {
    let mut runs: Vec<Range<u32>> = Vec::new();
    for (chunk, word) in (0..).zip(status) {
        if word.load(tag) == ChunkStatus::Final {
            continue;
        }
        match runs.last_mut() {
            Some(last) if last.end == chunk => last.end = chunk + 1,
            _ => runs.push(chunk..chunk + 1),
        }
    }
    runs
}
