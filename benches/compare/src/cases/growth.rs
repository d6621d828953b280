//! How the cost of a call grows: Swathe alone, at several sizes that take turns.

use swathe::{Array, Pool};

use crate::{
    Result,
    harness::{MS, Measured, Setup, US, each},
};

/// With elements.
pub(crate) fn elements(setup: &Setup) -> Result<Measured> {
    const SIZES: [(&str, usize, usize); 7] = [
        ("1", 1, 10_000),
        ("100", 100, 10_000),
        ("1000", 1000, 10_000),
        ("10^4", 10_000, 5000),
        ("10^5", 100_000, 500),
        ("10^6", 1_000_000, 50),
        ("10^7", 10_000_000, 5),
    ];
    let pool = &setup.pool()?;
    let mut bout = setup.bout(US, 9);
    for (name, len, calls) in SIZES {
        let (input, calls) = (Array::from_fn(len, |i| i as f64)?, setup.sized(calls));
        bout = bout.contender(name, move || {
            each(calls, || Ok(drop(pool.map(|x: f64| x * x, &input)?)))
        });
    }
    bout.run()
}

/// With chunks, of the same million of empty tasks.
pub(crate) fn chunks(setup: &Setup) -> Result<Measured> {
    const SIZES: [(&str, usize); 5] = [
        ("100", 10_000),
        ("1000", 1000),
        ("10^4", 100),
        ("10^5", 10),
        ("10^6", 1),
    ];
    let pool = &setup.pool()?;
    let mut bout = setup.bout(US, 9);
    for (name, chunk) in SIZES {
        let calls = setup.sized(100);
        bout = bout.contender(name, move || {
            each(calls, || {
                Ok(drop(
                    pool.batch().chunk_size(chunk).map(|_: u64| (), 0..1_000_000)?,
                ))
            })
        });
    }
    bout.run()
}

/// Pools of so many workers.
fn pools() -> Result<Vec<(&'static str, Pool)>> {
    let sizes = [("1", 1), ("2", 2), ("4", 4), ("8", 8)];
    let pool = |(name, size)| Ok((name, Pool::builder().processes(size).build()?));
    sizes.into_iter().map(pool).collect()
}

/// With workers: a small job.
pub(crate) fn workers(setup: &Setup) -> Result<Measured> {
    let (pools, input) = (pools()?, &Array::from_fn(1000, |i| i as f64)?);
    let mut bout = setup.bout(US, 9);
    for (name, pool) in &pools {
        let calls = setup.sized(5000);
        bout = bout.contender(name, move || {
            each(calls, || Ok(drop(pool.map(|x: f64| x * x, input)?)))
        });
    }
    bout.run()
}

/// With workers: a large one.
pub(crate) fn workers_at_work(setup: &Setup) -> Result<Measured> {
    let pools = pools()?;
    let len = setup.sized(1_000_000) as u64;
    let mix = |x: u64| (0..48).fold(x, |x, _| (x ^ (x >> 29)).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut bout = setup.bout(MS, 9);
    for (name, pool) in &pools {
        bout = bout.contender(name, move || each(3, || Ok(drop(pool.map(mix, 0..len)?))));
    }
    bout.run()
}
