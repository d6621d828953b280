//! Loom's atomics, with a possible switch of threads before every operation and a possible death before every change,
//! and the two ways to run a model over them.
//!
//! Loom interleaves threads but never ends one early. A worker process can be killed between any two operations, inside
//! the protocol's own functions too, so the atomics themselves have to be the place of death.
//!
//! Loom 0.7 also leaves out interleavings that it takes for equal to one already seen, and takes too many for equal: of
//! the accesses to a word it remembers only the last, so that a compare-exchange behind its own thread's load is never
//! moved in front of another thread's earlier load. A ring whose consumers read the cell after the claim passes. Hence
//! every operation ticks a clock first, a word that all threads change: no two operations are then independent, and
//! loom tries every interleaving within the bound on preemptions. The tick is relaxed and orders nothing.

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use super::Ordering;

loom::thread_local! {
    /// Changes of shared words that the running thread may still do; `None` for an immortal.
    static LEFT: Cell<Option<u32>> = Cell::new(None);
}

loom::lazy_static! {
    static ref CLOCK: loom::sync::atomic::AtomicU32 = loom::sync::atomic::AtomicU32::new(0);
}

/// What a dying thread unwinds with.
struct Death;

/// Lets other threads go first.
fn tick() {
    CLOCK.fetch_add(1, Relaxed);
}

/// Ticks, then unwinds if the running thread has done its last change. `resume_unwind` does not call the panic hook: a
/// death prints nothing.
///
/// Loads are no places to die: nobody can tell a death before one from a death before the next change.
fn live() {
    tick();
    let dies = LEFT.with(|left| match left.get() {
        None => false,
        Some(0) => true,
        Some(n) => {
            left.set(Some(n - 1));
            false
        }
    });
    if dies {
        resume_unwind(Box::new(Death));
    }
}

/// Runs `life` on this loom thread and ends it just before its change number `nth` of a shared word (store, exchange,
/// read-modify-write), counted from 0. `true`: it died.
pub fn dies_before(nth: u32, life: impl FnOnce()) -> bool {
    LEFT.with(|left| left.set(Some(nth)));
    let end = catch_unwind(AssertUnwindSafe(life));
    LEFT.with(|left| left.set(None));
    match end {
        Ok(()) => false,
        Err(cause) if cause.is::<Death>() => true,
        Err(cause) => resume_unwind(cause),
    }
}

/// Explores every execution of `model` with at most `preemptions` involuntary switches of threads.
pub fn explore(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// Explores `model(nth)` for `nth` = 0, 1, ... until no execution dies any more. The model passes `nth` to
/// [`dies_before`] and returns its answer.
pub fn explore_deaths(preemptions: usize, model: impl Fn(u32) -> bool + Sync + Send + Copy + 'static) {
    static DIED: AtomicBool = AtomicBool::new(false);
    for nth in 0.. {
        DIED.store(false, Relaxed);
        explore(preemptions, move || {
            if model(nth) {
                DIED.store(true, Relaxed);
            }
        });
        if !DIED.load(Relaxed) {
            return;
        }
    }
}

macro_rules! mortal {
    ($name:ident, $value:ty) => {
        /// A word of shared memory before whose operations a thread may die.
        #[derive(Debug, Default)]
        pub struct $name(loom::sync::atomic::$name);

        impl $name {
            /// A word that holds `value`.
            pub fn new(value: $value) -> Self {
                Self(loom::sync::atomic::$name::new(value))
            }

            /// As in `core`.
            pub fn load(&self, order: Ordering) -> $value {
                tick();
                self.0.load(order)
            }

            /// As in `core`.
            pub fn store(&self, value: $value, order: Ordering) {
                live();
                self.0.store(value, order);
            }

            /// As in `core`.
            pub fn swap(&self, value: $value, order: Ordering) -> $value {
                live();
                self.0.swap(value, order)
            }

            /// As in `core`.
            pub fn fetch_add(&self, value: $value, order: Ordering) -> $value {
                live();
                self.0.fetch_add(value, order)
            }

            /// As in `core`.
            pub fn fetch_sub(&self, value: $value, order: Ordering) -> $value {
                live();
                self.0.fetch_sub(value, order)
            }

            /// As in `core`.
            pub fn fetch_or(&self, value: $value, order: Ordering) -> $value {
                live();
                self.0.fetch_or(value, order)
            }

            /// As in `core`.
            pub fn fetch_and(&self, value: $value, order: Ordering) -> $value {
                live();
                self.0.fetch_and(value, order)
            }

            /// As in `core`.
            pub fn compare_exchange(
                &self,
                seen: $value,
                next: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                live();
                self.0.compare_exchange(seen, next, success, failure)
            }

            /// As in `core`, but never fails without cause.
            pub fn compare_exchange_weak(
                &self,
                seen: $value,
                next: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                live();
                self.0.compare_exchange_weak(seen, next, success, failure)
            }
        }
    };
}

mortal!(AtomicU32, u32);
mortal!(AtomicU64, u64);
