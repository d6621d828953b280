//! One call of the task for each chunk.

use bytemuck::Pod;
use swathe_runtime::{Call, TaskRef};

use super::{
    Finish, Prepared, fail_every, positions, take_state,
    task::{conjure, reference},
};
use crate::{
    Context, Error,
    arg::{Chunk, ChunkMut},
    column::{Column, Sliced},
    parameters::Parameters,
    task::Task,
};

/// The engine's reference to a task that maps a slice to a slice.
pub(crate) fn chunks_task<F, S, W, A, B, M, N>(task: F) -> Result<TaskRef, Error>
where
    F: Task<S, W::Value, (Chunk<A>, ChunkMut<B>), M>,
    S: 'static,
    W: Parameters,
    A: Pod + Send + Sync,
    B: Pod + Send + Sync,
    N: Finish<F::Output, Value = ()>,
{
    reference(task, run::<F, S, W, A, B, M, N>)
}

fn run<F, S, W, A, B, M, N>(call: &mut Call<'_>)
where
    F: Task<S, W::Value, (Chunk<A>, ChunkMut<B>), M>,
    S: 'static,
    W: Parameters,
    A: Pod + Send + Sync,
    B: Pod + Send + Sync,
    N: Finish<F::Output, Value = ()>,
{
    let context = Context::of_call(call);
    let positions = positions(call);
    let decode = |bytes: &'_ [u8]| {
        let mut wire = super::wire::Decoder::new(bytes);
        let is_fresh = wire.pod::<u64>()? != 0;
        Prepared::<(Sliced<A>,), W, B>::decode(wire.bytes()?).map(|prepared| (is_fresh, prepared))
    };
    let ((is_fresh, prepared), mut rest) = match call.cached(decode) {
        Ok(ready) => ready,
        Err(message) => return call.fail_all(&message),
    };
    let state = take_state::<S>(&mut rest);
    let input = prepared.columns.0.strip(positions.clone());
    // SAFETY: the engine runs a chunk in one worker at a time, and the parent looks at a slab only when its job is
    // over.
    let output = unsafe { prepared.output.strip(positions) };
    // SAFETY: this trampoline is private, and `chunks_task` gives its address only to those that have an F.
    let task: F = unsafe { conjure() };
    let result = match (state, input, output) {
        (Ok(state), Ok(input), Ok(output)) => {
            // An earlier job, or an earlier attempt, has written here.
            if !*is_fresh || context.attempt() > 1 {
                output.fill(B::zeroed());
            }
            N::finish(task.call(state, &prepared.parameters, &context, (input, output)))
        }
        (Err(message), ..) | (_, Err(message), _) | (.., Err(message)) => Err(message),
    };
    if let Err(message) = result {
        // The chunk fails as one.
        fail_every(&mut rest, 1, &message);
    }
}
