//! One call: its options, and how it becomes a job.

pub(crate) mod batch;
pub(crate) mod callbacks;
pub(crate) mod job;
pub(crate) mod mode;
pub(crate) mod options;
pub(crate) mod ready;
