//! What happens in a pool whose workers die. Workers, parent and supervisor make the moves that they make everywhere; what is
//! here is what the runtime adds: the task, the place for runs that find the ring full, the note that a rebuild is due.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use super::pool::{KEY, Pool, opening};
use swathe_protocol::{
    ChunkStatus, Descriptor, Found, GateState, HandOn, Inside, JobPhase, Left, Rebuild, Span, StatusWord,
    Tag, status,
    sync::{AtomicU64, Ordering::Relaxed},
};

pub(crate) const CHUNKS: usize = 2;

/// What an onlooker outside of the model notes down. Nobody in the model reads it.
#[derive(Default)]
pub(crate) struct Notes {
    running: [Option<usize>; CHUNKS],
    pub(crate) finals: [u32; CHUNKS],
}

#[derive(Default)]
pub(crate) struct Scene {
    pool: Pool<2>,
    status: [StatusWord; CHUNKS],
    slab: [[AtomicU64; 2]; CHUNKS],
    /// The supervisor's own: the job is closed, and its claims are to be made anew when nobody is inside.
    rebuilding: Mutex<bool>,
    /// Likewise: runs that found the ring full.
    overflow: Mutex<VecDeque<Descriptor>>,
    /// Positions a chunk, at most 2.
    chunk_len: u32,
    /// What the bell's word says while a caller waits, as one does from the beginning.
    waited: u32,
    pub(crate) notes: Mutex<Notes>,
}

fn value(chunk: usize, position: usize) -> u64 {
    (chunk * 2 + position + 100) as u64
}

impl Scene {
    /// Full of runs of an old epoch, say: they wait until there is room.
    fn push(&self, run: Descriptor) {
        if let Err(run) = self.pool.parent().push(run) {
            self.overflow.lock().unwrap().push_back(run);
        }
    }

    /// The parent opens the job.
    pub(crate) fn open(chunk_len: u32, runs: &[Span]) -> Arc<Self> {
        let (pool, cell) = Pool::new();
        let scene = Self {
            chunk_len,
            waited: pool.cell.bell.prepare(),
            pool,
            ..Self::default()
        };
        // What no run covers is no part of the scenario.
        let all = runs.iter().map(|run| run.end).max().unwrap();
        scene
            .status
            .iter()
            .skip(all as usize)
            .for_each(|word| word.publish_final(Tag::NONE));
        let chunks = runs.iter().map(|run| run.len()).sum();
        let epoch = scene.pool.parent().open(cell, opening(chunks));
        runs.iter().for_each(|run| scene.push(epoch.run(*run, false)));
        Arc::new(scene)
    }

    // The worker.

    /// Takes a run from the ring and runs it. `false`: there was none.
    pub(crate) fn pop_and_run(&self, me: usize) -> bool {
        match self.pool.member(me).take_run() {
            Found::Nothing => return false,
            Found::Void => {}
            Found::Run(job) => self.run_job(me, job),
        }
        true
    }

    /// Takes half of the other worker's lane and runs it. `false`: there was nothing.
    pub(crate) fn steal_and_run(&self, me: usize) -> bool {
        let stolen = self.pool.member(me).steal();
        stolen.map(|job| self.run_job(me, job)).is_some()
    }

    fn run_job(&self, me: usize, job: Inside<'_, ()>) {
        while job.may_go_on()
            && let Some(held) = job.take(1)
        {
            if !self.run_chunk(me, job.seen(), held.chunks().first as usize) {
                held.forgo();
                break;
            }
            held.count();
        }
        job.leave(0, false);
    }

    /// Runs a chunk from its published progress on. `false`: the gate changed, the chunk is not final.
    fn run_chunk(&self, me: usize, seen: GateState, chunk: usize) -> bool {
        self.note_start(me, chunk);
        let from = match self.status[chunk].load(Tag::NONE) {
            ChunkStatus::Progress(n) => n,
            ChunkStatus::Final => panic!("chunk {chunk} is run, but is final"),
        };
        for position in from..self.chunk_len {
            self.slab[chunk][position as usize].store(value(chunk, position as usize), Relaxed);
            if position + 1 < self.chunk_len {
                self.status[chunk].publish_progress(Tag::NONE, position + 1);
                if !self.pool.cell.gate.still(seen) {
                    self.note_end(chunk);
                    return false;
                }
            }
        }
        self.status[chunk].publish_final(Tag::NONE);
        self.notes.lock().unwrap().finals[chunk] += 1;
        self.note_end(chunk);
        true
    }

