//! The worker at its work: woken, claim, run, publish, count, complete, leave, asleep again.

use std::{
    fmt::Display,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use swathe::{
    Array, ArrayMut, Builder, Collection, Context, Error, Partial, Pending, Pool, Records, SharedArray,
    Status,
};

use super::{
    course::End,
    trial::{Case, Company, Death, Run},
};
use crate::{tracee::marker, verdict::Verdict};

/// Elements of most jobs.
const LEN: usize = 7;
/// The element that fails, where one does.
const CULPRIT: u64 = 3;

/// A pause as long as a strip should be: so each element is a strip of its own, whether its worker is stepped or not,
/// and each published by itself.
fn pause() {
    thread::sleep(Duration::from_micros(20));
}

/// A pool that may lose as many workers as it takes.
fn pool(processes: usize) -> Builder {
    let budget = (u32::MAX, Duration::from_secs(1));
    Pool::builder()
        .processes(processes)
        .restart_budget(budget.0, budget.1)
}

pub(super) fn one() -> swathe::Result<Pool> {
    pool(1).build()
}

fn two() -> swathe::Result<Pool> {
    pool(2).build()
}

fn recycling() -> swathe::Result<Pool> {
    pool(1).max_tasks_per_child(3).build()
}

const PLAIN: Case = Case {
    name: "job/map",
    pool: one,
    company: Company::Alone,
    from_marker: false,
    end: End::Sleep,
    start: plain,
};

/// All cases of this kind.
pub(super) const CASES: &[Case] = &[
    PLAIN,
    Case {
        name: "job/counted",
        start: counted,
        ..PLAIN
    },
    Case {
        name: "job/many-chunks-in-hand",
        from_marker: true,
        start: many,
        ..PLAIN
    },
    Case {
        name: "job/strings",
        start: strings,
        ..PLAIN
    },
    Case {
        name: "job/error",
        start: error,
        ..PLAIN
    },
    Case {
        name: "job/panic",
        start: panic,
        ..PLAIN
    },
    Case {
        name: "job/chunks",
        start: chunks,
        ..PLAIN
    },
    Case {
        name: "job/in-place",
        start: in_place,
        ..PLAIN
    },
    Case {
        name: "job/in-place-strip",
        from_marker: true,
        start: in_place_strip,
        ..PLAIN
    },
    Case {
        name: "job/in-place-error",
        start: in_place_error,
        ..PLAIN
    },
    Case {
        name: "job/in-place-panic",
        start: in_place_panic,
        ..PLAIN
    },
    Case {
        name: "job/each-worker",
        start: each_worker,
        ..PLAIN
    },
    Case {
        name: "job/recycled",
        pool: recycling,
        ..PLAIN
    },
    Case {
        name: "job/thief",
        pool: two,
        company: Company::Held,
        start: shared_out,
        ..PLAIN
    },
    Case {
        name: "job/thief-and-victim",
        pool: two,
        company: Company::KilledToo,
        start: shared_out,
        ..PLAIN
    },
];

/// What becomes of a position.
enum Expected<T> {
    Value(T),
    Status(Status),
}

/// Judges values and statuses by position.
fn judge<O: Collection>(
    partial: &Partial<O>,
    len: usize,
    expected: impl Fn(usize) -> Expected<O::Item>,
) -> Verdict
where
    O::Item: PartialEq + Display,
{
    let mut verdict = Verdict::default();
    if partial.len() != len {
        verdict.reject(format!("there are {} positions, not {len}", partial.len()));
    }
    for i in 0..len {
        let status = partial.status(i);
        match (expected(i), partial.value(i)) {
            (Expected::Status(wanted), Ok(None)) if status == wanted => {}
            (Expected::Status(wanted), _) => {
                verdict.reject(format!("element {i} is {status:?}, not {wanted:?}"));
            }
            (Expected::Value(wanted), Ok(Some(value))) if value == wanted => {}
            (Expected::Value(wanted), Ok(Some(value))) => {
                verdict.reject(format!("element {i} is {value}, not {wanted}"));
            }
            (Expected::Value(_), Ok(None)) => {
                let why = partial
                    .failures()
                    .first()
                    .map_or(String::new(), ToString::to_string);
                verdict.lose(format!("element {i} is {status:?}; {why}"));
            }
            (Expected::Value(_), Err(error)) => {
                verdict.reject(format!("element {i} cannot be read: {error}"));
            }
        }
    }
    verdict
}

/// Judges how often each element was started: those settled before the death once, the others at most once more for
/// each death.
fn judge_starts(verdict: &mut Verdict, starts: &[u32], before: Option<&[u32]>, death: Death) {
    for (i, &count) in starts.iter().enumerate() {
        verdict.rerun += u64::from(count.saturating_sub(1));
        let settled = death.settled.is_some_and(|settled| (i as u64) < settled);
        if count == 0 {
            verdict.lose(format!("element {i} was never started"));
        } else if settled && before.is_some_and(|before| before[i] != count) {
            verdict.double(format!("element {i} was settled, and was started again"));
        } else if count > 1 + death.deaths {
            verdict.double(format!(
                "element {i} was started {count} times after {} deaths",
                death.deaths
            ));
        }
    }
}

/// A job that runs by itself.
fn asynchronous<O: Collection + Send + Sync + 'static>(
    pending: Pending<Partial<O>>,
    judge: impl FnOnce(&Partial<O>, Death) -> Verdict + Send + 'static,
) -> Run {
    let pending = Arc::new(pending);
    let progress = pending.clone();
    Run::spawn(
        move || progress.progress().0,
        move || {
            let partial = pending.get();
            Box::new(move |death| match partial {
                Ok(partial) => judge(&partial, death),
                Err(error) => gone(&error),
            })
        },
    )
}

