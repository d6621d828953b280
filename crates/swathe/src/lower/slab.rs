//! The memory that results are written to.

use std::{
    marker::PhantomData,
    ops::Range,
    ptr::NonNull,
    slice,
    sync::{Arc, Mutex, PoisonError},
};

use bytemuck::{Pod, Zeroable};
use swathe_memory::{Access, Array, ArrayMut, Memory, Segment, SegmentId, registry};
use swathe_runtime::{End, Outcome, Region};

use super::wire::{Decoder, Encoder};
use crate::Error;

/// Where a slab lies.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct SlabRef {
    segment: u64,
    offset: u64,
    count: u64,
}

impl SlabRef {
    fn of<T: Pod>(array: &ArrayMut<T>) -> Self {
        let count = array.len() as u64;
        let block = array.block();
        let (segment, offset) = block.map_or((0, 0), |block| {
            (block.segment().id().to_bits(), block.offset() as u64)
        });
        Self {
            segment,
            offset,
            count,
        }
    }
}

/// A slab as a worker sees it.
pub(crate) struct Slab<T> {
    start: NonNull<T>,
    count: usize,
    /// Its segment, and where in there it starts, bytes.
    place: (SegmentId, u64),
    /// `None` when there are no bytes.
    _segment: Option<Arc<Segment>>,
    elements: PhantomData<T>,
}

impl<T: Pod> Slab<T> {
    pub(crate) fn attach(wire: &mut Decoder<'_>) -> Result<Self, String> {
        let SlabRef {
            segment,
            offset,
            count,
        } = wire.pod()?;
        let count = usize::try_from(count).map_err(|e| e.to_string())?;
        let bytes = count
            .checked_mul(size_of::<T>())
            .ok_or("the output is too large for this machine")?;
        if bytes == 0 {
            return Ok(Self {
                start: NonNull::dangling(),
                count,
                place: (SegmentId::from_bits(segment), offset),
                _segment: None,
                elements: PhantomData,
            });
        }
        let segment = registry::resolve(SegmentId::from_bits(segment)).map_err(|e| e.to_string())?;
        let start = segment
            .range(offset as usize, bytes)
            .map_err(|e| e.to_string())?
            .cast::<T>();
        if segment.access() != Access::ReadWrite || !start.is_aligned() {
            return Err("the output's memory cannot be written by workers".to_owned());
        }
        Ok(Self {
            start,
            count,
            place: (segment.id(), offset),
            _segment: Some(segment),
            elements: PhantomData,
        })
    }

    /// Where a position lies: segment, and bytes from its start.
    pub(super) fn place(&self, position: usize) -> (SegmentId, u64) {
        let (segment, offset) = self.place;
        (segment, offset + (position * size_of::<T>()) as u64)
    }

    /// Some positions of the slab.
    ///
    /// # Safety
    /// Until the slice is dropped, no other process or thread may read or write these positions.
    pub(super) unsafe fn strip(&mut self, positions: Range<usize>) -> Result<&mut [T], String> {
        if positions.start > positions.end || positions.end > self.count {
            return Err(format!(
                "positions {positions:?} of an output of {} were asked for",
                self.count
            ));
        }
        // SAFETY: the range lies in the slab, which lies in the mapped segment, or has no bytes; it is aligned; any
        // bytes are a T: Pod; and nobody else uses it, as the caller promises.
        Ok(unsafe { slice::from_raw_parts_mut(self.start.add(positions.start).as_ptr(), positions.len()) })
    }
}

/// The parent's side of a slab: nobody here looks at it before the job is over.
#[derive(Debug)]
pub(crate) struct Output<T: Pod>(Arc<Mutex<Slabs<T>>>);

#[derive(Debug)]
enum Slabs<T: Pod> {
    Written(Option<ArrayMut<T>>),
    /// So many elements of a file, from this byte on.
    InFile(Arc<Segment>, usize, usize),
    Done(Array<T>),
}

impl<T: Pod> Clone for Output<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Pod + Send + Sync> Output<T> {
    /// A slab of `len` elements, and its place for the workers.
    pub(crate) fn new(memory: &Memory, len: usize, wire: &mut Encoder) -> Result<Self, Error> {
        Self::new_noting(memory, len, wire).map(|(output, _)| output)
    }