    fn note_start(&self, me: usize, chunk: usize) {
        let before = self.notes.lock().unwrap().running[chunk].replace(me);
        assert_eq!(before, None, "chunk {chunk} is run by {me} too");
    }

    fn note_end(&self, chunk: usize) {
        self.notes.lock().unwrap().running[chunk] = None;
    }

    // The supervisor.

    /// After the dead worker was reaped.
    pub(crate) fn recover(&self, dead: usize) {
        for running in self
            .notes
            .lock()
            .unwrap()
            .running
            .iter_mut()
            .filter(|running| **running == Some(dead))
        {
            *running = None;
        }
        let parent = self.pool.parent();
        let dead = parent.reaped(dead);
        match dead.left() {
            Left::Nothing => {}
            Left::Claims(claims) => match claims.hand_on(CHUNKS as u32) {
                HandOn::Void => {}
                HandOn::Rebuild => panic!("no word was overwritten"),
                HandOn::Taken(taken) => {
                    let (begun, rest) = taken.settle(&self.status, Tag::NONE);
                    let epoch = taken.epoch();
                    begun.into_iter().for_each(|run| self.push(epoch.run(run, true)));
                    rest.into_iter().for_each(|run| self.push(epoch.run(run, false)));
                    epoch.complete_if_counted(false);
                }
            },
            Left::Unwritten => {
                if parent.close(KEY) {
                    *self.rebuilding.lock().unwrap() = true;
                }
                self.overflow.lock().unwrap().clear();
                parent.clear_ring();
                self.rebuild_if_ready();
            }
        }
        dead.vacate();
        parent.make_up_for_the_dead(KEY);
    }

    /// Once nobody is inside, claims are made anew from the status words. `false`: somebody is. Who is may be dead as
    /// well, and recovered after next: so this is asked again and again, and does not wait.
    pub(crate) fn rebuild_if_ready(&self) -> bool {
        if !*self.rebuilding.lock().unwrap() {
            return true;
        }
        match self.pool.parent().rebuild(KEY) {
            Rebuild::NotYet => return false,
            Rebuild::Void => {}
            Rebuild::Ready(closed) => {
                let open = status::unfinished(&self.status, Tag::NONE);
                if let Some(epoch) = closed.reopen(open.iter().map(|run| run.end - run.start).sum()) {
                    // One by one, so that more than one worker finds some.
                    for chunk in open.into_iter().flatten() {
                        self.push(epoch.run(Span::new(chunk, chunk + 1), false));
                    }
                    epoch.complete_if_counted(false);
                }
            }
        }
        *self.rebuilding.lock().unwrap() = false;
        true
    }

    /// Another process is started in the slot.
    pub(crate) fn replace(&self, dead: usize) {
        self.pool.slots[dead].renew();
    }

    /// After everything: one worker alone must be able to finish.
    pub(crate) fn finish(&self, me: usize) {
        loop {
            while self.pop_and_run(me) {}
            let Some(run) = self.overflow.lock().unwrap().pop_front() else {
                break;
            };
            self.pool.parent().push(run).unwrap();
        }
        assert_eq!(
            self.pool.cell.gate.state().phase,
            JobPhase::Complete,
            "the job is not complete"
        );
        let word = self.pool.cell.bell.word().load(Relaxed);
        assert_ne!(word, self.waited, "nobody rang");
        let notes = self.notes.lock().unwrap();
        for (chunk, values) in self
            .slab
            .iter()
            .enumerate()
            .filter(|&(chunk, _)| notes.finals[chunk] > 0)
        {
            assert_eq!(self.status[chunk].load(Tag::NONE), ChunkStatus::Final);
            for (position, found) in values.iter().enumerate().take(self.chunk_len as usize) {
                assert_eq!(found.load(Relaxed), value(chunk, position));
            }
        }
    }
}
