//! Swathe's engine without types: a supervisor, a zygote, workers, and jobs that are positions, bytes and a task id.
//!
//! `README.md` beside this file (included below) says who does what, and what happens when somebody dies.
#![doc = include_str!("README.md")]

mod account;
mod board;
mod bytes;
mod chaos;
mod collect;
mod control;
mod courier;
mod deadlines;
mod engine;
mod errand;
mod error;
pub mod fault;
mod heap;
mod host;
#[cfg(any(test, feature = "hostile"))]
#[doc(hidden)]
pub mod hostile;
mod job;
mod launch;
mod mow;
mod naps;
pub mod observe;
mod panics;
mod recipe;
mod recovery;
mod redo;
mod report;
mod round;
mod state;
mod strip;
mod supervisor;
mod task;
pub mod user_code;
mod wire;
mod worker;
mod zygote;

pub use account::{Report, SlowStrip, WorkerReport};
pub use control::MAX_PROCESSES;
pub use engine::{Engine, EngineConfig, JobHandle, WorkerInfo};
pub use error::{EngineError, chain as error_chain};
pub use host::Host;
pub use job::{
    Chunking, Durable, End, Failure, FailureKind, Job, JobTraits, OnDone, Outcome, Region, Retries,
};
#[cfg(feature = "chaos")]
pub use naps::rescued as rescued_naps;
pub use state::Arrival;
pub use swathe_os::process::ExitCause;
pub use task::{
    Call, ExitHook, HeapSpan, Rest, Setup, SetupCall, TaskRef, Trampoline, WorkerFacts, WriteBack,
};
pub use zygote::{init, init_with, is_initialized};
