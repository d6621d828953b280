//! The results of a stream.

use std::{
    collections::VecDeque,
    fmt, iter,
    sync::Arc,
    time::{Duration, Instant},
    vec,
};

use swathe_runtime::{Arrival, EngineError, JobHandle, Outcome, user_code::contain};

use crate::{Error, Result, Status, cross::input::pull_many, error::ItemError};

/// Blocks in flight for each worker, unless the look-ahead is set.
const BLOCKS_A_WORKER: usize = 3;
/// The longest block, unless a chunk size is set: elements, and bytes of input and output.
pub(crate) const LONGEST_BLOCK: usize = 1 << 14;
const LONGEST_BLOCK_BYTES: usize = 4 << 20;
/// The most items that are taken from a quick input between two looks at the clock: a look costs as much as some items do.
const ITEMS_A_LOOK: usize = 256;
/// A block that takes its input longer than this to provide is not worth growing.
const FAST: Duration = Duration::from_millis(1);
/// A block whose results take less than this may grow.
const QUICK: Duration = Duration::from_millis(10);
/// A block whose results take longer than this is too long.
const SLOW: Duration = Duration::from_millis(50);

/// What a block has brought.
pub(crate) enum Results<B> {
    /// A value for every element.
    All(vec::IntoIter<B>),
    /// Values and errors.
    Mixed(VecDeque<Result<B, ItemError>>),
}

impl<B> Results<B> {
    fn none() -> Self {
        Self::Mixed(VecDeque::new())
    }

    fn len(&self) -> usize {
        match self {
            Self::All(values) => values.len(),
            Self::Mixed(results) => results.len(),
        }
    }

    #[inline]
    fn pop(&mut self) -> Option<Result<B, ItemError>> {
        match self {
            Self::All(values) => values.next().map(Ok),
            Self::Mixed(results) => results.pop_front(),
        }
    }
}

/// Takes the results out of an outcome.
pub(crate) type TakeResults<B> = Box<dyn FnOnce(&Arc<Outcome>) -> Results<B> + Send>;

/// Some consecutive elements of the stream, being one job.
pub(crate) struct Block<B> {
    pub(crate) job: JobHandle,
    pub(crate) len: usize,
    pub(crate) bytes: usize,
    pub(crate) submitted: Instant,
    pub(crate) results: TakeResults<B>,
}

/// A block on its way.
enum Flight<B> {
    Job(Block<B>),
    /// It could not be submitted.
    Refused(Results<B>),
}

impl<B> Flight<B> {
    /// Ends its job, if that is over and nobody has noticed.
    fn is_over(&self) -> bool {
        match self {
            Self::Job(block) => block.job.wait(Some(Duration::ZERO)),
            Self::Refused(_) => true,
        }
    }

    /// Why this process may not wait for it, if it may not.
    fn not_ours(&self) -> Option<EngineError> {
        match self {
            Self::Job(block) => block.job.check_process().err(),
            Self::Refused(_) => None,
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Job(block) => block.len,
            Self::Refused(results) => results.len(),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Job(block) => block.bytes,
            Self::Refused(_) => 0,
        }
    }
}

/// Makes a block of these elements, which start at this position.
type Submit<'p, T, B> = Box<dyn Fn(Vec<T>, u64, bool) -> Result<Block<B>> + Send + 'p>;

/// The results of a stream, one after the other; what `imap` and `imap_unordered` return.
///
/// Nothing runs by itself: [`next`](Iterator::next) takes from the input what the look-ahead allows, so the input may
/// be endless, and memory is bounded. Each result is a `Result` of its own, and the stream goes on after errors. Dropping
/// it cancels what is in flight.
///
/// In a process that was forked from the one that began it, a stream gives one error that says so, then the end, and
/// dropping it cancels nothing.
///
/// If the input's iterator panics, the results of all items before are delivered, then one error that names the
/// position, then the end.
#[must_use = "a stream does nothing until it is drained"]
pub struct Imap<'p, I: Iterator, B> {
    /// `None` when the input has ended.
    input: Option<I>,
    submit: Submit<'p, I::Item, B>,
    ordered: bool,
    /// Elements a block; fixed by a chunk size.
    block: usize,
    /// The most that they may be, by what an element takes in memory.
    longest: usize,
    fixed: bool,
    processes: usize,
    look_ahead: Option<usize>,
    look_ahead_bytes: Option<usize>,
    flight: VecDeque<Flight<B>>,
    ready: Results<B>,
    /// Reported when everything else has been.
    last: Option<ItemError>,
    position: u64,
    input_is_fast: bool,
    arrival: Arc<Arrival>,
}

