//! Failed elements are tried again, and only they.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};
use swathe::{ArrayMut, Context, Error, Pool, Result, Status, Value};
use swathe_tests::{pool, watched};

/// Fails until its `x % 4 + 1`-th try.
fn stubborn(context: &Context, x: u64) -> Result<u64, String> {
    match context.attempt() {
        n if u64::from(n) > x % 4 => Ok(10 * x + u64::from(n)),
        n => Err(format!("try {n} of {x}")),
    }
}

#[test]
fn errors_are_tried_again_until_they_succeed() -> Result<()> {
    for processes in [1, 3] {
        for chunk in [1, 7, 100] {
            let pool = pool(processes);
            let batch = pool.batch().chunk_size(chunk).retries(3);
            let values = batch.try_map(stubborn, 0..100)?;
            assert!(values.iter().zip(0..).all(|(v, x)| *v == 10 * x + x % 4 + 1));
        }
    }
    Ok(())
}

#[test]
fn what_fails_for_good_says_how_often_it_was_tried() -> Result<()> {
    let pool = pool(2);
    let partial = pool.batch().retries(1).collect_errors().try_map(stubborn, 0..8)?;
    let statuses: Vec<Status> = (0..8).map(|i| partial.status(i)).collect();
    let (done, failed) = (Status::Done, Status::Failed);
    assert_eq!(statuses, [done, done, failed, failed, done, done, failed, failed]);
    let failures = partial.failures();
    assert!(failures.iter().all(|failure| failure.attempts() == 2));
    assert_eq!(failures[0].message(), "try 2 of 2");
    Ok(())
}

#[test]
fn panics_and_whole_chunks_are_tried_again_too() -> Result<()> {
    fn shy(context: &Context, x: i32) -> i32 {
        assert!(context.attempt() > 1 || x != 5, "not at once");
        -x
    }
    fn shy_chunk(context: &Context, from: &[i32], to: &mut [i32]) {
        assert!(context.attempt() > 1 || from[0] != 4, "not at once");
        to.iter_mut().zip(from).for_each(|(y, x)| *y = -x);
    }
    let pool = pool(2);
    assert!(
        pool.batch()
            .retries(1)
            .map(shy, 0..10)?
            .iter()
            .copied()
            .eq((0..10).map(|x| -x))
    );
    let batch = pool.batch().retries(1).chunk_size(4);
    let chunks = batch.map_chunks(shy_chunk, (0..10).collect::<Vec<i32>>())?;
    assert!(chunks.iter().copied().eq((0..10).map(|x| -x)));
    Ok(())
}

/// Each value is what one successful run made of the first input, however often others failed.
#[test]
fn in_place_elements_are_tried_again_from_their_old_values() -> Result<()> {
    fn grow(context: &Context, x: u64) -> Result<u64, String> {
        match x % 3 {
            0 if context.attempt() < 3 => Err("later".into()),
            1 if context.attempt() < 2 => panic!("later"),
            _ => Ok(x + 1000),
        }
    }
    let pool = pool(2);
    for chunk in [1, 5, 64] {
        let array = ArrayMut::from_range(0..64)?;
        let grown = pool
            .batch()
            .chunk_size(chunk)
            .retries(2)
            .try_map_in_place(grow, array)?;
        assert!(grown.iter().copied().eq(1000..1064), "{grown:?}");
    }
    Ok(())
}

#[test]
fn the_backoff_is_waited_for_once_for_all() -> Result<()> {
    let pool = pool(2);
    let start = std::time::Instant::now();
    let wait = Duration::from_millis(40);
    let batch = pool.batch().retries(3).backoff(wait, wait);
    batch.try_map(stubborn, 0..400)?;
    // Three retries; were the elements to wait one after the other, it would be 300 times as long.
    assert!(start.elapsed() >= 3 * wait);
    Ok(())
}

#[test]
fn a_job_that_rests_can_be_cancelled_and_keeps_what_it_has() -> Result<()> {
    let pool = pool(2);
    let hour = Duration::from_secs(3600);
    let pending = pool
        .batch()
        .retries(1)
        .backoff(hour, hour)
        .try_map_async(stubborn, 0..8)?;
    swathe_tests::until("the first round is over", || pending.progress() == (8, 6));
    assert!(!pending.wait(Duration::from_millis(20)));
    pending.cancel();
    let Err(Error::Job(error)) = pending.get() else {
        panic!("it was cancelled")
    };
    assert!(error.is_stopped());
    let partial = error
        .into_partial::<swathe::Array<u64>>()
        .expect("these are numbers");
    assert_eq!((partial.status(4), partial.value(4)?), (Status::Done, Some(41)));
    assert_eq!(partial.status(5), Status::Failed);
    Ok(())
}

