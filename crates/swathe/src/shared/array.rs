//! Shared numbers by position.

use std::{
    fmt,
    sync::atomic::Ordering::{Acquire, Relaxed, Release},
};

use bytemuck::Pod;
use swathe_memory::{Array, Integer, MemoryError, SegmentId};

use super::cells::Cells;
use crate::lower::Vouch;

/// An array that tasks and the parent share and change: `T` is plain data of 1, 2, 4 or 8 bytes.
///
/// (An [`Array`] is what nobody changes any more; it derefs to a slice, which this cannot, as others may write
/// meanwhile.) A handle: cloning it copies no element, and it crosses to the workers wherever an `Array` does. Each
/// operation on an element is one atomic step, so no element is ever seen half written, however its writer ended. Who
/// sees an element sees what its writer did before; beyond that, different elements are not ordered.
///
/// A process that was forked from one that has a handle reads and writes the same memory; dropping the handle there does
/// nothing to its parent's.
///
/// A task that is run again because its worker died does again what it did before. The parent makes the array and must
/// hold a handle for as long as workers are to find it.
///
/// ```
/// use swathe::{Pool, SharedArray};
///
/// fn count(histogram: &SharedArray<u32>, x: u64) {
///     histogram.fetch_add((x * x % 10) as usize, 1);
/// }
///
/// fn main() -> swathe::Result<()> {
///     swathe::init();
///     let pool = Pool::builder().processes(2).build()?;
///     let last_digits = SharedArray::zeros(10)?;
///     pool.map_with(&last_digits, count, 0..1000)?;
///     assert_eq!(last_digits.to_vec(), [100, 200, 0, 0, 200, 100, 200, 0, 0, 200]);
///     Ok(())
/// }
/// ```
#[derive(Clone)]
pub struct SharedArray<T>(Cells<T>);

/// # Panics
/// All methods that take a position panic when there is no such element, as indexing a slice does.
impl<T: Pod> SharedArray<T> {
    /// `len` zeros.
    ///
    /// # Errors
    /// When memory or file descriptors are short.
    pub fn zeros(len: usize) -> Result<Self, MemoryError> {
        Cells::zeros(len).map(Self)
    }

    /// A copy of a slice.
    ///
    /// # Errors
    /// When memory or file descriptors are short.
    pub fn from_slice(elements: &[T]) -> Result<Self, MemoryError> {
        let cells = Cells::zeros(elements.len())?;
        for (i, &element) in elements.iter().enumerate() {
            // Nobody else knows it yet.
            cells.store(i, element, Relaxed);
        }
        Ok(Self(cells))
    }

    pub(super) fn attach(id: SegmentId, vouch: Vouch) -> Result<Self, MemoryError> {
        Cells::attach(id, vouch).map(Self)
    }

    pub(super) fn id(&self) -> SegmentId {
        self.0.id()
    }

    /// How many elements there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Element `i` now.
    pub fn load(&self, i: usize) -> T {
        self.0.load(i, Acquire)
    }

    /// Replaces element `i`.
    pub fn store(&self, i: usize, value: T) {
        self.0.store(i, value, Release);
    }

    /// As [`load`](Self::load), which is what [`Value`](crate::Value) calls it too.
    #[deprecated(since = "0.1.0", note = "named `load`, as in `Value`")]
    #[doc(hidden)]
    pub fn get(&self, i: usize) -> T {
        self.load(i)
    }

    /// As [`store`](Self::store), which is what [`Value`](crate::Value) calls it too.
    #[deprecated(since = "0.1.0", note = "named `store`, as in `Value`")]
    #[doc(hidden)]
    pub fn set(&self, i: usize, value: T) {
        self.store(i, value);
    }

    /// Replaces element `i` and returns what it was before.
    pub fn swap(&self, i: usize, value: T) -> T {
        self.0.swap(i, value)
    }

    /// Replaces element `i` by `new` if it is `current`, compared bit by bit. Returns what it was before.
    ///
    /// # Errors
    /// The element that was found, when it is another.
    pub fn compare_exchange(&self, i: usize, current: T, new: T) -> Result<T, T> {
        self.0.compare_exchange(i, current, new)
    }

    /// Replaces element `i` by a function of it, and returns what it was before. The function is called again whenever
    /// somebody else has changed the element meanwhile.
    pub fn update(&self, i: usize, f: impl FnMut(T) -> T) -> T {
        self.0.update(i, f)
    }

    /// Replaces all elements, one after the other.
    pub fn fill(&self, value: T) {
        (0..self.len()).for_each(|i| self.store(i, value));
    }

    /// Reads all elements, one after the other: no picture of one instant while others write.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = T> + ExactSizeIterator {
        (0..self.len()).map(|i| self.load(i))
    }

    /// A copy, read as [`iter`](Self::iter) does.
    pub fn to_vec(&self) -> Vec<T> {
        self.iter().collect()
    }

    /// A copy that nobody changes, in the memory of this process, read as [`iter`](Self::iter) does.
    ///
    /// # Errors
    /// When memory is short.
    pub fn to_array(&self) -> Result<Array<T>, MemoryError> {
        Array::from_fn(self.len(), |i| self.load(i))
    }
}

/// # Panics
/// When there is no element `i`, as indexing a slice does.
impl<T: Integer> SharedArray<T> {
    /// Adds to element `i`, wrapping around at the ends of the type, and returns what it was before.
    pub fn fetch_add(&self, i: usize, n: T) -> T {
        self.0.fetch_add(i, n)
    }

    /// Subtracts from element `i`, wrapping around at the ends of the type, and returns what it was before.
    pub fn fetch_sub(&self, i: usize, n: T) -> T {
        self.0.fetch_sub(i, n)
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for SharedArray<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
