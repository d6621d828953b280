//! Unique, writable arrays.

use std::fmt;
use std::ops::{Deref, DerefMut, RangeBounds};
use std::ptr::NonNull;
use std::sync::Arc;

use bytemuck::Pod;
use ndarray::{ArrayBase, ArrayViewD, ArrayViewMutD, Data, Dimension, IxDyn};

use crate::arena::{Block, Memory};
use crate::array::{Array, debug_elements};
use crate::element::Integer;
use crate::error::MemoryError;
use crate::overlay::{byte_len, typed_range};
use crate::shape::Shape;

/// A unique, writable array of plain data in shared memory; [`freeze`](Self::freeze)s into an [`Array`].
///
/// ```
/// # fn main() -> Result<(), swathe_memory::MemoryError> {
/// use swathe_memory::ArrayMut;
///
/// let mut values = ArrayMut::<u32>::zeros(4)?;
/// values[2] = 7;
/// assert_eq!(values.freeze(), [0, 0, 7, 0]);
/// # Ok(())
/// # }
/// ```
pub struct ArrayMut<T> {
    start: NonNull<T>,
    shape: Shape,
    /// `None` when there are no bytes.
    block: Option<Block>,
}

// SAFETY: owns its elements, like a Vec; the block may be freed in any thread.
unsafe impl<T: Send> Send for ArrayMut<T> {}
// SAFETY: through `&ArrayMut` only `&T` are to be had.
unsafe impl<T: Sync> Sync for ArrayMut<T> {}

/// Constructors; as those of [`Array`], in the arena of this process or in the one given.
impl<T: Pod> ArrayMut<T> {
    /// An array of the elements of a `Vec`, copied.
    ///
    /// # Errors
    /// When memory is short.
    pub fn from_vec(elements: Vec<T>) -> Result<ArrayMut<T>, MemoryError> {
        ArrayMut::from_slice(&elements)
    }

    /// An array of the elements of a slice, copied.
    ///
    /// # Errors
    /// When memory is short.
    pub fn from_slice(elements: &[T]) -> Result<ArrayMut<T>, MemoryError> {
        ArrayMut::from_slice_in(&Memory::global()?, elements)
    }

    /// As [`from_slice`](Self::from_slice), in `memory`.
    ///
    /// # Errors
    /// When memory is short.
    pub fn from_slice_in(memory: &Memory, elements: &[T]) -> Result<ArrayMut<T>, MemoryError> {
        let mut array = ArrayMut::unwritten(memory, elements.len())?;
        array.copy_from_slice(elements);
        Ok(array)
    }

    /// An array of `f(0), f(1), ..., f(len - 1)`, written in place.
    ///
    /// # Errors
    /// When memory is short.
    pub fn from_fn(len: usize, f: impl FnMut(usize) -> T) -> Result<ArrayMut<T>, MemoryError> {
        ArrayMut::from_fn_in(&Memory::global()?, len, f)
    }

    /// As [`from_fn`](Self::from_fn), in `memory`.
    ///
    /// # Errors
    /// When memory is short.
    pub fn from_fn_in(
        memory: &Memory,
        len: usize,
        mut f: impl FnMut(usize) -> T,
    ) -> Result<ArrayMut<T>, MemoryError> {
        let mut array = ArrayMut::unwritten(memory, len)?;
        for (i, element) in array.iter_mut().enumerate() {
            *element = f(i);
        }
        Ok(array)
    }

    /// An array of what an iterator yields.
    ///
    /// # Errors
    /// When memory is short.
    pub fn collect_from(elements: impl IntoIterator<Item = T>) -> Result<ArrayMut<T>, MemoryError> {
        ArrayMut::from_vec(elements.into_iter().collect())
    }

    /// An array of all integers in a range, such as `0..10` or `1..=10`.
    ///
    /// # Errors
    /// When the range lacks an end, or memory is short.
    pub fn from_range(range: impl RangeBounds<T>) -> Result<ArrayMut<T>, MemoryError>
    where
        T: Integer,
    {
        let (first, len) = crate::element::range_extent(&range)?;
        ArrayMut::from_fn(len, |i| first.plus(i))
    }

