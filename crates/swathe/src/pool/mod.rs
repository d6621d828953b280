//! The pool.

pub(crate) mod builder;
pub(crate) mod context;

use std::{fmt, marker::PhantomData};

use swathe_memory::Memory;
use swathe_runtime::{Engine, WorkerInfo};

use crate::{Batch, Builder, Result};

/// A pool of worker processes.
///
/// Its verbs are those of Python's `multiprocessing.Pool`; options of a single call are set on its
/// [`batch`](Self::batch), which has the same verbs. `S` is the state that every worker holds; see
/// [`Builder::state`].
///
/// Dropping a pool terminates it: running tasks are killed, open jobs end with an error. To let the work finish,
/// [`close`](Self::close) and [`join`](Self::join) it.
///
/// ```
/// use swathe::Pool;
///
/// fn main() -> swathe::Result<()> {
///     swathe::init();                                  // a worker starts here and never returns
///     let pool = Pool::new()?;                         // one process a core that this job may use
///     let squares = pool.map(|x: i64| x * x, 0..10)?;
///     assert_eq!(squares, [0, 1, 4, 9, 16, 25, 36, 49, 64, 81]);
///     Ok(())
/// }
/// ```
pub struct Pool<S = ()> {
    engine: Engine,
    state: PhantomData<fn(S)>,
}

impl Pool {
    /// A pool of one process for each core that this process may use (see [`cores`](crate::cores())).
    ///
    /// # Errors
    /// If the program did not call [`init`](crate::init), or no processes or memory are to be had.
    pub fn new() -> Result<Self> {
        Self::builder().build()
    }

    /// A pool that is made otherwise.
    pub fn builder() -> Builder {
        Builder::new()
    }
}

impl<S> Pool<S> {
    pub(crate) fn of_engine(engine: Engine) -> Self {
        Self {
            engine,
            state: PhantomData,
        }
    }

    /// One call with options.
    pub fn batch(&self) -> Batch<'_, S> {
        Batch::new(&self.engine)
    }

    /// Takes no more calls. Those that were made are finished. Closing again does nothing.
    pub fn close(&self) {
        self.engine.close();
    }

    /// Waits until a closed or terminated pool has finished its work and its processes have ended.
    ///
    /// # Errors
    /// If the pool was neither closed nor terminated, or if it broke.
    pub fn join(&self) -> Result<()> {
        Ok(self.engine.join()?)
    }

    /// Stops at once: running tasks are killed, open jobs end with an error. Terminating again does nothing.
    pub fn terminate(&self) {
        self.engine.terminate();
    }

    /// Changes the number of worker processes. New ones start at once, surplus ones leave after what they are doing.
    ///
    /// # Errors
    /// If the number is 0 or too large, or the pool is not running.
    pub fn resize(&self, processes: usize) -> Result<()> {
        Ok(self.engine.resize(processes)?)
    }

    /// How many worker processes there should be.
    pub fn processes(&self) -> usize {
        self.engine.processes()
    }

    /// The worker processes there are now: numbers, process ids, how much they have done.
    pub fn workers(&self) -> Vec<WorkerInfo> {
        self.engine.workers()
    }

    /// Has a thread of the pool panic, as a fault of Swathe's own would, to see that nothing hangs then.
    #[cfg(feature = "chaos")]
    #[doc(hidden)]
    pub fn panic_supervisor(&self) {
        self.engine.panic_supervisor();
    }

    /// The memory that inputs are copied to and results are written to.
    pub fn memory(&self) -> &Memory {
        self.engine.memory()
    }
}

impl<S> fmt::Debug for Pool<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("processes", &self.processes())
            .finish_non_exhaustive()
    }
}