fn gone(error: &impl Display) -> Verdict {
    let mut verdict = Verdict::default();
    verdict.lose(error.to_string());
    verdict
}

fn f(x: u64) -> u64 {
    3 * x + 1
}

/// How far the inputs of two trials lie apart. Memory is used again: a result that was never written must not look right
/// because the last trial left it there.
const APART: u64 = 1000;

/// The first element of a trial; that of the next is [`APART`] from it.
fn base() -> u64 {
    static TRIAL: AtomicU64 = AtomicU64::new(1);
    TRIAL.fetch_add(1, Ordering::Relaxed) * APART
}

/// The position of an element.
fn place(x: u64) -> u64 {
    x % APART
}

/// What position `i` must come to.
fn value(base: u64) -> impl Fn(usize) -> Expected<u64> {
    move |i| Expected::Value(f(base + i as u64))
}

fn input(base: u64) -> Range<u64> {
    base..base + LEN as u64
}

fn plain(pool: &Arc<Pool>) -> swathe::Result<Run> {
    let base = base();
    let task = |x: u64| {
        pause();
        f(x)
    };
    let pending = pool
        .batch()
        .chunk_size(2)
        .collect_errors()
        .map_async(task, input(base))?;
    Ok(asynchronous::<Array<u64>>(pending, move |partial, _| {
        judge(partial, LEN, value(base))
    }))
}

fn counted(pool: &Arc<Pool>) -> swathe::Result<Run> {
    let base = base();
    let task = |starts: &SharedArray<u32>, x: u64| {
        starts.fetch_add(place(x) as usize, 1);
        pause();
        f(x)
    };
    let starts = SharedArray::zeros(LEN)?;
    let batch = pool.batch().with(&starts)?.chunk_size(2).collect_errors();
    let pending = Arc::new(batch.map_async(task, input(base))?);
    let (progress, seen) = (pending.clone(), starts.clone());
    let (note, before) = std::sync::mpsc::channel();
    Ok(Run::spawn(
        move || {
            let _ = note.send(seen.to_vec());
            progress.progress().0
        },
        move || {
            let partial = pending.get();
            Box::new(move |death| match partial {
                Ok(partial) => {
                    let mut verdict = judge(&partial, LEN, value(base));
                    let before = before.try_recv().ok();
                    judge_starts(&mut verdict, &starts.to_vec(), before.as_deref(), death);
                    verdict
                }
                Err(error) => gone(&error),
            })
        },
    ))
}

