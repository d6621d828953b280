//! What seals traits that users must not implement.
//!
//! A trait of this crate whose methods name a type that nobody outside can name is sealed by that. The others have
//! [`Sealed`] above them, or take a [`Seal`].
#![allow(
    unnameable_types,
    reason = "a seal is what it is because nobody outside can name it"
)]

/// Only this crate implements it.
pub trait Sealed {}

/// Only this crate has one.
#[derive(Debug)]
pub struct Seal;
