//! How the time depends on the chunk size.

use super::{
    kernel::{Kernel, Step},
    run::{BenchPlan, progress},
    turn::Contender,
};
use crate::{args::Chunk, failure::Result};
use swathe::Pool;

/// At most so many chunks are cut: more take seconds to no purpose.
const MOST_CHUNKS: usize = 4_000_000;
/// How often each size has its turn, after one that is not timed.
const ROUNDS: usize = 3;

/// Seconds by chunk size, ascending, and with automatic chunks.
pub(crate) struct Sweep {
    pub(crate) workers: usize,
    pub(crate) sizes: Vec<(usize, f64)>,
    pub(crate) auto: f64,
}

/// Measures chunk sizes from 1, or what is sensible, to one chunk for all.
pub(crate) fn sweep<S: Step>(kernel: &Kernel<S>, plan: &BenchPlan) -> Result<Sweep> {
    let workers = plan.most_processes();
    let pool = Pool::builder().processes(workers).build()?;
    let sizes = sizes(kernel.input.len());
    let chunks = sizes.iter().map(|&size| Chunk::Fixed(size)).chain([Chunk::Auto]);
    let mut contenders: Vec<(Chunk, Vec<f64>)> = chunks.map(|chunk| (chunk, Vec::new())).collect();
    let mut one = Contender::<S>::Pool(pool, Chunk::Auto);
    let bar = progress(((ROUNDS + 1) * contenders.len()) as u64);
    for round in 0..=ROUNDS {
        for (chunk, times) in &mut contenders {
            bar.set_message(format!("chunk size {chunk}"));
            if let Contender::Pool(_, next) = &mut one {
                *next = *chunk;
            }
            let time = one.take_turn(kernel)?.time.as_secs_f64();
            if round > 0 {
                times.push(time);
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let mut medians = contenders.into_iter().map(|(_, mut times)| {
        times.sort_unstable_by(f64::total_cmp);
        times[ROUNDS / 2]
    });
    Ok(Sweep {
        workers,
        sizes: sizes.into_iter().zip(medians.by_ref()).collect(),
        auto: medians.next().unwrap_or(f64::NAN),
    })
}

/// Powers of four up to everything at once.
fn sizes(len: usize) -> Vec<usize> {
    let least = len.div_ceil(MOST_CHUNKS);
    let powers = std::iter::successors(Some(1_usize), |n| n.checked_mul(4));
    powers
        .skip_while(|&n| n < least)
        .take_while(|&n| n < len)
        .chain([len])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_end_with_one_chunk_for_all() {
        assert_eq!(sizes(1), [1]);
        assert_eq!(sizes(20), [1, 4, 16, 20]);
        assert_eq!(sizes(16), [1, 4, 16]);
        assert!(sizes(100_000_000).iter().all(|&n| n >= 25));
    }
}
