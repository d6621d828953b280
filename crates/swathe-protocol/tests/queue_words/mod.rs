//! A queue with its words, for the tests with loom and for those without: messages that show when they are torn, users
//! that die.

use swathe_protocol::{
    queue::{PushError, QueueStep, QueueView},
    sync::{AtomicU64, Ordering},
};

/// The words of a queue, each zero at first, as in a fresh segment.
pub(crate) struct Words {
    pub(crate) head: AtomicU64,
    pub(crate) tail: AtomicU64,
    pub(crate) entries: Vec<AtomicU64>,
    pub(crate) owners: Vec<AtomicU64>,
    pub(crate) payload: Vec<AtomicU64>,
}

/// Each message is the same number twice, so that a torn one shows.
pub(crate) const NODE_WORDS: usize = 3;

/// Claimed, two words, filled, linked, placed, advanced: a push whom nobody disturbs.
pub(crate) const PUSH_STEPS: usize = 7;

/// Copied, taken, advanced.
pub(crate) const POP_STEPS: usize = 3;

pub(crate) const DEAD: u32 = 0;
pub(crate) const ALIVE: u32 = u32::MAX;

pub(crate) fn zeros(count: usize) -> Vec<AtomicU64> {
    (0..count).map(|_| AtomicU64::new(0)).collect()
}

impl Words {
    pub(crate) fn new(capacity: usize, nodes: usize) -> Self {
        Self {
            head: AtomicU64::new(0),
            tail: AtomicU64::new(0),
            entries: zeros(capacity),
            owners: zeros(nodes),
            payload: zeros(nodes * NODE_WORDS),
        }
    }

    pub(crate) fn queue(&self) -> QueueView<'_> {
        QueueView::new(&self.head, &self.tail, &self.entries, &self.owners, &self.payload).unwrap()
    }

    pub(crate) fn push(&self, value: u64) -> Result<(), PushError> {
        self.queue().push(ALIVE, &message(value))
    }

    pub(crate) fn pop(&self) -> Option<u64> {
        let mut out = [0; 16];
        self.queue().pop(&mut out).unwrap().map(|len| value(&out[..len]))
    }

    /// A producer that dies right after its step number `steps`. Returns whether its message got into the queue.
    pub(crate) fn push_and_die(&self, owner: u32, value: u64, mut steps: usize) -> bool {
        let mut linked = false;
        let _ = self.queue().push_stepwise(owner, &message(value), |step| {
            linked |= step == QueueStep::Linked;
            count_down(&mut steps)
        });
        linked
    }

    /// A consumer that dies right after its step number `steps`. Returns what it took out of the queue, if it did.
    pub(crate) fn pop_and_die(&self, mut steps: usize) -> Option<u64> {
        let (mut out, mut taken) = ([0; 16], false);
        let _ = self.queue().pop_stepwise(&mut out, |step| {
            taken |= step == QueueStep::Taken;
            count_down(&mut steps)
        });
        taken.then(|| value(&out))
    }

    /// Takes what is queued, oldest first.
    pub(crate) fn drain(&self) -> Vec<u64> {
        std::iter::from_fn(|| self.pop()).collect()
    }

    /// How many nodes have an owner who neither gave them back nor placed them.
    pub(crate) fn held(&self) -> usize {
        self.owners
            .iter()
            .filter(|word| word.load(Ordering::Relaxed) & 3 == 1)
            .count()
    }

    /// Of an empty queue that nobody else uses: it holds as many as ever, in order, again and again.
    pub(crate) fn assert_works(&self, laps: u64) {
        let capacity = self.entries.len() as u64;
        for lap in 0..laps {
            assert_eq!(self.queue().len(), 0);
            for value in 0..capacity {
                assert_eq!(self.push(lap * 100 + value), Ok(()));
            }
            assert_eq!(self.push(9999), Err(PushError::Full));
            assert_eq!(self.queue().len() as u64, capacity);
            for value in 0..capacity {
                assert_eq!(self.pop(), Some(lap * 100 + value));
            }
            assert_eq!(self.pop(), None);
        }
    }
}

pub(crate) fn count_down(steps: &mut usize) -> Result<(), ()> {
    *steps -= 1;
    if *steps == 0 { Err(()) } else { Ok(()) }
}

pub(crate) fn message(value: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&value.to_le_bytes());
    bytes[8..].copy_from_slice(&value.to_le_bytes());
    bytes
}

pub(crate) fn value(bytes: &[u8]) -> u64 {
    let (first, second) = bytes.split_at(8);
    assert_eq!((bytes.len(), first), (16, second), "a torn message");
    u64::from_le_bytes(first.try_into().unwrap())
}
