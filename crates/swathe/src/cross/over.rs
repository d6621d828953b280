//! Which tasks fit which inputs: what the verbs ask of a task.
//!
//! A verb names these traits and nothing of how values cross. All that it must know of a task and its input is found by them,
//! and then both types are done with: what is left is a [`TaskRef`](swathe_runtime::TaskRef), a [`Lowered`] input, and the type of
//! the values.
//!
//! Each implementation is for one input, so that there is never more than one to choose from: the compiler then says which
//! of its conditions is not met, and not merely that there is none.

use bytemuck::Pod;
use swathe_memory::{Array, ArrayMut, Memory};

use crate::{
    Context, Error,
    cross::{
        arg::{ByValue, Chunk, ChunkMut},
        callable::{ArgsOf, Bound, Callable, ChunkCallable, IsResult, IsValue, or_text},
        column::{Columns, RowsOf, Sliced},
        datum::{Collection, Datum},
        input::{Input, StarInput},
        item::{Arguments, Lowered},
        parameters::{Parameters, Without},
        seal::Seal,
        task::Task,
    },
};

/// Each element of an input, as [`Pool::map`](crate::Pool::map) has it.
#[derive(Clone, Copy, Debug)]
pub struct Each<I>(pub I);

/// Each row of columns or tuples, as [`Pool::starmap`](crate::Pool::starmap) has them.
#[derive(Clone, Copy, Debug)]
pub struct Star<I>(pub I);

/// The arguments of one call, as [`Pool::apply`](crate::Pool::apply) has them.
#[derive(Clone, Copy, Debug)]
pub struct Once<A>(pub A);

/// Each row of an array along one of its axes, as [`Pool::map_rows`](crate::Pool::map_rows) has them.
#[derive(Clone, Debug)]
pub struct EachRow<T: Pod> {
    /// The array.
    pub array: Array<T>,
    /// The axis whose positions are the job's.
    pub axis: usize,
}

/// Each of so many workers, as [`Pool::run_per_worker`](crate::Pool::run_per_worker) has them.
#[derive(Clone, Copy, Debug)]
pub struct EachWorker(pub usize);

/// An input of a task that returns a `Result`, whose error is the failure of that element: the `try_` verbs.
#[derive(Clone, Copy, Debug)]
pub struct Fallible<In>(pub In);

/// A task that fits an input, and whose results can cross: what the verbs ask for. Every [`Task`] that does is one; the trait
/// is sealed.
///
/// `In` is what the task is called with: [`Each`]`<I>` element of an [`Input`], each row of a [`StarInput`] ([`Star`]), the
/// [`Arguments`] of a single call ([`Once`]), [`EachRow`] of an array, or once in [`EachWorker`]; wrapped in [`Fallible`] where
/// the task returns a `Result`. `S` is the workers' state and `P` the parameters of the call. `X` is inferred: how the
/// elements cross, which of state, parameters and [`Context`] the task takes, and how the results cross. Functions of one's
/// own over pools name it and pass it on:
///
/// ```
/// use swathe::{Array, Pool, task::{Each, TaskOver}};
///
/// /// Calls the task twice on each element, and gives the first results.
/// fn map_twice<F, I, X>(pool: &Pool, task: F, input: I) -> swathe::Result<F::Values>
/// where
///     I: Clone,
///     F: TaskOver<Each<I>, X>,
/// {
///     let first = pool.map(task, input.clone())?;
///     pool.map(task, input)?;
///     Ok(first)
/// }
///
/// fn main() -> swathe::Result<()> {
///     swathe::init();
///     let pool = Pool::builder().processes(2).build()?;
///     let squares: Array<i64> = map_twice(&pool, |x: i64| x * x, 0..3)?;
///     assert_eq!(squares, [0, 1, 4]);
///     Ok(())
/// }
/// ```
///
/// In a function that is generic over the type of the results nobody can infer how they cross; plain old data cross as
/// [`Plain`](crate::task::Plain):
///
/// ```
/// use bytemuck::Pod;
/// use swathe::{Array, Pool, task::Plain};
///
/// fn zeros<T: Pod + Send + Sync>(pool: &Pool, len: u64) -> swathe::Result<Array<T>> {
///     pool.map::<_, _, (_, _, Plain), _>(|_: u64| T::zeroed(), 0..len)
/// }
/// # fn main() -> swathe::Result<()> {
/// #     swathe::init();
/// #     let pool = Pool::builder().processes(1).build()?;
/// #     assert_eq!(zeros::<u8>(&pool, 2)?, [0, 0]);
/// #     Ok(())
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "this task does not fit what it is called with: `{In}`",
    label = "it does not take what `{In}` gives, or its types are not known",
    note = "a task is a `fn` or a closure that captures nothing, with the types of its arguments written out: first, if it wants \
            them, `&mut State` (of the pool), `&Parameters` (of the call) and `&swathe::Context`, in this order; then one \
            argument for each column of the input",
    note = "elements come by value: those of a `Vec<T>`, `&[T]`, `Array<T>` or a range as `T`; texts of a `&[String]` or a `Vec<&str>` \
            as `&str`, those of a `Vec<String>` as `String`",
    note = "parameters come as a reference to the very type that was given: `&Vec<f64>` for a `Vec<f64>`, and not `&[f64]`"
)]
pub trait TaskOver<In, X, S = (), P: Parameters = Without>: Copy + Send + Sync + 'static {
    /// One result.
    type Value: Datum<Self::Kind, Output = Self::Values>;
    /// All results by position: an [`Array`] of plain data, [`Records`](crate::Records) of everything else.
    type Values: Collection<Item = Self::Value>;

    /// How a result crosses.
    #[doc(hidden)]
    type Kind: 'static;
    /// How workers call it.
    #[doc(hidden)]
    type Bound: Callable<S, P, Task = Self, Value = Self::Value>;

    #[doc(hidden)]
    fn lower(input: In, memory: &Memory) -> Result<Lowered, Error>;
}

