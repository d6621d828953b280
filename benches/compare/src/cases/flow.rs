//! Streams, and values of any size.

use std::hint::black_box;

use rayon::prelude::*;

use crate::{
    Result,
    harness::{Bound, Measured, NS, Setup, Unit, timed},
    python,
};

/// An iterator that the pool pulls, against the range that workers count by themselves.
pub(crate) fn imap_stream(setup: &Setup) -> Result<Measured> {
    let len = setup.sized(100_000_000) as u64;
    // An iterator, and no range that could be recognised as one.
    let input = move || (0..len).filter(|&x| x != u64::MAX);
    let each = |seconds: f64| seconds / len as f64;
    let sum = |squares: &[u64]| squares.iter().fold(0u64, |sum, x| sum.wrapping_add(*x)) as f64;
    let square = |x: u64| x.wrapping_mul(x);
    let pool = setup.pool()?;
    setup
        .bout(NS, 5)
        .rate(Unit("million/s", 1e-6), 1.0)
        .contender("imap", || {
            let (seconds, total) = timed(|| -> Result<u64> {
                let mut total = 0u64;
                for square in pool.imap(square, input()) {
                    total = total.wrapping_add(square?);
                }
                Ok(total)
            });
            Ok((each(seconds), total? as f64))
        })
        .contender("map", || {
            let (seconds, squares) = timed(|| pool.map(square, 0..len));
            Ok((each(seconds), sum(&squares?)))
        })
        .contender("map_items", || {
            // The same input, and the same use of the results.
            let (seconds, total) = timed(|| {
                pool.map(square, swathe::items(input()))
                    .map(|squares| sum(&squares))
            });
            Ok((each(seconds), total?))
        })
        .contender("loop", || {
            // What it takes to pull the input and to look at the results, in one thread: no stream can be quicker.
            let (seconds, total) =
                timed(|| input().fold(0u64, |sum, x| sum.wrapping_add(black_box(square(black_box(x))))));
            Ok((each(seconds), total as f64))
        })
        .ratio("map", "imap", Bound::AtLeast(0.5))
        .ratio("map_items", "imap", Bound::Shown)
        .ratio("loop", "imap", Bound::Shown)
        .run()
}

/// As [`imap_stream`], with elements that take about 100 ns: what a stream costs beside work.
pub(crate) fn imap_work(setup: &Setup) -> Result<Measured> {
    let len = setup.sized(10_000_000) as u64;
    let input = move || (0..len).filter(|&x| x != u64::MAX);
    let each = |seconds: f64| seconds / len as f64;
    let sum = |mixed: &[u64]| mixed.iter().fold(0u64, |sum, x| sum.wrapping_add(*x)) as f64;
    let mix = |x: u64| (0..48).fold(x, |x, _| (x ^ (x >> 29)).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let pool = setup.pool()?;
    setup
        .bout(NS, 5)
        .rate(Unit("million/s", 1e-6), 1.0)
        .contender("imap", || {
            let (seconds, total) = timed(|| -> Result<u64> {
                let mut total = 0u64;
                for mixed in pool.imap(mix, input()) {
                    total = total.wrapping_add(mixed?);
                }
                Ok(total)
            });
            Ok((each(seconds), total? as f64))
        })
        .contender("map", || {
            let (seconds, mixed) = timed(|| pool.map(mix, 0..len));
            Ok((each(seconds), sum(&mixed?)))
        })
        .ratio("map", "imap", Bound::AtLeast(0.5))
        .run()
}

fn label(x: i64, chunk: &str) -> String {
    format!("{chunk}-{}", x * x)
}

/// A number for all labels and their order.
fn of_labels(labels: impl Iterator<Item = impl AsRef<str>>) -> f64 {
    let bytes = |label: &str| {
        label.bytes().fold(0u64, |sum, byte| {
            sum.wrapping_mul(31).wrapping_add(u64::from(byte))
        })
    };
    let of =
        |(i, label): (usize, _)| (bytes(AsRef::<str>::as_ref(&label)) % 8191 * (i as u64 % 1009 + 1)) as f64;
    labels.enumerate().map(of).sum()
}

/// Text in, text out.
pub(crate) fn strings(setup: &Setup) -> Result<Measured> {
    let len = setup.sized(1_000_000);
    let rows: Vec<(i64, String)> = (0..len as i64)
        .map(|i| (i, format!("chunk{}", i % 977)))
        .collect();
    let each = |seconds: f64| seconds / len as f64;
    let (pool, threads) = (setup.pool()?, setup.threads()?);
    setup
        .bout(NS, 9)
        .rate(Unit("million/s", 1e-6), 1.0)
        .contender("swathe", || {
            let (seconds, labels) = timed(|| pool.starmap(label, &rows));
            Ok((each(seconds), of_labels(labels?.iter())))
        })
        .contender("swathe_to_vec", || {
            // Until the caller has Strings of its own, as it has from rayon.
            let (seconds, labels) = timed(|| pool.starmap(label, &rows)?.to_vec());
            Ok((each(seconds), of_labels(labels?.iter())))
        })
        .contender("rayon", || {
            let labels = rows.par_iter().map(|(x, chunk)| label(*x, chunk));
            let (seconds, labels) = timed(|| threads.install(|| labels.collect::<Vec<_>>()));
            Ok((each(seconds), of_labels(labels.iter())))
        })
        .contender("serial", || {
            let (seconds, labels) =
                timed(|| rows.iter().map(|(x, chunk)| label(*x, chunk)).collect::<Vec<_>>());
            Ok((each(seconds), of_labels(labels.iter())))
        })
        .contender_if("python_pool", python::pool(setup, "strings", len, 1)?)
        .ratio("rayon", "swathe", Bound::AtLeast(0.5))
        .ratio("rayon", "swathe_to_vec", Bound::Shown)
        .run()
}
