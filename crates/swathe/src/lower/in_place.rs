//! Results over their inputs.

use bytemuck::Pod;
use swathe_runtime::{Call, Rest, TaskRef};

use super::{
    Finish, Prepared, fail_every, positions, take_state,
    task::{conjure, reference},
};
use crate::{Context, Error, arg::Value, parameters::Parameters, task::Task};

/// The engine's reference to a task that changes elements in place.
pub(crate) fn in_place_task<F, S, W, T, M, N>(task: F) -> Result<TaskRef, Error>
where
    F: Task<S, W::Value, (Value<T>,), M>,
    S: 'static,
    W: Parameters,
    T: Pod + Send + Sync,
    N: Finish<F::Output, Value = T>,
{
    reference(task, run::<F, S, W, T, M, N>)
}

/// The results of a strip. They are copied over the inputs when this is dropped: at the end of the strip, or when the
/// task panics, because the elements before the one that panicked are not run again.
struct Copying<'r, 'a, T: Pod> {
    rest: Rest<'r>,
    results: Vec<T>,
    strip: &'a mut [T],
}

impl<T: Pod> Drop for Copying<'_, '_, T> {
    fn drop(&mut self) {
        let done = self.results.len();
        let (strip, results) = (&mut self.strip[..done], &self.results);
        self.rest.write_back(|| strip.copy_from_slice(results));
        self.rest.set_cursor(done as u64);
    }
}

fn run<F, S, W, T, M, N>(call: &mut Call<'_>)
where
    F: Task<S, W::Value, (Value<T>,), M>,
    S: 'static,
    W: Parameters,
    T: Pod + Send + Sync,
    N: Finish<F::Output, Value = T>,
{
    let mut context = Context::of_call(call);
    let (base, positions) = (context.position, positions(call));
    let len = positions.len();
    let (prepared, mut rest) = match call.cached(Prepared::<(), W, T>::decode) {
        Ok(ready) => ready,
        Err(message) => return call.fail_all(&message),
    };
    let state = take_state::<S>(&mut rest);
    // SAFETY: the engine runs a position in one worker at a time, and the parent gets the array back only when the job
    // is over.
    let strip = unsafe { prepared.output.strip(positions) };
    let (state, strip) = match (state, strip) {
        (Ok(state), Ok(strip)) => (state, strip),
        (Err(message), _) | (_, Err(message)) => return fail_every(&mut rest, len, &message),
    };
    // SAFETY: this trampoline is private, and `in_place_task` gives its address only to those that have an F.
    let task: F = unsafe { conjure() };
    let mut copying = Copying {
        rest,
        results: Vec::with_capacity(len),
        strip,
    };
    for i in 0..len {
        context.position = base + i as u64;
        let before = copying.strip[i];
        let after = N::finish(task.call(state, &prepared.parameters, &context, (before,)));
        copying.results.push(match after {
            Ok(after) => after,
            Err(message) => {
                copying.rest.fail(i as u64, message);
                before
            }
        });
    }
}
