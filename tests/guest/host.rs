//! Starting a host, and hearing it.

use std::{
    io::{BufRead, BufReader, Read},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use swathe_tests::{Watch, runs, watch};

/// The program of all hosts.
pub(crate) fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_host"))
}

/// A host that runs, in a process group of its own.
pub(crate) struct Host {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
    _watch: Watch,
}

impl Host {
    /// Starts it with these arguments.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::of(Command::new(program()).args(arguments))
    }

    /// Starts it by a command of the test's own.
    pub(crate) fn of(command: &mut Command) -> Self {
        let command = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut child = command.spawn().expect("the host starts");
        let lines = BufReader::new(child.stdout.take().expect("it is piped"));
        Self {
            child,
            lines,
            _watch: watch(),
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line that it says.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("it says text");
        line.trim_end().to_owned()
    }

    /// A signal to its whole group, itself and its pool.
    pub(crate) fn signal_group(&self, signal: i32) {
        let group = nix::unistd::Pid::from_raw(self.pid() as i32);
        let signal = nix::sys::signal::Signal::try_from(signal).expect("a signal");
        nix::sys::signal::killpg(group, signal).expect("the group is there");
    }

    /// Kills it, and it alone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it is ours");
        self.child.wait().expect("it is ours");
    }

    /// What it says until it ends. It must end well, and leave nobody of its group behind.
    pub(crate) fn end(mut self) -> String {
        let mut text = String::new();
        self.lines.read_to_string(&mut text).expect("it says text");
        let status = self.child.wait().expect("it is ours");
        assert!(status.success(), "it ended with {status}, and said {text:?}");
        text.trim_end().to_owned()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A host from its start to its end: what it said.
pub(crate) fn say(arguments: &[&str]) -> String {
    Host::start(arguments).end()
}

/// Those of these processes that still run.
pub(crate) fn running(pids: &str) -> Vec<u32> {
    let pids = pids.split_whitespace().filter_map(|pid| pid.parse().ok());
    pids.filter(|pid| runs(*pid)).collect()
}

/// Whether this test may become another user; says so if it may not.
pub(crate) fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("skipped: this needs root");
    }
    root
}
