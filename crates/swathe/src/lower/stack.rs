//! How deep a record may be. Who reads or writes a value of a type that contains itself needs some stack for each level,
//! and bytes may say that there are millions of levels; a stack that is used up ends the process.
//!
//! So the levels of what is decoded are counted, and decoding goes on on a larger stack if there are more than a few; what
//! is encoded gets a larger stack if there is little left of its own.

use std::{
    alloc::Layout,
    error::Error,
    fmt,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    ptr::NonNull,
};

use rkyv::{
    rancor::{Source, Strategy, Trace},
    ser::{Allocator, Serializer, allocator::ArenaHandle, sharing::Share},
    util::{AlignedVec, with_arena},
    validation::{ArchiveContext, Validator, archive::ArchiveValidator, shared::SharedValidator},
};

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

/// Encoding begins with at least this much stack, or gets that much. A larger stack costs some system calls, so a thread of
/// usual size (2 MiB) has none for each value.
const ROOM_TO_ENCODE: usize = 1 << 20;
const STACK_TO_ENCODE: usize = 64 << 20;
/// Encoding does not go on with less. Where it was begun on the stack that there was, it begins again on a larger one.
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

impl RecordError {
    fn is_too_deep(&self) -> bool {
        self.0.is::<TooDeep>()
    }
}

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

fn left() -> usize {
    stacker::remaining_stack().unwrap_or(0)
}

/// Reads a record with the help of a validator.
pub(crate) fn decode<T>(
    bytes: &[u8],
    read: impl Fn(&mut RecordValidator<'_>) -> Result<T, RecordError>,
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
        read(&mut Validator::new(bounds, SharedValidator::new()))
    };
    if left >= ROOM_FOR_FEW
        && let Ok(value) = read(few)
    {
        return Ok(value);
    }
    let stack = MOST_LEVELS * READING_A_LEVEL + len.saturating_mul(COPIES).min(MOST_COPIES);
    grown(stack, || read(most))?.map_err(|error| format!("a record cannot be decoded: {error}"))
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
        false => grown(STACK_TO_ENCODE, encode),
    }
}

fn grown<R>(stack: usize, run: impl FnOnce() -> R) -> Result<R, String> {
    let mut begun = false;
    let on_it = || {
        begun = true;
        run()
    };
    match catch_unwind(AssertUnwindSafe(|| stacker::grow(stack, on_it))) {
        Ok(result) => Ok(result),
        Err(panic) if begun => resume_unwind(panic),
        Err(_) => Err(format!(
            "there is no memory for a stack of {stack} bytes to read or write it on"
        )),
    }
}

/// What encodes a record.
pub(crate) type RecordSerializer<'a> = Strategy<Serializer<AlignedVec, Careful<'a>, Share>, RecordError>;

/// Appends what `serialize` writes to the bytes, whose alignment counts from their start.
pub(crate) fn write(
    bytes: &mut AlignedVec,
    serialize: impl Fn(&mut RecordSerializer<'_>) -> Result<usize, RecordError>,
) -> Result<(), String> {
    let mut attempt = || {
        let before = bytes.len();
        let writer = std::mem::take(bytes);
        with_arena(|arena| {
            let mut serializer = Serializer::new(writer, Careful(arena.acquire()), Share::new());
            let written = serialize(Strategy::wrap(&mut serializer));
            *bytes = serializer.into_writer();
            written.inspect_err(|_| bytes.resize(before, 0))
        })
    };
    let mut written = encode(&mut attempt)?;
    if written.as_ref().is_err_and(RecordError::is_too_deep) && left() < STACK_TO_ENCODE / 2 {
        written = grown(STACK_TO_ENCODE, &mut attempt)?;
    }
    written
        .map(drop)
        .map_err(|error| format!("it cannot be encoded: {error}"))
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
