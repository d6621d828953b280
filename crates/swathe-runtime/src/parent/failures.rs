//! What the parent knows of a job's failures: of a round, from its records and its own; of all rounds so far.

use std::{ops::Range, sync::Arc};

use swathe_memory::Block;
use swathe_protocol::JobTerms;

use crate::{
    job::{Failure, FailureKind, Retries},
    parent::retry::Round,
    shared::{
        picks::Pick,
        records::{Record, RecordKind, read_record},
    },
};

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

/// What a job knows about its failed positions after the rounds so far: ascending, each once.
#[derive(Debug, Default)]
pub(crate) struct Failures(Vec<Failure>);

impl Failures {
    /// What a round brought, complete or not.
    pub(crate) fn settle(&mut self, round: &Round, found: Vec<Failure>) {
        if round.picks.is_empty() {
            self.0 = found;
            return;
        }
        let picked = |failure: &Failure| {
            round
                .picks
                .binary_search_by_key(&failure.position, |pick| pick.first)
        };
        let mut found = found;
        found.retain(|failure| picked(failure).is_ok());
        let before = std::mem::take(&mut self.0);
        let mut found = found.into_iter().peekable();
        let mut numbers = round.picks.iter().enumerate().peekable();
        // Everything ascends. What was not run again has failed as it had.
        for old in before {
            while found.peek().is_some_and(|new| new.position < old.position) {
                self.0.extend(found.next());
            }
            while numbers.next_if(|(_, pick)| pick.first < old.position).is_some() {}
            let again = numbers.next_if(|(_, pick)| pick.first == old.position);
            let new = found.next_if(|new| new.position == old.position);
            let done = again.is_some_and(|(number, _)| round.is_final(number));
            match new {
                Some(new) => self.0.push(new),
                None if done => {}
                None => self.0.push(old),
            }
        }
        self.0.extend(found);
    }

    /// What may be tried again after a complete round. Lost positions have had their tries.
    pub(crate) fn retryable(&self, retries: Retries, attempt: u32) -> Vec<Pick> {
        if attempt > retries.more {
            return Vec::new();
        }
        let again = |kind: &FailureKind| !matches!(kind, FailureKind::Lost(_));
        let failures = self.0.iter().filter(|failure| again(&failure.kind));
        let pick = |failure: &Failure| Pick {
            first: failure.position,
            len: failure.span,
        };
        failures.map(pick).collect()
    }

    pub(crate) fn contains(&self, position: u64) -> bool {
        self.0
            .binary_search_by_key(&position, |failure| failure.position)
            .is_ok()
    }

    pub(crate) fn into_vec(self) -> Vec<Failure> {
        self.0
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// How many positions have failed.
    pub(crate) fn count(&self) -> u64 {
        self.0.iter().map(|failure| failure.span).sum()
    }
}
