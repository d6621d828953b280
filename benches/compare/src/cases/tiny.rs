//! What a chunk costs that holds nothing.

use std::hint::black_box;

use rayon::prelude::*;

use crate::{
    Result,
    harness::{Bound, Measured, NS, Setup, Side, timed},
    openmp, python,
};

/// Ten million chunks of one empty task.
pub(crate) fn tiny_chunks(setup: &Setup) -> Result<Measured> {
    let len = setup.sized(10_000_000);
    let (pool, threads) = (setup.pool()?, setup.threads()?);
    let per_chunk = |seconds: f64| seconds / len as f64;
    setup
        .bout(NS, 9)
        .contender("swathe", || {
            let (seconds, done) = timed(|| pool.batch().chunk_size(1).map(|_: usize| (), 0..len));
            Ok((per_chunk(seconds), done?.len() as f64))
        })
        .contender("swathe_values", || {
            // The same with a result each: its position, to see that all were run.
            let (seconds, values) = timed(|| pool.batch().chunk_size(1).map(|i: usize| i as u32, 0..len));
            let values = values?;
            match values.iter().zip(0..).position(|(value, i)| *value != i) {
                Some(i) => Err(format!("task {i} gave {}", values[i]).into()),
                None => Ok((per_chunk(seconds), values.len() as f64)),
            }
        })
        .contender("rayon", || {
            let empty = |i: usize| {
                black_box(i);
            };
            let (seconds, ()) =
                timed(|| threads.install(|| (0..len).into_par_iter().with_max_len(1).for_each(empty)));
            Ok((per_chunk(seconds), len as f64))
        })
        .contender_if(
            "openmp",
            openmp::native(setup, "tiny_chunks", len, 1)?.map(|mut team| {
                move || {
                    team().map(|mut turn| {
                        turn.value /= len as f64;
                        turn
                    })
                }
            }),
        )
        // It takes some ten thousand times as long: so it gets a two-hundredth of the tasks.
        .contender_if("python_pool", python::pool(setup, "tiny_chunks", len / 200, 1)?)
        .ratio("swathe", Side::Fixed(5.0), Bound::AtMost(1.0))
        .ratio("swathe", "rayon", Bound::AtMost(0.5))
        .ratio("swathe", "openmp", Bound::AtMost(0.1))
        .run()
}
