//! A worker that uses a shared `Queue` or `Value`, between two markers: put, get, waiting for an item or for room,
//! waking who waits; and each way to change a value.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use swathe::{Pool, Queue, QueueError, SharedArray, Value};

use super::{
    course::End,
    jobs::one,
    trial::{Case, Company, Death, Run},
};
use crate::{
    tracee::{LOOK, marker, sleeps_on_futex},
    verdict::Verdict,
};

/// Items are numbered from 0; no case needs more.
const ITEMS: usize = 16;
/// Longer than any case waits.
const LONG: Duration = Duration::from_secs(15);

/// An attempt was begun.
const BEGUN: u32 = 1;
/// An item was put, or got.
const DONE: u32 = 2;

const PUT: Case = Case {
    name: "queue/put",
    pool: one,
    company: Company::Alone,
    from_marker: true,
    end: End::Marker,
    start: put,
};

/// Cases of the queue.
pub(super) const QUEUE_CASES: &[Case] = &[
    PUT,
    Case {
        name: "queue/put-for-a-sleeper",
        start: put_for_a_sleeper,
        ..PUT
    },
    Case {
        name: "queue/get",
        start: get,
        ..PUT
    },
    Case {
        name: "queue/get-for-a-sleeper",
        start: get_for_a_sleeper,
        ..PUT
    },
    Case {
        name: "queue/wait-for-an-item",
        end: End::Sleep,
        start: wait_for_an_item,
        ..PUT
    },
    Case {
        name: "queue/wait-for-room",
        end: End::Sleep,
        start: wait_for_room,
        ..PUT
    },
];

/// Cases of the value.
pub(super) const VALUE_CASES: &[Case] = &[
    Case {
        name: "value/store-swap-update",
        start: overwrite,
        ..PUT
    },
    Case {
        name: "value/add",
        start: add,
        ..PUT
    },
];

/// The queue of one trial, and what is known of its items: word `i` is about item `i`, the last counts attempts.
struct Trial {
    queue: Queue<u64>,
    marks: SharedArray<u32>,
}

impl Trial {
    fn new(capacity: usize) -> swathe::Result<Self> {
        Ok(Self {
            queue: Queue::bounded(capacity).map_err(lift)?,
            marks: SharedArray::zeros(ITEMS + 1)?,
        })
    }

    /// The parent puts an item, with a number that no attempt has.
    fn stock(&self, item: usize) -> swathe::Result<()> {
        self.marks.store(item, DONE);
        self.queue.try_put(&(item as u64)).map_err(lift)
    }

    /// What is left in the queue is added to what was got, and the queue is tried once more.
    fn take_the_rest(&self, got: &mut [u32], verdict: &mut Verdict) {
        for item in self.queue.drain() {
            match item {
                Ok(item) if (item as usize) < ITEMS => got[item as usize] += 1,
                other => verdict.reject(format!("{other:?} is in the queue")),
            }
        }
        let again = self
            .queue
            .put_timeout(&7, LONG)
            .and_then(|()| self.queue.get_timeout(LONG));
        if !matches!(again, Ok(Some(7))) {
            verdict.lose(format!("the queue does not work any more: {again:?}"));
        }
    }
}

fn lift(error: QueueError) -> swathe::Error {
    match error {
        QueueError::Memory(error) => error.into(),
        other => swathe::Error::Parameters {
            message: other.to_string(),
        },
    }
}

/// Puts the number of the attempt.
fn put_task(queue: Queue<u64>, marks: SharedArray<u32>) -> u64 {
    let item = u64::from(marks.fetch_add(ITEMS, 1));
    marks.store(item as usize, BEGUN);
    marker();
    if queue.put(&item).is_ok() {
        marks.store(item as usize, DONE);
    }
    marker();
    item
}

/// Each item that was put came once; the one that was just being put, not more than once.
fn judge_put(trial: &Trial, mut got: [u32; ITEMS]) -> Verdict {
    let mut verdict = Verdict::default();
    trial.take_the_rest(&mut got, &mut verdict);
    for (item, (&got, mark)) in got.iter().zip(trial.marks.iter()).enumerate() {
        match (mark, got) {
            (DONE, 0) => verdict.lose(format!("item {item} was put, and never came")),
            (BEGUN, 0) => verdict.in_hand += 1,
            (0, 1..) => verdict.reject(format!("item {item} came, and was never put")),
            (_, 2..) => verdict.double(format!("item {item} came {got} times")),
            _ => {}
        }
    }
    verdict.rerun += u64::from(trial.marks.load(ITEMS).saturating_sub(1));
    verdict
}

