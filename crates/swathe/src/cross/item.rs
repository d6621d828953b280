//! What an element of an input is to a task, and how elements are laid out for the workers.

use std::any::Any;

use bytemuck::Pod;
use rkyv::util::AlignedVec;
use swathe_memory::{Array, Memory, lease};
use swathe_runtime::user_code::Kept;

use crate::{
    Error,
    cross::{
        column::{Column, Columns, Decoded, Sliced, Texts},
        datum::{Archivable, Datum, Record},
        kind::{ByRow, Owned, Plain, Recorded, Text, Tuple},
    },
    lower::{self, RecordRef, Vouch, stack, wire::Encoder},
};

/// What must stay in place while a job runs.
pub(crate) type Keep = Vec<Box<dyn Any + Send + Sync>>;

/// An input as the workers will find it.
#[derive(Default)]
#[allow(unnameable_types, reason = "it seals the traits whose methods give it")]
pub struct Lowered {
    pub(crate) len: u64,
    /// What it takes in shared memory.
    pub(crate) bytes: usize,
    /// Whether its elements hold arrays, which a task may keep for longer than it runs.
    pub(crate) lends: bool,
    pub(crate) wire: Encoder,
    pub(crate) keep: Keep,
}

impl std::fmt::Debug for Lowered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lowered")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

impl Lowered {
    /// Positions alone.
    pub(crate) fn count(len: u64) -> Self {
        Self {
            len,
            ..Self::default()
        }
    }

    /// An array, read where it lies.
    pub(crate) fn array<T: Pod + Send + Sync>(array: Array<T>) -> Result<Self, Error> {
        // A mapped file may have been cut off; better said here than by a SIGBUS in a worker.
        array.verify()?;
        let mut wire = Encoder::default();
        wire.pod(&array.to_ref());
        let (len, bytes) = (array.len() as u64, size_of_val(&array[..]));
        Ok(Self {
            len,
            bytes,
            lends: false,
            wire,
            keep: vec![Box::new(array)],
        })
    }

    /// Adds a further column.
    pub(crate) fn join(&mut self, other: Lowered) {
        self.bytes += other.bytes;
        self.lends |= other.lends;
        self.wire.append(&other.wire);
        self.keep.extend(other.keep);
    }
}

/// Byte strings that become a column of ranges.
struct Blob {
    bytes: AlignedVec,
    ranges: Vec<RecordRef>,
}

impl Blob {
    fn new(records: usize) -> Self {
        Self {
            bytes: AlignedVec::new(),
            ranges: Vec::with_capacity(records),
        }
    }

    /// Appends what `fill` writes. `rkyv` aligns by position, so every record starts at a multiple of 16.
    fn record(&mut self, fill: impl FnOnce(&mut AlignedVec) -> Result<(), String>) -> Result<(), Error> {
        let position = self.ranges.len();
        let start = self.bytes.len().next_multiple_of(16);
        self.bytes.resize(start, 0);
        let range =
            fill(&mut self.bytes).and_then(|()| RecordRef::new(start as u64, self.bytes.len() - start));
        self.ranges
            .push(range.map_err(|message| Error::Element { position, message })?);
        Ok(())
    }

    fn lower(self, memory: &Memory) -> Result<Lowered, Error> {
        let mut lowered = Lowered::array(Array::from_vec_in(memory, self.ranges)?)?;
        lowered.join(Lowered::array(Array::from_slice_in(memory, &self.bytes)?)?);
        Ok(lowered)
    }
}

/// Texts need no alignment: their bytes are written to where workers read them, one after the other.
fn lower_texts<'a>(
    texts: impl ExactSizeIterator<Item = &'a str> + Clone,
    memory: &Memory,
) -> Result<Lowered, Error> {
    let total = texts.clone().map(str::len).sum();
    let mut bytes = lower::unwritten::<u8>(memory, total)?;
    let mut ranges = lower::unwritten::<RecordRef>(memory, texts.len())?;
    let mut start = 0;
    for (position, (text, range)) in texts.zip(ranges.iter_mut()).enumerate() {
        let end = start + text.len();
        *range = RecordRef::new(start as u64, text.len())
            .map_err(|message| Error::Element { position, message })?;
        bytes[start..end].copy_from_slice(text.as_bytes());
        start = end;
    }
    let mut lowered = Lowered::array(ranges.freeze())?;
    lowered.join(Lowered::array(bytes.freeze())?);
    Ok(lowered)
}

pub(crate) fn lower_records<'a, T: Datum<K>, K>(
    values: impl ExactSizeIterator<Item = &'a T>,
    memory: &Memory,
) -> Result<Lowered, Error> {
    let mut blob = Blob::new(values.len());
    let mut values = values.into_iter();
    // Asked for once, and not for each of them.
    stack::encode(|| values.try_for_each(|value| blob.record(|bytes| value.encode(bytes))))
        .map_err(|message| Error::Element { position: 0, message })??;
    blob.lower(memory)
}

