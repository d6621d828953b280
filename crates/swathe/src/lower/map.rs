//! One call of the task for each position.

use swathe_runtime::{Call, TaskRef, fault::Point};

use super::{
    Prepared, Progress, Sink, fail_every, positions, take_state,
    task::{conjure, reference},
};
use crate::{
    Context, Error,
    cross::{callable::Callable, column::Columns, datum::Datum, parameters::Parameters},
};

/// The engine's reference to a task that maps arguments to values, which lie in the slab as `K` has them.
pub(crate) fn map_task<C, S, P, K>(task: C::Task) -> Result<TaskRef, Error>
where
    C: Callable<S, P, Value: Datum<K>>,
    S: 'static,
    P: Parameters,
{
    reference(task, run::<C, S, P, K>)
}

fn run<C, S, P, K>(call: &mut Call<'_>)
where
    C: Callable<S, P, Value: Datum<K>>,
    S: 'static,
    P: Parameters,
{
    let mut context = Context::of_call(call);
    let (base, positions) = (context.position, positions(call));
    let len = positions.len();
    let (prepared, mut rest) =
        match call.cached(Prepared::<C::Columns, P, <C::Value as Datum<K>>::Slot>::decode) {
            Ok(ready) => ready,
            Err(message) => return call.fail_all(&message),
        };
    let state = take_state::<S>(&mut rest);
    let strips = prepared.columns.strips(positions.clone());
    // SAFETY: the engine runs a position in one worker at a time, and the parent looks at a slab only when its job is
    // over.
    let output = unsafe { prepared.output.strip(positions) };
    let (state, mut strips, output) = match (state, strips, output) {
        (Ok(state), Ok(strips), Ok(output)) => (state, strips, output),
        (Err(message), ..) | (_, Err(message), _) | (.., Err(message)) => {
            return fail_every(&mut rest, len, &message);
        }
    };
    // SAFETY: this trampoline is private, and `map_task` gives its address only to those that have such a task.
    let task: C::Task = unsafe { conjure() };
    let mut progress = Progress { rest, done: 0 };
    for (i, slot) in output.iter_mut().enumerate() {
        context.position = base + i as u64;
        if cfg!(panic = "abort") {
            progress.rest.set_cursor(i as u64);
        }
        let stored = C::Columns::read(&mut strips, i)
            .and_then(|args| C::call(task, state, &prepared.parameters, &context, args))
            .and_then(|value| {
                Datum::<K>::store(
                    value,
                    &mut Sink {
                        rest: &mut progress.rest,
                        scratch: &mut prepared.scratch,
                    },
                )
            });
        match stored {
            Ok(value) => {
                *slot = value;
                if cfg!(feature = "chaos") && i == 0 {
                    progress.rest.point(Point::Writing);
                }
            }
            Err(message) => progress.rest.fail(i as u64, &message),
        }
        progress.done += 1;
    }
}
