//! Swathe's engine without types: a supervisor, a zygote, workers, and jobs that are positions, bytes and a task id.
//!
//! `README.md` beside this file (included below) says who does what, and what happens when somebody dies.
#![doc = include_str!("README.md")]

mod error;
pub mod fault;
mod host;
mod job;
pub mod observe;
mod parent;
mod shared;
mod supervisor;
#[cfg(any(test, feature = "_untrusted"))]
#[doc(hidden)]
pub mod untrusted;
mod worker;
mod zygote;

pub use error::{EngineError, chain as error_chain};
pub use host::Host;
pub use job::{
    Chunking, Durable, End, Failure, FailureKind, Job, JobTraits, OnDone, Outcome, Region, Retries,
    report::{Report, SlowStrip, WorkerReport},
    task::{Call, ExitHook, HeapSpan, Rest, Setup, SetupCall, TaskRef, Trampoline, WorkerFacts, WriteBack},
};
pub use parent::{
    arrival::Arrival,
    engine::{Engine, EngineConfig, WorkerInfo},
    handle::JobHandle,
    user_code,
};
pub use shared::control::MAX_PROCESSES;
#[cfg(feature = "chaos")]
pub use shared::naps::rescued as rescued_naps;
pub use swathe_os::process::ExitCause;
pub use zygote::{init, init_with, is_initialized};
