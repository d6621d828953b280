//! Starting, naming, watching and ending processes.
//!
//! A user's process is never forked: it spawns its own executable anew ([`crate::spawn`]). Forking is for a process with
//! one thread, and [`fork`] checks that.

use std::{
    ffi::CString,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
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

use crate::{
    descriptors::{Descriptor, above_standard},
    kernel_files,
    signals::Mask,
};

/// Removes a variable from the environment of this process, which must have one thread.
pub fn remove_variable(name: &str) {
    if thread_count() != Some(1) {
        return;
    }
    // SAFETY: there is no other thread that could read or write the environment.
    unsafe { std::env::remove_var(name) };
}

/// Without listing them, which takes a descriptor, and there may be none: the directory of a process's threads has a link
/// for each, and two of its own.
fn thread_count() -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self/task").ok()?.nlink().checked_sub(2)
}

/// The names of the threads of this process, the main one first. Empty if the kernel does not tell.
pub fn thread_names() -> Vec<String> {
    let tasks = kernel_files::names("/proc/self/task");
    let mut tasks: Vec<(u32, String)> = tasks
        .iter()
        .filter_map(|task| {
            let name = kernel_files::text(format!("/proc/self/task/{task}/comm")).ok()?;
            Some((task.parse().ok()?, name.trim_end().to_owned()))
        })
        .collect();
    tasks.sort_unstable();
    tasks.into_iter().map(|(_, name)| name).collect()
}

/// Whether this process has one thread, and may be forked.
///
/// Some libraries end their threads when their process is forked (OpenBLAS does, in a handler of `pthread_atfork`). So if
/// there are others, a child is forked that ends at once, and the threads are counted again.
pub fn has_one_thread() -> bool {
    if thread_count() == Some(1) {
        return true;
    }
    // SAFETY: the child calls nothing but `_exit`, which is allowed with any number of threads.
    let child = unsafe { libc::fork() };
    match child {
        -1 => return false,
        // SAFETY: ends the child without running anything of the program's.
        0 => unsafe { libc::_exit(0) },
        _ => {}
    }
    while reap(child as u32).is_none() {
        std::thread::sleep(Duration::from_micros(200));
    }
    // A thread that ends is in the list for a moment.
    (0..20).any(|_| {
        let alone = thread_count() == Some(1);
        if !alone {
            std::thread::sleep(Duration::from_micros(500));
        }
        alone
    })
}

