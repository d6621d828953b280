//! Why a job cannot have its output in a file.

use std::{io, path::PathBuf};

use swathe_os::{
    file::{NotOurs, ReserveError},
    text::{self, shown},
};

use super::progress_path;

/// Why a job cannot have its output in a file; see [`Batch::output_file`](crate::Batch::output_file).
///
/// The files are as they were, but for [`OutputError::NotWritten`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutputError {
    /// Another job writes the file.
    #[error(
        "{path} is being written by another job, or a result of it that has holes is still held; wait until that is over \
         (a job whose program was killed lets go when the last of its workers is gone, on a network file system when the \
         server has noticed), or name another file",
        path = text::path(path)
    )]
    Locked {
        /// The file of values.
        path: PathBuf,
    },
    /// The file cannot be locked, on a file system without locks for example.
    #[error(
        "{path} cannot be locked: {source}; so nothing would keep another job from writing it at the same time: name a file in a \
         file system that has locks (flock), or, if you see to it yourself that no other job writes this one, say so with \
         Batch::unlocked",
        path = text::path(path)
    )]
    NoLock {
        /// The file of values.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is a file that no job of Swathe has begun.
    #[error("{path} exists and is not the output of a job: {}; move it away, or name another file", shown(found), path = text::path(path))]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What is in it.
        found: String,
    },
    /// The output of a job that asked for something else.
    #[error(
        "{path} cannot be resumed, because {difference}; run what began it, or delete {path} and {progress} to start anew",
        path = text::path(path),
        progress = text::path(&progress_path(path))
    )]
    Changed {
        /// The file of values.
        path: PathBuf,
        /// What is not as it was.
        difference: Difference,
    },
    /// A file that cannot be trusted.
    #[error(
        "{path} is damaged: {found}; bring it back from a copy, or delete it and the file beside it ({beside}) to start \
         anew",
        path = text::path(path),
        beside = text::path(beside)
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The other file of the output.
        beside: PathBuf,
        /// What is wrong with it.
        found: String,
    },
    /// A file that another user has made, or can change.
    #[error(
        "{path} is neither believed nor written: {reason}; take it away if it is nobody's, or name a file in a directory \
         of your own",
        path = text::path(path)
    )]
    Untrusted {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: NotOurs,
    },
    /// There is no room for the file.
    #[error("there is no room for {path}: {source}", path = text::path(path))]
    NoRoom {
        /// The file.
        path: PathBuf,
        /// What it needs, and what there is.
        source: ReserveError,
    },
    /// The system did not let us.
    #[error("cannot {action} {path}: {source}", path = text::path(path))]
    Io {
        /// The verb: "open", "lock" ...
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// All values were computed, but the disk did not take them.
    #[error(
        "the values of {path} did not all reach the disk: {source}; what was not saved a moment before is computed again \
         when the program is run again",
        path = text::path(path)
    )]
    NotWritten {
        /// The file of values.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Input or parameters cannot be compared with those of another run.
    #[error("the job cannot be compared with one that began {path}: {}", shown(message), path = text::path(path))]
    Incomparable {
        /// The file of values.
        path: PathBuf,
        /// Why.
        message: String,
    },
}

/// What differs between the job that began a file and the one that would go on with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Difference {
    /// The number of elements.
    #[error("it was begun with an input of {begun} elements, and this one has {now}")]
    Length {
        /// Elements of the input that began it.
        begun: u64,
        /// Elements of this input.
        now: u64,
    },
    /// The type of the results.
    #[error(
        "it was begun with results of the type {}, and these would be {}",
        shown(begun),
        shown(now)
    )]
    Type {
        /// Type of the values in the file.
        begun: String,
        /// Type that this task returns.
        now: String,
    },
    /// The task's name.
    #[error(
        "it was begun with the task `{}`, and this one is `{}`",
        shown(begun),
        shown(now)
    )]
    Task {
        /// Name of the task that began it.
        begun: String,
        /// Name of this task.
        now: String,
    },
    /// The version that [`Batch::task_version`](crate::Batch::task_version) says.
    #[error("it was begun with {} of the task, and this is {}", shown(begun), shown(now))]
    Version {
        /// Version of the task that began it.
        begun: String,
        /// Version of this task.
        now: String,
    },
    /// The executable.
    #[error(
        "it was begun with another task of the same name, or by another build of the program, in which the task may do \
         something else (with `task_version(\"...\")` you say yourself when it does)"
    )]
    Build,
    /// The input.
    #[error("the contents of the input are not those that it was begun with")]
    Input,
    /// The parameters.
    #[error("the parameters are not those that it was begun with")]
    Parameters,
    /// The seed.
    #[error("it was begun with the seed {begun}, and this one is {now}")]
    Seed {
        /// Seed of the job that began it.
        begun: u64,
        /// Seed of this job.
        now: u64,
    },
}
