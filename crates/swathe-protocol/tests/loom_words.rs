//! The small words under loom: each that somebody decides something by, in the one situation that it is there for.
#![cfg(loom)]

mod futex;
mod pool;

use std::sync::Arc;

use futex::Futex;
use loom::thread;
use pool::{KEY, Pool, opening};
use swathe_protocol::{
    ChunkStatus, Descriptor, Found, GateState, JobCell, JobPhase, Lane, ParkWord, ParkWordState, RingCell,
    RingEnds, RingView, SlotPhase, Span, Standing, StatusWord, Tag, WorkerSlot,
    bell::publish_fence,
    sync::{
        AtomicU32, AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
        mortal::{dies_before, explore, explore_deaths},
    },
};

const OPEN: GateState = GateState {
    generation: 1,
    epoch: 0,
    phase: JobPhase::Open,
};

fn run(first: u32) -> Descriptor {
    Descriptor {
        job: KEY,
        epoch: 0,
        first,
        chunks: 1,
        careful: false,
    }
}

/// `failures` of a job that was stopped: what is final and has no value has a record that is seen.
#[test]
fn a_stopped_job_loses_no_failure() {
    #[derive(Default)]
    struct Scene {
        pool: Pool<1>,
        status: StatusWord,
    }
    impl Scene {
        /// Its element fails.
        fn work(&self) {
            let Found::Run(job) = self.pool.member(0).take_run() else {
                return;
            };
            if let Some(held) = job.may_go_on().then(|| job.take(1)).flatten() {
                job.cell().push_failure(1, |_| ());
                self.status.publish_final(Tag::NONE);
                held.count();
            }
            job.leave(0, false);
        }
    }
    explore(3, || {
        let (pool, cell) = Pool::new();
        let scene = Arc::new(Scene {
            pool,
            ..Scene::default()
        });
        let parent = scene.pool.parent();
        let epoch = parent.open(cell, opening(1));
        parent.push(epoch.run(Span::new(0, 1), false)).unwrap();
        let worker = thread::spawn({
            let scene = Arc::clone(&scene);
            move || scene.work()
        });
        parent.stop(KEY);
        let newest = loop {
            match parent.look(KEY) {
                Standing::Leaving { .. } => thread::yield_now(),
                Standing::Complete { newest, .. } | Standing::Stopped { newest, .. } => break newest,
                other => panic!("{other:?}"),
            }
        };
        if scene.status.load(Tag::NONE) == ChunkStatus::Final {
            assert_eq!(newest, 1, "a failure is lost");
        }
        worker.join().unwrap();
    });
}

/// `failures`: a record that is seen is whole, and so are those behind it; a death loses its own at most.
#[test]
fn every_failure_record_that_is_seen_is_whole() {
    /// Link and text of each record.
    #[derive(Default)]
    struct Records {
        cell: JobCell,
        words: [[AtomicU64; 2]; 2],
    }
    impl Records {
        fn push(&self, me: usize) {
            self.words[me][1].store(7 + me as u64, Relaxed);
            self.cell
                .push_failure(me as u64 + 1, |next| self.words[me][0].store(next, Relaxed));
        }

        fn seen(&self) -> Vec<u64> {
            let mut link = self.cell.failures.load(Acquire);
            let mut seen = Vec::new();
            while link != 0 {
                let me = link as usize - 1;
                assert_eq!(
                    self.words[me][1].load(Relaxed),
                    7 + me as u64,
                    "a record has no text"
                );
                seen.push(link);
                link = self.words[me][0].load(Relaxed);
            }
            seen.sort_unstable();
            seen
        }
    }
    explore_deaths(3, |nth| {
        let records = Arc::new(Records::default());
        let [mortal, other] = [Some(nth), None].map(|nth| {
            let records = Arc::clone(&records);
            let me = usize::from(nth.is_none());
            thread::spawn(move || match nth {
                Some(nth) => dies_before(nth, || records.push(me)),
                None => {
                    records.push(me);
                    false
                }
            })
        });
        records.seen();
        let died = mortal.join().unwrap();
        other.join().unwrap();
        let seen = records.seen();
        assert!(seen == [1, 2] || (died && seen == [2]), "{seen:?}");
        died
    });
}

