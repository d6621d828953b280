//! Where the elements of a stream come from.
//!
//! An input that is any iterator is asked on the caller's thread, and nobody can cut short what it takes to answer. So it is
//! asked as late as that costs nothing ([`Patience`]). An input that is [live](super::Imap::live) is asked by a thread of its
//! own, and the caller only looks whether there is something.

use std::{
    collections::VecDeque,
    io,
    panic::AssertUnwindSafe,
    process,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use swathe_runtime::{
    Arrival,
    user_code::{contain, discard, panic_text},
};

use crate::cross::input::pull_many;

/// An input that answers later than this is slow.
const FAST: Duration = Duration::from_millis(1);
/// The most items that are taken from a quick input between two looks at the clock: a look costs as much as some items do.
const ITEMS_A_LOOK: usize = 256;
/// After so many quick answers in a row an input is known to be quick.
const KNOWN_QUICK: u32 = 64;
/// What a result that is under way is waited for, before an input that is not known is asked.
const MOMENT: Duration = Duration::from_micros(500);
/// What the very first result is waited for: its worker may have to be woken, or started.
const FIRST_MOMENT: Duration = Duration::from_millis(10);

/// The input of a stream.
pub(super) enum Input<I: Iterator> {
    /// Asked here.
    Here(I, Patience),
    /// Asked by a thread.
    Live(Feed<I::Item>),
    Ended,
}

/// What an input has given when it was asked.
pub(super) struct Given<T> {
    pub(super) items: Vec<T>,
    /// Why there is nothing behind them: the end, or a panic of the iterator, which said this.
    pub(super) end: Option<Result<(), String>>,
    /// Whether it was quick.
    pub(super) is_fast: bool,
}

/// How long results are waited for before an input is asked that may take its time.
#[derive(Default)]
pub(super) struct Patience {
    asked: u32,
    quick_in_a_row: u32,
    /// How long the last answer took, and when it was there.
    last: Option<(Duration, Instant)>,
}

impl Patience {
    /// When the input is asked even if results are still under way; `None` for at once. An input that always answers at once
    /// is not worth waiting for. One that may not know yet what to say is asked when there is nothing else to do, or when
    /// that has lasted as long as its last answer.
    pub(super) fn end(&self) -> Option<Instant> {
        let (took, at) = self.last?;
        let moment = match self.asked {
            1 if took < FAST => FIRST_MOMENT,
            _ if self.is_known_quick() => return None,
            _ => took.max(MOMENT),
        };
        at.checked_add(moment)
    }

    /// Whether it has always been quick of late.
    pub(super) fn is_known_quick(&self) -> bool {
        self.quick_in_a_row >= KNOWN_QUICK
    }

    fn note(&mut self, took: Duration, items: usize) {
        self.asked = self.asked.saturating_add(1);
        self.last = Some((took, Instant::now()));
        self.quick_in_a_row = match took < FAST {
            true => self.quick_in_a_row.saturating_add(items as u32),
            false => 0,
        };
    }
}

/// Takes up to `wanted` items from an iterator; fewer if it is slow, unless the number is fixed.
pub(super) fn ask<I: Iterator>(
    input: &mut I,
    patience: &mut Patience,
    wanted: usize,
    longest: usize,
    is_fixed: bool,
) -> Given<I::Item> {
    let started = Instant::now();
    let mut items = Vec::with_capacity(wanted.min(longest));
    let mut spent = Duration::ZERO;
    let mut end = None;
    while items.len() < wanted && (is_fixed || spent < FAST) {
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
            Ok(false) => end = Some(Ok(())),
            Err(message) => end = Some(Err(message)),
        }
        spent = started.elapsed();
        if end.is_some() {
            break;
        }
    }
    patience.note(spent, items.len());
    Given {
        items,
        end,
        is_fast: spent < FAST,
    }
}

/// An input that a thread asks.
///
/// Words: `items` and `end` are written by the thread and taken by the stream, `wanted` and `is_closed` are written by the
/// stream; all under one lock. The thread asks the iterator, with the lock open, while there are fewer items than are wanted;
/// it rings the arrival after each change. A stream that is dropped closes the feed; the thread then ends when the iterator
/// has given its next item, which is dropped: nobody can cut that short.
pub(super) struct Feed<T>(Arc<Shared<T>>);

struct Shared<T> {
    state: Mutex<State<T>>,
    is_wanted: Condvar,
    arrival: Arc<Arrival>,
    /// Whose thread it is: a forked child has none.
    process: u32,
}

struct State<T> {
    items: VecDeque<T>,
    end: Option<Result<(), String>>,
    /// As many items may be there.
    wanted: usize,
    is_closed: bool,
}

impl<T: Send + 'static> Feed<T> {
    /// Starts the thread.
    pub(super) fn start<I>(input: I, arrival: Arc<Arrival>) -> io::Result<Self>
    where
        I: Iterator<Item = T> + Send + 'static,
    {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                items: VecDeque::new(),
                end: None,
                wanted: 1,
                is_closed: false,
            }),
            is_wanted: Condvar::new(),
            arrival,
            process: process::id(),
        });
        let theirs = shared.clone();
        thread::Builder::new()
            .name("swathe-input".to_owned())
            .spawn(move || {
                theirs.feed(input);
            })?;
        Ok(Self(shared))
    }
}

impl<T> Shared<T> {
    fn feed<I: Iterator<Item = T>>(&self, mut input: I) {
        loop {
            let mut state = self.state.lock();
            while state.items.len() >= state.wanted && !state.is_closed {
                self.is_wanted.wait(&mut state);
            }
            if state.is_closed {
                break;
            }
            drop(state);
            let asked = std::panic::catch_unwind(AssertUnwindSafe(|| input.next()));
            let mut state = self.state.lock();
            match asked {
                Ok(Some(item)) if !state.is_closed => state.items.push_back(item),
                Ok(Some(item)) => {
                    drop(state);
                    contain("a destructor of an item of a stream", || drop(item));
                    break;
                }
                Ok(None) => state.end = Some(Ok(())),
                Err(payload) => {
                    state.end = Some(Err(panic_text(&*payload)));
                    discard(payload);
                }
            }
            let is_over = state.end.is_some();
            drop(state);
            self.arrival.ring();
            if is_over {
                break;
            }
        }
        contain("a destructor of a stream's input", || drop(input));
    }
}

impl<T> Feed<T> {
    /// What is there, up to `most` items: nothing is waited for. The thread may then ask for what is missing of them.
    pub(super) fn take(&self, most: usize) -> Given<T> {
        let mut state = self.0.state.lock();
        let count = most.min(state.items.len());
        let items: Vec<T> = state.items.drain(..count).collect();
        let end = match state.items.is_empty() {
            true => state.end.take(),
            false => None,
        };
        state.wanted = most - items.len();
        if state.wanted > state.items.len() {
            self.0.is_wanted.notify_one();
        }
        Given {
            items,
            end,
            is_fast: true,
        }
    }

    /// Whether its thread is in another process, of which this one is a fork.
    pub(super) fn is_elsewhere(&self) -> bool {
        self.0.process != process::id()
    }
}

impl<T> Drop for Feed<T> {
    fn drop(&mut self) {
        if self.is_elsewhere() {
            return;
        }
        let mut state = self.0.state.lock();
        state.is_closed = true;
        let items = std::mem::take(&mut state.items);
        self.0.is_wanted.notify_one();
        drop(state);
        contain("a destructor of an item of a stream", || drop(items));
    }
}
