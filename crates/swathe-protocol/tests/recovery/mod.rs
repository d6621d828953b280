//! A pool for models in which workers die: they make the moves that workers make, and the supervisor does what the protocol's
//! README says.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use swathe_protocol::{
    ChunkStatus, Descriptor, Found, GateState, Hand, Header, Inside, JobCell, JobKey, JobPhase, Lane, Member,
    ParkWord, RingCell, RingEnds, RingView, SlotPhase, Span, StatusWord, Tag, Words, WorkerSlot,
    sync::{AtomicU64, Ordering::Relaxed},
};

const KEY: JobKey = JobKey::new(0, 1);
pub(crate) const CHUNKS: usize = 2;

/// What an onlooker outside of the model notes down. Nobody in the model reads it.
#[derive(Default)]
pub(crate) struct Notes {
    running: [Option<usize>; CHUNKS],
    pub(crate) finals: [u32; CHUNKS],
}

#[derive(Default)]
pub(crate) struct Pool {
    header: Header,
    ends: RingEnds,
    cells: [RingCell; 4],
    parks: [ParkWord; 2],
    cell: JobCell,
    lanes: [Lane; 2],
    slots: [WorkerSlot; 2],
    status: [StatusWord; CHUNKS],
    slab: [[AtomicU64; 2]; CHUNKS],
    /// The supervisor's own: the job is closed, and its claims are made anew when nobody is inside.
    rebuilding: Mutex<Option<GateState>>,
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

impl Pool {
    fn runs(&self) -> RingView<'_> {
        RingView::new(&self.ends, &self.cells)
    }

