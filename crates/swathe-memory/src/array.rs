//! Shared, read-only arrays.

use std::any::type_name;
use std::fmt;
use std::ops::{Bound, Deref, RangeBounds};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;

use bytemuck::Pod;
use ndarray::{ArrayBase, ArrayViewD, Axis, Data, Dimension, IxDyn};
use swathe_os::file::open_input;

use crate::arena::{Block, Memory};
use crate::array_mut::ArrayMut;
use crate::element::Integer;
use crate::error::MemoryError;
use crate::lease::Lease;
use crate::overlay::{byte_len, typed_range};
use crate::read::Input;
use crate::segment::Segment;
use crate::shape::Shape;

/// A shared, read-only array of plain data, in memory that worker processes see.
///
/// Cloning copies the handle, not the data. Derefs to `&[T]` in C order; [`shape`](Self::shape) and
/// [`view`](Self::view) give it axes. It lies in an arena or in a mapped file, and crosses to another process as an
/// [`ArrayRef`](crate::ArrayRef), which `rkyv` does by itself wherever an `Array` is part of a serialised value.
///
/// ```
/// # fn main() -> Result<(), swathe_memory::MemoryError> {
/// use swathe_memory::Array;
///
/// let table = Array::from_fn(6, |i| i as f64)?.reshape(&[2, 3])?;
/// assert_eq!(table[4], 4.0);
/// assert_eq!(table.view()[[1, 1]], 4.0);
/// assert_eq!(table.slice(1..)?.shape(), [1, 3]);
/// # Ok(())
/// # }
/// ```
pub struct Array<T> {
    start: NonNull<T>,
    shape: Shape,
    holder: Holder,
}

/// What keeps the elements in place.
#[derive(Clone)]
pub(crate) enum Holder {
    /// No bytes: an empty array, or elements of size zero.
    Nothing,
    /// A block of this process's arena, which nobody writes any more.
    Block(Arc<Block>),
    /// A mapped file, or memory that another process keeps in place.
    Segment {
        segment: Arc<Segment>,
        /// The block's serial number in the arena of the other process; 0 for files.
        serial: u64,
        /// Counted while the handle lives, so that the other process keeps the memory in place.
        #[expect(dead_code, reason = "held for its end")]
        lease: Lease,
    },
}

// SAFETY: an `Array` gives out `&T` only, to memory that is not written while it is shared; the holder is Send + Sync.
unsafe impl<T: Send + Sync> Send for Array<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Array<T> {}

/// Constructors. Each copies or computes its elements into the arena of this process, [`Memory::global`]; the forms
/// that end in `_in` take another arena.
///
/// All fail with [`MemoryError`] when memory is short.
impl<T: Pod> Array<T> {
    /// An array of the elements of a `Vec`, copied.
    ///
    /// # Errors
    /// When memory is short.
    pub fn from_vec(elements: Vec<T>) -> Result<Array<T>, MemoryError> {
        Array::from_slice(&elements)
    }

    /// As [`from_vec`](Self::from_vec), in `memory`.
    ///
    /// # Errors
    /// When memory is short.
    pub fn from_vec_in(memory: &Memory, elements: Vec<T>) -> Result<Array<T>, MemoryError> {
        Array::from_slice_in(memory, &elements)
    }

    /// An array of the elements of a slice, copied once.
    ///
    /// # Errors
    /// When memory is short.
    pub fn from_slice(elements: &[T]) -> Result<Array<T>, MemoryError> {
        Array::from_slice_in(&Memory::global()?, elements)
    }

    /// As [`from_slice`](Self::from_slice), in `memory`.
    ///
    /// # Errors
    /// When memory is short.
    pub fn from_slice_in(memory: &Memory, elements: &[T]) -> Result<Array<T>, MemoryError> {
        ArrayMut::from_slice_in(memory, elements).map(ArrayMut::freeze)
    }

    /// An array of `f(0), f(1), ..., f(len - 1)`, written in place.
    ///
    /// # Errors
    /// When memory is short.
    pub fn from_fn(len: usize, f: impl FnMut(usize) -> T) -> Result<Array<T>, MemoryError> {
        Array::from_fn_in(&Memory::global()?, len, f)
    }

