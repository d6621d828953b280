//! How workers call a task, whatever its input was made of.
#![allow(
    unnameable_types,
    reason = "they seal the traits of tasks that fit an input: nobody outside can name them"
)]

use std::marker::PhantomData;

use bytemuck::Pod;
use swathe_runtime::error_chain;

use crate::{
    Context,
    cross::{
        arg::{Args, Chunk, ChunkMut},
        column::Columns,
        parameters::Parameters,
        task::Task,
    },
};

/// The arguments that a task gets from these columns; `'a` is the time of one call.
pub(crate) type ArgsOf<'a, C> = <<C as Columns>::Args as Args>::Values<'a>;

/// A task, the columns that its arguments come from, and what its return value means. Trampolines are made for this, and so
/// do not depend on what the columns were made of.
pub trait Callable<S, P: Parameters>: 'static {
    type Task: Copy + Send + Sync + 'static;
    type Columns: Columns;
    type Value;

    /// Runs the task: its value, or the text of its error.
    fn call(
        task: Self::Task,
        state: &mut S,
        parameters: &P::Value,
        context: &Context,
        args: ArgsOf<'_, Self::Columns>,
    ) -> Result<Self::Value, String>;
}

/// Task `F` over columns `C`. `M` is its form, and `N` says whether what it returns [`IsValue`] or [`IsResult`].
#[derive(Debug)]
pub struct Bound<F, C, M, N>(PhantomData<(F, C, M, N)>);

/// What the task returns is the value.
#[derive(Debug)]
pub enum IsValue {}

/// What the task returns is a `Result`, and its error is the failure of the element.
#[derive(Debug)]
pub enum IsResult {}

/// [`Callable`] for tasks that return `$R`, of which `$finish` makes a `Result<B, String>`.
macro_rules! callable {
    ([$($E:ident)?] $N:ty, $R:ty, $finish:expr) => {
        impl<F, C, M, S, P, B, $($E)?> Callable<S, P> for Bound<F, C, M, $N>
        where
            F: Task<S, P::Value, C::Args, M, Output = $R>,
            C: Columns,
            M: 'static,
            P: Parameters,
            $($E: Into<Box<dyn std::error::Error>>,)?
        {
            type Task = F;
            type Columns = C;
            type Value = B;

            #[inline(always)]
            fn call(
                task: F,
                state: &mut S,
                parameters: &P::Value,
                context: &Context,
                args: ArgsOf<'_, C>,
            ) -> Result<B, String> {
                $finish(task.call(state, parameters, context, args))
            }
        }
    };
}

callable!([] IsValue, B, Ok);
callable!([E] IsResult, Result<B, E>, or_text);

/// As [`Callable`], for a task over chunks.
pub trait ChunkCallable<S, P: Parameters>: 'static {
    type Task: Copy + Send + Sync + 'static;
    type Given: Pod + Send + Sync;
    type Element: Pod + Send + Sync;

    fn call(
        task: Self::Task,
        state: &mut S,
        parameters: &P::Value,
        context: &Context,
        input: &[Self::Given],
        output: &mut [Self::Element],
    ) -> Result<(), String>;
}

/// [`ChunkCallable`] for tasks that return `$R`, of which `$finish` makes a `Result<(), String>`.
macro_rules! chunk_callable {
    ([$($E:ident)?] $N:ty, $R:ty, $finish:expr) => {
        impl<F, S, P, A, B, M, $($E)?> ChunkCallable<S, P> for Bound<F, (Chunk<A>, ChunkMut<B>), M, $N>
        where
            P: Parameters,
            A: Pod + Send + Sync,
            B: Pod + Send + Sync,
            M: 'static,
            F: Task<S, P::Value, (Chunk<A>, ChunkMut<B>), M, Output = $R>,
            $($E: Into<Box<dyn std::error::Error>>,)?
        {
            type Task = F;
            type Given = A;
            type Element = B;

            fn call(
                task: F,
                state: &mut S,
                parameters: &P::Value,
                context: &Context,
                input: &[A],
                output: &mut [B],
            ) -> Result<(), String> {
                $finish(task.call(state, parameters, context, (input, output)))
            }
        }
    };
}

chunk_callable!([] IsValue, (), Ok);
chunk_callable!([E] IsResult, Result<(), E>, or_text);

/// A value, or the text of an error and of its causes.
#[inline(always)]
pub(crate) fn or_text<T, E: Into<Box<dyn std::error::Error>>>(result: Result<T, E>) -> Result<T, String> {
    result.map_err(|error| error_chain(&*error.into()))
}
