//! A call that only has to be submitted.

use std::sync::Arc;

use swathe_runtime::{Engine, Outcome};

use crate::call::{
    callbacks::{OnDone, OnError, OnSuccess, tell},
    options::Options,
    plan::Plan,
};
use crate::{
    Result,
    results::pending::{Conclude, Pending},
    resume::Checkpointer,
};

/// A job that is ready to run, and who wants to know of its end.
pub(crate) struct Ready<'p, T, C> {
    engine: &'p Engine,
    options: Options,
    pub(crate) plan: Plan,
    conclude: Conclude<T>,
    on_success: C,
    on_error: Option<OnError>,
    finish: Option<Arc<Checkpointer>>,
}

impl<'p, T: 'static, C> Ready<'p, T, C> {
    pub(crate) fn new(
        engine: &'p Engine,
        options: Options,
        plan: Plan,
        conclude: impl Fn(&Arc<Outcome>) -> Result<T> + Send + Sync + 'static,
        on_success: C,
        on_error: Option<OnError>,
    ) -> Self {
        Self {
            engine,
            options,
            plan,
            conclude: Arc::new(conclude),
            on_success,
            on_error,
            finish: None,
        }
    }

    /// The result is there when this has finished, too.
    pub(crate) fn finished_by(self, checkpointer: Arc<Checkpointer>) -> Self {
        Self {
            finish: Some(checkpointer),
            ..self
        }
    }

    /// Runs it, and waits for the end.
    pub(crate) fn wait<R: ?Sized>(self, show: fn(&T) -> &R) -> Result<T>
    where
        C: OnSuccess<R>,
    {
        let outcome = self.plan.run(self.engine, &self.options)?;
        let result = (self.conclude)(&outcome);
        tell(&result, show, self.on_success, self.on_error);
        result
    }

    /// Runs it, and does not wait.
    pub(crate) fn start<R: ?Sized + 'static>(mut self, show: fn(&T) -> &R) -> Result<Pending<T>>
    where
        C: OnSuccess<R>,
    {
        self.plan.traits.attended = true;
        let restored = self.plan.durable.as_ref().map_or(0, |begun| begun.restored);
        let tells = C::TELLS || self.on_error.is_some();
        let (conclude, on_success, on_error) = (self.conclude.clone(), self.on_success, self.on_error);
        let told = move |outcome: &Arc<Outcome>| tell(&conclude(outcome), show, on_success, on_error);
        let on_done: Option<OnDone> = match &self.finish {
            None if !tells => None,
            None => Some(Box::new(told)),
            Some(checkpointer) => {
                let (checkpointer, callbacks) = (checkpointer.clone(), self.engine.callbacks());
                Some(Box::new(move |outcome| {
                    let (promise, over) = (callbacks.promise(), outcome.clone());
                    checkpointer.when_finished(outcome, promise, Box::new(move || told(&over)));
                }))
            }
        };
        let job = self.plan.submit(self.engine, &self.options, on_done)?;
        Ok(Pending::new(job, restored, self.conclude, self.finish))
    }
}