/// An element of an input, by value: every [`Datum`], and `&str`. `K` is inferred.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an element of a pool's input",
    note = "an element is plain old data (`bytemuck::Pod`), a `&str` or `String`, a `swathe::Record`, or a tuple of them"
)]
pub trait Item<K>: Sized {
    /// How workers read it.
    #[doc(hidden)]
    type Column: Column;

    #[doc(hidden)]
    fn lower(items: Vec<Self>, memory: &Memory) -> Result<Lowered, Error>;
}

/// An element of an input that is only borrowed, such as a `&[T]`: as [`Item`], and a `String` is seen as a `&str`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an element of a pool's input",
    note = "an element is plain old data (`bytemuck::Pod`), a `&str` or `String`, a `swathe::Record`, or a tuple of them"
)]
pub trait ItemRef<K>: Sized {
    /// How workers read it.
    #[doc(hidden)]
    type Column: Column;

    #[doc(hidden)]
    fn lower<'a>(
        items: impl ExactSizeIterator<Item = &'a Self> + Clone,
        memory: &Memory,
    ) -> Result<Lowered, Error>
    where
        Self: 'a;
}

impl<T: Pod + Send + Sync> Item<Plain> for T {
    type Column = Sliced<T>;

    fn lower(items: Vec<T>, memory: &Memory) -> Result<Lowered, Error> {
        Lowered::array(Array::from_vec_in(memory, items)?)
    }
}

impl<T: Pod + Send + Sync> ItemRef<Plain> for T {
    type Column = Sliced<T>;

    fn lower<'a>(
        mut items: impl ExactSizeIterator<Item = &'a T> + Clone,
        memory: &Memory,
    ) -> Result<Lowered, Error> {
        let len = items.len();
        Lowered::array(Array::from_fn_in(memory, len, |_| {
            items.next().copied().unwrap_or_else(T::zeroed)
        })?)
    }
}

/// The body of [`Item`] and [`ItemRef`] for records.
macro_rules! record_item {
    ($K:ty) => {
        type Column = Decoded<Self, $K>;

        fn lower(items: Vec<Self>, memory: &Memory) -> Result<Lowered, Error> {
            let lent = lease::lent();
            let mut lowered = lower_records(items.iter(), memory)?;
            if lease::lent() != lent {
                // They hold arrays, which must stay in place for the workers.
                lowered.lends = true;
                lowered.keep.push(Box::new(Kept::new(items)));
            }
            Ok(lowered)
        }
    };
    (ref $K:ty) => {
        type Column = Decoded<Self, $K>;

        fn lower<'a>(
            items: impl ExactSizeIterator<Item = &'a Self> + Clone,
            memory: &Memory,
        ) -> Result<Lowered, Error>
        where
            Self: 'a,
        {
            let lent = lease::lent();
            let mut lowered = lower_records(items.clone(), memory)?;
            if lease::lent() == lent {
                return Ok(lowered);
            }
            // They hold arrays, and the caller may drop them: decoding makes handles of our own.
            lowered.lends = true;
            let mut bytes = AlignedVec::new();
            let mut handles = Vec::with_capacity(items.len());
            for (position, item) in items.enumerate() {
                bytes.clear();
                let handle = item
                    .encode(&mut bytes)
                    .and_then(|()| Self::decode(&bytes, Vouch::OURS));
                handles.push(handle.map_err(|message| Error::Element { position, message })?);
            }
            lowered.keep.push(Box::new(Kept::new(handles)));
            Ok(lowered)
        }
    };
}

impl<T: Record + Archivable> Item<Recorded> for T {
    record_item!(Recorded);
}

impl<T: Record + Archivable> ItemRef<Recorded> for T {
    record_item!(ref Recorded);
}

impl Item<Owned> for String {
    type Column = Decoded<String, Owned>;

    fn lower(items: Vec<String>, memory: &Memory) -> Result<Lowered, Error> {
        lower_texts(items.iter().map(String::as_str), memory)
    }
}

impl ItemRef<Text> for String {
    type Column = Texts;

    fn lower<'a>(
        items: impl ExactSizeIterator<Item = &'a String> + Clone,
        memory: &Memory,
    ) -> Result<Lowered, Error> {
        lower_texts(items.map(String::as_str), memory)
    }
}

impl Item<Text> for &str {
    type Column = Texts;

    fn lower(items: Vec<Self>, memory: &Memory) -> Result<Lowered, Error> {
        lower_texts(items.iter().copied(), memory)
    }
}

