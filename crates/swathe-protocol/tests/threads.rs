//! Ring, gate, lanes and status words under real threads: a seeded mix of small jobs in cells used again and again,
//! every chunk exactly once.
#![cfg(not(loom))]

use std::{
    sync::atomic::{
        AtomicBool, AtomicU32, AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
    thread,
};

use swathe_protocol::{
    ChunkStatus, Descriptor, GateState, JobCell, JobKey, JobPhase, JobTerms, Lane, RingCell, RingEnds,
    RingView, Span, StatusWord, Tag, WorkerSlot, lane,
};

const WORKERS: usize = 3;
const CELLS: usize = 2;
const MAX_CHUNKS: usize = 64;
const JOBS: u32 = 40_000;
/// On a machine with one core to give, a thread is interrupted in the middle of a run once in a while only.
const JOBS_UNTIL_ONE_IS_STOLEN: u32 = 50 * JOBS;

/// One job cell with all that belongs to it.
struct Job {
    cell: JobCell,
    lanes: [Lane; WORKERS],
    status: [StatusWord; MAX_CHUNKS],
    slab: [AtomicU64; MAX_CHUNKS],
    runs: [AtomicU32; MAX_CHUNKS],
}

impl Default for Job {
    fn default() -> Self {
        Self {
            cell: JobCell::default(),
            lanes: Default::default(),
            status: std::array::from_fn(|_| StatusWord::default()),
            slab: std::array::from_fn(|_| AtomicU64::default()),
            runs: std::array::from_fn(|_| AtomicU32::default()),
        }
    }
}

#[derive(Default)]
struct Pool {
    ends: RingEnds,
    cells: [RingCell; 4],
    jobs: [Job; CELLS],
    slots: [WorkerSlot; WORKERS],
    stolen: AtomicU32,
    over: AtomicBool,
}

impl Pool {
    fn ring(&self) -> RingView<'_> {
        RingView::new(&self.ends, &self.cells)
    }

    fn work(&self, me: usize) {
        while !self.over.load(Acquire) {
            if !self.pop_and_run(me) && !self.steal_and_run(me) {
                thread::yield_now();
            }
        }
    }

    fn pop_and_run(&self, me: usize) -> bool {
        let Some(run) = self.ring().pop() else {
            return false;
        };
        let job = &self.jobs[run.job.index as usize];
        let seen = job
            .cell
            .gate
            .enter(&self.slots[me], run.job)
            .expect("an open job is not over before its runs");
        assert_eq!(seen.epoch, run.epoch);
        Self::run_job(job, me, seen, Span::new(run.first, run.first + run.chunks));
        self.leave(job, me, seen);
        true
    }

    fn steal_and_run(&self, me: usize) -> bool {
        (0..WORKERS).filter(|&victim| victim != me).any(|victim| {
            let Some(key) = self.slots[victim].inside() else {
                return false;
            };
            let job = &self.jobs[key.index as usize];
            let Some(seen) = job.cell.gate.enter(&self.slots[me], key) else {
                return false;
            };
            let stolen = job.lanes[victim].steal();
            if let Some(stolen) = stolen {
                self.stolen.fetch_add(stolen.len(), Relaxed);
                Self::run_job(job, me, seen, stolen);
            }
            self.leave(job, me, seen);
            stolen.is_some()
        })
    }

    fn run_job(job: &Job, me: usize, seen: GateState, run: Span) {
        let lane = &job.lanes[me];
        let terms = job.cell.terms();
        assert_eq!(terms.seed, u64::from(seen.generation));
        lane.fill(run);
        while let Some(hand) = lane.take(1 + run.len() / 4) {
            for chunk in hand.first as usize..hand.end as usize {
                assert_eq!(job.status[chunk].load(Tag::NONE), ChunkStatus::Progress(0));
                let rounds = (chunk as u64 * 37) % 200;
                let value = (0..rounds).fold(terms.seed, |value, _| {
                    std::hint::black_box(value.rotate_left(7) ^ 5)
                });
                job.slab[chunk].store(value, Relaxed);
                job.runs[chunk].fetch_add(1, Relaxed);
                job.status[chunk].publish_final(Tag::NONE);
            }
            lane.count(hand);
        }
    }

    /// Leaves, and completes the job if it is counted.
    fn leave(&self, job: &Job, me: usize, seen: GateState) {
        self.slots[me].leave();
        if lane::counted(|| &job.lanes) == job.cell.target.load(Relaxed)
            && job.cell.gate.advance(seen, JobPhase::Complete)
        {
            let _ = job.cell.bell.ring();
        }
    }

    /// The parent waits a little.
    fn pause(&self) {
        assert!(!self.over.load(Acquire), "a worker failed");
        thread::yield_now();
    }

    fn open(&self, key: JobKey, chunks: u32, pieces: u32) {
        let job = &self.jobs[key.index as usize];
        let gate = |phase| GateState {
            generation: key.generation,
            epoch: 0,
            phase,
        };
        job.cell.gate.set(gate(JobPhase::Vacant));
        while self
            .slots
            .iter()
            .any(|slot| slot.inside().is_some_and(|inside| inside.index == key.index))
        {
            self.pause();
        }
        job.cell.write_terms(JobTerms {
            seed: key.generation.into(),
            chunks: chunks.into(),
            ..JobTerms::default()
        });
        job.cell.target.store(chunks.into(), Relaxed);
        job.lanes.iter().for_each(Lane::reset);
        job.status.iter().for_each(StatusWord::reset);
        job.runs.iter().for_each(|runs| runs.store(0, Relaxed));
        job.cell.gate.set(gate(JobPhase::Open));
        for piece in 0..pieces {
            let (first, end) = (chunks * piece / pieces, chunks * (piece + 1) / pieces);
            let mut run = Descriptor {
                job: key,
                epoch: 0,
                first,
                chunks: end - first,
                careful: false,
            };
            while let Err(back) = self.ring().push(run) {
                run = back;
                self.pause();
            }
        }
    }

    fn check(&self, key: JobKey, chunks: u32) {
        let job = &self.jobs[key.index as usize];
        while job.cell.gate.state().phase != JobPhase::Complete {
            self.pause();
        }
        for chunk in 0..MAX_CHUNKS {
            let due = u32::from(chunk < chunks as usize);
            assert_eq!(
                job.runs[chunk].load(Relaxed),
                due,
                "times chunk {chunk} of {key:?} was run"
            );
            if due == 1 {
                assert_eq!(job.status[chunk].load(Tag::NONE), ChunkStatus::Final);
                let rounds = (chunk as u64 * 37) % 200;
                let value = (0..rounds).fold(key.generation.into(), |value: u64, _| value.rotate_left(7) ^ 5);
                assert_eq!(job.slab[chunk].load(Relaxed), value, "chunk {chunk} of {key:?}");
            }
        }
    }
}

