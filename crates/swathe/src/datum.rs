//! Which values may cross between processes by value: results, parameters, elements.

use std::{mem, num::NonZeroUsize, sync::Arc};

use bytemuck::Pod;
use rkyv::{
    api::high::{HighDeserializer, HighSerializer, HighValidator},
    bytecheck::CheckBytes,
    rancor,
    ser::allocator::ArenaHandle,
    util::AlignedVec,
    validation::{Validator, archive::ArchiveValidator, shared::SharedValidator},
};
use swathe_memory::{Array, ArrayMut};
use swathe_runtime::Outcome;

use crate::{
    Error, Records,
    kind::{Owned, Plain, Recorded, Tuple},
    lower::{self, RecordRef, Sink},
};

/// Marks a type as a record: it crosses between processes by way of `rkyv`, checked when it is read.
///
/// A type of one's own needs the three `rkyv` derives and this one line. (Types that are plain old data should rather
/// derive [`bytemuck::Pod`]: they then lie in shared memory as they are.) A record that contains itself, such as a tree,
/// can have about a thousand levels.
///
/// ```
/// use swathe::Pool;
///
/// #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize, Debug, PartialEq)]
/// struct Label {
///     text: String,
///     weight: f64,
/// }
/// impl swathe::Record for Label {}
///
/// fn label(x: u32) -> Label {
///     Label { text: format!("number {x}"), weight: f64::from(x) }
/// }
///
/// fn main() -> swathe::Result<()> {
///     swathe::init();
///     let pool = Pool::builder().processes(2).build()?;
///     let labels = pool.map(label, 0..3)?;
///     assert_eq!(labels.value(2)?, Label { text: "number 2".into(), weight: 2.0 });
///     Ok(())
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot cross between processes",
    note = "derive `bytemuck::Pod`, or derive `rkyv::{{Archive, Serialize, Deserialize}}` and write \
            `impl swathe::Record for {Self} {{}}`"
)]
pub trait Record {}

impl Record for bool {}
impl Record for char {}
impl Record for Box<str> {}
impl<T> Record for Option<T> {}
impl<T, E> Record for Result<T, E> {}
impl<T> Record for Vec<T> {}
impl<T> Record for Box<[T]> {}
impl<T: Pod> Record for Array<T> {}

/// What `rkyv` must know about a record.
pub trait Archivable:
    rkyv::Archive<
        Archived: for<'a> CheckBytes<HighValidator<'a, rancor::Error>>
                      + rkyv::Deserialize<Self, HighDeserializer<rancor::Error>>,
    > + for<'a> rkyv::Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, rancor::Error>>
    + Sized
    + Send
    + Sync
    + 'static
{
}

impl<T> Archivable for T
where
    T: for<'a> rkyv::Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, rancor::Error>>
        + Send
        + Sync
        + 'static,
    T::Archived: for<'a> CheckBytes<HighValidator<'a, rancor::Error>>
        + rkyv::Deserialize<T, HighDeserializer<rancor::Error>>,
{
}

/// A value that may cross between processes. `K` says how (see [`kind`](crate::kind)) and is inferred.
///
/// These are: plain old data ([`bytemuck::Pod`]: numbers, arrays of them, structs that derive it, `()`), `String`,
/// `bool`, `char`, `Option`, `Result`, `Vec`, [`Array`] handles, tuples of up to eight of them, and whatever is marked
/// with [`Record`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot cross between processes",
    note = "plain old data derives `bytemuck::Pod`; anything else derives \
            `rkyv::{{Archive, Serialize, Deserialize}}` and has the line `impl swathe::Record for .. {{}}`; \
            references, pointers, files and locks belong to one process and must be made in the worker"
)]
pub trait Datum<K>: Sized + Send + Sync + 'static {
    /// What many of them are collected in: [`Array`] for plain data, [`Records`] for everything else.
    type Output: Collection<Item = Self>;
    /// What lies in the output slab.
    #[doc(hidden)]
    type Slot: Pod + Send + Sync;
    /// Bytes of heap that a value takes, roughly.
    #[doc(hidden)]
    const HEAP: usize;

    #[doc(hidden)]
    fn encode(&self, bytes: &mut AlignedVec) -> Result<(), String>;
    /// `bytes` are aligned to 16.
    #[doc(hidden)]
    fn decode(bytes: &[u8]) -> Result<Self, String>;
    /// As `decode`, of bytes that others may change, by way of a copy.
    #[doc(hidden)]
    fn decode_shared(bytes: &[u8], scratch: &mut AlignedVec) -> Result<Self, String> {
        scratch.clear();
        scratch.extend_from_slice(bytes);
        Self::decode(scratch)
    }
    #[doc(hidden)]
    fn store(self, sink: &mut Sink<'_, '_>) -> Result<Self::Slot, String>;
    #[doc(hidden)]
    fn collect(slab: Array<Self::Slot>, outcome: &Arc<Outcome>) -> Self::Output;
}

impl<T: Pod + Send + Sync> Datum<Plain> for T {
    type Output = Array<T>;
    type Slot = T;
    const HEAP: usize = 0;

    fn encode(&self, bytes: &mut AlignedVec) -> Result<(), String> {
        bytes.extend_from_slice(bytemuck::bytes_of(self));
        Ok(())
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        bytemuck::try_pod_read_unaligned(bytes).map_err(|_| {
            format!(
                "{} bytes were found for a value of {}",
                bytes.len(),
                size_of::<T>()
            )
        })
    }

    #[inline(always)]
    fn store(self, _: &mut Sink<'_, '_>) -> Result<T, String> {
        Ok(self)
    }

