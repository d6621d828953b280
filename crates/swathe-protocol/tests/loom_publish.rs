//! Publishing under loom: who sees a status sees the values under it, and a job is completed by exactly one worker.
#![cfg(loom)]

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::SeqCst},
};

use loom::thread;
use swathe_protocol::{
    ChunkStatus, GateState, JobCell, JobPhase, Lane, Span, StatusWord, Tag,
    sync::{AtomicU64, Ordering::Relaxed, mortal::explore},
};

#[test]
fn who_sees_a_status_sees_the_values() {
    explore(3, || {
        let shared = Arc::new((
            StatusWord::default(),
            [AtomicU64::default(), AtomicU64::default()],
        ));
        let worker = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                let (status, slab) = &*shared;
                slab[0].store(10, Relaxed);
                status.publish_progress(Tag::NONE, 1);
                slab[1].store(11, Relaxed);
                status.publish_final(Tag::NONE);
            }
        });
        let (status, slab) = &*shared;
        for _ in 0..2 {
            let published = match status.load(Tag::NONE) {
                ChunkStatus::Progress(n) => n as usize,
                ChunkStatus::Final => 2,
            };
            for (i, value) in slab.iter().enumerate().take(published) {
                assert_eq!(
                    value.load(Relaxed),
                    10 + i as u64,
                    "position {i} of {published} published"
                );
            }
        }
        worker.join().unwrap();
    });
}

#[derive(Default)]
struct Job {
    cell: JobCell,
    lanes: [Lane; 2],
    slab: [AtomicU64; 2],
    status: [StatusWord; 2],
    /// An oracle, no part of the model.
    completions: AtomicU32,
}

const OPEN: GateState = GateState {
    generation: 1,
    epoch: 0,
    phase: JobPhase::Open,
};

impl Job {
    fn work(&self, me: usize) {
        self.lanes[me].fill(Span::new(me as u32, me as u32 + 1));
        while let Some(hand) = self.lanes[me].take(1) {
            self.slab[hand.first as usize].store(7, Relaxed);
            self.status[hand.first as usize].publish_final(Tag::NONE);
            self.lanes[me].count(hand);
        }
        if self.cell.complete_if_counted(OPEN, || &self.lanes) {
            self.completions.fetch_add(1, SeqCst);
        }
    }

    /// Whether the job is complete; if so, everything must be visible.
    fn look(&self) -> bool {
        let complete = self.cell.gate.state().phase == JobPhase::Complete;
        if complete {
            for (status, value) in self.status.iter().zip(&self.slab) {
                assert_eq!(value.load(Relaxed), 7, "complete, but a value is stale");
                assert_eq!(status.load(Tag::NONE), ChunkStatus::Final);
            }
        }
        complete
    }
}

#[test]
fn the_last_to_count_completes_and_who_sees_it_sees_the_values() {
    explore(3, || {
        let job = Arc::new(Job::default());
        job.cell.target.store(2, Relaxed);
        job.cell.gate.set(OPEN);
        let workers = [0, 1].map(|me| {
            let job = Arc::clone(&job);
            thread::spawn(move || job.work(me))
        });
        job.look();
        for worker in workers {
            worker.join().unwrap();
        }
        assert!(job.look(), "nobody completed the job");
        assert_eq!(job.completions.load(SeqCst), 1);
    });
}
