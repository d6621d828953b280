//! What takes too long, uses too much, or is no longer wanted is ended, and nothing else with it.

use std::{thread, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use swathe::{Array, Context, Error, Pool, Result, Status};
use swathe_tests::{pool, runs, until, watched};

const MS: Duration = Duration::from_millis(1);

/// Element 5 never ends, and the others are long enough to be strips of their own.
fn work_or_hang(x: u64) -> u64 {
    thread::sleep(MS / 5);
    hang_at_five(x)
}

/// Element 5 never ends.
fn hang_at_five(x: u64) -> u64 {
    if x == 5 {
        loop {
            std::hint::spin_loop();
        }
    }
    x * x
}

#[test]
fn a_hung_element_times_out_and_the_others_are_done() -> Result<()> {
    for processes in [1, 3] {
        for chunk in [1, 4, 20] {
            let pool = pool(processes);
            let batch = pool.batch().chunk_size(chunk).timeout(30 * MS).collect_errors();
            let partial = batch.map(hang_at_five, 0..20)?;
            assert_eq!(partial.status(5), Status::TimedOut);
            let others = (0..20).filter(|i| *i != 5);
            for i in others {
                assert_eq!(partial.value(i)?, Some((i * i) as u64), "position {i}");
            }
            let failures = partial.failures();
            assert_eq!((failures.len(), failures[0].attempts()), (1, 1));
            let text = failures[0].to_string();
            assert!(
                text.starts_with(
                    "position 5 timed out: it took longer than 30ms, and its worker was killed (worker "
                ),
                "{text}"
            );
            assert!(failures[0].peak_memory().is_some_and(|bytes| bytes > 1 << 16));
        }
    }
    Ok(())
}

#[test]
fn one_that_timed_out_can_be_tried_again() -> Result<()> {
    fn slow_at_first(context: &Context, x: u64) -> u64 {
        if x % 10 == 3 && context.attempt() == 1 {
            thread::sleep(Duration::from_secs(3600));
        }
        x + 1
    }
    let pool = pool(2);
    let batch = pool.batch().timeout(20 * MS).retries(1);
    assert!(batch.map(slow_at_first, 0..30)?.iter().copied().eq(1..31));
    Ok(())
}

#[test]
fn tasks_know_how_much_time_is_left() -> Result<()> {
    fn ask(context: &Context, _: u8) -> u64 {
        context.time_left().map_or(u64::MAX, |left| left.as_secs())
    }
    let pool = pool(1);
    let minute = Duration::from_secs(60);
    assert_eq!(pool.map(ask, [0])?[0], u64::MAX);
    assert!(pool.batch().timeout(minute).map(ask, [0])?[0] < 60);
    assert!(pool.batch().deadline(minute).map(ask, [0])?[0] < 60);
    assert!(pool.batch().timeout(60 * minute).map(ask, [0])?[0] > 60);
    let both = pool.batch().timeout(60 * minute).deadline(minute);
    assert!(both.map(ask, [0])?[0] < 60);
    Ok(())
}

#[test]
fn a_stopped_worker_is_killed_at_the_deadline_of_its_element() -> Result<()> {
    fn stop_at_three(context: &Context, x: u64) -> u64 {
        if x == 3 && context.attempt() == 1 {
            let _ = kill(Pid::this(), Signal::SIGSTOP);
        }
        x
    }
    let pool = pool(2);
    let batch = pool.batch().timeout(50 * MS).retries(1);
    assert!(batch.map(stop_at_three, 0..10)?.iter().copied().eq(0..10));
    Ok(())
}

#[test]
fn a_job_ends_at_its_deadline_with_what_it_has() -> Result<()> {
    let pool = pool(2);
    let batch = pool.batch().chunk_size(1).deadline(100 * MS);
    let Err(Error::Job(error)) = batch.map(work_or_hang, 0..20) else {
        panic!("it cannot end")
    };
    let text = error.to_string();
    assert!(text.starts_with("the job's deadline has passed: "), "{text}");
    let partial = error.into_partial::<Array<u64>>().expect("these are numbers");
    assert_eq!(
        (partial.status(5), partial.value(4)?),
        (Status::TimedOut, Some(16))
    );
    // The pool has a fresh worker.
    assert_eq!(pool.map(|x: i32| x + 1, [1, 2, 3])?, [2, 3, 4]);
    Ok(())
}

#[test]
fn cancelling_ends_what_is_running() -> Result<()> {
    let pool = pool(2);
    let pending = pool.batch().chunk_size(1).map_async(work_or_hang, 0..20)?;
    until("all others are done", || pending.progress().0 == 19);
    let busy: Vec<u32> = pool.workers().iter().map(|worker| worker.pid).collect();
    pending.cancel();
    let Err(Error::Job(error)) = pending.get() else {
        panic!("it cannot have succeeded")
    };
    let partial = error.into_partial::<Array<u64>>().expect("these are numbers");
    assert_eq!(
        (partial.status(5), partial.value(19)?),
        (Status::Cancelled, Some(361))
    );
    let gone = busy.iter().filter(|pid| !runs(**pid)).count();
    assert_eq!(gone, 1, "one worker hung, and only it is killed");
    assert_eq!(pool.map(|x: i32| x + 1, [1, 2, 3])?, [2, 3, 4]);
    Ok(())
}

#[test]
fn a_job_that_fails_fast_does_not_wait_for_the_slow() -> Result<()> {
    fn fail_or_hang(x: u64) -> Result<u64, String> {
        match x {
            0 => {
                thread::sleep(20 * MS);
                Err("at once".into())
            }
            _ => loop {
                thread::sleep(MS);
            },
        }
    }
    let pool = pool(2);
    let Err(Error::Job(error)) = pool.batch().chunk_size(1).fail_fast().try_map(fail_or_hang, 0..2) else {
        panic!("it cannot have succeeded")
    };
    assert_eq!(error.first().map(|failure| failure.message()), Some("at once"));
    Ok(())
}

#[test]
fn no_time_at_all_is_refused() {
    let pool = pool(1);
    let error = pool
        .batch()
        .timeout(Duration::ZERO)
        .map(|x: i32| x, [1])
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "an element cannot be done in no time: a timeout must be longer than 0"
    );
}

