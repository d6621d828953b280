//! What both sides know: the layout of the memory they share, the messages between them, the formats of what lies there.

pub(crate) mod bytes;
pub(crate) mod control;
pub(crate) mod memory;
pub(crate) mod messages;
pub(crate) mod naps;
pub(crate) mod picks;
pub(crate) mod plan;
pub(crate) mod records;
pub(crate) mod scratch;
