//! The OpenMP peer: a child process a kernel.

use std::process::Command;

use crate::{
    Result,
    harness::{Setup, Turn},
    peer::Peer,
};

/// Built for this machine's processor; empty without a compiler.
const NATIVE: &str = env!("OPENMP_NATIVE");
/// Built for the processor that rustc assumes.
const GENERIC: &str = env!("OPENMP_GENERIC");

/// A contender: `kernel` of size `n`, `calls` calls a turn. `None` if there is no compiler.
pub(crate) fn native(
    setup: &Setup,
    kernel: &str,
    n: usize,
    calls: usize,
) -> Result<Option<impl FnMut() -> Result<Turn> + use<>>> {
    contender(NATIVE, setup, kernel, n, calls)
}

/// As [`native`], for the processor that rustc assumes.
pub(crate) fn generic(
    setup: &Setup,
    kernel: &str,
    n: usize,
    calls: usize,
) -> Result<Option<impl FnMut() -> Result<Turn> + use<>>> {
    contender(GENERIC, setup, kernel, n, calls)
}

fn contender(
    program: &str,
    setup: &Setup,
    kernel: &str,
    n: usize,
    calls: usize,
) -> Result<Option<impl FnMut() -> Result<Turn> + use<>>> {
    if program.is_empty() {
        return Ok(None);
    }
    let mut team = Peer::start(
        Command::new(program)
            .args([kernel, &n.to_string(), &calls.to_string()])
            // How its threads wait is left as gcc has it: they spin for some milliseconds between two loops, which is
            // what makes OpenMP fast. The program dissolves the team after each turn.
            .env("OMP_NUM_THREADS", setup.workers.to_string())
            .env("OMP_DYNAMIC", "false")
            .env_remove("OMP_SCHEDULE"),
    )?;
    Ok(Some(move || match team.turn()?[..] {
        [nanoseconds, digest] => Ok((nanoseconds * 1e-9, digest).into()),
        ref other => Err(format!("the OpenMP program answers {other:?}").into()),
    }))
}
