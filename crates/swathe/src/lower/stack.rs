//! How deep a record may be. Who reads or writes a value of a type that contains itself needs some stack for each level,
//! and bytes may say that there are millions of levels; a stack that is used up ends the process.
//!
//! So the levels of what is decoded are counted, and decoding goes on on a larger stack if there are more than a few; what
//! is encoded gets a larger stack if there is little left of its own.
#![allow(
    unnameable_types,
    reason = "they are in hidden methods of traits that are sealed by that: nobody outside can name them"
)]

use std::{alloc::Layout, error::Error, fmt, ops::Range, ptr::NonNull};

use rkyv::{
    rancor::{Source, Strategy, Trace},
    ser::{Allocator, Serializer, allocator::ArenaHandle, sharing::Share},
    util::{AlignedVec, with_arena},
    validation::{ArchiveContext, Validator, archive::ArchiveValidator, shared::SharedValidator},
};

use swathe_memory::vouch;
use swathe_os::stack::{left, on_a_new, on_the_kept};

use super::handles::Vouch;

/// How many levels a record can have at most.
pub(crate) const MOST_LEVELS: usize = 1024;
/// How many it can have on a thread that has hardly any stack left.
const LEAST_LEVELS: usize = 16;
/// What the end of a value takes of the stack of its thread for each level: four times what it is without optimization.
const DROPPING_A_LEVEL: usize = 512;

/// So many levels are read on the stack that there is, if it has this much left.
const FEW_LEVELS: usize = 16;
/// As above, of records that may have large values on each level.
const FEW_LARGE_LEVELS: usize = 4;
/// Records up to this many bytes have no large values.
const SMALL_RECORD: usize = 16 << 10;
const ROOM_FOR_FEW: usize = 256 << 10;

/// What reading a level may take, besides what it reads.
const READING_A_LEVEL: usize = 16 << 10;
/// What is read lies on the stack more than once, and is larger there than in the record. All levels together are at most
/// as large as the record.
const COPIES: usize = 32;
const MOST_COPIES: usize = 512 << 20;

/// Encoding begins with at least this much stack, or on one that the thread keeps. A list that can be dropped on a thread of
/// usual size (2 MiB) can then be encoded, too, even if nothing is asked for on the way: that takes about twice the stack.
const ROOM_TO_ENCODE: usize = 4 << 20;
/// Encoding does not go on with less.
const LEAST_TO_ENCODE: usize = 128 << 10;

/// What [`TooDeep`] says.
pub(crate) const TOO_DEEP: &str = "has more levels than";

/// A record that contains itself too often.
#[derive(Debug, thiserror::Error)]
#[error("it {TOO_DEEP} {0}: as many can be used and dropped on the stack of this thread")]
struct TooDeep(usize);

/// Why a record cannot be read or written: what was found first. (The error of `rkyv` has a part for each level, which itself
/// takes a stack to be shown or dropped.)
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct RecordError(Box<dyn Error + Send + Sync>);

impl Trace for RecordError {
    fn trace<R: fmt::Debug + fmt::Display + Send + Sync + 'static>(self, _: R) -> Self {
        self
    }
}

impl Source for RecordError {
    fn new<E: Error + Send + Sync + 'static>(source: E) -> Self {
        Self(Box::new(source))
    }
}

/// Reads a record: `check` finds the archived value with the help of a validator, and runs no code of users; `make` makes a
/// value of it, which may.
pub(crate) fn decode<A, T>(
    bytes: &[u8],
    vouch: Vouch,
    check: impl Fn(&mut RecordValidator<'_>) -> Result<A, RecordError>,
    make: impl Fn(A) -> Result<T, RecordError>,
) -> Result<T, String> {
    let len = bytes.len();
    let left = left();
    let most = (left / DROPPING_A_LEVEL).clamp(LEAST_LEVELS, MOST_LEVELS);
    let few = if len <= SMALL_RECORD {
        FEW_LEVELS
    } else {
        FEW_LARGE_LEVELS
    };
    let read = |most| {
        let bounds = Levels {
            bounds: ArchiveValidator::new(bytes),
            most,
            now: 0,
        };
        let mut validator = Validator::new(bounds, SharedValidator::new());
        if !vouch.is_given() {
            return make(check(&mut validator)?);
        }
        // SAFETY: `Datum::encode` has written the bytes, from a value of this type, in a process of this program, and whoever
        // reads them keeps what its handles lead to: that is what the caller vouches for.
        unsafe { vouch::read(bytes, || check(&mut validator), &make) }
    };
    if left >= ROOM_FOR_FEW
        && let Ok(value) = read(few)
    {
        return Ok(value);
    }
    let stack = MOST_LEVELS * READING_A_LEVEL + len.saturating_mul(COPIES).min(MOST_COPIES);
    on_a_new(stack, || read(most))
        .map_err(no_stack)?
        .map_err(|error| format!("a record cannot be decoded: {error}"))
}

/// What checks the bytes of a record.
pub(crate) type RecordValidator<'a> = Validator<Levels<'a>, SharedValidator>;

/// Checks where bytes lie, and how many levels they have.
#[derive(Debug)]
pub struct Levels<'a> {
    bounds: ArchiveValidator<'a>,
    most: usize,
    now: usize,
}

