//! Who still holds what another process keeps in place.
//!
//! A worker that takes an [`Array`](crate::Array) out of a task's arguments may keep it longer than the task runs. The
//! process that made the array must not use the memory anew before the worker has let go. It cannot see the worker's
//! handles, so the worker counts them, and publishes the count; and it must know which arguments lent any, so that
//! serialising a handle is counted too.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

static COUNTING: AtomicBool = AtomicBool::new(false);
static HELD: AtomicU32 = AtomicU32::new(0);

thread_local! {
    static LENT: Cell<u64> = const { Cell::new(0) };
    static OWN: Cell<u64> = const { Cell::new(0) };
}

/// A handle to memory of another process, counted while it lives. Clones share it.
#[derive(Clone, Debug)]
pub struct Lease(#[expect(dead_code, reason = "held for its end")] Option<Arc<Counted>>);

#[derive(Debug)]
struct Counted;

impl Lease {
    /// A new handle; counted if [`count_from_now`] was called.
    pub fn new() -> Self {
        if !COUNTING.load(Ordering::Relaxed) {
            return Self(None);
        }
        HELD.fetch_add(1, Ordering::Relaxed);
        Self(Some(Arc::new(Counted)))
    }
}

impl Default for Lease {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        HELD.fetch_sub(1, Ordering::Release);
    }
}

/// From now on handles are counted. A worker calls this after its initializer, whose arguments stay in place for as long
/// as the pool.
pub fn count_from_now() {
    COUNTING.store(true, Ordering::Relaxed);
}

/// Handles that are counted and live, in this process.
pub fn held() -> u32 {
    HELD.load(Ordering::Acquire)
}

/// A handle is being serialised on this thread.
pub fn note_lent() {
    LENT.set(LENT.get() + 1);
}

/// A handle to memory that this very process made is being serialised on this thread.
pub fn note_own() {
    OWN.set(OWN.get() + 1);
}

/// How many of [`lent`] led to memory that this very process made. A worker's ends with the worker, and nobody else knows of
/// it: it is nothing to return.
pub fn own() -> u64 {
    OWN.get()
}

/// How many handles were serialised on this thread so far: compare before and after encoding arguments.
pub fn lent() -> u64 {
    LENT.get()
}
