//! Ctrl-C at a terminal: the whole foreground group hears it, and the program goes at once, without a word.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    os::{fd::OwnedFd, unix::process::CommandExt, unix::process::ExitStatusExt},
    process::{Child, Command, Stdio},
};

use nix::{
    pty::openpty,
    sys::{
        signal::{SigHandler, Signal, signal},
        termios::{LocalFlags, SetArg, tcgetattr, tcsetattr},
    },
};
use swathe_tests::{runs, until, watch};

/// A program at a terminal of its own.
struct Session {
    program: Child,
    keys: File,
    screen: BufReader<File>,
    /// Its pool's processes.
    pids: Vec<u32>,
}

impl Session {
    #[expect(unsafe_code, reason = "the program gets a terminal before it starts")]
    fn start(what: &str) -> Self {
        let pty = openpty(None, None).expect("there are terminals");
        let mut modes = tcgetattr(&pty.slave).expect("it is a terminal");
        modes.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(&pty.slave, SetArg::TCSANOW, &modes).expect("it is a terminal");
        let stdio = |fd: &OwnedFd| Stdio::from(fd.try_clone().expect("a descriptor can be had"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_parent"));
        command
            .arg(what)
            .stdin(stdio(&pty.slave))
            .stdout(stdio(&pty.slave))
            .stderr(stdio(&pty.slave));
        let take_terminal = || {
            nix::unistd::setsid()?;
            // Tests that run in the background of a shell have inherited that Ctrl-C is ignored.
            // SAFETY: the default action is no handler: no code of ours runs when the signal comes.
            unsafe { signal(Signal::SIGINT, SigHandler::SigDfl) }?;
            // SAFETY: the call reads no memory; descriptor 0 is the terminal.
            match unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) } {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        };
        // SAFETY: both are plain system calls, which may be made between fork and exec.
        unsafe { command.pre_exec(take_terminal) };
        let program = command.spawn().expect("it starts");
        // The program alone holds its terminal now: it ends when the program has.
        drop((command, pty.slave));
        let keys = File::from(pty.master);
        let mut screen = BufReader::new(keys.try_clone().expect("a descriptor can be had"));
        let pids = line(&mut screen)
            .split_whitespace()
            .map(|pid| pid.parse().expect("a number"))
            .collect();
        Self {
            program,
            keys,
            screen,
            pids,
        }
    }

    fn press_ctrl_c(&mut self) {
        self.keys.write_all(b"\x03").expect("the terminal is there");
    }

    /// Everything that it still says; a terminal that nobody holds any more ends with an error.
    fn rest(&mut self) -> String {
        let mut text = Vec::new();
        let _ = self.screen.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    }
}

fn line(screen: &mut impl BufRead) -> String {
    let mut line = String::new();
    screen.read_line(&mut line).expect("it says something");
    line
}

#[test]
fn ctrl_c_ends_a_program_by_sigint_and_all_its_workers() {
    for what in ["waits", "computes", "idles", "streams", "recycles"] {
        let _watch = watch();
        let mut session = Session::start(what);
        assert!(
            session.pids.len() == 3 && session.pids.iter().all(|pid| runs(*pid)),
            "{:?}",
            session.pids
        );
        session.press_ctrl_c();
        let status = session.program.wait().expect("it ends");
        assert_eq!(status.signal(), Some(libc::SIGINT), "{what}: {status}");
        until("its workers are gone", || {
            session.pids.iter().all(|pid| !runs(*pid))
        });
        // The last process of the session has let go of the terminal.
        let said = session.rest();
        assert!(said.lines().count() <= 1, "{what}: {said}");
    }
}

/// Whether to end is the program's to decide: workers leave the signal to it.
#[test]
fn a_program_that_ignores_ctrl_c_keeps_its_workers() {
    let _watch = watch();
    let mut session = Session::start("ignores");
    assert_eq!(line(&mut session.screen).trim_end(), "ready");
    session.press_ctrl_c();
    let said = session.rest();
    assert!(session.program.wait().expect("it ends").success());
    assert_eq!(said.trim_end(), "4950 true");
    assert!(session.pids.iter().all(|pid| !runs(*pid)));
}

/// Unlike the workers, what a task has started is interrupted.
#[test]
fn ctrl_c_ends_what_tasks_have_started() {
    let _watch = watch();
    let mut session = Session::start("children");
    let children = [(); 2].map(|()| line(&mut session.screen));
    let children = children.map(|pid| pid.trim_end().parse().expect("a number"));
    assert!(children.iter().all(|pid| runs(*pid)));
    session.press_ctrl_c();
    let status = session.program.wait().expect("it ends");
    assert_eq!(status.signal(), Some(libc::SIGINT), "{status}");
    until("nobody is left", || {
        session.pids.iter().chain(&children).all(|pid| !runs(*pid))
    });
}
