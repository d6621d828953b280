//! The queue.

use std::{
    cell::Cell,
    fmt, hint,
    marker::PhantomData,
    sync::{Arc, OnceLock, atomic::AtomicU64},
    time::{Duration, Instant},
};

use rkyv::util::AlignedVec;
use swathe_memory::{MemoryError, Segment, SegmentId, SharedSlice, lease};
use swathe_os::{process, text::shown};
use swathe_protocol::queue::{MAX_NODES, PushError, QueueShape, QueueView, ShapeError};

use super::{
    FACTS, SharedKind, attach, body, create,
    doorbell::Doorbell,
    producers::{MAX_PRODUCERS, Producer, Producers},
    wrong,
};
use crate::{Datum, lower::Vouch};

/// The longest sleep without a look at the queue: what a wake that died with its sender costs.
pub(super) const NAP: Duration = Duration::from_millis(50);
/// How often a waiter looks before it sleeps.
const SPINS: u32 = 64;
/// Bytes of an item, unless asked otherwise.
const ITEM_BYTES: usize = 256;
/// Nodes beyond one an item: for producers that are inside a put, or died there.
const SPARE_NODES: usize = 64;
/// Where the doorbells lie in the header: each on its own cache line.
const ITEMS_BELL: usize = 64;
const ROOM_BELL: usize = 128;
/// Bytes of the table of producers, rounded so that the queue starts on a boundary of two cache lines.
const PRODUCER_BYTES: usize = (Producers::WORDS * 8).next_multiple_of(128);

thread_local! {
    static ENCODED: Cell<AlignedVec> = Cell::new(AlignedVec::new());
    static TAKEN: Cell<AlignedVec> = Cell::new(AlignedVec::new());
}

/// A queue that tasks and the parent put items into and get items from: bounded, first in first out, any number of
/// producers and consumers.
///
/// Its items are whatever may cross between processes (see [`Datum`]), copied in and out. It is a handle: cloning it
/// makes no new queue, and it crosses to the workers wherever an [`Array`](crate::Array) does.
///
/// No user can lock another out: a process may be killed at any instruction of any method, and the queue goes on. An
/// item that was put is delivered to exactly one [`get`](Self::get). What is lost with a process that is killed is only
/// what it had in hand: the item that it was putting and that was not yet in the queue, or one that it had just got.
///
/// In a process that was forked from the one that got the handle, putting and getting is refused
/// ([`QueueError::Forked`]); its length can be read.
///
/// A task that is run again because its worker died does again what it did before, so an element may put its items
/// twice. The parent makes the queue and must hold a handle for as long as workers are to find it. Items with handles in
/// them, such as arrays, are refused: nobody would know how long their memory must stay in place. Pass the array as a
/// parameter of the call, and put positions in it.
///
/// ```
/// use swathe::{Pool, Queue};
///
/// /// Items that need another look go back to the parent.
/// fn inspect(again: &Queue<(u64, String)>, x: u64) -> Result<u64, swathe::QueueError> {
///     if x % 40 == 0 {
///         again.put(&(x, format!("{x} looks odd")))?;
///     }
///     Ok(x)
/// }
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     swathe::init();
///     let pool = Pool::builder().processes(2).build()?;
///     let again = Queue::bounded(128)?;
///     pool.batch().with(&again)?.try_map(inspect, 0..100)?;
///     let mut odd = again.drain().collect::<Result<Vec<_>, _>>()?;
///     odd.sort();
///     assert_eq!(odd[1], (40, "40 looks odd".to_owned()));
///     assert_eq!(odd.len(), 3);
///     Ok(())
/// }
/// ```
pub struct Queue<T> {
    core: Arc<Core>,
    items: PhantomData<fn() -> T>,
}

struct Core {
    id: SegmentId,
    /// `fork_generation` of the process that made it.
    forks: u64,
    shape: QueueShape,
    words: SharedSlice<AtomicU64>,
    producers: Producers,
    /// Registered by the first put through this handle.
    producer: OnceLock<Producer>,
    /// Rung when an item was put.
    items_bell: Doorbell,
    /// Rung when an item was got.
    room_bell: Doorbell,
}

