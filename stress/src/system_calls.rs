//! How many system calls a job makes on a warm pool: counted, not timed, so that a hot path which begins to ask the kernel
//! is noticed on any machine.
//!
//! A program of its own runs the jobs, with a marker (a system call that changes nothing) between any two of them. Its
//! threads and its workers are traced (ptrace); each call of each of them is counted for the job during which it was made.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs, io,
    process::{Child, Command, ExitCode, Stdio},
};

use nix::{
    errno::Errno,
    libc,
    sys::{
        ptrace::{self, Options},
        signal::Signal,
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use swathe::{Array, Pool};

use crate::tracee::marker;

/// Says to a program of this package that it is the one to be counted.
const ROLE: &str = "SWATHE_COUNT_SYSTEM_CALLS";
/// Workers.
pub const WORKERS: usize = 2;
/// Jobs of each kind.
const JOBS: usize = 300;
/// What is counted, in this order.
pub const KINDS: [&str; 4] = [
    "one call",
    "map of 1000",
    "map of 10^5 in chunks of one",
    "map of 10^6",
];

/// The calls of the jobs of one kind.
#[derive(Clone, Debug)]
pub struct Counts {
    /// One of [`KINDS`].
    pub kind: &'static str,
    /// Of each job, ascending: those of the parent's threads and of its workers.
    pub calls: Vec<u64>,
}

impl Counts {
    /// Of the job that made the fewest.
    pub fn fewest(&self) -> u64 {
        self.calls.first().copied().unwrap_or(0)
    }

    /// Of the job in the middle.
    pub fn median(&self) -> u64 {
        self.calls.get(self.calls.len() / 2).copied().unwrap_or(0)
    }

    /// Of the job that made the most.
    pub fn most(&self) -> u64 {
        self.calls.last().copied().unwrap_or(0)
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:30} {:5} {:8} {:6}   of {} jobs",
            self.kind,
            self.fewest(),
            self.median(),
            self.most(),
            self.calls.len()
        )
    }
}

/// To be called first in `main`, after `swathe::init()`: plays the role of the program that is counted, and ends, if it is
/// that one.
///
/// # Panics
/// If a job fails.
pub fn init() {
    if std::env::var_os(ROLE).is_some() {
        run_jobs().expect("the jobs succeed");
        std::process::exit(0);
    }
}

fn run_jobs() -> swathe::Result<()> {
    let pool = Pool::builder().processes(WORKERS).build()?;
    let square = |x: f64| x * x;
    let (some, many) = (
        Array::from_fn(1000, |i| i as f64)?,
        Array::from_fn(1_000_000, |i| i as f64)?,
    );
    let kinds: [&dyn Fn() -> swathe::Result<()>; KINDS.len()] = [
        &|| pool.apply(square, (3.0,)).map(drop),
        &|| pool.map(square, &some).map(drop),
        &|| pool.batch().chunk_size(1).map(|_: u64| (), 0..100_000).map(drop),
        &|| pool.map(square, &many).map(drop),
    ];
    for run in &kinds {
        (0..20).try_for_each(|_| run())?;
    }
    // Now everybody is there: the tracer, which waits for this, takes over.
    println!("ready");
    let mut line = String::new();
    io::stdin().read_line(&mut line).expect("the tracer answers");
    for run in &kinds {
        run()?;
        for _ in 0..JOBS {
            marker();
            run()?;
        }
        marker();
    }
    Ok(())
}

