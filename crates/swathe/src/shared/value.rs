//! One shared number.

use std::{
    fmt,
    sync::atomic::Ordering::{Relaxed, SeqCst},
};

use bytemuck::Pod;
use swathe_memory::{Integer, MemoryError, SegmentId};

use super::cells::Cells;
use crate::lower::Vouch;

/// One number (or other plain data of 1, 2, 4 or 8 bytes) that tasks and the parent share and change.
///
/// A handle: cloning it copies no value, and it crosses to the workers wherever an [`Array`](crate::Array) does, as an
/// argument, a parameter, or part of a record. Every operation is one atomic step, sequentially consistent: a process
/// may be killed at any time and has then done the whole step or nothing of it.
///
/// A process that was forked from one that has a handle reads and writes the same memory; dropping the handle there does
/// nothing to its parent's.
///
/// A task that is run again because its worker died does again what it did before: to count elements, count the
/// results; a counter counts attempts. The parent makes it and must hold a handle for as long as workers are to find
/// it. Each takes a file descriptor in every process that uses it; many numbers are better kept in one
/// [`SharedArray`](crate::SharedArray).
///
/// ```
/// use swathe::{Pool, Value};
///
/// fn check(odd: &Value<u64>, x: u64) {
///     if x % 2 == 1 {
///         odd.fetch_add(1);
///     }
/// }
///
/// fn main() -> swathe::Result<()> {
///     swathe::init();
///     let pool = Pool::builder().processes(2).build()?;
///     let odd = Value::new(0)?;
///     pool.map_with(&odd, check, 0..100)?;
///     assert_eq!(odd.load(), 50);
///     Ok(())
/// }
/// ```
///
/// A type of another size does not compile:
///
/// ```compile_fail
/// let point = swathe::Value::new([0.0_f64; 3]);
/// ```
#[derive(Clone)]
pub struct Value<T>(Cells<T>);

impl<T: Pod> Value<T> {
    /// A new one.
    ///
    /// # Errors
    /// When memory or file descriptors are short.
    pub fn new(initial: T) -> Result<Self, MemoryError> {
        let cells = Cells::zeros(1)?;
        // Nobody else knows it yet.
        cells.store(0, initial, Relaxed);
        Ok(Self(cells))
    }

    pub(super) fn attach(id: SegmentId, vouch: Vouch) -> Result<Self, MemoryError> {
        Cells::attach_exactly(id, vouch, 1).map(Self)
    }

    pub(super) fn id(&self) -> SegmentId {
        self.0.id()
    }

    /// The value now.
    pub fn load(&self) -> T {
        self.0.load(0, SeqCst)
    }

    /// Replaces the value.
    pub fn store(&self, value: T) {
        self.0.store(0, value, SeqCst);
    }

    /// Replaces the value and returns what it was before.
    pub fn swap(&self, value: T) -> T {
        self.0.swap(0, value)
    }

    /// Replaces the value by `new` if it is `current`, compared bit by bit. Returns what it was before.
    ///
    /// # Errors
    /// The value that was found, when it is another.
    pub fn compare_exchange(&self, current: T, new: T) -> Result<T, T> {
        self.0.compare_exchange(0, current, new)
    }

    /// Replaces the value by a function of it, and returns what it was before. The function is called again whenever
    /// somebody else has changed the value meanwhile.
    ///
    /// ```
    /// # fn main() -> swathe::Result<()> {
    /// let largest = swathe::Value::new(f64::NEG_INFINITY)?;
    /// largest.update(|seen| seen.max(2.5));
    /// assert_eq!(largest.load(), 2.5);
    /// # Ok(())
    /// # }
    /// ```
    pub fn update(&self, f: impl FnMut(T) -> T) -> T {
        self.0.update(0, f)
    }
}

impl<T: Integer> Value<T> {
    /// Adds, wrapping around at the ends of the type, and returns what the value was before.
    pub fn fetch_add(&self, n: T) -> T {
        self.0.fetch_add(0, n)
    }

    /// Subtracts, wrapping around at the ends of the type, and returns what the value was before.
    pub fn fetch_sub(&self, n: T) -> T {
        self.0.fetch_sub(0, n)
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for Value<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Value").field(&self.load()).finish()
    }
}
