//! `run_per_worker`: once in every worker.

use crate::{
    Batch, Pool, Result,
    call::{callbacks::OnSuccess, mode::Mode},
    cross::{datum::Datum, item::Lowered, parameters::Parameters, task::Task},
    lower::Direct,
    verbs::map::Many,
};

impl<S: 'static, W: Parameters, E: Mode, C> Batch<'_, S, W, E, C> {
    /// As [`Pool::run_per_worker`], with the options of this batch.
    pub fn run_per_worker<F, M, B, KB>(self, task: F) -> Result<E::Of<Many<B, KB>>>
    where
        F: Task<S, W::Value, (), M, Output = B>,
        B: Datum<KB>,
        C: OnSuccess<E::Shown<Many<B, KB>>>,
    {
        let workers = Lowered {
            len: self.engine.processes() as u64,
            ..Lowered::default()
        };
        let mut ready = self.prepare::<F, (), M, Direct, KB>(task, |_| Ok(workers))?;
        ready.plan.traits.pinned = true;
        ready.wait(E::show)
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
    pub fn run_per_worker<F, M, B, KB>(&self, task: F) -> Result<Many<B, KB>>
    where
        F: Task<S, (), (), M, Output = B>,
        B: Datum<KB>,
    {
        self.batch().run_per_worker(task)
    }
}