    /// As [`from_fn`](Self::from_fn), in `memory`.
    ///
    /// # Errors
    /// When memory is short.
    pub fn from_fn_in(
        memory: &Memory,
        len: usize,
        f: impl FnMut(usize) -> T,
    ) -> Result<Array<T>, MemoryError> {
        ArrayMut::from_fn_in(memory, len, f).map(ArrayMut::freeze)
    }

    /// An array of what an iterator yields. (`FromIterator` cannot fail, and memory can be short.)
    ///
    /// # Errors
    /// When memory is short.
    pub fn collect_from(elements: impl IntoIterator<Item = T>) -> Result<Array<T>, MemoryError> {
        Array::collect_from_in(&Memory::global()?, elements)
    }

    /// As [`collect_from`](Self::collect_from), in `memory`.
    ///
    /// # Errors
    /// When memory is short.
    pub fn collect_from_in(
        memory: &Memory,
        elements: impl IntoIterator<Item = T>,
    ) -> Result<Array<T>, MemoryError> {
        Array::from_vec_in(memory, elements.into_iter().collect())
    }

    /// An array of all integers in a range, such as `0..10` or `1..=10`.
    ///
    /// # Errors
    /// When the range lacks an end, or memory is short.
    pub fn from_range(range: impl RangeBounds<T>) -> Result<Array<T>, MemoryError>
    where
        T: Integer,
    {
        Array::from_range_in(&Memory::global()?, range)
    }

    /// As [`from_range`](Self::from_range), in `memory`.
    ///
    /// # Errors
    /// When the range lacks an end, or memory is short.
    pub fn from_range_in(memory: &Memory, range: impl RangeBounds<T>) -> Result<Array<T>, MemoryError>
    where
        T: Integer,
    {
        let (first, len) = crate::element::range_extent(&range)?;
        Array::from_fn_in(memory, len, |i| first.plus(i))
    }

    /// `len` zeros. Fresh memory is zero already, so nothing is written.
    ///
    /// # Errors
    /// When memory is short.
    pub fn zeros(len: usize) -> Result<Array<T>, MemoryError> {
        Array::zeros_in(&Memory::global()?, len)
    }

    /// As [`zeros`](Self::zeros), in `memory`.
    ///
    /// # Errors
    /// When memory is short.
    pub fn zeros_in(memory: &Memory, len: usize) -> Result<Array<T>, MemoryError> {
        ArrayMut::zeros_in(memory, len).map(ArrayMut::freeze)
    }

    /// A copy of an `ndarray` array of any layout, in C order and with its shape.
    ///
    /// # Errors
    /// When it has more than 8 axes or memory is short.
    pub fn from_ndarray<S: Data<Elem = T>, D: Dimension>(
        array: &ArrayBase<S, D>,
    ) -> Result<Array<T>, MemoryError> {
        Array::from_ndarray_in(&Memory::global()?, array)
    }

    /// As [`from_ndarray`](Self::from_ndarray), in `memory`.
    ///
    /// # Errors
    /// When it has more than 8 axes or memory is short.
    pub fn from_ndarray_in<S: Data<Elem = T>, D: Dimension>(
        memory: &Memory,
        array: &ArrayBase<S, D>,
    ) -> Result<Array<T>, MemoryError> {
        ArrayMut::from_ndarray_in(memory, array).map(ArrayMut::freeze)
    }

    /// Reads a file that holds nothing but `T`s in this machine's byte order: one axis, as long as the file has elements.
    ///
    /// The elements are copied once, so the file may change afterwards. One that others write while it is read gives some of
    /// the old elements and some of the new. [`map_raw_file`](Self::map_raw_file) copies nothing.
    ///
    /// # Errors
    /// When the file cannot be read or is no regular file, its length is not a multiple of the size of `T`, it becomes shorter
    /// meanwhile, or memory is short.
    pub fn from_raw_file(path: impl AsRef<Path>) -> Result<Array<T>, MemoryError> {
        Array::from_raw_file_with(Memory::global, path.as_ref())
    }

    /// As [`from_raw_file`](Self::from_raw_file), in `memory`.
    ///
    /// # Errors
    /// As [`from_raw_file`](Self::from_raw_file).
    pub fn from_raw_file_in(memory: &Memory, path: impl AsRef<Path>) -> Result<Array<T>, MemoryError> {
        Array::from_raw_file_with(|| Ok(memory.clone()), path.as_ref())
    }