/// Whether this process may do more than whoever started it: it is set-uid or set-gid, or its file has capabilities
/// (AT_SECURE), or its user or group is not its real one.
pub fn has_raised_privileges() -> bool {
    use rustix::process::{getegid, geteuid, getgid, getuid};
    // SAFETY: only reads the auxiliary vector.
    let secure = unsafe { libc::getauxval(libc::AT_SECURE) } != 0;
    secure || geteuid() != getuid() || getegid() != getgid()
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
///
/// # Safety
/// Both processes go on with every value that there is, and some stand for something that is there once only: a descriptor
/// without close-on-exec, a lock, and above all memory that both map. One of the two, usually the child, must not use what
/// is the other's: of memory that both map it may write none that the other refers to, nor refer to any that the other writes.
///
/// # Errors
/// `EAGAIN` or `ENOMEM` when there is no room for another process; or that there are several threads.
pub unsafe fn fork() -> io::Result<Forked> {
    if thread_count() != Some(1) {
        return Err(io::Error::other(
            "a process with several threads must not be forked",
        ));
    }
    // SAFETY: with a single thread no lock can be held by a thread that the child lacks; what both share the caller keeps
    // apart.
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

/// The effective user and group of this process.
pub fn user_and_group() -> (u32, u32) {
    use rustix::process::{getegid, geteuid};
    (geteuid().as_raw(), getegid().as_raw())
}

/// Kills a child that was not reaped, so that its id is still its own.
pub fn kill_child(pid: u32) {
    signal_child(pid, Signal::KILL);
}

/// Asks such a child to end (SIGTERM).
pub fn terminate_child(pid: u32) {
    signal_child(pid, Signal::TERM);
}

fn signal_child(pid: u32, signal: Signal) {
    // A negative number would mean a group of processes, or all that there are.
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Names this process in `ps` and `top` (15 bytes count).
pub fn set_name(name: &str) {
    if let Ok(name) = CString::new(name) {
        let _ = rustix::thread::set_name(&name);
    }
}

/// From now on this process gets no private memory (heap, threads' stacks, private mappings) beyond so many bytes:
/// allocations fail. Nor does its main stack grow beyond that: then it is ended by SIGSEGV. Shared segments do not count.
/// (RLIMIT_DATA, which counts private writable mappings since Linux 4.7, and RLIMIT_STACK.)
pub fn limit_private_memory(bytes: u64) -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    // The main thread's stack is no private mapping to the kernel: it has a limit of its own, asked whenever it grows.
    for resource in [Resource::Data, Resource::Stack] {
        let before = getrlimit(resource);
        let less = |limit: Option<u64>| Some(limit.map_or(bytes, |limit| limit.min(bytes)));
        setrlimit(
            resource,
            Rlimit {
                current: less(before.current),
                maximum: less(before.maximum),
            },
        )?;
    }
    Ok(())
}

/// Bytes of private memory that are resident in this process. `None`: the kernel does not say.
pub fn private_memory() -> Option<u64> {
    // Size, resident and shared, in pages.
    let statm = kernel_files::text("/proc/self/statm").ok()?;
    let mut pages = statm
        .split_ascii_whitespace()
        .skip(1)
        .map_while(|n| n.parse::<u64>().ok());
    let (resident, shared) = (pages.next()?, pages.next()?);
    Some(resident.saturating_sub(shared) * rustix::param::page_size() as u64)
}

/// A handle to a process that stays right after its id was given away again.
#[derive(Debug)]
pub struct Pidfd(Descriptor);

impl Pidfd {
    /// Opens a handle. Without a race only for a child that was not reaped, or for the parent.
    pub fn open(pid: u32) -> io::Result<Self> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("no such process id"))?;
        let open = || rustix::process::pidfd_open(pid, PidfdFlags::empty());
        Ok(Self(above_standard(open)?.into()))
    }

    /// Kills the process. `false` if this one may not, or a filter of system calls does not let it; one that is gone
    /// already is no error.
    pub fn kill(&self) -> bool {
        let sent = rustix::process::pidfd_send_signal(&self.0, Signal::KILL);
        matches!(sent, Ok(()) | Err(rustix::io::Errno::SRCH))
    }

    /// Reaps the process if it is a child of this one and has ended.
    pub fn reap(&self) {
        use rustix::process::{WaitId, WaitIdOptions, waitid};
        let _ = waitid(
            WaitId::PidFd(self.as_fd()),
            WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
        );
    }

    /// Whether the process has ended.
    pub fn is_gone(&self) -> bool {
        self.wait_gone(Duration::ZERO)
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

impl From<Descriptor> for Pidfd {
    fn from(fd: Descriptor) -> Self {
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

/// As [`poll`], with only `blocked` blocked meanwhile: a signal that is not ends the wait, and no flag is set then. No
/// signal is lost that comes before the wait.
pub fn poll_or_signal(
    fds: &[BorrowedFd<'_>],
    timeout: Option<Duration>,
    blocked: Mask,
) -> io::Result<Vec<bool>> {
    let mut polled: Vec<_> = fds
        .iter()
        .map(|fd| libc::pollfd {
            fd: fd.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        })
        .collect();
    let timeout = timeout.map(|t| libc::timespec {
        tv_sec: t.as_secs().min(1 << 30) as i64,
        tv_nsec: i64::from(t.subsec_nanos()),
    });
    let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: list, time and set are live until the call returns.
    let ready = unsafe {
        libc::ppoll(
            polled.as_mut_ptr(),
            polled.len() as u64,
            timeout,
            blocked.as_raw(),
        )
    };
    match ready {
        -1 => match io::Error::last_os_error() {
            e if e.kind() == io::ErrorKind::Interrupted => Ok(vec![false; fds.len()]),
            e => Err(e),
        },
        _ => Ok(polled.iter().map(|polled| polled.revents != 0).collect()),
    }
}

/// Several descriptors that are waited for again and again: the kernel keeps the list, of any length.
#[derive(Debug)]
pub struct Watch(Descriptor);

impl Watch {
    /// An empty one.
    ///
    /// # Errors
    /// If no descriptor is left.
    pub fn new() -> io::Result<Self> {
        use rustix::event::epoll::{CreateFlags, create};
        Ok(Self(above_standard(|| create(CreateFlags::CLOEXEC))?.into()))
    }

    /// From now on waits for this one too, until it is closed; `mark` is what [`Watch::wait`] says of it.
    ///
    /// # Errors
    /// What the kernel says, for want of memory.
    pub fn add(&self, fd: impl AsFd, mark: u64) -> io::Result<()> {
        use rustix::event::epoll::{EventData, EventFlags, add};
        Ok(add(&self.0, fd, EventData::new_u64(mark), EventFlags::IN)?)
    }

    /// No longer waits for this one.
    pub fn remove(&self, fd: impl AsFd) {
        let _ = rustix::event::epoll::delete(&self.0, fd);
    }

    /// Waits until something can be read (or has hung up), or the time is over. Gives the marks of what is ready, of some of
    /// them if there are very many.
    ///
    /// # Errors
    /// If the descriptor was closed behind our back.
    pub fn wait(&self, timeout: Option<Duration>) -> io::Result<Vec<u64>> {
        use rustix::event::epoll::{Event, EventData, EventFlags, wait};
        let none = Event {
            flags: EventFlags::empty(),
            data: EventData::new_u64(0),
        };
        let mut events = [none; 64];
        let long = timeout.map(|t| Timespec {
            tv_sec: t.as_secs().min(1 << 30) as i64,
            tv_nsec: i64::from(t.subsec_nanos()),
        });
        let ready = match self.wait_exactly(&mut events, long.as_ref()) {
            // A filter that does not know it: milliseconds will do.
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
                wait(&self.0, &mut events[..], long.as_ref()).map_err(io::Error::from)
            }
            other => other,
        };
        match ready {
            Ok(ready) => Ok(events[..ready].iter().map(|event| event.data.u64()).collect()),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(Vec::new()),
            Err(e) => Err(e),
        }
    }

    /// `epoll_pwait2`, which counts nanoseconds (`epoll_wait`: milliseconds).
    fn wait_exactly(
        &self,
        events: &mut [rustix::event::epoll::Event; 64],
        timeout: Option<&Timespec>,
    ) -> io::Result<usize> {
        let timeout = timeout.map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: the descriptor is open; the kernel writes at most as many events as there is room for, of the layout that
        // rustix gives them, and reads the timeout, two words of 64 bits; no signal mask is given.
        let ready = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.0.as_fd().as_raw_fd(),
                events.as_mut_ptr(),
                events.len() as libc::c_int,
                timeout,
                std::ptr::null::<libc::sigset_t>(),
                0usize,
            )
        };
        usize::try_from(ready).map_err(|_| io::Error::last_os_error())
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
#[non_exhaustive]
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

/// A child that has ended and was reaped just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reaped {
    /// Its process id.
    pub pid: u32,
    /// How it ended.
    pub exit: Exit,
}

/// Reaps a child if it has ended.
pub fn reap(pid: u32) -> Option<Exit> {
    let pid = i32::try_from(pid).ok().filter(|pid| *pid > 0)?;
    reap_any(pid).ok().flatten().map(|reaped| reaped.exit)
}

/// Reaps one of all children, if any has ended.
///
/// # Errors
/// If there are no children at all.
pub fn reap_one() -> io::Result<Option<Reaped>> {
    reap_any(-1)
}

fn reap_any(pid: i32) -> io::Result<Option<Reaped>> {
    let mut status = 0;
    // SAFETY: all zero is a valid rusage; the kernel overwrites it.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live variables of the right types.
    let reaped = unsafe { libc::wait4(pid, &raw mut status, libc::WNOHANG, &raw mut usage) };
    match reaped {
        -1 => return Err(io::Error::last_os_error()),
        0 => return Ok(None),
        _ => {}
    }
    let cause = if libc::WIFSIGNALED(status) {
        ExitCause::Signal(libc::WTERMSIG(status))
    } else {
        ExitCause::Code(libc::WEXITSTATUS(status))
    };
    Ok(Some(Reaped {
        pid: reaped as u32,
        exit: Exit {
            cause,
            peak_kib: usage.ru_maxrss.max(0) as u64,
        },
    }))
}

/// Whether orphans of this process's descendants become its children: it is PID 1, or a subreaper.
pub fn adopts_orphans() -> bool {
    let mut on: libc::c_int = 0;
    // SAFETY: the kernel writes one int to a live variable.
    let asked = unsafe { libc::prctl(libc::PR_GET_CHILD_SUBREAPER, &raw mut on) };
    std::process::id() == 1 || (asked == 0 && on != 0)
}

/// Reaps those children that have ended and whose name says that they were a pool's.
pub fn reap_named(is_ours: impl Fn(&str) -> bool) {
    if !proc_is_ours() {
        return;
    }
    let tasks = kernel_files::names("/proc/self/task");
    let children = tasks
        .iter()
        .filter_map(|task| kernel_files::text(format!("/proc/self/task/{task}/children")).ok());
    for pids in children {
        for pid in pids
            .split_ascii_whitespace()
            .filter_map(|pid| pid.parse::<u32>().ok())
        {
            let name = kernel_files::text(format!("/proc/{pid}/comm")).unwrap_or_default();
            if is_ours(name.trim_end()) && is_zombie(pid) {
                let _ = reap(pid);
            }
        }
    }
}

/// Whether `/proc` counts processes as this one does: in a namespace of its own a process may see another's `/proc`.
fn proc_is_ours() -> bool {
    let own = std::fs::read_link("/proc/self");
    own.is_ok_and(|own| own.to_str() == Some(&std::process::id().to_string()))
}

/// Whether a process has ended and was not reaped.
fn is_zombie(pid: u32) -> bool {
    if !proc_is_ours() {
        return false;
    }
    let stat = kernel_files::text(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name may contain anything, also brackets and spaces.
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| rest.trim_start().starts_with('Z'))
}

/// Whether there is a process with this id that has not ended.
pub fn is_running(pid: u32) -> bool {
    exists(pid) && !is_zombie(pid)
}

/// Whether a process has a memory file of this name mapped. `None` if it may not be asked.
pub fn maps_memory_file(pid: u32, name: &str) -> Option<bool> {
    if !proc_is_ours() {
        return None;
    }
    let maps = kernel_files::text(format!("/proc/{pid}/maps")).ok()?;
    let file = format!("/memfd:{name} ");
    // A process that is ending has no maps any more.
    (!maps.is_empty()).then(|| maps.lines().any(|line| line.contains(&file)))
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
pub struct Event(Descriptor);

impl Event {
    /// Makes one.
    pub fn new() -> io::Result<Self> {
        use rustix::event::{EventfdFlags, eventfd};
        let make = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        Ok(Self(above_standard(make)?.into()))
    }

    /// Raises it. A host may have closed it, and have a file of its own under its number: nothing is written to that.
    pub fn raise(&self) {
        if self.0.is_ours() {
            let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
        }
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

/// Processor time that this thread has had, in user and kernel mode.
pub fn thread_time() -> Duration {
    let had = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(had.tv_sec as u64, had.tv_nsec as u32)
}

/// Starts a thread of ours inside somebody's program. It blocks all signals: which of a program's threads get which
/// signals is the program's own affair, and it does not know of this one.
pub fn spawn_thread<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<std::thread::JoinHandle<T>> {
    use nix::sys::signal::{SigSet, SigmaskHow};
    // Blocked here, so that there is no moment at which the new thread, which inherits the mask, could get one.
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(body);
    before.thread_set_mask()?;
    thread
}