/// [`TaskOver`] for tasks that return `$R`, which `$N` says what it is.
macro_rules! task_over {
    (
        [$($generics:ident),*] [$($E:ident)?] [$($bounds:tt)*] $In:ty, $X:ty, $Columns:ty,
        |$input:pat_param, $memory:ident| $lower:expr, $R:ty, $N:ty
    ) => {
        impl<F, S, P, B, M, K, $($generics,)* $($E)?> TaskOver<$In, ($X, M, K), S, P> for F
        where
            $($bounds)*
            P: Parameters,
            F: Task<S, P::Value, <$Columns as Columns>::Args, M, Output = $R>,
            B: Datum<K>,
            M: 'static,
            K: 'static,
            $($E: Into<Box<dyn std::error::Error>>,)?
        {
            type Value = B;
            type Values = B::Output;
            type Kind = K;
            type Bound = Bound<F, $Columns, M, $N>;

            fn lower($input: $In, $memory: &Memory) -> Result<Lowered, Error> {
                $lower
            }
        }
    };
}

/// Tasks over one kind of input, of values and of results.
macro_rules! over {
    (
        [$($generics:ident),*] $In:ty, $X:ty, where [$($bounds:tt)*], $Columns:ty,
        |$input:ident, $memory:ident| $lower:expr
    ) => {
        task_over!([$($generics),*] [] [$($bounds)*] $In, $X, $Columns, |$input, $memory| $lower, B, IsValue);
        task_over!([$($generics),*] [E] [$($bounds)*] Fallible<$In>, $X, $Columns,
            |Fallible($input), $memory| $lower, Result<B, E>, IsResult);
    };
}

over!([I, KI] Each<I>, KI, where [I: Input<KI>,], (I::Column,), |input, memory| input.0.lower(memory));
over!([I, KI] Star<I>, KI, where [I: StarInput<KI>,], I::Columns, |input, memory| input.0.lower(memory));
over!([A, KA] Once<A>, KA, where [A: Arguments<KA>,], A::Columns, |input, memory| input.0.lower_arguments(memory));
over!([T] EachRow<T>, (), where [T: Pod + Send + Sync,], (RowsOf<T>,), |input, _memory| lower_rows(input));
over!([] EachWorker, (), where [], (), |input, _memory| Ok(Lowered::count(input.0 as u64)));