    fn words(&self) -> Words<'_> {
        Words {
            header: &self.header,
            ring: self.runs(),
            slots: &self.slots,
            parks: &self.parks,
            cells: std::slice::from_ref(&self.cell),
            lanes: &self.lanes,
        }
    }

    fn member(&self, me: usize) -> Member<'_, ()> {
        Member::new(self.words(), &(), me)
    }

    fn push(&self, epoch: u32, run: Span, careful: bool) {
        if !run.is_empty() {
            let run = Descriptor {
                job: KEY,
                epoch,
                first: run.first,
                chunks: run.len(),
                careful,
            };
            // Full of runs of an old epoch, say: they wait until there is room.
            if let Err(run) = self.runs().push(run) {
                self.overflow.lock().unwrap().push_back(run);
            }
        }
    }

    /// The parent opens the job. The gate comes before the runs: a run found behind a gate that is not open is dropped.
    pub(crate) fn open(chunk_len: u32, runs: &[Span]) -> Arc<Self> {
        let mut pool = Self {
            chunk_len,
            ..Self::default()
        };
        pool.header.used_slots.store(2, Relaxed);
        pool.waited = pool.cell.bell.prepare();
        pool.cell
            .target
            .store(runs.iter().map(|run| u64::from(run.len())).sum(), Relaxed);
        // What no run covers is no part of the scenario.
        let all = runs.iter().map(|run| run.end as usize).max().unwrap();
        pool.status
            .iter()
            .skip(all)
            .for_each(|word| word.publish_final(Tag::NONE));
        pool.cell.gate.set(GateState {
            generation: KEY.generation,
            epoch: 0,
            phase: JobPhase::Open,
        });
        for &run in runs {
            pool.push(0, run, false);
        }
        Arc::new(pool)
    }

    // The worker.

    /// Takes a run from the ring and mows it. `false`: there was none.
    pub(crate) fn pop_and_mow(&self, me: usize) -> bool {
        match self.member(me).take_run() {
            Found::Nothing => return false,
            Found::Void => {}
            Found::Run(job) => self.mow(me, job),
        }
        true
    }

    /// Takes half of the other worker's lane and mows it. `false`: there was nothing.
    pub(crate) fn steal_and_mow(&self, me: usize) -> bool {
        let loot = self.member(me).steal();
        loot.map(|job| self.mow(me, job)).is_some()
    }

    fn mow(&self, me: usize, job: Inside<'_, ()>) {
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
                if !self.cell.gate.still(seen) {
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

    fn complete_if_counted(&self, seen: GateState) {
        if self.cell.complete_if_counted(seen, || &self.lanes) {
            self.ring();
        }
    }

    fn ring(&self) {
        let _ = self.cell.bell.ring();
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
        let slot = &self.slots[dead];
        let inside = slot.inside().is_some();
        match slot.phase() {
            SlotPhase::Starting | SlotPhase::Initializing | SlotPhase::Idle => slot.leave(),
            SlotPhase::Working | SlotPhase::Leaving => {
                let seen = self.cell.gate.state();
                if inside && seen.phase == JobPhase::Open {
                    self.hand_on(dead, seen);
                }
                slot.leave();
            }
            SlotPhase::Popping | SlotPhase::Stealing => {
                slot.leave();
                self.rebuild();
            }
        }
        // It leaves a job before it looks whether that is complete.
        let seen = self.cell.gate.state();
        if seen.phase == JobPhase::Open {
            self.complete_if_counted(seen);
        }
        if seen.phase == JobPhase::Complete {
            self.ring();
        }
        slot.renew();
    }

    /// The precise path.
    fn hand_on(&self, dead: usize, seen: GateState) {
        let lane = &self.lanes[dead];
        let hand = lane.hand();
        let rest = lane.drain();
        if let Hand::Held(hand) = hand {
            let (finals, others): (Vec<u32>, Vec<u32>) = (hand.first..hand.end)
                .partition(|&c| self.status[c as usize].load(Tag::NONE) == ChunkStatus::Final);
            lane.settle(finals.len() as u32);
            for chunk in others {
                self.push(seen.epoch, Span::new(chunk, chunk + 1), true);
            }
        }
        self.push(seen.epoch, rest, false);
        self.complete_if_counted(seen);
    }

    /// The path for the windows that are not written down: all claims are void.
    fn rebuild(&self) {
        if let Some(closed) = self.cell.gate.close(self.cell.gate.state()) {
            *self.rebuilding.lock().unwrap() = Some(closed);
        }
        self.rebuild_if_ready();
    }

    /// Once nobody is inside, claims are made anew from the status words. `false`: somebody is. Who is may be dead as
    /// well, and buried next: so this is asked again and again, and does not wait.
    pub(crate) fn rebuild_if_ready(&self) -> bool {
        let Some(closed) = *self.rebuilding.lock().unwrap() else {
            return true;
        };
        if self.slots.iter().any(|slot| slot.inside() == Some(KEY)) {
            return false;
        }
        *self.rebuilding.lock().unwrap() = None;
        self.lanes.iter().for_each(Lane::reset);
        let open: Vec<u32> = (0..CHUNKS as u32)
            .filter(|&c| self.status[c as usize].load(Tag::NONE) != ChunkStatus::Final)
            .collect();
        self.cell.target.store(open.len() as u64, Relaxed);
        let phase = if open.is_empty() {
            JobPhase::Complete
        } else {
            JobPhase::Open
        };
        if self.cell.gate.advance(closed, phase) {
            for &chunk in &open {
                self.push(closed.epoch, Span::new(chunk, chunk + 1), true);
            }
            if open.is_empty() {
                self.ring();
            }
        }
        true
    }

    /// After everything: one worker alone must be able to finish.
    pub(crate) fn finish(&self, me: usize) {
        loop {
            while self.pop_and_mow(me) {}
            let Some(run) = self.overflow.lock().unwrap().pop_front() else {
                break;
            };
            self.runs().push(run).unwrap();
        }
        assert_eq!(
            self.cell.gate.state().phase,
            JobPhase::Complete,
            "the job is not complete"
        );
        let word = self.cell.bell.word().load(Relaxed);
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
