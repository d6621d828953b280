//! What the workers do: functions whose values a loop can tell, after some time, unless the element has orders to fail.

use std::{
    process,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use swathe::{Context, Queue, SharedArray, Status, Value};

/// What an element does instead of returning its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Harm {
    /// Returns an error, at every try.
    Error,
    /// Panics at every try.
    Panic,
    /// Never ends.
    Hang,
    /// Aborts its worker, always.
    Abort,
    /// Returns an error at the first try.
    ErrorOnce,
    /// Panics at the first try.
    PanicOnce,
    /// Never ends the first time.
    HangOnce,
}

impl Harm {
    /// Whether a further try helps.
    pub(super) fn passes(self) -> bool {
        matches!(self, Self::ErrorOnce | Self::PanicOnce | Self::HangOnce)
    }

    /// Whether it takes a worker with it.
    pub(super) fn is_deadly(self) -> bool {
        matches!(self, Self::Hang | Self::HangOnce | Self::Abort)
    }

    /// How its element ends if no try helps.
    pub(super) fn status(self) -> Status {
        match self {
            Self::Error | Self::ErrorOnce => Status::Failed,
            Self::Panic | Self::PanicOnce => Status::Panicked,
            Self::Hang | Self::HangOnce => Status::TimedOut,
            Self::Abort => Status::Lost,
        }
    }

    /// Does it, unless this is a later try that passes.
    fn happen(self, at: u64, attempt: u32) -> Result<(), String> {
        if self.passes() && attempt > 1 {
            return Ok(());
        }
        match self {
            Self::Error | Self::ErrorOnce => Err(format!("error at {at}")),
            Self::Panic | Self::PanicOnce => panic!("panic at {at}"),
            Self::Abort => process::abort(),
            Self::Hang | Self::HangOnce => loop {
                thread::sleep(Duration::from_secs(3600));
            },
        }
    }
}

const HARMS: [Harm; 7] = [
    Harm::Error,
    Harm::Panic,
    Harm::Hang,
    Harm::Abort,
    Harm::ErrorOnce,
    Harm::PanicOnce,
    Harm::HangOnce,
];

/// How long an element takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// As long as it takes.
    Free,
    /// So many microseconds at work.
    Busy(u64),
    /// So many microseconds asleep.
    Asleep(u64),
}

impl Pace {
    fn to_words(self) -> (u64, u64) {
        match self {
            Self::Free => (0, 0),
            Self::Busy(us) => (us, 0),
            Self::Asleep(us) => (0, us),
        }
    }

    /// About how long, microseconds.
    pub(super) fn micros(self) -> u64 {
        match self {
            Self::Free => 0,
            Self::Busy(us) => us,
            Self::Asleep(us) => us + 60,
        }
    }
}

fn linger((busy, asleep): (u64, u64)) {
    if busy > 0 {
        let start = Instant::now();
        while start.elapsed() < Duration::from_micros(busy) {
            std::hint::spin_loop();
        }
    }
    if asleep > 0 {
        thread::sleep(Duration::from_micros(asleep));
    }
}

/// The parameters of a job: harmful positions ascending, how long an element takes, and a counter of starts for each
/// position.
pub(super) type Orders = (Vec<(u64, u8)>, (u64, u64), SharedArray<u32>);

pub(super) fn orders(
    harms: impl Iterator<Item = (u64, Harm)>,
    pace: Pace,
    starts: &SharedArray<u32>,
) -> Orders {
    (
        harms.map(|(at, harm)| (at, harm as u8)).collect(),
        pace.to_words(),
        starts.clone(),
    )
}

fn obey((harms, pace, starts): &Orders, at: u64, attempt: u32) -> Result<(), String> {
    starts.fetch_add(at as usize, 1);
    linger(*pace);
    match harms.binary_search_by_key(&at, |harm| harm.0) {
        Ok(found) => HARMS[harms[found].1 as usize % HARMS.len()].happen(at, attempt),
        Err(_) => Ok(()),
    }
}

/// The value of an element; no fixed point below 2^20, so that an element that was run over its own result shows.
pub(super) fn value(x: i64) -> i64 {
    x.wrapping_mul(3).wrapping_add(x >> 2).wrapping_add(7)
}

pub(super) fn number(orders: &Orders, context: &Context, x: i64) -> Result<i64, String> {
    obey(orders, context.position(), context.attempt()).map(|()| value(x))
}

pub(super) fn columns(orders: &Orders, context: &Context, x: i64, y: f64) -> Result<[f64; 3], String> {
    obey(orders, context.position(), context.attempt()).map(|()| row(x, y))
}

