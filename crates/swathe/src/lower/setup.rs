//! What a worker runs when it starts and when it leaves.

use std::any::Any;

use swathe_runtime::{SetupCall, TaskRef};

use super::{
    task::{assert_captures_nothing, conjure},
    wire::Decoder,
};
use crate::{
    Context, Error,
    cross::{column::Columns, over::SetupTask},
};

/// The engine's reference to a function that makes the worker's state of one row of columns.
pub(crate) fn setup_task<F: SetupTask<In, X>, In, X>(_: F) -> Result<TaskRef, Error> {
    assert_captures_nothing::<F>();
    TaskRef::setup(run::<F, In, X>).ok_or(Error::NoCode)
}

fn run<F: SetupTask<In, X>, In, X>(call: &SetupCall<'_>) -> Result<Box<dyn Any>, String> {
    make::<F, In, X>(call).map(|state| Box::new(state) as Box<dyn Any>)
}

/// The engine's reference to a function that is run for what it does: its worker has no state.
pub(crate) fn initializer_task<F: SetupTask<In, X>, In, X>(_: F) -> Result<TaskRef, Error> {
    assert_captures_nothing::<F>();
    TaskRef::setup(run_for_nothing::<F, In, X>).ok_or(Error::NoCode)
}

fn run_for_nothing<F: SetupTask<In, X>, In, X>(call: &SetupCall<'_>) -> Result<Box<dyn Any>, String> {
    make::<F, In, X>(call).map(|_| Box::new(()) as Box<dyn Any>)
}

fn make<F: SetupTask<In, X>, In, X>(call: &SetupCall<'_>) -> Result<F::State, String> {
    let mut columns = F::Columns::attach(&mut Decoder::new(call.params))?;
    let mut strips = columns.strips(0..1)?;
    let args = F::Columns::read(&mut strips, 0)?;
    // SAFETY: this function is private, and `setup_task` and `initializer_task` give the addresses of its callers only to
    // those that have an F.
    let task: F = unsafe { conjure() };
    task.call(&Context::of_setup(call), args)
}

/// The engine's reference to a function that sees the worker's state before the worker leaves.
pub(crate) fn exit_task<F, S>(_: F) -> Result<TaskRef, Error>
where
    F: Fn(&mut S) + Copy + Send + Sync + 'static,
    S: 'static,
{
    assert_captures_nothing::<F>();
    TaskRef::exit_hook(leave::<F, S>).ok_or(Error::NoCode)
}

fn leave<F, S>(state: &mut dyn Any)
where
    F: Fn(&mut S) + Copy + Send + Sync + 'static,
    S: 'static,
{
    if let Some(state) = state.downcast_mut() {
        // SAFETY: this function is private, and `exit_task` gives its address only to those that have an F.
        let hook: F = unsafe { conjure() };
        hook(state);
    }
}
