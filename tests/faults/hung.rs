//! Something stands still, and nothing limits how long it may: the job waits, and can be ended.

use std::{thread, time::Duration};

use swathe::{
    Array, Error, Pending, Pool, Result, Status,
    chaos::{Chaos, Fault, Injection, Point},
};
use swathe_tests::{Process, Watched, runs, until, watched};

use crate::{
    cell::{LIMIT, zygote},
    shape::{POSITIONS, number},
};

/// Where worker 0 may stop and keep a job from its end: it holds chunks that nobody can take from it.
const HOLDING: [Point; 5] = [
    Point::Claimed,
    Point::Running,
    Point::Writing,
    Point::Written,
    Point::Published,
];

fn stopping_at(point: Point) -> Watched<Pool> {
    let injection = Injection {
        point,
        fault: Fault::Stop,
        worker: Some(0),
        incarnation: Some(1),
        nth: 1,
    };
    let builder = Pool::builder().processes(2).exit_timeout(LIMIT);
    watched(builder.chaos(Chaos::seeded(0).inject(injection)).build())
}

fn stopped(pool: &Pool) -> Option<u32> {
    let pids = pool.workers().into_iter().map(|worker| worker.pid);
    pids.filter_map(Process::read)
        .find(|worker| worker.state == 'T')
        .map(|worker| worker.pid)
}

/// Jobs until worker 0 is stopped, which may come too late for the first ones. Gives the last of them.
fn job_of_the_stopped(pool: &Pool) -> Result<Pending<Array<u64>>> {
    loop {
        let pending = pool.map_async(number, 0..POSITIONS)?;
        until("a worker is stopped", || {
            pending.ready() || stopped(pool).is_some()
        });
        if stopped(pool).is_some() {
            return Ok(pending);
        }
    }
}

/// A job that waits for a stopped worker, when the other one has done the rest.
fn job_that_waits(pool: &Pool) -> Result<Pending<Array<u64>>> {
    let pending = job_of_the_stopped(pool)?;
    let over = pending.wait(Duration::from_millis(30));
    assert!(!over, "the worker stopped, and held nothing");
    Ok(pending)
}

/// What is done is right, and what is not has this status.
fn assert_partial(pending: &Pending<Array<u64>>, missing: Status) -> Result<()> {
    let Err(Error::Job(error)) = pending.get() else {
        panic!("it cannot have succeeded")
    };
    assert!(error.is_stopped(), "{error}");
    assert!(
        error.failures().iter().all(|none| none.status() == missing),
        "{error}"
    );
    let partial = error.into_partial::<Array<u64>>().expect("these are numbers");
    for i in 0..partial.len() {
        match partial.value(i)? {
            Some(value) => assert_eq!(value, 3 * i as u64 + 1, "position {i}"),
            None => assert_eq!(partial.status(i), missing),
        }
    }
    Ok(())
}

fn assert_gone(pool: &Pool, also: u32) -> impl Fn() + use<> {
    let pids: Vec<u32> = pool
        .workers()
        .iter()
        .map(|worker| worker.pid)
        .chain([also])
        .collect();
    move || assert!(pids.iter().all(|pid| !runs(*pid)), "a process is left")
}

/// Tests all these points at the same time: there is much waiting.
fn at_each(points: &[Point], test: fn(Point) -> Result<()>) -> Result<()> {
    thread::scope(|scope| {
        let tests: Vec<_> = points.iter().map(|point| scope.spawn(|| test(*point))).collect();
        let mut ends = tests.into_iter().zip(points);
        ends.try_for_each(|(test, point)| test.join().unwrap_or_else(|_| panic!("{point:?} went wrong")))
    })
}

#[test]
fn a_job_without_limits_waits_until_it_is_cancelled() -> Result<()> {
    at_each(&HOLDING, |point| {
        let pool = stopping_at(point);
        let zygote = zygote(&pool);
        let pending = job_that_waits(&pool)?;
        pending.cancel();
        assert_partial(&pending, Status::Cancelled)?;
        let values = pool.map(number, 0..POSITIONS)?;
        assert!(values.iter().copied().eq((0..POSITIONS).map(|i| 3 * i + 1)));
        let assert_gone = assert_gone(&pool, zygote);
        pool.close();
        pool.join()?;
        assert_gone();
        Ok(())
    })
}

#[test]
fn or_until_its_deadline() -> Result<()> {
    at_each(&[Point::Claimed, Point::Running], |point| {
        let pool = stopping_at(point);
        let pending = loop {
            let pending = pool.batch().deadline(LIMIT).map_async(number, 0..POSITIONS)?;
            until("it is over", || pending.ready());
            if !pending.successful()? {
                break pending;
            }
        };
        assert_partial(&pending, Status::TimedOut)?;
        assert_eq!(pool.map(number, 0..3)?, [1, 4, 7]);
        Ok(())
    })
}

#[test]
fn or_until_its_pool_is_dropped() -> Result<()> {
    at_each(&HOLDING, |point| {
        let pool = stopping_at(point);
        let zygote = zygote(&pool);
        let pending = job_that_waits(&pool)?;
        let assert_gone = assert_gone(&pool, zygote);
        drop(pool);
        assert_gone();
        assert_partial(&pending, Status::Cancelled)
    })
}

/// What it has not begun is taken from it: it stops with a full lane, and the job ends without it.
#[test]
fn a_worker_that_has_begun_nothing_holds_nothing() -> Result<()> {
    let pool = stopping_at(Point::Reading);
    let zygote = zygote(&pool);
    let right = |values: Array<u64>| values.iter().copied().eq((0..POSITIONS).map(|i| 3 * i + 1));
    assert!(right(job_of_the_stopped(&pool)?.get()?));
    assert!(right(pool.map(number, 0..POSITIONS)?), "a job without it");
    let assert_gone = assert_gone(&pool, zygote);
    drop(pool);
    assert_gone();
    Ok(())
}

/// A stopped worker that is let go on goes on, and nothing was lost.
#[test]
fn or_until_the_worker_goes_on() -> Result<()> {
    use nix::{
        sys::signal::{Signal, kill},
        unistd::Pid,
    };
    at_each(&HOLDING, |point| {
        let pool = stopping_at(point);
        let pending = job_that_waits(&pool)?;
        let pid = stopped(&pool).expect("it holds the job");
        kill(Pid::from_raw(pid as i32), Signal::SIGCONT).expect("it is there");
        assert!(
            pending
                .get()?
                .iter()
                .copied()
                .eq((0..POSITIONS).map(|i| 3 * i + 1))
        );
        assert!(pool.workers().iter().any(|worker| worker.pid == pid));
        Ok(())
    })
}

/// A pool can be closed while an initializer does not end.
#[test]
fn a_closed_pool_does_not_wait_for_an_initializer() -> Result<()> {
    let pool = stopping_at(Point::Initializer);
    let zygote = zygote(&pool);
    until("a worker is stopped", || stopped(&pool).is_some());
    assert_eq!(pool.map(number, 0..3)?, [1, 4, 7]);
    let assert_gone = assert_gone(&pool, zygote);
    pool.close();
    pool.join()?;
    assert_gone();
    Ok(())
}
