//! Figures of `benches/compare`: read here, also by `compare` itself; drawn by the program of this package.

pub mod figures;

/// A result whose error is a sentence.
pub type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;
