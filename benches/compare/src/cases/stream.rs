//! Memory speed.

use std::cell::RefCell;

use rayon::prelude::*;
use swathe::{Array, ArrayMut, Memory};

use crate::{
    Result,
    harness::{Bound, MS, Measured, Setup, Side, Unit, digest, timed},
    openmp, python,
};

/// 1 MiB of f64.
const STRIP: usize = 1 << 17;

fn square(x: &[f64], out: &mut [f64]) {
    x.iter().zip(out).for_each(|(x, out)| *out = x * x);
}

fn square_by_threads(threads: &rayon::ThreadPool, x: &[f64], out: &mut [f64]) {
    let strips = x.par_chunks(STRIP).zip(out.par_chunks_mut(STRIP));
    threads.install(|| strips.for_each(|(x, out)| square(x, out)));
}

/// The input as every contender makes it.
pub(crate) fn input(len: usize) -> Result<Array<f64>> {
    Ok(Array::from_fn(len, |i| (i % 4093) as f64 * 0.5)?)
}

/// The squares of numbers that lie in memory, again and again.
pub(crate) fn stream_square(setup: &Setup) -> Result<Measured> {
    let len = setup.sized(1 << 27);
    let x = input(len)?;
    let (pool, threads) = (setup.pool()?, setup.threads()?);
    // The limit twice: into the pages that Swathe's memory has (of 2 MiB where it got them), and into a Vec's.
    let out = RefCell::new(ArrayMut::<f64>::zeros(len)?);
    let reused = RefCell::new(vec![0.0; len]);
    // It takes some ten seconds: so it gets an eighth of the numbers, and its turns count eight times.
    let python = python::pool(setup, "stream_square", len / 8, 1)?;
    let python = python.map(|mut turn| move || turn().map(|turn| turn.value * 8.0));
    setup
        .bout(MS, 9)
        .rate(Unit("GB/s", 1e-9), 16.0 * len as f64)
        .contender("swathe", || {
            let (seconds, squares) = timed(|| pool.map(|x: f64| x * x, &x));
            Ok((seconds, digest(&squares?)))
        })
        .contender("swathe_chunks", || {
            let (seconds, squares) = timed(|| pool.map_chunks(square, &x));
            Ok((seconds, digest(&squares?)))
        })
        .contender("limit", || {
            let out = &mut out.borrow_mut()[..];
            let (seconds, ()) = timed(|| square_by_threads(&threads, &x, out));
            Ok((seconds, digest(out)))
        })
        .contender("limit_vec", || {
            let out = &mut reused.borrow_mut()[..];
            let (seconds, ()) = timed(|| square_by_threads(&threads, &x, out));
            Ok((seconds, digest(out)))
        })
        .contender("rayon", || {
            let (seconds, squares) =
                timed(|| threads.install(|| x.par_iter().map(|x| x * x).collect::<Vec<_>>()));
            Ok((seconds, digest(&squares)))
        })
        .contender_if("openmp", openmp::native(setup, "stream_square", len, 1)?)
        .contender_if("python_pool", python)
        .contender("serial", || {
            let out = &mut out.borrow_mut()[..];
            let (seconds, ()) = timed(|| square(&x, out));
            Ok((seconds, digest(out)))
        })
        .ratio("limit", "swathe", Bound::AtLeast(0.95))
        .ratio("rayon", "swathe", Bound::AtLeast(2.0))
        .ratio("openmp", "swathe", Bound::Shown)
        .ratio(Side::PerWorker("serial"), "swathe", Bound::Shown) // parallel efficiency
        .run()
}

/// The first call of all: workers have not started, no page of the output exists, none of the input is mapped by them.
pub(crate) fn first_touch(setup: &Setup) -> Result<Measured> {
    let len = setup.sized(1 << 27);
    let x = input(len)?;
    setup
        .bout(MS, 7)
        .rate(Unit("GB/s", 1e-9), 16.0 * len as f64)
        .contender("swathe", || {
            Memory::global()?.trim(); // the output of the turn before would be warm
            let (seconds, squares) = timed(|| -> Result<_> {
                let pool = setup.pool()?;
                Ok((pool.map(|x: f64| x * x, &x)?, pool)) // taking it down is no part of the first call
            });
            Ok((seconds, digest(&squares?.0)))
        })
        .contender("rayon", || {
            let (seconds, squares) = timed(|| -> Result<_> {
                let threads = setup.threads()?;
                let squares = threads.install(|| x.par_iter().map(|x| x * x).collect::<Vec<_>>());
                Ok((squares, threads))
            });
            Ok((seconds, digest(&squares?.0)))
        })
        .ratio("swathe", "rayon", Bound::AtMost(1.0))
        .run()
}
