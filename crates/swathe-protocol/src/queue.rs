#![doc = include_str!("queue.md")]

use crate::sync::{AtomicU64, Ordering};
use core::{convert::Infallible, fmt};

/// The most nodes a queue can have: an entry names its node in 16 bits, and zero there means "none".
pub const MAX_NODES: usize = NODE_MASK as usize;

/// The most messages a queue can hold.
pub const MAX_CAPACITY: usize = 1 << 15;

// Entry: lap in the upper 48 bits, node index + 1 in the lower 16 (0: empty). An entry's words only ever grow:
// empty(0) < full(0, _) < empty(1) < full(1, _) < ..., so one subtraction tells how far an entry is.
const NODE_BITS: u32 = 16;
const NODE_MASK: u64 = (1 << NODE_BITS) - 1;
const LAP: u64 = 1 << NODE_BITS;

// Owner word of a node: a tag in the lower two bits, the owner's id or the ticket above.
const FREE: u64 = 0;
const FILLING: u64 = 1;
const PLACED: u64 = 2;
const TAG_BITS: u32 = 2;
const TAG_MASK: u64 = (1 << TAG_BITS) - 1;

/// Words in a pair of cache lines: adjacent lines are fetched together, so what different processes write lies that
/// far apart.
const PAD: usize = 16;
const WORD: usize = size_of::<u64>();

/// A bounded queue of byte messages over borrowed words, for any number of producers and consumers in any number of
/// processes. All zero words are the empty queue.
///
/// No operation waits for another user of the queue, alive or dead; see the [module's page](self).
#[derive(Clone, Copy, Debug)]
pub struct QueueView<'a> {
    head: &'a AtomicU64,
    tail: &'a AtomicU64,
    entries: &'a [AtomicU64],
    owners: &'a [AtomicU64],
    /// For each node one word of length, then the message.
    payload: &'a [AtomicU64],
}

/// How many words a queue takes, and where in them its parts lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueShape {
    capacity: usize,
    nodes: usize,
    node_words: usize,
    words: usize,
}

/// Why the words or sizes given do not make a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ShapeError {
    /// The capacity is not a power of two in `1..=MAX_CAPACITY`.
    Capacity(usize),
    /// The number of nodes is not in `capacity..=MAX_NODES`.
    Nodes {
        /// Nodes given.
        nodes: usize,
        /// Capacity of the queue, in messages.
        capacity: usize,
    },
    /// The payload words cannot be dealt evenly to the nodes, or leave no word for the length.
    Payload {
        /// Payload words given.
        words: usize,
        /// Nodes given.
        nodes: usize,
    },
    /// Fewer words than the shape needs.
    Words {
        /// Words given.
        words: usize,
        /// Words needed.
        needed: usize,
    },
    /// The queue would be larger than the address space.
    TooLarge {
        /// Longest message asked for, in bytes.
        max_len: usize,
    },
}

/// Why a message was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PushError {
    /// The queue held as many messages as it can.
    Full,
    /// The message is longer than a node.
    TooLong {
        /// Length of the message, in bytes.
        len: usize,
        /// Longest message, in bytes.
        max: usize,
    },
    /// Every node looked at was in use: by a queued message, by another producer, or by a dead one that was not
    /// recovered yet. Passes like [`PushError::Full`].
    NoNode,
}

/// Why no message was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PopError {
    /// The buffer could not hold every message of this queue. Nothing was taken.
    ShortBuffer {
        /// Length of the buffer, in bytes.
        len: usize,
        /// Longest message, in bytes.
        max: usize,
    },
}

/// What an operation has just done to the shared words; a process may die right after any of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueueStep {
    /// A producer made a free node its own.
    Claimed,
    /// A producer stored one word of its message.
    Word,
    /// A producer stored the length: the node is complete.
    Filled,
    /// The message is in the queue. A producer's point of no return.
    Linked,
    /// The node will be free as soon as its message is taken.
    Placed,
    /// A producer found no room and gave its node back.
    Released,
    /// A consumer copied a message that it does not yet own.
    Copied,
    /// The message has left the queue. A consumer's point of no return.
    Taken,
    /// `head` or `tail` was moved past a ticket that was done with, or somebody else was faster.
    Advanced,
}

/// What the entry of a ticket looks like to somebody who holds that ticket.
enum Seen {
    /// A lap behind: still holds the message of one lap ago.
    Behind,
    Empty,
    Full {
        node: usize,
    },
    /// The message of this ticket was taken.
    Past,
}

