//! Everything that can go wrong with memory, as sentences.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::PathBuf;

use swathe_os::mapping::MappingError;
use swathe_os::memfd::MemfdError;
use swathe_os::memory_limits::LimitedBy;
use swathe_os::text::{self, shown};

use crate::segment::SegmentId;

/// Why memory could not be had, shared or interpreted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// The system has not enough memory left; nothing was taken.
    #[error(
        "{} of new memory are needed but only {} are available, limited by {limited_by}; {}, or work on less data \
         at a time",
        Size::apart_from(*needed, *available), Size::apart_from(*available, *needed), limited_by.remedy()
    )]
    Shortage {
        /// Bytes of new pages that the allocation needs.
        needed: u64,
        /// Bytes that the system can give.
        available: u64,
        /// The limit that decided.
        limited_by: LimitedBy,
    },
    /// The kernel cannot place pages so.
    #[error(
        "pages cannot be placed as {placement:?} here: {source}; without a placement they are taken from the node of whoever allocates"
    )]
    Placement {
        /// What was asked for.
        placement: crate::Placement,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refused pages that the limits had promised.
    #[error(
        "the kernel did not provide {} of new memory: {source}{}",
        Size(*needed), pages_remedy(source)
    )]
    Pages {
        /// Bytes of new pages that the allocation needs.
        needed: u64,
        /// What the kernel said.
        source: io::Error,
    },
    /// The environment variable that sets the capacity of [`Memory::global`](crate::Memory::global) makes no sense.
    #[error(
        "the environment variable {name} is {value:?}: it must be a number of bytes, as 8589934592, 512M, 8G or 1T \
         (K, M, G and T are powers of 1024), and at least 64M",
        name = crate::arena::capacity::VARIABLE
    )]
    CapacityVariable {
        /// What it is set to.
        value: OsString,
    },
    /// [`Memory::reserve_global`](crate::Memory::reserve_global) came too late.
    #[error(
        "the arena of this process has a capacity of {} already: set it before the first array and the first pool are \
         made",
        Size(*capacity)
    )]
    AlreadyReserved {
        /// Its capacity, in bytes.
        capacity: u64,
    },
    /// No free range of the arena is long enough.
    #[error(
        "{} do not fit into the arena: its capacity is {}, {} are in use and its longest free range has {} from a multiple of \
         {align} on; drop arrays that are no longer needed, or make a larger arena with Memory::with_capacity",
        Size::apart_from(*needed, *longest_free), Size(*capacity), Size(*in_use), Size::apart_from(*longest_free, *needed)
    )]
    ArenaFull {
        /// Bytes asked for.
        needed: u64,
        /// Bytes that the arena can hold.
        capacity: u64,
        /// Bytes that blocks hold.
        in_use: u64,
        /// Of what the bytes must start at a multiple.
        align: u64,
        /// Bytes in the longest free range that starts there.
        longest_free: u64,
    },
    /// More bytes than an address can count.
    #[error("{count} elements of {element_size} bytes each are more than this machine can address")]
    TooLarge {
        /// Elements asked for.
        count: usize,
        /// Bytes of one element.
        element_size: usize,
    },
    /// An alignment that the arena cannot give.
    #[error("an alignment of {align} bytes was asked for; it must be a power of two of at most 2 MiB")]
    Alignment {
        /// Alignment asked for, in bytes.
        align: usize,
    },
    /// Allocation in an arena that another process made.
    #[error(
        "this arena was made by process {owner} and only that process allocates in it, but this is process \
         {current}; use Memory::global() here, which is this process's own"
    )]
    ForeignArena {
        /// The process that made the arena.
        owner: u32,
        /// This process.
        current: u32,
    },
    /// A memory file could not be made.
    #[error(transparent)]
    Create(#[from] MemfdError),
    /// A file or segment could not be mapped.
    #[error("{what} could not be mapped: {source}")]
    Map {
        /// What was to be mapped.
        what: String,
        /// Why it was not.
        source: MappingError,
    },
    /// A file could not be opened, read or written.
    #[error("cannot {action} {path}: {source}", path = text::path(path))]
    File {
        /// The verb: "open", "write to" ...
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file behind a mapping became shorter; touching the lost part would raise SIGBUS.
    #[error(
        "{what} shrank while it was mapped: {mapped} bytes were mapped and {now} are left; load it again, and let \
         the program that writes it replace the file (write a new one, then rename) instead of truncating it"
    )]
    Shrunk {
        /// The file or segment.
        what: String,
        /// Bytes mapped.
        mapped: u64,
        /// Bytes in the file now.
        now: u64,
    },
    /// A file became shorter while its elements were read.
    #[error(
        "{path} became shorter while it was read: it had {expected} bytes, and ended after {found}; read it again, and let the \
         program that writes it replace the file (write a new one, then rename) instead of truncating it",
        path = text::path(path)
    )]
    CutOff {
        /// The file.
        path: PathBuf,
        /// Bytes that were to be had.
        expected: u64,
        /// Bytes that were there.
        found: u64,
    },
    /// A range that ends outside its segment.
    #[error("bytes {offset} to {offset}+{len} lie outside segment {segment}, which has {segment_len} bytes")]
    OutOfBounds {
        /// The segment.
        segment: SegmentId,
        /// First byte of the range.
        offset: u64,
        /// Bytes in the range.
        len: u64,
        /// Bytes in the segment.
        segment_len: u64,
    },
    /// An address that the element type cannot have.
    #[error("byte {offset} of segment {segment} is not a multiple of {align}, as {type_name} requires")]
    Misaligned {
        /// The segment.
        segment: SegmentId,
        /// First byte of the range.
        offset: u64,
        /// Alignment of the type, in bytes.
        align: usize,
        /// The type.
        type_name: &'static str,
    },
    /// A segment that cannot be used in this way.
    #[error("segment {segment} cannot hold {purpose}: {reason}")]
    WrongSegment {
        /// The segment.
        segment: SegmentId,
        /// What it was to hold.
        purpose: &'static str,
        /// Why it cannot.
        reason: &'static str,
    },
    /// A segment that this process does not have and could not fetch.
    #[error("segment {segment} is not known to this process: {}", shown(reason))]
    UnknownSegment {
        /// The segment.
        segment: SegmentId,
        /// What the resolver said.
        reason: String,
    },
    /// A reference to memory that was freed.
    #[error(
        "the array at byte {offset} of segment {segment} was freed; keep the Array alive for as long as its \
         reference is in use"
    )]
    Freed {
        /// The segment.
        segment: SegmentId,
        /// First byte of the array.
        offset: u64,
    },
    /// A reference to an array of another process, in bytes for which nobody vouches.
    #[error(
        "the array at byte {offset} of segment {segment} does not lie in the arena of this process, and nobody vouches for \
         the bytes that refer to it; pass the Array itself to the task, as an argument, a parameter or a part of a record, \
         instead of reading archived bytes"
    )]
    Unvouched {
        /// The segment.
        segment: SegmentId,
        /// First byte of the array.
        offset: u64,
    },
    /// A reference that was made for another element type, or is damaged.
    #[error("this reference cannot be an array of {type_name}: {}", shown(reason))]
    BadReference {
        /// The type asked for.
        type_name: &'static str,
        /// What does not fit.
        reason: String,
    },
    /// A shape that does not fit the elements.
    #[error("the shape {shape:?} {reason}")]
    Shape {
        /// Lengths of the axes.
        shape: Vec<usize>,
        /// What is wrong with it.
        reason: String,
    },
    /// An index or axis that the array does not have.
    #[error("{what} is out of bounds: the array has the shape {shape:?}")]
    Index {
        /// The index, in words.
        what: String,
        /// Lengths of the axes.
        shape: Vec<usize>,
    },
    /// A range of integers without a first or last value, or with too many of them.
    #[error("the range {range} cannot become an array: {reason}")]
    Range {
        /// The range.
        range: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A file whose content is not what it should be.
    #[error("{path} cannot be used as {expected}: {found}; {remedy}", path = text::path(path))]
    Format {
        /// The file.
        path: PathBuf,
        /// What the caller wanted.
        expected: String,
        /// What is in the file.
        found: String,
        /// What to do.
        remedy: String,
    },
    /// A file that was given as one that cannot change.
    #[error("this file cannot be mapped as one that never changes: {reason}")]
    Sealed {
        /// Why not, and what to do.
        reason: String,
    },
    /// A named segment of another program that must not be trusted, or does not exist.
    #[error("the shared memory segment {name:?} cannot be used: {reason}")]
    NamedSegment {
        /// Its name.
        name: String,
        /// Why not, and what to do.
        reason: String,
    },
}

