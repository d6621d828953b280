//! How a worker finds work: orders, the ring, theft; and how it waits for some.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use swathe_memory::lease;
use swathe_protocol::{Found, Header, Inside, Member, Order, SlotPhase};

use crate::{
    fault::{self, Point},
    shared::{
        control::{Control, System},
        naps,
    },
    worker::{NAP, Worker, execute::Execution, stay_bound_to},
};

/// How long an idle worker that may look out does so before it sleeps.
const SPIN: Duration = Duration::from_micros(60);

impl Worker {
    /// Works until it is time to leave.
    pub(super) fn serve(&mut self) {
        self.plan.control.parks[self.index].unpark_self();
        while !self.must_leave() {
            fault::point(Point::Idle);
            if !(self.run_order() || self.take_run() || self.steal()) {
                self.wait_for_work();
            }
        }
        self.slot().set_phase(SlotPhase::Leaving);
    }

    fn must_leave(&self) -> bool {
        let control = &self.plan.control;
        match control.header.shutdown.load(Ordering::Acquire) {
            0 => self.tasks_left == 0 || self.slot().order.read() == Order::Retire,
            Header::DRAIN => self.tasks_left == 0 || control.ring().is_empty(),
            _ => true,
        }
    }

    /// A job that wants this very worker. Gives whether there was an order.
    fn run_order(&mut self) -> bool {
        let order = self.slot().order.read();
        if !matches!(order, Order::Run { .. }) {
            return false;
        }
        let control = self.plan.control.clone();
        if let Some(job) = self.member(&control).follow(order) {
            self.work_in(&control, job);
        }
        true
    }

    /// Gives whether there was a run.
    fn take_run(&mut self) -> bool {
        let control = self.plan.control.clone();
        match self.member(&control).take_run() {
            Found::Nothing => return false,
            Found::Void => {}
            Found::Run(job) => self.work_in(&control, job),
        }
        true
    }

    /// Gives whether there was something to steal.
    fn steal(&mut self) -> bool {
        let control = self.plan.control.clone();
        let stolen = self.member(&control).steal();
        stolen.map(|job| self.work_in(&control, job)).is_some()
    }

    fn member<'c>(&self, control: &'c Control) -> Member<'c, System> {
        Member::new(control.words(), &System, self.index)
    }

    /// Runs this worker's lane in a job it has entered, then leaves the job.
    fn work_in(&mut self, control: &Control, job: Inside<'_, System>) {
        // The arguments are let go before it is said which of their handles are kept.
        let attended = Execution::new(self, control, &job).run();
        match self.tasks_left {
            0 => job.recycle(lease::held(), attended),
            _ => job.leave(lease::held(), attended),
        }
    }

    /// Looks for work for a while, then sleeps until the parent rings.
    fn wait_for_work(&mut self) {
        let control = &self.plan.control;
        let something = |worker: &Self| {
            !control.ring().is_empty()
                || worker.slot().order.read() != Order::None
                || control.header.shutdown.load(Ordering::Acquire) != 0
        };
        if self.may_look_out() {
            let start = Instant::now();
            while start.elapsed() < SPIN && self.may_look_out() {
                for _ in 0..64 {
                    if something(self) {
                        return;
                    }
                    std::hint::spin_loop();
                }
                if self.member(&self.plan.control).sees_spare_chunks() {
                    return;
                }
            }
        }
        let park = &control.parks[self.index];
        park.prepare();
        if something(self) || self.member(&self.plan.control).sees_spare_chunks() {
            park.unpark_self();
            return;
        }
        while !park.is_awake() {
            let napped = naps::sleep(park.word(), swathe_protocol::ParkWord::PARKED, NAP);
            if napped {
                stay_bound_to(self.zygote);
            }
            if napped && something(self) {
                naps::of_worker(control, self.index);
                park.unpark_self();
            }
        }
    }

    /// Whether this worker may stay awake without work: those with lower numbers come first.
    fn may_look_out(&self) -> bool {
        let control = &self.plan.control;
        let seats = control.header.lookouts.load(Ordering::Relaxed) as usize;
        seats > 0 && control.words().lookouts(self.index) < seats
    }
}
