//! Python's `multiprocessing.Pool` as a contender: a child process that makes its own input and times itself.

use std::{
    io::{BufRead, BufReader, Read, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use super::kernel::{Kernel, Step};
use crate::{
    args::Chunk,
    failure::{Failure, Result},
};

const PROGRAM: &str = include_str!("python.py");

/// A Python program with a pool.
pub(crate) struct Python {
    child: Child,
    /// Closed to end the program.
    asks: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    stride: usize,
    elements: usize,
}

impl Python {
    /// The version of `python3`, if there is one.
    pub(crate) fn version() -> Option<String> {
        let output = Command::new("python3").arg("--version").output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        (output.status.success() && text.starts_with("Python 3")).then(|| text.trim().to_owned())
    }

    /// Starts one with this many processes.
    pub(crate) fn start<S: Step>(kernel: &Kernel<S>, processes: usize) -> Result<Self> {
        let (step, code) = S::PYTHON;
        let program = PROGRAM
            .replace("# STEP\n", step)
            .replace("INPUT for i", &format!("{} for i", kernel.python_input));
        let len = kernel.input.len();
        let stride = len.div_ceil(kernel.python_len);
        let mut child = Command::new("python3")
            .arg("-c")
            .arg(program)
            .args([processes, len, stride].map(|n| n.to_string()))
            .arg(if code.is_empty() { "-" } else { code })
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let missing = || Failure::new("python3 was started without pipes");
        let answers = BufReader::new(child.stdout.take().ok_or_else(missing)?);
        Ok(Self {
            asks: Some(child.stdin.take().ok_or_else(missing)?),
            child,
            answers,
            stride,
            elements: len.div_ceil(stride),
        })
    }

    /// It does every so many-th element.
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    /// How many elements it does.
    pub(crate) fn elements(&self) -> usize {
        self.elements
    }

    /// Has it do the work once: its own time, and the values.
    pub(crate) fn run<T: bytemuck::Pod>(&mut self, chunk: Chunk) -> Result<(Duration, Vec<T>)> {
        let ask = match chunk {
            Chunk::Fixed(size) => format!("{size}\n"),
            Chunk::Auto | Chunk::Pool => "default\n".to_owned(),
        };
        let failed = || Failure::new("python3 ended before it had done its work; what it wrote is above");
        let asks = self.asks.as_mut().ok_or_else(failed)?;
        asks.write_all(ask.as_bytes()).map_err(|_| failed())?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let mut words = line.split_whitespace();
        let mut word = || words.next().ok_or_else(failed);
        let seconds: f64 = word()?.parse().map_err(|_| failed())?;
        let count: usize = word()?.parse().map_err(|_| failed())?;
        let bytes: usize = word()?.parse().map_err(|_| failed())?;
        if count != self.elements || bytes != count * size_of::<T>() {
            return Err(Failure::different(format!(
                "python3 gave {count} results in {bytes} bytes, and there should be {} of {} bytes each",
                self.elements,
                size_of::<T>()
            )));
        }
        let mut values = vec![T::zeroed(); count];
        if size_of::<T>() > 0 {
            self.answers.read_exact(bytemuck::cast_slice_mut(&mut values))?;
        }
        Ok((Duration::from_secs_f64(seconds), values))
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        self.asks = None; // the end of its input is the end of its work
        let _ = self.child.wait();
    }
}