    /// `len` zeros.
    ///
    /// # Errors
    /// When memory is short.
    pub fn zeros(len: usize) -> Result<ArrayMut<T>, MemoryError> {
        ArrayMut::zeros_in(&Memory::global()?, len)
    }

    /// As [`zeros`](Self::zeros), in `memory`.
    ///
    /// # Errors
    /// When memory is short.
    pub fn zeros_in(memory: &Memory, len: usize) -> Result<ArrayMut<T>, MemoryError> {
        ArrayMut::alloc(len, |bytes, align| memory.alloc_zeroed(bytes, align))
    }

    /// `len` elements for output that is written before it is read. Memory that is recycled is cleared: what an earlier job
    /// has left in it is not shown.
    ///
    /// # Errors
    /// When memory is short.
    pub fn scratch(len: usize) -> Result<ArrayMut<T>, MemoryError> {
        ArrayMut::scratch_in(&Memory::global()?, len)
    }

    /// As [`scratch`](Self::scratch), in `memory`.
    ///
    /// # Errors
    /// When memory is short.
    pub fn scratch_in(memory: &Memory, len: usize) -> Result<ArrayMut<T>, MemoryError> {
        ArrayMut::zeros_in(memory, len)
    }

    /// `len` elements with whatever an earlier user of the memory has left in them, and whether there was none.
    ///
    /// # Safety
    /// Memory-safe in any case; but all elements must be written, or cleared, before they are shown to anybody.
    ///
    /// # Errors
    /// When memory is short.
    #[doc(hidden)]
    pub unsafe fn recycled_in(memory: &Memory, len: usize) -> Result<(ArrayMut<T>, bool), MemoryError> {
        let mut is_fresh = true;
        let array = ArrayMut::alloc(len, |bytes, align| {
            let (block, fresh) = memory.alloc_noting(bytes, align)?;
            is_fresh = fresh;
            Ok(block)
        })?;
        Ok((array, is_fresh))
    }

    /// `len` elements of arbitrary value, all of which the caller writes.
    pub(crate) fn unwritten(memory: &Memory, len: usize) -> Result<ArrayMut<T>, MemoryError> {
        ArrayMut::alloc(len, |bytes, align| memory.alloc(bytes, align))
    }

    /// A copy of an `ndarray` array of any layout, in C order and with its shape.
    ///
    /// # Errors
    /// When it has more than 8 axes or memory is short.
    pub fn from_ndarray<S: Data<Elem = T>, D: Dimension>(
        array: &ArrayBase<S, D>,
    ) -> Result<ArrayMut<T>, MemoryError> {
        ArrayMut::from_ndarray_in(&Memory::global()?, array)
    }

    /// As [`from_ndarray`](Self::from_ndarray), in `memory`.
    ///
    /// # Errors
    /// When it has more than 8 axes or memory is short.
    pub fn from_ndarray_in<S: Data<Elem = T>, D: Dimension>(
        memory: &Memory,
        array: &ArrayBase<S, D>,
    ) -> Result<ArrayMut<T>, MemoryError> {
        let mut copy = ArrayMut::unwritten(memory, array.len())?.reshape(array.shape())?;
        for (to, from) in copy.iter_mut().zip(array.iter()) {
            *to = *from;
        }
        Ok(copy)
    }

    /// The first `shape` elements of a block, as an array: how the output that workers wrote becomes a value.
    ///
    /// # Errors
    /// When the block is too short or misaligned for them.
    ///
    /// # Safety
    /// No other process writes the block from now on: every worker that could has published its last value there (and
    /// this process saw it published), or is dead.
    pub unsafe fn from_block(block: Block, shape: &[usize]) -> Result<ArrayMut<T>, MemoryError> {
        let shape = Shape::new(shape)?;
        let start = typed_range::<T>(block.segment(), block.offset(), shape.count())?;
        if shape.count() * size_of::<T>() > block.len() {
            return Err(MemoryError::Shape {
                shape: shape.lengths().to_vec(),
                reason: format!(
                    "needs {} bytes, but the block has {}",
                    shape.count() * size_of::<T>(),
                    block.len()
                ),
            });
        }
        Ok(ArrayMut {
            start,
            shape,
            block: Some(block),
        })
    }

