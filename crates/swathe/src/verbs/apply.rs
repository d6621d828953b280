//! The verbs with one call in all.

use crate::{
    Batch, Pending, Pool, Result,
    call::{
        mode::{Mode, Strict},
        ready::Ready,
    },
    cross::{
        datum::{Collection, Datum},
        over::{Fallible, Once, TaskOver},
        parameters::{Parameters, With},
    },
    lower,
};

/// One call in all.
impl<'p, S: 'static, P: Parameters> Batch<'p, S, P> {
    /// As [`Pool::apply`], with the options of this batch.
    pub fn apply<F, A, X, B>(self, task: F, arguments: A) -> Result<B>
    where
        F: TaskOver<Once<A>, X, S, P, Value = B>,
        B: 'static,
    {
        self.prepare_one(task, Once(arguments))?.wait(|value| value)
    }

    /// As [`Pool::apply_async`], with the options of this batch.
    pub fn apply_async<F, A, X, B>(self, task: F, arguments: A) -> Result<Pending<B>>
    where
        F: TaskOver<Once<A>, X, S, P, Value = B>,
        B: 'static,
    {
        self.prepare_one(task, Once(arguments))?.start(|value| value)
    }

    /// As [`Pool::try_apply`], with the options of this batch.
    pub fn try_apply<F, A, X, B>(self, task: F, arguments: A) -> Result<B>
    where
        F: TaskOver<Fallible<Once<A>>, X, S, P, Value = B>,
        B: 'static,
    {
        self.prepare_one(task, Fallible(Once(arguments)))?
            .wait(|value| value)
    }

    /// As [`Pool::try_apply_async`], with the options of this batch.
    pub fn try_apply_async<F, A, X, B>(self, task: F, arguments: A) -> Result<Pending<B>>
    where
        F: TaskOver<Fallible<Once<A>>, X, S, P, Value = B>,
        B: 'static,
    {
        self.prepare_one(task, Fallible(Once(arguments)))?
            .start(|value| value)
    }

    fn prepare_one<F, In, X>(self, task: F, arguments: In) -> Result<Ready<'p, F::Value>>
    where
        F: TaskOver<In, X, S, P>,
    {
        self.call.engine.check()?;
        let lowered = F::lower(arguments, self.call.engine.memory())?;
        let task = lower::map_task::<F::Bound, S, P, F::Kind>(task)?;
        self.call
            .map::<F::Value, F::Kind, _>(task, lowered, |outcome, values| {
                Strict::conclude(outcome, values)?.fetch(0)
            })
    }
}

/// One call in all.
impl<S: 'static> Pool<S> {
    /// Calls the task once, in one of the workers, and waits for its result. The arguments are one value, or a tuple of
    /// them; `()` for none.
    ///
    /// ```
    /// use swathe::Pool;
    ///
    /// fn label(x: i64, chunk: &str) -> String {
    ///     format!("{chunk}-{}", x * x)
    /// }
    ///
    /// fn main() -> swathe::Result<()> {
    ///     swathe::init();
    ///     let pool = Pool::builder().processes(2).build()?;
    ///     assert_eq!(pool.apply(label, (7, "chunk"))?, "chunk-49");
    ///     assert_ne!(pool.apply(std::process::id, ())?, std::process::id());
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// If the call failed or could not be made.
    pub fn apply<F, A, X, B>(&self, task: F, arguments: A) -> Result<B>
    where
        F: TaskOver<Once<A>, X, S, Value = B>,
        B: 'static,
    {
        self.batch().apply(task, arguments)
    }

    /// As [`apply`](Self::apply), and does not wait.
    ///
    /// ```
    /// use swathe::Pool;
    ///
    /// fn main() -> swathe::Result<()> {
    ///     swathe::init();
    ///     let pool = Pool::builder().processes(2).build()?;
    ///     let calls: Vec<_> = (0..4).map(|x| pool.apply_async(|x: i64| x * x, x)).collect::<Result<_, _>>()?;
    ///     let squares: Vec<_> = calls.iter().map(|call| call.get()).collect::<Result<_, _>>()?;
    ///     assert_eq!(squares, [0, 1, 4, 9]);
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// If the call could not be made.
    pub fn apply_async<F, A, X, B>(&self, task: F, arguments: A) -> Result<Pending<B>>
    where
        F: TaskOver<Once<A>, X, S, Value = B>,
        B: 'static,
    {
        self.batch().apply_async(task, arguments)
    }

    /// As [`apply`](Self::apply), for a task that returns a `Result`; see [`try_map`](Self::try_map).
    ///
    /// # Errors
    /// If the call failed or could not be made.
    pub fn try_apply<F, A, X, B>(&self, task: F, arguments: A) -> Result<B>
    where
        F: TaskOver<Fallible<Once<A>>, X, S, Value = B>,
        B: 'static,
    {
        self.batch().try_apply(task, arguments)
    }

    /// As [`try_apply`](Self::try_apply), and does not wait.
    ///
    /// # Errors
    /// If the call could not be made.
    pub fn try_apply_async<F, A, X, B>(&self, task: F, arguments: A) -> Result<Pending<B>>
    where
        F: TaskOver<Fallible<Once<A>>, X, S, Value = B>,
        B: 'static,
    {
        self.batch().try_apply_async(task, arguments)
    }

    /// As [`apply`](Self::apply), with parameters; see [`map_with`](Self::map_with).
    ///
    /// # Errors
    /// If the call failed or could not be made.
    pub fn apply_with<D, K, F, A, X, B>(&self, parameters: &D, task: F, arguments: A) -> Result<B>
    where
        D: Datum<K>,
        K: 'static,
        F: TaskOver<Once<A>, X, S, With<D, K>, Value = B>,
        B: 'static,
    {
        self.batch().with(parameters)?.apply(task, arguments)
    }
}