impl QueueShape {
    /// A queue for `capacity` messages of at most `max_len` bytes.
    ///
    /// `nodes` is where messages lie: a node for each queued message, one for each producer that is inside a push, one
    /// for each producer that died there and was not recovered yet. `2 * capacity` is a good number.
    pub fn new(capacity: usize, nodes: usize, max_len: usize) -> Result<Self, ShapeError> {
        check(capacity, nodes)?;
        let node_words = 1 + max_len.div_ceil(WORD);
        // Two producers never write the same cache line.
        let payload = node_words.checked_next_multiple_of(PAD / 2).and_then(|words| {
            let words = (words, words.checked_mul(nodes)?);
            (words.1 <= isize::MAX as usize / WORD / 2).then_some(words)
        });
        let (node_words, payload) = payload.ok_or(ShapeError::TooLarge { max_len })?;
        let words = 2 * PAD + capacity.next_multiple_of(PAD) + nodes.next_multiple_of(PAD) + payload;
        Ok(Self {
            capacity,
            nodes,
            node_words,
            words,
        })
    }

    /// Number of 8-byte words the queue lies in. They should start on a 128-byte boundary.
    pub const fn words(&self) -> usize {
        self.words
    }

    /// Most messages queued at once.
    pub const fn capacity(&self) -> usize {
        self.capacity
    }

    /// Number of nodes.
    pub const fn nodes(&self) -> usize {
        self.nodes
    }

    /// Longest message in bytes: what was asked for, rounded up to what fits.
    pub const fn max_len(&self) -> usize {
        (self.node_words - 1) * WORD
    }
}

fn check(capacity: usize, nodes: usize) -> Result<(), ShapeError> {
    if !capacity.is_power_of_two() || capacity > MAX_CAPACITY {
        return Err(ShapeError::Capacity(capacity));
    }
    if !(capacity..=MAX_NODES).contains(&nodes) {
        return Err(ShapeError::Nodes { nodes, capacity });
    }
    Ok(())
}

impl<'a> QueueView<'a> {
    /// Lays a queue over its words, each part given by itself: an entry for each message it can hold (a power of two),
    /// an owner word for each node, and for each node the same number of payload words, the first for the length.
    pub fn new(
        head: &'a AtomicU64,
        tail: &'a AtomicU64,
        entries: &'a [AtomicU64],
        owners: &'a [AtomicU64],
        payload: &'a [AtomicU64],
    ) -> Result<Self, ShapeError> {
        check(entries.len(), owners.len())?;
        if payload.is_empty() || !payload.len().is_multiple_of(owners.len()) {
            return Err(ShapeError::Payload {
                words: payload.len(),
                nodes: owners.len(),
            });
        }
        Ok(Self {
            head,
            tail,
            entries,
            owners,
            payload,
        })
    }

    /// Lays a queue of `shape` over the first [`QueueShape::words`] of `words`.
    pub fn over(shape: &QueueShape, words: &'a [AtomicU64]) -> Result<Self, ShapeError> {
        let short = ShapeError::Words {
            words: words.len(),
            needed: shape.words,
        };
        let words = words.get(..shape.words).ok_or(short)?;
        let (ends, rest) = words.split_at(2 * PAD);
        let (entries, rest) = rest.split_at(shape.capacity.next_multiple_of(PAD));
        let (owners, payload) = rest.split_at(shape.nodes.next_multiple_of(PAD));
        Self::new(
            &ends[0],
            &ends[PAD],
            &entries[..shape.capacity],
            &owners[..shape.nodes],
            payload,
        )
    }

    /// Most messages queued at once.
    pub fn capacity(&self) -> usize {
        self.entries.len()
    }

    /// Longest message, in bytes.
    pub fn max_len(&self) -> usize {
        (self.node_words() - 1) * WORD
    }

    /// Number of messages queued: exact while nobody else uses the queue, at other times a hint.
    pub fn len(&self) -> usize {
        let head = self.head.load(Ordering::Acquire);
        let head = head.wrapping_add(u64::from(matches!(self.see(head), Seen::Past)));
        let tail = self.tail.load(Ordering::Acquire);
        let tail = tail.wrapping_add(u64::from(matches!(
            self.see(tail),
            Seen::Full { .. } | Seen::Past
        )));
        (tail.wrapping_sub(head) as i64).clamp(0, self.entries.len() as i64) as usize
    }