    fn alloc(
        len: usize,
        take: impl FnOnce(usize, usize) -> Result<Block, MemoryError>,
    ) -> Result<ArrayMut<T>, MemoryError> {
        let shape = Shape::flat(len)?;
        let bytes = byte_len::<T>(len)?;
        let block = match bytes {
            0 => None,
            _ => Some(take(bytes, align_of::<T>())?),
        };
        let start = block
            .as_ref()
            .map_or(NonNull::dangling(), |block| block.as_ptr().cast());
        Ok(ArrayMut { start, shape, block })
    }
}

/// What every array offers.
impl<T: Pod> ArrayMut<T> {
    /// Ends writing: the elements become shareable. Nothing is copied.
    pub fn freeze(self) -> Array<T> {
        match self.block {
            Some(block) => Array::in_block(Arc::new(block), self.shape),
            None => Array::without_bytes(self.shape),
        }
    }

    /// Lengths of the axes, in C order: the last axis is contiguous.
    pub fn shape(&self) -> &[usize] {
        self.shape.lengths()
    }

    /// The same elements with other axes.
    ///
    /// # Errors
    /// When the new shape has another number of elements, or more than 8 axes; the array is dropped then.
    pub fn reshape(self, shape: &[usize]) -> Result<ArrayMut<T>, MemoryError> {
        let shape = Shape::of(shape, self.shape.count())?;
        Ok(ArrayMut { shape, ..self })
    }

    /// The array as an `ndarray` view.
    pub fn view(&self) -> ArrayViewD<'_, T> {
        ArrayViewD::from_shape(IxDyn(self.shape()), self).expect("a Shape counts the elements exactly")
    }

    /// The array as a writable `ndarray` view.
    pub fn view_mut(&mut self) -> ArrayViewMutD<'_, T> {
        let shape = self.shape;
        ArrayViewMutD::from_shape(IxDyn(shape.lengths()), self).expect("a Shape counts the elements exactly")
    }

    /// The block that the elements lie in, for telling workers where; `None` when the array has no bytes.
    pub fn block(&self) -> Option<&Block> {
        self.block.as_ref()
    }
}

impl<T: Pod> Deref for ArrayMut<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the block has room for the elements and starts aligned (constructors), is owned by `self` alone, and
        // T: Pod is valid for any bytes. A process that is told where the block lies may write it only while nobody
        // here looks, as `from_block` requires.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.shape.count()) }
    }
}

impl<T: Pod> DerefMut for ArrayMut<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`; `&mut self` is unique, and so is the block.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.shape.count()) }
    }
}

impl<T: Pod> AsRef<[T]> for ArrayMut<T> {
    fn as_ref(&self) -> &[T] {
        self
    }
}

impl<T: Pod> AsMut<[T]> for ArrayMut<T> {
    fn as_mut(&mut self) -> &mut [T] {
        self
    }
}

impl<'a, T: Pod> IntoIterator for &'a ArrayMut<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'a, T: Pod> IntoIterator for &'a mut ArrayMut<T> {
    type Item = &'a mut T;
    type IntoIter = std::slice::IterMut<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}

/// Equal shapes and equal elements.
impl<T: Pod + PartialEq> PartialEq for ArrayMut<T> {
    fn eq(&self, other: &Self) -> bool {
        self.shape == other.shape && self[..] == other[..]
    }
}

impl<T: Pod + Eq> Eq for ArrayMut<T> {}

/// As a slice prints, cut off after 16 elements; with the shape in front when there is more than one axis.
impl<T: Pod + fmt::Debug> fmt::Debug for ArrayMut<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug_elements(f, self.shape(), self)
    }
}
