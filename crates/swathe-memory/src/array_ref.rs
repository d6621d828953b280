//! How an array crosses to another process: as a reference of fixed size, never as bytes.

use std::any::type_name;
use std::cell::Cell;

use bytemuck::{Pod, Zeroable};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::{Fallible, Source};
use rkyv::{Archive, Deserialize, Place, Portable, Serialize};

use crate::arena::Memory;
use crate::array::{Array, Holder};
use crate::error::MemoryError;
use crate::lease;
use crate::registry;
use crate::segment::{Origin, SegmentId};
use crate::shape::{MAX_AXES, Shape};

/// Where an array lies, in words that mean the same in every process.
///
/// It does not keep the array alive: whoever sends it must hold the [`Array`] until the receiver is done. A process
/// that attaches a reference to its own arena is told when the array is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct ArrayRef {
    /// The segment; zero for an array without bytes.
    segment: SegmentId,
    /// Position of the first element in the segment, in bytes.
    offset: u64,
    /// Number of elements.
    count: u64,
    /// Serial number of the block in its arena; tells it from a later one in the same place.
    serial: u64,
    /// Bytes of one element.
    element_size: u32,
    /// Axes in use.
    axes: u32,
    /// Lengths of the axes; zero beyond `axes`.
    lengths: [u64; MAX_AXES],
}

impl<T: Pod> Array<T> {
    /// The reference to this array, for another process (or this one) to [`attach`](ArrayRef::attach).
    pub fn to_ref(&self) -> ArrayRef {
        let (segment, serial) = match self.holder() {
            Holder::Nothing => (SegmentId::zeroed(), 0),
            Holder::Block(block) => {
                block.publish();
                (block.segment().id(), block.serial())
            }
            Holder::Segment { segment, serial, .. } => (segment.id(), *serial),
        };
        let mut lengths = [0; MAX_AXES];
        for (length, &axis) in lengths.iter_mut().zip(self.shape()) {
            *length = axis as u64;
        }
        ArrayRef {
            segment,
            offset: self.offset() as u64,
            count: self.len() as u64,
            serial,
            element_size: element_size::<T>(),
            axes: self.shape().len() as u32,
            lengths,
        }
    }
}

/// Size of `T`, saturated: a type of 4 GiB is refused on attaching, like any other size that does not match.
fn element_size<T>() -> u32 {
    u32::try_from(size_of::<T>()).unwrap_or(u32::MAX)
}

impl ArrayRef {
    /// The segment that the array lies in.
    pub fn segment(&self) -> SegmentId {
        self.segment
    }

    /// Position of the first element in the segment, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Number of elements.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The array, in this process. Nothing is copied.
    ///
    /// Bounds, alignment and element size are checked against the segment, which is fetched if this process does not
    /// have it. What cannot be checked is the sender's word that nobody writes the elements meanwhile: references are
    /// for processes of one program.
    ///
    /// # Errors
    /// When the reference is damaged or for another type, the segment cannot be had, or, in the process that made the
    /// arena, the array was freed.
    pub fn attach<T: Pod>(&self) -> Result<Array<T>, MemoryError> {
        let shape = self.checked_shape::<T>()?;
        if size_of::<T>() == 0 || shape.count() == 0 {
            return Ok(Array::without_bytes(shape));
        }
        let offset =
            usize::try_from(self.offset).map_err(|_| self.damaged::<T>("its offset is too large"))?;
        if let Some(memory) = Memory::owner_of(self.segment) {
            let bytes = shape.count().checked_mul(size_of::<T>());
            let end = bytes.and_then(|bytes| offset.checked_add(bytes));
            let end = end.ok_or_else(|| self.damaged::<T>("its length is too large"))?;
            let freed = MemoryError::Freed {
                segment: self.segment,
                offset: self.offset,
            };
            let block = memory.find_published(&(offset..end), self.serial).ok_or(freed)?;
            return Array::inside_block(block, offset, shape);
        }
        let segment = registry::resolve(self.segment)?;
        if matches!(segment.origin(), Origin::Control { .. }) {
            return Err(MemoryError::WrongSegment {
                segment: self.segment,
                purpose: "an array",
                reason: "it holds control words, which other processes change",
            });
        }
        Array::in_segment(&segment, offset, shape, self.serial)
    }

