//! Addresses to functions: the engine's one act of faith, kept in one place.
#![expect(
    unsafe_code,
    reason = "an address that was resolved in this process becomes a function again"
)]

use std::ptr;

use swathe_os::image::{self, Locator};

use crate::job::task::{ExitHook, Setup, Trampoline};

/// The code at an address that `image::find` gave. The loader has mapped it, not Rust, so its provenance is exposed.
fn code(address: usize) -> *const () {
    ptr::with_exposed_provenance(address)
}

/// The trampoline at an address that `image::find` gave.
pub(crate) fn trampoline(address: usize) -> Trampoline {
    // SAFETY: the parent made the reference from a `Trampoline`, in an object of which this process has loaded the
    // same build: the handshake has compared that of the home object, `find` that of any other; and `find` has
    // checked that the address is code of it.
    unsafe { std::mem::transmute::<*const (), Trampoline>(code(address)) }
}

/// Likewise a setup function.
pub(crate) fn setup(address: usize) -> Setup {
    // SAFETY: as in `trampoline`, made from a `Setup`.
    unsafe { std::mem::transmute::<*const (), Setup>(code(address)) }
}

/// Likewise an exit hook.
pub(crate) fn exit_hook(address: usize) -> ExitHook {
    // SAFETY: as in `trampoline`, made from an `ExitHook`.
    unsafe { std::mem::transmute::<*const (), ExitHook>(code(address)) }
}

/// From now on this process asks `ask`, who asks the parent, where the file of an object lies that it has not loaded.
pub(crate) fn ask_for_unknown_objects(ask: Locator) {
    // SAFETY: the parent answers with a file that it has loaded itself, as this object (`image::path_of`).
    unsafe { image::set_locator(ask) };
}
