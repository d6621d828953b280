//! `raw_sync`'s event and mutex, laid over a segment. Nothing but the negative controls uses them.
#![expect(unsafe_code, reason = "raw_sync asks for a pointer")]

use std::{error::Error, io};

use raw_sync::{
    Timeout,
    events::{Event, EventImpl, EventInit, EventState},
    locks::{LockImpl, LockInit, Mutex},
};
use swathe_memory::Segment;

use crate::roles::Act;

fn other(error: Box<dyn Error>) -> io::Error {
    io::Error::other(error.to_string())
}

/// Where event and mutex lie: each gets half of the range.
fn places(segment: &Segment, (offset, len): (usize, usize)) -> io::Result<[*mut u8; 2]> {
    let base = segment.range(offset, len).map_err(io::Error::other)?;
    // SAFETY: the middle of the range that was just checked.
    Ok([base.as_ptr(), unsafe { base.as_ptr().add(len / 2) }])
}

/// Makes both.
///
/// # Errors
/// If `raw_sync` refuses.
pub(crate) fn create(segment: &Segment, range: (usize, usize)) -> io::Result<()> {
    let [event, mutex] = places(segment, range)?;
    // SAFETY: the memory is mapped, nobody else knows it yet, and half a range is more than an event takes.
    unsafe { Event::new(event, false) }.map_err(other)?;
    // SAFETY: likewise. The lock guards no bytes of its own; the pointer is never read through.
    unsafe { Mutex::new(mutex, mutex) }.map_err(other)?;
    Ok(())
}

/// Does something with the event.
///
/// # Errors
/// If `raw_sync` fails.
pub(crate) fn event(segment: &Segment, range: (usize, usize), act: Act) -> io::Result<()> {
    let [event, _] = places(segment, range)?;
    // SAFETY: `create` made one there before this process got the segment, and the caller holds the segment.
    let (event, _): (Box<dyn EventImpl>, _) = unsafe { Event::from_existing(event) }.map_err(other)?;
    match act {
        Act::Wait => event.wait(Timeout::Infinite),
        Act::Wake => event.set(EventState::Signaled),
        Act::Reset => event.set(EventState::Clear),
    }
    .map_err(other)
}

/// Calls a function with the mutex locked.
///
/// # Errors
/// If `raw_sync` fails.
pub(crate) fn locked(segment: &Segment, range: (usize, usize), inside: impl FnOnce()) -> io::Result<()> {
    let [_, mutex] = places(segment, range)?;
    // SAFETY: as in `event`.
    let (mutex, _): (Box<dyn LockImpl>, _) = unsafe { Mutex::from_existing(mutex, mutex) }.map_err(other)?;
    let guard = mutex.lock().map_err(other)?;
    inside();
    drop(guard);
    Ok(())
}
