//! Naps of the parent's threads ([`naps`](crate::shared::naps)), after each of which they look around.

use swathe_protocol::{JobKey, JobPhase, ParkWord};

use crate::{
    parent::{core::Core, job::JobEntry},
    shared::naps,
    supervisor::recovery,
};

/// The nap of a caller is over that waited for a job.
pub(crate) fn of_caller(core: &Core, job: &JobEntry, key: JobKey, waited: u32) {
    let bell = core.control.jobs[key.index as usize].bell.word();
    naps::count(&core.control, (bell, waited), || is_to_be_ended(core, job, key));
    recovery::look_for_strays(core, &mut core.state.lock(), job);
}

/// The courier's nap is over.
pub(crate) fn of_courier(core: &Core) {
    let park = &core.control.header.courier;
    naps::count(&core.control, (park.word(), ParkWord::PARKED), || {
        let state = core.state.lock();
        let ended = |job: &JobEntry| job.key().is_some_and(|key| is_to_be_ended(core, job, key));
        state.attended(core).iter().any(|job| ended(job))
    });
    let mut state = core.state.lock();
    for job in state.attended(core) {
        recovery::look_for_strays(core, &mut state, &job);
    }
}

/// Whether everybody has done with a job, and has said so.
fn is_to_be_ended(core: &Core, job: &JobEntry, key: JobKey) -> bool {
    let phase = core.control.jobs[key.index as usize].gate.state().phase;
    let is_over = matches!(phase, JobPhase::Complete | JobPhase::Stopped) && !job.is_in_hand();
    job.is_over() || (is_over && !core.control.words().anyone_at(key))
}
