//! Results of variable length.

use std::fmt;

use rkyv::util::AlignedVec;
use swathe_memory::Array;

use crate::{
    Error,
    lower::{HeapBlocks, RecordRef, stack},
};

/// Results of any size, by position: shared memory that is decoded when it is looked at.
///
/// Cloning it copies a handle. A value is read by copying its bytes out and checking them, so no damage done by a worker
/// can be worse than an error.
///
/// ```
/// use swathe::Pool;
///
/// fn label(x: i64, chunk: &str) -> String {
///     format!("{chunk}-{}", x * x)
/// }
///
/// fn main() -> swathe::Result<()> {
///     swathe::init();
///     let pool = Pool::builder().processes(2).build()?;
///     let labels = pool.starmap(label, [(1, "chunk1"), (3, "chunk2"), (5, "chunk3")])?;
///     for label in &labels {
///         println!("{label}");
///     }
///     assert_eq!(labels.value(1)?, "chunk2-9");
///     assert_eq!(labels.to_vec()?, ["chunk1-1", "chunk2-9", "chunk3-25"]);
///     Ok(())
/// }
/// ```
pub struct Records<T> {
    slab: Array<RecordRef>,
    heap: HeapBlocks,
    decode: Decode<T>,
}

/// What a value can say that is whole, and cannot be read all the same.
const NO_DAMAGE: [&str; 2] = [stack::TOO_DEEP, "was freed; keep the Array alive"];

/// Makes a value of bytes that others may change, by way of a copy.
type Decode<T> = fn(&[u8], &mut AlignedVec) -> Result<T, String>;

impl<T> Records<T> {
    pub(crate) fn new(slab: Array<RecordRef>, heap: HeapBlocks, decode: Decode<T>) -> Self {
        Self { slab, heap, decode }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.slab.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Decodes the value at a position.
    ///
    /// # Errors
    /// If there is no such position, if it has no value (of a job that failed), or if its bytes were damaged after the task
    /// returned it.
    pub fn value(&self, position: usize) -> Result<T, Error> {
        self.value_in(position, &mut AlignedVec::new())
    }

    fn value_in(&self, position: usize, scratch: &mut AlignedVec) -> Result<T, Error> {
        let range = self.slab.get(position).copied().ok_or(Error::NoSuchPosition {
            position,
            positions: self.len(),
        })?;
        if range.is_nothing() {
            let message = "its element has no value".to_owned();
            return Err(Error::Unreadable { position, message });
        }
        self.heap
            .read(&range, |bytes| (self.decode)(bytes, scratch))
            .map_err(
                |message| match NO_DAMAGE.iter().any(|what| message.contains(what)) {
                    true => Error::Unreadable { position, message },
                    false => Error::Damaged { position, message },
                },
            )
    }

    /// Decodes all of them.
    ///
    /// # Errors
    /// As [`value`](Self::value).
    pub fn to_vec(&self) -> Result<Vec<T>, Error> {
        let mut scratch = AlignedVec::new();
        let mut values = Vec::with_capacity(self.len());
        for position in 0..self.len() {
            values.push(self.value_in(position, &mut scratch)?);
        }
        Ok(values)
    }

    /// Decodes one after the other.
    ///
    /// # Panics
    /// The iterator panics where [`value`](Self::value) returns an error: if a worker that went wild has written over
    /// another's results.
    pub fn iter(&self) -> RecordsIter<'_, T> {
        RecordsIter {
            records: self,
            next: 0,
            end: self.len(),
            scratch: AlignedVec::new(),
        }
    }
}

impl<T> Clone for Records<T> {
    fn clone(&self) -> Self {
        Self {
            slab: self.slab.clone(),
            heap: self.heap.clone(),
            decode: self.decode,
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Records<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = f.debug_list();
        for position in 0..self.len() {
            match self.value(position) {
                Ok(value) => list.entry(&value),
                Err(error) => list.entry(&format_args!("<{error}>")),
            };
        }
        list.finish()
    }
}

impl<T: PartialEq> PartialEq<[T]> for Records<T> {
    fn eq(&self, other: &[T]) -> bool {
        self.len() == other.len()
            && (0..self.len()).all(|i| self.value(i).is_ok_and(|value| value == other[i]))
    }
}

impl<T: PartialEq> PartialEq<Vec<T>> for Records<T> {
    fn eq(&self, other: &Vec<T>) -> bool {
        *self == other[..]
    }
}

impl<T: PartialEq, const N: usize> PartialEq<[T; N]> for Records<T> {
    fn eq(&self, other: &[T; N]) -> bool {
        *self == other[..]
    }
}

impl<T: PartialEq> PartialEq for Records<T> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len()
            && (0..self.len()).all(|i| matches!((self.value(i), other.value(i)), (Ok(a), Ok(b)) if a == b))
    }
}

impl<'a, T> IntoIterator for &'a Records<T> {
    type Item = T;
    type IntoIter = RecordsIter<'a, T>;

    fn into_iter(self) -> RecordsIter<'a, T> {
        self.iter()
    }
}

/// Decodes [`Records`] one after the other; see [`Records::iter`].
pub struct RecordsIter<'a, T> {
    records: &'a Records<T>,
    next: usize,
    end: usize,
    scratch: AlignedVec,
}

impl<T> RecordsIter<'_, T> {
    fn decode(&mut self, position: usize) -> T {
        match self.records.value_in(position, &mut self.scratch) {
            Ok(value) => value,
            Err(error) => panic!("{error}"),
        }
    }
}

impl<T> Iterator for RecordsIter<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        let position = (self.next < self.end).then_some(self.next)?;
        self.next += 1;
        Some(self.decode(position))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.end - self.next, Some(self.end - self.next))
    }
}

impl<T> DoubleEndedIterator for RecordsIter<'_, T> {
    fn next_back(&mut self) -> Option<T> {
        self.end = (self.next < self.end).then(|| self.end - 1)?;
        Some(self.decode(self.end))
    }
}

impl<T> ExactSizeIterator for RecordsIter<'_, T> {}

impl<T> fmt::Debug for RecordsIter<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordsIter")
            .field("next", &self.next)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}