    /// Whether no message is queued, at this instant.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Queues a message. `owner` is the id under which [`recover`](Self::recover) will be called should the calling
    /// process die; threads of one process share one.
    pub fn push(&self, owner: u32, bytes: &[u8]) -> Result<(), PushError> {
        let Ok(done) = self.push_stepwise(owner, bytes, |_| Ok::<_, Infallible>(()));
        done
    }

    /// Takes the oldest message into the front of `out` and returns its length in bytes, or `None` when the queue is
    /// empty. `out` must have room for [`max_len`](Self::max_len) bytes, whatever this message needs; what it holds
    /// behind the message is undefined. Should the process die now, the message is gone with it.
    pub fn pop(&self, out: &mut [u8]) -> Result<Option<usize>, PopError> {
        let Ok(done) = self.pop_stepwise(out, |_| Ok::<_, Infallible>(()));
        done
    }

    /// [`push`](Self::push), calling `step` after each change of the shared words; an error from it ends the operation
    /// on the spot, which leaves the words as a death there would. This is for tests that stop (or kill) a producer
    /// everywhere.
    pub fn push_stepwise<S>(
        &self,
        owner: u32,
        bytes: &[u8],
        mut step: impl FnMut(QueueStep) -> Result<(), S>,
    ) -> Result<Result<(), PushError>, S> {
        if bytes.len() > self.max_len() {
            return Ok(Err(PushError::TooLong {
                len: bytes.len(),
                max: self.max_len(),
            }));
        }
        let ticket = self.tail.load(Ordering::Acquire);
        if matches!(self.see(ticket), Seen::Behind) {
            return Ok(Err(PushError::Full)); // before a node is touched: a full queue is polled at little cost
        }
        let Some(node) = self.claim(owner, ticket) else {
            return Ok(Err(PushError::NoNode));
        };
        step(QueueStep::Claimed)?;
        self.fill(node, bytes, &mut step)?;
        loop {
            let ticket = self.tail.load(Ordering::Acquire);
            match self.see(ticket) {
                Seen::Behind => {
                    // SYNC queue-node: a free node's old words happen before those of its next owner.
                    self.owners[node].store(FREE, Ordering::Release);
                    step(QueueStep::Released)?;
                    return Ok(Err(PushError::Full));
                }
                Seen::Empty => {
                    // SYNC queue-message: pairs with the acquire in `see` of the consumer that copies the node.
                    if self.change(ticket, self.empty(ticket), self.full(ticket, node)) {
                        step(QueueStep::Linked)?;
                        // Relaxed: whoever claims the node next has seen its entry changed, which is the order it needs.
                        self.owners[node].store(placed(ticket), Ordering::Relaxed);
                        step(QueueStep::Placed)?;
                        advance(self.tail, ticket);
                        step(QueueStep::Advanced)?;
                        return Ok(Ok(()));
                    }
                }
                Seen::Full { .. } | Seen::Past => {
                    self.pass(self.tail, ticket);
                    step(QueueStep::Advanced)?;
                }
            }
        }
    }

    /// [`pop`](Self::pop), calling `step` after each change of the shared words (and after the copy); an error from it
    /// ends the operation on the spot, which leaves the words as a death there would.
    pub fn pop_stepwise<S>(
        &self,
        out: &mut [u8],
        mut step: impl FnMut(QueueStep) -> Result<(), S>,
    ) -> Result<Result<Option<usize>, PopError>, S> {
        if out.len() < self.max_len() {
            return Ok(Err(PopError::ShortBuffer {
                len: out.len(),
                max: self.max_len(),
            }));
        }
        loop {
            let ticket = self.head.load(Ordering::Acquire);
            match self.see(ticket) {
                Seen::Behind | Seen::Empty => return Ok(Ok(None)),
                Seen::Full { node } => {
                    let copied = self.copy(node, out);
                    step(QueueStep::Copied)?;
                    // SYNC queue-node: the copy happens before the writes of whoever finds the node free (`claim`).
                    // It also proves the copy whole: until this very change nobody could find the node free.
                    if self.change(
                        ticket,
                        self.full(ticket, node),
                        self.empty(ticket).wrapping_add(LAP),
                    ) {
                        step(QueueStep::Taken)?;
                        advance(self.head, ticket);
                        step(QueueStep::Advanced)?;
                        // An entry that names no node was never written by a push: drop it, the queue goes on.
                        if copied.is_some() {
                            return Ok(Ok(copied));
                        }
                    }
                }
                Seen::Past => {
                    self.pass(self.head, ticket);
                    step(QueueStep::Advanced)?;
                }
            }
        }
    }

