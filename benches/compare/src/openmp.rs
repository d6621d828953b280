//! The OpenMP peer: a child process a kernel, blocked in `read` while others have their turn.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use crate::{
    Result,
    harness::{Setup, Turn},
};

/// Built for this machine's processor; empty without a compiler.
const NATIVE: &str = env!("OPENMP_NATIVE");
/// Built for the processor that rustc assumes.
const GENERIC: &str = env!("OPENMP_GENERIC");

/// A team that waits for its turn.
pub(crate) struct Team {
    child: Child,
    turns: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

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
    let mut team = Team::start(program, setup, kernel, n, calls)?;
    Ok(Some(move || team.turn()))
}

impl Team {
    fn start(program: &str, setup: &Setup, kernel: &str, n: usize, calls: usize) -> Result<Self> {
        let mut child = Command::new(program)
            .args([kernel, &n.to_string(), &calls.to_string()])
            // How its threads wait is left as gcc has it: they spin for some milliseconds between two loops, which is
            // what makes OpenMP fast. The program dissolves the team after each turn.
            .env("OMP_NUM_THREADS", setup.workers.to_string())
            .env("OMP_DYNAMIC", "false")
            .env_remove("OMP_SCHEDULE")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (turns, answers) = (child.stdin.take(), child.stdout.take());
        let answers = answers.ok_or("the OpenMP program has no output")?;
        Ok(Self {
            child,
            turns,
            answers: BufReader::new(answers),
        })
    }

    fn turn(&mut self) -> Result<Turn> {
        let turns = self.turns.as_mut().ok_or("the OpenMP program has no input")?;
        writeln!(turns, "run")?;
        turns.flush()?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        let numbers: Vec<f64> = answer.split_whitespace().flat_map(str::parse).collect();
        let [nanoseconds, digest] = numbers[..] else {
            return Err(format!("the OpenMP program answers {answer:?}").into());
        };
        Ok((nanoseconds * 1e-9, digest).into())
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        drop(self.turns.take()); // it reads the end of its input, and leaves
        let _ = self.child.wait();
    }
}
