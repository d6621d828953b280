//! Claims: a lane holds the run that one worker is at, in one job.
//!
//! There is a lane for each pair of job and worker, so that *which job* a claim belongs to follows from where it lies,
//! and a range read long ago can at worst fail its compare-exchange. The owner takes chunks from the front, thieves
//! take the upper half, both by one compare-exchange on the same word.

use crate::{
    job::JobTerms,
    sync::{AtomicU64, Ordering, fence},
};

/// Some consecutive chunks: `first..end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First chunk.
    pub first: u32,
    /// One past the last chunk.
    pub end: u32,
}

impl Span {
    /// Makes a span.
    #[inline]
    pub const fn new(first: u32, end: u32) -> Self {
        Self { first, end }
    }

    /// Number of chunks.
    #[inline]
    pub const fn len(self) -> u32 {
        self.end.saturating_sub(self.first)
    }

    /// Whether it holds no chunk.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.end <= self.first
    }

    const fn to_word(self) -> u64 {
        (self.first as u64) << 32 | self.end as u64
    }

    const fn from_word(word: u64) -> Self {
        Self {
            first: (word >> 32) as u32,
            end: word as u32,
        }
    }

    /// Its positions under the terms of a job.
    #[inline]
    pub fn positions(self, terms: &JobTerms) -> core::ops::Range<u64> {
        terms.positions_of(self.first, self.len())
    }
}

/// What a lane's owner had in hand, as recovery finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hand {
    /// Nothing, or only chunks that are counted already or were never taken.
    Empty,
    /// These chunks: taken and not yet counted.
    Held(Span),
}

/// One worker's lane in one job. All zero is the empty lane.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct Lane {
    /// The chunks that are still to be taken. Owner and thieves, by compare-exchange.
    range: AtomicU64,
    /// The chunks in hand: first, count, parity. Written by the owner alone.
    hand: AtomicU64,
    /// Chunks counted as final in this epoch, and the parity of the last hand. Written by the owner alone.
    done: AtomicU64,
}

const PARITY: u64 = 1;

impl Lane {
    /// The owner takes up to `want` chunks from the front.
    ///
    /// The hand is written before the claim: only the owner moves the front, so recovery tells from the front whether
    /// the claim happened.
    #[inline]
    pub fn take(&self, want: u32) -> Option<Span> {
        let parity = (self.done.load(Ordering::Relaxed) & PARITY) ^ PARITY;
        let mut seen = self.range.load(Ordering::Acquire);
        loop {
            let span = Span::from_word(seen);
            if span.is_empty() {
                return None;
            }
            let count = want.clamp(1, span.len());
            let hand = u64::from(span.first) << 32 | u64::from(count) << 1 | parity;
            // Release: the last hand is counted before this one is written, also for a death between the two.
            self.hand.store(hand, Ordering::Release);
            let rest = Span::new(span.first + count, span.end);
            match self
                .range
                .compare_exchange_weak(seen, rest.to_word(), Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return Some(Span::new(span.first, span.first + count)),
                Err(now) => seen = now,
            }
        }
    }

    /// The owner counts its hand as final, after it has published the chunks' status words.
    #[inline]
    pub fn count(&self, hand: Span) {
        let done = self.done.load(Ordering::Relaxed);
        // SYNC lane-count: pairs with `counted`; the slab and the status words come before.
        let next = ((done >> 1) + u64::from(hand.len())) << 1 | ((done & PARITY) ^ PARITY);
        self.done.store(next, Ordering::Release);
    }

    /// The owner fills its empty lane with a run.
    ///
    /// The hand is cleared first: a take that came to nothing, because thieves were faster, leaves a hand behind that
    /// only the front of the *old* run tells apart from a claim.
    #[inline]
    pub fn fill(&self, run: Span) {
        self.hand.store(0, Ordering::Relaxed);
        // SYNC lane-fill: pairs with the acquire in `take` and `steal`; the progress of earlier attempts comes before.
        self.range.store(run.to_word(), Ordering::Release);
    }

    /// What is left to take, at this instant.
    #[inline]
    pub fn waiting(&self) -> Span {
        Span::from_word(self.range.load(Ordering::Acquire))
    }

    /// A thief takes the upper half (all of a single chunk). The caller puts it into its own lane.
    pub fn steal(&self) -> Option<Span> {
        let mut seen = self.range.load(Ordering::Acquire);
        loop {
            let span = Span::from_word(seen);
            if span.is_empty() {
                return None;
            }
            let middle = span.first + span.len() / 2;
            let rest = Span::new(span.first, middle);
            match self
                .range
                .compare_exchange(seen, rest.to_word(), Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return Some(Span::new(middle, span.end)),
                Err(now) => seen = now,
            }
        }
    }

    /// The supervisor empties the lane of a dead owner.
    pub fn drain(&self) -> Span {
        Span::from_word(self.range.swap(0, Ordering::AcqRel))
    }

    /// What a dead owner had in hand. Call before [`Lane::drain`]; only for an owner that was reaped.
    pub fn hand(&self) -> Hand {
        let (hand, done) = (
            self.hand.load(Ordering::Acquire),
            self.done.load(Ordering::Acquire),
        );
        let first = (hand >> 32) as u32;
        let span = Span::new(first, first.saturating_add(hand as u32 >> 1));
        let counted = hand & PARITY == done & PARITY;
        // A claim moves the front past the hand's first chunk, and only the owner moves the front.
        let never_taken = self.waiting().first == span.first;
        if span.is_empty() || counted || never_taken {
            Hand::Empty
        } else {
            Hand::Held(span)
        }
    }

    /// The supervisor counts on behalf of a dead owner: `finals` chunks of its hand turned out to be final, and the
    /// hand is settled.
    pub fn settle(&self, finals: u32) {
        let done = self.done.load(Ordering::Relaxed);
        let next = ((done >> 1) + u64::from(finals)) << 1 | ((done & PARITY) ^ PARITY);
        self.done.store(next, Ordering::Release);
    }

    /// The parent clears a lane that nobody can be inside of.
    pub fn reset(&self) {
        self.range.store(0, Ordering::Relaxed);
        self.hand.store(0, Ordering::Relaxed);
        self.done.store(0, Ordering::Relaxed);
    }

    /// How many chunks this lane has counted in this epoch.
    #[inline]
    pub fn counted(&self) -> u64 {
        // SYNC lane-count: pairs with `count`.
        self.done.load(Ordering::Acquire) >> 1
    }
}

/// How many chunks all lanes have counted. Asked by a worker that ran out of work, after its own last count: of those
/// that ask, the last to count sees them all, because of the fence. Behind it is asked which lanes there are, too: a pool
/// may have got more workers, and one of them may have counted.
pub fn counted<'l>(lanes: impl FnOnce() -> &'l [Lane]) -> u64 {
    fence(Ordering::SeqCst);
    lanes().iter().map(Lane::counted).fold(0, u64::wrapping_add)
}
