//! A peer that is a program of its own: it blocks in `read` while others have their turn, and answers each line with
//! numbers.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use crate::Result;

/// A program that waits for its turn.
pub(crate) struct Peer {
    child: Child,
    turns: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    pub(crate) fn start(program: &mut Command) -> Result<Self> {
        let mut child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (turns, answers) = (child.stdin.take(), child.stdout.take());
        let answers = answers.ok_or("a peer has no output")?;
        Ok(Self {
            child,
            turns,
            answers: BufReader::new(answers),
        })
    }

    /// The next line that it writes.
    pub(crate) fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    /// Has it take one turn.
    pub(crate) fn turn(&mut self) -> Result<Vec<f64>> {
        let turns = self.turns.as_mut().ok_or("a peer has no input")?;
        writeln!(turns, "run")?;
        turns.flush()?;
        let line = self.line()?;
        let numbers: std::result::Result<Vec<f64>, _> = line.split_whitespace().map(str::parse).collect();
        match numbers {
            Ok(numbers) if !numbers.is_empty() => Ok(numbers),
            _ => Err(format!("a peer answers {line:?}").into()),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.turns.take()); // it reads the end of its input, and leaves
        let _ = self.child.wait();
    }
}