/// A seeded sequence of numbers below `bound` (Knuth's 64-bit linear congruential generator, upper bits).
fn below(state: &mut u64, bound: u32) -> u32 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    ((*state >> 33) % u64::from(bound)) as u32
}

/// Ends everything also when an assertion fails, in the parent or in a worker: nobody must wait for the one that failed.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Release);
    }
}

#[test]
fn every_chunk_of_every_job_exactly_once() {
    let pool = Pool::default();
    thread::scope(|scope| {
        let _over = Over(&pool.over);
        for me in 0..WORKERS {
            let pool = &pool;
            scope.spawn(move || {
                let _over = Over(&pool.over);
                pool.work(me);
            });
        }
        let mut seed = 17;
        for round in 1..=JOBS_UNTIL_ONE_IS_STOLEN / CELLS as u32 {
            if round > JOBS / CELLS as u32 && pool.stolen.load(Relaxed) > 0 {
                break;
            }
            // Both cells at once, so that thieves have a choice.
            let sizes: [u32; CELLS] = std::array::from_fn(|_| 1 + below(&mut seed, MAX_CHUNKS as u32));
            for (index, &chunks) in sizes.iter().enumerate() {
                let pieces = 1 + below(&mut seed, chunks.min(WORKERS as u32));
                pool.open(JobKey::new(index as u32, round), chunks, pieces);
            }
            for (index, &chunks) in sizes.iter().enumerate() {
                pool.check(JobKey::new(index as u32, round), chunks);
            }
        }
    });
    assert!(
        pool.stolen.into_inner() > 0,
        "no chunk was ever stolen: the test does not test stealing"
    );
}
