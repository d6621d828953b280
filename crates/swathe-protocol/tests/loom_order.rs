//! Orders under loom: a job that wants this very worker is run by it in every round and after every rebuild, once, however
//! late the worker comes back to clear the order before, and wherever it dies.
#![cfg(loom)]

mod pool;

use std::sync::{Arc, Mutex};

use loom::thread;
use pool::{KEY, Pool, opening};
use swathe_protocol::{
    ChunkStatus, Epoch, HandOn, Inside, JobKey, Left, Order, Rebuild, SlotPhase, Span, Standing, StatusWord,
    Tag, WorkerSlot,
    sync::{
        AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
        mortal::{dies_before, explore, explore_deaths},
    },
};

const CHUNK: Span = Span::new(0, 1);

/// One worker, and a job of one chunk in up to two rounds.
#[derive(Default)]
struct Scene {
    pool: Pool<1>,
    /// Stands for the terms: which of the status words is this round's.
    round: AtomicU64,
    status: [StatusWord; 2],
    /// Whether the worker's thread has ended.
    gone: AtomicU64,
    /// An oracle: how often the chunk was run, round by round.
    runs: Mutex<[u32; 2]>,
}

impl Scene {
    fn opened() -> Arc<Self> {
        let (pool, cell) = Pool::new();
        let scene = Arc::new(Self {
            pool,
            ..Self::default()
        });
        scene.order(&scene.pool.parent().open(cell, opening(1)));
        scene
    }

    fn status(&self) -> &StatusWord {
        &self.status[self.round.load(Relaxed) as usize]
    }

    fn slot(&self) -> &WorkerSlot {
        &self.pool.slots[0]
    }

    fn is_complete(&self) -> bool {
        matches!(self.pool.parent().look(KEY), Standing::Complete { .. })
    }

    // The parent.

    fn order(&self, epoch: &Epoch<'_, ()>) {
        epoch.order(0, CHUNK);
    }

    /// The second round, once the first is complete and nobody is inside. `false`: not yet.
    fn open_again(&self) -> bool {
        let parent = self.pool.parent();
        let cell = self.is_complete().then(|| parent.unoccupied(KEY)).flatten();
        let Some(cell) = cell else { return false };
        self.round.store(1, Relaxed);
        self.order(&cell.open_round(opening(1)));
        true
    }

    /// All claims are void.
    fn rebuild(&self) {
        let parent = self.pool.parent();
        if !parent.close(KEY) {
            return;
        }
        let closed = loop {
            match parent.rebuild(KEY) {
                Rebuild::NotYet => thread::yield_now(),
                Rebuild::Ready(closed) => break closed,
                Rebuild::Void => panic!("nobody stops it"),
            }
        };
        let open = u32::from(self.status().load(Tag::NONE) != ChunkStatus::Final);
        let epoch = closed.reopen(open).expect("nobody stops it");
        if open == 1 {
            self.order(&epoch);
        }
        epoch.complete_if_counted(false);
    }

    /// After the worker was reaped.
    fn recover(&self) {
        let parent = self.pool.parent();
        let dead = parent.reaped(0);
        match dead.left() {
            Left::Nothing => {}
            Left::Unwritten => self.rebuild(),
            Left::Claims(claims) => {
                if let HandOn::Taken(taken) = claims.hand_on(1) {
                    let (begun, rest) = taken.settle(std::slice::from_ref(self.status()), Tag::NONE);
                    let epoch = taken.epoch();
                    if rest.is_some() || !begun.is_empty() {
                        self.order(&epoch);
                    }
                    epoch.complete_if_counted(false);
                }
            }
        }
        dead.vacate();
        parent.make_up_for_the_dead(KEY);
        self.slot().renew();
    }

    // The worker.

    /// Does what the word says. `false`: nothing, or it left.
    fn serve(&self) -> bool {
        let order = self.slot().order.read();
        match order {
            Order::Run { .. } => {
                if let Some(job) = self.pool.member(0).follow(order) {
                    self.run_job(job);
                }
                true
            }
            Order::None => false,
            Order::Retire => {
                self.slot().set_phase(SlotPhase::Leaving);
                false
            }
        }
    }

