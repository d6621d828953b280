//! Programs with a way of their own to be prepared, forked and ended: an interpreter, a program that speaks MPI.

use std::sync::OnceLock;

/// What the program around Swathe does at the turns of its workers' lives; see [`init_with`](crate::init_with). What is not
/// said here is done as in a plain program.
///
/// Everything but [`exit`](Self::exit) may be called in several processes, and once in each, but for the functions around
/// a fork, which are called at each one. Only [`enter`](Self::enter) and [`leave`](Self::leave) may start threads: a
/// process that has any before is never forked (its workers are then started by exec, and prepare themselves).
pub trait Host: Send + Sync {
    /// In a process that is about to start workers, before it is ready: whatever they have in common is made here, once.
    ///
    /// # Errors
    /// A text, with which the pool's `build()` fails.
    fn prepare(&self) -> Result<(), String> {
        Ok(())
    }

    /// In the process that starts workers, before it forks one.
    fn before_fork(&self) {}

    /// In the same process, afterwards, also if no worker could be forked.
    fn after_fork_in_parent(&self) {}

    /// In a worker that was forked, first of all.
    fn after_fork_in_child(&self) {}

    /// In worker number `worker`: does what must surround its life, and calls `life`, once and on this thread. That returns
    /// when the worker has run its exit hook, or could not begin.
    fn enter(&self, worker: u32, life: &mut dyn FnMut()) {
        let _ = worker;
        life();
    }

    /// In a worker that leaves of its own accord, behind its exit hook, in [`enter`](Self::enter).
    fn leave(&self) {}

    /// Ends a worker, or the process that has started workers.
    fn exit(&self, code: i32) -> ! {
        std::process::exit(code)
    }
}

/// A program that wants nothing.
struct Plain;

impl Host for Plain {}

static HOST: OnceLock<&'static dyn Host> = OnceLock::new();

/// The first call counts.
pub(crate) fn set(host: &'static dyn Host) {
    let _ = HOST.set(host);
}

/// Whether the program has said what it does.
pub(crate) fn is_set() -> bool {
    HOST.get().is_some()
}

/// The program around.
pub(crate) fn host() -> &'static dyn Host {
    *HOST.get_or_init(|| &Plain)
}
