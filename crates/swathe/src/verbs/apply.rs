//! The verbs with one call in all.

use std::sync::Arc;

use swathe_memory::Memory;
use swathe_runtime::Outcome;

use crate::{
    Batch, Pending, Pool, Result,
    call::{
        callbacks::OnSuccess,
        mode::{Mode, Strict},
    },
    cross::{
        column::Columns,
        datum::{Collection, Datum},
        item::Arguments,
        parameters::Parameters,
        task::Task,
    },
    lower::{Direct, Fallible},
    verbs::map::Many,
};

/// The arguments of a task of `apply`.
type CallArgsOf<A, K> = <<A as Arguments<K>>::Columns as Columns>::Args;

/// One call in all.
impl<S: 'static, W: Parameters, C> Batch<'_, S, W, Strict, C> {
    /// As [`Pool::apply`], with the options of this batch.
    pub fn apply<F, A, K, M, B, KB>(self, task: F, arguments: A) -> Result<B>
    where
        A: Arguments<K>,
        F: Task<S, W::Value, CallArgsOf<A, K>, M, Output = B>,
        B: Datum<KB>,
        C: OnSuccess<B>,
    {
        let lower = |memory: &Memory| arguments.lower_arguments(memory);
        let only = |outcome: &Arc<Outcome>, values: Many<B, KB>| Strict::conclude(outcome, values)?.fetch(0);
        self.prepare_with::<F, A::Columns, M, Direct, KB, B>(task, lower, only)?
            .wait(|value| value)
    }

    /// As [`Pool::apply_async`], with the options of this batch.
    pub fn apply_async<F, A, K, M, B, KB>(self, task: F, arguments: A) -> Result<Pending<B>>
    where
        A: Arguments<K>,
        F: Task<S, W::Value, CallArgsOf<A, K>, M, Output = B>,
        B: Datum<KB>,
        C: OnSuccess<B>,
    {
        let lower = |memory: &Memory| arguments.lower_arguments(memory);
        let only = |outcome: &Arc<Outcome>, values: Many<B, KB>| Strict::conclude(outcome, values)?.fetch(0);
        self.prepare_with::<F, A::Columns, M, Direct, KB, B>(task, lower, only)?
            .start(|value| value)
    }

    /// As [`Pool::try_apply`], with the options of this batch.
    pub fn try_apply<F, A, K, M, B, KB, X>(self, task: F, arguments: A) -> Result<B>
    where
        A: Arguments<K>,
        F: Task<S, W::Value, CallArgsOf<A, K>, M, Output = Result<B, X>>,
        B: Datum<KB>,
        X: Into<Box<dyn std::error::Error>>,
        C: OnSuccess<B>,
    {
        let lower = |memory: &Memory| arguments.lower_arguments(memory);
        let only = |outcome: &Arc<Outcome>, values: Many<B, KB>| Strict::conclude(outcome, values)?.fetch(0);
        self.prepare_with::<F, A::Columns, M, Fallible, KB, B>(task, lower, only)?
            .wait(|value| value)
    }

    /// As [`Pool::try_apply_async`], with the options of this batch.
    pub fn try_apply_async<F, A, K, M, B, KB, X>(self, task: F, arguments: A) -> Result<Pending<B>>
    where
        A: Arguments<K>,
        F: Task<S, W::Value, CallArgsOf<A, K>, M, Output = Result<B, X>>,
        B: Datum<KB>,
        X: Into<Box<dyn std::error::Error>>,
        C: OnSuccess<B>,
    {
        let lower = |memory: &Memory| arguments.lower_arguments(memory);
        let only = |outcome: &Arc<Outcome>, values: Many<B, KB>| Strict::conclude(outcome, values)?.fetch(0);
        self.prepare_with::<F, A::Columns, M, Fallible, KB, B>(task, lower, only)?
            .start(|value| value)
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
    pub fn apply<F, A, K, M, B, KB>(&self, task: F, arguments: A) -> Result<B>
    where
        A: Arguments<K>,
        F: Task<S, (), CallArgsOf<A, K>, M, Output = B>,
        B: Datum<KB>,
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
    pub fn apply_async<F, A, K, M, B, KB>(&self, task: F, arguments: A) -> Result<Pending<B>>
    where
        A: Arguments<K>,
        F: Task<S, (), CallArgsOf<A, K>, M, Output = B>,
        B: Datum<KB>,
    {
        self.batch().apply_async(task, arguments)
    }

    /// As [`apply`](Self::apply), for a task that returns a `Result`; see [`try_map`](Self::try_map).
    ///
    /// # Errors
    /// If the call failed or could not be made.
    pub fn try_apply<F, A, K, M, B, KB, X>(&self, task: F, arguments: A) -> Result<B>
    where
        A: Arguments<K>,
        F: Task<S, (), CallArgsOf<A, K>, M, Output = Result<B, X>>,
        B: Datum<KB>,
        X: Into<Box<dyn std::error::Error>>,
    {
        self.batch().try_apply(task, arguments)
    }

    /// As [`try_apply`](Self::try_apply), and does not wait.
    ///
    /// # Errors
    /// If the call could not be made.
    pub fn try_apply_async<F, A, K, M, B, KB, X>(&self, task: F, arguments: A) -> Result<Pending<B>>
    where
        A: Arguments<K>,
        F: Task<S, (), CallArgsOf<A, K>, M, Output = Result<B, X>>,
        B: Datum<KB>,
        X: Into<Box<dyn std::error::Error>>,
    {
        self.batch().try_apply_async(task, arguments)
    }

    /// As [`apply`](Self::apply), with parameters; see [`map_with`](Self::map_with).
    ///
    /// # Errors
    /// If the call failed or could not be made.
    pub fn apply_with<P, KP, F, A, K, M, B, KB>(&self, parameters: &P, task: F, arguments: A) -> Result<B>
    where
        P: Datum<KP>,
        KP: 'static,
        A: Arguments<K>,
        F: Task<S, P, CallArgsOf<A, K>, M, Output = B>,
        B: Datum<KB>,
    {
        self.batch().with(parameters)?.apply(task, arguments)
    }
}
