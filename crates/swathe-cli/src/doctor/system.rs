//! What the kernel can do, found out by doing it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use swathe_os::{futex, memfd, process::Pidfd};

use super::finding::{Finding, Severity};

const SECTION: &str = "system";
/// The oldest kernel that the library supports.
const OLDEST: (u32, u32) = (5, 14);
const NEEDED: &str =
    "run on the machine itself or in a container whose seccomp profile allows it: no pool runs without";

pub(super) fn examine() -> Vec<Finding> {
    vec![
        kernel(),
        works("memory files (memfd)", memfd::create("swathe-doctor", 4096).err()),
        process_handles(),
        futexes(),
    ]
}

fn kernel() -> Finding {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    let version = match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
        _ => (0, 0),
    };
    let finding = Finding::ok(SECTION, "kernel", format!("Linux {release}"));
    if version < OLDEST {
        return finding.but(
            Severity::Failure,
            format!("use Linux {}.{} or newer", OLDEST.0, OLDEST.1),
        );
    }
    finding
}

fn works<E: std::fmt::Display>(what: &str, error: Option<E>) -> Finding {
    match error {
        None => Finding::ok(SECTION, what, "work"),
        Some(error) => Finding::ok(SECTION, what, error.to_string()).but(Severity::Failure, NEEDED),
    }
}

/// Better than numbers, which are used again.
fn process_handles() -> Finding {
    const WHAT: &str = "process handles (pidfd)";
    match Pidfd::open(std::process::id()) {
        Ok(_) => Finding::ok(SECTION, WHAT, "work"),
        Err(error) => Finding::ok(SECTION, WHAT, error.to_string()).but(
            Severity::Note,
            "have the seccomp filter allow pidfd_open and pidfd_send_signal: without them processes are known by their \
             numbers",
        ),
    }
}

/// Whether a sleeper can be woken.
fn futexes() -> Finding {
    const PATIENCE: Duration = Duration::from_secs(5);
    let word = Arc::new(AtomicU32::new(0));
    let waiter = {
        let word = word.clone();
        thread::spawn(move || {
            let start = std::time::Instant::now();
            while word.load(Ordering::Acquire) == 0 && start.elapsed() < PATIENCE {
                futex::wait(&word, 0, PATIENCE);
            }
            start.elapsed() < PATIENCE
        })
    };
    thread::sleep(Duration::from_millis(2)); // it sleeps by now, or it will not sleep at all
    word.store(1, Ordering::Release);
    futex::wake(&word, 1);
    let woken = waiter.join().unwrap_or(false);
    works(
        "wakes (futex)",
        (!woken).then_some("a sleeping thread was not woken"),
    )
}
