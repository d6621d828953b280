//! The parent's threads but for the supervisor: jobs are submitted, waited for and ended here.

pub(crate) mod arrival;
pub(crate) mod core;
pub(crate) mod courier;
pub(crate) mod engine;
pub(crate) mod failures;
pub(crate) mod handle;
pub(crate) mod job;
pub(crate) mod jobs;
pub(crate) mod look_around;
pub(crate) mod orders;
pub(crate) mod prepare;
pub(crate) mod ranges;
pub(crate) mod retry;
pub(crate) mod spares;
pub mod user_code;
