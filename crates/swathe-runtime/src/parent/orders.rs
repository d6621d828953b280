//! Orders: the chunks of a job that wants every worker itself.
//!
//! A slot has one word for what its worker is asked: to do an order, or to leave for good. So at most one such job has a
//! cell at a time, and a worker that is one too many leaves after its order.

use std::sync::Arc;

use swathe_protocol::{Epoch, JobTerms, Order, Span};

use crate::{
    parent::{core::Core, job::JobEntry, jobs::State, retry::Round},
    shared::control::{JOBS, System},
};

const _: () = assert!(JOBS <= Order::CELLS, "an order can name every cell");

impl State {
    /// Gives a worker its own chunk of a pinned job: position `w` is worker `w`'s, in a round of retries too. It is woken
    /// by the caller.
    pub(crate) fn give_order(&mut self, core: &Core, epoch: &Epoch<'_, System>, round: &Round, chunk: u32) {
        let position = round.positions(round.numbers(Span::new(chunk, chunk + 1))).first;
        let worker = (position as usize).min(core.control.slots.len() - 1);
        epoch.order(worker, Span::new(chunk, chunk + 1));
        if self.pids[worker].is_none() {
            core.event.raise(); // It may have to be started for this.
        }
    }

    /// Whether a worker is wanted for a job that is not over, however many there should be.
    pub(crate) fn has_order(&self, core: &Core, worker: usize) -> bool {
        match core.control.slots[worker].order.read() {
            Order::Run { job, .. } => self.job(job).is_some_and(|job| !job.is_over()),
            Order::None | Order::Retire => false,
        }
    }

    /// The first of the waiting jobs that may have a cell.
    pub(crate) fn next_waiting(&mut self) -> Option<Arc<JobEntry>> {
        let is_ordered = || {
            let mut open = self.jobs.iter().flatten();
            open.any(|job| job.terms.has(JobTerms::PINNED) && !job.is_over())
        };
        let at = self
            .waiting
            .iter()
            .position(|job| !job.terms.has(JobTerms::PINNED) || !is_ordered())?;
        self.waiting.remove(at)
    }
}
