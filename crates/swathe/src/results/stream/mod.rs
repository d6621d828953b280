//! The results of a stream.

mod block;
mod input;

use std::{
    collections::VecDeque,
    fmt, iter,
    sync::Arc,
    time::{Duration, Instant},
};

use swathe_runtime::{Arrival, EngineError, user_code::contain};

use block::Flight;
pub(crate) use block::{Block, Brought, Results};
use input::{Feed, Given, Input, Patience, ask};

use crate::{Error, Result, Status, error::ItemError};

/// Blocks in flight for each worker, unless the look-ahead is set.
const BLOCKS_A_WORKER: usize = 3;
/// The longest block, unless a chunk size is set: elements, and bytes of input and output.
pub(crate) const LONGEST_BLOCK: usize = 1 << 14;
const LONGEST_BLOCK_BYTES: usize = 4 << 20;
/// A block whose results take less than this may grow.
const QUICK: Duration = Duration::from_millis(10);
/// A block whose results take longer than this is too long.
const SLOW: Duration = Duration::from_millis(50);
/// Blocks of this length and more are from an input that gave thousands of items in no time.
const LONG_BLOCK: usize = 256;

/// Makes a block of these elements.
type Submit<'p, T, B> = Box<dyn Fn(Vec<T>, Place) -> Result<Block<B>> + Send + 'p>;

/// Where a block lies in its stream, and how it is to run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Position of its first element.
    pub(crate) base: u64,
    /// Its length is what the user has asked for.
    pub(crate) is_fixed: bool,
    /// Nobody waits for this block alone: whoever waits is told of its end.
    pub(crate) attended: bool,
}

/// The results of a stream, one after the other; what `imap` and `imap_unordered` return.
///
/// Nothing runs by itself: [`next`](Iterator::next) takes from the input what the look-ahead allows, so the input may
/// be endless, and memory is bounded. Each result is a `Result` of its own, and the stream goes on after errors. Dropping
/// it cancels what is in flight.
///
/// # The input
/// It is asked on the thread that drains the stream, by as many elements ahead as [`look_ahead`](Self::look_ahead) says, and
/// what is ready is handed out before it is asked again: with `look_ahead(1)` an element may depend on the result of the one
/// before. Nobody can cut short what an iterator takes to give an item. So a stream that does not know its input to be quick
/// first waits a moment for results that are under way; a source that pauses for long (a channel, a socket, a device) is better
/// [`live`](Self::live).
///
/// If the input's iterator panics, the results of all items before are delivered, then one error that names the
/// position, then the end.
///
/// # Options of its batch
/// [`fail_fast`](crate::Batch::fail_fast) ends the stream behind its first error, and [`deadline`](crate::Batch::deadline) when
/// the time is over: values that are there are handed out, then one error of status [`TimedOut`](Status::TimedOut) that says
/// how many elements were under way, then the end. Seed, retries, timeouts of elements and limits of deaths are as for maps.
///
/// In a process that was forked from the one that began it, a stream gives one error that says so, then the end, and
/// dropping it cancels nothing.
#[must_use = "a stream does nothing until it is drained"]
pub struct Imap<'p, I: Iterator, B> {
    input: Input<I>,
    submit: Submit<'p, I::Item, B>,
    terms: Terms,
    /// Elements a block; fixed by a chunk size.
    block: usize,
    /// The most that they may be, by what an element takes in memory.
    longest: usize,
    look_ahead: Option<usize>,
    look_ahead_bytes: Option<usize>,
    flight: VecDeque<Flight<B>>,
    ready: Results<B>,
    /// Reported when everything else has been.
    last: Option<ItemError>,
    /// Elements that have no value because the time was over: how many, and the first of them.
    late: Option<(u64, u64)>,
    position: u64,
    input_is_fast: bool,
    arrival: Arc<Arrival>,
}

/// What a stream has been asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) ordered: bool,
    /// Elements a block, if they are fixed.
    pub(crate) chunk_size: Option<usize>,
    pub(crate) processes: usize,
    pub(crate) fail_fast: bool,
    pub(crate) deadline: Option<Instant>,
}

impl<'p, I: Iterator, B> Imap<'p, I, B> {
    pub(crate) fn new(
        input: I,
        submit: impl Fn(Vec<I::Item>, Place) -> Result<Block<B>> + Send + 'p,
        terms: Terms,
    ) -> Self {
        let mut stream = Self {
            input: Input::Here(input, Patience::default()),
            submit: Box::new(submit),
            terms,
            block: terms.chunk_size.unwrap_or(1),
            longest: LONGEST_BLOCK,
            look_ahead: None,
            look_ahead_bytes: None,
            flight: VecDeque::new(),
            ready: Results::none(),
            last: None,
            late: None,
            position: 0,
            input_is_fast: true,
            arrival: Arc::new(Arrival::default()),
        };
        if terms.chunk_size == Some(0) {
            stream.refuse(&EngineError::ZeroChunk.into());
        }
        stream
    }