/// `heap_used`: no byte is given away twice.
#[test]
fn every_piece_of_the_heap_is_given_to_one() {
    explore(3, || {
        let cell = Arc::new(JobCell::default());
        let takers = [(); 2].map(|()| {
            let cell = Arc::clone(&cell);
            thread::spawn(move || cell.heap_used.fetch_add(64, Relaxed))
        });
        let mut starts = takers.map(|taker| taker.join().unwrap());
        starts.sort_unstable();
        assert_eq!(starts, [0, 64]);
    });
}

/// `held_handles`: who sees the worker outside sees what it has taken along.
#[test]
fn a_handle_that_a_worker_takes_along_is_seen() {
    explore(3, || {
        let (pool, cell) = Pool::<1>::new();
        let pool = Arc::new(pool);
        let parent = pool.parent();
        let epoch = parent.open(cell, opening(1));
        parent.push(epoch.run(Span::new(0, 1), false)).unwrap();
        let worker = thread::spawn({
            let pool = Arc::clone(&pool);
            move || match pool.member(0).take_run() {
                Found::Run(job) => {
                    job.leave(1, false);
                    true
                }
                _ => false,
            }
        });
        parent.stop(KEY);
        while parent.unoccupied(KEY).is_none() {
            thread::yield_now();
        }
        // A worker that is outside by now may not have come yet; then it finds the job stopped.
        let held = pool.slots[0].held_handles.load(Relaxed);
        let entered = worker.join().unwrap();
        assert_eq!(held, u32::from(entered));
    });
}

/// `disturbed`: whoever takes or steals a chunk with progress knows that there may be some.
#[test]
fn who_takes_a_chunk_with_progress_knows_of_it() {
    #[derive(Default)]
    struct Pool {
        ends: RingEnds,
        cells: [RingCell; 2],
        cell: JobCell,
        lane: Lane,
        status: StatusWord,
    }
    explore(3, || {
        let pool = Arc::new(Pool::default());
        let knows = |pool: &Pool| {
            assert_ne!(
                pool.cell.disturbed.load(Relaxed),
                0,
                "it takes the chunk for fresh"
            );
            assert_eq!(pool.status.load(Tag::NONE), ChunkStatus::Progress(1));
        };
        let owner = thread::spawn({
            let pool = Arc::clone(&pool);
            move || {
                if let Some(run) = RingView::new(&pool.ends, &pool.cells).pop() {
                    knows(&pool);
                    pool.lane.fill(Span::new(run.first, run.first + run.chunks));
                }
            }
        });
        let thief = thread::spawn({
            let pool = Arc::clone(&pool);
            move || {
                if pool.lane.steal().is_some() {
                    knows(&pool);
                }
            }
        });
        pool.status.publish_progress(Tag::NONE, 1);
        pool.cell.disturbed.store(1, Relaxed);
        RingView::new(&pool.ends, &pool.cells).push(run(0)).unwrap();
        owner.join().unwrap();
        thief.join().unwrap();
    });
}

/// `used_slots`: the last to count sees the lane of a worker that came meanwhile.
#[test]
fn a_worker_that_came_by_a_resize_is_counted() {
    #[derive(Default)]
    struct Pool {
        cell: JobCell,
        lanes: [Lane; 2],
        used: AtomicU32,
    }
    impl Pool {
        fn count(&self, me: usize) {
            let lane = &self.lanes[me];
            lane.fill(Span::new(me as u32, me as u32 + 1));
            let hand = lane.take(1).expect("it was just filled");
            lane.count(hand);
            let used = || &self.lanes[..self.used.load(Relaxed) as usize];
            self.cell.complete_if_counted(OPEN, used);
        }
    }
    explore(3, || {
        let pool = Arc::new(Pool::default());
        pool.used.store(1, Relaxed);
        pool.cell.target.store(2, Relaxed);
        pool.cell.gate.set(OPEN);
        let old = thread::spawn({
            let pool = Arc::clone(&pool);
            move || pool.count(0)
        });
        pool.used.store(2, Release);
        let new = thread::spawn({
            let pool = Arc::clone(&pool);
            move || pool.count(1)
        });
        old.join().unwrap();
        new.join().unwrap();
        let seen = pool.cell.gate.state();
        assert_eq!(seen.phase, JobPhase::Complete, "nobody completed the job");
        assert!(pool.cell.is_vouched(seen));
    });
}

