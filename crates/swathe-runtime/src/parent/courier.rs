//! The courier: one thread that ends jobs nobody waits for.
//!
//! It runs nothing that a user wrote: callbacks, wakers and destructors have threads of their own
//! ([`user_code`](crate::parent::user_code)). So streams, futures and `join` wait for none of these, and not for each other.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
    time::Duration,
};

use swathe_protocol::ParkWord;

use crate::parent::{core::Core, jobs::State, look_around, user_code::discard};
use crate::shared::naps;

/// The longest sleep without a look around.
const NAP: Duration = Duration::from_millis(500);
/// How long it rests after a panic of its own.
const REST: Duration = Duration::from_millis(10);

/// Until the pool is finished and every job is over. A fault of ours must not end it: all futures would hang.
pub(crate) fn run(core: &Arc<Core>) {
    while let Err(payload) = catch_unwind(AssertUnwindSafe(|| attend(core))) {
        discard(payload);
        tracing::error!("the thread that ends jobs panicked; it goes on");
        thread::sleep(REST);
    }
}

fn attend(core: &Arc<Core>) {
    let park = &core.control.header.courier;
    loop {
        park.prepare();
        {
            let mut state = core.state.lock();
            end_attended(core, &mut state);
            if state.finished && !state.has_unfinished() {
                core.changed.notify_all();
                return;
            }
        }
        // A thread that could not be started may be had now.
        core.state.sides.kick();
        if !park.is_awake() && naps::sleep(park.word(), ParkWord::PARKED, NAP) {
            look_around::of_courier(core);
        }
        park.unpark_self();
    }
}

fn end_attended(core: &Arc<Core>, state: &mut State) {
    for job in state.attended(core) {
        state.finalize(core, &job);
    }
}
