//! The last moment of a process that ends itself: by `abort`, or by `exit`.

use std::sync::OnceLock;

static LAST: OnceLock<fn()> = OnceLock::new();

/// Has `last` called when this process aborts (SIGABRT) or calls `exit`, on the thread that does; its end stays what it
/// would have been. The first call counts. Programs that it starts do not inherit it.
///
/// # Safety
/// `last` may run in a signal handler, at any instruction of any thread: it may do no more than read and write atomics, and
/// ask for ids. It must not panic.
pub unsafe fn call_at_the_end(last: fn()) {
    if LAST.set(last).is_err() {
        return;
    }
    // SAFETY: all zero is a valid sigaction: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = aborted as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // The handler is gone when it runs, so that the signal it sends once more ends the process.
    action.sa_flags = libc::SA_RESETHAND | libc::SA_NODEFER | libc::SA_ONSTACK;
    // SAFETY: the handler does only what the caller promises, and raises a signal, which is allowed in a handler.
    unsafe { libc::sigaction(libc::SIGABRT, &raw const action, std::ptr::null_mut()) };
    // SAFETY: a function without arguments that stays loaded as long as this code.
    unsafe { libc::atexit(exited) };
}

extern "C" fn aborted(signal: libc::c_int) {
    exited();
    // SAFETY: its action is the default by now: the process ends of it, with a core dump where there is to be one.
    unsafe { libc::raise(signal) };
}

extern "C" fn exited() {
    if let Some(last) = LAST.get() {
        last();
    }
}

/// The kernel's number of the calling thread; that of the first thread of a process is the process's id.
pub fn thread_id() -> u32 {
    rustix::thread::gettid().as_raw_nonzero().get() as u32
}
