//! Starting, naming, watching and ending processes.
//!
//! A user's process is never forked: it spawns its own executable anew (`posix_spawn`). Forking is for a process with
//! one thread, and [`fork`] checks that.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::{Child, Command, Stdio},
    sync::{
        Once,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec},
    process::{Pid, PidfdFlags, Signal},
};

/// Spawns the running executable once more: the very file that runs now, even if its path was replaced. `stdin` becomes
/// its descriptor 0, `environment` is added to its environment; output and error are shared.
///
/// No code of this process runs in the child: `Command` without a `pre_exec` hook is `posix_spawn`.
pub fn spawn_self(name: &str, stdin: OwnedFd, environment: &[(String, String)]) -> io::Result<Child> {
    Command::new("/proc/self/exe")
        .arg0(name)
        .envs(environment.iter().map(|(key, value)| (key, value)))
        .stdin(Stdio::from(stdin))
        .spawn()
}

/// Takes descriptor 0 away (it is replaced by `/dev/null`) and closes every other descriptor above 2: what a spawned
/// process inherited by accident must not outlive its owner in there.
pub fn take_stdin_and_close_rest() -> io::Result<OwnedFd> {
    // SAFETY: closes descriptors 3 and up. The caller does this first thing in a process that just started, which owns
    // none of them yet.
    unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, 0u32) };
    // SAFETY: descriptor 0 is open (it carried the marker's socket), and is only borrowed here.
    let stdin = unsafe { BorrowedFd::borrow_raw(0) };
    let taken = rustix::io::fcntl_dupfd_cloexec(stdin, 3)?;
    let null = std::fs::OpenOptions::new().read(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(taken)
}

/// Removes a variable from the environment of this process, which must have one thread.
pub fn remove_variable(name: &str) {
    if thread_count() != Some(1) {
        return;
    }
    // SAFETY: there is no other thread that could read or write the environment.
    unsafe { std::env::remove_var(name) };
}

fn thread_count() -> Option<usize> {
    Some(std::fs::read_dir("/proc/self/task").ok()?.count())
}

/// Which side of a fork this is.
#[derive(Debug)]
pub enum Forked {
    /// The parent, with the child's id.
    Parent(u32),
    /// The child.
    Child,
}

/// Forks this process, which must have exactly one thread; refuses otherwise.
pub fn fork() -> io::Result<Forked> {
    if thread_count() != Some(1) {
        return Err(io::Error::other(
            "a process with several threads must not be forked",
        ));
    }
    // SAFETY: with a single thread no lock can be held by a thread that the child lacks.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Parent { child } => Ok(Forked::Parent(child.as_raw() as u32)),
        nix::unistd::ForkResult::Child => Ok(Forked::Child),
    }
}

/// Arms the parent-death signal (SIGKILL) and makes sure that the parent still is `parent`; `false` if it is gone.
pub fn die_with_parent(parent: u32) -> bool {
    let armed = rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).is_ok();
    armed && rustix::process::getppid().is_some_and(|pid| pid.as_raw_nonzero().get() as u32 == parent)
}

/// The parent's process id, 0 if it is outside this process's namespace.
pub fn parent_pid() -> u32 {
    rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get() as u32)
}

/// Names this process in `ps` and `top` (15 bytes count).
pub fn set_name(name: &str) {
    if let Ok(name) = CString::new(name) {
        let _ = rustix::thread::set_name(&name);
    }
}

/// Ctrl-C at the terminal reaches the whole foreground group; the pool's own processes leave it to the parent.
pub fn ignore_interrupt() {
    use nix::sys::signal::{SigHandler, Signal, signal};
    // SAFETY: ignoring a signal installs no handler, so no code can run in signal context.
    let _ = unsafe { signal(Signal::SIGINT, SigHandler::SigIgn) };
}

/// From now on this process gets no private memory (heap, stacks, private mappings) beyond so many bytes: allocations
/// fail. Shared segments do not count. (RLIMIT_DATA, which counts private writable mappings since Linux 4.7.)
pub fn limit_private_memory(bytes: u64) -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let before = getrlimit(Resource::Data);
    let bytes = before.maximum.map_or(bytes, |maximum| maximum.min(bytes));
    let limit = Rlimit {
        current: Some(bytes),
        maximum: Some(bytes),
    };
    Ok(setrlimit(Resource::Data, limit)?)
}

/// Bytes of private memory that are resident in this process. `None`: the kernel does not say.
pub fn private_memory() -> Option<u64> {
    // Size, resident and shared, in pages.
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let mut pages = statm
        .split_ascii_whitespace()
        .skip(1)
        .map_while(|n| n.parse::<u64>().ok());
    let (resident, shared) = (pages.next()?, pages.next()?);
    Some(resident.saturating_sub(shared) * rustix::param::page_size() as u64)
}

/// A handle to a process that stays right after its id was given away again.
#[derive(Debug)]
pub struct Pidfd(OwnedFd);

impl Pidfd {
    /// Opens a handle. Without a race only for a child that was not reaped, or for the parent.
    pub fn open(pid: u32) -> io::Result<Self> {
        let pid = Pid::from_raw(pid as i32).ok_or_else(|| io::Error::other("no such process id"))?;
        Ok(Self(rustix::process::pidfd_open(pid, PidfdFlags::empty())?))
    }