    fn collect(slab: Array<T>, _: &Arc<Outcome>) -> Array<T> {
        slab
    }
}

/// How many levels a record may have: whoever reads a type that contains itself needs some stack for each, and the bytes
/// may say that there are millions.
const MAX_DEPTH: Option<NonZeroUsize> = NonZeroUsize::new(1024);

fn decode_record<T: Archivable>(bytes: &[u8]) -> Result<T, String> {
    let bounds = ArchiveValidator::with_max_depth(bytes, MAX_DEPTH);
    let mut validator = Validator::new(bounds, SharedValidator::new());
    rkyv::api::access_with_context::<T::Archived, _, rancor::Error>(bytes, &mut validator)
        .and_then(rkyv::deserialize)
        .map_err(|e| format!("a record cannot be decoded: {e}"))
}

/// The body of [`Datum`] for what `rkyv` carries.
macro_rules! by_rkyv {
    () => {
        type Output = Records<Self>;
        type Slot = RecordRef;
        const HEAP: usize = 64;

        fn encode(&self, bytes: &mut AlignedVec) -> Result<(), String> {
            let encoded = rkyv::api::high::to_bytes_in::<_, rancor::Error>(self, mem::take(bytes));
            *bytes = encoded.map_err(|e| format!("it cannot be encoded: {e}"))?;
            Ok(())
        }

        fn decode(bytes: &[u8]) -> Result<Self, String> {
            decode_record(bytes)
        }

        fn store(self, sink: &mut Sink<'_, '_>) -> Result<RecordRef, String> {
            sink.record(|bytes| self.encode(bytes))
        }

        fn collect(slab: Array<RecordRef>, outcome: &Arc<Outcome>) -> Records<Self> {
            Records::new(slab, lower::HeapBlocks::of(outcome), Self::decode_shared)
        }
    };
}

impl<T: Record + Archivable> Datum<Recorded> for T {
    by_rkyv!();
}

/// As its bytes: there is nothing for `rkyv` to add.
impl Datum<Owned> for String {
    type Output = Records<Self>;
    type Slot = RecordRef;
    const HEAP: usize = 64;

    fn encode(&self, bytes: &mut AlignedVec) -> Result<(), String> {
        bytes.extend_from_slice(self.as_bytes());
        Ok(())
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        String::from_utf8(bytes.to_vec()).map_err(|e| format!("a text was damaged: {e}"))
    }

    fn decode_shared(bytes: &[u8], _: &mut AlignedVec) -> Result<Self, String> {
        // Copied before it is looked at.
        Self::decode(bytes)
    }

    fn store(self, sink: &mut Sink<'_, '_>) -> Result<RecordRef, String> {
        sink.bytes(self.as_bytes())
    }

    fn collect(slab: Array<RecordRef>, outcome: &Arc<Outcome>) -> Records<Self> {
        Records::new(slab, lower::HeapBlocks::of(outcome), Self::decode_shared)
    }
}

macro_rules! tuple {
    ($($A:ident),*) => {
        impl<$($A),*> Datum<Tuple> for ($($A,)*) where Self: Archivable {
            by_rkyv!();
        }
    };
}

tuple!(A);
tuple!(A, B);
tuple!(A, B, C);
tuple!(A, B, C, D);
tuple!(A, B, C, D, E);
tuple!(A, B, C, D, E, F);
tuple!(A, B, C, D, E, F, G);
tuple!(A, B, C, D, E, F, G, H);

/// Values by position: what a job returns.
pub trait Collection: Send + Sync + 'static {
    /// One value.
    type Item;
    /// What a callback is shown: `[T]` for an [`Array`], the collection itself for [`Records`].
    type Shown: ?Sized;

    /// How many positions there are.
    fn positions(&self) -> usize;

    /// A copy of the value at a position.
    ///
    /// # Errors
    /// If there is no such position, or if a record cannot be decoded.
    fn fetch(&self, position: usize) -> Result<Self::Item, Error>;

    /// Copies of all values, in order.
    ///
    /// # Errors
    /// If a record cannot be decoded.
    fn fetch_all(&self) -> Result<Vec<Self::Item>, Error> {
        (0..self.positions())
            .map(|position| self.fetch(position))
            .collect()
    }

    /// Itself, as a callback is shown it.
    fn shown(&self) -> &Self::Shown;
}

impl<T: Pod + Send + Sync> Collection for Array<T> {
    type Item = T;
    type Shown = [T];

    fn positions(&self) -> usize {
        self.len()
    }

    fn fetch(&self, position: usize) -> Result<T, Error> {
        self.get(position).copied().ok_or(Error::NoSuchPosition {
            position,
            positions: self.len(),
        })
    }

    fn fetch_all(&self) -> Result<Vec<T>, Error> {
        Ok(self.to_vec())
    }

    fn shown(&self) -> &[T] {
        self
    }
}

impl<T: Pod + Send + Sync> Collection for ArrayMut<T> {
    type Item = T;
    type Shown = [T];

    fn positions(&self) -> usize {
        self.len()
    }

    fn fetch(&self, position: usize) -> Result<T, Error> {
        self.get(position).copied().ok_or(Error::NoSuchPosition {
            position,
            positions: self.len(),
        })
    }

    fn shown(&self) -> &[T] {
        self
    }
}

impl<T: Send + Sync + 'static> Collection for Records<T> {
    type Item = T;
    type Shown = Self;

    fn positions(&self) -> usize {
        self.len()
    }

    fn fetch(&self, position: usize) -> Result<T, Error> {
        self.value(position)
    }

    fn shown(&self) -> &Self {
        self
    }
}