    /// Makes usable again what `owner` held when it died, and returns the number of nodes that were: at most one for
    /// each of its threads. A message that was already linked stays in the queue.
    ///
    /// Only for an owner that is known to be dead (reaped, not suspected), and before its id is given to anybody else:
    /// a number that is never used twice is a better id than a process id. Calling it again, or from two processes at
    /// once, changes nothing.
    pub fn recover(&self, owner: u32) -> usize {
        let mut found = 0;
        for (node, word) in self.owners.iter().enumerate() {
            if word.load(Ordering::Relaxed) != filling(owner) {
                continue;
            }
            // The dead link nothing any more, and a linked node stays where it is until it is taken: so a look at each
            // entry in turn is as good as a look at all of them at once.
            let next = self.find(node).map_or(FREE, placed);
            // SYNC queue-node: as where a producer gives its node back. What the dead one wrote happened before it was
            // reaped.
            let swap = word.compare_exchange(filling(owner), next, Ordering::Release, Ordering::Relaxed);
            found += usize::from(swap.is_ok());
        }
        found
    }

    /// Makes a free node the owner's. The search starts where `ticket` says, as consecutive tickets find consecutive
    /// nodes free.
    fn claim(&self, owner: u32, ticket: u64) -> Option<usize> {
        let nodes = self.owners.len();
        let first = (ticket % nodes as u64) as usize;
        (first..nodes).chain(0..first).find(|&node| {
            let seen = self.owners[node].load(Ordering::Relaxed);
            let free = match seen & TAG_MASK {
                // SYNC queue-node: `see` acquires the change with which a consumer took the message.
                PLACED => matches!(self.see(seen >> TAG_BITS), Seen::Past),
                _ => seen == FREE,
            };
            // SYNC queue-node: acquires the release of whoever gave the node back.
            let swap =
                |new| self.owners[node].compare_exchange(seen, new, Ordering::Acquire, Ordering::Relaxed);
            free && swap(filling(owner)).is_ok()
        })
    }

    fn fill<S>(
        &self,
        node: usize,
        bytes: &[u8],
        step: &mut impl FnMut(QueueStep) -> Result<(), S>,
    ) -> Result<(), S> {
        let size = self.node_words();
        let (length, words) = (
            &self.payload[node * size],
            &self.payload[node * size + 1..][..size - 1],
        );
        for (word, bytes) in words.iter().zip(bytes.chunks(WORD)) {
            let mut eight = [0; WORD];
            eight[..bytes.len()].copy_from_slice(bytes);
            word.store(u64::from_le_bytes(eight), Ordering::Relaxed);
            step(QueueStep::Word)?;
        }
        length.store(bytes.len() as u64, Ordering::Relaxed);
        step(QueueStep::Filled)
    }

