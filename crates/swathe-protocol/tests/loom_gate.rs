//! The gate under loom: nobody is inside a cell that is being used again, and nothing of one job reaches the next.
#![cfg(loom)]

use std::sync::Arc;

use loom::thread;
use swathe_protocol::{
    ChunkStatus, GateState, JobCell, JobKey, JobPhase, JobTerms, StatusWord, Tag, WorkerSlot,
    bell::publish_fence, sync::mortal::explore,
};

#[derive(Default)]
struct Shared {
    cell: JobCell,
    slot: WorkerSlot,
    status: StatusWord,
}

fn gate(generation: u32, phase: JobPhase) -> GateState {
    GateState {
        generation,
        epoch: 0,
        phase,
    }
}

/// Terms whose first and last words tell the generation.
fn terms(generation: u32) -> JobTerms {
    JobTerms {
        task_object: generation.into(),
        base: generation.into(),
        ..JobTerms::default()
    }
}

impl Shared {
    fn open(&self, generation: u32) {
        self.cell.write_terms(terms(generation));
        self.cell.gate.set(gate(generation, JobPhase::Open));
    }

    fn await_nobody_inside(&self, key: JobKey) {
        while self.slot.inside() == Some(key) {
            thread::yield_now();
        }
    }
}

fn opened() -> Arc<Shared> {
    let shared = Arc::new(Shared::default());
    shared.open(1);
    shared
}

#[test]
fn nobody_is_inside_a_recycled_cell() {
    explore(3, || {
        let shared = opened();
        let worker = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                for generation in [1, 2] {
                    if shared
                        .cell
                        .gate
                        .enter(&shared.slot, JobKey::new(0, generation))
                        .is_some()
                    {
                        assert_eq!(shared.cell.terms(), terms(generation));
                        shared.slot.leave();
                    }
                }
            }
        });
        shared.cell.gate.set(gate(1, JobPhase::Vacant));
        shared.await_nobody_inside(JobKey::new(0, 1));
        shared.open(2);
        worker.join().unwrap();
    });
}

#[test]
fn who_sees_the_worker_outside_sees_its_progress() {
    explore(3, || {
        let shared = opened();
        let worker = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                let seen = shared.cell.gate.enter(&shared.slot, JobKey::new(0, 1))?;
                let mut strips = 0;
                while strips < 2 && shared.cell.gate.still(seen) {
                    strips += 1;
                    shared.status.publish_progress(Tag::NONE, strips);
                }
                shared.slot.leave();
                Some(strips)
            }
        });
        assert!(shared.cell.gate.close(gate(1, JobPhase::Open)).is_some());
        shared.await_nobody_inside(JobKey::new(0, 1));
        // From here on the status word is the supervisor's, and holds all that the worker did.
        let found = shared.status.load(Tag::NONE);
        assert_eq!(found, ChunkStatus::Progress(worker.join().unwrap().unwrap_or(0)));
    });
}

#[test]
fn who_completes_a_job_it_has_left_touches_no_other() {
    explore(3, || {
        let shared = opened();
        let worker = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                if let Some(seen) = shared.cell.gate.enter(&shared.slot, JobKey::new(0, 1)) {
                    // The parent may use the cell again from here on: this is what the model is about.
                    shared.slot.leave();
                    if shared.cell.gate.advance(seen, JobPhase::Complete) {
                        let _ = shared.cell.bell.ring();
                    }
                }
            }
        });
        let stopped = shared
            .cell
            .gate
            .advance(gate(1, JobPhase::Open), JobPhase::Stopped);
        assert!(stopped || shared.cell.gate.state().phase == JobPhase::Complete);
        shared.await_nobody_inside(JobKey::new(0, 1));
        shared.open(2);
        worker.join().unwrap();
        assert_eq!(shared.cell.gate.state(), gate(2, JobPhase::Open));
    });
}

/// The parent has not changed the gate itself: a worker has, and the parent has seen it.
#[test]
fn who_uses_a_cell_again_that_a_worker_completed_sees_who_is_inside() {
    explore(3, || {
        let shared = opened();
        let thief = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                if shared.cell.gate.enter(&shared.slot, JobKey::new(0, 1)).is_some() {
                    assert_eq!(shared.cell.terms(), terms(1));
                    shared.slot.leave();
                }
            }
        });
        let completer = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                let open = gate(1, JobPhase::Open);
                assert!(shared.cell.gate.advance(open, JobPhase::Complete));
            }
        });
        if shared.cell.gate.state().phase == JobPhase::Complete {
            publish_fence();
            if shared.slot.inside().is_none() {
                shared.cell.gate.set(gate(1, JobPhase::Vacant));
                shared.open(2);
            }
        }
        thief.join().unwrap();
        completer.join().unwrap();
    });
}

#[test]
fn a_close_and_a_completion_exclude_each_other() {
    explore(3, || {
        let shared = opened();
        let worker = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                shared
                    .cell
                    .gate
                    .advance(gate(1, JobPhase::Open), JobPhase::Complete)
            }
        });
        let closed = shared.cell.gate.close(gate(1, JobPhase::Open));
        let completed = worker.join().unwrap();
        assert_ne!(closed.is_some(), completed);
        let phase = if completed {
            JobPhase::Complete
        } else {
            JobPhase::Closed
        };
        assert_eq!(shared.cell.gate.state().phase, phase);
    });
}
