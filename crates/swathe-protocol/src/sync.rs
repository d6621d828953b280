//! The one place that chooses between the real atomics and loom's.

#[cfg(not(loom))]
pub use core::{
    hint::spin_loop,
    sync::atomic::{AtomicU32, AtomicU64, Ordering, fence},
};

/// A word of one writer that decides nothing, or is the same throughout a model: in most models a switch of threads or a death
/// before its operations would only repeat what the ones before and behind show. Loom's own, without those.
#[cfg(not(loom))]
pub use core::sync::atomic::AtomicU32 as QuietU32;
#[cfg(loom)]
pub use loom::sync::atomic::AtomicU32 as QuietU32;

/// Whether it is worth while to look before one goes to see: a look that decides nothing, and spares work where there is none.
/// In a model the work shows all that the look could, and every value that the look may return would be one more execution.
pub(crate) const LOOKS_FIRST: bool = cfg!(not(loom));

#[cfg(loom)]
pub use self::mortal::{AtomicU32, AtomicU64};
#[cfg(loom)]
pub use loom::{
    hint::spin_loop,
    sync::atomic::{Ordering, fence},
};

#[cfg(loom)]
pub mod mortal;
