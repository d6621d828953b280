//! How long one call takes.

use std::{hint::black_box, thread, time::Duration, time::Instant};

use rayon::prelude::*;
use swathe::Array;

use crate::{
    Result, floors,
    harness::{Bound, Measured, Setup, US, digest, each},
    openmp, python,
};

/// `map` of 1000 elements, which is all latency.
pub(crate) fn small_map(setup: &Setup) -> Result<Measured> {
    const LEN: usize = 1000;
    let calls = setup.sized(20_000);
    let input = Array::from_fn(LEN, |i| (i % 4093) as f64 * 0.5)?;
    let (pool, threads) = (setup.pool()?, setup.threads()?);
    setup
        .bout(US, 15)
        .contender("swathe", || {
            let mut last = None;
            let seconds = each(calls, || {
                last = Some(pool.map(|x: f64| x * x, &input)?);
                Ok(())
            })?;
            Ok((seconds, last.as_deref().map_or(0.0, digest)))
        })
        .contender("rayon", || {
            let mut last = Vec::new();
            let seconds = each(calls, || {
                last = threads.install(|| input.par_iter().map(|x| x * x).collect());
                Ok(())
            })?;
            Ok((seconds, digest(&last)))
        })
        .contender("rayon_inside", || {
            // From a thread of the pool: what comes in from outside has to wake one first.
            let mut last = Vec::new();
            let seconds = threads.install(|| {
                each(calls, || {
                    last = input.par_iter().map(|x| x * x).collect();
                    Ok(())
                })
            })?;
            Ok((seconds, digest(&last)))
        })
        .contender_if("openmp", openmp::native(setup, "small_map", LEN, calls)?)
        .contender_if(
            "python_pool",
            python::pool(setup, "small_map", LEN, setup.sized(500))?,
        )
        .contender("serial", || {
            let mut last = Vec::new();
            let seconds = each(calls, || {
                last = black_box(&input).iter().map(|x| x * x).collect();
                Ok(())
            })?;
            Ok((seconds, digest(&last)))
        })
        .ratio("swathe", "openmp", Bound::AtMost(1.5))
        .ratio("swathe", "rayon", Bound::AtMost(0.15))
        .ratio("swathe", "rayon_inside", Bound::Shown)
        .run()
}

/// Calls in a row, so that the worker is still awake.
pub(crate) fn apply_hot(setup: &Setup) -> Result<Measured> {
    let calls = setup.sized(50_000);
    let (pool, threads) = (setup.pool()?, setup.threads()?);
    setup
        .bout(US, 15)
        .contender("swathe", || {
            let mut x = 0u64;
            let seconds = each(calls, || {
                x = pool.apply(|x: u64| x + 1, (x,))?;
                Ok(())
            })?;
            counted(x, calls)?;
            Ok(seconds)
        })
        .contender("cache_line", || Ok(floors::line_round_trip(calls as u32 * 4)))
        .contender("rayon", || {
            let mut x = 0u64;
            let seconds = each(calls, || {
                x = threads.install(|| black_box(x) + 1);
                Ok(())
            })?;
            counted(x, calls)?;
            Ok(seconds)
        })
        .contender_if(
            "python_pool",
            python::pool(setup, "apply_hot", 1, setup.sized(2000))?,
        )
        .ratio("swathe", "cache_line", Bound::AtMost(4.0))
        .ratio("swathe", "rayon", Bound::Shown)
        .run()
}

/// A counter that went through every call says whether one was left out.
fn counted(x: u64, calls: usize) -> Result<()> {
    let made = calls + calls / 10 + 1;
    if x == made as u64 {
        Ok(())
    } else {
        Err(format!("{made} calls counted to {x}").into())
    }
}

/// How long everybody sleeps before a call.
const PAUSE: Duration = Duration::from_millis(5);

/// Calls so far apart that everybody sleeps in between.
pub(crate) fn apply_parked(setup: &Setup) -> Result<Measured> {
    let calls = setup.sized(2_500).max(20) / 50 * 2 + 20;
    let (pool, threads) = (setup.pool()?, setup.threads()?);
    setup
        .bout(US, 15)
        .contender("swathe", || {
            apart(calls, |x| Ok(pool.apply(|x: u64| x + 1, (x,))?))
        })
        .contender("futex", || Ok(floors::futex_round_trip(calls as u32 * 20)))
        .contender("futex_anywhere", || {
            Ok(floors::futex_round_trip_anywhere(calls as u32 * 20))
        })
        .contender("futex_after_pause", || {
            Ok(floors::futex_round_trip_after(PAUSE, calls as u32))
        })
        .contender("rayon", || {
            apart(calls, |x| Ok(threads.install(|| black_box(x) + 1)))
        })
        .ratio("swathe", "futex", Bound::AtMost(1.3))
        .ratio("swathe", "futex_after_pause", Bound::Shown)
        .ratio("swathe", "rayon", Bound::Shown)
        .run()
}

/// The median seconds of calls that count, with a pause before each.
fn apart(calls: usize, mut call: impl FnMut(u64) -> Result<u64>) -> Result<f64> {
    let mut trips = Vec::with_capacity(calls);
    for x in 0..calls as u64 {
        thread::sleep(PAUSE);
        let begun = Instant::now();
        let next = call(x)?;
        trips.push(begun.elapsed().as_secs_f64());
        if next != x + 1 {
            return Err(format!("{x} + 1 was {next}").into());
        }
    }
    trips.sort_unstable_by(f64::total_cmp);
    Ok(trips[calls / 2])
}