impl ItemRef<Text> for &str {
    type Column = Texts;

    fn lower<'a>(
        items: impl ExactSizeIterator<Item = &'a Self> + Clone,
        memory: &Memory,
    ) -> Result<Lowered, Error>
    where
        Self: 'a,
    {
        lower_texts(items.copied(), memory)
    }
}

/// An element of an input as the arguments of a task: all fields of a tuple, for `starmap`. The trait is sealed.
pub trait Rows<K>: Sized {
    /// How workers read it.
    #[doc(hidden)]
    type Columns: Columns;

    #[doc(hidden)]
    fn lower_rows(rows: Vec<Self>, memory: &Memory) -> Result<Lowered, Error>;
}

/// As [`Rows`], for elements that are only borrowed.
pub trait RowsRef<K>: Sized {
    /// How workers read it.
    #[doc(hidden)]
    type Columns: Columns;

    #[doc(hidden)]
    fn lower_rows(rows: &[Self], memory: &Memory) -> Result<Lowered, Error>;
}

/// The arguments of a single call: one value, or a tuple of them (`()` for none). `K` is inferred.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be given to a task as its arguments",
    note = "give one value, or a tuple of up to eight"
)]
pub trait Arguments<K>: Sized {
    /// How workers read them.
    #[doc(hidden)]
    type Columns: Columns;

    #[doc(hidden)]
    fn lower_arguments(self, memory: &Memory) -> Result<Lowered, Error>;
}

/// A single argument of one kind.
macro_rules! lone_argument {
    ([$($generics:tt)*] $T:ty, $K:ty) => {
        impl<$($generics)*> Arguments<$K> for $T {
            type Columns = (<$T as Item<$K>>::Column,);

            fn lower_arguments(self, memory: &Memory) -> Result<Lowered, Error> {
                <$T as Item<$K>>::lower(vec![self], memory)
            }
        }
    };
}

lone_argument!([T: Pod + Send + Sync] T, Plain);
lone_argument!([T: Record + Archivable] T, Recorded);
lone_argument!([] String, Owned);
lone_argument!(['a] &'a str, Text);

macro_rules! tuple {
    ($($A:ident $K:ident $column:ident $n:tt),*) => {
        impl<$($A),*> Item<Tuple> for ($($A,)*) where Self: Datum<Tuple> {
            record_item!(Tuple);
        }

        impl<$($A),*> ItemRef<Tuple> for ($($A,)*) where Self: Datum<Tuple> {
            record_item!(ref Tuple);
        }

        impl<$($A: Item<$K>, $K),*> Rows<ByRow<($($K,)*)>> for ($($A,)*) {
            type Columns = ($($A::Column,)*);

            fn lower_rows(rows: Vec<Self>, memory: &Memory) -> Result<Lowered, Error> {
                let len = rows.len();
                $(let mut $column = Vec::with_capacity(len);)*
                for row in rows {
                    $($column.push(row.$n);)*
                }
                let mut lowered = Lowered { len: len as u64, ..Lowered::default() };
                $(lowered.join($A::lower($column, memory)?);)*
                Ok(lowered)
            }
        }

        impl<$($A: ItemRef<$K>, $K),*> RowsRef<ByRow<($($K,)*)>> for ($($A,)*) {
            type Columns = ($($A::Column,)*);

            fn lower_rows(rows: &[Self], memory: &Memory) -> Result<Lowered, Error> {
                let mut lowered = Lowered { len: rows.len() as u64, ..Lowered::default() };
                $(lowered.join($A::lower(rows.iter().map(|row| &row.$n), memory)?);)*
                Ok(lowered)
            }
        }

        impl<$($A: Item<$K>, $K),*> Arguments<ByRow<($($K,)*)>> for ($($A,)*) {
            type Columns = ($($A::Column,)*);

            fn lower_arguments(self, memory: &Memory) -> Result<Lowered, Error> {
                Self::lower_rows(vec![self], memory)
            }
        }
    };
}

tuple!(A KA a 0);
tuple!(A KA a 0, B KB b 1);
tuple!(A KA a 0, B KB b 1, C KC c 2);
tuple!(A KA a 0, B KB b 1, C KC c 2, D KD d 3);
tuple!(A KA a 0, B KB b 1, C KC c 2, D KD d 3, E KE e 4);
tuple!(A KA a 0, B KB b 1, C KC c 2, D KD d 3, E KE e 4, F KF f 5);
tuple!(A KA a 0, B KB b 1, C KC c 2, D KD d 3, E KE e 4, F KF f 5, G KG g 6);
tuple!(A KA a 0, B KB b 1, C KC c 2, D KD d 3, E KE e 4, F KF f 5, G KG g 6, H KH h 7);
