//! What dependencies do before `main` to register themselves: `inventory`, `linkme`, C++'s static objects.
#![expect(
    unsafe_code,
    reason = "an entry in the list of functions that run before main"
)]

use std::sync::atomic::{AtomicU32, Ordering};

static RUNS: AtomicU32 = AtomicU32::new(0);

extern "C" fn run() {
    RUNS.fetch_add(1, Ordering::Relaxed);
}

// In the list of functions that are run before `main`; this one touches an atomic only.
#[used]
#[unsafe(link_section = ".init_array")]
static ENTRY: extern "C" fn() = run;

/// How often a constructor of this library has run in this process.
pub fn constructed() -> u32 {
    RUNS.load(Ordering::Relaxed)
}
