//! Orders under loom: a job that wants this very worker is run by it in every round and after every rebuild, once, however
//! late the worker comes back to clear the order before, and wherever it dies.
#![cfg(loom)]

use std::sync::{Arc, Mutex};

use loom::thread;
use swathe_protocol::{
    ChunkStatus, GateState, Hand, Header, Inside, JobCell, JobKey, JobPhase, Lane, Member, Order, ParkWord,
    RingCell, RingEnds, RingView, SlotPhase, Span, StatusWord, Tag, Words, WorkerSlot,
    sync::{
        AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
        mortal::{dies_before, explore, explore_deaths},
    },
};

const KEY: JobKey = JobKey::new(0, 1);
const CHUNK: Span = Span::new(0, 1);

/// One worker, and a job of one chunk in up to two rounds.
#[derive(Default)]
struct Pool {
    header: Header,
    ends: RingEnds,
    cells: [RingCell; 2],
    park: ParkWord,
    cell: JobCell,
    lanes: [Lane; 1],
    slot: WorkerSlot,
    /// Stands for the terms: which of the status words is this round's.
    round: AtomicU64,
    status: [StatusWord; 2],
    /// Whether the worker's thread has ended.
    gone: AtomicU64,
    /// An oracle: how often the chunk was run, round by round.
    runs: Mutex<[u32; 2]>,
}

impl Pool {
    fn opened() -> Arc<Self> {
        let pool = Arc::new(Self::default());
        pool.header.used_slots.store(1, Relaxed);
        pool.open(
            KEY,
            0,
            GateState {
                generation: KEY.generation,
                epoch: 0,
                phase: JobPhase::Open,
            },
        );
        pool
    }

    fn status(&self) -> &StatusWord {
        &self.status[self.round.load(Relaxed) as usize]
    }

    fn is_complete(&self) -> bool {
        self.cell.gate.state().phase == JobPhase::Complete
    }

    // The parent.

    fn open(&self, job: JobKey, round: u64, opened: GateState) {
        self.lanes[0].reset();
        self.round.store(round, Relaxed);
        self.cell.target.store(1, Relaxed);
        self.cell.gate.set(opened);
        self.order(job, opened.epoch);
    }

    fn order(&self, job: JobKey, epoch: u32) {
        self.lanes[0].fill(CHUNK);
        self.slot.order.give(Order::Run { job, epoch });
    }

    /// The second round, once the first is complete and nobody is inside. `false`: not yet.
    fn open_again(&self) -> bool {
        let seen = self.cell.gate.state();
        let may = seen.phase == JobPhase::Complete && self.slot.inside().is_none();
        if may {
            self.open(KEY, 1, seen.next_epoch(JobPhase::Open));
        }
        may
    }

    /// All claims are void.
    fn rebuild(&self) {
        let Some(closed) = self.cell.gate.close(self.cell.gate.state()) else {
            return;
        };
        while self.slot.inside().is_some() {
            thread::yield_now();
        }
        self.lanes[0].reset();
        let is_final = self.status().load(Tag::NONE) == ChunkStatus::Final;
        self.cell.target.store(u64::from(!is_final), Relaxed);
        if is_final {
            assert!(self.cell.gate.advance(closed, JobPhase::Complete));
        } else {
            assert!(self.cell.gate.advance(closed, JobPhase::Open));
            self.order(KEY, closed.epoch);
        }
    }

    /// After the worker was reaped.
    fn recover(&self) {
        let (slot, lane) = (&self.slot, &self.lanes[0]);
        let seen = self.cell.gate.state();
        match slot.phase() {
            SlotPhase::Popping => {
                slot.leave();
                self.rebuild();
            }
            SlotPhase::Working if slot.inside().is_some() && seen.phase == JobPhase::Open => {
                let hand = lane.hand();
                let rest = lane.drain();
                let is_final = self.status().load(Tag::NONE) == ChunkStatus::Final;
                if hand != Hand::Empty {
                    lane.settle(u32::from(is_final));
                }
                if !rest.is_empty() || hand != Hand::Empty && !is_final {
                    self.order(KEY, seen.epoch);
                }
                slot.leave();
            }
            _ => slot.leave(),
        }
        self.complete_if_counted(self.cell.gate.state());
        slot.set_phase(SlotPhase::Idle);
    }

