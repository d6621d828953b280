//! Atomic structs laid over shared memory.

use std::any::type_name;
use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU8, AtomicU16, AtomicU32, AtomicU64};

use crate::arena::Block;
use crate::error::MemoryError;
use crate::segment::{Access, Segment};

/// Types that may lie in memory that other processes change at any time.
///
/// # Safety
/// The type is `#[repr(C)]` or `#[repr(transparent)]`, every byte of it that can change lies in an atomic or in an
/// array or struct of such, it has no padding that code depends on, no destructor, and any bit pattern, all zeros
/// included, is a valid value.
pub unsafe trait Overlay: Sync + 'static {}

macro_rules! overlay_atomics {
    ($($atomic:ty),*) => {$(
        // SAFETY: an atomic integer; any bit pattern is a value.
        unsafe impl Overlay for $atomic {}
    )*};
}
overlay_atomics!(AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicI32, AtomicI64);

macro_rules! overlay_protocol {
    ($($words:ident),*) => {$(
        // SAFETY: `#[repr(C)]` or `#[repr(transparent)]` structs of atomics only; the protocol crate promises that any
        // bits are a value, and that all zeros are the empty state.
        unsafe impl Overlay for swathe_protocol::$words {}
    )*};
}
overlay_protocol!(
    Bell, Header, JobCell, Lane, ParkWord, RingCell, RingEnds, StatusWord, Tally, WorkerSlot
);

// SAFETY: elements follow one another without gaps, each an overlay itself.
unsafe impl<T: Overlay, const N: usize> Overlay for [T; N] {}

/// What keeps the bytes under an overlay in place.
#[derive(Clone)]
enum Backing {
    Segment(#[expect(dead_code, reason = "held for its mapping")] Arc<Segment>),
    Block(#[expect(dead_code, reason = "held for its range")] Arc<Block>),
}

/// `T`s in shared memory, as a slice. A cheap clone; holds the memory.
pub struct SharedSlice<T> {
    start: NonNull<T>,
    count: usize,
    backing: Backing,
}

/// One `T` in shared memory, as a reference. A cheap clone; holds the memory.
pub struct Shared<T>(SharedSlice<T>);

// SAFETY: gives out `&[T]` only, and T: Overlay is Sync; the memory is held through an Arc, which may be dropped in any
// thread.
unsafe impl<T: Overlay> Send for SharedSlice<T> {}
// SAFETY: as above.
unsafe impl<T: Overlay> Sync for SharedSlice<T> {}

impl<T: Overlay> SharedSlice<T> {
    /// Lays `count` `T`s over the segment at byte `offset`.
    ///
    /// The segment must be one for control words ([`Segment::create`]) or one of another process; this process's own
    /// arena is refused, because its arrays are plain memory ([`in_block`](Self::in_block) is for that).
    ///
    /// # Errors
    /// When the range is out of bounds or misaligned, or the segment is read-only or this process's arena.
    pub fn at(segment: &Arc<Segment>, offset: usize, count: usize) -> Result<SharedSlice<T>, MemoryError> {
        let refused = |reason| MemoryError::WrongSegment {
            segment: segment.id(),
            purpose: "words that processes change together",
            reason,
        };
        if segment.access() != Access::ReadWrite {
            return Err(refused("it is mapped read-only"));
        }
        if segment.is_own_arena() {
            return Err(refused(
                "it is the arena, where this process keeps arrays; lay them over a block of it",
            ));
        }
        let start = typed_range::<T>(segment, offset, count)?;
        Ok(SharedSlice {
            start,
            count,
            backing: Backing::Segment(Arc::clone(segment)),
        })
    }

    /// Lays `count` `T`s over a block of this process's arena, `offset` bytes into it. The block lives as long as
    /// any of them.
    ///
    /// # Errors
    /// When the range is misaligned or ends outside the block.
    pub fn in_block(block: &Arc<Block>, offset: usize, count: usize) -> Result<SharedSlice<T>, MemoryError> {
        let segment = block.segment();
        let bytes = byte_len::<T>(count)?;
        if offset.checked_add(bytes).is_none_or(|end| end > block.len()) {
            return Err(MemoryError::OutOfBounds {
                segment: segment.id(),
                offset: (block.offset() as u64).saturating_add(offset as u64),
                len: bytes as u64,
                segment_len: (block.offset() + block.len()) as u64,
            });
        }
        let start = typed_range::<T>(segment, block.offset() + offset, count)?;
        Ok(SharedSlice {
            start,
            count,
            backing: Backing::Block(Arc::clone(block)),
        })
    }
}

impl<T: Overlay> Shared<T> {
    /// Lays one `T` over the segment at byte `offset`, as [`SharedSlice::at`] does.
    ///
    /// # Errors
    /// As [`SharedSlice::at`].
    pub fn at(segment: &Arc<Segment>, offset: usize) -> Result<Shared<T>, MemoryError> {
        SharedSlice::at(segment, offset, 1).map(Shared)
    }

    /// Lays one `T` over a block of this process's arena, as [`SharedSlice::in_block`] does.
    ///
    /// # Errors
    /// As [`SharedSlice::in_block`].
    pub fn in_block(block: &Arc<Block>, offset: usize) -> Result<Shared<T>, MemoryError> {
        SharedSlice::in_block(block, offset, 1).map(Shared)
    }
}

fn byte_len<T>(count: usize) -> Result<usize, MemoryError> {
    count.checked_mul(size_of::<T>()).ok_or(MemoryError::TooLarge {
        count,
        element_size: size_of::<T>(),
    })
}

/// Address of `count` `T`s at byte `offset` of the segment, checked for bounds and alignment.
pub(crate) fn typed_range<T>(
    segment: &Segment,
    offset: usize,
    count: usize,
) -> Result<NonNull<T>, MemoryError> {
    let start = segment.range(offset, byte_len::<T>(count)?)?.cast::<T>();
    if !start.is_aligned() {
        return Err(MemoryError::Misaligned {
            segment: segment.id(),
            offset: offset as u64,
            align: align_of::<T>(),
            type_name: type_name::<T>(),
        });
    }
    Ok(start)
}

impl<T: Overlay> Deref for SharedSlice<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `start` was checked for bounds and alignment against memory that `backing` keeps in place; T: Overlay
        // makes any bytes valid and any concurrent change atomic. Nobody forms plain references to the same bytes:
        // control segments hold overlays only, a block in an Arc can no longer become an array, and attached segments
        // are laid out by the process that made them.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.count) }
    }
}

