//! The one place that chooses between the real atomics and loom's.

#[cfg(not(loom))]
pub use core::{
    hint::spin_loop,
    sync::atomic::{AtomicU32, AtomicU64, Ordering, fence},
};

#[cfg(loom)]
pub use self::mortal::{AtomicU32, AtomicU64};
#[cfg(loom)]
pub use loom::{
    hint::spin_loop,
    sync::atomic::{Ordering, fence},
};

#[cfg(loom)]
pub mod mortal;
