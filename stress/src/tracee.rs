//! Single-stepping another process (ptrace), to kill it at an instruction of one's choice.
//!
//! The tracer need not be the parent: workers are grandchildren of the process that steps them. All calls about one
//! tracee must come from the thread that attached to it; the kernel insists.

use std::{
    io,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    libc,
    sched::{CpuSet, sched_getcpu, sched_setaffinity},
    sys::{
        ptrace::{self, AddressType, Options},
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{self, Pid},
};

/// How long between two looks at another process.
pub const LOOK: Duration = Duration::from_micros(50);
/// How long a tracee may run without coming to where it is expected.
const PATIENCE: Duration = Duration::from_millis(300);
/// How many system calls it may make on its way to a marker.
const MOST_CALLS: usize = 10_000;
/// The call that [`marker`] makes.
const MARKER: u64 = libc::SYS_getppid as u64;

/// A process that stands still between two instructions. Dropped, it runs on by itself.
#[derive(Debug)]
pub struct Tracee {
    pid: Pid,
    gone: bool,
}

/// Where a tracee stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Address of the next instruction.
    pub pc: u64,
    /// What the next instruction asks the kernel for, if it is a system call.
    pub call: Call,
}

/// The system calls that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// The next instruction is none.
    None,
    /// A [`marker`].
    Marker,
    /// Sleeping on a futex.
    FutexWait,
    /// Another.
    Other,
}

/// What became of a tracee that was let go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Went {
    /// It stands where it was wanted.
    There,
    /// It did not come there, and stands elsewhere.
    Elsewhere,
    /// It is gone.
    Ended,
}

/// Tasks call this where a tracer is to take over: a system call that changes nothing.
pub fn marker() {
    let _ = unistd::getppid();
}

/// Whether processes may be single-stepped here.
///
/// # Errors
/// Why not, in words.
pub fn permitted() -> Result<(), String> {
    if cfg!(not(target_arch = "x86_64")) {
        return Err("single-stepping is written for x86-64 only".to_owned());
    }
    let mut child = Command::new("sleep")
        .arg("60")
        .spawn()
        .map_err(|error| format!("no process to try it on could be started: {error}"))?;
    let tried = Tracee::attach(child.id()).and_then(|mut tracee| tracee.step());
    let _ = child.kill();
    let _ = child.wait();
    tried.map(drop).map_err(|error| {
        let scope = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope");
        let yama = scope.map_or(String::new(), |scope| {
            format!(
                " (kernel.yama.ptrace_scope is {}; 0 or 1 is needed)",
                scope.trim()
            )
        });
        format!("this machine does not permit tracing a process of one's own: {error}{yama}")
    })
}

/// Keeps the calling thread on the core where it is: tracer and tracee take turns, and a turn within one core costs half
/// as much.
pub fn stay_on_this_core() {
    let mut cores = CpuSet::new();
    if sched_getcpu().is_ok_and(|core| cores.set(core).is_ok()) {
        let _ = sched_setaffinity(Pid::from_raw(0), &cores);
    }
}

/// Whether a process sleeps on a futex.
pub fn sleeps_on_futex(pid: u32) -> bool {
    let line = std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    line.split_whitespace().next() == Some(FUTEX.as_str())
}

static FUTEX: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| libc::SYS_futex.to_string());

impl Tracee {
    /// Attaches to a process and stops it, wherever it is. One that sleeps in a system call goes on sleeping, or sees
    /// what it was waiting for, when it is stepped. It comes to the core of the calling thread.
    ///
    /// # Errors
    /// If the kernel does not permit it, or the process is gone.
    pub fn attach(pid: u32) -> io::Result<Self> {
        let pid = Pid::from_raw(pid as i32);
        ptrace::seize(pid, Options::PTRACE_O_TRACESYSGOOD)?;
        let mut tracee = Self { pid, gone: false };
        tracee.interrupt()?;
        if tracee.gone {
            return Err(Errno::ESRCH.into());
        }
        let mut cores = CpuSet::new();
        if sched_getcpu().is_ok_and(|core| cores.set(core).is_ok()) {
            let _ = sched_setaffinity(pid, &cores);
        }
        Ok(tracee)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw() as u32
    }

    fn interrupt(&mut self) -> io::Result<()> {
        ptrace::interrupt(self.pid)?;
        self.wait()?;
        Ok(())
    }

    fn wait(&mut self) -> io::Result<WaitStatus> {
        let status = waitpid(self.pid, Some(WaitPidFlag::__WALL))?;
        self.gone = matches!(status, WaitStatus::Exited(..) | WaitStatus::Signaled(..));
        Ok(status)
    }