    /// Sends a signal; a process that is gone already is no error.
    pub fn kill(&self) {
        let _ = rustix::process::pidfd_send_signal(&self.0, Signal::KILL);
    }

    /// Asks the process to end (SIGTERM).
    pub fn terminate(&self) {
        let _ = rustix::process::pidfd_send_signal(&self.0, Signal::TERM);
    }

    /// Stops the process (SIGSTOP), or lets a stopped one go on (SIGCONT).
    pub fn pause(&self, on: bool) {
        let signal = if on { Signal::STOP } else { Signal::CONT };
        let _ = rustix::process::pidfd_send_signal(&self.0, signal);
    }

    /// Waits until the process has ended; `false` if it had not by then.
    pub fn wait_gone(&self, patience: Duration) -> bool {
        poll(&[self.as_fd()], Some(patience)).is_ok_and(|ready| ready[0])
    }
}

impl From<OwnedFd> for Pidfd {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl AsFd for Pidfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Waits until one of the descriptors can be read (or has hung up), or the time is over. Gives a flag for each.
pub fn poll(fds: &[BorrowedFd<'_>], timeout: Option<Duration>) -> io::Result<Vec<bool>> {
    let mut polled: Vec<_> = fds.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    let deadline = timeout.map(|t| Instant::now() + t.min(Duration::from_secs(1 << 30)));
    loop {
        let left = deadline.map(|d| {
            let left = d.saturating_duration_since(Instant::now());
            Timespec {
                tv_sec: left.as_secs() as i64,
                tv_nsec: i64::from(left.subsec_nanos()),
            }
        });
        match rustix::event::poll(&mut polled, left.as_ref()) {
            Ok(_) => return Ok(polled.iter().map(|p| !p.revents().is_empty()).collect()),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Why.
    pub cause: ExitCause,
    /// The most memory it ever had resident, KiB.
    pub peak_kib: u64,
}

/// Why a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitCause {
    /// It called exit with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// Nobody could ask: who would have known is dead as well.
    Unknown,
}

impl std::fmt::Display for ExitCause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(number) => match nix::sys::signal::Signal::try_from(*number) {
                Ok(signal) => write!(f, "was killed by signal {number} ({signal})"),
                Err(_) => write!(f, "was killed by signal {number}"),
            },
            Self::Unknown => f.write_str("died together with the process that watched it"),
        }
    }
}

/// Reaps a child if it has ended.
pub fn reap(pid: u32) -> Option<Exit> {
    let mut status = 0;
    // SAFETY: all zero is a valid rusage; the kernel overwrites it.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live variables of the right types.
    let reaped = unsafe { libc::wait4(pid as i32, &raw mut status, libc::WNOHANG, &raw mut usage) };
    if reaped != pid as i32 {
        return None;
    }
    let cause = if libc::WIFSIGNALED(status) {
        ExitCause::Signal(libc::WTERMSIG(status))
    } else {
        ExitCause::Code(libc::WEXITSTATUS(status))
    };
    Some(Exit {
        cause,
        peak_kib: usage.ru_maxrss.max(0) as u64,
    })
}

/// Whether there is a process with this id: also one that has ended and was not reaped, or that may not be signalled.
pub fn exists(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

/// Flushes what C's standard library has buffered for output.
pub fn flush_c_output() {
    // SAFETY: a null pointer means all streams.
    unsafe { libc::fflush(std::ptr::null_mut()) };
}

/// An event that one thread raises and another polls for.
#[derive(Debug)]
pub struct Event(OwnedFd);

impl Event {
    /// Makes one.
    pub fn new() -> io::Result<Self> {
        use rustix::event::{EventfdFlags, eventfd};
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// Raises it.
    pub fn raise(&self) {
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    /// Lowers it.
    pub fn lower(&self) {
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

static FORKS: AtomicU64 = AtomicU64::new(0);
/// This process's id, 0 while it has not been asked for.
static ID: AtomicU32 = AtomicU32::new(0);

extern "C" fn count_fork() {
    FORKS.fetch_add(1, Ordering::Relaxed);
    ID.store(0, Ordering::Relaxed);
}

/// This process's id: as [`std::process::id`], without a system call.
pub fn id() -> u32 {
    match ID.load(Ordering::Relaxed) {
        0 => {
            // Armed first: the id must be forgotten by whatever child is forked from now on.
            fork_generation();
            let id = std::process::id();
            ID.store(id, Ordering::Relaxed);
            id
        }
        id => id,
    }
}

/// How many forks lie between the first call of this function and this process: a handle that remembers the number
/// knows that it is used in a forked child, without a system call.
pub fn fork_generation() -> u64 {
    static ARMED: Once = Once::new();
    ARMED.call_once(|| {
        // SAFETY: the handler only adds to an atomic, which is allowed in a forked child.
        unsafe { libc::pthread_atfork(None, None, Some(count_fork)) };
    });
    FORKS.load(Ordering::Relaxed)
}

/// Monotonic clock, nanoseconds; the same in all processes of a machine.
pub fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Raises a signal in this process, for tests and fault injection.
pub fn raise(signal: i32) {
    // SAFETY: sending a signal to oneself touches no memory of this program.
    unsafe { libc::raise(signal) };
}

/// The raw number of a descriptor, for messages.
pub fn number(fd: impl AsFd) -> i32 {
    fd.as_fd().as_raw_fd()
}
