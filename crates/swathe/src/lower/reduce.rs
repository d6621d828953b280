//! Reductions: one value a block of positions, then one value of all blocks.

use swathe_runtime::{Call, TaskRef};

use super::{
    Prepared, Sink, fail_every, positions, take_state,
    task::{assert_captures_nothing, conjure, reference},
};
use crate::{
    Context, Error,
    cross::{
        callable::Callable,
        column::{Columns, Decoded},
        datum::Datum,
        over::CombineTask,
        parameters::Parameters,
        seal::Seal,
    },
};

/// The engine's reference to a task that reduces one block, which is one chunk. `G` combines two values.
pub(crate) fn reduce_task<C, G, Y, S, P, K>(task: C::Task, _: G) -> Result<TaskRef, Error>
where
    C: Callable<S, P, Value: Datum<K>>,
    G: CombineTask<C::Value, Y, S, P>,
    S: 'static,
    P: Parameters,
{
    assert_captures_nothing::<G>();
    reference(task, run_block::<C, G, Y, S, P, K>)
}

fn run_block<C, G, Y, S, P, K>(call: &mut Call<'_>)
where
    C: Callable<S, P, Value: Datum<K>>,
    G: CombineTask<C::Value, Y, S, P>,
    S: 'static,
    P: Parameters,
{
    let mut context = Context::of_call(call);
    let (base, positions) = (context.position, positions(call));
    let len = positions.len();
    let decode = |bytes: &'_ [u8]| {
        let mut wire = super::wire::Decoder::new(bytes);
        let block: u64 = wire.pod()?;
        Prepared::<C::Columns, P, <C::Value as Datum<K>>::Slot>::decode(wire.bytes()?)
            .map(|prepared| (block, prepared))
    };
    let ((block, prepared), mut rest) = match call.cached(decode) {
        Ok(ready) => ready,
        Err(message) => return call.fail_all(&message),
    };
    let slot = positions.start / (*block).max(1) as usize;
    let state = take_state::<S>(&mut rest);
    let strips = prepared.columns.strips(positions);
    // SAFETY: the engine runs a chunk in one worker at a time, a chunk is a block and has a slot of its own, and the
    // parent looks at a slab only when its job is over.
    let output = unsafe { prepared.output.strip(slot..slot + 1) };
    let (state, mut strips, output) = match (state, strips, output) {
        (Ok(state), Ok(strips), Ok(output)) => (state, strips, output),
        // The block fails as one.
        (Err(message), ..) | (_, Err(message), _) | (.., Err(message)) => {
            return fail_every(&mut rest, 1, &message);
        }
    };
    // SAFETY: this trampoline is private, and `reduce_task` gives its address only to those that have such a task and a G.
    let (task, combine): (C::Task, G) = unsafe { (conjure(), conjure()) };
    let mut reduce = || -> Result<(), String> {
        let mut sum = None;
        for i in 0..len {
            context.position = base + i as u64;
            let args = C::Columns::read(&mut strips, i)?;
            let value = C::call(task, state, &prepared.parameters, &context, args)?;
            sum = Some(match sum {
                None => value,
                Some(sum) => combine.call(state, &prepared.parameters, &context, sum, value, Seal),
            });
        }
        if let Some(sum) = sum {
            output[0] = sum.store(&mut Sink {
                rest: &mut rest,
                scratch: &mut prepared.scratch,
            })?;
        }
        Ok(())
    };
    if let Err(message) = reduce() {
        fail_every(&mut rest, 1, &message);
    }
}

/// The engine's reference to a task that combines all of its input into the value of its first position: neighbours,
/// then neighbours of these, and so on.
pub(crate) fn combine_task<G, Y, B, K, S, P>(combine: G) -> Result<TaskRef, Error>
where
    G: CombineTask<B, Y, S, P>,
    B: Datum<K>,
    K: 'static,
    S: 'static,
    P: Parameters,
{
    reference(combine, run_tree::<G, Y, B, K, S, P>)
}

fn run_tree<G, Y, B, K, S, P>(call: &mut Call<'_>)
where
    G: CombineTask<B, Y, S, P>,
    B: Datum<K>,
    K: 'static,
    S: 'static,
    P: Parameters,
{
    let context = Context::of_call(call);
    let decode = |bytes: &'_ [u8]| {
        let mut wire = super::wire::Decoder::new(bytes);
        let count: u64 = wire.pod()?;
        Prepared::<(Decoded<B, K>,), P, B::Slot>::decode(wire.bytes()?).map(|prepared| (count, prepared))
    };
    let ((count, prepared), mut rest) = match call.cached(decode) {
        Ok(ready) => ready,
        Err(message) => return call.fail_all(&message),
    };
    let state = take_state::<S>(&mut rest);
    let strips = prepared.columns.strips(0..*count as usize);
    // SAFETY: the job has one position, run by one worker at a time, and the parent looks at a slab only when its job
    // is over.
    let output = unsafe { prepared.output.strip(0..1) };
    let (state, mut strips, output) = match (state, strips, output) {
        (Ok(state), Ok(strips), Ok(output)) => (state, strips, output),
        (Err(message), ..) | (_, Err(message), _) | (.., Err(message)) => {
            return fail_every(&mut rest, 1, &message);
        }
    };
    // SAFETY: this trampoline is private, and `combine_task` gives its address only to those that have a G.
    let combine: G = unsafe { conjure() };
    let mut tree = || -> Result<(), String> {
        let mut values = Vec::with_capacity(*count as usize);
        for i in 0..*count as usize {
            values.push(<(Decoded<B, K>,)>::read(&mut strips, i)?.0);
        }
        while values.len() > 1 {
            let mut level = Vec::with_capacity(values.len().div_ceil(2));
            let mut pairs = values.into_iter();
            while let Some(left) = pairs.next() {
                level.push(match pairs.next() {
                    Some(right) => combine.call(state, &prepared.parameters, &context, left, right, Seal),
                    None => left,
                });
            }
            values = level;
        }
        if let Some(value) = values.pop() {
            output[0] = value.store(&mut Sink {
                rest: &mut rest,
                scratch: &mut prepared.scratch,
            })?;
        }
        Ok(())
    };
    if let Err(message) = tree() {
        fail_every(&mut rest, 1, &message);
    }
}
