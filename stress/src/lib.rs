//! Proofs of recovery: processes are killed where it hurts, and what they worked at must come to its right end.

pub mod controls;
pub mod every_instruction;
pub mod faults;
pub mod promptness;
mod raw;
pub mod roles;
pub mod soak;
pub mod system_calls;
pub mod tracee;
pub mod verdict;
pub mod watch;
