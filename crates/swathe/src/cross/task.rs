//! Which functions are tasks.

use std::marker::PhantomData;

use crate::{
    Context,
    cross::arg::{Arg, Args, ByValue},
};

/// A function that worker processes can run: a `fn` item or a closure that captures nothing.
///
/// Before the arguments `A` that come from the input it may take, in this order, any of: `&mut S`, the worker's state
/// (see [`Builder::state`](crate::Builder::state)); `&P`, the parameters of the call (see
/// [`Pool::map_with`](crate::Pool::map_with)); and a `&`[`Context`]. Which of them it takes is read from its
/// signature: `M` and `S`, `P`, `A` are inferred. Closures must name the types of their arguments.
///
/// Only the *type* of a task crosses to the workers, so it can have no captured values; one that has any is refused when
/// the program is compiled. (A captured value without a size has no bytes either, and is let pass: it is taken to be valid in
/// every process of the program, also in one in which nothing has made it.)
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no task for these arguments",
    label = "this function does not fit the input `{A}`",
    note = "a task is a `fn` or a closure that captures nothing, with the types of its arguments written out: \
            optionally `&mut State` (of the pool), `&Parameters` (of `map_with`) and `&swathe::Context`, in this \
            order, then one argument for each column of the input: the element by value, or `&str` for text",
    note = "in arguments `{A}`, `ByValue<T>` stands for `T` and `ByStr` for `&str`"
)]
pub trait Task<S, P, A: Args, M>: Copy + Send + Sync + 'static {
    /// What it returns.
    type Output;

    /// Runs it.
    #[doc(hidden)]
    fn call(self, state: &mut S, parameters: &P, context: &Context, args: A::Values<'_>) -> Self::Output;
}

/// How a task is called: which of state, parameters and context it takes, and what it returns.
#[derive(Debug)]
pub struct Form<L, R>(PhantomData<(L, R)>);

/// As [`Form`], for a function without arguments over an input of `()`.
#[derive(Debug)]
pub struct Nullary<L, R>(PhantomData<(L, R)>);

/// The task takes the worker's state.
#[derive(Debug)]
pub enum TakesState {}
/// The task takes the parameters of the call.
#[derive(Debug)]
pub enum TakesParameters {}
/// The task takes a [`Context`].
#[derive(Debug)]
pub enum TakesContext {}

/// One form of task over some arguments; see `forms`.
macro_rules! form {
    ($form:ident<[$($marker:ident),*]>($($leading:ident: $Leading:ty),*) [$($lifetime:lifetime),*] [$Args:ty] $args:ident
     ($($A:ident $a:ident),*)) => {
        impl<F, S, P, R, $($A: Arg),*> Task<S, P, $Args, $form<($($marker,)*), R>> for F
        where
            F: for<'a, $($lifetime),*> Fn($($Leading,)* $($A::Of<'a>),*) -> R + Copy + Send + Sync + 'static,
        {
            type Output = R;

            #[inline(always)]
            #[allow(unused_variables, reason = "not every form uses every argument")]
            fn call(self, state: &mut S, parameters: &P, context: &Context, $args: <$Args as Args>::Values<'_>) -> R {
                let ($($a,)* ..) = $args;
                form!(@call self state parameters context [$($marker),*] ($($a),*))
            }
        }
    };
    (@call $f:ident $s:ident $p:ident $c:ident [] ($($a:ident),*)) => { $f($($a),*) };
    (@call $f:ident $s:ident $p:ident $c:ident [TakesState] ($($a:ident),*)) => { $f($s, $($a),*) };
    (@call $f:ident $s:ident $p:ident $c:ident [TakesParameters] ($($a:ident),*)) => { $f($p, $($a),*) };
    (@call $f:ident $s:ident $p:ident $c:ident [TakesContext] ($($a:ident),*)) => { $f($c, $($a),*) };
    (@call $f:ident $s:ident $p:ident $c:ident [TakesState, TakesParameters] ($($a:ident),*)) => { $f($s, $p, $($a),*) };
    (@call $f:ident $s:ident $p:ident $c:ident [TakesState, TakesContext] ($($a:ident),*)) => { $f($s, $c, $($a),*) };
    (@call $f:ident $s:ident $p:ident $c:ident [TakesParameters, TakesContext] ($($a:ident),*)) => { $f($p, $c, $($a),*) };
    (@call $f:ident $s:ident $p:ident $c:ident [TakesState, TakesParameters, TakesContext] ($($a:ident),*)) => {
        $f($s, $p, $c, $($a),*)
    };
}

/// The eight forms of task over these arguments. (`P` is written `&'p P` in each, so no form can be mistaken for
/// another; were a parameter type equal to `Context`, the two forms would be ambiguous and the compiler would say so.)
macro_rules! forms {
    ($form:ident [$Args:ty] ($($A:ident $a:ident),*)) => {
        form!($form<[]>() [] [$Args] args ($($A $a),*));
        form!($form<[TakesState]>(s: &'s mut S) ['s] [$Args] args ($($A $a),*));
        form!($form<[TakesParameters]>(p: &'p P) ['p] [$Args] args ($($A $a),*));
        form!($form<[TakesContext]>(c: &'c Context) ['c] [$Args] args ($($A $a),*));
        form!($form<[TakesState, TakesParameters]>(s: &'s mut S, p: &'p P) ['s, 'p] [$Args] args ($($A $a),*));
        form!($form<[TakesState, TakesContext]>(s: &'s mut S, c: &'c Context) ['s, 'c] [$Args] args ($($A $a),*));
        form!($form<[TakesParameters, TakesContext]>(p: &'p P, c: &'c Context) ['p, 'c] [$Args] args ($($A $a),*));
        form!($form<[TakesState, TakesParameters, TakesContext]>(s: &'s mut S, p: &'p P, c: &'c Context) ['s, 'p, 'c]
            [$Args] args ($($A $a),*));
    };
}

/// A number of arguments.
macro_rules! arity {
    ($($A:ident $a:ident),*) => {
        impl<$($A: Arg),*> Args for ($($A,)*) {
            type Values<'a> = ($($A::Of<'a>,)*);
        }
        forms!(Form [($($A,)*)] ($($A $a),*));
    };
}

arity!();
arity!(A0 a0);
arity!(A0 a0, A1 a1);
arity!(A0 a0, A1 a1, A2 a2);
arity!(A0 a0, A1 a1, A2 a2, A3 a3);
arity!(A0 a0, A1 a1, A2 a2, A3 a3, A4 a4);
arity!(A0 a0, A1 a1, A2 a2, A3 a3, A4 a4, A5 a5);
arity!(A0 a0, A1 a1, A2 a2, A3 a3, A4 a4, A5 a5, A6 a6);
arity!(A0 a0, A1 a1, A2 a2, A3 a3, A4 a4, A5 a5, A6 a6, A7 a7);

// `pool.apply(std::process::id, ())`: a function of nothing over an input of nothings.
forms!(Nullary [(ByValue<()>,)] ());