    /// It cannot begin, or cannot go on: it gives this error, and ends.
    pub(crate) fn refuse(&mut self, error: &Error) {
        self.end_input();
        let error = ItemError::without_worker(self.position, Status::NotRun, error.to_string());
        self.last = Some(error);
    }

    /// At most this many elements, at least 1, are out: taken from the input, and their results not yet handed out. Unless
    /// set, three blocks a worker.
    pub fn look_ahead(mut self, elements: usize) -> Self {
        self.look_ahead = Some(elements.max(1));
        self
    }

    /// No further block is taken from the input while those in flight take this many bytes of shared memory.
    pub fn look_ahead_bytes(mut self, bytes: usize) -> Self {
        self.look_ahead_bytes = Some(bytes);
        self
    }

    /// Has the input asked by a thread of its own, so that nobody ever waits for it: results come when they are there, and
    /// [`next_timeout`](Self::next_timeout) holds, whatever the source does. Not more is taken from it than the look-ahead
    /// allows. When the stream is dropped, the thread ends as soon as the source has given its next item or has ended.
    ///
    /// ```
    /// use std::{sync::mpsc, time::Duration};
    /// use swathe::Pool;
    ///
    /// fn main() -> swathe::Result<()> {
    ///     swathe::init();
    ///     let pool = Pool::builder().processes(2).build()?;
    ///     let (send, receive) = mpsc::channel();
    ///     let mut squares = pool.imap(|x: i64| x * x, receive).live();
    ///     send.send(3).unwrap();
    ///     assert_eq!(squares.next().unwrap()?, 9); // and the channel is still open
    ///     let nothing = squares.next_timeout(Duration::from_millis(1));
    ///     assert!(matches!(nothing, Err(swathe::Error::Timeout)));
    ///     drop(send);
    ///     assert!(squares.next().is_none());
    ///     Ok(())
    /// }
    /// ```
    pub fn live(mut self) -> Self
    where
        I: Send + 'static,
        I::Item: Send + 'static,
    {
        match std::mem::replace(&mut self.input, Input::Ended) {
            Input::Here(input, _) => match Feed::start(input, self.arrival.clone()) {
                Ok(feed) => self.input = Input::Live(feed),
                Err(error) => self.refuse(&Error::Thread { error }),
            },
            other => self.input = other,
        }
        self
    }

    /// The same results, each with the position of its element in the input, from 0: also where they come in another order.
    ///
    /// ```
    /// use swathe::Pool;
    ///
    /// fn main() -> swathe::Result<()> {
    ///     swathe::init();
    ///     let pool = Pool::builder().processes(2).build()?;
    ///     let words = ["of", "strips", "and", "fields"];
    ///     for (position, length) in pool.imap_unordered(|word: &str| word.len(), words).positions() {
    ///         assert_eq!(length?, words[position as usize].len());
    ///     }
    ///     Ok(())
    /// }
    /// ```
    pub fn positions(self) -> Positions<'p, I, B> {
        Positions(self)
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
    /// [`Error::Timeout`] when the time is over; the stream goes on. What the iterator of an input that is not
    /// [`live`](Self::live) takes to give an item cannot be cut short.
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Option<Result<B, ItemError>>> {
        // A time too long to be added is no limit.
        let next = self.advance(Instant::now().checked_add(timeout))?;
        Ok(next.map(|(_, result)| result))
    }

    /// The next result and its position, by this time.
    fn advance(&mut self, until: Option<Instant>) -> Result<Option<(u64, Result<B, ItemError>)>> {
        loop {
            if let Some(next) = self.pop() {
                return Ok(Some(next));
            }
            self.leave_to_parent();
            self.look_at_deadline();
            let seen = self.arrival.count();
            // A long block is handed out for a while: an input that has always been quick may be asked meanwhile.
            if self.block >= LONG_BLOCK && self.has_room() && self.is_known_quick() {
                self.take_block();
            }
            self.collect();
            // What is ready is handed out before the input is asked.
            if self.ready.len() > 0 {
                continue;
            }
            if self.has_room() && self.has_waited(seen, until) && self.take_block() {
                continue;
            }
            if self.flight.is_empty() && matches!(self.input, Input::Ended) {
                return Ok(self.end());
            }
            if !self.wait(seen, until) {
                return Err(Error::Timeout);
            }
        }
    }

    /// The next of what is ready. An error ends a stream that is to fail fast.
    #[inline]
    fn pop(&mut self) -> Option<(u64, Result<B, ItemError>)> {
        let next = self.ready.pop()?;
        if self.terms.fail_fast && next.1.is_err() {
            self.stop();
        }
        Some(next)
    }

