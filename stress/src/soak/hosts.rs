//! Programs that do to their processes what launchers, batch systems and careless code do, while they run a soak of their own:
//! nothing of that may show in its results.

use std::{
    env,
    io::Read,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, killpg, sigaction},
    },
    unistd::{ForkResult, Pid, fork},
};
use swathe_os::process;

use super::{Args, Soak, draw::Draw, run};

/// Tells a program that it is such a host: parent, seed, seconds, kills a second.
const ROLE: &str = "SWATHE_SOAK_HOST";
/// Stream of random numbers, of the host and of what is done to it.
const OF_HOSTS: u64 = 5 << 60;
/// How long a host soaks, seconds.
const LENGTH: std::ops::Range<u64> = 2..9;

/// In such a program this runs its soak, prints the counts, and does not return. Call it on the first line of `main`.
pub(super) fn init() {
    let Ok(role) = env::var(ROLE) else { return };
    let words: Vec<u64> = role.split(' ').filter_map(|word| word.parse().ok()).collect();
    let &[parent, seed, seconds, kills] = words.as_slice() else {
        std::process::exit(1);
    };
    if !process::die_with_parent(parent as u32) {
        std::process::exit(1);
    }
    handle_group_signals();
    let over = AtomicBool::new(false);
    let args = Args {
        seconds,
        seed,
        kill_rate: kills as f64,
        only: None,
        json: true,
        patience: 120,
        host: true,
    };
    let summary = thread::scope(|scope| {
        scope.spawn(|| trouble(seed, &over));
        let summary = run(&args);
        over.store(true, Ordering::Relaxed);
        summary
    });
    match summary {
        Ok(summary) => {
            summary
                .complaints
                .iter()
                .for_each(|what| eprintln!("host {seed}: {what}"));
            println!("{}", summary.to_json());
            std::process::exit(0)
        }
        Err(error) => {
            eprintln!("host {seed} could not soak: {error}");
            std::process::exit(1)
        }
    }
}

extern "C" fn nothing(_: i32) {}

#[expect(unsafe_code, reason = "signals are handled by a function that does nothing")]
fn handle_group_signals() {
    let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::SA_RESTART, SigSet::empty());
    for signal in GROUP {
        // SAFETY: the handler does nothing.
        let _ = unsafe { sigaction(signal, &action) };
    }
}

const GROUP: [Signal; 5] = [
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGHUP,
    Signal::SIGTERM,
    Signal::SIGQUIT,
];

/// What the program does to itself.
fn trouble(seed: u64, over: &AtomicBool) {
    let mut draw = Draw::new(seed, OF_HOSTS);
    if draw.percent(30) {
        let _ = nix::unistd::close(0);
    }
    while !over.load(Ordering::Relaxed) {
        thread::sleep(draw.micros(20_000..300_000));
        match draw.within(0..3) {
            0 => fork_for(draw.micros(1000..400_000)),
            1 => run_out_of_files(draw.micros(1000..200_000)),
            _ => drop(Command::new("true").status()),
        }
    }
}

/// A child that holds everything that was open, for a while.
#[expect(unsafe_code, reason = "that is what such hosts do")]
fn fork_for(time: Duration) {
    // SAFETY: the child only sleeps, and ends without running anything of the program's.
    if let Ok(ForkResult::Child) = unsafe { fork() } {
        let time = libc::timespec {
            tv_sec: 0,
            tv_nsec: i64::from(time.subsec_nanos()),
        };
        // SAFETY: as above; the time is a live variable.
        unsafe {
            libc::nanosleep(&raw const time, std::ptr::null_mut());
            libc::_exit(0);
        }
    }
}

/// The limit is below what is open, for a while.
fn run_out_of_files(time: Duration) {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return;
    };
    let _ = setrlimit(Resource::RLIMIT_NOFILE, 1, hard);
    thread::sleep(time);
    let _ = setrlimit(Resource::RLIMIT_NOFILE, soft, hard);
}

impl Soak {
    /// Starts hosts, one after the other, and signals and stops their groups, until the soak is over.
    pub(super) fn run_hosts(&self, kills: f64) {
        let mut draw = Draw::new(self.seed, OF_HOSTS | 1);
        while !self.is_over() {
            let seed = draw.within(0..1 << 40);
            let _entry = self.board.begin(format!("host {seed}"));
            if let Err(error) = self.run_host(seed, kills, &mut draw) {
                self.complain(format!("host {seed}: {error}"));
            }
        }
    }

    fn run_host(&self, seed: u64, kills: f64, draw: &mut Draw) -> std::io::Result<()> {
        let left = self.until.saturating_duration_since(Instant::now()).as_secs();
        let length = draw.within(LENGTH).min(left + 1);
        let role = format!("{} {seed} {length} {}", std::process::id(), kills as u64);
        let mut command = Command::new("/proc/self/exe");
        command.env(ROLE, role).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut host = command.spawn()?;
        let group = Pid::from_raw(host.id() as i32);
        // Until its handlers are there a signal would end it.
        thread::sleep(Duration::from_millis(300));
        let mut signals = 0;
        let status = loop {
            if let Some(status) = host.try_wait()? {
                break status;
            }
            thread::sleep(draw.micros(5000..400_000));
            if draw.percent(20) {
                let _ = killpg(group, Signal::SIGSTOP);
                thread::sleep(draw.micros(10_000..1_500_000));
                let _ = killpg(group, Signal::SIGCONT);
            } else {
                let _ = killpg(group, draw.pick(&GROUP));
            }
            signals += 1;
        };
        let mut text = String::new();
        if let Some(mut out) = host.stdout.take() {
            out.read_to_string(&mut text)?;
        }
        let counts: serde_json::Value = serde_json::from_str(text.trim()).unwrap_or_default();
        let count = |name: &str| counts[name].as_u64();
        let Some(jobs) = count("jobs").filter(|_| status.success()) else {
            return Err(std::io::Error::other(format!(
                "ended with {status}, and said {text:?}"
            )));
        };
        self.sum(|summary| {
            summary.hosts += 1;
            summary.signals += signals;
            summary.host_jobs += jobs;
            summary.lost += count("lost").unwrap_or(1);
            summary.doubled += count("doubled").unwrap_or(1);
            summary.wrong += count("wrong").unwrap_or(1);
            summary.hangs += count("hangs").unwrap_or(1);
            summary.rescued += count("rescued").unwrap_or(1);
            summary.leaks += count("leaks").unwrap_or(1);
        });
        Ok(())
    }
}