/// Why an item was not put, or not got.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// The queue holds as many items as it can.
    #[error("the queue is full: it holds {capacity} items; put again after some were got, or make it larger")]
    Full {
        /// Most items that it can hold.
        capacity: usize,
    },
    /// The item is too long.
    #[error(
        "the item takes {len} bytes, and this queue was made for items of at most {max}; make it with \
         Queue::with_item_bytes, or put the position of the data in an array that the call has as a parameter"
    )]
    TooLong {
        /// Length of the item, in bytes.
        len: usize,
        /// Longest item, in bytes.
        max: usize,
    },
    /// The item cannot cross to another process.
    #[error("the item cannot be put: {}", shown(message))]
    Encode {
        /// Why.
        message: String,
    },
    /// The item holds an array or another handle.
    #[error(
        "the item holds an array or another handle, and nobody would know how long its memory must stay in place; pass \
         it as a parameter of the call, and put positions in it"
    )]
    Handle,
    /// An item was taken out of the queue and cannot be understood: some process wrote where it should not.
    #[error("an item that was got cannot be used: {}", shown(message))]
    Decode {
        /// What was found.
        message: String,
    },
    /// Too many handles put into the queue.
    #[error(
        "{max} handles in this and other processes put into this queue already; share one handle among threads"
    )]
    Producers {
        /// How many can.
        max: usize,
    },
    /// Used in a process that was forked from the one that got the handle.
    #[error(
        "this queue's handle belongs to the process that made it, and this process was forked from that one: what it put \
         or got would be missing there; use a pipe, or let tasks of a pool use the queue"
    )]
    Forked,
    /// There cannot be a queue of these sizes.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// Memory could not be had.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

impl<T> Queue<T> {
    /// A queue for `capacity` items, rounded up to a power of two, at most 32768. An item may take 256 bytes, or what a
    /// `T` itself takes in memory, whichever is more.
    ///
    /// # Errors
    /// When the capacity is too large, or memory or file descriptors are short.
    pub fn bounded(capacity: usize) -> Result<Self, QueueError> {
        Self::with_item_bytes(capacity, ITEM_BYTES.max(size_of::<T>()))
    }

    /// As [`bounded`](Self::bounded), for items of at most `item_bytes` bytes each, rounded up to whole cache lines;
    /// see [`item_bytes`](Self::item_bytes). The queue takes about twice `capacity` times this, at once. A record takes
    /// somewhat more than its content: a `String` in it 8 bytes more, for instance.
    ///
    /// # Errors
    /// As [`bounded`](Self::bounded).
    pub fn with_item_bytes(capacity: usize, item_bytes: usize) -> Result<Self, QueueError> {
        let capacity = capacity.max(1).checked_next_power_of_two().unwrap_or(capacity);
        let nodes = capacity
            .saturating_mul(2)
            .max(capacity.saturating_add(SPARE_NODES))
            .min(MAX_NODES);
        let shape = QueueShape::new(capacity, nodes, item_bytes)?;
        let facts = [capacity, nodes, item_bytes].map(|n| n as u64);
        let segment = create(SharedKind::Queue, facts, PRODUCER_BYTES + shape.words() * 8)?;
        Ok(Self::over(&segment, shape)?)
    }

    pub(super) fn attach(id: SegmentId, vouch: Vouch) -> Result<Self, MemoryError> {
        let (segment, facts) = attach(SharedKind::Queue, id, vouch)?;
        Self::over(
            &segment,
            shape_of(facts).ok_or_else(|| wrong(&segment, "its header was damaged"))?,
        )
    }

    fn over(segment: &Arc<Segment>, shape: QueueShape) -> Result<Self, MemoryError> {
        let core = Core {
            id: segment.id(),
            forks: process::fork_generation(),
            shape,
            words: body(segment, PRODUCER_BYTES, shape.words())?,
            producers: Producers::at(segment, 0)?,
            producer: OnceLock::new(),
            items_bell: Doorbell::at(segment, ITEMS_BELL)?,
            room_bell: Doorbell::at(segment, ROOM_BELL)?,
        };
        Ok(Self {
            core: Arc::new(core),
            items: PhantomData,
        })
    }

