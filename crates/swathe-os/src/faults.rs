//! How a process comes to grief, for tests and rehearsals.

use nix::sys::signal::{self, SigHandler, Signal};

/// Ends this process by a signal, as if its code had earned it: no handler runs.
pub fn die_of(signal: Signal) -> ! {
    // SAFETY: the default action is no handler, so no code of ours runs when the signal comes.
    let _ = unsafe { signal::signal(signal, SigHandler::SigDfl) };
    let _ = signal::raise(signal);
    // Blocked, then. Nothing blocks this:
    std::process::abort()
}

/// As a write to address 0 does.
pub fn segfault() -> ! {
    die_of(Signal::SIGSEGV)
}

/// As a read behind the end of a mapped file does.
pub fn bus_error() -> ! {
    die_of(Signal::SIGBUS)
}

/// SIGKILL to this process.
pub fn kill_self() -> ! {
    let _ = signal::kill(nix::unistd::getpid(), Signal::SIGKILL);
    std::process::abort()
}

/// SIGSTOP to this process. Returns when somebody sends SIGCONT.
pub fn stop_self() {
    let _ = signal::kill(nix::unistd::getpid(), Signal::SIGSTOP);
}

/// Takes private memory that is never given back, and touches all of it.
pub fn grow(bytes: u64) {
    const STEP: usize = 1 << 20;
    for _ in 0..bytes.div_ceil(STEP as u64) {
        std::hint::black_box(Vec::leak(vec![1u8; STEP]));
    }
}
