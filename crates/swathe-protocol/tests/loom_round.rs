//! Rounds of retries under loom: each is run once, by whoever takes it, whatever runs of an older epoch still lie in the
//! ring, and however late the worker that completed the round before comes back.
#![cfg(loom)]

mod pool;

use std::sync::{Arc, Mutex};

use loom::thread;
use pool::{KEY, Pool, opening};
use swathe_protocol::{
    ChunkStatus, Descriptor, Found, JobPhase, Rebuild, Span, Standing, StatusWord, Tag,
    sync::{AtomicU64, Ordering::Relaxed, mortal::explore},
};

const CHUNK: Span = Span::new(0, 1);

/// Two workers, and a job of one chunk a round.
#[derive(Default)]
struct Scene {
    pool: Pool<2>,
    /// Stands for the terms.
    round: AtomicU64,
    /// Each round has words of its own.
    status: [StatusWord; 2],
    /// An oracle: how often the chunk was run, round by round.
    runs: Mutex<[u32; 2]>,
}

impl Scene {
    fn push(&self, run: Descriptor) {
        self.pool.parent().push(run).unwrap();
    }

    /// Rebuilt before anybody has come; the runs of the epoch before lie beside that of this one.
    fn opened() -> Arc<Self> {
        let (pool, cell) = Pool::new();
        let scene = Arc::new(Self {
            pool,
            ..Self::default()
        });
        let parent = scene.pool.parent();
        let void = parent.open(cell, opening(1)).run(CHUNK, false);
        assert!(parent.close(KEY));
        scene.push(void);
        let Rebuild::Ready(closed) = parent.rebuild(KEY) else {
            panic!("nobody is inside");
        };
        let epoch = closed.reopen(1).unwrap();
        // As nothing has progress.
        scene.pool.cell.disturbed.store(0, Relaxed);
        scene.push(epoch.run(CHUNK, false));
        scene.push(void);
        scene
    }

    /// The second round, once the first is complete and nobody is inside. `false`: not yet.
    fn open_again(&self) -> bool {
        let parent = self.pool.parent();
        let Standing::Complete { gate, .. } = parent.look(KEY) else {
            return false;
        };
        let Some(cell) = parent.unoccupied(KEY) else {
            return false;
        };
        assert!(self.pool.cell.is_vouched(gate), "it was counted");
        assert_eq!(self.status[0].load(Tag::NONE), ChunkStatus::Final);
        self.round.store(1, Relaxed);
        self.push(cell.open_round(opening(1)).run(CHUNK, false));
        true
    }

    /// Takes a run and runs it. `false`: there was none.
    fn work(&self, me: usize) -> bool {
        match self.pool.member(me).take_run() {
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
        let scene = Scene::opened();
        let workers = [0, 1].map(|me| {
            let scene = Arc::clone(&scene);
            thread::spawn(move || {
                scene.work(me);
                scene.work(me);
            })
        });
        while !scene.open_again() {
            thread::yield_now();
        }
        for worker in workers {
            worker.join().unwrap();
        }
        while scene.work(0) {}
        assert_eq!(*scene.runs.lock().unwrap(), [1, 1]);
        let seen = scene.pool.cell.gate.state();
        assert_eq!((seen.phase, seen.epoch), (JobPhase::Complete, 2));
        assert!(scene.pool.cell.is_vouched(seen), "it was counted");
        assert_eq!(scene.status[1].load(Tag::NONE), ChunkStatus::Final);
    });
}