    /// Copies a message that may be overwritten meanwhile, so any length and any bytes may come out; `None` if there is
    /// no such node.
    fn copy(&self, node: usize, out: &mut [u8]) -> Option<usize> {
        let size = self.node_words();
        let (length, words) = self.payload.get(node * size..)?.get(..size)?.split_first()?;
        let len = usize::try_from(length.load(Ordering::Relaxed))
            .unwrap_or(usize::MAX)
            .min(self.max_len());
        for (word, bytes) in words.iter().zip(out[..len].chunks_mut(WORD)) {
            bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_le_bytes()[..bytes.len()]);
        }
        Some(len)
    }

    /// The ticket under which a node is linked.
    fn find(&self, node: usize) -> Option<u64> {
        self.entries.iter().enumerate().find_map(|(index, entry)| {
            let seen = entry.load(Ordering::Acquire);
            let ticket = (seen >> NODE_BITS) << self.shift() | index as u64;
            (seen == self.full(ticket, node)).then_some(ticket)
        })
    }

    /// Looks at the entry of a ticket. The acquire pairs with the release of every change of an entry.
    fn see(&self, ticket: u64) -> Seen {
        let ahead = self
            .entry(ticket)
            .load(Ordering::Acquire)
            .wrapping_sub(self.empty(ticket));
        match ahead as i64 {
            ..0 => Seen::Behind,
            0 => Seen::Empty,
            1..LAP_SIGNED => Seen::Full {
                node: (ahead - 1) as usize,
            },
            LAP_SIGNED.. => Seen::Past,
        }
    }

    /// Moves an end past a ticket that is done with.
    ///
    /// No entry is two laps ahead of an end that lies on it: to get there, somebody must have seen that end a lap
    /// further. Found so by a wild write, it is put back, or the end would be moved once for each of up to 2^47 laps.
    fn pass(&self, end: &AtomicU64, ticket: u64) {
        // SYNC queue-end: acquires, through the entry, whatever end its last changer saw; so the look at `end` is the
        // later one.
        let seen = self.entry(ticket).load(Ordering::Acquire);
        let ahead = seen.wrapping_sub(self.empty(ticket)) as i64;
        if ahead >= 2 * LAP_SIGNED && end.load(Ordering::Acquire) == ticket {
            self.change(ticket, seen, self.empty(ticket).wrapping_add(LAP));
        } else {
            advance(end, ticket);
        }
    }

    fn change(&self, ticket: u64, from: u64, to: u64) -> bool {
        self.entry(ticket)
            .compare_exchange(from, to, Ordering::Release, Ordering::Relaxed)
            .is_ok()
    }

    fn entry(&self, ticket: u64) -> &'a AtomicU64 {
        &self.entries[ticket as usize & (self.entries.len() - 1)]
    }

    fn empty(&self, ticket: u64) -> u64 {
        (ticket >> self.shift()) << NODE_BITS
    }

    fn full(&self, ticket: u64, node: usize) -> u64 {
        self.empty(ticket) | (node as u64 + 1)
    }

    fn shift(&self) -> u32 {
        self.entries.len().trailing_zeros()
    }

    fn node_words(&self) -> usize {
        self.payload.len() / self.owners.len()
    }
}

const LAP_SIGNED: i64 = LAP as i64;

const fn filling(owner: u32) -> u64 {
    (owner as u64) << TAG_BITS | FILLING
}

const fn placed(ticket: u64) -> u64 {
    ticket << TAG_BITS | PLACED
}

/// Moves an end past a ticket that is done with. Whoever notices does it, so nobody depends on the one whose turn it
/// was; that it fails when another was faster is as good.
fn advance(end: &AtomicU64, ticket: u64) {
    // SYNC queue-end: pairs with the acquire load of the end; who sees it moved sees the entries behind it changed.
    let _ = end.compare_exchange(
        ticket,
        ticket.wrapping_add(1),
        Ordering::Release,
        Ordering::Relaxed,
    );
}

impl fmt::Display for ShapeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Capacity(capacity) => write!(
                f,
                "a queue holds a power of two of messages, at most {MAX_CAPACITY}, but {capacity} were asked for; \
                 round up to the next power of two"
            ),
            Self::Nodes { nodes, capacity } => write!(
                f,
                "a queue for {capacity} messages needs from {capacity} to {MAX_NODES} nodes, but has {nodes}; \
                 {} is a good number",
                capacity.saturating_mul(2).min(MAX_NODES)
            ),
            Self::Payload { words, nodes } => write!(
                f,
                "the {words} payload words of a queue cannot be dealt evenly to its {nodes} nodes; \
                 give each the same number of words, at least 1"
            ),
            Self::Words { words, needed } => {
                write!(
                    f,
                    "the queue needs {needed} words, but lies over {words}; reserve `QueueShape::words` words"
                )
            }
            Self::TooLarge { max_len } => write!(
                f,
                "a queue of messages of {max_len} bytes would not fit into the address space; \
                 queue a reference to the bytes instead"
            ),
        }
    }
}

impl fmt::Display for PushError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the queue is full; push again after a message was taken"),
            Self::TooLong { len, max } => write!(
                f,
                "the message has {len} bytes, but this queue takes at most {max}; make the queue with longer messages \
                 or queue a reference to the bytes"
            ),
            Self::NoNode => f.write_str(
                "every node of the queue is in use; push again, and recover producers that died, \
                 or make the queue with more nodes",
            ),
        }
    }
}

impl fmt::Display for PopError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ShortBuffer { len, max } => write!(
                f,
                "the buffer has {len} bytes, but a message of this queue may have {max}; \
                 give a buffer of `max_len` bytes"
            ),
        }
    }
}

impl core::error::Error for ShapeError {}
impl core::error::Error for PushError {}
impl core::error::Error for PopError {}
