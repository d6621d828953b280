//! The parent's threads but for the supervisor: jobs are submitted, waited for and ended here.

pub(crate) mod courier;
pub(crate) mod engine;
pub(crate) mod jobs;
pub(crate) mod naps;
pub(crate) mod orders;
pub(crate) mod retry;
pub mod user_code;