    /// What is reported when there is nothing else.
    fn end(&mut self) -> Option<(u64, Result<B, ItemError>)> {
        if let Some((count, first)) = self.late.take() {
            let under_way = match count {
                0 => "nothing was under way".to_owned(),
                1 => "1 element was under way and has no value".to_owned(),
                n => format!("{n} elements were under way and have no value"),
            };
            let message = format!("the deadline of the stream has passed; {under_way}");
            let error = ItemError::without_worker(first, Status::TimedOut, message);
            return Some((first, Err(error)));
        }
        let error = self.last.take()?;
        Some((error.position(), Err(error)))
    }

    /// Ends the stream here and now.
    fn stop(&mut self) {
        self.end_input();
        self.flight.iter().for_each(Flight::cancel);
        self.flight.clear();
        self.ready = Results::none();
        (self.last, self.late) = (None, None);
    }

    /// When the time is over nothing more is taken from the input. Jobs in flight have the same deadline, and end by
    /// themselves.
    fn look_at_deadline(&mut self) {
        let is_over = self.terms.deadline.is_some_and(|at| Instant::now() >= at);
        if is_over && !matches!(self.input, Input::Ended) {
            self.end_input();
            self.late.get_or_insert((0, self.position));
        }
    }

    fn is_known_quick(&self) -> bool {
        matches!(&self.input, Input::Here(_, patience) if patience.is_known_quick())
    }

    /// Waits a moment for results that are under way, if asking the input might take longer. Gives whether the input is
    /// to be asked: not if a result has come.
    fn has_waited(&self, seen: u64, until: Option<Instant>) -> bool {
        let Input::Here(_, patience) = &self.input else {
            return true;
        };
        let Some(end) = patience.end().filter(|_| !self.flight.is_empty()) else {
            return true;
        };
        if Instant::now() < end {
            self.wait(seen, Some(until.map_or(end, |until| until.min(end))));
        }
        self.next_over().is_none() && Instant::now() >= end
    }

    /// The block whose results are handed out next, if it is over: the first one, or any.
    fn next_over(&self) -> Option<usize> {
        match self.terms.ordered {
            true => self.flight.front().is_some_and(Flight::is_over).then_some(0),
            false => self.flight.iter().position(Flight::is_over),
        }
    }

