//! Running what is in a lane: take, run a strip, publish, count.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use swathe_memory::{Segment, SegmentId, Shared, SharedSlice, registry};
use swathe_os::{
    image::{self, CodeRef},
    process::monotonic_ns,
};
use swathe_protocol::{ChunkStatus, Inside, JobTerms, Span, StatusWord, Strip, Tag, Tally, tally::Slow};

use crate::{
    fault::{self, Point},
    job::task::{CURSOR, Call, Trampoline},
    shared::{
        bytes,
        control::{Control, System},
        memory,
        messages::{Message, MessageKind},
        picks::{self, Pick},
        records::{self, RecordKind},
    },
    worker::{Worker, code, pace::Pace, panics, reporter::Reporter},
};

/// A worker inside one job.
pub(crate) struct Execution<'w> {
    worker: &'w mut Worker,
    control: &'w Control,
    job: &'w Inside<'w, System>,
    terms: JobTerms,
    /// Of its status words.
    tag: Tag,
    pace: Pace,
    /// How many more workers this one will wake for its job.
    calls: u32,
    cache: Option<Box<dyn Any>>,
}

/// How many workers one worker wakes for a job: those that it woke wake others, so many are soon awake.
const CALLS: u32 = 2;

/// The parts of a job that are looked up once.
struct JobView {
    task: Trampoline,
    status: SharedSlice<StatusWord>,
    params: Vec<u8>,
    /// Bits of failed positions in a file that outlives the job.
    failed_bits: Option<SharedSlice<AtomicU64>>,
    /// What the positions of a round of retries stand for.
    picks: Option<Vec<Pick>>,
    /// What this worker spends in the job.
    tally: Shared<Tally>,
}

/// Whether to go on with the hand.
#[derive(PartialEq, Eq)]
enum HandEnd {
    Finished,
    GateChanged,
}

impl<'w> Execution<'w> {
    pub(crate) fn new(worker: &'w mut Worker, control: &'w Control, job: &'w Inside<'w, System>) -> Self {
        worker.heap.turn_to(job.key(), job.seen().epoch);
        let terms = job.cell().terms();
        Self {
            worker,
            control,
            job,
            terms,
            tag: terms.tag(),
            pace: Pace::new(),
            calls: if terms.has(JobTerms::PINNED) { 0 } else { CALLS },
            cache: None,
        }
    }

    /// Until the lane is empty, the gate changes, or the worker's tasks are used up. Gives whether the courier wants to be
    /// woken when the job is over.
    pub(crate) fn run(mut self) -> bool {
        match self.view() {
            Ok(view) => self.run_lane(&view),
            Err(text) => self.refuse(&text),
        }
        self.terms.has(JobTerms::ATTENDED)
    }

    fn run_lane(&mut self, view: &JobView) {
        view.tally.open(self.terms.serial);
        fault::point(Point::Reading);
        while self.worker.tasks_left > 0 && self.job.may_go_on() {
            let Some(held) = self.job.take(self.want()) else {
                break;
            };
            if self.run_hand(view, held.chunks()) == HandEnd::GateChanged {
                held.forgo();
                break;
            }
            held.count();
            self.call_for_help();
            self.worker.look_at_growth();
        }
    }

    /// Wakes somebody who will steal half of what is left here, if that is worth a wake. The parent leaves it to us: it
    /// does not know how long an element takes.
    fn call_for_help(&mut self) {
        if self.calls == 0 {
            return;
        }
        let left = u64::from(self.job.waiting().len()).saturating_mul(self.terms.chunk_len);
        if self.pace.wants_help(left) {
            self.calls -= 1;
            self.control.words().call_for_help(&System);
        }
    }

    fn view(&self) -> Result<JobView, String> {
        let data = &self.worker.plan.data;
        let terms = &self.terms;
        let code = CodeRef {
            object: terms.task_object,
            offset: terms.task_offset,
        };
        let address = image::find(code).map_err(|why| format!("its task's code cannot be had: {why}"))?;
        let text = |e: swathe_memory::MemoryError| e.to_string();
        let home: Arc<Segment> = match terms.durable_segment {
            0 => data.clone(),
            id => registry::resolve(SegmentId::from_bits(id)).map_err(text)?,
        };
        let failed_bits = terms
            .has(JobTerms::DURABLE)
            .then(|| {
                memory::words(
                    &home,
                    terms.failed_offset as usize,
                    terms.positions.div_ceil(64) as usize,
                )
            })
            .transpose()
            .map_err(text)?;
        let picks = terms
            .has(JobTerms::PICKS)
            .then(|| picks::read_picks(data, terms))
            .transpose()
            .map_err(text)?;
        Ok(JobView {
            task: code::trampoline(address),
            // A round of retries has status words of its own, not in the file.
            status: memory::words(
                if picks.is_some() { data } else { &home },
                terms.status_offset as usize,
                terms.chunks as usize,
            )
            .map_err(text)?,
            params: bytes::read_segment(data, terms.params_offset, terms.params_len).map_err(text)?,
            failed_bits,
            picks,
            tally: memory::word(
                data,
                terms.tallies_offset as usize + self.worker.index * size_of::<Tally>(),
            )
            .map_err(text)?,
        })
    }

