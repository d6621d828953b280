//! Tasks cross to the workers as types, without a value.

use swathe_runtime::{TaskRef, Trampoline};

use crate::Error;

/// Refers to the trampoline of a task. Taking the task by value proves that there is one; see [`conjure`].
pub(crate) fn reference<F: Copy + Send + Sync + 'static>(
    _: F,
    trampoline: Trampoline,
) -> Result<TaskRef, Error> {
    assert_captures_nothing::<F>();
    TaskRef::trampoline(trampoline).ok_or(Error::NoCode)
}

/// Refuses to compile for tasks that hold anything.
pub(crate) const fn assert_captures_nothing<F>() {
    const {
        assert!(
            size_of::<F>() == 0,
            "this task captures values of its environment (or is a function pointer), which cannot cross to another \
             process: give them to the task as parameters with `map_with(&parameters, ...)`, as columns of `starmap`, \
             or build them once in every worker with `Pool::builder().state(...)`"
        );
    }
}

/// A task, from its type alone.
///
/// # Safety
/// A value of `F` must have been given to [`reference`] (or another function that calls [`assert_captures_nothing`])
/// in the parent of this process, whose executable is the same.
pub(super) unsafe fn conjure<F: Copy + Send + Sync + 'static>() -> F {
    assert_captures_nothing::<F>();
    // SAFETY: F has no bytes, so any aligned address holds one if the type has a value at all, which the caller
    // promises; and F: Copy, so the task that exists already is not taken from anybody. F: Send + Sync, so it says
    // nothing about a thread.
    unsafe { std::ptr::NonNull::<F>::dangling().read() }
}
