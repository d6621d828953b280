//! Swathe's calls to the operating system, one facility a file, each behind a safe function.
//!
//! Linux 5.14 or newer. This crate exists to hold `unsafe`: every block says why it is sound.
#![expect(unsafe_code, reason = "system calls that have no safe wrapper elsewhere")]

pub mod constructors;
pub mod cores;
pub mod descriptors;
pub mod ending;
pub mod faults;
pub mod file;
pub mod futex;
pub mod image;
mod kernel_files;
pub mod mapping;
pub mod memfd;
pub mod memory_limits;
pub mod numa;
pub mod overflow;
pub mod own_threads;
pub mod process;
pub mod signals;
pub mod socket;
pub mod spawn;
pub mod stack;
pub mod surroundings;
pub mod text;
pub mod thread_caps;
#[cfg(feature = "_untrusted")]
#[doc(hidden)]
pub mod untrusted;

pub use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

pub use descriptors::Descriptor;