    /// The job cannot be run here at all: the parent ends it, and the pool goes on.
    fn refuse(&self, text: &str) {
        let complaint =
            Message::new(MessageKind::CannotRun, &[self.job.key().to_word()]).with_text(text.as_bytes());
        if self.worker.heap.line().ask(&complaint).is_err() {
            // Without a word, but without an end to all other jobs, too.
            self.job.stop(self.terms.has(JobTerms::ATTENDED));
        }
    }

    fn want(&self) -> u32 {
        if self.job.is_careful() || self.terms.has(JobTerms::WHOLE_CHUNKS) || self.terms.has(JobTerms::PICKS)
        {
            return 1;
        }
        let strip_chunks = self.pace.chunks(self.terms.chunk_len, self.job.waiting().len());
        let budget = (self.worker.tasks_left / self.terms.chunk_len.max(1)).max(1);
        strip_chunks.min(budget.min(u64::from(u32::MAX)) as u32)
    }

    fn run_hand(&mut self, view: &JobView, hand: Span) -> HandEnd {
        let words = &view.status[hand.first as usize..hand.end as usize];
        // As long as nobody has died, what is still to be taken has not been begun.
        let fresh = self.job.cell().disturbed.load(Ordering::Relaxed) == 0
            || words.iter().all(|word| word.is_fresh(self.tag));
        if hand.len() > 1 && fresh {
            let range = hand.positions(&self.terms);
            let end = self.run_strip(view, range.start, range.end - range.start);
            self.publish(words, hand, end);
            if end == range.end {
                return HandEnd::Finished;
            }
        }
        for (word, chunk) in words.iter().zip(hand.first..) {
            if self.run_chunk(view, word, Span::new(chunk, chunk + 1)) == HandEnd::GateChanged {
                return HandEnd::GateChanged;
            }
        }
        HandEnd::Finished
    }

    /// One chunk, from its progress on, in strips.
    fn run_chunk(&mut self, view: &JobView, word: &StatusWord, chunk: Span) -> HandEnd {
        let range = chunk.positions(&self.terms);
        let ChunkStatus::Progress(begun) = word.load(self.tag) else {
            return HandEnd::Finished;
        };
        let mut next = range.start + u64::from(begun);
        while next < range.end {
            if self.worker.tasks_left == 0 || !self.job.may_go_on() {
                return HandEnd::GateChanged;
            }
            let len = self.strip_len().min(range.end - next);
            next = self.run_strip(view, next, len);
            self.publish(std::slice::from_ref(word), chunk, next);
        }
        HandEnd::Finished
    }

    fn strip_len(&self) -> u64 {
        if self.terms.has(JobTerms::WHOLE_CHUNKS) {
            u64::MAX
        } else if self.job.is_careful() {
            1
        } else {
            self.pace.strip().min(self.worker.tasks_left)
        }
    }

    /// Everything in these chunks before `end` is settled.
    fn publish(&self, words: &[StatusWord], chunks: Span, end: u64) {
        fault::point(Point::Written);
        let range = chunks.positions(&self.terms);
        let (finals, begun) = if end >= range.end {
            (words.len(), 0)
        } else {
            let done = end - range.start;
            (
                (done / self.terms.chunk_len) as usize,
                done % self.terms.chunk_len,
            )
        };
        words[..finals]
            .iter()
            .for_each(|word| word.publish_final(self.tag));
        if begun > 0 {
            words[finals].publish_progress(self.tag, begun as u32);
        }
        // Only now: until it is published, the slot alone tells what an in-place strip has settled.
        self.worker.slot().strip_len.store(0, Ordering::Release);
        fault::point(Point::Published);
    }