/// What to do where pages are short. (Where they are forbidden, the error says it itself.)
fn pages_remedy(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::Unsupported => "",
        _ => "; free memory by ending other programs, or work on less data at a time",
    }
}

/// A number of bytes for people: exact while small, then in binary units with one decimal.
pub(crate) struct Size(pub(crate) u64);

impl Size {
    /// A number that is told beside another one: exact if both would read the same.
    fn apart_from(bytes: u64, other: u64) -> String {
        let text = Size(bytes).to_string();
        match text == Size(other).to_string() {
            true => format!("{bytes} bytes"),
            false => text,
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 10_000 {
            return write!(f, "{} bytes", self.0);
        }
        let (mut value, mut unit) = (self.0 as f64 / 1024.0, 0);
        while value >= 1024.0 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        write!(f, "{value:.1} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_well() {
        let text = |bytes| Size(bytes).to_string();
        assert_eq!(text(0), "0 bytes");
        assert_eq!(text(9_999), "9999 bytes");
        assert_eq!(text(1 << 20), "1.0 MiB");
        assert_eq!(text(3 << 29), "1.5 GiB");
        assert_eq!(text(u64::MAX), "16.0 EiB");
    }

    #[test]
    fn two_sizes_are_told_apart() {
        let error = MemoryError::ArenaFull {
            needed: (2 << 20) + 64,
            capacity: 8 << 20,
            in_use: 3 << 20,
            align: 64,
            longest_free: 2 << 20,
        };
        let text = error.to_string();
        assert!(
            text.starts_with("2097216 bytes do not fit into the arena: its capacity is 8.0 MiB, "),
            "{text}"
        );
        assert!(
            text.contains("and its longest free range has 2097152 bytes from a multiple of 64 on;"),
            "{text}"
        );
    }

    #[test]
    fn a_shortage_says_needed_available_limit_and_remedy() {
        let error = MemoryError::Shortage {
            needed: 8 << 30,
            available: 3 << 29,
            limited_by: LimitedBy::FreeMemory,
        };
        assert_eq!(
            error.to_string(),
            "8.0 GiB of new memory are needed but only 1.5 GiB are available, limited by the free memory of the \
             machine; free memory by ending other programs, or use a machine with more of it, or work on less data \
             at a time"
        );
    }
}
