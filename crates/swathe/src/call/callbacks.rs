//! Functions that are told of a call's end.

use std::{fmt, marker::PhantomData, sync::Arc};

use swathe_runtime::{Outcome, user_code::contain};

use crate::{Error, Result};

/// Who wants to see the result `T`: [`Silent`] or a [`Callback`].
pub trait OnSuccess<T: ?Sized>: Send + 'static {
    /// Whether there is somebody to tell.
    #[doc(hidden)]
    const TELLS: bool = true;

    #[doc(hidden)]
    fn call(self, result: &T);
}

/// Nobody is told.
#[derive(Debug)]
pub struct Silent;

/// A function is called with the result; see [`Batch::on_success`](crate::Batch::on_success).
pub struct Callback<T: ?Sized, F>(pub(crate) F, pub(crate) PhantomData<fn(&T)>);

impl<T: ?Sized> OnSuccess<T> for Silent {
    const TELLS: bool = false;

    fn call(self, _: &T) {}
}

impl<T: ?Sized + 'static, F: FnOnce(&T) + Send + 'static> OnSuccess<T> for Callback<T, F> {
    fn call(self, result: &T) {
        (self.0)(result);
    }
}

impl<T: ?Sized, F> fmt::Debug for Callback<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Callback")
    }
}

/// Runs when a job is over.
pub(crate) type OnDone = Box<dyn FnOnce(&Arc<Outcome>) + Send>;

pub(crate) type OnError = Box<dyn FnOnce(&Error) + Send>;

/// Calls back.
pub(crate) fn tell<T, R: ?Sized>(
    result: &Result<T>,
    show: fn(&T) -> &R,
    on_success: impl OnSuccess<R>,
    on_error: Option<OnError>,
) {
    contain("a callback", || match result {
        Ok(value) => on_success.call(show(value)),
        Err(error) => on_error.into_iter().for_each(|callback| callback(error)),
    });
}
