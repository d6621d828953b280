//! Work that is mostly arithmetic.

use std::cell::RefCell;

use bytemuck::cast_slice;
use rayon::prelude::*;
use swathe::Array;

use crate::{
    Result,
    harness::{Bound, MS, Measured, Setup, Side, Unit, digest, timed},
    openmp, python,
};

/// Distribution function of the normal distribution (Abramowitz and Stegun, Handbook of Mathematical Functions, 26.2.17).
fn normal(x: f64) -> f64 {
    let a = x.abs();
    let k = 1.0 / (1.0 + 0.2316419 * a);
    let p = k * (0.319381530 + k * (-0.356563782 + k * (1.781477937 + k * (-1.821255978 + k * 1.330274429))));
    let tail = 0.3989422804014327 * (-0.5 * a * a).exp() * p;
    if x < 0.0 { tail } else { 1.0 - tail }
}

/// Call and put of a European option (Black and Scholes, 1973).
fn price(spot: f64, strike: f64, years: f64, rate: f64, volatility: f64) -> [f64; 2] {
    let root = volatility * years.sqrt();
    let d1 = ((spot / strike).ln() + (rate + 0.5 * volatility * volatility) * years) / root;
    let paid = strike * (-rate * years).exp();
    let call = spot * normal(d1) - paid * normal(d1 - root);
    [call, call - spot + paid]
}

/// Numbers from `low` to `high` that look like chance; the OpenMP program makes the same.
fn column(len: usize, seed: u64, low: f64, high: f64) -> Result<Array<f64>> {
    Ok(Array::from_fn(len, |i| {
        let bits = (i as u64 + (seed << 40)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let bits = (bits ^ bits >> 32).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        low + (high - low) * ((bits >> 11) as f64 / (1u64 << 53) as f64)
    })?)
}

/// Options, priced from columns.
pub(crate) fn black_scholes(setup: &Setup) -> Result<Measured> {
    let len = setup.sized(10_000_000);
    let spot = column(len, 1, 5.0, 30.0)?;
    let strike = column(len, 2, 1.0, 100.0)?;
    let years = column(len, 3, 0.25, 10.0)?;
    let rate = column(len, 4, 0.01, 0.05)?;
    let volatility = column(len, 5, 0.05, 0.5)?;
    let of_pairs = |prices: &[[f64; 2]]| digest(cast_slice(prices));
    let of_arguments =
        |((((&spot, &strike), &years), &rate), &volatility)| price(spot, strike, years, rate, volatility);
    let reused = RefCell::new(vec![[0.0; 2]; len]);
    let (pool, threads) = (setup.pool()?, setup.threads()?);
    setup
        .bout(MS, 9)
        .rate(Unit("million/s", 1e-6), len as f64)
        .contender("swathe", || {
            let (seconds, prices) =
                timed(|| pool.starmap(price, (&spot, &strike, &years, &rate, &volatility)));
            Ok((seconds, of_pairs(&prices?)))
        })
        .contender("rayon", || {
            let columns = spot
                .par_iter()
                .zip(&strike[..])
                .zip(&years[..])
                .zip(&rate[..])
                .zip(&volatility[..]);
            let (seconds, prices) =
                timed(|| threads.install(|| columns.map(of_arguments).collect::<Vec<_>>()));
            Ok((seconds, of_pairs(&prices)))
        })
        .contender_if("openmp", openmp::native(setup, "black_scholes", len, 1)?)
        .contender_if("openmp_generic", openmp::generic(setup, "black_scholes", len, 1)?)
        .contender_if("python_pool", python::pool(setup, "black_scholes", len, 1)?)
        .contender("serial", || {
            // Into pages that are there, so that it is arithmetic alone that more workers divide.
            let out = &mut reused.borrow_mut()[..];
            let columns = spot
                .iter()
                .zip(&strike[..])
                .zip(&years[..])
                .zip(&rate[..])
                .zip(&volatility[..]);
            let (seconds, ()) = timed(|| {
                out.iter_mut()
                    .zip(columns)
                    .for_each(|(out, arguments)| *out = of_arguments(arguments));
            });
            Ok((seconds, of_pairs(out)))
        })
        .ratio("rayon", "swathe", Bound::AtLeast(1.0))
        .ratio("openmp", "swathe", Bound::AtLeast(1.0))
        .ratio("openmp_generic", "swathe", Bound::Shown)
        .ratio(Side::PerWorker("serial"), "swathe", Bound::Shown) // parallel efficiency
        .run()
}

const WIDTH: usize = 1024;
const LIMIT: u16 = 1000;

/// How many steps each point of a row takes to leave, or [`LIMIT`].
fn row(row: u32, height: u32) -> [u16; WIDTH] {
    let y0 = -1.25 + 2.5 * f64::from(row) / f64::from(height);
    std::array::from_fn(|i| {
        let x0 = -2.0 + 2.5 * i as f64 / WIDTH as f64;
        let (mut x, mut y, mut xx, mut yy, mut steps) = (0.0, 0.0, 0.0, 0.0, 0);
        while steps < LIMIT && xx + yy <= 4.0 {
            y = 2.0 * x * y + y0;
            x = xx - yy + x0;
            xx = x * x;
            yy = y * y;
            steps += 1;
        }
        steps
    })
}

/// Rows that take from microseconds to milliseconds, unevenly spread.
pub(crate) fn mandelbrot_rows(setup: &Setup) -> Result<Measured> {
    let height = setup.sized(2048) as u32;
    let steps = |rows: &[[u16; WIDTH]]| rows.iter().flatten().map(|&steps| f64::from(steps)).sum::<f64>();
    let (pool, threads) = (setup.pool()?, setup.threads()?);
    let bout = setup
        .bout(MS, 7)
        .contender("swathe", || {
            let (seconds, rows) =
                timed(|| pool.map_with(&height, |height: &u32, y: u32| row(y, *height), 0..height));
            Ok((seconds, steps(&rows?)))
        })
        .contender("serial", || {
            let (seconds, rows) = timed(|| (0..height).map(|y| row(y, height)).collect::<Vec<_>>());
            Ok((seconds, steps(&rows)))
        })
        .contender("rayon", || {
            let rows = (0..height).into_par_iter().map(|y| row(y, height));
            let (seconds, rows) = timed(|| threads.install(|| rows.collect::<Vec<_>>()));
            Ok((seconds, steps(&rows)))
        });
    // The boundary is chaos: with fused multiply and add, a compiler that uses it counts some points differently.
    let team = openmp::native(setup, "mandelbrot_rows", height as usize, 1)?;
    let team = team.map(|mut team| move || team().map(|turn| turn.value));
    bout.contender_if("openmp", team)
        .contender_if(
            "openmp_generic",
            openmp::generic(setup, "mandelbrot_rows", height as usize, 1)?,
        )
        .ratio("swathe", Side::PerWorker("serial"), Bound::AtMost(1.05))
        .ratio("swathe", "rayon", Bound::AtMost(1.0))
        .ratio("swathe", "openmp", Bound::Shown)
        .ratio("swathe", "openmp_generic", Bound::Shown)
        .ratio(Side::PerWorker("serial"), "swathe", Bound::Shown) // parallel efficiency
        .run()
}