    fn from_raw_file_with(
        memory: impl FnOnce() -> Result<Memory, MemoryError>,
        path: &Path,
    ) -> Result<Array<T>, MemoryError> {
        let file = open_input(path).map_err(|source| MemoryError::File {
            action: "open",
            path: path.to_owned(),
            source,
        })?;
        let input = Input { file: &file, path };
        let count = elements_in::<T>(input.len()?, path)?;
        // Refused, if at all, before memory is asked for.
        Ok(input.elements(&memory()?, 0, count)?.freeze())
    }

    /// Maps a file that holds nothing but `T`s in this machine's byte order. Nothing is copied, and nothing is read before it
    /// is used.
    ///
    /// # Safety
    /// Nobody writes the file, truncates it or replaces its bytes in place, from now until the array and all that was made
    /// from it (clones, parts, references that are attached, a pool or a job that was given it) are gone: bytes that change
    /// under a `&[T]` are undefined behaviour, and a page that is cut off is a SIGBUS. Making a new file and renaming it to
    /// this name is fine, and so is removing the name. [`verify`](Self::verify) notices a file that has shrunk; nothing
    /// notices bytes that change.
    ///
    /// # Errors
    /// When the file cannot be mapped or its length is not a multiple of the size of `T`.
    pub unsafe fn map_raw_file(path: impl AsRef<Path>) -> Result<Array<T>, MemoryError> {
        let path = path.as_ref();
        let segment = Segment::map_file(path)?;
        let count = elements_in::<T>(segment.len(), path)?;
        Array::in_segment(&segment, 0, Shape::flat(count)?, 0)
    }

    /// Maps the array of this shape at the start of a memory file that can never change again. Nothing is copied, and
    /// nothing has to be promised: the kernel keeps everybody from writing and from shrinking a file with the seals
    /// `F_SEAL_WRITE` and `F_SEAL_SHRINK` (`fcntl(F_ADD_SEALS)`, see memfd_create(2)), and does not give the first while
    /// somebody has the file mapped for writing. Bytes behind the array are ignored.
    ///
    /// Workers map it, too, by its descriptor.
    ///
    /// # Errors
    /// [`MemoryError::Sealed`] when the file lacks one of the seals, as any file in a file system does, or is too small for
    /// the shape; when the shape has more than 8 axes; when the file cannot be mapped.
    pub fn from_sealed_file(file: impl Into<OwnedFd>, shape: &[usize]) -> Result<Array<T>, MemoryError> {
        let shape = Shape::new(shape)?;
        let segment = Segment::map_sealed(file.into().into())?;
        let needed = byte_len::<T>(shape.count())?;
        if needed > segment.len() {
            let reason = format!(
                "the shape {shape:?} of {} needs {needed} bytes, but the file has {}; check shape and element type",
                type_name::<T>(),
                segment.len()
            );
            return Err(MemoryError::Sealed { reason });
        }
        Array::in_segment(&segment, 0, shape, 0)
    }
}

/// How many `T`s a file of this length holds.
fn elements_in<T>(len: usize, path: &Path) -> Result<usize, MemoryError> {
    let size = size_of::<T>();
    let count = len.checked_div(size).unwrap_or(0);
    if count * size != len {
        return Err(MemoryError::Format {
            path: path.to_owned(),
            expected: format!("an array of {}", type_name::<T>()),
            found: format!("it holds {len} bytes, which is not a multiple of {size}"),
            remedy: "check the element type, or whether the file was cut off".to_owned(),
        });
    }
    Ok(count)
}

/// What every array offers.
impl<T: Pod> Array<T> {
    /// Lengths of the axes, in C order: the last axis is contiguous.
    pub fn shape(&self) -> &[usize] {
        self.shape.lengths()
    }

    /// The same elements with other axes. Nothing is copied.
    ///
    /// # Errors
    /// When the new shape has another number of elements, or more than 8 axes.
    pub fn reshape(&self, shape: &[usize]) -> Result<Array<T>, MemoryError> {
        let mut reshaped = self.clone();
        reshaped.shape = Shape::of(shape, self.shape.count())?;
        Ok(reshaped)
    }

