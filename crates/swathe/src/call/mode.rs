//! Whether a call fails at the first failure, or gives what there is.

use std::sync::Arc;

use swathe_runtime::{End, Outcome};

use crate::{
    Partial, Result,
    cross::{datum::Collection, seal::Sealed},
    error::JobError,
};

/// What a call gives when positions fail: [`Strict`] or [`Collect`]. The trait is sealed.
pub trait Mode: Sealed + 'static {
    /// What a call that returns `O` gives.
    type Of<O: Collection>: Send + Sync + 'static;
    /// What `on_success` is shown of it.
    type Shown<O: Collection>: ?Sized + 'static;

    #[doc(hidden)]
    fn conclude<O: Collection>(outcome: &Arc<Outcome>, values: O) -> Result<Self::Of<O>>;
    #[doc(hidden)]
    fn show<O: Collection>(of: &Self::Of<O>) -> &Self::Shown<O>;
}

/// All values, or an error.
#[derive(Debug)]
pub enum Strict {}

/// The values there are, and why the others are missing; see [`Batch::collect_errors`](crate::Batch::collect_errors).
#[derive(Debug)]
pub enum Collect {}

impl Sealed for Strict {}
impl Sealed for Collect {}

impl Mode for Strict {
    type Of<O: Collection> = O;
    type Shown<O: Collection> = O::Shown;

    fn conclude<O: Collection>(outcome: &Arc<Outcome>, values: O) -> Result<O> {
        if outcome.end == End::Complete && outcome.failures.is_empty() {
            Ok(values)
        } else {
            Err(JobError::new(outcome, Some(Box::new(values))).into())
        }
    }

    fn show<O: Collection>(of: &O) -> &O::Shown {
        of.shown()
    }
}

impl Mode for Collect {
    type Of<O: Collection> = Partial<O>;
    type Shown<O: Collection> = Partial<O>;

    fn conclude<O: Collection>(outcome: &Arc<Outcome>, values: O) -> Result<Partial<O>> {
        Ok(Partial::new(outcome.clone(), values))
    }

    fn show<O: Collection>(of: &Partial<O>) -> &Partial<O> {
        of
    }
}
