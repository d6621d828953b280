//! Which values may cross between processes by value: results, parameters, elements.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZero,
    ops::{Range, RangeInclusive},
    sync::Arc,
    time::Duration,
};

use bytemuck::Pod;
use rkyv::{
    SerializeUnsized, api::high::HighDeserializer, bytecheck::CheckBytes, rancor::Strategy, util::AlignedVec,
};
use swathe_memory::{Array, ArrayMut};
use swathe_runtime::Outcome;

use crate::{
    Error, Records,
    cross::{
        kind::{Owned, Plain, Recorded, Tuple},
        seal::Sealed,
    },
    lower::{
        self, RecordRef, Sink, Vouch,
        stack::{self, RecordError, RecordSerializer, RecordValidator},
    },
};

/// Marks a type as a record: it crosses between processes by way of `rkyv`, checked when it is read.
///
/// A type of one's own needs the three `rkyv` derives and this one line. (Types that are plain old data should rather
/// derive [`bytemuck::Pod`]: they then lie in shared memory as they are.) A record that contains itself, such as a tree,
/// can have about a thousand levels, or as many as its thread has KiB of stack left where that is less: what is made must
/// also be dropped. One that has more is an error.
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
pub trait Record {
    /// How many elements without bytes it says that it has: no bytes limit their number, and somebody counts to it.
    #[doc(hidden)]
    fn elements_of_nothing(_: &[u8]) -> u32
    where
        Self: Sized,
    {
        0
    }
}

/// The length of a list that is a record by itself, which is what its bytes end with, if its elements have no bytes.
fn length_of_nothing<T>(bytes: &[u8]) -> u32 {
    match bytes.last_chunk() {
        Some(length) if size_of::<T>() == 0 => u32::from_le_bytes(*length),
        _ => 0,
    }
}

/// The longest list of elements that have no bytes.
const MOST_OF_NOTHING: u32 = 1 << 20;

fn check_nothing<T: Record>(bytes: &[u8]) -> Result<(), String> {
    match T::elements_of_nothing(bytes) {
        0..=MOST_OF_NOTHING => Ok(()),
        many => Err(format!(
            "a list of {many} elements that have no bytes was to cross; at most {MOST_OF_NOTHING} can, and their number says \
             the same"
        )),
    }
}

impl Record for bool {}
impl Record for char {}
impl Record for Box<str> {}
impl<T> Record for Option<T> {}
impl<T, E> Record for Result<T, E> {}
impl<T> Record for Vec<T> {
    fn elements_of_nothing(bytes: &[u8]) -> u32 {
        length_of_nothing::<T>(bytes)
    }
}
impl<T> Record for Box<[T]> {
    fn elements_of_nothing(bytes: &[u8]) -> u32 {
        length_of_nothing::<T>(bytes)
    }
}
impl<T: Pod> Record for Array<T> {}
impl<T> Record for Box<T> {}
impl<T> Record for VecDeque<T> {}
impl<T> Record for Range<T> {}
impl<T> Record for RangeInclusive<T> {}
impl<K, V, S> Record for HashMap<K, V, S> {}
impl<K, S> Record for HashSet<K, S> {}
impl<K, V> Record for BTreeMap<K, V> {}
impl<K> Record for BTreeSet<K> {}
impl Record for Duration {}
impl Record for IpAddr {}
impl Record for Ipv4Addr {}
impl Record for Ipv6Addr {}
impl Record for SocketAddr {}

/// Numbers that are not zero.
macro_rules! non_zero {
    ($($T:ty)*) => {
        $(impl Record for NonZero<$T> {})*
    };
}

non_zero!(i8 i16 i32 i64 i128 isize u8 u16 u32 u64 u128 usize);

/// What `rkyv` must know about a record.
pub trait Archivable:
    rkyv::Archive<
        Archived: for<'a> CheckBytes<Strategy<RecordValidator<'a>, RecordError>>
                      + rkyv::Deserialize<Self, HighDeserializer<RecordError>>,
    > + for<'a> rkyv::Serialize<RecordSerializer<'a>>
    + Sized
    + Send
    + Sync
    + 'static
{
}

impl<T> Archivable for T
where
    T: for<'a> rkyv::Serialize<RecordSerializer<'a>> + Send + Sync + 'static,
    T::Archived: for<'a> CheckBytes<Strategy<RecordValidator<'a>, RecordError>>
        + rkyv::Deserialize<T, HighDeserializer<RecordError>>,
{
}

