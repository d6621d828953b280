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
use crate::vouch;

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
    /// have it.
    ///
    /// # Safety
    /// It is the reference to an array that lives until the one that is returned, and all that is made from it, is gone;
    /// and nobody writes its elements meanwhile. Where the array lies in the arena of this very process this is checked, as
    /// [`attach_own`](Self::attach_own) does.
    ///
    /// # Errors
    /// When the reference is damaged or for another type, the segment cannot be had, or, in the process that made the
    /// arena, the array was freed.
    pub unsafe fn attach<T: Pod>(&self) -> Result<Array<T>, MemoryError> {
        match self.attach_own() {
            Err(MemoryError::Unvouched { .. }) => self.attach_foreign(),
            own => own,
        }
    }

    /// The array, if it lies in an arena of this very process and lives: then it is known as one, whoever made the
    /// reference. Arrays without bytes lie nowhere, and are always to be had.
    ///
    /// # Errors
    /// When the reference is damaged or for another type, the array lies elsewhere ([`MemoryError::Unvouched`]), or it was
    /// freed.
    pub fn attach_own<T: Pod>(&self) -> Result<Array<T>, MemoryError> {
        let shape = self.checked_shape::<T>()?;
        if size_of::<T>() == 0 || shape.count() == 0 {
            return Ok(Array::without_bytes(shape));
        }
        let (segment, offset) = (self.segment, self.offset);
        let Some(memory) = Memory::owner_of(segment) else {
            return Err(MemoryError::Unvouched { segment, offset });
        };
        let start = self.start::<T>()?;
        let bytes = shape.count().checked_mul(size_of::<T>());
        let end = bytes.and_then(|bytes| start.checked_add(bytes));
        let end = end.ok_or_else(|| self.damaged::<T>("its length is too large"))?;
        let block = memory.find_published(&(start..end), self.serial);
        // A block that is published holds an array, whose elements are written by nobody any more.
        let block = block.ok_or(MemoryError::Freed { segment, offset })?;
        Array::inside_block(block, start, shape)
    }

    /// Position of the first element, as an index.
    fn start<T>(&self) -> Result<usize, MemoryError> {
        usize::try_from(self.offset).map_err(|_| self.damaged::<T>("its offset is too large"))
    }

    /// The array, in a segment of another process or in a mapped file. That it is one is for the caller to know.
    fn attach_foreign<T: Pod>(&self) -> Result<Array<T>, MemoryError> {
        let (shape, offset) = (self.checked_shape::<T>()?, self.start::<T>()?);
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
///
/// It can be read anywhere in the process that made the array, for as long as the array lives. In another process only Swathe
/// reads it, when it reads what it has itself sent there ([`vouch`]); so it is no value that could be copied or made.
#[derive(Debug, Portable)]
#[rkyv(crate = rkyv)]
#[repr(transparent)]
pub struct ArchivedArray([u8; size_of::<ArrayRef>()]);

// SAFETY: any bytes are an array of bytes, so there is nothing to check but whether they may be taken for a reference.
unsafe impl<C: Fallible<Error: Source> + ?Sized> CheckBytes<C> for ArchivedArray {
    unsafe fn check_bytes(value: *const Self, _: &mut C) -> Result<(), C::Error> {
        match vouch::may_be_checked(value) {
            true => Ok(()),
            false => Err(Source::new(vouch::NoHandle)),
        }
    }
}

impl ArchivedArray {
    /// The reference.
    pub fn to_ref(&self) -> ArrayRef {
        bytemuck::pod_read_unaligned(&self.0)
    }
}

/// What serialising an [`Array`] leaves to be written down: a reference that can be made in no other way.
#[derive(Debug)]
pub struct ArrayResolver(ArrayRef);

impl<T: Pod> Archive for Array<T> {
    type Archived = ArchivedArray;
    type Resolver = ArrayResolver;

    fn resolve(&self, ArrayResolver(reference): ArrayResolver, out: Place<ArchivedArray>) {
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
/// values with those of another run of the program. What is serialised so has more axes than any array, and is refused when it
/// is read back.
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
    fn serialize(&self, _: &mut S) -> Result<ArrayResolver, S::Error> {
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
            // Another number for each number of axes, and none that there is.
            reference.axes = !reference.axes;
        }
        Ok(ArrayResolver(reference))
    }
}

impl<T: Pod, D: Fallible<Error: Source> + ?Sized> Deserialize<Array<T>, D> for ArchivedArray {
    fn deserialize(&self, _: &mut D) -> Result<Array<T>, D::Error> {
        let reference = self.to_ref();
        let array = match vouch::is_given_for(self) {
            // SAFETY: whoever reads the archive promised it of its handles, and this is one: `resolve` has written it, from
            // what `serialize` gave for an array, and nobody else can make an `ArchivedArray`; bytes that only look like one
            // do not pass `check_bytes` while the archive is read.
            true => unsafe { reference.attach() },
            false => reference.attach_own(),
        };
        array.map_err(Source::new)
    }
}

#[cfg(test)]
mod tests;