fn put(pool: &Arc<Pool>) -> swathe::Result<Run> {
    let trial = Trial::new(8)?;
    (8..11).try_for_each(|item| trial.stock(item))?;
    let pending = pool.apply_async(put_task, (trial.queue.clone(), trial.marks.clone()))?;
    Ok(Run::spawn(
        || 0,
        move || {
            let put = pending.get();
            Box::new(move |_| match put {
                Ok(_) => judge_put(&trial, [0; ITEMS]),
                Err(error) => lost(&error),
            })
        },
    ))
}

fn lost(error: &swathe::Error) -> Verdict {
    let mut verdict = Verdict::default();
    verdict.lose(error.to_string());
    verdict
}

/// Calls a function on a thread, and returns when that thread sleeps.
fn asleep<R: Send + 'static>(wait: impl FnOnce() -> R + Send + 'static) -> thread::JoinHandle<R> {
    let id = Arc::new(AtomicU32::new(0));
    let told = id.clone();
    let sleeper = thread::spawn(move || {
        told.store(nix::unistd::gettid().as_raw() as u32, Ordering::Release);
        wait()
    });
    while !sleeper.is_finished() && !matches!(id.load(Ordering::Acquire), id if id > 0 && sleeps_on_futex(id))
    {
        thread::sleep(LOOK);
    }
    sleeper
}

fn put_for_a_sleeper(pool: &Arc<Pool>) -> swathe::Result<Run> {
    let trial = Trial::new(8)?;
    let queue = trial.queue.clone();
    let sleeper = asleep(move || queue.get_timeout(LONG));
    let pending = pool.apply_async(put_task, (trial.queue.clone(), trial.marks.clone()))?;
    Ok(Run::spawn(
        || 0,
        move || {
            let put = pending.get();
            let heard = sleeper.join();
            Box::new(move |_| {
                let mut got = [0; ITEMS];
                let item = match (put, heard) {
                    (Ok(_), Ok(Ok(Some(item)))) => item as usize,
                    (Err(error), _) => return lost(&error),
                    (_, heard) => {
                        let mut verdict = Verdict::default();
                        verdict.lose(format!("who waited for an item has {heard:?}"));
                        return verdict;
                    }
                };
                got[item.min(ITEMS - 1)] += 1;
                judge_put(&trial, got)
            })
        },
    ))
}

/// Gets an item, and marks it.
fn get_task(queue: Queue<u64>, marks: SharedArray<u32>) -> u64 {
    marks.fetch_add(ITEMS, 1);
    marker();
    let item = queue.get().unwrap_or(u64::MAX);
    if (item as usize) < ITEMS {
        marks.fetch_add(item as usize, 1 << 16);
    }
    marker();
    item
}

/// Each item came once; of those that a worker took and could not mark, at most one a death is missing.
fn judge_get(trial: &Trial, death: Death) -> Verdict {
    let mut verdict = Verdict::default();
    let mut got = [0; ITEMS];
    trial.take_the_rest(&mut got, &mut verdict);
    for (item, (&left, mark)) in got.iter().zip(trial.marks.iter()).enumerate() {
        let came = left + (mark >> 16);
        let was_put = mark & 0xffff == DONE;
        match (was_put, came) {
            (true, 0) if verdict.in_hand < u64::from(death.deaths) => verdict.in_hand += 1,
            (true, 0) => verdict.lose(format!("item {item} never came")),
            (false, 1..) => verdict.reject(format!("item {item} came, and was never put")),
            (_, 2..) => verdict.double(format!("item {item} came {came} times")),
            _ => {}
        }
    }
    verdict.rerun += u64::from(trial.marks.load(ITEMS).saturating_sub(1));
    verdict
}

fn get(pool: &Arc<Pool>) -> swathe::Result<Run> {
    let trial = Trial::new(8)?;
    (0..4).try_for_each(|item| trial.stock(item))?;
    let pending = pool.apply_async(get_task, (trial.queue.clone(), trial.marks.clone()))?;
    Ok(Run::spawn(
        || 0,
        move || {
            let got = pending.get();
            Box::new(move |death| match got {
                Ok(_) => judge_get(&trial, death),
                Err(error) => lost(&error),
            })
        },
    ))
}

/// The queue is full, and the parent waits for room.
fn get_for_a_sleeper(pool: &Arc<Pool>) -> swathe::Result<Run> {
    let trial = Trial::new(4)?;
    (0..4).try_for_each(|item| trial.stock(item))?;
    let (queue, marks) = (trial.queue.clone(), trial.marks.clone());
    let sleeper = asleep(move || {
        marks.fetch_add(4, DONE);
        queue.put_timeout(&4, LONG)
    });
    let pending = pool.apply_async(get_task, (trial.queue.clone(), trial.marks.clone()))?;
    Ok(Run::spawn(
        || 0,
        move || {
            let got = pending.get();
            let heard = sleeper.join();
            Box::new(move |death| match (got, heard) {
                (Ok(_), Ok(Ok(()))) => judge_get(&trial, death),
                (Err(error), _) => lost(&error),
                (_, heard) => {
                    let mut verdict = Verdict::default();
                    verdict.lose(format!("who waited for room has {heard:?}"));
                    verdict
                }
            })
        },
    ))
}

