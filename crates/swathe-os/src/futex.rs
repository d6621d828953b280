//! Sleeping on a word in shared memory.

use std::{sync::atomic::AtomicU32, time::Duration};

use rustix::{
    io::Errno,
    thread::futex::{Flags, Timespec},
};

/// Sleeps while `word` holds `expected`, until a wake, the timeout, or a stray return: the caller looks again.
///
/// The futex is shared between processes (no `PRIVATE` flag).
pub fn wait(word: &AtomicU32, expected: u32, timeout: Duration) {
    let timeout = Timespec {
        tv_sec: timeout.as_secs().min(1 << 40) as i64,
        tv_nsec: i64::from(timeout.subsec_nanos()),
    };
    match rustix::thread::futex::wait(word, Flags::empty(), expected, Some(&timeout)) {
        Ok(()) | Err(Errno::AGAIN | Errno::INTR | Errno::TIMEDOUT) => {}
        // No other error is possible for a mapped, aligned word; sleep a little rather than spin if it comes.
        Err(_) => std::thread::sleep(Duration::from_millis(1)),
    }
}

/// Wakes up to `count` sleepers of `word`.
pub fn wake(word: &AtomicU32, count: u32) {
    // An error is only possible for an unmapped word, where nobody can sleep.
    let _ = rustix::thread::futex::wake(word, Flags::empty(), count);
}