impl<T: Overlay> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0[0]
    }
}

impl<T> Clone for SharedSlice<T> {
    fn clone(&self) -> Self {
        SharedSlice {
            start: self.start,
            count: self.count,
            backing: self.backing.clone(),
        }
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Shared(self.0.clone())
    }
}

impl<T> fmt::Debug for SharedSlice<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedSlice<{}; {}>", type_name::<T>(), self.count)
    }
}

impl<T> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shared<{}>", type_name::<T>())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::SeqCst;

    use super::*;
    use crate::arena::Memory;
    use crate::segment::SegmentId;

    #[test]
    fn two_mappings_share_the_words() {
        let segment = Segment::create("swathe-test", 4096).unwrap();
        let other = SegmentId::from_bits(0x5eed_0002);
        let fd = segment.fd().try_clone_to_owned().unwrap();
        let attached = Segment::attach(other, fd.into(), 4096, Access::ReadWrite).unwrap();
        let here = SharedSlice::<AtomicU64>::at(&segment, 64, 8).unwrap();
        let there = Shared::<[AtomicU64; 8]>::at(&attached, 64).unwrap();
        assert!(here.iter().all(|word| word.load(SeqCst) == 0));
        here[7].store(11, SeqCst);
        assert_eq!(there[7].load(SeqCst), 11);
        drop(segment);
        assert_eq!(here.clone()[7].load(SeqCst), 11, "the overlay holds the segment");
    }

    #[test]
    fn misplaced_words_are_refused() {
        let segment = Segment::create("swathe-test", 4096).unwrap();
        let text = SharedSlice::<AtomicU32>::at(&segment, 2, 1)
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("byte 2 of segment") && text.contains("not a multiple of 4"),
            "{text}"
        );
        assert!(SharedSlice::<AtomicU32>::at(&segment, 4092, 2).is_err());
        assert!(SharedSlice::<AtomicU32>::at(&segment, 0, usize::MAX / 2).is_err());

        let file = Segment::map_file("/proc/self/exe").unwrap();
        let text = Shared::<AtomicU32>::at(&file, 0).unwrap_err().to_string();
        assert!(text.ends_with("it is mapped read-only"), "{text}");
    }

    #[test]
    fn the_own_arena_takes_words_in_blocks_only() {
        let memory = Memory::with_capacity(4 << 20).unwrap();
        let text = Shared::<AtomicU32>::at(memory.segment(), 0)
            .unwrap_err()
            .to_string();
        assert!(text.contains("it is the arena"), "{text}");
        let block = Arc::new(memory.alloc_zeroed(64, 64).unwrap());
        let words = SharedSlice::<AtomicU32>::in_block(&block, 0, 16).unwrap();
        assert!(SharedSlice::<AtomicU32>::in_block(&block, 4, 16).is_err());
        drop(block);
        assert_eq!(memory.stats().in_use, 64, "the words hold their block");
        words[15].store(1, SeqCst);
        drop(words);
        assert_eq!(memory.stats().in_use, 0);
    }
}