/// Short elements, and many chunks: after the first they are taken several at a time, and published together.
fn many(pool: &Arc<Pool>) -> swathe::Result<Run> {
    let base = base();
    let task = |x: u64| {
        match place(x) {
            0..4 => {}
            4 => marker(),
            5.. => pause(),
        }
        f(x)
    };
    let pending = pool
        .batch()
        .chunk_size(1)
        .collect_errors()
        .map_async(task, base..base + 12)?;
    Ok(asynchronous::<Array<u64>>(pending, move |partial, _| {
        judge(partial, 12, value(base))
    }))
}

fn strings(pool: &Arc<Pool>) -> swathe::Result<Run> {
    let base = base();
    let task = |x: u64| {
        pause();
        format!("swathe {x}")
    };
    let expected = move |i: usize| Expected::Value(format!("swathe {}", base + i as u64));
    let pending = pool
        .batch()
        .chunk_size(2)
        .collect_errors()
        .map_async(task, input(base))?;
    Ok(asynchronous::<Records<String>>(pending, move |partial, _| {
        judge(partial, LEN, expected)
    }))
}

fn but_the_culprit(base: u64, status: Status) -> impl Fn(usize) -> Expected<u64> {
    move |i| match i as u64 {
        CULPRIT => Expected::Status(status),
        _ => Expected::Value(f(base + i as u64)),
    }
}

fn error(pool: &Arc<Pool>) -> swathe::Result<Run> {
    let base = base();
    let task = |x: u64| {
        pause();
        if place(x) == CULPRIT {
            Err("an error")
        } else {
            Ok(f(x))
        }
    };
    let pending = pool
        .batch()
        .chunk_size(2)
        .collect_errors()
        .try_map_async(task, input(base))?;
    Ok(asynchronous::<Array<u64>>(pending, move |partial, _| {
        judge(partial, LEN, but_the_culprit(base, Status::Failed))
    }))
}

fn panic(pool: &Arc<Pool>) -> swathe::Result<Run> {
    let base = base();
    let task = |x: u64| {
        pause();
        assert_ne!(place(x), CULPRIT, "a panic");
        f(x)
    };
    let pending = pool
        .batch()
        .chunk_size(2)
        .collect_errors()
        .map_async(task, input(base))?;
    Ok(asynchronous::<Array<u64>>(pending, move |partial, _| {
        judge(partial, LEN, but_the_culprit(base, Status::Panicked))
    }))
}

fn chunks(pool: &Arc<Pool>) -> swathe::Result<Run> {
    let base = base();
    let task = |xs: &[u64], ys: &mut [u64]| {
        pause();
        xs.iter().zip(ys).for_each(|(&x, y)| *y = f(x));
    };
    let pool = pool.clone();
    Ok(Run::spawn(
        || 0,
        move || {
            let input: Vec<u64> = input(base).collect();
            let partial = pool
                .batch()
                .chunk_size(3)
                .collect_errors()
                .map_chunks(task, input);
            drop(pool);
            Box::new(move |_| match partial {
                Ok(partial) => judge::<Array<u64>>(&partial, LEN, value(base)),
                Err(error) => gone(&error),
            })
        },
    ))
}

fn in_place(pool: &Arc<Pool>) -> swathe::Result<Run> {
    let task = |x: u64| {
        pause();
        f(x)
    };
    over_inputs(pool, LEN, None, move |pool, array| {
        pool.batch().chunk_size(2).map_in_place(task, array)
    })
}

/// Short elements: after the first, all others are one strip, whose results are copied together.
fn in_place_strip(pool: &Arc<Pool>) -> swathe::Result<Run> {
    let task = |x: u64| {
        if place(x) == 4 {
            marker();
        }
        f(x)
    };
    over_inputs(pool, 12, None, move |pool, array| {
        pool.batch().chunk_size(12).map_in_place(task, array)
    })
}

fn in_place_error(pool: &Arc<Pool>) -> swathe::Result<Run> {
    let task = |x: u64| {
        pause();
        if place(x) == CULPRIT {
            Err("an error")
        } else {
            Ok(f(x))
        }
    };
    over_inputs(pool, LEN, Some(Status::Failed), move |pool, array| {
        pool.batch().chunk_size(2).try_map_in_place(task, array)
    })
}

