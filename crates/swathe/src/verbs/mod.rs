//! What a pool does with an input: each verb is lowered to jobs without types.

pub(crate) mod apply;
pub(crate) mod chunks;
pub(crate) mod imap;
pub(crate) mod in_place;
pub(crate) mod map;
pub(crate) mod per_worker;
pub(crate) mod reduce;
pub(crate) mod resumed;
pub(crate) mod rows;
