//! Addresses to functions: the engine's one act of faith, kept in one place.
#![expect(
    unsafe_code,
    reason = "an address that was resolved in this process becomes a function again"
)]

use crate::job::task::{ExitHook, Setup, Trampoline};

/// The trampoline at an address that `image::find` gave.
pub(crate) fn trampoline(address: usize) -> Trampoline {
    // SAFETY: the parent made the reference from a `Trampoline`, in an object of which this process has loaded the
    // same build: the handshake has compared that of the home object, `find` that of any other; and `find` has
    // checked that the address is code of it.
    unsafe { std::mem::transmute::<usize, Trampoline>(address) }
}

/// Likewise a setup function.
pub(crate) fn setup(address: usize) -> Setup {
    // SAFETY: as in `trampoline`, made from a `Setup`.
    unsafe { std::mem::transmute::<usize, Setup>(address) }
}

/// Likewise an exit hook.
pub(crate) fn exit_hook(address: usize) -> ExitHook {
    // SAFETY: as in `trampoline`, made from an `ExitHook`.
    unsafe { std::mem::transmute::<usize, ExitHook>(address) }
}