    fn run_job(&self, job: Inside<'_, ()>) {
        while job.may_go_on()
            && let Some(held) = job.take(1)
        {
            let status = self.status();
            assert_ne!(status.load(Tag::NONE), ChunkStatus::Final, "it is final already");
            self.runs.lock().unwrap()[self.round.load(Relaxed) as usize] += 1;
            status.publish_final(Tag::NONE);
            held.count();
        }
        job.leave(0, false);
    }

    /// After everything: the worker, or its replacement, finds what is still asked.
    fn finish(&self, job: JobKey, rounds: usize) {
        while self.serve() {}
        let standing = self.pool.parent().look(job);
        assert!(
            matches!(standing, Standing::Complete { .. }),
            "the order is lost, and the job never ends"
        );
        for round in 0..rounds {
            assert_eq!(self.status[round].load(Tag::NONE), ChunkStatus::Final);
        }
    }
}

/// A worker's thread that looks at its word so often.
fn worker(scene: &Arc<Scene>, looks: u32) -> thread::JoinHandle<()> {
    let scene = Arc::clone(scene);
    thread::spawn(move || {
        for _ in 0..looks {
            scene.serve();
        }
    })
}

#[test]
fn a_late_worker_does_not_clear_the_order_of_the_next_round() {
    explore(3, || {
        let scene = Scene::opened();
        let late = worker(&scene, 2);
        while !scene.open_again() {
            thread::yield_now();
        }
        late.join().unwrap();
        scene.finish(KEY, 2);
        assert_eq!(*scene.runs.lock().unwrap(), [1, 1]);
    });
}

#[test]
fn a_late_worker_does_not_clear_the_order_that_a_rebuild_has_given() {
    explore(3, || {
        let scene = Scene::opened();
        let late = worker(&scene, 2);
        scene.rebuild();
        late.join().unwrap();
        scene.finish(KEY, 1);
        assert_eq!(*scene.runs.lock().unwrap(), [1, 0]);
    });
}

#[test]
fn an_order_outlives_its_worker_and_is_done_in_both_rounds() {
    explore_deaths(2, |nth| {
        let scene = Scene::opened();
        let mut mortal = Some(thread::spawn({
            let scene = Arc::clone(&scene);
            move || {
                let died = dies_before(nth, || {
                    scene.serve();
                    scene.serve();
                });
                scene.gone.store(1, Release);
                died
            }
        }));
        let mut any_died = false;
        while !scene.open_again() {
            if scene.gone.load(Acquire) == 1
                && let Some(mortal) = mortal.take()
            {
                any_died = mortal.join().unwrap();
                if any_died {
                    scene.recover();
                }
                while scene.serve() {}
            }
            thread::yield_now();
        }
        if let Some(mortal) = mortal {
            any_died = mortal.join().unwrap();
            if any_died {
                scene.recover();
            }
        }
        scene.finish(KEY, 2);
        any_died
    });
}

/// The job is over, the worker is one too many, and then wanted again: for a job, or for good.
#[test]
fn an_order_to_leave_and_an_order_to_run_do_not_get_lost() {
    explore(3, || {
        let scene = Scene::opened();
        let life = worker(&scene, 2);
        let parent = scene.pool.parent();
        let cell = loop {
            match scene.is_complete().then(|| parent.unoccupied(KEY)).flatten() {
                Some(cell) => break cell.vacate(),
                None => thread::yield_now(),
            }
        };
        parent.retire(0);
        scene.round.store(1, Relaxed);
        let next = cell.next_key();
        scene.order(&parent.open(cell, opening(1)));
        life.join().unwrap();
        // One that has left is replaced, because it is wanted.
        scene.slot().set_phase(SlotPhase::Idle);
        scene.slot().order.clear(Order::Retire);
        scene.finish(next, 2);
        assert_eq!(*scene.runs.lock().unwrap(), [1, 1]);
    });
}