    /// In a forked child the blocks in flight are its parent's: one error says so, and the stream ends.
    fn leave_to_parent(&mut self) {
        let feed_is_elsewhere = matches!(&self.input, Input::Live(feed) if feed.is_elsewhere());
        let error = match self.flight.front().and_then(Flight::not_ours) {
            Some(error) => error,
            None if feed_is_elsewhere => EngineError::Forked,
            None => return,
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

    /// Waits until there may be something: results of the first block, or of any, an item of a live input, or the deadline.
    /// Gives whether the time has sufficed.
    fn wait(&self, seen: u64, until: Option<Instant>) -> bool {
        let earliest = [until, self.terms.deadline].into_iter().flatten().min();
        let came = match self.flight.front() {
            Some(Flight::Job(block)) if self.terms.ordered && !matches!(self.input, Input::Live(_)) => {
                let left = earliest.map(|at| at.saturating_duration_since(Instant::now()));
                block.job.wait(left)
            }
            _ => self.arrival.wait(seen, earliest),
        };
        came || until.is_none_or(|until| Instant::now() < until)
    }

    /// Takes the results of a block that is over.
    fn collect(&mut self) {
        match self.next_over().and_then(|i| self.flight.remove(i)) {
            Some(Flight::Job(block)) => {
                self.adapt(block.submitted.elapsed());
                self.longest = LONGEST_BLOCK_BYTES / (block.bytes / block.len.max(1)).max(1);
                if let Some(outcome) = block.job.outcome() {
                    let brought = (block.results)(&outcome);
                    self.ready = brought.results;
                    self.note_late(&brought.late);
                }
            }
            Some(Flight::Refused(results)) => self.ready = results,
            None => {}
        }
    }

    /// These have no value because the time is over.
    fn note_late(&mut self, positions: &[u64]) {
        if let Some(&lowest) = positions.iter().min() {
            let (count, first) = self.late.unwrap_or((0, lowest));
            let first = if count == 0 { lowest } else { first.min(lowest) };
            self.late = Some((count + positions.len() as u64, first));
        }
    }

    /// Blocks grow while input and results are quick, and shrink when results take long.
    fn adapt(&mut self, turnaround: Duration) {
        if self.terms.chunk_size.is_some() {
            return;
        }
        let blocks = BLOCKS_A_WORKER * self.processes();
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

    fn processes(&self) -> usize {
        self.terms.processes.max(1)
    }

    /// A panic of its destructor must not take with it what was taken from it.
    fn end_input(&mut self) {
        let input = std::mem::replace(&mut self.input, Input::Ended);
        contain("a destructor of a stream's input", || drop(input));
    }

    fn has_room(&self) -> bool {
        if matches!(self.input, Input::Ended) {
            return false;
        }
        let bytes: usize = self.flight.iter().map(Flight::bytes).sum();
        if self.look_ahead_bytes.is_some_and(|limit| bytes >= limit) && !self.flight.is_empty() {
            return false;
        }
        match self.look_ahead {
            None => self.flight.len() < BLOCKS_A_WORKER * self.processes(),
            Some(_) => {
                let is_fixed = self.terms.chunk_size.is_some();
                self.room() > 0 && (!is_fixed || self.room() >= self.block || self.flight.is_empty())
            }
        }
    }

    /// Elements that may still be taken from the input.
    fn room(&self) -> usize {
        let flying: usize = self.flight.iter().map(Flight::len).sum();
        self.look_ahead.map_or(usize::MAX, |elements| {
            elements.saturating_sub(flying + self.ready.len())
        })
    }

    /// Takes the next block from the input and submits it. Gives whether there was anything.
    fn take_block(&mut self) -> bool {
        let is_fixed = self.terms.chunk_size.is_some();
        let wanted = match is_fixed {
            true => self.block,
            false => self.block.min(self.room().max(1)),
        };
        let given = match &mut self.input {
            Input::Here(input, patience) => ask(input, patience, wanted, LONGEST_BLOCK, is_fixed),
            // A live source fills no block: what is there goes.
            Input::Live(feed) => feed.take(wanted),
            Input::Ended => return false,
        };
        let Given { items, end, is_fast } = given;
        self.input_is_fast = is_fast;
        let is_something = !items.is_empty() || end.is_some();
        if let Some(end) = end {
            self.end_input();
            if let Err(message) = end {
                let position = self.position + items.len() as u64;
                let message = format!("the input's iterator panicked: {message}");
                self.last = Some(ItemError::without_worker(position, Status::Failed, message));
            }
        }
        if !items.is_empty() {
            self.submit(items);
        }
        is_something
    }

    fn submit(&mut self, items: Vec<I::Item>) {
        let (first, len) = (self.position, items.len() as u64);
        self.position += len;
        let place = Place {
            base: first,
            is_fixed: self.terms.chunk_size.is_some(),
            attended: !self.terms.ordered || matches!(self.input, Input::Live(_)),
        };
        match (self.submit)(items, place) {
            Ok(block) => {
                if place.attended {
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
                    let all = (first..first + len).map(|at| (at, Err(refused(at))));
                    self.flight
                        .push_back(Flight::Refused(Results::Mixed(all.collect())));
                }
            }
        }
    }
}

impl<I: Iterator, B> Imap<'_, I, B> {
    #[inline]
    fn next_with_position(&mut self) -> Option<(u64, Result<B, ItemError>)> {
        if let Some(next) = self.pop() {
            return Some(next);
        }
        loop {
            // Without a limit there is no timeout.
            if let Ok(next) = self.advance(None) {
                return next;
            }
        }
    }
}

impl<I: Iterator, B> Iterator for Imap<'_, I, B> {
    type Item = Result<B, ItemError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.next_with_position().map(|(_, result)| result)
    }
}

impl<I: Iterator, B> iter::FusedIterator for Imap<'_, I, B> {}

impl<I: Iterator, B> Drop for Imap<'_, I, B> {
    fn drop(&mut self) {
        self.flight.iter().for_each(Flight::cancel);
        self.end_input();
    }
}

/// The results of a stream with their positions; see [`Imap::positions`].
#[derive(Debug)]
#[must_use = "a stream does nothing until it is drained"]
pub struct Positions<'p, I: Iterator, B>(Imap<'p, I, B>);

impl<I: Iterator, B> Positions<'_, I, B> {
    /// As [`Imap::next_timeout`].
    ///
    /// # Errors
    /// As there.
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Option<(u64, Result<B, ItemError>)>> {
        self.0.advance(Instant::now().checked_add(timeout))
    }
}

impl<I: Iterator, B> Iterator for Positions<'_, I, B> {
    type Item = (u64, Result<B, ItemError>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.0.next_with_position()
    }
}

impl<I: Iterator, B> iter::FusedIterator for Positions<'_, I, B> {}

impl<I: Iterator, B> fmt::Debug for Imap<'_, I, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Imap")
            .field("position", &self.position)
            .field("blocks_in_flight", &self.flight.len())
            .finish_non_exhaustive()
    }
}