    fn checked_shape<T: Pod>(&self) -> Result<Shape, MemoryError> {
        if self.element_size != element_size::<T>() {
            let (ours, theirs) = (size_of::<T>(), self.element_size);
            return Err(self.damaged::<T>(&format!("its elements have {theirs} bytes, not {ours}")));
        }
        let axes = self.lengths.get(..self.axes as usize);
        let axes = axes.ok_or_else(|| self.damaged::<T>("it has more than 8 axes"))?;
        let lengths = axes
            .iter()
            .map(|&length| usize::try_from(length))
            .collect::<Result<Vec<_>, _>>();
        let lengths = lengths.map_err(|_| self.damaged::<T>("an axis is too long"))?;
        let shape = Shape::new(&lengths)?;
        if shape.count() as u64 != self.count {
            let text = format!("its shape {lengths:?} does not have {} elements", self.count);
            return Err(self.damaged::<T>(&text));
        }
        Ok(shape)
    }

    fn damaged<T>(&self, reason: &str) -> MemoryError {
        MemoryError::BadReference {
            type_name: type_name::<T>(),
            reason: reason.to_owned(),
        }
    }
}

/// An [`Array`] inside an `rkyv` archive: the bytes of its [`ArrayRef`], in this machine's byte order.
#[derive(Debug, Clone, Copy, Portable, CheckBytes)]
#[bytecheck(crate = rkyv::bytecheck)]
#[rkyv(crate = rkyv)]
#[repr(transparent)]
pub struct ArchivedArray([u8; size_of::<ArrayRef>()]);

impl ArchivedArray {
    /// The reference.
    pub fn to_ref(&self) -> ArrayRef {
        bytemuck::pod_read_unaligned(&self.0)
    }
}

impl<T: Pod> Archive for Array<T> {
    type Archived = ArchivedArray;
    type Resolver = ArrayRef;

    fn resolve(&self, reference: ArrayRef, out: Place<ArchivedArray>) {
        // SAFETY: the fields of a repr(transparent) struct start where it starts, and its one field is this.
        let bytes = unsafe { out.cast_unchecked::<[u8; size_of::<ArrayRef>()]>() };
        bytes.write(bytemuck::cast(reference));
    }
}

/// Says what bytes hold, in two words.
pub type Fingerprint = fn(&[u8]) -> [u64; 2];

thread_local! {
    static BY_CONTENT: Cell<Option<Fingerprint>> = const { Cell::new(None) };
}

/// Serialises arrays as what they hold instead of where they lie, on this thread, while `serialise` runs: for comparing
/// values with those of another run of the program. What is serialised so must not be read back.
pub fn by_content<R>(fingerprint: Fingerprint, serialise: impl FnOnce() -> R) -> R {
    /// A panic of `serialise` must not leave it on.
    struct Restore(Option<Fingerprint>);
    impl Drop for Restore {
        fn drop(&mut self) {
            BY_CONTENT.set(self.0);
        }
    }
    let _restore = Restore(BY_CONTENT.replace(Some(fingerprint)));
    serialise()
}

impl<T: Pod, S: Fallible + ?Sized> Serialize<S> for Array<T> {
    fn serialize(&self, _: &mut S) -> Result<ArrayRef, S::Error> {
        lease::note_lent();
        let own = match self.holder() {
            Holder::Nothing => false,
            Holder::Block(block) => block.segment().is_own(),
            Holder::Segment { segment, .. } => segment.is_own(),
        };
        if own {
            lease::note_own();
        }
        let mut reference = self.to_ref();
        if let Some(fingerprint) = BY_CONTENT.get() {
            let bytes = if size_of::<T>() == 0 {
                &[]
            } else {
                bytemuck::cast_slice(self)
            };
            let [first, second] = fingerprint(bytes);
            reference.segment = SegmentId::from_bits(first);
            reference.offset = second;
            reference.serial = 0;
        }
        Ok(reference)
    }
}

impl<T: Pod, D: Fallible<Error: Source> + ?Sized> Deserialize<Array<T>, D> for ArchivedArray {
    fn deserialize(&self, _: &mut D) -> Result<Array<T>, D::Error> {
        self.to_ref().attach().map_err(Source::new)
    }
}

#[cfg(test)]
mod tests;