    // The worker.

    fn complete_if_counted(&self, seen: GateState) {
        if seen.phase == JobPhase::Open {
            self.cell.complete_if_counted(seen, || &self.lanes);
        }
    }

    /// Does what the word says. `false`: nothing, or it left.
    fn serve(&self) -> bool {
        let order = self.slot.order.read();
        match order {
            Order::Run { .. } => {
                if let Some(job) = self.member().follow(order) {
                    self.mow(job);
                }
                true
            }
            Order::None => false,
            Order::Retire => {
                self.slot.set_phase(SlotPhase::Leaving);
                false
            }
        }
    }

    fn member(&self) -> Member<'_, ()> {
        let words = Words {
            header: &self.header,
            ring: RingView::new(&self.ends, &self.cells),
            slots: std::slice::from_ref(&self.slot),
            parks: std::slice::from_ref(&self.park),
            cells: std::slice::from_ref(&self.cell),
            lanes: &self.lanes,
        };
        Member::new(words, &(), 0)
    }

    fn mow(&self, job: Inside<'_, ()>) {
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
    fn finish(&self, rounds: usize) {
        while self.serve() {}
        assert!(self.is_complete(), "the order is lost, and the job never ends");
        for round in 0..rounds {
            assert_eq!(self.status[round].load(Tag::NONE), ChunkStatus::Final);
        }
    }
}

/// A worker's thread that looks at its word so often.
fn worker(pool: &Arc<Pool>, looks: u32) -> thread::JoinHandle<()> {
    let pool = Arc::clone(pool);
    thread::spawn(move || {
        for _ in 0..looks {
            pool.serve();
        }
    })
}

#[test]
fn a_late_worker_does_not_clear_the_order_of_the_next_round() {
    explore(3, || {
        let pool = Pool::opened();
        let late = worker(&pool, 2);
        while !pool.open_again() {
            thread::yield_now();
        }
        late.join().unwrap();
        pool.finish(2);
        assert_eq!(*pool.runs.lock().unwrap(), [1, 1]);
    });
}

#[test]
fn a_late_worker_does_not_clear_the_order_that_a_rebuild_has_given() {
    explore(3, || {
        let pool = Pool::opened();
        let late = worker(&pool, 2);
        pool.rebuild();
        late.join().unwrap();
        pool.finish(1);
        assert_eq!(*pool.runs.lock().unwrap(), [1, 0]);
    });
}

#[test]
fn an_order_outlives_its_worker_and_is_done_in_both_rounds() {
    explore_deaths(2, |nth| {
        let pool = Pool::opened();
        let mut mortal = Some(thread::spawn({
            let pool = Arc::clone(&pool);
            move || {
                let died = dies_before(nth, || {
                    pool.serve();
                    pool.serve();
                });
                pool.gone.store(1, Release);
                died
            }
        }));
        let mut any_died = false;
        while !pool.open_again() {
            if pool.gone.load(Acquire) == 1
                && let Some(mortal) = mortal.take()
            {
                any_died = mortal.join().unwrap();
                if any_died {
                    pool.recover();
                }
                while pool.serve() {}
            }
            thread::yield_now();
        }
        if let Some(mortal) = mortal {
            any_died = mortal.join().unwrap();
            if any_died {
                pool.recover();
            }
        }
        pool.finish(2);
        any_died
    });
}

/// The job is over, the worker is one too many, and then wanted again: for a job, or for good.
#[test]
fn an_order_to_leave_and_an_order_to_run_do_not_get_lost() {
    explore(3, || {
        let pool = Pool::opened();
        let life = worker(&pool, 2);
        while !pool.is_complete() || pool.slot.inside().is_some() {
            thread::yield_now();
        }
        pool.slot.order.give(Order::Retire);
        let next = JobKey::new(0, 2);
        pool.open(
            next,
            1,
            GateState {
                generation: next.generation,
                epoch: 0,
                phase: JobPhase::Open,
            },
        );
        life.join().unwrap();
        // One that has left is replaced, because it is wanted.
        pool.slot.set_phase(SlotPhase::Idle);
        pool.slot.order.clear(Order::Retire);
        pool.finish(2);
        assert_eq!(*pool.runs.lock().unwrap(), [1, 1]);
    });
}