impl<'p, I: Iterator, B> Imap<'p, I, B> {
    /// `chunk_size` fixes the length of the blocks.
    pub(crate) fn new(
        input: impl Into<Option<I>>,
        submit: impl Fn(Vec<I::Item>, u64, bool) -> Result<Block<B>> + Send + 'p,
        ordered: bool,
        chunk_size: Option<usize>,
        processes: usize,
    ) -> Self {
        let (input, last) = match chunk_size {
            Some(0) => {
                let why = EngineError::ZeroChunk.to_string();
                (None, Some(ItemError::without_worker(0, Status::NotRun, why)))
            }
            _ => (input.into(), None),
        };
        Self {
            input,
            submit: Box::new(submit),
            ordered,
            block: chunk_size.unwrap_or(1),
            longest: LONGEST_BLOCK,
            fixed: chunk_size.is_some(),
            processes: processes.max(1),
            look_ahead: None,
            look_ahead_bytes: None,
            flight: VecDeque::new(),
            ready: Results::none(),
            last,
            position: 0,
            input_is_fast: true,
            arrival: Arc::new(Arrival::default()),
        }
    }

    /// A stream that could not begin: it gives this error, and ends.
    pub(crate) fn refused(error: &Error) -> Self {
        let mut stream = Self::new(None, |_, _, _| Err(Error::NotReady), true, None, 1);
        stream.last = Some(ItemError::without_worker(0, Status::NotRun, error.to_string()));
        stream
    }

    /// At most this many elements, at least 1, are in flight: taken from the input, and their results not yet
    /// collected. Unless set, three blocks a worker.
    pub fn look_ahead(mut self, elements: usize) -> Self {
        self.look_ahead = Some(elements.max(1));
        self
    }

    /// No further block is taken from the input while those in flight take this many bytes of shared memory.
    pub fn look_ahead_bytes(mut self, bytes: usize) -> Self {
        self.look_ahead_bytes = Some(bytes);
        self
    }

    /// The next result, if it is there in time: `Ok(None)` at the end of the stream.
    ///
    /// ```
    /// use std::time::Duration;
    /// use swathe::Pool;
    ///
    /// fn main() -> swathe::Result<()> {
    ///     swathe::init();
    ///     let pool = Pool::builder().processes(2).build()?;
    ///     let mut squares = pool.imap(|x: i64| x * x, 0..3);
    ///     let mut sum = 0;
    ///     while let Some(square) = squares.next_timeout(Duration::from_secs(10))? {
    ///         sum += square?;
    ///     }
    ///     assert_eq!(sum, 5);
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// [`Error::Timeout`] when the time is over; the stream goes on. The time that the input's iterator takes to give
    /// an item cannot be cut short.
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Option<Result<B, ItemError>>> {
        // A time too long to be added is no limit.
        self.advance(Instant::now().checked_add(timeout))
    }

    fn advance(&mut self, deadline: Option<Instant>) -> Result<Option<Result<B, ItemError>>> {
        loop {
            if let Some(result) = self.ready.pop() {
                return Ok(Some(result));
            }
            self.leave_to_parent();
            let seen = self.arrival.count();
            self.collect();
            let some = self.ready.len() > 0;
            // A slow input must not hold up results that are there.
            if self.has_room() && (!some || self.input_is_fast) {
                self.take_block();
                continue;
            }
            if some {
                continue;
            }
            if self.flight.is_empty() {
                return Ok(self.last.take().map(Err));
            }
            if !self.wait(seen, deadline) {
                return Err(Error::Timeout);
            }
        }
    }

    /// In a forked child the blocks in flight are its parent's: one error says so, and the stream ends.
    fn leave_to_parent(&mut self) {
        let Some(error) = self.flight.front().and_then(Flight::not_ours) else {
            return;
        };
        let flying: usize = self.flight.iter().map(Flight::len).sum();
        let first = self.position.saturating_sub(flying as u64);
        self.flight.clear();
        self.end_input();
        self.last = Some(ItemError::without_worker(
            first,
            Status::NotRun,
            error.to_string(),
        ));
    }

    /// Waits until there may be results: of the first block, or of any. Gives whether the time has sufficed.
    fn wait(&self, seen: u64, deadline: Option<Instant>) -> bool {
        match self.flight.front() {
            Some(Flight::Job(block)) if self.ordered => {
                let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
                block.job.wait(left)
            }
            _ => self.arrival.wait(seen, deadline),
        }
    }

    /// Takes the results of a block that is over: of the first one, or of any.
    fn collect(&mut self) {
        let over = if self.ordered {
            self.flight.front().is_some_and(Flight::is_over).then_some(0)
        } else {
            self.flight.iter().position(Flight::is_over)
        };
        match over.and_then(|i| self.flight.remove(i)) {
            Some(Flight::Job(block)) => {
                self.adapt(block.submitted.elapsed());
                self.longest = LONGEST_BLOCK_BYTES / (block.bytes / block.len.max(1)).max(1);
                self.ready = block
                    .job
                    .outcome()
                    .map_or_else(Results::none, |outcome| (block.results)(&outcome));
            }
            Some(Flight::Refused(results)) => self.ready = results,
            None => {}
        }
    }