    /// Runs some positions. Afterwards each before the one that is returned has its value in the slab or a failure
    /// record: a panic ends a strip, because what it leaves unfinished must not be run twice.
    fn run_strip(&mut self, view: &JobView, first: u64, len: u64) -> u64 {
        let slot = &self.control.slots[self.worker.index];
        let started = monotonic_ns();
        slot.settled.store(first, Ordering::Relaxed);
        let end = if self.terms.element_ns == 0 {
            slot.announce_strip(Strip { first, len, started });
            first + self.call(view, first, len, started)
        } else {
            self.run_timed(view, first, len, started)
        };
        let (done, spent) = (end - first, monotonic_ns() - started);
        self.pace.learn(done, spent);
        let strip = Slow {
            first,
            len: done,
            ns: spent,
        };
        view.tally.strip(started, strip, self.job.is_careful());
        self.worker.tasks_left = self.worker.tasks_left.saturating_sub(done);
        slot.elements
            .store(slot.elements.load(Ordering::Relaxed) + done, Ordering::Relaxed);
        slot.busy
            .store(slot.busy.load(Ordering::Relaxed) + spent, Ordering::Relaxed);
        end
    }

    /// Element by element, because each has a deadline of its own; a task that takes a chunk has one for the chunk.
    fn run_timed(&mut self, view: &JobView, first: u64, len: u64, started: u64) -> u64 {
        let step = if self.terms.has(JobTerms::WHOLE_CHUNKS) {
            len
        } else {
            1
        };
        let (mut next, mut started) = (first, started);
        while next < first + len {
            self.worker.slot().announce_strip(Strip {
                first: next,
                len: step,
                started,
            });
            let settled = self.call(view, next, step, started);
            next += settled;
            if settled < step {
                break; // Its failure could not be written down: the job is being stopped.
            }
            started = monotonic_ns();
        }
        next
    }

    /// One call of the trampoline. Gives how many positions are settled: all, or up to and with one that panicked.
    fn call(&mut self, view: &JobView, announced: u64, len: u64, started: u64) -> u64 {
        if self.worker.heap.left() < 1024 {
            self.worker.heap.refill(self.job.cell(), &self.terms, 0);
        }
        // A round of retries has strips of one, which stand for a position of the job, or for a chunk.
        let pick = view.picks.as_ref().map(|picks| picks[announced as usize]);
        let (first, span) = pick.map_or((announced, len), |pick| (pick.first, pick.len));
        let slot = &self.control.slots[self.worker.index];
        panics::forget();
        let attempt = self.terms.attempt as u32 + self.deaths_of(first);
        let mut reporter = Reporter {
            heap: &mut self.worker.heap,
            slot,
            cell: self.job.cell(),
            seen: self.job.seen(),
            terms: &self.terms,
            failed_bits: view.failed_bits.as_ref(),
            worker: self.worker.index as u32,
            first,
            len: span,
            announced,
            failed: false,
            unwritten: None,
        };
        let mut call = Call {
            first,
            len: span,
            base: self.terms.base,
            seed: self.terms.seed,
            params: &view.params,
            worker: self.worker.facts,
            careful: self.job.is_careful(),
            attempt,
            deadline_ns: deadline(&self.terms, started),
            state: &mut *self.worker.state,
            cache: &mut self.cache,
            sink: &mut reporter,
        };
        let result = catch_unwind(AssertUnwindSafe(|| {
            fault::point(Point::Running);
            (view.task)(&mut call);
        }));
        let mut settled = span;
        if let Err(panic) = result {
            // A copy over inputs that was prevented must not be made good later.
            slot.copy.disarm();
            let at = CURSOR.load(Ordering::Relaxed).min(span - 1);
            reporter.record(at, RecordKind::Panic, &panics::text_of(panic));
            if !self.terms.has(JobTerms::WHOLE_CHUNKS) {
                settled = at + 1;
            }
        }
        if let Some(within) = reporter.unwritten {
            // The job is being stopped. What is not settled is not published.
            return if pick.is_some() { 0 } else { settled.min(within) };
        }
        // Only now: all failures of the strip are written down.
        if reporter.failed && self.terms.has(JobTerms::FAIL_FAST) {
            self.job.stop(self.terms.has(JobTerms::ATTENDED));
        }
        if let (Some(pick), Some(bits), false) = (pick, &view.failed_bits, reporter.failed) {
            (pick.first..pick.first + pick.len).for_each(|i| records::mark_done(bits, i));
        }
        if pick.is_some() { 1 } else { settled }
    }

    /// How many workers have died of this position, for tasks that ask which try this is.
    fn deaths_of(&self, position: u64) -> u32 {
        if self.job.is_careful() {
            picks::read_deaths(&self.worker.plan.data, &self.terms, position)
        } else {
            0
        }
    }
}

/// When an element that started then must be done.
fn deadline(terms: &JobTerms, started: u64) -> Option<u64> {
    let element = (terms.element_ns != 0).then(|| started.saturating_add(terms.element_ns));
    let job = (terms.deadline_ns != 0).then_some(terms.deadline_ns);
    match (element, job) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