/// The array, and the axis whose positions are the job's.
fn lower_rows<T: Pod + Send + Sync>(rows: EachRow<T>) -> Result<Lowered, Error> {
    let EachRow { array, axis } = rows;
    let axes = array.shape().len();
    let len = *array.shape().get(axis).ok_or(Error::Axis { axis, axes })?;
    let mut lowered = Lowered::array(array)?;
    lowered.wire.pod(&(axis as u64));
    lowered.len = len as u64;
    Ok(lowered)
}

/// A task over whole chunks of plain data: it gets a slice of the input and the slice of the output that belongs to it, as
/// [`Pool::map_chunks`](crate::Pool::map_chunks) has them. Every [`Task`] of these arguments is one; the trait is sealed.
///
/// `In` is [`Each`]`<I>` of an [`Input`], wrapped in [`Fallible`] where the task returns a `Result<(), _>`; the rest is as in
/// [`TaskOver`].
#[diagnostic::on_unimplemented(
    message = "this task does not fit what it is called with: chunks of `{In}`",
    label = "it does not take a chunk of the input and one of the output",
    note = "behind state, parameters and context, if it wants them, it takes `&[A]` and `&mut [B]` of plain data \
            (`bytemuck::Pod`), and returns nothing (`try_map_chunks`: a `Result<(), _>`)"
)]
pub trait ChunkTask<In, X, S = (), P: Parameters = Without>: Copy + Send + Sync + 'static {
    /// An element of the output.
    type Element: Pod + Send + Sync;

    /// How workers call it.
    #[doc(hidden)]
    type Bound: ChunkCallable<S, P, Task = Self, Element = Self::Element>;

    #[doc(hidden)]
    fn lower(input: In, memory: &Memory) -> Result<Lowered, Error>;
}

/// [`ChunkTask`] for tasks that return `$R`, which `$N` says what it is.
macro_rules! chunk_task {
    ([$($E:ident)?] $In:ty, $input:ident => $lowered:expr, $R:ty, $N:ty) => {
        impl<F, S, P, I, A, B, M, KI, $($E)?> ChunkTask<$In, (KI, A, B, M), S, P> for F
        where
            P: Parameters,
            I: Input<KI, Column = Sliced<A>>,
            A: Pod + Send + Sync,
            B: Pod + Send + Sync,
            M: 'static,
            F: Task<S, P::Value, (Chunk<A>, ChunkMut<B>), M, Output = $R>,
            $($E: Into<Box<dyn std::error::Error>>,)?
        {
            type Element = B;
            type Bound = Bound<F, (Chunk<A>, ChunkMut<B>), M, $N>;

            fn lower($input: $In, memory: &Memory) -> Result<Lowered, Error> {
                $lowered.lower(memory)
            }
        }
    };
}

chunk_task!([] Each<I>, input => input.0, (), IsValue);
chunk_task!([E] Fallible<Each<I>>, input => input.0.0, Result<(), E>, IsResult);

/// A task that replaces each element of an array by another of its type, as
/// [`Pool::map_in_place`](crate::Pool::map_in_place) has them. Every [`Task`] that does is one; the trait is sealed.
///
/// `In` is [`Each`]`<ArrayMut<T>>`, wrapped in [`Fallible`] where the task returns a `Result`; the rest is as in [`TaskOver`].
#[diagnostic::on_unimplemented(
    message = "this task does not fit what it is called with: `{In}`",
    label = "it does not make an element of another",
    note = "behind state, parameters and context, if it wants them, it takes a `T`, and returns a `T` (`try_map_in_place`: a \
            `Result<T, _>`)"
)]
pub trait InPlaceTask<In, X, S = (), P: Parameters = Without>: Copy + Send + Sync + 'static {
    /// An element.
    type Element: Pod + Send + Sync;

    #[doc(hidden)]
    fn call(
        self,
        state: &mut S,
        parameters: &P::Value,
        context: &Context,
        element: Self::Element,
        seal: Seal,
    ) -> Result<Self::Element, String>;
}

