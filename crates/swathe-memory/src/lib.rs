//! Memory that processes share: segments, the arena, and arrays in them.
//!
//! | module | what it holds |
//! |---|---|
//! | [`segment`] | a memory file, a mapped file or another program's segment, mapped once |
//! | [`registry`] | the segments of this process, by id; asks the parent for unknown ones |
//! | [`arena`] | [`Memory`]: allocation in one big sparse memory file; [`Block`]: an owned range |
//! | [`placement`] | which node pages are taken from, and when |
//! | [`overlay`] | [`Shared`], [`SharedSlice`]: atomic structs laid over a segment |
//! | [`mod@array`], [`array_mut`] | [`Array`]: shared, read-only; [`ArrayMut`]: unique, writable |
//! | [`array_ref`] | [`ArrayRef`]: how an array crosses to another process |
//! | [`vouch`] | which archived bytes are believed |
//! | [`npy`] | arrays from and to NumPy's files |
//!
#![doc = include_str!("README.md")]
#![expect(unsafe_code, reason = "typed views of memory that the kernel gave as bytes")]

pub mod arena;
pub mod array;
pub mod array_mut;
pub mod array_ref;
pub mod element;
pub mod error;
pub mod lease;
pub mod npy;
pub mod overlay;
pub mod placement;
#[cfg(feature = "posix-shm")]
pub mod posix;
mod read;
pub mod registry;
pub mod segment;
mod shape;
#[cfg(any(test, feature = "_untrusted"))]
#[doc(hidden)]
pub mod untrusted;
pub mod vouch;

pub use arena::{Block, Memory, MemoryStats};
pub use array::Array;
pub use array_mut::ArrayMut;
pub use array_ref::{ArchivedArray, ArrayRef, ArrayResolver};
pub use element::{Dtype, Element, Integer, OutputElement};
pub use error::MemoryError;
pub use npy::{NpyInfo, npy_header, npy_info};
pub use overlay::{Overlay, Shared, SharedSlice};
pub use placement::Placement;
pub use segment::{Access, Origin, Segment, SegmentId};
pub use shape::MAX_AXES;