#[test]
fn fail_fast_waits_for_the_last_try() -> Result<()> {
    let pool = pool(2);
    let values = pool.batch().retries(3).fail_fast().try_map(stubborn, 0..20)?;
    assert_eq!(values[3], 34);
    let Err(Error::Job(error)) = pool.batch().retries(2).fail_fast().try_map(stubborn, 0..20) else {
        panic!("every fourth needs four tries")
    };
    // Those whose turn did not come have failed as they had before.
    let tries: Vec<u32> = error
        .failures()
        .iter()
        .map(|failure| failure.attempts())
        .collect();
    assert!(
        tries.contains(&3) && tries.iter().all(|n| (2..=3).contains(n)),
        "{tries:?}"
    );
    Ok(())
}

/// A death is counted for the element, and the retry after the deaths goes on counting.
#[test]
fn deaths_are_tries() -> Result<()> {
    fn deadly(context: &Context, x: u64) -> u64 {
        if x == 6 && context.attempt() < 3 {
            std::process::abort();
        }
        100 * x + u64::from(context.attempt())
    }
    let pool = pool(2);
    let values = pool.batch().chunk_size(1).map(deadly, 0..10)?;
    assert_eq!(values[6], 603);
    assert_eq!(values[5], 501);
    Ok(())
}

#[test]
fn streams_and_calls_are_tried_again() -> Result<()> {
    let pool = pool(2);
    let stream = pool.batch().retries(3).try_imap(stubborn, 0..50u64);
    let values: Vec<u64> = stream.collect::<Result<_, _>>()?;
    assert!(values.iter().zip(0..).all(|(v, x)| *v == 10 * x + x % 4 + 1));
    let tries = Value::new(0u32)?;
    fn third(tries: Value<u32>) -> Result<u32, String> {
        match tries.update(|n| n + 1) {
            2 => Ok(7),
            n => Err(format!("{n}")),
        }
    }
    assert_eq!(pool.batch().retries(5).try_apply(third, tries.clone())?, 7);
    Ok(())
}

/// The callback is called once, after the last round.
#[test]
fn callbacks_see_the_end_of_the_last_round() -> Result<()> {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let pool = watched(Pool::builder().processes(2).build());
    let pending = pool
        .batch()
        .retries(3)
        .on_success(|values: &[u64]| {
            assert_eq!(values[3], 34);
            CALLS.fetch_add(1, Ordering::SeqCst);
        })
        .try_map_async(stubborn, 0..20)?;
    pool.close();
    pool.join()?;
    assert_eq!((CALLS.load(Ordering::SeqCst), pending.get()?.len()), (1, 20));
    Ok(())
}

/// All on one core: whoever hears that a round is over takes it from the worker that said so, which then has its order of
/// that round still to clear, and the order of the next one is there already.
#[test]
fn a_worker_that_comes_back_late_keeps_its_order_of_the_next_round() -> Result<()> {
    fn at_the_second_try(context: &Context) -> usize {
        assert!(context.attempt() > 1, "not at once");
        context.worker()
    }
    let me = Pid::from_raw(0);
    let all = sched_getaffinity(me).expect("there are cores");
    let first = (0..CpuSet::count()).find(|cpu| all.is_set(*cpu).unwrap_or(false));
    let mut one = CpuSet::new();
    one.set(first.expect("one at least")).expect("it is a core");
    sched_setaffinity(me, &one).expect("a thread may take less");
    let pool = pool(2);
    let batch = || pool.batch().retries(1).backoff(Duration::ZERO, Duration::ZERO);
    for _ in 0..1000 {
        assert_eq!(batch().run_per_worker(at_the_second_try)?, [0, 1]);
    }
    Ok(())
}

/// Reading many failures takes a while, and no lock is held: what stops the job meanwhile leaves no round behind that nobody
/// ends.
#[test]
fn a_job_that_is_stopped_while_its_failures_are_read_ends() -> Result<()> {
    const LEN: u64 = 4000;
    let pool = pool(2);
    let always = |x: u64| Err::<u64, String>(format!("{x} has failed"));
    let rounds = |round: u64| -> Result<()> {
        let batch = pool.batch().retries(2).collect_errors();
        let pending = batch.try_map_async(always, 0..LEN)?;
        std::thread::scope(|scope| {
            // Who waits for ever reads it; who may not, has it read.
            let waiter = scope.spawn(|| match round % 2 {
                0 => pending.get(),
                _ => pending.get_timeout(Duration::from_secs(60)),
            });
            while pending.progress().0 < LEN {
                std::hint::spin_loop();
            }
            std::thread::sleep(Duration::from_micros(round * 41 % 3000));
            pending.cancel();
            let partial = waiter.join().expect("it ends")?;
            assert_eq!(partial.failures().len(), LEN as usize);
            Ok(())
        })
    };
    (0..100).try_for_each(rounds)
}