    /// A part of the array along its first axis (elements of a list, rows of a table). Nothing is copied; the part
    /// keeps the whole in memory.
    ///
    /// # Errors
    /// When the range is out of bounds or backwards, or the array has no axes.
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Result<Array<T>, MemoryError> {
        let refused = || MemoryError::Index {
            what: format!("the range {:?}..{:?}", range.start_bound(), range.end_bound()),
            shape: self.shape().to_vec(),
        };
        let rows = *self.shape().first().ok_or_else(refused)?;
        let from = match range.start_bound() {
            Bound::Unbounded => Some(0),
            Bound::Included(&row) => Some(row),
            Bound::Excluded(&row) => row.checked_add(1),
        };
        let to = match range.end_bound() {
            Bound::Unbounded => Some(rows),
            Bound::Included(&row) => row.checked_add(1),
            Bound::Excluded(&row) => Some(row),
        };
        let (from, to) = from
            .zip(to)
            .filter(|&(from, to)| from <= to && to <= rows)
            .ok_or_else(refused)?;
        let skipped = from * self.shape.row_len();
        Ok(Array {
            // SAFETY: from <= rows, so at most the whole array is skipped; it is one range of memory.
            start: unsafe { self.start.add(skipped) },
            shape: self.shape.with_rows(to - from),
            holder: self.holder.clone(),
        })
    }

    /// Column `index` of a table (an array of two axes), copied into an array of its own in the arena of this
    /// process, as `starmap` wants its arguments. [`index_axis`](Self::index_axis) gives it without copying.
    ///
    /// # Errors
    /// When the array has not two axes or the table no such column, or memory is short.
    pub fn column(&self, index: usize) -> Result<Array<T>, MemoryError> {
        let &[rows, columns] = self.shape() else {
            return Err(MemoryError::Shape {
                shape: self.shape().to_vec(),
                reason: "has no columns; only arrays with two axes have".to_owned(),
            });
        };
        if index >= columns {
            return Err(MemoryError::Index {
                what: format!("column {index}"),
                shape: self.shape().to_vec(),
            });
        }
        Array::from_fn(rows, |row| self[row * columns + index])
    }

    /// The array as an `ndarray` view.
    pub fn view(&self) -> ArrayViewD<'_, T> {
        ArrayViewD::from_shape(IxDyn(self.shape()), self).expect("a Shape counts the elements exactly")
    }

    /// Everything at position `index` of axis `axis`, as an `ndarray` view with one axis less.
    ///
    /// # Errors
    /// When there is no such axis or position.
    pub fn index_axis(&self, axis: usize, index: usize) -> Result<ArrayViewD<'_, T>, MemoryError> {
        if self.shape().get(axis).is_none_or(|&length| index >= length) {
            return Err(MemoryError::Index {
                what: format!("position {index} of axis {axis}"),
                shape: self.shape().to_vec(),
            });
        }
        Ok(self.view().index_axis_move(Axis(axis), index))
    }

    /// How many of its bytes lie on which NUMA node. Pages that are not there yet are taken by this.
    ///
    /// # Errors
    /// What the kernel says, for example where it has no NUMA support.
    pub fn nodes(&self) -> std::io::Result<std::collections::BTreeMap<usize, usize>> {
        swathe_os::numa::nodes_of(bytemuck::cast_slice(self))
    }

    /// Checks that a file behind the array still has all its bytes; see [`Segment::verify`].
    ///
    /// # Errors
    /// [`MemoryError::Shrunk`].
    pub fn verify(&self) -> Result<(), MemoryError> {
        match &self.holder {
            Holder::Segment { segment, .. } => segment.verify(),
            Holder::Nothing | Holder::Block(_) => Ok(()),
        }
    }

    /// The segment that the elements lie in; `None` when the array has no bytes.
    pub fn segment(&self) -> Option<&Arc<Segment>> {
        match &self.holder {
            Holder::Nothing => None,
            Holder::Block(block) => Some(block.segment()),
            Holder::Segment { segment, .. } => Some(segment),
        }
    }

    /// Position of the first element in the segment, in bytes; 0 when the array has no bytes.
    pub fn offset(&self) -> usize {
        self.segment().map_or(0, |segment| {
            self.start.addr().get() - segment.mapping().as_ptr().addr().get()
        })
    }

    /// An array without bytes.
    pub(crate) fn without_bytes(shape: Shape) -> Array<T> {
        debug_assert!(size_of::<T>() == 0 || shape.count() == 0);
        Array {
            start: NonNull::dangling(),
            shape,
            holder: Holder::Nothing,
        }
    }

    /// The elements at the start of a block, which has room for them and is written by nobody any more.
    pub(crate) fn in_block(block: Arc<Block>, shape: Shape) -> Array<T> {
        debug_assert!(shape.count() * size_of::<T>() <= block.len());
        Array {
            start: block.as_ptr().cast(),
            shape,
            holder: Holder::Block(block),
        }
    }

    /// Elements at byte `offset` of a published block of this process's arena.
    pub(crate) fn inside_block(
        block: Arc<Block>,
        offset: usize,
        shape: Shape,
    ) -> Result<Array<T>, MemoryError> {
        Ok(Array {
            start: typed_range(block.segment(), offset, shape.count())?,
            shape,
            holder: Holder::Block(block),
        })
    }

    /// `len` elements at byte `offset` of a segment, such as a file that workers have written.
    ///
    /// # Safety
    /// While the array or a clone of it exists, nobody writes these bytes.
    ///
    /// # Errors
    /// When the range is out of bounds or misaligned.
    pub unsafe fn over_segment(
        segment: &Arc<Segment>,
        offset: usize,
        len: usize,
    ) -> Result<Array<T>, MemoryError> {
        Array::in_segment(segment, offset, Shape::flat(len)?, 0)
    }

    /// Elements at byte `offset` of a segment that this process does not write.
    pub(crate) fn in_segment(
        segment: &Arc<Segment>,
        offset: usize,
        shape: Shape,
        serial: u64,
    ) -> Result<Array<T>, MemoryError> {
        if size_of::<T>() == 0 || shape.count() == 0 {
            return Ok(Array::without_bytes(shape));
        }
        Ok(Array {
            start: typed_range(segment, offset, shape.count())?,
            shape,
            holder: Holder::Segment {
                segment: Arc::clone(segment),
                serial,
                lease: Lease::new(),
            },
        })
    }

    pub(crate) fn holder(&self) -> &Holder {
        &self.holder
    }
}