pub(super) fn row(x: i64, y: f64) -> [f64; 3] {
    [value(x) as f64, y, y * 0.1]
}

pub(super) fn text(orders: &Orders, context: &Context, x: i64) -> Result<String, String> {
    obey(orders, context.position(), context.attempt()).map(|()| label(x))
}

/// Now and then longer than a worker's room for results.
pub(super) fn label(x: i64) -> String {
    let len = if x % 101 == 0 { 9000 } else { x as usize % 60 };
    format!("{}{}", "#".repeat(len), value(x))
}

pub(super) fn chunk(orders: &Orders, context: &Context, xs: &[i64], out: &mut [i64]) -> Result<(), String> {
    for (i, (x, out)) in (0..).zip(xs.iter().zip(out)) {
        obey(orders, context.position() + i, context.attempt())?;
        *out = value(*x);
    }
    Ok(())
}

/// A term of a sum whose bits depend on the order.
pub(super) fn term(orders: &Orders, context: &Context, x: i64) -> f64 {
    if let Err(why) = obey(orders, context.position(), context.attempt()) {
        panic!("{why}");
    }
    fraction(x)
}

pub(super) fn fraction(x: i64) -> f64 {
    1.0 / (value(x) as f64)
}

pub(super) fn add(a: f64, b: f64) -> f64 {
    a + b
}

pub(super) fn tell(orders: &Orders, context: &Context, x: i64) -> Result<[i64; 2], String> {
    number(orders, context, x).map(|value| [x, value])
}

pub(super) fn tell_text(orders: &Orders, context: &Context, x: i64) -> Result<(i64, String), String> {
    text(orders, context, x).map(|text| (x, text))
}

/// Who runs this.
pub(super) fn whoami(orders: &Orders, context: &Context) -> [u64; 2] {
    let _ = obey(orders, context.position(), context.attempt());
    [context.worker() as u64, u64::from(process::id())]
}

/// What many elements use at once: a queue, how often each item was got, elements that have begun and ended, a sum of
/// steps that are each a whole.
pub(super) type Common = (Queue<Item>, SharedArray<u32>, [Value<u64>; 3], u64);

/// A number, a stamp that no other put has, and a text that belongs to them.
pub(super) type Item = (u64, u64, String);

pub(super) fn item(number: u64) -> Item {
    static PUTS: AtomicU64 = AtomicU64::new(0);
    let stamp = u64::from(process::id()) << 32 | PUTS.fetch_add(1, Ordering::Relaxed);
    (number, stamp, item_text(number, stamp))
}

pub(super) fn item_text(number: u64, stamp: u64) -> String {
    format!("{stamp:x}").repeat(1 + number as usize % 5)
}

/// Puts an item.
pub(super) fn produce(common: &Common, context: &Context, x: u64) -> Result<u64, String> {
    let (queue, _, [begun, ended, steps], pace) = common;
    begun.fetch_add(1);
    linger((0, *pace));
    queue.put(&item(context.position())).map_err(|e| e.to_string())?;
    steps.update(|n| n + 3);
    ended.fetch_add(1);
    Ok(x)
}

/// Gets an item, if there is one soon.
pub(super) fn consume(common: &Common, x: u64) -> Result<u64, String> {
    let (queue, seen, [begun, ended, steps], pace) = common;
    begun.fetch_add(1);
    let got = queue
        .get_timeout(Duration::from_millis(5))
        .map_err(|e| e.to_string())?;
    if let Some((number, stamp, text)) = got {
        if text != item_text(number, stamp) {
            return Err(format!("item {number} was damaged: {text}"));
        }
        seen.fetch_add(number as usize, 1);
    }
    linger((0, *pace));
    steps.update(|n| n + 3);
    ended.fetch_add(1);
    Ok(x)
}

/// Half of the elements put, half get.
pub(super) fn relay(common: &Common, context: &Context, x: u64) -> Result<u64, String> {
    if x.is_multiple_of(2) {
        // Consumers may be fewer than producers: what finds no room is not put.
        let (queue, _, [begun, ended, steps], _) = common;
        begun.fetch_add(1);
        let put = queue.put_timeout(&item(x / 2), Duration::from_millis(5));
        steps.update(|n| n + 3);
        ended.fetch_add(1);
        match put {
            Ok(()) => Ok(1),
            Err(swathe::QueueError::Full { .. }) => Ok(0),
            Err(e) => Err(e.to_string()),
        }
    } else {
        consume(common, context.position())
    }
}

/// A long element of a pool that is terminated.
pub(super) fn nap(x: i64) -> i64 {
    thread::sleep(Duration::from_millis(2));
    value(x)
}