    /// As [`new`](Self::new); says whether nobody has left anything in the slab.
    pub(crate) fn new_noting(memory: &Memory, len: usize, wire: &mut Encoder) -> Result<(Self, bool), Error> {
        // SAFETY: `when_over` shows it, and clears what has no value. Tasks see only what they are given to write, which
        // whoever made it not fresh clears.
        let (slab, is_fresh) = unsafe { ArrayMut::recycled_in(memory, len) }?;
        wire.pod(&SlabRef::of(&slab));
        Ok((Self(Arc::new(Mutex::new(Slabs::Written(Some(slab))))), is_fresh))
    }

    /// A slab in a file that is mapped to be written, from byte `offset` on.
    pub(crate) fn in_file(
        file: Arc<Segment>,
        offset: usize,
        len: usize,
        wire: &mut Encoder,
    ) -> Result<Self, Error> {
        file.range(offset, len * size_of::<T>())?;
        wire.pod(&SlabRef {
            segment: file.id().to_bits(),
            offset: offset as u64,
            count: len as u64,
        });
        Ok(Self(Arc::new(Mutex::new(Slabs::InFile(file, offset, len)))))
    }

    /// The slab, once its job is over. In memory, positions without a value hold zeros: what an earlier job has left there is
    /// nobody's to see.
    ///
    /// A job's outcome exists only when every worker has published its last value there (release; the engine's acquire
    /// came before the outcome), has left the job, or is dead: so nobody writes it any more.
    pub(crate) fn when_over(&self, outcome: &Outcome) -> Array<T> {
        let mut slabs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let array = match &mut *slabs {
            Slabs::Done(array) => array.clone(),
            Slabs::InFile(file, offset, len) => {
                // Values that are complete are never written again, so the lock on them may go.
                let complete = outcome.end == End::Complete && outcome.failures.is_empty();
                let unlocked = complete.then(|| file.read_only().ok()).flatten();
                let file = unlocked.unwrap_or_else(|| file.clone());
                // SAFETY: this job's workers are done, see above, and no other job writes the file: it is either
                // complete, or locked for as long as the array holds its segment, or the caller of `Batch::unlocked` has
                // promised it. That nobody else writes it is for whoever has named the file to see to (docs/safety.md).
                let array = unsafe { Array::over_segment(&file, *offset, *len) };
                array.expect("in_file found the range in the segment, and it is aligned as .npy data are")
            }
            Slabs::Written(slab) => match slab.take() {
                Some(mut slab) => {
                    clear_missing(&mut slab, outcome);
                    slab.freeze()
                }
                None => unreachable!("a slab that was taken is done"),
            },
        };
        *slabs = Slabs::Done(array.clone());
        array
    }
}

/// Writes zeros where a job has no value. Nothing is to do where it has all.
fn clear_missing<T: Pod>(slab: &mut [T], outcome: &Outcome) {
    let mut clear = |from: u64, to: u64| {
        let end = slab.len();
        let at = |position| usize::try_from(position).unwrap_or(end).min(end);
        slab[at(from)..at(to.max(from))].fill(T::zeroed());
    };
    let mut next = 0;
    for range in &outcome.finals {
        clear(next, range.start);
        next = range.end;
    }
    clear(next, outcome.positions);
    for failure in &outcome.failures {
        clear(
            failure.position,
            failure.position.saturating_add(failure.span.max(1)),
        );
    }
}

/// Room for elements, all of which the caller writes.
pub(crate) fn unwritten<T: Pod>(memory: &Memory, len: usize) -> Result<ArrayMut<T>, Error> {
    // SAFETY: as the caller promises.
    let (array, _) = unsafe { ArrayMut::recycled_in(memory, len) }?;
    Ok(array)
}

/// An array that a job changes in place.
#[derive(Debug)]
pub(crate) struct InPlace<T: Pod>(Arc<Mutex<Option<ArrayMut<T>>>>);

impl<T: Pod> Clone for InPlace<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Pod + Send + Sync> InPlace<T> {
    pub(crate) fn new(array: ArrayMut<T>, wire: &mut Encoder) -> Self {
        wire.pod(&SlabRef::of(&array));
        Self(Arc::new(Mutex::new(Some(array))))
    }

    /// Where an array lies that will be changed in place: it is given to [`new`](Self::new) next.
    pub(crate) fn region(array: &ArrayMut<T>) -> Region {
        let place = SlabRef::of(array);
        let (segment, len) = (
            SegmentId::from_bits(place.segment),
            place.count * size_of::<T>() as u64,
        );
        // SAFETY: the array goes into an `InPlace`, which shows it to nobody before the job is over.
        unsafe { Region::new(segment, place.offset, len) }
    }

    /// The array, once the job is over (see [`Output::when_over`]); the first time only.
    pub(crate) fn when_over(&self, _: &Outcome) -> Option<ArrayMut<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