impl<T: Pod> Deref for Array<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: every constructor checks that `start` is aligned and has room for the elements, in memory that the
        // holder keeps in place; T: Pod is valid for any bytes; nobody writes them while an Array exists (a frozen
        // block, a sealed file, a file that its user promised not to change, or inputs that the parent keeps for a running
        // job).
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.shape.count()) }
    }
}

impl<T> Clone for Array<T> {
    fn clone(&self) -> Self {
        Array {
            start: self.start,
            shape: self.shape,
            holder: self.holder.clone(),
        }
    }
}

impl<T: Pod> AsRef<[T]> for Array<T> {
    fn as_ref(&self) -> &[T] {
        self
    }
}

impl<'a, T: Pod> IntoIterator for &'a Array<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Equal shapes and equal elements.
impl<T: Pod + PartialEq> PartialEq for Array<T> {
    fn eq(&self, other: &Self) -> bool {
        self.shape == other.shape && self[..] == other[..]
    }
}

impl<T: Pod + Eq> Eq for Array<T> {}

/// Equal elements in C order, whatever the shape.
impl<T: Pod + PartialEq> PartialEq<[T]> for Array<T> {
    fn eq(&self, other: &[T]) -> bool {
        self[..] == *other
    }
}

/// Equal elements in C order, whatever the shape.
impl<T: Pod + PartialEq, const N: usize> PartialEq<[T; N]> for Array<T> {
    fn eq(&self, other: &[T; N]) -> bool {
        self[..] == *other
    }
}

/// Equal elements in C order, whatever the shape.
impl<T: Pod + PartialEq> PartialEq<Vec<T>> for Array<T> {
    fn eq(&self, other: &Vec<T>) -> bool {
        self[..] == **other
    }
}

/// As a slice prints, cut off after 16 elements; with the shape in front when there is more than one axis.
impl<T: Pod + fmt::Debug> fmt::Debug for Array<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug_elements(f, self.shape(), self)
    }
}

pub(crate) fn debug_elements<T: fmt::Debug>(
    f: &mut fmt::Formatter<'_>,
    shape: &[usize],
    elements: &[T],
) -> fmt::Result {
    const SHOWN: usize = 16;
    if shape.len() != 1 {
        write!(f, "{shape:?} ")?;
    }
    let mut list = f.debug_list();
    list.entries(elements.iter().take(SHOWN));
    if elements.len() > SHOWN {
        list.entry(&format_args!("... {} in all", elements.len()));
    }
    list.finish()
}

#[cfg(test)]
mod tests;
