//! What this crate reads of bytes that others wrote, as functions of those bytes: for `cargo fuzz` and for the tests.

use std::{
    sync::{
        Arc, LazyLock, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Condvar;
use swathe_memory::{Block, Memory, Segment, SharedSlice};
use swathe_os::{
    image::CodeRef,
    process::{Event, ExitCause, fork_generation},
    socket::Packet,
};
use swathe_protocol::{InPlaceCopy, JobTerms, SlotPhase, Span};

use crate::{
    job::{Chunking, End, Failure, Job, JobTraits, Outcome, Region, Retries, task::TaskRef},
    parent::{
        core::{Core, StateLock},
        failures::{self, Rerun},
        job::JobEntry,
        jobs::{STOP_GRACE, State},
        prepare,
    },
    shared::{
        bytes,
        control::{Control, JOBS},
        memory,
        messages::{Message, MessageKind, Purpose},
        plan::WorkerPlan,
    },
    supervisor::{
        clock::KillReason,
        recovery::{self, Death},
    },
};

use swathe_os::untrusted::Reader;

static MEMORY: LazyLock<Memory> =
    LazyLock::new(|| Memory::with_capacity(8 << 20).expect("8 MiB are to be had"));

fn block_of(content: &[u8]) -> Option<Arc<Block>> {
    let block = Arc::new(MEMORY.alloc(content.len().next_multiple_of(8), 64).ok()?);
    bytes::write_block(&block, content).ok()?;
    Some(block)
}

/// A message over a socket, and what a zygote makes of it if it is a greeting.
pub fn message(data: &[u8]) {
    static DATA: LazyLock<Arc<Segment>> =
        LazyLock::new(|| Segment::create("swathe-hostile", 4096).expect("a memory file can be made"));
    let mut reader = Reader(data);
    let content = usize::from(reader.u16());
    let words: SharedSlice<AtomicU64> = memory::words(&DATA, 0, 512).expect("it is as long");
    let mut content = reader.take(content).chunks(8);
    for word in words.iter() {
        let chunk = content.next().unwrap_or(&[]);
        word.store(Reader(chunk).u64(), Relaxed);
    }
    let packet = Packet {
        bytes: reader.0.to_vec(),
        fds: Vec::new(),
    };
    let Ok(message) = Message::decode(packet) else {
        return;
    };
    assert!(message.text.len() <= reader.0.len());
    if message.kind != MessageKind::Hello {
        return;
    }
    let [.., slots, offset, len] = message.words;
    let Ok(control) = Control::lay(DATA.clone(), slots as usize) else {
        // The control segment is too short for any pool, so that the plan is looked at as well:
        let control = Control::create(1).expect("a small segment can be made");
        let _ = WorkerPlan::decode(Arc::new(control), DATA.clone(), offset, len);
        return;
    };
    assert!(control.slots.is_empty(), "4096 bytes are no control segment");
}

/// The list of failure records: the block that it lies in, its head, and what voids older records.
pub fn failure_records(data: &[u8]) {
    let mut reader = Reader(data);
    let terms = JobTerms {
        positions: reader.word(),
        ..JobTerms::default()
    };
    let head = reader.word();
    let reruns: Vec<_> = (0..reader.below(4))
        .map(|_| Rerun {
            positions: reader.word()..reader.word(),
            newest: reader.word(),
        })
        .collect();
    let Some(block) = block_of(reader.0) else { return };
    // Links are offsets of an arena, which a fuzzer cannot know: those of the file count from the block.
    let words: SharedSlice<AtomicU64> = memory::words_in(&block, 0, block.len() / 8).expect("it is as long");
    let here = block.offset() as u64;
    for word in words.iter() {
        let value = word.load(Relaxed);
        if value != 0 && value <= block.len() as u64 && value % 8 == 1 {
            word.store(value + here, Relaxed);
        }
    }
    let records = failures::read_records(
        head.wrapping_add(here),
        std::slice::from_ref(&block),
        &terms,
        &reruns,
    );
    let texts: usize = records.iter().map(|record| record.text.len()).sum();
    assert!(
        texts <= 3 * block.len(),
        "{texts} bytes of text from a block of {}",
        block.len()
    );
    assert!(
        records.len() <= block.len() / 48,
        "{} records from {} bytes",
        records.len(),
        block.len()
    );
    let failures = failures::merge(Vec::new(), records, |_| 1);
    check_failures(&failures, terms.positions);
}

/// Each position has failed once at most, and exists.
fn check_failures(failures: &[Failure], positions: u64) {
    let mut behind = 0;
    for failure in failures {
        assert!(failure.span > 0 && failure.position >= behind, "{failures:?}");
        behind = failure
            .position
            .checked_add(failure.span)
            .expect("it was counted before");
    }
    assert!(behind <= positions, "{failures:?} of {positions}");
}

fn check_outcome(outcome: &Outcome) {
    check_failures(&outcome.failures, outcome.positions);
    let mut behind = 0;
    for range in &outcome.finals {
        assert!(
            range.start >= behind && range.end > range.start,
            "{:?}",
            outcome.finals
        );
        behind = range.end;
    }
    assert!(
        behind <= outcome.positions,
        "{:?} of {}",
        outcome.finals,
        outcome.positions
    );
    for failure in &outcome.failures {
        assert_eq!(outcome.failure(failure.position), Some(failure));
    }
}

/// Workers of the scene below. They do as workers do until something is written over their words.
const WORKERS: usize = 3;
/// Bytes before and behind an array that is changed in place, which must stay as they are.
const FENCE: usize = 64;

/// A parent without processes.
struct Scene {
    core: Core,
    state: State,
    /// All of the control segment.
    words: SharedSlice<AtomicU64>,
    jobs: Vec<Arc<JobEntry>>,
    fences: Vec<Arc<Block>>,
    hands: [Option<Span>; WORKERS],
}

/// The parent's side of everything that workers write: they do a few things in order, arbitrary words appear in the
/// control segment, the status words and the heap, and some die.
pub fn recovery(data: &[u8]) {
    let mut reader = Reader(data);
    let Some(mut scene) = Scene::new(&mut reader) else {
        return;
    };
    for _ in 0..256 {
        if reader.is_empty() {
            break;
        }
        scene.step(&mut reader);
    }
    scene.end(&mut reader);
}

impl Scene {
    fn new(reader: &mut Reader<'_>) -> Option<Self> {
        let control = Control::create(WORKERS).ok()?;
        control.header.used_slots.store(WORKERS as u32, Relaxed);
        let words = memory::words(&control.segment, 0, control.segment.len() / 8).ok()?;
        let core = Core {
            control,
            memory: MEMORY.clone(),
            stock: prepare::stock(WORKERS),
            state: StateLock::new(State::new(WORKERS, WORKERS, JOBS), Weak::new()),
            changed: Condvar::new(),
            event: Event::new().ok()?,
            forks: fork_generation(),
            #[cfg(feature = "chaos")]
            supervisor_panics: false.into(),
        };
        let mut scene = Self {
            core,
            state: State::new(WORKERS, WORKERS, JOBS),
            words,
            jobs: Vec::new(),
            fences: Vec::new(),
            hands: [None; WORKERS],
        };
        for _ in 0..=reader.below(3) {
            let job = scene.job(reader)?;
            let job = Arc::new(prepare::prepare(&scene.core, job, WORKERS).ok()?);
            job.keep_block(MEMORY.alloc(1024, 64).ok()?, Purpose::Texts);
            scene.state.admit(&scene.core, job.clone());
            scene.jobs.push(job);
        }
        Some(scene)
    }

    fn job(&mut self, reader: &mut Reader<'_>) -> Option<Job> {
        let traits = reader.u8();
        let pinned = traits & 1 != 0;
        let positions = if pinned {
            WORKERS as u64
        } else {
            1 + u64::from(reader.u16()) % 5000
        };
        let in_place = if traits & 2 != 0 {
            let block = block_of(&vec![7; positions as usize * 8 + 2 * FENCE])?;
            let region = Region {
                segment: MEMORY.segment().id(),
                offset: (block.offset() + FENCE) as u64,
                len: positions * 8,
            };
            self.fences.push(block);
            Some(region)
        } else {
            None
        };
        Some(Job {
            task: TaskRef(CodeRef { object: 0, offset: 1 }),
            heap_hint: 1024,
            positions,
            chunking: Chunking::Size(1 + reader.below(64) as u64),
            chunk_align: 1,
            params: Vec::new(),
            traits: JobTraits {
                pinned,
                whole_chunks: traits & 4 != 0,
                fail_fast: traits & 8 != 0,
                attended: traits & 16 != 0,
                watched: false,
            },
            seed: 0,
            base: 0,
            max_deaths: 1 + u32::from(traits >> 5),
            retries: Retries {
                more: reader.below(3) as u32,
                ..Retries::default()
            },
            element_timeout: (traits & 32 != 0).then_some(Duration::from_secs(1)),
            timeout: None,
            in_place,
            durable: None,
            bytes: 0,
            lends: traits & 64 != 0,
            keep: Box::new(()),
            on_done: None,
        })
    }

    fn step(&mut self, reader: &mut Reader<'_>) {
        let (what, worker) = (reader.below(16), reader.below(WORKERS));
        let (core, state) = (&self.core, &mut self.state);
        let job = self.jobs[worker % self.jobs.len()].clone();
        match what {
            0..=4 => self.overwrite(what, worker, &job, reader),
            5 => self.begin_copy(worker, &job, reader),
            6 | 7 => self.take_run(worker),
            8 => self.take_hand(worker, reader.below(9) as u32),
            9 => self.publish(worker, reader.u16()),
            10 => self.die(worker, reader),
            11 => self.turn(),
            12 => drop(state.finalize(core, &job)),
            13 => state.stop(core, &job, End::Cancelled, STOP_GRACE),
            14 => {
                let (done, _) = job.progress(0);
                assert!(
                    done <= job.terms.positions,
                    "{done} of {} are done",
                    job.terms.positions
                );
            }
            _ => {
                let (key, slot) = (job.key(), &core.control.slots[worker]);
                // As a worker enters that thinks the gate is open.
                key.map(|key| core.control.jobs[key.index as usize].gate.enter(slot, key));
                slot.set_phase(
                    [SlotPhase::Popping, SlotPhase::Stealing, SlotPhase::Working][reader.below(3)],
                );
            }
        }
    }

    /// A word is replaced: of a slot, a lane, a job's cell, the header and the ring, or the heap.
    fn overwrite(&self, what: usize, worker: usize, job: &JobEntry, reader: &mut Reader<'_>) {
        let control = &self.core.control;
        let first_slot = self.words.len() - self.words_from(&control.slots[0]).len();
        let heap = job.inner.lock().notes.first().cloned();
        let heap: Option<SharedSlice<AtomicU64>> =
            heap.and_then(|block| memory::words_in(&block, 0, block.len() / 8).ok());
        let words = match (what, job.key(), &heap) {
            (0, ..) => &self.words_from(&control.slots[worker])[..size_of_val(&control.slots[worker]) / 8],
            (1, Some(key), _) => &self.words_from(control.lane(key, worker))[..3],
            (2, Some(key), _) => &self.words_from(&control.jobs[key.index as usize])[..32],
            (3, ..) => &self.words[..first_slot],
            (_, _, Some(heap)) => heap,
            _ => return,
        };
        words[usize::from(reader.u16()) % words.len()].store(reader.word(), Relaxed);
    }

    /// The words of the control segment from this part of it on.
    fn words_from<T>(&self, part: &T) -> &[AtomicU64] {
        let bytes = std::ptr::from_ref(part).addr() - self.words.as_ptr().addr();
        &self.words[bytes / 8..]
    }

    /// A worker says that it is about to copy results over inputs: from somewhere, to somewhere.
    fn begin_copy(&self, worker: usize, job: &JobEntry, reader: &mut Reader<'_>) {
        let slot = &self.core.control.slots[worker];
        let heap = job.inner.lock().heap.first().map_or(0, |block| block.offset());
        let (segment, to) = job
            .in_place
            .map_or((0, 0), |region| (region.segment.to_bits(), region.offset));
        slot.copy.arm(InPlaceCopy {
            from: reader.word().wrapping_add(heap as u64),
            to_segment: segment,
            to: reader.word().wrapping_add(to),
            len: reader.word(),
            end: reader.word(),
        });
        slot.strip_len.store(reader.word(), Relaxed);
    }

    fn take_run(&self, worker: usize) {
        let (control, slot) = (&self.core.control, &self.core.control.slots[worker]);
        slot.set_phase(SlotPhase::Popping);
        let Some(run) = control.ring().pop() else { return };
        let entered = control
            .job(run.job)
            .and_then(|cell| cell.gate.enter(slot, run.job));
        if entered.is_some_and(|seen| seen.epoch == run.epoch) {
            let run_end = run.first.saturating_add(run.chunks);
            control.lane(run.job, worker).fill(Span::new(run.first, run_end));
            slot.set_phase(SlotPhase::Working);
        } else {
            slot.leave();
            slot.set_phase(SlotPhase::Idle);
        }
    }

    /// The job that a worker is inside of, as far as it is one.
    fn inside(&self, worker: usize) -> Option<(Arc<JobEntry>, &swathe_protocol::Lane)> {
        let key = self.core.control.slots[worker].inside()?;
        let job = self.state.job(key)?;
        Some((job, self.core.control.lane(key, worker)))
    }

    fn take_hand(&mut self, worker: usize, want: u32) {
        let Some((job, lane)) = self.inside(worker) else {
            return;
        };
        self.hands[worker] = lane.take(want);
        if let Some(hand) = self.hands[worker] {
            let positions = hand.positions(&job.round().terms);
            let slot = &self.core.control.slots[worker];
            slot.strip_first.store(positions.start, Relaxed);
            slot.strip_len.store(positions.end - positions.start, Relaxed);
            slot.settled.store(positions.start, Relaxed);
        }
    }

    /// A worker publishes some progress, or a whole hand.
    fn publish(&mut self, worker: usize, progress: u16) {
        let hand = self.hands[worker].take();
        let Some((hand, (job, lane))) = hand.zip(self.inside(worker)) else {
            return;
        };
        let round = job.round();
        let tag = round.terms.tag();
        let words = round
            .status()
            .iter()
            .take(hand.end as usize)
            .skip(hand.first as usize);
        if progress < 1000 {
            words.for_each(|word| word.publish_progress(tag, u32::from(progress)));
        } else {
            words.for_each(|word| word.publish_final(tag));
            lane.count(hand);
        }
    }

    fn die(&mut self, worker: usize, reader: &mut Reader<'_>) {
        let late = KillReason::Late(self.core.control.slots[worker].strip());
        let death = Death {
            worker,
            pid: 1,
            cause: [ExitCause::Signal(9), ExitCause::Code(0), ExitCause::Unknown][reader.below(3)],
            peak_memory: None,
            kill_reason: [None, None, Some(late), Some(KillReason::Stuck)][reader.below(4)],
            max_memory: None,
        };
        let _ = recovery::recover(&self.core, &mut self.state, death);
        self.core.control.slots[worker].renew();
        self.hands[worker] = None;
    }

    /// What the supervisor does again and again.
    fn turn(&mut self) {
        let (core, state) = (&self.core, &mut self.state);
        recovery::rebuild_ready(core, state);
        state.free_cells(core);
        state.pump(core);
        state.begin_rounds(core);
        state.read_all(core);
    }

    /// Everybody dies, and the pool is terminated: then every job is over.
    fn end(mut self, reader: &mut Reader<'_>) {
        for worker in 0..WORKERS {
            self.die(worker, reader);
            self.turn();
        }
        self.state.end_all(&self.core, &End::Terminated);
        self.state.read_all(&self.core);
        for job in &self.jobs {
            let outcome = job.outcome().expect("every job is over");
            check_outcome(outcome);
            assert_eq!(job.progress(0).0 <= job.terms.positions, job.is_over());
        }
        for block in &self.fences {
            let bytes: SharedSlice<AtomicU64> =
                memory::words_in(block, 0, block.len() / 8).expect("it is as long");
            let fences = bytes[..FENCE / 8].iter().chain(&bytes[bytes.len() - FENCE / 8..]);
            let whole = u64::from_ne_bytes([7; 8]);
            assert!(
                fences.map(|word| word.load(Relaxed)).all(|word| word == whole),
                "a copy missed its array"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use swathe_protocol::{GateState, Header, JobPhase};

    use super::*;

    #[test]
    fn corpus_of_message() {
        swathe_os::untrusted::run_corpus("message", message);
    }

    #[test]
    fn corpus_of_failure_records() {
        swathe_os::untrusted::run_corpus("failure_records", failure_records);
    }

    #[test]
    fn corpus_of_recovery() {
        swathe_os::untrusted::run_corpus("recovery", recovery);
    }

    /// One job of eight chunks, all of whose runs lie in the ring.
    fn scene() -> Scene {
        // One job, no traits, so many positions, one a chunk, no retries.
        let scene = Scene::new(&mut Reader(&[0, 0, 7, 0, 0, 0])).expect("there is memory");
        assert_eq!(scene.jobs[0].terms.chunks, 8);
        scene
    }

    impl Scene {
        fn gate(&self) -> GateState {
            let key = self.jobs[0].key().expect("it has a cell");
            self.core.control.jobs[key.index as usize].gate.state()
        }

        fn set_gate(&self, phase: JobPhase) {
            let key = self.jobs[0].key().expect("it has a cell");
            let seen = self.gate();
            self.core.control.jobs[key.index as usize]
                .gate
                .set(GateState { phase, ..seen });
        }

        fn complete_if_counted(&self, key: swathe_protocol::JobKey) {
            let control = &self.core.control;
            let cell = &control.jobs[key.index as usize];
            cell.complete_if_counted(self.gate(), || control.words().lanes_of(key));
        }

        /// A worker runs all that lies in the ring, and completes the job if it finds it counted.
        fn run_all(&mut self) {
            while !self.core.control.ring().is_empty() {
                self.take_run(0);
                while let Some((job, lane)) = self.inside(0)
                    && !lane.waiting().is_empty()
                {
                    drop(job);
                    self.take_hand(0, 8);
                    self.publish(0, 1000);
                }
                self.core.control.slots[0].leave();
                self.core.control.slots[0].set_phase(SlotPhase::Idle);
                let key = self.jobs[0].key().expect("it has a cell");
                self.complete_if_counted(key);
            }
        }

        /// Nothing is lost: the job ends, and every position is final.
        fn check_end(mut self) {
            let job = self.jobs[0].clone();
            for _ in 0..3 {
                recovery::look_for_strays(&self.core, &mut self.state, &job);
                self.turn();
                self.run_all();
                if self.state.finalize(&self.core, &job) {
                    break;
                }
            }
            let outcome = job.outcome().expect("it is over");
            assert_eq!(outcome.end, End::Complete);
            let words = job.round();
            assert!(
                (0..8).all(|chunk| words.is_final(chunk)),
                "not all chunks were run"
            );
        }
    }

    #[test]
    fn a_gate_that_was_overwritten_is_not_believed() {
        for phase in [JobPhase::Complete, JobPhase::Stopped, JobPhase::Closed] {
            let mut scene = scene();
            scene.set_gate(phase);
            let job = scene.jobs[0].clone();
            assert!(!scene.state.finalize(&scene.core, &job), "{phase:?}");
            scene.check_end();
        }
    }

    #[test]
    fn counts_that_were_overwritten_are_not_believed() {
        for done in [2, 16, 18, 1 << 40, u64::MAX] {
            let mut scene = scene();
            let key = scene.jobs[0].key().expect("it has a cell");
            let lane = scene.core.control.lane(key, 2);
            scene.words_from(lane)[2].store(done, Relaxed);
            // Half of the work is done by then, and found to be all of it.
            scene.take_run(0);
            scene.take_hand(0, 8);
            scene.publish(0, 1000);
            scene.core.control.slots[0].leave();
            scene.core.control.slots[0].set_phase(SlotPhase::Idle);
            scene.complete_if_counted(key);
            scene.check_end();
        }
    }

    #[test]
    fn a_ring_that_was_overwritten_is_made_anew() {
        let ends = size_of::<Header>() / 8;
        for wild in [0, 1, 3, 500, 1 << 40, u64::MAX] {
            for (end, word) in [("head", ends), ("tail", ends + 16)] {
                let scene = scene();
                let before = scene.words[word].swap(wild, Relaxed);
                assert!(before <= WORKERS as u64, "the {end} is not where it was");
                scene.check_end();
            }
        }
    }

    #[test]
    fn a_run_that_nobody_has_is_made_anew() {
        let mut scene = scene();
        assert!(scene.core.control.ring().pop().is_some());
        scene.run_all();
        let job = scene.jobs[0].clone();
        assert!(!scene.state.finalize(&scene.core, &job));
        scene.check_end();
    }
}