/// A value that may cross between processes. `K` says how (see [`kind`](crate::cross::kind)) and is inferred.
///
/// These are: plain old data ([`bytemuck::Pod`]: numbers, arrays of them, structs that derive it, `()`), `String`,
/// `bool`, `char`, `Option`, `Result`, `Box`, `Vec`, `VecDeque`, hash and B-tree maps and sets, `Duration`, ranges,
/// `NonZero` numbers, IP and socket addresses, [`Array`] handles, tuples of up to eight of them, and whatever is marked with
/// [`Record`].
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
    fn decode(bytes: &[u8], vouch: Vouch) -> Result<Self, String>;
    /// As `decode`, of bytes that Swathe has written and that others may change, by way of a copy.
    #[doc(hidden)]
    fn decode_shared(bytes: &[u8], scratch: &mut AlignedVec, vouch: Vouch) -> Result<Self, String> {
        scratch.clear();
        scratch.extend_from_slice(bytes);
        Self::decode(scratch, vouch)
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

    fn decode(bytes: &[u8], _: Vouch) -> Result<Self, String> {
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

fn decode_record<T: Archivable>(bytes: &[u8], vouch: Vouch) -> Result<T, String> {
    let check = |validator: &mut RecordValidator<'_>| {
        rkyv::api::access_with_context::<T::Archived, _, RecordError>(bytes, validator)
    };
    stack::decode(bytes, vouch, check, rkyv::deserialize)
}

/// The body of [`Datum`] for what `rkyv` carries.
macro_rules! by_rkyv {
    ($check:expr) => {
        type Output = Records<Self>;
        type Slot = RecordRef;
        const HEAP: usize = 64;

        fn encode(&self, bytes: &mut AlignedVec) -> Result<(), String> {
            stack::write(bytes, |serializer| self.serialize_unsized(serializer))?;
            $check(bytes)
        }

        fn decode(bytes: &[u8], vouch: Vouch) -> Result<Self, String> {
            $check(bytes)?;
            decode_record(bytes, vouch)
        }

        fn store(self, sink: &mut Sink<'_, '_>) -> Result<RecordRef, String> {
            sink.record(|bytes| self.encode(bytes))
        }

        fn collect(slab: Array<RecordRef>, outcome: &Arc<Outcome>) -> Records<Self> {
            Records::new(slab, lower::HeapBlocks::of(outcome), decode_result)
        }
    };
}

/// A result of a job, which its task has returned.
pub(crate) fn decode_result<T: Datum<K>, K>(bytes: &[u8], scratch: &mut AlignedVec) -> Result<T, String> {
    T::decode_shared(bytes, scratch, Vouch::OURS)
}

impl<T: Record + Archivable> Datum<Recorded> for T {
    by_rkyv!(check_nothing::<T>);
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

    fn decode(bytes: &[u8], _: Vouch) -> Result<Self, String> {
        String::from_utf8(bytes.to_vec()).map_err(|e| format!("a text was damaged: {e}"))
    }

    fn decode_shared(bytes: &[u8], _: &mut AlignedVec, vouch: Vouch) -> Result<Self, String> {
        // Copied before it is looked at.
        Self::decode(bytes, vouch)
    }

    fn store(self, sink: &mut Sink<'_, '_>) -> Result<RecordRef, String> {
        sink.bytes(self.as_bytes())
    }

    fn collect(slab: Array<RecordRef>, outcome: &Arc<Outcome>) -> Records<Self> {
        Records::new(slab, lower::HeapBlocks::of(outcome), decode_result)
    }
}

macro_rules! tuple {
    ($($A:ident),*) => {
        impl<$($A),*> Datum<Tuple> for ($($A,)*) where Self: Archivable {
            by_rkyv!(|_: &[u8]| Ok::<(), String>(()));
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

/// Values by position: what a job returns. The trait is sealed.
pub trait Collection: Sealed + Send + Sync + 'static {
    /// One value.
    type Item;
    /// What a callback is shown: `[T]` for an [`Array`], the collection itself for [`Records`].
    type Shown: ?Sized + 'static;

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

impl<T: Pod> Sealed for Array<T> {}
impl<T: Pod> Sealed for ArrayMut<T> {}
impl<T> Sealed for Records<T> {}

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
