//! What a call brings: handles, values, streams.

pub(crate) mod partial;
pub(crate) mod pending;
pub(crate) mod records;
pub(crate) mod stream;
