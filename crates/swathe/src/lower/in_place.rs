//! Results over their inputs.

use std::{marker::PhantomData, slice};

use bytemuck::Pod;
use swathe_memory::SegmentId;
use swathe_runtime::{Call, HeapSpan, Rest, TaskRef, WriteBack};

use super::{
    Prepared, fail_every, positions, take_state,
    task::{conjure, reference},
};
use crate::{
    Context, Error,
    cross::{over::InPlaceTask, parameters::Parameters, seal::Seal},
};

/// The engine's reference to a task that changes elements in place.
pub(crate) fn in_place_task<F, In, X, S, P>(task: F) -> Result<TaskRef, Error>
where
    F: InPlaceTask<In, X, S, P>,
    S: 'static,
    P: Parameters,
{
    reference(task, run::<F, In, X, S, P>)
}

/// Alignment of what [`Rest::heap`] gives, bytes.
const HEAP_ALIGN: usize = 16;

/// What a worker prepares once a job.
struct Ready<P: Parameters, T: Pod> {
    prepared: Prepared<(), P, T>,
    /// Where results lie until they are copied: in shared memory, so that a copy which a death interrupts can be made
    /// once more. As long as the longest strip so far.
    log: Option<Log<T>>,
}

/// Room for the results of a strip.
struct Log<T> {
    span: HeapSpan,
    len: usize,
    elements: PhantomData<T>,
}

impl<T: Pod> Log<T> {
    /// Room for `len` results at least.
    fn grown<'l>(log: &'l mut Option<Self>, len: usize, rest: &mut Rest<'_>) -> Result<&'l mut Self, String> {
        if log.as_ref().is_none_or(|log| log.len < len) {
            // Strips grow by leaps; rooms that became too small stay behind until the job is over.
            let len = len.next_power_of_two();
            let align = align_of::<T>().saturating_sub(HEAP_ALIGN);
            let mut span = rest.heap(len * size_of::<T>() + align)?;
            let skip = span.pointer.align_offset(align_of::<T>());
            // SAFETY: at most `align` bytes, which the span has more than `len` results need.
            span.pointer = unsafe { span.pointer.add(skip) };
            span.offset += skip as u64;
            *log = Some(Self {
                span,
                len,
                elements: PhantomData,
            });
        }
        log.as_mut().ok_or_else(|| "no room for results".to_owned())
    }

    /// Where the `i`-th result goes.
    fn put(&mut self, i: usize, value: T) {
        assert!(i < self.len, "a strip has more results than room was made for");
        // SAFETY: inside of the span, which this worker alone uses; aligned, because its start is.
        unsafe { self.span.pointer.cast::<T>().add(i).write(value) };
    }

    /// The first `done` results.
    fn results(&self, done: usize) -> &[T] {
        assert!(
            done <= self.len,
            "a strip has more results than room was made for"
        );
        // SAFETY: inside of the span; written by `put`, or any bytes, which are a T: Pod; the supervisor reads them only
        // when this process is dead.
        unsafe { slice::from_raw_parts(self.span.pointer.cast::<T>().as_ptr(), done) }
    }
}

/// The results of a strip. They are copied over the inputs when this is dropped: at the end of the strip, or when the
/// task panics, because the elements before the one that panicked are not run again.
struct Copying<'r, 'a, T: Pod> {
    rest: Rest<'r>,
    log: &'a mut Log<T>,
    done: usize,
    strip: &'a mut [T],
    /// The strip's place: segment, and bytes from its start.
    place: (SegmentId, u64),
}

impl<T: Pod> Drop for Copying<'_, '_, T> {
    fn drop(&mut self) {
        let (strip, results) = (&mut self.strip[..self.done], self.log.results(self.done));
        let copy = WriteBack {
            from: self.log.span.offset,
            to_segment: self.place.0,
            to: self.place.1,
            len: size_of_val(results) as u64,
            settled: self.done as u64,
        };
        self.rest.write_back(copy, || strip.copy_from_slice(results));
        self.rest.set_cursor(self.done as u64);
    }
}

fn run<F, In, X, S, P>(call: &mut Call<'_>)
where
    F: InPlaceTask<In, X, S, P>,
    S: 'static,
    P: Parameters,
{
    let mut context = Context::of_call(call);
    let (base, positions) = (context.position, positions(call));
    let len = positions.len();
    let prepare = |bytes: &[u8]| {
        Prepared::<(), P, F::Element>::decode(bytes).map(|prepared| Ready { prepared, log: None })
    };
    let (ready, mut rest) = match call.cached(prepare) {
        Ok(ready) => ready,
        Err(message) => return call.fail_all(&message),
    };
    let Ready { prepared, log } = ready;
    let log = Log::grown(log, len, &mut rest);
    let place = prepared.output.place(positions.start);
    let state = take_state::<S>(&mut rest);
    // SAFETY: the engine runs a position in one worker at a time, and the parent gets the array back only when the job
    // is over.
    let strip = unsafe { prepared.output.strip(positions) };
    let (state, strip, log) = match (state, strip, log) {
        (Ok(state), Ok(strip), Ok(log)) => (state, strip, log),
        (Err(message), ..) | (_, Err(message), _) | (.., Err(message)) => {
            return fail_every(&mut rest, len, &message);
        }
    };
    // SAFETY: this trampoline is private, and `in_place_task` gives its address only to those that have an F.
    let task: F = unsafe { conjure() };
    let mut copying = Copying {
        rest,
        log,
        done: 0,
        strip,
        place,
    };
    for i in 0..len {
        context.position = base + i as u64;
        let before = copying.strip[i];
        let after = task.call(state, &prepared.parameters, &context, before, Seal);
        let value = after.unwrap_or_else(|message| {
            copying.rest.fail(i as u64, &message);
            before
        });
        copying.log.put(i, value);
        copying.done += 1;
    }
}