    pub(super) fn id(&self) -> SegmentId {
        self.core.id
    }

    /// Most items that it can hold.
    pub fn capacity(&self) -> usize {
        self.core.shape.capacity()
    }

    /// Longest item, in bytes.
    pub fn item_bytes(&self) -> usize {
        self.core.shape.max_len()
    }

    /// How many items it holds: exact while nobody else uses it, at other times a hint.
    pub fn len(&self) -> usize {
        self.core.view().map_or(0, |view| view.len())
    }

    /// Whether it holds none, at this instant.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts an item, and waits for room if there is none.
    ///
    /// # Errors
    /// When the item is too long, holds a handle, or cannot be encoded.
    pub fn put<K>(&self, item: &T) -> Result<(), QueueError>
    where
        T: Datum<K>,
    {
        self.put_before(item, None)
    }

    /// As [`put`](Self::put), and waits no longer than this.
    ///
    /// # Errors
    /// As [`put`](Self::put), and [`QueueError::Full`] when there was no room in time.
    pub fn put_timeout<K>(&self, item: &T, timeout: Duration) -> Result<(), QueueError>
    where
        T: Datum<K>,
    {
        self.put_before(item, Some(timeout))
    }

    /// As [`put`](Self::put), and does not wait.
    ///
    /// # Errors
    /// As [`put`](Self::put), and [`QueueError::Full`] when there is no room.
    pub fn try_put<K>(&self, item: &T) -> Result<(), QueueError>
    where
        T: Datum<K>,
    {
        encoded(item, |bytes| self.core.push(bytes))
    }

    fn put_before<K>(&self, item: &T, timeout: Option<Duration>) -> Result<(), QueueError>
    where
        T: Datum<K>,
    {
        encoded(item, |bytes| {
            let put = wait(&self.core.room_bell, timeout, || match self.core.push(bytes) {
                Err(QueueError::Full { .. }) => Ok(None),
                done => done.map(Some),
            });
            put?.ok_or(QueueError::Full {
                capacity: self.capacity(),
            })
        })
    }

    /// Gets the oldest item, and waits for one if there is none.
    ///
    /// # Errors
    /// [`QueueError::Decode`] when the item cannot be used; it is out of the queue then.
    pub fn get<K>(&self) -> Result<T, QueueError>
    where
        T: Datum<K>,
    {
        loop {
            if let Some(item) = wait(&self.core.items_bell, None, || self.try_get())? {
                return Ok(item);
            }
        }
    }

    /// As [`get`](Self::get), and waits no longer than this: `None` when there was no item in time.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_timeout<K>(&self, timeout: Duration) -> Result<Option<T>, QueueError>
    where
        T: Datum<K>,
    {
        wait(&self.core.items_bell, Some(timeout), || self.try_get())
    }

    /// As [`get`](Self::get), and does not wait: `None` when there is no item.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn try_get<K>(&self) -> Result<Option<T>, QueueError>
    where
        T: Datum<K>,
    {
        let mut bytes = TAKEN.take();
        let popped = self.core.pop(&mut bytes);
        let item = popped.and_then(|len| {
            let decoded = len.map(|len| T::decode(&bytes[..len], Vouch::NOBODYS));
            decoded
                .transpose()
                .map_err(|message| QueueError::Decode { message })
        });
        TAKEN.set(bytes);
        item
    }

    /// Gets what is in the queue, one item at a time, without waiting. It ends when the queue is empty, or after
    /// [`capacity`](Self::capacity) items, so it does end while others put.
    pub fn drain<K>(&self) -> impl Iterator<Item = Result<T, QueueError>>
    where
        T: Datum<K>,
    {
        (0..self.capacity()).map_while(|_| self.try_get().transpose())
    }
}