fn in_place_panic(pool: &Arc<Pool>) -> swathe::Result<Run> {
    let task = |x: u64| {
        pause();
        assert_ne!(place(x), CULPRIT, "a panic");
        f(x)
    };
    over_inputs(pool, LEN, Some(Status::Panicked), move |pool, array| {
        pool.batch().chunk_size(2).map_in_place(task, array)
    })
}

/// Maps consecutive numbers in place, where the culprit may fail.
fn over_inputs(
    pool: &Arc<Pool>,
    len: usize,
    failure: Option<Status>,
    map: impl FnOnce(&Pool, ArrayMut<u64>) -> swathe::Result<ArrayMut<u64>> + Send + 'static,
) -> swathe::Result<Run> {
    let base = base();
    let array = ArrayMut::from_fn(len, |i| base + i as u64)?;
    let pool = pool.clone();
    Ok(Run::spawn(
        || 0,
        move || {
            let mapped = map(&pool, array);
            drop(pool);
            Box::new(move |_| judge_in_place(mapped, base, failure))
        },
    ))
}

fn judge_in_place(mapped: swathe::Result<ArrayMut<u64>>, base: u64, failure: Option<Status>) -> Verdict {
    let mut verdict = Verdict::default();
    let (found, failures) = match mapped {
        Ok(array) => (array, Vec::new()),
        Err(Error::Job(error)) => {
            let failures: Vec<_> = error
                .failures()
                .iter()
                .map(|e| (e.position(), e.status()))
                .collect();
            let text = error.to_string();
            match error.into_partial::<ArrayMut<u64>>() {
                Ok(partial) => (partial.into_values(), failures),
                Err(_) => return gone(&text),
            }
        }
        Err(error) => return gone(&error),
    };
    let wanted: Vec<_> = failure.into_iter().map(|status| (CULPRIT, status)).collect();
    if failures != wanted {
        verdict.lose(format!("failures are {failures:?}, not {wanted:?}"));
    }
    for (i, &value) in found.iter().enumerate() {
        let x = base + i as u64;
        let wanted = if failure.is_some() && i as u64 == CULPRIT {
            x
        } else {
            f(x)
        };
        if value == wanted {
            continue;
        } else if value == f(wanted) || value == f(f(x)) {
            verdict.double(format!(
                "the task was applied once too often to element {i}: {value}"
            ));
        } else if value == x {
            verdict.lose(format!("the task was not applied to element {i}"));
        } else {
            verdict.reject(format!("element {i} is {value}, not {wanted}"));
        }
    }
    verdict
}

fn each_worker(pool: &Arc<Pool>) -> swathe::Result<Run> {
    let task = |base: &u64, context: &Context| f(*base + context.worker() as u64);
    let base = base();
    let pool = pool.clone();
    Ok(Run::spawn(
        || 0,
        move || {
            let batch = pool.batch().collect_errors().with(&base);
            let partial = batch.and_then(|batch| batch.run_per_worker(task));
            drop(pool);
            Box::new(move |_| match partial {
                Ok(partial) => judge::<Array<u64>>(&partial, 1, value(base)),
                Err(error) => gone(&error),
            })
        },
    ))
}

/// Each of two workers gets four chunks; worker 1 marks its first, with the others still in its lane to be stolen.
fn shared_out(pool: &Arc<Pool>) -> swathe::Result<Run> {
    let base = base();
    let task = |starts: &SharedArray<u32>, context: &Context, x: u64| {
        starts.fetch_add(place(x) as usize, 1);
        pause();
        if context.worker() == 1 {
            marker();
        }
        f(x)
    };
    let starts = SharedArray::zeros(8)?;
    let batch = pool.batch().with(&starts)?.chunk_size(1).collect_errors();
    let pending = batch.map_async(task, base..base + 8)?;
    Ok(asynchronous::<Array<u64>>(pending, move |partial, death| {
        let mut verdict = judge(partial, 8, value(base));
        judge_starts(&mut verdict, &starts.to_vec(), None, death);
        verdict
    }))
}
