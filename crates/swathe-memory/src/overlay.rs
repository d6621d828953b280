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
    /// # Safety
    /// In every process that maps the segment these bytes are for words, as long as any of them lives: no array lies over
    /// them, and no other plain reference is formed to them. Words of another size are not used there at the same time. (What
    /// is checked here is only where they lie. In an attached segment nothing says what the process that made it has put
    /// there.)
    ///
    /// # Errors
    /// When the range is out of bounds or misaligned, or the segment is read-only or this process's arena.
    pub unsafe fn at(
        segment: &Arc<Segment>,
        offset: usize,
        count: usize,
    ) -> Result<SharedSlice<T>, MemoryError> {
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
    /// # Safety
    /// As for [`at`](Self::at): these bytes of the block are for words of one size at a time, and for nothing else. (A block in
    /// an `Arc` can no longer become an array of this process; a worker that is told where it lies could make it one.)
    ///
    /// # Errors
    /// When the range is misaligned or ends outside the block.
    pub unsafe fn in_block(
        block: &Arc<Block>,
        offset: usize,
        count: usize,
    ) -> Result<SharedSlice<T>, MemoryError> {
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
    /// # Safety
    /// As [`SharedSlice::at`].
    ///
    /// # Errors
    /// As [`SharedSlice::at`].
    pub unsafe fn at(segment: &Arc<Segment>, offset: usize) -> Result<Shared<T>, MemoryError> {
        // SAFETY: the caller's promises are those that are asked for.
        unsafe { SharedSlice::at(segment, offset, 1) }.map(Shared)
    }

    /// Lays one `T` over a block of this process's arena, as [`SharedSlice::in_block`] does.
    ///
    /// # Safety
    /// As [`SharedSlice::at`].
    ///
    /// # Errors
    /// As [`SharedSlice::in_block`].
    pub unsafe fn in_block(block: &Arc<Block>, offset: usize) -> Result<Shared<T>, MemoryError> {
        // SAFETY: the caller's promises are those that are asked for.
        unsafe { SharedSlice::in_block(block, offset, 1) }.map(Shared)
    }
}

/// What so many elements take, bytes.
pub(crate) fn byte_len<T>(count: usize) -> Result<usize, MemoryError> {
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
        // makes any bytes valid and any concurrent change atomic. Nobody forms plain references to the same bytes, or lays
        // words of another size over them: that was promised when they were laid.
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

    /// Eight words of the segment, and the same by way of another mapping.
    fn words_of(
        segment: &Arc<Segment>,
        fd: swathe_os::Descriptor,
    ) -> (SharedSlice<AtomicU64>, Shared<[AtomicU64; 8]>) {
        let other = SegmentId::from_bits(0x5eed_0002);
        // SAFETY: the id is nobody else's, and the file holds the words that are laid over it below.
        let attached = unsafe { Segment::attach(other, fd, 4096, Access::ReadWrite) }.unwrap();
        // SAFETY: nothing but these words lies in the test's own segment.
        unsafe {
            (
                SharedSlice::at(segment, 64, 8).unwrap(),
                Shared::at(&attached, 64).unwrap(),
            )
        }
    }

    /// Where the words would lie, or why they cannot.
    fn lay<T: Overlay>(segment: &Arc<Segment>, offset: usize, count: usize) -> Result<(), MemoryError> {
        // SAFETY: what is laid is dropped before anybody looks at it.
        unsafe { SharedSlice::<T>::at(segment, offset, count) }.map(drop)
    }

    #[test]
    fn two_mappings_share_the_words() {
        let segment = Segment::create("swathe-test", 4096).unwrap();
        // SAFETY: it is passed on to another mapping of the same words, and to nobody else.
        let fd = unsafe { segment.fd() }.try_clone_to_owned().unwrap();
        let (here, there) = words_of(&segment, fd.into());
        assert!(here.iter().all(|word| word.load(SeqCst) == 0));
        here[7].store(11, SeqCst);
        assert_eq!(there[7].load(SeqCst), 11);
        drop(segment);
        assert_eq!(here.clone()[7].load(SeqCst), 11, "the overlay holds the segment");
    }

    #[test]
    fn misplaced_words_are_refused() {
        let segment = Segment::create("swathe-test", 4096).unwrap();
        let text = lay::<AtomicU32>(&segment, 2, 1).unwrap_err().to_string();
        assert!(
            text.contains("byte 2 of segment") && text.contains("not a multiple of 4"),
            "{text}"
        );
        assert!(lay::<AtomicU32>(&segment, 4092, 2).is_err());
        assert!(lay::<AtomicU32>(&segment, 0, usize::MAX / 2).is_err());

        let file = Segment::map_file("/proc/self/exe").unwrap();
        let text = lay::<AtomicU32>(&file, 0, 1).unwrap_err().to_string();
        assert!(text.ends_with("it is mapped read-only"), "{text}");
    }

    #[test]
    fn the_own_arena_takes_words_in_blocks_only() {
        let memory = Memory::with_capacity(4 << 20).unwrap();
        let text = lay::<AtomicU32>(memory.segment(), 0, 1).unwrap_err().to_string();
        assert!(text.contains("it is the arena"), "{text}");
        let block = Arc::new(memory.alloc_zeroed(64, 64).unwrap());
        // SAFETY: the block is the test's own, and holds these words only.
        let (words, beyond) = unsafe {
            let lay = |offset| SharedSlice::<AtomicU32>::in_block(&block, offset, 16);
            (lay(0).unwrap(), lay(4))
        };
        assert!(beyond.is_err());
        drop(block);
        assert_eq!(memory.stats().in_use, 64, "the words hold their block");
        words[15].store(1, SeqCst);
        drop(words);
        assert_eq!(memory.stats().in_use, 0);
    }
}