    /// Executes one instruction; a system call counts as one, and may sleep.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn step(&mut self) -> io::Result<Went> {
        let mut signal = None;
        loop {
            ptrace::step(self.pid, signal)?;
            match self.wait()? {
                _ if self.gone => return Ok(Went::Ended),
                WaitStatus::Stopped(_, Signal::SIGTRAP) => return Ok(Went::There),
                WaitStatus::Stopped(_, other) => signal = Some(other),
                _ => {}
            }
        }
    }

    /// Executes one instruction, and all of its repetitions.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn step_past(&mut self) -> io::Result<Went> {
        let pc = self.pc()?;
        loop {
            if self.step()? == Went::Ended {
                return Ok(Went::Ended);
            }
            if self.pc()? != pc {
                return Ok(Went::There);
            }
        }
    }

    /// Lets it run to its next [`marker`].
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn run_to_marker(&mut self) -> io::Result<Went> {
        let mut signal = None;
        for _ in 0..MOST_CALLS {
            ptrace::syscall(self.pid, signal.take())?;
            match self.wait()? {
                _ if self.gone => return Ok(Went::Ended),
                WaitStatus::PtraceSyscall(_) if self.asks_for()? == MARKER => return Ok(Went::There),
                WaitStatus::Stopped(_, other) => signal = Some(other),
                _ => {}
            }
        }
        Ok(Went::Elsewhere)
    }

    /// Lets it run, until it sleeps on a futex.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn fall_asleep(&mut self) -> io::Result<Went> {
        ptrace::cont(self.pid, None)?;
        let start = Instant::now();
        while !sleeps_on_futex(self.pid()) {
            if start.elapsed() > PATIENCE {
                return Ok(Went::Elsewhere);
            }
            thread::sleep(LOOK);
        }
        Ok(Went::There)
    }

    /// Kills it where it stands, and returns when it is gone.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn kill(mut self) -> io::Result<()> {
        kill(self.pid, Signal::SIGKILL)?;
        while !self.gone {
            match self.wait() {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::ECHILD) => self.gone = true,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(target_arch = "x86_64")]
impl Tracee {
    /// Where it stands.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn place(&self) -> io::Result<Place> {
        const SYSCALL: i64 = 0x050f;
        const FUTEX: u64 = libc::SYS_futex as u64;
        let registers = ptrace::getregs(self.pid)?;
        let code = ptrace::read(self.pid, registers.rip as AddressType)?;
        // Of a futex call without its flags (private, clock), 0 and 9 wait.
        let call = match (code & 0xffff == SYSCALL, registers.rax, registers.rsi & 0x7f) {
            (false, ..) => Call::None,
            (true, MARKER, _) => Call::Marker,
            (true, FUTEX, 0 | 9) => Call::FutexWait,
            (true, ..) => Call::Other,
        };
        Ok(Place {
            pc: registers.rip,
            call,
        })
    }

    fn pc(&self) -> io::Result<u64> {
        Ok(ptrace::getregs(self.pid)?.rip)
    }

    /// The system call that it is in.
    fn asks_for(&self) -> io::Result<u64> {
        Ok(ptrace::getregs(self.pid)?.orig_rax)
    }

    /// Lets it run until it is about to execute the instruction at `pc` for the `nth` time, counted from 1.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn run_to(&mut self, pc: u64, nth: u32) -> io::Result<Went> {
        const BREAKPOINT: i64 = 0xcc;
        let at = pc as AddressType;
        let code = ptrace::read(self.pid, at)?;
        for pass in 1..=nth {
            ptrace::write(self.pid, at, code & !0xff | BREAKPOINT)?;
            let went = self.run_to_breakpoint(pc)?;
            if went == Went::Ended {
                return Ok(went);
            }
            ptrace::write(self.pid, at, code)?;
            if went == Went::Elsewhere || (pass < nth && self.step_past()? == Went::Ended) {
                return Ok(went);
            }
        }
        Ok(Went::There)
    }

    fn run_to_breakpoint(&mut self, pc: u64) -> io::Result<Went> {
        ptrace::cont(self.pid, None)?;
        let start = Instant::now();
        while waitpid(self.pid, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG))? == WaitStatus::StillAlive {
            if start.elapsed() > PATIENCE {
                self.interrupt()?;
                break;
            }
            thread::yield_now();
        }
        let Ok(mut registers) = ptrace::getregs(self.pid) else {
            self.gone = true;
            return Ok(Went::Ended);
        };
        if registers.rip != pc + 1 {
            return Ok(Went::Elsewhere);
        }
        registers.rip = pc;
        ptrace::setregs(self.pid, registers)?;
        Ok(Went::There)
    }
}

/// Elsewhere nothing is stepped: `permitted` says so.
#[cfg(not(target_arch = "x86_64"))]
#[expect(missing_docs, reason = "as above")]
impl Tracee {
    pub fn place(&self) -> io::Result<Place> {
        Err(Errno::ENOSYS.into())
    }

    fn pc(&self) -> io::Result<u64> {
        Err(Errno::ENOSYS.into())
    }

    fn asks_for(&self) -> io::Result<u64> {
        Err(Errno::ENOSYS.into())
    }

    pub fn run_to(&mut self, _: u64, _: u32) -> io::Result<Went> {
        Err(Errno::ENOSYS.into())
    }
}

impl Drop for Tracee {
    fn drop(&mut self) {
        if !self.gone {
            let _ = ptrace::detach(self.pid, None);
        }
    }
}

/// Kills a process that nobody traces; whoever is its parent reaps it.
pub fn kill_untraced(pid: u32) {
    let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
}

/// Where a process's executable is mapped: addresses minus this are what `addr2line` wants.
pub fn image_base(pid: u32) -> u64 {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let base = maps.split('-').next().unwrap_or_default();
    u64::from_str_radix(base, 16).unwrap_or(0)
}
