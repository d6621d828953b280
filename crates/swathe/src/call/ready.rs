//! A call that only has to be submitted.

use std::sync::Arc;

use swathe_runtime::{Engine, Job, Outcome};

use crate::call::{
    callbacks::{Callbacks, OnDone},
    job::run,
};
use crate::{
    Result,
    results::pending::{Conclude, Pending},
    resume::Checkpointer,
};

/// A job that is ready to run, and who wants to know of its end.
pub(crate) struct Ready<'p, T> {
    engine: &'p Engine,
    pub(crate) job: Job,
    conclude: Conclude<T>,
    callbacks: Callbacks,
    file: Option<Checkpointed>,
}

/// What brings the results of a job to a file.
struct Checkpointed {
    checkpointer: Arc<Checkpointer>,
    /// Positions that an earlier run has done.
    restored: u64,
}

impl<'p, T: 'static> Ready<'p, T> {
    pub(crate) fn new(
        engine: &'p Engine,
        job: Job,
        callbacks: Callbacks,
        conclude: impl Fn(&Arc<Outcome>) -> Result<T> + Send + Sync + 'static,
    ) -> Self {
        Self {
            engine,
            job,
            conclude: Arc::new(conclude),
            callbacks,
            file: None,
        }
    }

    /// The result is there when this has finished, too; an earlier run has done so many positions.
    pub(crate) fn finished_by(self, checkpointer: Arc<Checkpointer>, restored: u64) -> Self {
        Self {
            file: Some(Checkpointed {
                checkpointer,
                restored,
            }),
            ..self
        }
    }

    /// Runs it, and waits for the end.
    pub(crate) fn wait<R: ?Sized + 'static>(self, show: fn(&T) -> &R) -> Result<T> {
        let callbacks = self.callbacks.of_call()?;
        let outcome = run(self.engine, self.job)?;
        let result = (self.conclude)(&outcome);
        callbacks.tell(&result, show);
        result
    }

    /// Runs it, and does not wait.
    pub(crate) fn start<R: ?Sized + 'static>(mut self, show: fn(&T) -> &R) -> Result<Pending<T>> {
        let callbacks = self.callbacks.of_call()?;
        self.job.traits.attended = true;
        if !callbacks.is_empty() || self.file.is_some() {
            let conclude = self.conclude.clone();
            let told = move |outcome: &Arc<Outcome>| callbacks.tell(&conclude(outcome), show);
            let on_done: OnDone = match &self.file {
                None => Box::new(told),
                Some(file) => {
                    let (checkpointer, callbacks) = (file.checkpointer.clone(), self.engine.callbacks());
                    Box::new(move |outcome| {
                        let (promise, over) = (callbacks.promise(), outcome.clone());
                        checkpointer.when_finished(outcome, promise, Box::new(move || told(&over)));
                    })
                }
            };
            self.job.on_done = Some(on_done);
        }
        let job = self.engine.submit(self.job)?;
        let (finish, restored) = match self.file {
            Some(file) => (Some(file.checkpointer), file.restored),
            None => (None, 0),
        };
        Ok(Pending::new(job, restored, self.conclude, finish))
    }
}
