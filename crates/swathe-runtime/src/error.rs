//! What can go wrong with a pool as a whole.

use std::sync::Arc;

use swathe_memory::MemoryError;
use swathe_os::text::shown;

use crate::shared::control::MAX_PROCESSES;

/// Why the engine refused, or cannot go on.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The program never called `init()`.
    #[error(
        "this program never called `swathe::init()`: worker processes are started from the program's own executable, \
         so its first line must be\n\n    fn main() {{\n        swathe::init();\n\n(in a test or bench harness put \
         `swathe::init_before_main!();` at the top of the file)"
    )]
    NotInitialized,
    /// The program called `init()` too late: it had started threads before.
    #[error(
        "`swathe::init()` was called too late: this program had started {} by then. Worker processes run the program up to \
         that line, and would start {} as well, so the first lines must be\n\n    fn main() {{\n        \
         swathe::init();\n\nand whatever starts threads comes behind them (put `#[tokio::main]` on a function \
         that `main` calls there). In tests, benches and doctests put \
         `swathe::init_before_main!();` at the top of the file",
        named(threads),
        match threads.len() { 1 => "it", _ => "them" }
    )]
    LateInit {
        /// The names of the threads that were there.
        threads: Vec<String>,
    },
    /// A number of processes that cannot be.
    #[error("a pool has at least 1 process, and 0 were asked for")]
    NoProcesses,
    /// Too many processes.
    #[error("a pool has at most {max} processes, and {asked} were asked for")]
    TooManyProcesses {
        /// What was asked for.
        asked: usize,
        /// What this pool, or any pool, can have.
        max: usize,
    },
    /// Submitted after `close`.
    #[error("the pool is not running: it was closed")]
    Closed,
    /// Submitted after `terminate`.
    #[error("the pool is not running: it was terminated")]
    Terminated,
    /// `join` before `close`.
    #[error("the pool is still running: call `close()` or `terminate()` before `join()`")]
    StillRunning,
    /// Used in a process that was forked from the one that built it.
    #[error(
        "this pool belongs to the process that built it, and this process was forked from that one: build a pool of \
         its own here"
    )]
    Forked,
    /// The pool has given up.
    #[error("the pool is broken: {}", shown(.0))]
    Broken(String),
    /// Processes could not be started.
    #[error("the pool could not be started: {}", shown(.0))]
    Start(String),
    /// The program may do more than whoever has started it.
    #[error(
        "this process has raised privileges (set-uid, set-gid, file capabilities, or another effective user): nobody may \
         have it start workers; give them up for good and start the program anew, or build the pool in a program without"
    )]
    RaisedPrivileges,
    /// More workers than this process may have descriptors for.
    #[error(
        "{workers} workers need this process to have {needed} open files, and it may have {limit}: raise the hard limit \
         (`ulimit -Hn`), or ask for fewer workers"
    )]
    TooFewDescriptors {
        /// Workers to be started.
        workers: usize,
        /// Descriptors that the process would have.
        needed: u64,
        /// Its hard limit.
        limit: u64,
    },
    /// A chunk size that cannot be.
    #[error("a chunk has at least 1 element: a chunk size of 0 would never end")]
    ZeroChunk,
    /// A chunk size that the status words cannot count.
    #[error("a chunk has at most {max} elements, and {asked} were asked for")]
    ChunkTooLong {
        /// What was asked for.
        asked: u64,
        /// The most a status word counts.
        max: u64,
    },
    /// More chunks than a lane can number.
    #[error("a job has at most {max} chunks, and this one would have {chunks}: choose a larger chunk size")]
    TooManyChunks {
        /// What the chunk size leads to.
        chunks: u64,
        /// The most that can be numbered.
        max: u64,
    },
    /// Memory could not be had.
    #[error(transparent)]
    Memory(#[from] Arc<MemoryError>),
}

impl From<MemoryError> for EngineError {
    fn from(error: MemoryError) -> Self {
        Self::Memory(Arc::new(error))
    }
}

impl EngineError {
    pub(crate) fn check_processes(asked: usize, max: usize) -> Result<(), Self> {
        match asked {
            0 => Err(Self::NoProcesses),
            n if n > max.min(MAX_PROCESSES) => Err(Self::TooManyProcesses {
                asked,
                max: max.min(MAX_PROCESSES),
            }),
            _ => Ok(()),
        }
    }
}

/// The text of an error and of what caused it, as `error: cause: its cause`.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        // Errors that print their cause themselves would say it twice.
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// The most threads that are named in an error.
const NAMED: usize = 8;

fn named(threads: &[String]) -> String {
    let named: Vec<_> = threads
        .iter()
        .take(NAMED)
        .map(|name| format!("`{}`", shown(name)))
        .collect();
    let (named, more) = (named.join(", "), threads.len().saturating_sub(NAMED));
    match (threads.len(), more) {
        (1, _) => format!("a thread ({named})"),
        (all, 0) => format!("{all} threads ({named})"),
        (all, more) => format!("{all} threads ({named} and {more} more)"),
    }
}