/// The queue is empty until the waiting worker is dead.
fn wait_for_an_item(pool: &Arc<Pool>) -> swathe::Result<Run> {
    let trial = Arc::new(Trial::new(4)?);
    let pending = pool.apply_async(get_task, (trial.queue.clone(), trial.marks.clone()))?;
    let stock = trial.clone();
    let mut run = Run::spawn(
        || 0,
        move || {
            let got = pending.get();
            Box::new(move |_| match got {
                // Whoever died had nothing in hand: nothing had been put.
                Ok(_) => judge_get(
                    &trial,
                    Death {
                        deaths: 0,
                        settled: None,
                    },
                ),
                Err(error) => lost(&error),
            })
        },
    );
    run.then = Box::new(move || {
        let _ = (0..2).try_for_each(|item| stock.stock(item));
    });
    Ok(run)
}

/// The queue is full until the waiting worker is dead.
fn wait_for_room(pool: &Arc<Pool>) -> swathe::Result<Run> {
    let trial = Arc::new(Trial::new(1)?);
    trial.stock(8)?;
    let pending = pool.apply_async(put_task, (trial.queue.clone(), trial.marks.clone()))?;
    let (make_room, room_made) = (trial.clone(), Arc::new(Mutex::new([0; ITEMS])));
    let taken = room_made.clone();
    let mut run = Run::spawn(
        || 0,
        move || {
            let put = pending.get();
            Box::new(move |_| match put {
                Ok(_) => judge_put(&trial, *taken.lock().unwrap_or_else(PoisonError::into_inner)),
                Err(error) => lost(&error),
            })
        },
    );
    run.then = Box::new(move || {
        let mut taken = room_made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(Some(item)) = make_room.queue.try_get() {
            taken[(item as usize).min(ITEMS - 1)] += 1;
        }
    });
    Ok(run)
}

/// Before anything, and after each of three changes. Every byte differs from state to state.
const STATES: [u64; 4] = [
    0x1111_1111_1111_1111,
    0x2222_2222_2222_2222,
    0x4444_4444_4444_4444,
    0x8888_8888_8888_8888,
];

fn overwrite(pool: &Arc<Pool>) -> swathe::Result<Run> {
    let task = |value: Value<u64>| {
        marker();
        value.store(STATES[1]);
        value.swap(STATES[2]);
        let seen = value.update(|seen| seen.wrapping_mul(2));
        marker();
        seen
    };
    let value = Value::new(STATES[0])?;
    let pending = pool.apply_async(task, (value.clone(),))?;
    let at_death = value.clone();
    let (note, noted) = std::sync::mpsc::channel();
    Ok(Run::spawn(
        move || {
            let _ = note.send(at_death.load());
            0
        },
        move || {
            let end = pending.get();
            Box::new(move |_| {
                let mut verdict = Verdict::default();
                if let Err(error) = end {
                    return lost(&error);
                }
                for at in noted.try_iter().filter(|at| !STATES.contains(at)) {
                    verdict.reject(format!("the dead left {at:#x}, which nobody stored"));
                }
                if value.load() != STATES[3] {
                    verdict.reject(format!("at the end it is {:#x}", value.load()));
                }
                verdict
            })
        },
    ))
}

fn add(pool: &Arc<Pool>) -> swathe::Result<Run> {
    let task = |value: Value<u64>| {
        marker();
        let before = value.fetch_add(1);
        marker();
        before
    };
    let value = Value::new(100)?;
    let pending = pool.apply_async(task, (value.clone(),))?;
    let at_death = value.clone();
    let (note, noted) = std::sync::mpsc::channel();
    Ok(Run::spawn(
        move || {
            let _ = note.send(at_death.load());
            0
        },
        move || {
            let end = pending.get();
            Box::new(move |death| {
                if let Err(error) = end {
                    return lost(&error);
                }
                let mut verdict = Verdict::default();
                let (left, end) = (noted.try_recv().unwrap_or(100), value.load());
                // The course ends before the task does: the task was run again, whole.
                match (left, end.checked_sub(left)) {
                    (100 | 101, Some(1)) => verdict.rerun += u64::from(death.deaths),
                    (101, Some(0)) if death.deaths == 0 => {}
                    (_, Some(0)) | (100, None) => {
                        verdict.lose(format!("{left} at the death, {end} at the end"));
                    }
                    _ => verdict.double(format!("{left} at the death, {end} at the end")),
                }
                verdict
            })
        },
    ))
}