/// `pid`: a process comes to its slot after it was announced, and hears of that.
#[test]
fn a_worker_waits_until_it_is_announced() {
    explore(3, || {
        let shared = Arc::new((WorkerSlot::default(), Futex::default(), AtomicU64::default()));
        let worker = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                let (slot, futex, told) = &*shared;
                loop {
                    let announced = slot.pid.load(Acquire);
                    if announced == 9 {
                        break;
                    }
                    futex.wait(&slot.pid, announced);
                }
                assert_eq!(told.load(Relaxed), 1, "the parent has not heard of it");
            }
        });
        let (slot, futex, told) = &*shared;
        told.store(1, Relaxed);
        slot.pid.store(9, Release);
        futex.wake(&slot.pid);
        worker.join().unwrap();
    });
}

/// One worker, as it looks for work.
#[derive(Default)]
struct Doors {
    ends: RingEnds,
    cells: [RingCell; 2],
    slot: WorkerSlot,
    park: ParkWord,
    futex: Futex,
    shutdown: AtomicU32,
}

impl Doors {
    fn ring(&self) -> RingView<'_> {
        RingView::new(&self.ends, &self.cells)
    }

    /// Takes so many runs, or until the shutdown; a look before it sleeps, as one who looks out for work.
    fn serve(&self, runs: u32) {
        self.park.unpark_self();
        let mut taken = 0;
        while taken < runs && self.shutdown.load(Acquire) == 0 {
            if !self.ring().is_empty() {
                self.slot.set_phase(SlotPhase::Popping);
                taken += u32::from(self.ring().pop().is_some());
                self.slot.set_phase(SlotPhase::Idle);
                continue;
            }
            self.park.prepare();
            if self.ring().is_empty() && self.shutdown.load(Acquire) == 0 {
                while !self.park.is_awake() {
                    self.futex.wait(self.park.word(), ParkWord::PARKED);
                }
            }
            self.park.unpark_self();
        }
    }

    /// A run that is left to a worker that is awake and idle, if there is one.
    fn give(&self, first: u32) {
        self.ring().push(run(first)).unwrap();
        publish_fence();
        let waiting = self.ring().len();
        let looks_out = self.slot.phase() == SlotPhase::Idle && self.park.state() == ParkWordState::Awake;
        if waiting > u64::from(looks_out) && self.park.claim_wake() {
            self.futex.wake(self.park.word());
        }
    }
}

/// Phase and park word, as `lookouts` counts them.
#[test]
fn a_run_that_is_left_to_who_looks_for_work_is_found() {
    explore(2, || {
        let doors = Arc::new(Doors::default());
        doors.slot.set_phase(SlotPhase::Idle);
        let worker = thread::spawn({
            let doors = Arc::clone(&doors);
            move || doors.serve(2)
        });
        doors.give(0);
        doors.give(1);
        worker.join().unwrap();
    });
}

/// `shutdown`: heard by who works, sleeps, or has not yet come.
#[test]
fn everybody_hears_of_the_shutdown() {
    explore(3, || {
        let doors = Arc::new(Doors::default());
        let worker = thread::spawn({
            let doors = Arc::clone(&doors);
            move || doors.serve(1)
        });
        doors.shutdown.store(1, Release);
        publish_fence();
        doors.park.wake_anyway();
        doors.futex.wake(doors.park.word());
        worker.join().unwrap();
    });
}

/// `settled`, `copy`: after a death anywhere, either the copy can be made again, or it is settled.
#[test]
fn a_copy_is_settled_or_can_be_made_again() {
    use swathe_protocol::InPlaceCopy;
    const COPY: InPlaceCopy = InPlaceCopy {
        from: 1,
        to_segment: 2,
        to: 3,
        len: 4,
        end: 5,
    };
    explore_deaths(2, |nth| {
        let shared = Arc::new((WorkerSlot::default(), AtomicU64::default()));
        let worker = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                dies_before(nth, || {
                    let (slot, array) = &*shared;
                    slot.copy.arm(COPY);
                    array.store(7, Relaxed);
                    slot.settled.store(COPY.end, Release);
                    slot.copy.disarm();
                })
            }
        });
        let died = worker.join().unwrap();
        let (slot, array) = &*shared;
        let begun = array.load(Relaxed) == 7;
        let again = slot.copy.armed();
        assert!(again.is_none_or(|copy| copy == COPY), "{again:?}");
        assert!(
            !begun || again.is_some() || slot.settled.load(Acquire) == COPY.end,
            "it was begun, and nobody knows"
        );
        died
    });
}
