//! What may cross to a worker, and back, and how.

pub mod arg;
pub(crate) mod callable;
pub(crate) mod code;
pub(crate) mod column;
pub(crate) mod datum;
pub(crate) mod digest;
pub(crate) mod input;
pub(crate) mod item;
pub mod kind;
pub(crate) mod over;
pub(crate) mod parameters;
pub(crate) mod seal;
pub(crate) mod task;