/// [`InPlaceTask`] for tasks that return `$R`, of which `$finish` makes a `Result<T, String>`.
macro_rules! in_place_task {
    ([$($E:ident)?] $In:ty, $R:ty, $finish:expr) => {
        impl<F, S, P, T, M, $($E)?> InPlaceTask<$In, M, S, P> for F
        where
            P: Parameters,
            T: Pod + Send + Sync,
            F: Task<S, P::Value, (ByValue<T>,), M, Output = $R>,
            $($E: Into<Box<dyn std::error::Error>>,)?
        {
            type Element = T;

            #[inline(always)]
            fn call(self, state: &mut S, parameters: &P::Value, context: &Context, element: T, _: Seal) -> Result<T, String> {
                $finish(Task::call(self, state, parameters, context, (element,)))
            }
        }
    };
}

in_place_task!([] Each<ArrayMut<T>>, T, Ok);
in_place_task!([E] Fallible<Each<ArrayMut<T>>>, Result<T, E>, or_text);

/// A task that combines two values, the left and the right one, as [`Pool::map_reduce`](crate::Pool::map_reduce) has them.
/// Every [`Task`] that does is one; the trait is sealed. The parameters are as in [`TaskOver`].
#[diagnostic::on_unimplemented(
    message = "this task does not combine two `{B}` to one",
    label = "it does not take two `{B}`",
    note = "behind state, parameters and context, if it wants them, it takes two values that the first task returned, and returns one"
)]
pub trait CombineTask<B, X, S = (), P: Parameters = Without>: Copy + Send + Sync + 'static {
    #[doc(hidden)]
    fn call(
        self,
        state: &mut S,
        parameters: &P::Value,
        context: &Context,
        left: B,
        right: B,
        seal: Seal,
    ) -> B;
}

impl<F, S, P, B, M> CombineTask<B, M, S, P> for F
where
    P: Parameters,
    B: 'static,
    F: Task<S, P::Value, (ByValue<B>, ByValue<B>), M, Output = B>,
{
    #[inline(always)]
    fn call(self, state: &mut S, parameters: &P::Value, context: &Context, left: B, right: B, _: Seal) -> B {
        Task::call(self, state, parameters, context, (left, right))
    }
}

/// A function that makes the state of a worker, as [`Builder::state`](crate::Builder::state) has it. Every [`Task`] without
/// state and parameters is one; the trait is sealed.
///
/// `In` is its [`Arguments`] in [`Once`], wrapped in [`Fallible`] where it returns a `Result`; `X` is inferred.
#[diagnostic::on_unimplemented(
    message = "this function does not fit its arguments: `{In}`",
    label = "it does not take what was given to it",
    note = "it is a `fn` or a closure that captures nothing, with the types of its arguments written out: `&swathe::Context`, if it \
            wants that, then the arguments, by value"
)]
pub trait SetupTask<In, X>: Copy + Send + Sync + 'static {
    /// What it makes.
    type State: 'static;

    #[doc(hidden)]
    type Columns: Columns;

    #[doc(hidden)]
    fn lower(arguments: In, memory: &Memory) -> Result<Lowered, Error>;

    #[doc(hidden)]
    fn call(self, context: &Context, args: ArgsOf<'_, Self::Columns>) -> Result<Self::State, String>;
}

/// [`SetupTask`] for functions that return `$R`, of which `$finish` makes a `Result<T, String>`.
macro_rules! setup_task {
    ([$($E:ident)?] $In:ty, $arguments:ident => $lowered:expr, $R:ty, $finish:expr) => {
        impl<F, A, T, M, KA, $($E)?> SetupTask<$In, (KA, M)> for F
        where
            A: Arguments<KA>,
            T: 'static,
            F: Task<(), (), <A::Columns as Columns>::Args, M, Output = $R>,
            $($E: Into<Box<dyn std::error::Error>>,)?
        {
            type State = T;
            type Columns = A::Columns;

            fn lower($arguments: $In, memory: &Memory) -> Result<Lowered, Error> {
                $lowered.lower_arguments(memory)
            }

            fn call(self, context: &Context, args: ArgsOf<'_, A::Columns>) -> Result<T, String> {
                $finish(Task::call(self, &mut (), &(), context, args))
            }
        }
    };
}

setup_task!([] Once<A>, arguments => arguments.0, T, Ok);
setup_task!([E] Fallible<Once<A>>, arguments => arguments.0.0, Result<T, E>, or_text);
