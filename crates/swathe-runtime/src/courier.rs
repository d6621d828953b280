//! The courier: one thread that ends jobs nobody waits for, runs callbacks and wakes futures.
//!
//! It is not the supervisor, so that a callback may take its time, or never return, without anybody's recovery waiting
//! for it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use swathe_protocol::{JobTerms, ParkWord};

use crate::{
    naps,
    state::{Core, Notice, State},
};

/// The longest sleep without a look around.
const NAP: Duration = Duration::from_millis(500);

/// Until the pool is finished and everything is told.
pub(crate) fn run(core: &Arc<Core>) {
    loop {
        core.control.header.courier.prepare();
        let told = tell_all(core);
        {
            let state = core.state.lock();
            if state.finished && state.notices.is_empty() && state.unfinished().is_empty() {
                core.changed.notify_all();
                return;
            }
        }
        let park = &core.control.header.courier;
        if !told && !park.is_awake() {
            if naps::sleep(park.word(), ParkWord::PARKED, NAP) {
                naps::of_courier(core);
            }
        }
        park.unpark_self();
    }
}

/// Ends what can be ended, tells what is to be told. `true` if there was anything.
fn tell_all(core: &Arc<Core>) -> bool {
    let mut any = false;
    loop {
        let notice = {
            let mut state = core.state.lock();
            end_attended(core, &mut state);
            let notice = state.notices.pop_front();
            state.telling = notice.is_some();
            core.changed.notify_all();
            notice
        };
        match notice {
            Some(notice) => tell(notice),
            None => return any,
        }
        any = true;
    }
}

fn end_attended(core: &Arc<Core>, state: &mut State) {
    let attended = |job: &&Arc<crate::state::JobState>| job.terms.has(JobTerms::ATTENDED) && !job.is_over();
    let jobs: Vec<_> = state.jobs.iter().flatten().filter(attended).cloned().collect();
    for job in jobs {
        state.finalize(core, &job);
    }
}

fn tell(notice: Notice) {
    let Notice {
        outcome,
        on_done,
        wakers,
    } = notice;
    if let Some(on_done) = on_done {
        let result = catch_unwind(AssertUnwindSafe(|| on_done(&outcome)));
        if let Err(payload) = result {
            let text = payload.downcast_ref::<&str>().map(|s| (*s).to_owned());
            let text = text
                .or_else(|| payload.downcast_ref::<String>().cloned())
                .unwrap_or_default();
            tracing::error!(text, "a callback panicked; the pool goes on");
        }
    }
    for waker in wakers {
        let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
    }
}
