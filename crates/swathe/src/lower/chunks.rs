//! One call of the task for each chunk.

use bytemuck::Pod;
use swathe_runtime::{Call, TaskRef};

use super::{
    Prepared, fail_every, positions, take_state,
    task::{conjure, reference},
};
use crate::{
    Context, Error,
    cross::{
        callable::ChunkCallable,
        column::{Column, Sliced},
        parameters::Parameters,
    },
};

/// The engine's reference to a task that maps a slice to a slice.
pub(crate) fn chunks_task<C, S, P>(task: C::Task) -> Result<TaskRef, Error>
where
    C: ChunkCallable<S, P>,
    S: 'static,
    P: Parameters,
{
    reference(task, run::<C, S, P>)
}

fn run<C, S, P>(call: &mut Call<'_>)
where
    C: ChunkCallable<S, P>,
    S: 'static,
    P: Parameters,
{
    let context = Context::of_call(call);
    let positions = positions(call);
    let decode = |bytes: &'_ [u8]| {
        let mut wire = super::wire::Decoder::new(bytes);
        let is_fresh = wire.pod::<u64>()? != 0;
        Prepared::<(Sliced<C::Given>,), P, C::Element>::decode(wire.bytes()?)
            .map(|prepared| (is_fresh, prepared, Blank::new()))
    };
    let ((is_fresh, prepared, blank), mut rest) = match call.cached(decode) {
        Ok(ready) => ready,
        Err(message) => return call.fail_all(&message),
    };
    let state = take_state::<S>(&mut rest);
    let input = prepared.columns.0.strip(positions.clone());
    // SAFETY: the engine runs a chunk in one worker at a time, and the parent looks at a slab only when its job is
    // over.
    let output = unsafe { prepared.output.strip(positions) };
    // SAFETY: this trampoline is private, and `chunks_task` gives its address only to those that have such a task.
    let task: C::Task = unsafe { conjure() };
    let result = match (state, input, output) {
        (Ok(state), Ok(input), Ok(output)) => {
            let mut run = |output: &mut [C::Element]| {
                C::call(task, state, &prepared.parameters, &context, input, output)
            };
            match *is_fresh && context.attempt() <= 1 {
                true => run(output),
                // An earlier job, or an earlier attempt, has written here.
                false => blank.run(output, &mut run),
            }
        }
        (Err(message), ..) | (_, Err(message), _) | (.., Err(message)) => Err(message),
    };
    if let Err(message) = result {
        // The chunk fails as one.
        fail_every(&mut rest, 1, &message);
    }
}

/// Output slices up to this many bytes are written in private memory first.
const MOST_IN_PRIVATE: usize = 8 << 20;

/// Zeros for tasks to write to, where the memory of the output holds something else. Clearing that memory, and then having
/// it written, would move each line twice; here the task writes to memory that stays in the cache, and lines that are moved
/// to the output are not read first.
struct Blank<B> {
    elements: Vec<B>,
    /// Whether a task may have written to it. One that panics does not come back.
    is_written: bool,
}

impl<B: Pod> Blank<B> {
    fn new() -> Self {
        Self {
            elements: Vec::new(),
            is_written: false,
        }
    }

    /// Runs a task on zeros; what it has written is in the output afterwards, unless it failed.
    fn run(
        &mut self,
        output: &mut [B],
        task: impl FnOnce(&mut [B]) -> Result<(), String>,
    ) -> Result<(), String> {
        if size_of_val(output) > MOST_IN_PRIVATE {
            output.fill(B::zeroed());
            return task(output);
        }
        if self.is_written {
            self.elements.fill(B::zeroed());
        }
        if self.elements.len() < output.len() {
            self.elements.resize(output.len(), B::zeroed());
        }
        let elements = &mut self.elements[..output.len()];
        self.is_written = true;
        task(elements)?;
        if size_of::<B>() > 0 {
            move_out(
                bytemuck::cast_slice_mut(elements),
                bytemuck::cast_slice_mut(output),
            );
        }
        self.is_written = false;
        Ok(())
    }
}

/// Copies bytes past the cache, and leaves zeros.
#[cfg(target_arch = "x86_64")]
fn move_out(from: &mut [u8], to: &mut [u8]) {
    use std::arch::x86_64::{
        __m128i, _mm_loadu_si128, _mm_setzero_si128, _mm_sfence, _mm_storeu_si128, _mm_stream_si128,
    };
    // SAFETY: any bytes are an __m128i, and the other way round.
    let (start, lines, end) = unsafe { to.align_to_mut::<__m128i>() };
    let (first, rest) = from.split_at_mut(start.len());
    let (middle, last) = rest.split_at_mut(size_of_val(lines));
    let (pieces, _) = middle.as_chunks_mut::<{ size_of::<__m128i>() }>();
    for (piece, line) in pieces.iter_mut().zip(lines) {
        let piece = piece.as_mut_ptr().cast::<__m128i>();
        // SAFETY: both are 16 bytes that this function alone uses; the line is aligned; SSE2 is part of x86-64.
        unsafe {
            _mm_stream_si128(line, _mm_loadu_si128(piece));
            _mm_storeu_si128(piece, _mm_setzero_si128());
        }
    }
    // SAFETY: SSE2 is part of x86-64. What went past the cache is seen by whoever sees what is published after this.
    unsafe { _mm_sfence() };
    for (from, to) in [(first, start), (last, end)] {
        to.copy_from_slice(from);
        from.fill(0);
    }
}

/// Copies bytes, and leaves zeros.
#[cfg(not(target_arch = "x86_64"))]
fn move_out(from: &mut [u8], to: &mut [u8]) {
    to.copy_from_slice(from);
    from.fill(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_write_to_zeros_and_only_what_is_done_is_seen() {
        let mut blank = Blank::<u32>::new();
        for len in [0, 1, 3, 4, 5, 64, 1000, 7] {
            for skip in 0..4 {
                let mut memory = vec![u32::MAX; skip + len + 2];
                let output = &mut memory[skip..skip + len];
                let failed = blank.run(output, |x| {
                    assert!(x.iter().all(|&x| x == 0));
                    x.fill(7);
                    Err("no".to_owned())
                });
                assert!(failed.is_err() && output.iter().all(|&x| x == u32::MAX));
                let done = blank.run(output, |x| {
                    assert!(x.iter().all(|&x| x == 0), "what failed is not shown");
                    x.iter_mut().zip(1..).for_each(|(x, i)| *x = i);
                    Ok(())
                });
                assert!(done.is_ok() && output.iter().zip(1..).all(|(&x, i)| x == i));
                assert!(
                    memory[..skip]
                        .iter()
                        .chain(&memory[skip + len..])
                        .all(|&x| x == u32::MAX)
                );
            }
        }
    }
}
