//! What this crate promises about shared memory that it does not write by claim: which bytes are words, and which bytes may
//! lead to memory of other processes.
#![allow(
    unnameable_types,
    reason = "they are in hidden methods of traits that are sealed by that: nobody outside can name them"
)]

use std::{fmt, marker::PhantomData, sync::Arc};

use rkyv::{
    Place, Portable,
    bytecheck::CheckBytes,
    primitive::ArchivedU64,
    rancor::{Fallible, Source},
};
use swathe_memory::{MemoryError, Overlay, Segment, SegmentId, SharedSlice, vouch};
use swathe_runtime::Durable;

/// Whether Swathe has written the bytes of a value itself, and keeps what the handles in them lead to. Nobody outside of this
/// crate can say so: that is what makes reading such bytes safe.
#[derive(Clone, Copy, Debug)]
pub struct Vouch(pub(super) bool);

impl Vouch {
    /// Parameters, elements and results of a job: [`Datum::encode`](crate::Datum) has written them, from a value of the same
    /// type, and the job (or the handle of its results) keeps the arrays in them for as long as they can be read; what a task
    /// keeps of them is counted ([`lease`](swathe_memory::lease)).
    pub(crate) const OURS: Self = Self(true);
    /// What has no handles, such as items of a queue; and whatever others bring.
    pub(crate) const NOBODYS: Self = Self(false);

    /// Whether it is so.
    pub(crate) fn is_given(self) -> bool {
        self.0
    }
}

/// Words in a segment that was made for them, by [`shared`](crate::shared) or for the progress of a job.
pub(crate) fn words<W: Overlay>(
    segment: &Arc<Segment>,
    offset: usize,
    count: usize,
) -> Result<SharedSlice<W>, MemoryError> {
    // SAFETY: the segment holds no array, in any process. The two callers have found that it is one of theirs: `shared` makes
    // segments of words, and finds those of other processes by what Swathe itself has sent (`ArchivedHandle`), with a mark at
    // their start; the file of progress was opened and locked by this job. Each lays words of one size at one place.
    unsafe { SharedSlice::at(segment, offset, count) }
}

/// The words of a file of progress, for the engine: a status word a chunk, a bit a position, and what is to be done again.
pub(crate) fn durable(segment: Arc<Segment>, status: usize, failed: usize, redo: Vec<u64>) -> Durable {
    // SAFETY: as in `words`: the file of progress was opened and locked by the job that is begun with it, and words lie where
    // its layout says.
    unsafe { Durable::new(segment, status, failed, redo) }
}

/// A handle of type `H` to a segment of its own, inside an `rkyv` archive: the segment's id.
///
/// Nobody can make or copy one but who serialises a handle, so it is a handle of this type that was serialised.
#[repr(transparent)]
pub struct ArchivedHandle<H> {
    id: ArchivedU64,
    handle: PhantomData<fn() -> H>,
}

// SAFETY: it has the layout of its one field that is not of size zero, which is portable.
unsafe impl<H> Portable for ArchivedHandle<H> {}

// SAFETY: any eight bytes are a number, so there is nothing to check but whether they may be taken for a handle.
unsafe impl<H, C: Fallible<Error: Source> + ?Sized> CheckBytes<C> for ArchivedHandle<H> {
    unsafe fn check_bytes(value: *const Self, _: &mut C) -> Result<(), C::Error> {
        match vouch::may_be_checked(value) {
            true => Ok(()),
            false => Err(Source::new(vouch::NoHandle)),
        }
    }
}

impl<H> ArchivedHandle<H> {
    /// Writes the id of a handle's segment down.
    pub(crate) fn write(id: SegmentId, out: Place<Self>) {
        // SAFETY: the struct is transparent: its number starts where it starts.
        let number = unsafe { out.cast_unchecked::<ArchivedU64>() };
        number.write(ArchivedU64::from_native(id.to_bits()));
    }

    /// The segment's id, and whether it is believed that there is such a segment.
    pub(crate) fn read(&self) -> (SegmentId, Vouch) {
        let id = SegmentId::from_bits(self.id.to_native());
        (id, Vouch(vouch::is_given_for(self)))
    }
}

impl<H> fmt::Debug for ArchivedHandle<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ArchivedHandle").field(&self.id).finish()
    }
}
