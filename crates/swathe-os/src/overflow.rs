//! Stacks that overflow: a process that ends of one can say so.
//!
//! The kernel sends SIGSEGV, as for any other address that is not mapped. What tells an overflow is where the address lies:
//! at the stack pointer. The handler needs a stack of its own. The standard library gives one to threads that it has
//! started and to the main thread of a program whose `main` is Rust's; here a main thread gets one that has none.

use std::sync::OnceLock;

static OVERFLOWED: OnceLock<fn()> = OnceLock::new();
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

/// How far below the stack pointer a function may touch its frame first, bytes. Compilers probe frames page by page.
const REACH: usize = 64 << 10;
/// What a handler may need, its frame for the widest registers included, bytes.
const HANDLER_STACK: usize = 64 << 10;

/// Has `overflowed` called when the stack of a thread of this process overflows, on that thread's signal stack, if it has one.
/// Then what was to be done about SIGSEGV is done. The first call counts. Programs that it starts do not inherit it.
///
/// # Safety
/// `overflowed` runs in a signal handler: it may do no more than read and write atomics, and ask for ids.
pub unsafe fn call_when_stack_overflows(overflowed: fn()) {
    if OVERFLOWED.set(overflowed).is_err() {
        return;
    }
    give_signal_stack();
    // SAFETY: all zero is a valid sigaction, of which the kernel fills in one.
    let (mut action, mut before): (libc::sigaction, libc::sigaction) =
        unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    // SAFETY: asks only.
    unsafe { libc::sigaction(libc::SIGSEGV, std::ptr::null(), &raw mut before) };
    let _ = BEFORE.set(before);
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = faulted;
    action.sa_sigaction = handler as libc::sighandler_t;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
    // SAFETY: the handler does only what the caller promises, and asks for the earlier one.
    unsafe { libc::sigaction(libc::SIGSEGV, &raw const action, std::ptr::null_mut()) };
}

/// A thread without a stack for its handlers gets one for the rest of its life.
fn give_signal_stack() {
    // SAFETY: all zero is a valid stack_t, which the kernel fills in.
    let mut now: libc::stack_t = unsafe { std::mem::zeroed() };
    // SAFETY: asks only.
    let answered = unsafe { libc::sigaltstack(std::ptr::null(), &raw mut now) } == 0;
    if !answered || now.ss_flags & libc::SS_DISABLE == 0 {
        return;
    }
    let stack = Vec::leak(vec![0u8; HANDLER_STACK]);
    let stack = libc::stack_t {
        ss_sp: stack.as_mut_ptr().cast(),
        ss_flags: 0,
        ss_size: stack.len(),
    };
    // SAFETY: memory that is never freed, and that nobody else uses.
    unsafe { libc::sigaltstack(&raw const stack, std::ptr::null_mut()) };
}

extern "C" fn faulted(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes both to a handler that was set with SA_SIGINFO.
    let (address, pointer) = unsafe { ((*info).si_addr().addr(), stack_pointer(context)) };
    let is_overflow = pointer.is_some_and(|pointer| address.abs_diff(pointer) <= REACH);
    if let Some(overflowed) = OVERFLOWED.get().filter(|_| is_overflow) {
        overflowed();
    }
    // As it was: who faults again, behind this, has the earlier handler, or none.
    if let Some(before) = BEFORE.get() {
        // SAFETY: an action that this process had.
        unsafe { libc::sigaction(signal, before, std::ptr::null_mut()) };
    }
}

/// The stack pointer of what was interrupted.
///
/// # Safety
/// The third argument of a handler that was set with SA_SIGINFO.
#[cfg(target_arch = "x86_64")]
unsafe fn stack_pointer(context: *mut libc::c_void) -> Option<usize> {
    // SAFETY: the kernel passes a ucontext_t.
    let context = unsafe { &*context.cast::<libc::ucontext_t>() };
    Some(context.uc_mcontext.gregs[libc::REG_RSP as usize] as usize)
}

/// The stack pointer of what was interrupted.
///
/// # Safety
/// The third argument of a handler that was set with SA_SIGINFO.
#[cfg(target_arch = "aarch64")]
unsafe fn stack_pointer(context: *mut libc::c_void) -> Option<usize> {
    // SAFETY: the kernel passes a ucontext_t.
    let context = unsafe { &*context.cast::<libc::ucontext_t>() };
    Some(context.uc_mcontext.sp as usize)
}

/// Not known here where it is kept.
///
/// # Safety
/// None is needed.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe fn stack_pointer(_: *mut libc::c_void) -> Option<usize> {
    None
}
