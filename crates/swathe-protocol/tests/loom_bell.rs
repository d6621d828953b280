//! The doorbells under loom: no wake is lost (a lost one is a deadlock, which loom reports), not even by a ringer that
//! dies.
#![cfg(loom)]

mod futex;

use std::sync::Arc;

use futex::Futex;
use loom::thread;
use swathe_protocol::{
    Bell, Descriptor, DoorbellView, GateState, JobCell, JobKey, JobPhase, ParkWord, RingCell, RingEnds,
    RingView, WorkerSlot,
    bell::publish_fence,
    sync::{
        AtomicU32, AtomicU64,
        Ordering::{AcqRel, Acquire, Relaxed, Release},
        mortal::{dies_before, explore, explore_deaths},
    },
};

#[derive(Default)]
struct Doors<const WORKERS: usize> {
    ends: RingEnds,
    cells: [RingCell; 2],
    park_words: [ParkWord; 2],
    futexes: [Futex; 2],
}

impl<const WORKERS: usize> Doors<WORKERS> {
    fn ring(&self) -> RingView<'_> {
        RingView::new(&self.ends, &self.cells)
    }

    /// A worker that wants one run.
    fn take(&self, me: usize) -> Descriptor {
        let park = &self.park_words[me];
        loop {
            if let Some(run) = self.ring().pop() {
                return run;
            }
            park.prepare();
            if self.ring().is_empty() {
                while !park.is_awake() {
                    self.futexes[me].wait(park.word(), ParkWord::PARKED);
                }
            }
            park.unpark_self();
        }
    }

    /// The parent.
    fn give(&self, first: u32) {
        let run = Descriptor {
            job: JobKey::new(0, 1),
            epoch: 0,
            first,
            chunks: 1,
            careful: false,
        };
        self.ring().push(run).unwrap();
        publish_fence();
        for (park, futex) in self.park_words.iter().zip(&self.futexes).take(WORKERS) {
            if park.claim_wake() {
                futex.wake(park.word());
            }
        }
    }
}

fn everyone_is_served<const WORKERS: usize>() {
    let doors = Arc::new(Doors::<WORKERS>::default());
    let workers: Vec<_> = (0..WORKERS)
        .map(|me| {
            let doors = Arc::clone(&doors);
            thread::spawn(move || doors.take(me).first)
        })
        .collect();
    (0..WORKERS as u32).for_each(|first| doors.give(first));
    let taken: u32 = workers
        .into_iter()
        .map(|worker| 1 << worker.join().unwrap())
        .sum();
    assert_eq!(taken, (1 << WORKERS) - 1);
}

#[test]
fn a_parked_worker_hears_of_a_run() {
    explore(3, everyone_is_served::<1>);
}

#[test]
fn two_parked_workers_hear_of_two_runs() {
    explore(1, everyone_is_served::<2>);
}

#[derive(Default)]
struct Event {
    bell: Bell,
    futex: Futex,
    value: AtomicU64,
}

impl Event {
    fn ring(&self) {
        self.value.store(7, Release);
        if self.bell.ring() {
            self.futex.wake(self.bell.word());
        }
    }

    fn wait(&self) {
        while self.value.load(Acquire) != 7 {
            let waited = self.bell.prepare();
            if self.value.load(Acquire) != 7 {
                self.futex.wait(self.bell.word(), waited);
            }
        }
    }
}

#[test]
fn all_who_wait_hear_the_bell() {
    explore(2, || {
        let event = Arc::new(Event::default());
        let waiters = [(); 2].map(|()| {
            let event = Arc::clone(&event);
            thread::spawn(move || event.wait())
        });
        event.ring();
        for waiter in waiters {
            waiter.join().unwrap();
        }
    });
}

/// A worker that was refused, or finds nothing to do, was inside for a moment: who waits for the last to leave hears it.
#[test]
fn who_waits_for_a_stopped_job_hears_the_last_to_leave_it() {
    #[derive(Default)]
    struct Job {
        cell: JobCell,
        slot: WorkerSlot,
        futex: Futex,
    }
    const KEY: JobKey = JobKey::new(0, 1);
    const OPEN: GateState = GateState {
        generation: 1,
        epoch: 0,
        phase: JobPhase::Open,
    };
    explore(3, || {
        let job = Arc::new(Job::default());
        job.cell.gate.set(OPEN);
        let worker = thread::spawn({
            let job = Arc::clone(&job);
            move || {
                let _ = job.cell.gate.enter(&job.slot, KEY);
                if job.cell.gate.withdraw(&job.slot) && job.cell.bell.ring() {
                    job.futex.wake(job.cell.bell.word());
                }
            }
        });
        assert!(job.cell.gate.advance(OPEN, JobPhase::Stopped));
        while job.slot.inside().is_some() {
            let waited = job.cell.bell.prepare();
            if job.slot.inside().is_some() {
                job.futex.wait(job.cell.bell.word(), waited);
            }
        }
        worker.join().unwrap();
    });
}

/// Two who wait for an item each, as the users of a queue do.
#[test]
fn everybody_who_waits_for_an_item_hears_the_doorbell() {
    #[derive(Default)]
    struct Door {
        rung: AtomicU32,
        asleep: AtomicU32,
        futex: Futex,
        items: AtomicU64,
    }
    impl Door {
        fn bell(&self) -> DoorbellView<'_> {
            DoorbellView {
                rung: &self.rung,
                asleep: &self.asleep,
            }
        }

        fn take(&self) -> bool {
            let items = self.items.load(Acquire);
            items > 0
                && self
                    .items
                    .compare_exchange(items, items - 1, AcqRel, Relaxed)
                    .is_ok()
        }

        fn get(&self) {
            while !self.take() {
                let heard = self.bell().announce();
                if self.items.load(Acquire) == 0 {
                    self.futex.wait(&self.rung, heard);
                }
            }
        }

        fn put(&self) {
            self.items.fetch_add(1, AcqRel);
            if self.bell().ring() {
                self.futex.wake(&self.rung);
            }
        }
    }
    explore(2, || {
        let door = Arc::new(Door::default());
        let getters = [(); 2].map(|()| {
            let door = Arc::clone(&door);
            thread::spawn(move || door.get())
        });
        door.put();
        door.put();
        for getter in getters {
            getter.join().unwrap();
        }
    });
}

#[test]
fn a_bell_whose_ringer_died_is_heard() {
    explore_deaths(2, |nth| {
        let event = Arc::new(Event::default());
        let waiter = thread::spawn({
            let event = Arc::clone(&event);
            move || event.wait()
        });
        let ringer = thread::spawn({
            let event = Arc::clone(&event);
            move || dies_before(nth, || event.ring())
        });
        let died = ringer.join().unwrap();
        if died {
            // The supervisor: it cannot know whether the dead still owed the wake, so it wakes in any case.
            event.value.store(7, Release);
            let _ = event.bell.ring();
            event.futex.wake(event.bell.word());
        }
        waiter.join().unwrap();
        died
    });
}
