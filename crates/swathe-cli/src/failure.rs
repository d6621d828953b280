//! Why a command could not do what was asked.

use std::{fmt, process::ExitCode};

/// A sentence for a person, and what the process ends with.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    text: String,
}

/// What a command gives.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// The exit code of what failed on the way: a file, a pool, memory.
const FAILED: u8 = 1;
/// The exit code of contenders that disagree.
const DIFFERENT: u8 = 3;

impl Failure {
    /// Something could not be done.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self {
            code: FAILED,
            text: text.into(),
        }
    }

    /// Contenders that should give the same values do not.
    pub(crate) fn different(text: impl Into<String>) -> Self {
        Self {
            code: DIFFERENT,
            text: text.into(),
        }
    }

    /// Nobody reads what is written: the end, and no error.
    pub(crate) fn unheard() -> Self {
        Self {
            code: 0,
            text: String::new(),
        }
    }

    /// Whether there is nobody to tell.
    pub(crate) fn is_unheard(&self) -> bool {
        self.text.is_empty()
    }

    /// What the process is to end with.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(error.to_string())
    }
}
