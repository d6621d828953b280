//! Functions that are told of a call's end.

use std::{
    any::{Any, type_name},
    sync::Arc,
};

use swathe_runtime::{Outcome, user_code::contain};

use crate::{Error, Result};

/// Runs when a job is over.
pub(crate) type OnDone = Box<dyn FnOnce(&Arc<Outcome>) + Send>;

type OnError = Box<dyn FnOnce(&Error) + Send>;

type OnSuccess<R> = Box<dyn FnOnce(&R) + Send>;

/// Who wants to be told of the end of a call whose result is not known yet.
#[derive(Default)]
pub(crate) struct Callbacks {
    /// An [`OnSuccess`] of some type, and that type's name.
    on_success: Option<(Box<dyn Any + Send>, &'static str)>,
    pub(crate) on_error: Option<OnError>,
}

impl Callbacks {
    pub(crate) fn set_on_success<R: ?Sized + 'static>(&mut self, callback: impl FnOnce(&R) + Send + 'static) {
        let callback: OnSuccess<R> = Box::new(callback);
        self.on_success = Some((Box::new(callback), type_name::<R>()));
    }

    /// For a stream, which has no end to be told of.
    pub(crate) fn of_stream(self) -> Result<()> {
        match self.on_success.is_none() && self.on_error.is_none() {
            true => Ok(()),
            false => Err(Error::StreamCallback),
        }
    }

    /// For a call that shows an `R`; refused if the callback takes something else.
    pub(crate) fn of_call<R: ?Sized + 'static>(self) -> Result<CallbacksOf<R>> {
        let typed = |(callback, takes): (Box<dyn Any + Send>, _)| {
            let gives = type_name::<R>();
            let callback = callback.downcast::<OnSuccess<R>>();
            callback
                .map(|callback| *callback)
                .map_err(|_| Error::Callback { takes, gives })
        };
        Ok(CallbacksOf {
            on_success: self.on_success.map(typed).transpose()?,
            on_error: self.on_error,
        })
    }
}

/// Who wants to be told of the end of a call that shows an `R`.
pub(crate) struct CallbacksOf<R: ?Sized> {
    on_success: Option<OnSuccess<R>>,
    on_error: Option<OnError>,
}

impl<R: ?Sized> CallbacksOf<R> {
    pub(crate) fn is_empty(&self) -> bool {
        self.on_success.is_none() && self.on_error.is_none()
    }

    pub(crate) fn tell<T>(self, result: &Result<T>, show: fn(&T) -> &R) {
        contain("a callback", || match result {
            Ok(value) => self
                .on_success
                .into_iter()
                .for_each(|callback| callback(show(value))),
            Err(error) => self.on_error.into_iter().for_each(|callback| callback(error)),
        });
    }
}