/// Prints what is counted.
pub fn main() -> ExitCode {
    match count() {
        Ok(counts) => {
            println!(
                "{:30} {:>5} {:>8} {:>6}",
                "system calls of a job", "least", "median", "most"
            );
            counts.iter().for_each(|count| println!("{count}"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("stress: nothing could be counted: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Counts the calls of all kinds of jobs.
///
/// # Errors
/// If the program cannot be started, traced, or understood.
pub fn count() -> io::Result<Vec<Counts>> {
    let mut program = Command::new(std::env::current_exe()?)
        .env(ROLE, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let counted = trace(&mut program);
    let _ = program.kill();
    let _ = program.wait();
    let jobs = counted?;
    let expected = KINDS.len() * (JOBS + 1) - 1;
    if jobs.len() != expected {
        let text = format!("{} markers were passed, not {expected}", jobs.len());
        return Err(io::Error::other(text));
    }
    let of_kind = |(i, kind)| {
        let first = i * (JOBS + 1);
        let mut calls = jobs[first..first + JOBS].to_vec();
        calls.sort_unstable();
        Counts { kind, calls }
    };
    Ok(KINDS.into_iter().enumerate().map(of_kind).collect())
}

/// The calls between each marker and the next.
fn trace(program: &mut Child) -> io::Result<Vec<u64>> {
    use io::{BufRead, Write};
    let main = Pid::from_raw(program.id() as i32);
    let stdout = program.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    io::BufReader::new(stdout).read_line(&mut String::new())?;
    // Its own threads, and its workers; the zygote sleeps.
    let mut threads = threads_of(main)?;
    for worker in descendants(main)? {
        threads.extend(threads_of(worker)?);
    }
    for &thread in &threads {
        ptrace::seize(
            thread,
            Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_EXITKILL,
        )?;
        ptrace::interrupt(thread)?;
    }
    let mut left = threads.clone();
    let mut inside: BTreeMap<Pid, bool> = BTreeMap::new();
    while !left.is_empty() {
        let status = waitpid(None, Some(WaitPidFlag::__WALL))?;
        if let Some(thread) = status.pid() {
            left.remove(&thread);
            resume(thread, None)?;
        }
    }
    if let Some(mut stdin) = program.stdin.take() {
        stdin.write_all(b"go\n")?;
    }
    let (mut calls, mut jobs, mut begun) = (0, Vec::new(), false);
    loop {
        let thread = match waitpid(None, Some(WaitPidFlag::__WALL))? {
            WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..) if pid == main => return Ok(jobs),
            WaitStatus::PtraceSyscall(thread) => thread,
            WaitStatus::Stopped(thread, signal) if signal != Signal::SIGTRAP => {
                resume(thread, Some(signal))?;
                continue;
            }
            WaitStatus::PtraceEvent(thread, ..) | WaitStatus::Stopped(thread, _) => {
                resume(thread, None)?;
                continue;
            }
            _ => continue,
        };
        // A call stops the thread twice: on its way in, and on its way out.
        let within = inside.entry(thread).or_default();
        *within = !*within;
        if *within {
            let is_marker = thread == main && called(thread)? == libc::SYS_getppid as u64;
            if is_marker {
                if std::mem::replace(&mut begun, true) {
                    jobs.push(calls);
                }
                calls = 0;
            } else {
                calls += 1;
            }
        }
        resume(thread, None)?;
    }
}

fn resume(thread: Pid, signal: Option<Signal>) -> io::Result<()> {
    match ptrace::syscall(thread, signal) {
        // It was killed meanwhile.
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(target_arch = "x86_64")]
fn called(thread: Pid) -> io::Result<u64> {
    Ok(ptrace::getregs(thread)?.orig_rax)
}

#[cfg(not(target_arch = "x86_64"))]
fn called(_: Pid) -> io::Result<u64> {
    Err(io::ErrorKind::Unsupported.into())
}

fn threads_of(process: Pid) -> io::Result<BTreeSet<Pid>> {
    let tasks = fs::read_dir(format!("/proc/{process}/task"))?;
    let ids = tasks.filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok());
    Ok(ids.map(Pid::from_raw).collect())
}

fn descendants(process: Pid) -> io::Result<Vec<Pid>> {
    let mut found = Vec::new();
    for thread in threads_of(process)? {
        let children = fs::read_to_string(format!("/proc/{process}/task/{thread}/children"))?;
        for child in children.split_whitespace().filter_map(|pid| pid.parse().ok()) {
            let child = Pid::from_raw(child);
            found.push(child);
            found.extend(descendants(child)?);
        }
    }
    Ok(found)
}
