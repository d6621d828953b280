//! Rounds of retries under loom: each is run once, by whoever takes it, whatever runs of an older epoch still lie in the
//! ring, and however late the worker that completed the round before comes back.
#![cfg(loom)]

use std::sync::{Arc, Mutex};

use loom::thread;
use swathe_protocol::{
    ChunkStatus, Descriptor, Found, GateState, Header, JobCell, JobKey, JobPhase, Lane, Member, ParkWord,
    RingCell, RingEnds, RingView, StatusWord, Tag, Words, WorkerSlot,
    sync::{AtomicU64, Ordering::Relaxed, mortal::explore},
};

const KEY: JobKey = JobKey::new(0, 1);

/// Two workers, and a job of one chunk a round.
#[derive(Default)]
struct Pool {
    header: Header,
    ends: RingEnds,
    cells: [RingCell; 4],
    parks: [ParkWord; 2],
    cell: JobCell,
    lanes: [Lane; 2],
    slots: [WorkerSlot; 2],
    /// Stands for the terms.
    round: AtomicU64,
    /// Each round has words of its own.
    status: [StatusWord; 2],
    /// An oracle: how often the chunk was run, round by round.
    runs: Mutex<[u32; 2]>,
}

impl Pool {
    fn ring(&self) -> RingView<'_> {
        RingView::new(&self.ends, &self.cells)
    }

    fn push(&self, epoch: u32) {
        let run = Descriptor {
            job: KEY,
            epoch,
            first: 0,
            chunks: 1,
            careful: false,
        };
        self.ring().push(run).unwrap();
    }

    /// In an epoch behind the first; the run of an older one is left over.
    fn opened() -> Arc<Self> {
        let pool = Arc::new(Self::default());
        pool.header.used_slots.store(2, Relaxed);
        pool.push(0);
        pool.open(
            0,
            GateState {
                generation: KEY.generation,
                epoch: 1,
                phase: JobPhase::Open,
            },
        );
        pool.push(0);
        pool
    }

    fn open(&self, round: u64, opened: GateState) {
        self.lanes.iter().for_each(Lane::reset);
        self.round.store(round, Relaxed);
        self.cell.target.store(1, Relaxed);
        self.cell.gate.set(opened);
        self.push(opened.epoch);
    }

    /// The second round, once the first is complete and nobody is inside. `false`: not yet.
    fn open_again(&self) -> bool {
        let seen = self.cell.gate.state();
        if seen.phase != JobPhase::Complete {
            return false;
        }
        swathe_protocol::bell::publish_fence();
        if self.slots.iter().any(|slot| slot.inside().is_some()) {
            return false;
        }
        assert!(self.cell.is_vouched(seen), "it was counted");
        assert_eq!(self.status[0].load(Tag::NONE), ChunkStatus::Final);
        self.open(1, seen.next_epoch(JobPhase::Open));
        true
    }

    /// Takes a run and runs it. `false`: there was none.
    fn work(&self, me: usize) -> bool {
        let words = Words {
            header: &self.header,
            ring: self.ring(),
            slots: &self.slots,
            parks: &self.parks,
            cells: std::slice::from_ref(&self.cell),
            lanes: &self.lanes,
        };
        match Member::new(words, &(), me).take_run() {
            Found::Nothing => return false,
            Found::Void => {}
            Found::Run(job) => {
                while job.may_go_on()
                    && let Some(held) = job.take(1)
                {
                    let round = self.round.load(Relaxed) as usize;
                    self.runs.lock().unwrap()[round] += 1;
                    self.status[round].publish_final(Tag::NONE);
                    held.count();
                }
                job.leave(0, false);
            }
        }
        true
    }
}

#[test]
fn every_round_is_run_once() {
    explore(1, || {
        let pool = Pool::opened();
        let workers = [0, 1].map(|me| {
            let pool = Arc::clone(&pool);
            thread::spawn(move || {
                pool.work(me);
                pool.work(me);
            })
        });
        while !pool.open_again() {
            thread::yield_now();
        }
        for worker in workers {
            worker.join().unwrap();
        }
        while pool.work(0) {}
        assert_eq!(*pool.runs.lock().unwrap(), [1, 1]);
        let seen = pool.cell.gate.state();
        assert_eq!((seen.phase, seen.epoch), (JobPhase::Complete, 2));
        assert!(pool.cell.is_vouched(seen), "it was counted");
        assert_eq!(pool.status[1].load(Tag::NONE), ChunkStatus::Final);
    });
}
