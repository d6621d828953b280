//! What a worker runs when it starts and when it leaves.

use std::any::Any;

use swathe_runtime::{SetupCall, TaskRef};

use super::{
    Finish,
    task::{assert_captures_nothing, conjure},
    wire::Decoder,
};
use crate::{
    Context, Error,
    cross::{column::Columns, task::Task},
};

/// The engine's reference to a function that makes the worker's state of one row of columns.
pub(crate) fn setup_task<F, C, M, N>(_: F) -> Result<TaskRef, Error>
where
    F: Task<(), (), C::Args, M>,
    C: Columns,
    N: Finish<F::Output, Value: 'static>,
{
    assert_captures_nothing::<F>();
    TaskRef::setup(run::<F, C, M, N>).ok_or(Error::NoCode)
}

fn run<F, C, M, N>(call: &SetupCall<'_>) -> Result<Box<dyn Any>, String>
where
    F: Task<(), (), C::Args, M>,
    C: Columns,
    N: Finish<F::Output, Value: 'static>,
{
    let mut columns = C::attach(&mut Decoder::new(call.params))?;
    let mut strips = columns.strips(0..1)?;
    let args = C::read(&mut strips, 0)?;
    // SAFETY: this function is private, and `setup_task` gives its address only to those that have an F.
    let task: F = unsafe { conjure() };
    let state = N::finish(task.call(&mut (), &(), &Context::of_setup(call), args))?;
    Ok(Box::new(state))
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
