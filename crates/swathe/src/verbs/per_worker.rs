//! `run_per_worker`: once in every worker.

use crate::{
    Batch, Pool, Result,
    call::{
        mode::{Mode, Strict},
        ready::Ready,
    },
    cross::{
        datum::Collection,
        over::{EachWorker, TaskOver},
        parameters::Parameters,
    },
};

impl<'p, S: 'static, P: Parameters, E: Mode> Batch<'p, S, P, E> {
    /// As [`Pool::run_per_worker`], with the options of this batch.
    pub fn run_per_worker<F, X, R>(self, task: F) -> Result<E::Of<R>>
    where
        F: TaskOver<EachWorker, X, S, P, Values = R>,
        R: Collection,
    {
        self.prepare_pinned(task)?.wait(E::show)
    }

    fn prepare_pinned<F, X>(self, task: F) -> Result<Ready<'p, E::Of<F::Values>>>
    where
        F: TaskOver<EachWorker, X, S, P>,
    {
        let workers = EachWorker(self.call.engine.processes());
        let mut ready = self.prepare(task, workers)?;
        ready.job.traits.pinned = true;
        Ok(ready)
    }
}

impl<S: 'static> Pool<S> {
    /// Calls the task once in every worker and waits; the results are in the order of the workers' numbers. For
    /// looking at, or changing, what each of them holds.
    ///
    /// ```
    /// use swathe::{Context, Pool};
    ///
    /// fn main() -> swathe::Result<()> {
    ///     swathe::init();
    ///     let pool = Pool::builder().processes(2).state(|| 10, ()).build()?;
    ///     let add = |total: &mut i32, context: &Context| {
    ///         *total += context.worker() as i32;
    ///         *total
    ///     };
    ///     assert_eq!(pool.run_per_worker(add)?, [10, 11]);
    ///     assert_eq!(pool.run_per_worker(add)?, [10, 12]);
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`map`](Self::map).
    pub fn run_per_worker<F, X, R>(&self, task: F) -> Result<R>
    where
        F: TaskOver<EachWorker, X, S, Values = R>,
        R: Collection,
    {
        self.batch().prepare_pinned(task)?.wait(Strict::show)
    }
}
