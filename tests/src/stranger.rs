//! A process that starts a program as a pool would, and is not its pool.

#![expect(unsafe_code, reason = "a child changes its user between fork and exec")]

use std::{
    io::{IoSlice, IoSliceMut},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        memfd::{MFdFlags, memfd_create},
        socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, socketpair},
    },
};
use std::os::fd::AsFd;

/// What the program did.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen {
    /// It answered.
    Served,
    /// It ended with this code.
    Ended(Option<i32>),
    /// Nothing for a while.
    Nothing,
}

/// Starts the command with the marker and a socket on descriptor 0, says what a pool says first, and waits for an answer.
/// The command's process has this user; with user 0 the socket is made by somebody else.
///
/// # Panics
/// If the test cannot be made.
pub fn greet(command: &mut Command, user: Option<u32>) -> Seen {
    let (ours, theirs) = match user {
        Some(0) => of_nobody(),
        _ => pair(),
    };
    let bytes: Vec<u8> = [1u64, 7, 4096, 8, 4096, 1, 0, 0]
        .into_iter()
        .flat_map(u64::to_le_bytes)
        .chain([0; 300])
        .collect();
    let memory: Vec<OwnedFd> = (0..2)
        .map(|_| {
            memfd_create(c"stranger", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING).expect("memory")
        })
        .collect();
    let numbers: Vec<i32> = memory.iter().map(AsRawFd::as_raw_fd).collect();
    sendmsg::<()>(
        ours.as_raw_fd(),
        &[IoSlice::new(&bytes)],
        &[ControlMessage::ScmRights(&numbers)],
        MsgFlags::empty(),
        None,
    )
    .expect("there is room");
    let parent = std::process::id().to_string();
    command
        .env("SWATHE_ZYGOTE", parent)
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null());
    if let Some(user) = user.filter(|user| *user != 0) {
        command.uid(user).gid(user);
    }
    let mut child = command.spawn().expect("it starts");
    let start = Instant::now();
    let mut seen = Seen::Nothing;
    while seen == Seen::Nothing && start.elapsed() < Duration::from_secs(20) {
        let mut fds = [PollFd::new(ours.as_fd(), PollFlags::POLLIN)];
        let ready = poll(&mut fds, PollTimeout::from(20u8)).unwrap_or(0) > 0;
        let mut buffer = [0; 4096];
        let mut parts = [IoSliceMut::new(&mut buffer)];
        if ready
            && recvmsg::<()>(ours.as_raw_fd(), &mut parts, None, MsgFlags::MSG_DONTWAIT)
                .is_ok_and(|m| m.bytes > 0)
        {
            seen = Seen::Served;
        } else if let Ok(Some(status)) = child.try_wait() {
            seen = Seen::Ended(status.code());
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    seen
}

fn pair() -> (OwnedFd, OwnedFd) {
    let flags = SockFlag::SOCK_CLOEXEC;
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).expect("a pair")
}

/// A pair that another user has made, who is otherwise this very process: its effective user is another for a moment.
fn of_nobody() -> (OwnedFd, OwnedFd) {
    let change = |user: u32| {
        // SAFETY: a plain system call, for this thread alone (the C library's would change all of them).
        unsafe { libc::syscall(libc::SYS_setresuid, -1i32, user, -1i32) };
    };
    change(65534);
    let pair = pair();
    change(0);
    pair
}