    /// Blocks grow while input and results are quick, and shrink when results take long.
    fn adapt(&mut self, turnaround: Duration) {
        if self.fixed {
            return;
        }
        let blocks = BLOCKS_A_WORKER * self.processes;
        let longest = self
            .look_ahead
            .map_or(LONGEST_BLOCK, |elements| elements / blocks)
            .min(self.longest)
            .clamp(1, LONGEST_BLOCK);
        if turnaround > SLOW {
            self.block = (self.block / 2).max(1);
        } else if turnaround < QUICK && self.input_is_fast {
            self.block = (self.block * 2).min(longest);
        }
    }

    /// A panic of its destructor must not take with it what was taken from it.
    fn end_input(&mut self) {
        let input = self.input.take();
        contain("a destructor of a stream's input", || drop(input));
    }

    fn has_room(&self) -> bool {
        if self.input.is_none() {
            return false;
        }
        let bytes: usize = self.flight.iter().map(Flight::bytes).sum();
        if self.look_ahead_bytes.is_some_and(|limit| bytes >= limit) && !self.flight.is_empty() {
            return false;
        }
        match self.look_ahead {
            None => self.flight.len() < BLOCKS_A_WORKER * self.processes,
            Some(_) => {
                self.room() > 0 && (!self.fixed || self.room() >= self.block || self.flight.is_empty())
            }
        }
    }

    /// Elements that may still be taken from the input.
    fn room(&self) -> usize {
        let flying: usize = self.flight.iter().map(Flight::len).sum();
        self.look_ahead
            .map_or(usize::MAX, |elements| elements.saturating_sub(flying))
    }

    /// Takes the next block from the input and submits it.
    fn take_block(&mut self) {
        let wanted = if self.fixed {
            self.block
        } else {
            self.block.min(self.room().max(1))
        };
        let Some(input) = self.input.as_mut() else { return };
        let started = Instant::now();
        let mut items = Vec::with_capacity(wanted.min(LONGEST_BLOCK));
        let mut spent = Duration::ZERO;
        while items.len() < wanted && (self.fixed || spent < FAST) {
            // As many as came within a small part of the time, so that an input that grows slow is noticed in time.
            let quick = spent < FAST / 16 || spent / (items.len() as u32).max(1) < FAST / 1024;
            let count = if quick {
                items.len().clamp(1, ITEMS_A_LOOK)
            } else {
                1
            };
            let count = count.min(wanted - items.len());
            match pull_many(input, &mut items, count) {
                Ok(true) => {}
                Ok(false) => {
                    self.end_input();
                    break;
                }
                Err(message) => {
                    let position = self.position + items.len() as u64;
                    let message = format!("the input's iterator panicked: {message}");
                    self.last = Some(ItemError::without_worker(position, Status::Failed, message));
                    self.end_input();
                    break;
                }
            }
            spent = started.elapsed();
        }
        self.input_is_fast = started.elapsed() < FAST;
        if !items.is_empty() {
            self.submit(items);
        }
    }

    fn submit(&mut self, items: Vec<I::Item>) {
        let (first, len) = (self.position, items.len() as u64);
        self.position += len;
        match (self.submit)(items, first, self.fixed) {
            Ok(block) => {
                if !self.ordered {
                    block.job.register_arrival(&self.arrival);
                }
                self.flight.push_back(Flight::Job(block));
            }
            Err(error) => {
                let refused =
                    |position| ItemError::without_worker(position, Status::NotRun, error.to_string());
                if matches!(error, Error::Engine(_)) {
                    // There is no pool any more: one error says so, and the stream ends.
                    self.end_input();
                    self.last = Some(refused(first));
                } else {
                    let all = (first..first + len).map(|at| Err(refused(at)));
                    self.flight
                        .push_back(Flight::Refused(Results::Mixed(all.collect())));
                }
            }
        }
    }
}

impl<I: Iterator, B> Iterator for Imap<'_, I, B> {
    type Item = Result<B, ItemError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if let Some(result) = self.ready.pop() {
            return Some(result);
        }
        loop {
            // Without a deadline there is no timeout.
            if let Ok(next) = self.advance(None) {
                return next;
            }
        }
    }
}

impl<I: Iterator, B> iter::FusedIterator for Imap<'_, I, B> {}

impl<I: Iterator, B> Drop for Imap<'_, I, B> {
    fn drop(&mut self) {
        for flight in &self.flight {
            if let Flight::Job(block) = flight {
                // What is running may finish its element: nobody waits for it.
                block.job.cancel(Duration::MAX);
            }
        }
    }
}

impl<I: Iterator, B> fmt::Debug for Imap<'_, I, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Imap")
            .field("position", &self.position)
            .field("blocks_in_flight", &self.flight.len())
            .finish_non_exhaustive()
    }
}
