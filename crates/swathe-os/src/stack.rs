//! Stacks: how much is left of the one that this thread is on, and larger ones for what recurs.
//!
//! `stacker` maps a stack anew for each use, which is right for what is rare. For what is not, a thread keeps one.

use std::cell::{Cell, RefCell};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::{self, NonNull};

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};
use rustix::param::page_size;

/// Size of the stack that a thread keeps. Pages are taken when they are used.
pub const KEPT: usize = 16 << 20;

/// No more of a main thread's stack is relied on, whatever its limit: the kernel keeps 128 MiB below its top free of mappings
/// of its own choice (`mmap_base` in arch/x86/mm/mmap.c).
const RELIED_ON: u64 = 64 << 20;
/// What lies above the first function of a program, besides its arguments and environment.
const ABOVE: u64 = 192 << 10;

thread_local! {
    /// Where the stack ends that this thread is on, if that is known: one that it keeps, or the assumed.
    static END: Cell<Option<usize>> = const { Cell::new(None) };
    static STACK: RefCell<Option<Stack>> = const { RefCell::new(None) };
}

/// Bytes of stack that are left; 0 if it cannot be told.
pub fn left() -> usize {
    match END.get() {
        Some(end) => (psm::stack_pointer() as usize).saturating_sub(end),
        None => stacker::remaining_stack().unwrap_or(0),
    }
}

/// To be called early in a program's main thread, once its stack is limited: from now on [`left`] answers at once, and rather
/// too little. (The C library reads `/proc/self/maps` for it, which takes longer than all else that a new worker does.)
///
/// In another thread it does nothing.
pub fn assume_main_threads() {
    let me = rustix::thread::gettid();
    if me != rustix::process::getpid() {
        return;
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Stack);
    let size = limit.current.unwrap_or(RELIED_ON).min(RELIED_ON);
    // A quarter at most is arguments and environment (execve(2)).
    let below = (size - size / 4).saturating_sub(ABOVE);
    if below > 0 {
        END.set(Some(
            (psm::stack_pointer() as usize).saturating_sub(below as usize),
        ));
    }
}

/// Runs something on a stack of [`KEPT`] bytes that this thread keeps for the next time.
///
/// # Errors
/// When there is no memory for it: nothing was run.
pub fn on_the_kept<R>(run: impl FnOnce() -> R) -> io::Result<R> {
    // Taken away while it is used: who comes here once more on it makes another one.
    let kept = STACK.with_borrow_mut(Option::take);
    let stack = kept.map_or_else(|| Stack::map(KEPT), Ok)?;
    let before = END.replace(Some(stack.usable().addr().get()));
    // SAFETY: the stack is mapped, for this thread alone, and nothing is on it; no panic leaves the closure.
    let result = unsafe {
        psm::on_stack(stack.usable().as_ptr(), KEPT, || {
            catch_unwind(AssertUnwindSafe(run))
        })
    };
    END.set(before);
    // A thread that ends keeps nothing more.
    let _ = STACK.try_with(|kept| kept.replace(Some(stack)));
    match result {
        Ok(result) => Ok(result),
        Err(panic) => resume_unwind(panic),
    }
}

/// Runs something on a stack of at least so many bytes that is made for it.
///
/// # Errors
/// When there is no memory for it: nothing was run.
pub fn on_a_new<R>(bytes: usize, run: impl FnOnce() -> R) -> io::Result<R> {
    // It says by a panic that it has no memory.
    let mut begun = false;
    let before = END.replace(None);
    let result = catch_unwind(AssertUnwindSafe(|| {
        stacker::grow(bytes, || {
            begun = true;
            run()
        })
    }));
    END.set(before);
    match result {
        Ok(result) => Ok(result),
        Err(panic) if begun => resume_unwind(panic),
        Err(_) => Err(io::ErrorKind::OutOfMemory.into()),
    }
}

/// Memory for a stack, with a page at its end that must not be touched.
struct Stack {
    base: NonNull<u8>,
    mapped: usize,
}

impl Stack {
    fn map(bytes: usize) -> io::Result<Stack> {
        let mapped = bytes + page_size();
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::STACK;
        // SAFETY: a null hint without MAP_FIXED replaces no mapping.
        let base = unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), mapped, protection, flags)? };
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let stack = Stack { base, mapped };
        // SAFETY: the page was mapped just now, and nobody uses it.
        unsafe { rustix::mm::mprotect(base.as_ptr().cast(), page_size(), MprotectFlags::empty())? };
        Ok(stack)
    }

    /// The lowest address that may be used.
    fn usable(&self) -> NonNull<u8> {
        // SAFETY: more than a page is mapped.
        unsafe { self.base.byte_add(page_size()) }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `map`, and nobody is on the stack.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.mapped) };
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn deep(levels: u32) -> u32 {
        let frame = [levels; 64];
        let below = if levels == 0 { 0 } else { deep(levels - 1) };
        std::hint::black_box(frame)[7] - levels + below + 1
    }

    #[test]
    fn another_thread_assumes_nothing() {
        assume_main_threads();
        assert_eq!(END.get(), None);
        assert!(left() > 0);
    }

    #[test]
    fn what_has_no_room_on_a_thread_has_it_on_a_larger_stack() {
        let thread = thread::Builder::new().stack_size(64 << 10).spawn(|| {
            let before = left();
            assert!(before < 256 << 10);
            for _ in 0..3 {
                let run = || {
                    assert!(left() > KEPT - (64 << 10) && left() <= KEPT);
                    deep(20_000)
                };
                assert_eq!(on_the_kept(run).unwrap(), 20_001);
                assert!(left() <= before);
            }
            let nested = || on_the_kept(|| on_a_new(32 << 20, || (left(), deep(50_000))).unwrap()).unwrap();
            let (room, levels) = on_the_kept(nested).unwrap();
            assert!(room > 30 << 20 && levels == 50_001);
            let panicked = catch_unwind(|| on_the_kept(|| panic!("as it should"))).is_err();
            assert!(panicked && left() <= before && on_the_kept(|| 1).unwrap() == 1);
        });
        thread.unwrap().join().unwrap();
    }
}
