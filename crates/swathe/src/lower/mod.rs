//! From types to the engine's untyped jobs: the functions that workers run, and the memory they write to.
//!
//! All `unsafe` code of this crate is in here: making a task out of nothing but its type ([`task`]), slices over
//! output slabs ([`slab`]), and what is said of shared memory that no type can say ([`handles`], [`wire`]). A trampoline is a function of the executable, monomorphised for one task; the parent sends
//! its address, a worker calls it.
#![allow(
    unsafe_code,
    reason = "tasks without a value, slices over memory that workers share"
)]

mod chunks;
pub(crate) mod handles;
mod heap;
mod in_place;
mod map;
mod reduce;
mod setup;
mod slab;
pub(crate) mod stack;
mod task;
pub(crate) mod wire;

use std::any::{Any, type_name};

use bytemuck::Pod;
use rkyv::util::AlignedVec;
use swathe_runtime::{Call, Rest};

pub(crate) use chunks::chunks_task;
pub(crate) use handles::Vouch;
pub(crate) use heap::HeapBlocks;
pub(crate) use heap::{RecordRef, Sink};
pub(crate) use in_place::in_place_task;
pub(crate) use map::map_task;
pub(crate) use reduce::{combine_task, reduce_task};
pub(crate) use setup::{exit_task, initializer_task, setup_task};
pub(crate) use slab::{InPlace, Output, Slab, unwritten};

use crate::cross::{column::Columns, parameters::Parameters};
use wire::Decoder;

/// What a worker prepares once a job.
struct Prepared<C, W: Parameters, T: Pod> {
    columns: C,
    parameters: W::Value,
    output: Slab<T>,
    scratch: AlignedVec,
}

impl<C: Columns, W: Parameters, T: Pod> Prepared<C, W, T> {
    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let mut wire = Decoder::new(bytes);
        let parameters = W::decode(wire.bytes()?)?;
        let output = Slab::attach(&mut wire)?;
        let columns = C::attach(&mut wire)?;
        Ok(Self {
            columns,
            parameters,
            output,
            scratch: AlignedVec::new(),
        })
    }
}

/// The positions of a call as an index range. They fit: the parent counted them in a `usize`.
fn positions(call: &Call<'_>) -> std::ops::Range<usize> {
    call.first as usize..(call.first + call.len) as usize
}

/// Takes the worker's state out of what is left of the call, so that both can be used at once.
fn take_state<'r, S: 'static>(rest: &mut Rest<'r>) -> Result<&'r mut S, String> {
    // A box of nothing allocates nothing, so nothing leaks.
    let state: &'r mut dyn Any = std::mem::replace(&mut rest.state, Box::leak(Box::new(())));
    state
        .downcast_mut()
        .ok_or_else(|| format!("this worker's state is no `{}`", type_name::<S>()))
}

/// Every position of the strip has failed with this message.
fn fail_every(rest: &mut Rest<'_>, len: usize, message: &str) {
    for i in 0..len {
        rest.fail(i as u64, message);
    }
}

/// How far a strip has come. The engine is told when this is dropped, be it by a panic of the task: so the loops keep
/// their count in a register.
struct Progress<'r> {
    rest: Rest<'r>,
    done: u64,
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.rest.set_cursor(self.done);
    }
}

/// What a worker does with parameter bytes before its first strip, and the reading of that strip.
#[cfg(any(test, feature = "_untrusted"))]
pub(crate) fn prepare<C: Columns, W: Parameters, T: Pod>(
    bytes: &[u8],
    positions: std::ops::Range<usize>,
) -> Result<(), String> {
    let mut prepared = Prepared::<C, W, T>::decode(bytes)?;
    // SAFETY: nobody else knows of the memory that such bytes name.
    unsafe { prepared.output.strip(positions.clone()) }?;
    let len = positions.len();
    let mut strips = prepared.columns.strips(positions)?;
    (0..len).try_for_each(|i| C::read(&mut strips, i).map(drop))
}
