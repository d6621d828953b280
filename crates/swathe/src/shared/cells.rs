//! Cells of 1, 2, 4 or 8 bytes, each an atomic.

use std::{
    marker::PhantomData,
    sync::{
        Arc,
        atomic::{
            AtomicU8, AtomicU16, AtomicU32, AtomicU64,
            Ordering::{self, Acquire, SeqCst},
        },
    },
};

use bytemuck::{Pod, cast};
use swathe_memory::{Integer, MemoryError, Segment, SegmentId, SharedSlice};

use super::{SharedKind, attach, body, create, wrong};
use crate::lower::Vouch;

/// `T`s in shared memory, held as atomics of their size.
#[derive(Clone)]
pub(super) struct Cells<T> {
    id: SegmentId,
    words: Words,
    elements: PhantomData<T>,
}

#[derive(Clone)]
enum Words {
    One(SharedSlice<AtomicU8>),
    Two(SharedSlice<AtomicU16>),
    Four(SharedSlice<AtomicU32>),
    Eight(SharedSlice<AtomicU64>),
}

/// Evaluates an expression with the words of whatever width they have. A cast between a word and a `T` cannot fail:
/// the width was chosen by the size of `T`.
macro_rules! each_width {
    ($cells:expr, $words:ident => $result:expr) => {
        match &$cells.words {
            Words::One($words) => $result,
            Words::Two($words) => $result,
            Words::Four($words) => $result,
            Words::Eight($words) => $result,
        }
    };
}

impl<T: Pod> Cells<T> {
    pub(super) fn zeros(len: usize) -> Result<Self, MemoryError> {
        let size = size_of::<T>();
        let bytes = len.checked_mul(size).ok_or(MemoryError::TooLarge {
            count: len,
            element_size: size,
        })?;
        let segment = create(SharedKind::Cells, [size as u64, len as u64, 0], bytes)?;
        Self::over(&segment, len)
    }

    pub(super) fn attach(id: SegmentId, vouch: Vouch) -> Result<Self, MemoryError> {
        let (segment, [size, len, _]) = attach(SharedKind::Cells, id, vouch)?;
        let len = usize::try_from(len)
            .ok()
            .filter(|_| size == size_of::<T>() as u64);
        Self::over(
            &segment,
            len.ok_or_else(|| wrong(&segment, "its elements have another size"))?,
        )
    }

    /// As [`attach`](Self::attach), and there must be this many.
    pub(super) fn attach_exactly(id: SegmentId, vouch: Vouch, len: usize) -> Result<Self, MemoryError> {
        let (segment, facts) = attach(SharedKind::Cells, id, vouch)?;
        if facts != [size_of::<T>() as u64, len as u64, 0] {
            return Err(wrong(
                &segment,
                "it has another number of elements, or they have another size",
            ));
        }
        Self::over(&segment, len)
    }

    fn over(segment: &Arc<Segment>, len: usize) -> Result<Self, MemoryError> {
        const {
            assert!(
                matches!(size_of::<T>(), 1 | 2 | 4 | 8),
                "a shared cell holds a type of 1, 2, 4 or 8 bytes"
            );
        };
        let words = match size_of::<T>() {
            1 => Words::One(body(segment, 0, len)?),
            2 => Words::Two(body(segment, 0, len)?),
            4 => Words::Four(body(segment, 0, len)?),
            _ => Words::Eight(body(segment, 0, len)?),
        };
        Ok(Self {
            id: segment.id(),
            words,
            elements: PhantomData,
        })
    }

    pub(super) fn id(&self) -> SegmentId {
        self.id
    }

    pub(super) fn len(&self) -> usize {
        each_width!(self, words => words.len())
    }

    pub(super) fn load(&self, i: usize, order: Ordering) -> T {
        each_width!(self, words => cast(words[i].load(order)))
    }

    pub(super) fn store(&self, i: usize, value: T, order: Ordering) {
        each_width!(self, words => words[i].store(cast(value), order));
    }

    pub(super) fn swap(&self, i: usize, value: T) -> T {
        each_width!(self, words => cast(words[i].swap(cast(value), SeqCst)))
    }

    pub(super) fn compare_exchange(&self, i: usize, current: T, new: T) -> Result<T, T> {
        each_width!(self, words => {
            words[i].compare_exchange(cast(current), cast(new), SeqCst, SeqCst).map(cast).map_err(cast)
        })
    }

    pub(super) fn update(&self, i: usize, mut f: impl FnMut(T) -> T) -> T {
        let mut seen = self.load(i, Acquire);
        loop {
            match self.compare_exchange(i, seen, f(seen)) {
                Ok(previous) => return previous,
                Err(now) => seen = now,
            }
        }
    }
}

/// Two's complement: signed and unsigned sums have the same bits.
impl<T: Integer> Cells<T> {
    pub(super) fn fetch_add(&self, i: usize, n: T) -> T {
        each_width!(self, words => cast(words[i].fetch_add(cast(n), SeqCst)))
    }

    pub(super) fn fetch_sub(&self, i: usize, n: T) -> T {
        each_width!(self, words => cast(words[i].fetch_sub(cast(n), SeqCst)))
    }
}