#[test]
fn an_initializer_that_hangs_breaks_the_pool() {
    fn hang() {
        loop {
            thread::sleep(MS);
        }
    }
    let pool = watched(
        Pool::builder()
            .processes(1)
            .initializer(hang, ())
            .initializer_timeout(30 * MS)
            .build(),
    );
    let text = pool.map(|x: i32| x, [1]).unwrap_err().to_string();
    assert!(
        text.starts_with("the initializer did not end within 30ms, 3 times in a row (last in pid "),
        "{text}"
    );
}

#[test]
fn an_exit_hook_that_hangs_is_ended() -> Result<()> {
    let pool = watched(
        Pool::builder()
            .processes(2)
            .state(|| (), ())
            .exit_hook(|_: &mut ()| {
                loop {
                    thread::sleep(MS);
                }
            })
            .max_tasks_per_child(3)
            .exit_timeout(30 * MS)
            .build(),
    );
    assert!(pool.map(|x: u32| x, 0..12)?.iter().copied().eq(0..12));
    pool.close();
    pool.join()
}

#[test]
fn memory_beyond_the_limit_is_not_given() -> Result<()> {
    fn hoard(x: u64) -> u64 {
        if x == 3 {
            std::hint::black_box(vec![1u8; 1 << 30]);
        }
        x
    }
    let pool = watched(
        Pool::builder()
            .processes(2)
            .max_memory_per_child(100 << 20)
            .build(),
    );
    let partial = pool.batch().max_deaths(2).collect_errors().map(hoard, 0..10)?;
    assert!((0..10).all(|i| (partial.status(i) == Status::Done) == (i != 3)));
    let failure = &partial.failures()[0];
    assert_eq!((failure.status(), failure.attempts()), (Status::Lost, 2));
    assert!(
        failure
            .message()
            .contains("it was allowed 100 MiB of private memory, and had "),
        "{}",
        failure.message()
    );
    Ok(())
}

#[test]
fn workers_that_grow_are_replaced() -> Result<()> {
    fn leak(_: &Context, x: u64) -> (u64, u32) {
        std::mem::forget(vec![1u8; 1 << 20]);
        thread::sleep(2 * MS);
        (x, std::process::id())
    }
    let pool = watched(
        Pool::builder()
            .processes(1)
            .max_growth_per_child(16 << 20)
            .build(),
    );
    let values = pool.batch().chunk_size(1).map(leak, 0..100)?;
    assert!(values.iter().map(|(x, _)| x).eq(0..100));
    let mut pids: Vec<u32> = values.iter().map(|(_, pid)| pid).collect();
    pids.dedup();
    assert!(
        (3..=7).contains(&pids.len()),
        "100 MiB leaked, 16 to a process: {pids:?}"
    );
    Ok(())
}

#[test]
fn a_storm_of_deaths_ends() {
    fn die(_: u64) -> u64 {
        std::process::exit(3)
    }
    let pool = watched(
        Pool::builder()
            .processes(2)
            .restart_budget(20, Duration::from_secs(60))
            .build(),
    );
    let Err(Error::Job(error)) = pool.map(die, 0..1000) else {
        panic!("nobody survives this")
    };
    let text = error.to_string();
    assert!(
        text.contains("21 workers died within 60s, and it may lose 20 in that time; the last, worker "),
        "{text}"
    );
    assert!(text.contains("exited with code 3"), "{text}");
    let later = pool.map(|x: i32| x, [1]).unwrap_err().to_string();
    assert!(
        later.starts_with("the pool is broken: 21 workers died"),
        "{later}"
    );
}