// SAFETY: all answers about addresses are those of an ArchiveValidator, which keeps the promises.
unsafe impl<E: Source> ArchiveContext<E> for Levels<'_> {
    fn check_subtree_ptr(&mut self, ptr: *const u8, layout: &Layout) -> Result<(), E> {
        self.bounds.check_subtree_ptr(ptr, layout)
    }

    unsafe fn push_subtree_range(&mut self, root: *const u8, end: *const u8) -> Result<Range<usize>, E> {
        if self.now == self.most {
            return Err(E::new(TooDeep(self.most)));
        }
        self.now += 1;
        // SAFETY: the caller's promises are those that the validator asks for.
        unsafe { self.bounds.push_subtree_range(root, end) }
    }

    unsafe fn pop_subtree_range(&mut self, range: Range<usize>) -> Result<(), E> {
        self.now = self.now.saturating_sub(1);
        // SAFETY: as above.
        unsafe { self.bounds.pop_subtree_range(range) }
    }
}

/// Runs what encodes records where there is enough stack for it.
pub(crate) fn encode<R>(encode: impl FnOnce() -> R) -> Result<R, String> {
    match left() >= ROOM_TO_ENCODE {
        true => Ok(encode()),
        false => on_the_kept(encode).map_err(no_stack),
    }
}

fn no_stack(error: std::io::Error) -> String {
    format!("there is no memory for a stack to read or write it on: {error}")
}

/// What encodes a record.
pub(crate) type RecordSerializer<'a> = Strategy<Serializer<AlignedVec, Careful<'a>, Share>, RecordError>;

/// Appends what `serialize` writes to the bytes, whose alignment counts from their start.
pub(crate) fn write(
    bytes: &mut AlignedVec,
    serialize: impl FnOnce(&mut RecordSerializer<'_>) -> Result<usize, RecordError>,
) -> Result<(), String> {
    let writer = std::mem::take(bytes);
    let encoded = encode(|| {
        with_arena(|arena| {
            let mut serializer = Serializer::new(writer, Careful(arena.acquire()), Share::new());
            serialize(Strategy::wrap(&mut serializer))?;
            Ok::<_, RecordError>(serializer.into_writer())
        })
    })?;
    *bytes = encoded.map_err(|error| format!("it cannot be encoded: {error}"))?;
    Ok(())
}

/// Memory for encoding, which is asked for at every list; it is refused when the stack is nearly used up.
pub struct Careful<'a>(ArenaHandle<'a>);

impl fmt::Debug for Careful<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Careful")
    }
}

// SAFETY: all memory is that of an ArenaHandle, which keeps the promises.
unsafe impl<E: Source> Allocator<E> for Careful<'_> {
    unsafe fn push_alloc(&mut self, layout: Layout) -> Result<NonNull<[u8]>, E> {
        if left() < LEAST_TO_ENCODE {
            return Err(E::new(TooDeep(MOST_LEVELS)));
        }
        // SAFETY: the caller's promises are those that the handle asks for.
        unsafe { self.0.push_alloc(layout) }
    }

    unsafe fn pop_alloc(&mut self, ptr: NonNull<u8>, layout: Layout) -> Result<(), E> {
        // SAFETY: as above.
        unsafe { self.0.pop_alloc(ptr, layout) }
    }
}
