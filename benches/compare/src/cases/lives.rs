//! Processes that start, end and die.

use std::{hint::spin_loop, thread, time::Duration, time::Instant};

use rustix::{
    process::{Pid, Signal, kill_process},
    time::{ClockId, clock_gettime},
};
use swathe::{Context, Pool, SharedArray};

use crate::{
    Result, floors,
    harness::{Bound, MS, Measured, Setup, Side, US, timed},
    python,
};

/// A pool that is used once.
pub(crate) fn pool_start(setup: &Setup) -> Result<Measured> {
    setup
        .bout(MS, 25)
        .contender("swathe", || {
            let (seconds, result) = timed(|| -> Result<u64> {
                let pool = setup.pool()?;
                Ok(pool.apply(|x: u64| x + 1, (41u64,))?)
            });
            if result? == 42 {
                Ok(seconds)
            } else {
                Err("41 + 1 is something else".into())
            }
        })
        .contender("spawn_and_exit", floors::spawn_and_exit)
        .contender("rayon", || {
            let (seconds, result) = timed(|| -> Result<u64> { Ok(setup.threads()?.install(|| 42)) });
            result.map(|_| seconds)
        })
        .contender_if("python_pool", python::pool(setup, "pool_start", 1, 1)?)
        .ratio("swathe", "spawn_and_exit", Bound::AtMost(4.0))
        .run()
}

/// A pool whose workers live for one element.
pub(crate) fn recycle(setup: &Setup) -> Result<Measured> {
    let tasks = setup.sized(2000);
    let pool = Pool::builder()
        .processes(setup.workers)
        .max_tasks_per_child(1)
        .build()?;
    setup
        .bout(US, 7)
        .contender("swathe", || {
            let (seconds, pids) = timed(|| pool.map(|_: usize| std::process::id(), 0..tasks));
            let mut pids = pids?.to_vec();
            pids.sort_unstable();
            pids.dedup();
            if pids.len() == tasks {
                Ok(seconds / tasks as f64)
            } else {
                Err(format!("{} processes for {tasks} tasks", pids.len()).into())
            }
        })
        .contender("fork_and_exit", || floors::fork_and_exit(tasks))
        .ratio("swathe", "fork_and_exit", Bound::AtMost(3.0))
        .run()
}

/// Nanoseconds of the clock that all processes share.
fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// The first time, says who it is and computes until it is killed; the second time, says when it began.
fn linger(context: &Context, facts: SharedArray<u64>, _: u64) -> u64 {
    if context.attempt() > 1 {
        facts.store(0, now());
        return 1;
    }
    facts.store(1, u64::from(std::process::id()));
    let begun = Instant::now();
    // An end, in case the one who should kill it has failed.
    while begun.elapsed() < Duration::from_secs(60) {
        spin_loop();
    }
    0
}

/// The death of a busy worker.
pub(crate) fn recover(setup: &Setup) -> Result<Measured> {
    let pool = Pool::builder()
        .processes(setup.workers.max(2))
        // Each turn kills a worker: no budget of restarts shall be in the way.
        .restart_budget(1_000_000, Duration::from_secs(1))
        .build()?;
    setup
        .bout(US, 51)
        .contender("swathe", || {
            let facts = SharedArray::from_slice(&[0u64, 0])?;
            let pending = pool.starmap_async(linger, [(facts.clone(), 0u64)])?;
            let begun = Instant::now();
            while facts.load(1) == 0 {
                if begun.elapsed() > Duration::from_secs(30) {
                    return Err("no worker has begun after 30 s".into());
                }
                thread::sleep(Duration::from_micros(200));
            }
            thread::sleep(Duration::from_millis(2)); // the others are idle by now
            let busy = Pid::from_raw(facts.load(1) as i32).ok_or("a worker has no pid")?;
            let killed = now();
            kill_process(busy, Signal::KILL)?;
            match pending.get()?[0] {
                1 => Ok(facts.load(0).saturating_sub(killed) as f64 * 1e-9),
                _ => Err("a killed worker has finished".into()),
            }
        })
        .ratio("swathe", Side::Fixed(1000.0), Bound::AtMost(1.0))
        .run()
}
