//! Signals of the pool's own processes: what they inherit is undone, and what a whole group gets is left to the parent.

use std::{
    mem::MaybeUninit,
    ptr,
    sync::atomic::{AtomicI32, Ordering},
};

use crate::process;

/// Signals by which a launcher, a batch system or a terminal speaks to a whole group of processes and that would end one
/// which has no handler. The program itself is asked; its pool leaves with it.
const GROUP: [i32; 10] = [
    libc::SIGINT,
    libc::SIGHUP,
    libc::SIGTERM,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGXCPU,
    libc::SIGPWR,
    libc::SIGIO,
    libc::SIGSTKFLT,
];

/// The signal that tells of the end of a child.
pub const CHILD: i32 = libc::SIGCHLD;

/// A set of signals.
#[derive(Clone, Copy)]
pub struct Mask(libc::sigset_t);

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mask").finish_non_exhaustive()
    }
}

impl Mask {
    /// No signal.
    pub fn empty() -> Self {
        let mut set = MaybeUninit::uninit();
        // SAFETY: `sigemptyset` initializes the set it is given.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            Self(set.assume_init())
        }
    }

    /// Every signal that can be blocked.
    pub fn all() -> Self {
        let mut set = MaybeUninit::uninit();
        // SAFETY: `sigfillset` initializes the set it is given.
        unsafe {
            libc::sigfillset(set.as_mut_ptr());
            Self(set.assume_init())
        }
    }

    /// This set and one more.
    #[must_use]
    pub fn with(mut self, signal: i32) -> Self {
        // SAFETY: the set is initialized; a number that is no signal is refused without effect.
        unsafe { libc::sigaddset(&raw mut self.0, signal) };
        self
    }

    /// The set as C has it.
    pub fn as_raw(&self) -> &libc::sigset_t {
        &self.0
    }
}

/// Makes this the set of signals that are blocked in the calling thread.
pub fn block_only(mask: Mask) {
    // SAFETY: the set is initialized, and nobody asks for the old one.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &mask.0, ptr::null_mut()) };
}

/// Every signal number but those that cannot be changed and those that the C library keeps for itself.
fn every_signal() -> impl Iterator<Item = i32> {
    let own = 32..libc::SIGRTMIN();
    (1..=libc::SIGRTMAX())
        .filter(move |signal| !own.contains(signal) && ![libc::SIGKILL, libc::SIGSTOP].contains(signal))
}

fn set(signal: i32, handler: libc::sighandler_t, flags: i32) {
    // SAFETY: all zero is a valid action; the fields that count are set below.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler;
    action.sa_flags = flags;
    action.sa_mask = Mask::empty().0;
    // SAFETY: the action is whole, and the handler is one of this module, which is safe in a signal's context, or none.
    unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) };
}

/// The handler of a signal: an address, `SIG_DFL` or `SIG_IGN`.
fn handler_of(signal: i32) -> usize {
    // SAFETY: all zero is a valid action, which the kernel overwrites.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: only asked for; the pointer is to a live variable.
    unsafe { libc::sigaction(signal, ptr::null(), &raw mut action) };
    action.sa_sigaction
}

/// Gives every signal its default disposition, whatever the host or a library's constructor has made of it; SIGPIPE is
/// ignored, as in any Rust program. The standard library's own handlers, which report an overflown stack, stay.
pub fn reset() {
    for signal in every_signal() {
        let crash = [libc::SIGSEGV, libc::SIGBUS].contains(&signal);
        if !(crash && is_own_code(handler_of(signal))) {
            set(signal, libc::SIG_DFL, 0);
        }
    }
    set(libc::SIGPIPE, libc::SIG_IGN, 0);
}

/// Whether an address lies in the object that this very function lies in: handlers of the standard library do.
fn is_own_code(address: usize) -> bool {
    let base = |address: usize| {
        // SAFETY: all zero is a valid record, which is filled below.
        let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
        // SAFETY: any address may be asked about; the record is a live variable.
        let found = unsafe { libc::dladdr(ptr::with_exposed_provenance(address), &raw mut info) };
        (found != 0).then_some(info.dli_fbase)
    };
    address > libc::SIG_IGN
        && base(address).is_some()
        && base(address) == base(is_own_code as fn(usize) -> bool as usize)
}

extern "C" fn nothing(_: i32) {}

/// From now on a signal to the whole group does nothing to this process. Handlers, not `SIG_IGN`: what a task starts gets
/// the default disposition back.
pub fn leave_group_signals_to_parent() {
    let handler = nothing as extern "C" fn(i32) as libc::sighandler_t;
    let real_time = libc::SIGRTMIN()..=libc::SIGRTMAX();
    for signal in GROUP.into_iter().chain(real_time) {
        set(signal, handler, libc::SA_RESTART);
    }
}

/// Whose SIGTERM ends this process.
static MASTER: AtomicI32 = AtomicI32::new(0);

extern "C" fn end_if_master_says(signal: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel gives a handler that asked for it (SA_SIGINFO) a valid record; `si_pid` is there for signals that
    // were sent by a process, and whatever else is in its place equals the master's id only by chance.
    let sender = unsafe { (*info).si_pid() };
    if sender != MASTER.load(Ordering::Relaxed) {
        return;
    }
    set(signal, libc::SIG_DFL, 0);
    // SAFETY: sends a signal to this process, which touches no memory of it. It is delivered when the handler returns.
    unsafe { libc::kill(libc::getpid(), signal) };
}

/// From now on SIGTERM ends this process if its parent has sent it, and does nothing otherwise.
pub fn end_on_parents_sigterm() {
    MASTER.store(process::parent_pid() as i32, Ordering::Relaxed);
    let handler = end_if_master_says as extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void);
    set(
        libc::SIGTERM,
        handler as libc::sighandler_t,
        libc::SA_RESTART | libc::SA_SIGINFO,
    );
}

/// From now on the end of a child interrupts whoever waits for it with the signal unblocked.
pub fn notice_children() {
    set(
        libc::SIGCHLD,
        nothing as extern "C" fn(i32) as libc::sighandler_t,
        0,
    );
}

/// The disposition of SIGCHLD as a program starts with it.
pub fn forget_children() {
    set(libc::SIGCHLD, libc::SIG_DFL, 0);
}
