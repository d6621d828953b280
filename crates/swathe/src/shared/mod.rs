//! What tasks and the parent share and change: [`Value`], [`SharedArray`], [`Queue`].
//!
//! Each lies in a segment of its own, a memory file without a name, behind a header that says what it is. So what
//! crosses to another process is the segment's id alone, and a handle that outlives the parent's writes to memory that
//! is nobody else's. All words are atomics, and every transition is one operation on one of them: a process can be
//! killed at any instruction and leaves nothing locked.

mod array;
mod cells;
mod doorbell;
mod producers;
mod queue;
mod value;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytemuck::Pod;
use rkyv::{
    Archive, Deserialize, Place, Serialize,
    rancor::{Fallible, Source},
};
use swathe_memory::{MemoryError, Origin, Overlay, Segment, SegmentId, SharedSlice, lease, registry};
use swathe_os::memory_limits;

pub use array::SharedArray;
pub use queue::{Queue, QueueError};
pub use value::Value;

use crate::{
    Record,
    lower::{
        Vouch,
        handles::{ArchivedHandle, words},
    },
};

/// Bytes of the header: mark and facts in the first cache line, then two lines for the doorbells of a queue. What
/// follows lies on a boundary of two cache lines.
const HEADER: usize = 256;
/// The header's first word, plus the kind.
const MARK: u64 = u64::from_be_bytes(*b"swathe\0\0");
/// Numbers about the content, next in the header.
const FACTS: usize = 3;
/// Segments from this size on are checked against the limits of the system.
const CHECKED_FROM: usize = 1 << 20;

/// What a segment holds.
#[derive(Clone, Copy)]
enum SharedKind {
    Cells = 1,
    Queue = 2,
}

/// Makes a segment for `bytes` zeros behind its header, all pages of it taken: a shortage is this error and not a
/// SIGBUS in some worker.
fn create(kind: SharedKind, facts: [u64; FACTS], bytes: usize) -> Result<Arc<Segment>, MemoryError> {
    let too_large = MemoryError::TooLarge {
        count: bytes,
        element_size: 1,
    };
    let len = bytes.checked_add(HEADER).ok_or(too_large)?;
    check_headroom(len)?;
    let segment = Segment::create("swathe-shared", len)?;
    segment.take_pages()?;
    let header = header(&segment)?;
    for (word, fact) in header[1..].iter().zip(facts) {
        word.store(fact, Ordering::Relaxed);
    }
    // SYNC shared-header: pairs with the acquire in `attach`.
    header[0].store(MARK + kind as u64, Ordering::Release);
    Ok(segment)
}

/// The segment with this id and its facts: in any process of the pool if Swathe has sent the id, and otherwise in the process
/// that made the segment. (Elsewhere nothing tells a segment of words from the arena, where an array may look like a header.)
fn attach(
    kind: SharedKind,
    id: SegmentId,
    vouch: Vouch,
) -> Result<(Arc<Segment>, [u64; FACTS]), MemoryError> {
    let segment = registry::resolve(id)?;
    let is_own = segment.is_own() && matches!(segment.origin(), Origin::Control { .. });
    if !is_own && !vouch.is_given() {
        return Err(wrong(
            &segment,
            "it was made by another process, and nobody vouches for the bytes that name it; pass the handle itself to the \
             task",
        ));
    }
    let header = header(&segment)?;
    if header[0].load(Ordering::Acquire) != MARK + kind as u64 {
        return Err(wrong(&segment, "it was made for something else"));
    }
    let facts = std::array::from_fn(|i| header[1 + i].load(Ordering::Relaxed));
    Ok((segment, facts))
}

fn wrong(segment: &Segment, reason: &'static str) -> MemoryError {
    MemoryError::WrongSegment {
        segment: segment.id(),
        purpose: "this shared Value, SharedArray or Queue",
        reason,
    }
}

fn header(segment: &Arc<Segment>) -> Result<SharedSlice<AtomicU64>, MemoryError> {
    words(segment, 0, 1 + FACTS)
}

/// Words behind the header.
fn body<W: Overlay>(
    segment: &Arc<Segment>,
    offset: usize,
    count: usize,
) -> Result<SharedSlice<W>, MemoryError> {
    words(segment, HEADER.saturating_add(offset), count)
}

fn check_headroom(len: usize) -> Result<(), MemoryError> {
    if len < CHECKED_FROM {
        return Ok(());
    }
    let headroom = memory_limits::page_headroom();
    // As in the arena, the last sixteenth, at most 64 MiB, is left for stacks and heaps.
    let available = headroom.bytes - (headroom.bytes / 16).min(64 << 20);
    if available < len as u64 {
        return Err(MemoryError::Shortage {
            needed: len as u64,
            available,
            limited_by: headroom.limited_by,
        });
    }
    Ok(())
}

/// How a handle crosses to another process: as the id of its segment.
macro_rules! crosses_by_id {
    ($($Handle:ident [$($bound:tt)*]),*) => {$(
        impl<T: $($bound)*> Record for $Handle<T> {}

        impl<T: $($bound)*> Archive for $Handle<T> {
            type Archived = ArchivedHandle<Self>;
            type Resolver = ();

            fn resolve(&self, (): (), out: Place<ArchivedHandle<Self>>) {
                ArchivedHandle::write(self.id(), out);
            }
        }

        impl<T: $($bound)*, S: Fallible + ?Sized> Serialize<S> for $Handle<T> {
            fn serialize(&self, _: &mut S) -> Result<(), S::Error> {
                // Whoever sends the bytes must hold the handle.
                lease::note_lent();
                if registry::find(self.id()).is_some_and(|segment| segment.is_own()) {
                    lease::note_own();
                }
                Ok(())
            }
        }

        impl<T: $($bound)*, D: Fallible<Error: Source> + ?Sized> Deserialize<$Handle<T>, D>
            for ArchivedHandle<$Handle<T>>
        {
            fn deserialize(&self, _: &mut D) -> Result<$Handle<T>, D::Error> {
                let (id, vouch) = self.read();
                $Handle::attach(id, vouch).map_err(Source::new)
            }
        }
    )*};
}
crosses_by_id!(Value [Pod], SharedArray [Pod], Queue ['static]);