impl Core {
    fn view(&self) -> Result<QueueView<'_>, ShapeError> {
        QueueView::over(&self.shape, &self.words)
    }

    /// Items are not to vanish into a process that its parent does not know of.
    fn check_process(&self) -> Result<(), QueueError> {
        match self.forks == process::fork_generation() {
            true => Ok(()),
            false => Err(QueueError::Forked),
        }
    }

    fn push(&self, bytes: &[u8]) -> Result<(), QueueError> {
        self.check_process()?;
        let queue = self.view()?;
        match self.as_producer(&queue, |owner| self.push_as(&queue, owner, bytes))? {
            Ok(()) => {
                self.items_bell.ring();
                Ok(())
            }
            Err(PushError::TooLong { len, max }) => Err(QueueError::TooLong { len, max }),
            // A shortage of nodes passes as a full queue does: when items are got, and when producers are through.
            Err(_) => Err(QueueError::Full {
                capacity: self.shape.capacity(),
            }),
        }
    }

    fn push_as(&self, queue: &QueueView<'_>, owner: u32, bytes: &[u8]) -> Result<(), PushError> {
        match queue.push(owner, bytes) {
            Err(PushError::NoNode) => {
                self.producers.recover_dead(queue);
                queue.push(owner, bytes)
            }
            done => done,
        }
    }

    /// Calls with the number by which this handle is a producer.
    fn as_producer<R>(&self, queue: &QueueView<'_>, push: impl FnOnce(u32) -> R) -> Result<R, QueueError> {
        if let Some(producer) = self.producer.get().filter(|producer| producer.is_ours()) {
            return Ok(push(producer.number()));
        }
        let registered = self.producers.register().or_else(|| {
            self.producers.recover_dead(queue);
            self.producers.register()
        });
        let producer = registered.ok_or(QueueError::Producers { max: MAX_PRODUCERS })?;
        let pushed = push(producer.number());
        // When another thread was faster, the handle is a producer already: this one was for this time only.
        let _ = self.producer.set(producer);
        Ok(pushed)
    }

    fn pop(&self, bytes: &mut AlignedVec) -> Result<Option<usize>, QueueError> {
        self.check_process()?;
        let queue = self.view()?;
        if bytes.len() < queue.max_len() {
            bytes.resize(queue.max_len(), 0);
        }
        let popped = queue.pop(bytes).map_err(|e| QueueError::Decode {
            message: e.to_string(),
        })?;
        if popped.is_some() {
            self.room_bell.ring();
        }
        Ok(popped)
    }
}

fn shape_of([capacity, nodes, item_bytes]: [u64; FACTS]) -> Option<QueueShape> {
    let size = |n: u64| usize::try_from(n).ok();
    QueueShape::new(size(capacity)?, size(nodes)?, size(item_bytes)?).ok()
}

fn encoded<T: Datum<K>, K>(
    item: &T,
    put: impl FnOnce(&[u8]) -> Result<(), QueueError>,
) -> Result<(), QueueError> {
    let mut bytes = ENCODED.take();
    bytes.clear();
    let lent = lease::lent();
    let done = match item.encode(&mut bytes) {
        Err(message) => Err(QueueError::Encode { message }),
        Ok(()) if lease::lent() != lent => Err(QueueError::Handle),
        Ok(()) => put(&bytes),
    };
    ENCODED.set(bytes);
    done
}

/// Attempts until something comes of it, or the time is over: a short spin, then asleep.
fn wait<R>(
    bell: &Doorbell,
    timeout: Option<Duration>,
    mut attempt: impl FnMut() -> Result<Option<R>, QueueError>,
) -> Result<Option<R>, QueueError> {
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    for _ in 0..SPINS {
        if let Some(result) = attempt()? {
            return Ok(Some(result));
        }
        hint::spin_loop();
    }
    loop {
        let heard = bell.announce();
        if let Some(result) = attempt()? {
            return Ok(Some(result));
        }
        let left = deadline.map_or(NAP, |deadline| {
            deadline.saturating_duration_since(Instant::now()).min(NAP)
        });
        if left.is_zero() {
            return Ok(None);
        }
        bell.sleep(heard, left);
    }
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self {
            core: self.core.clone(),
            items: PhantomData,
        }
    }
}

impl<T> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("len", &self.len())
            .field("capacity", &self.capacity())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
