//! One contender's turn: the work done once, and timed.

use std::time::{Duration, Instant};

use rayon::{ThreadPool, ThreadPoolBuilder, prelude::*};
use swathe::{Array, Pool, task::Plain};

use super::{
    kernel::{Kernel, Step},
    limit::Reused,
    python::Python,
};
use crate::{args::Chunk, failure::Result};

/// Who does the work, ready to do it again and again.
pub(crate) enum Contender<S: Step> {
    Pool(Pool, Chunk),
    Threads(ThreadPool, Chunk),
    Serial,
    Python(Python, Chunk),
    Limit(Reused<S>),
}

/// The values that a turn left, wherever they lie.
pub(crate) enum Values<'a, T> {
    Shared(Array<T>),
    Owned(Vec<T>),
    Borrowed(&'a [T]),
    /// Only every so many-th.
    Sampled(Vec<T>, usize),
}

/// What a turn gave.
pub(crate) struct Turn<'a, T> {
    pub(crate) time: Duration,
    pub(crate) values: Values<'a, T>,
}

impl<S: Step> Contender<S> {
    /// Does the work once.
    pub(crate) fn take_turn(&mut self, kernel: &Kernel<S>) -> Result<Turn<'_, S::Out>> {
        let start = Instant::now();
        let (values, time) = match self {
            Self::Pool(pool, chunk) => {
                let values = pool
                    .batch()
                    .chunk_size(*chunk)
                    .map::<_, _, (_, _, Plain), _>(S::step, &kernel.input)?;
                (Values::Shared(values), start.elapsed())
            }
            Self::Threads(threads, chunk) => {
                let values = in_threads::<S>(threads, *chunk, &kernel.input);
                (Values::Owned(values), start.elapsed())
            }
            Self::Serial => {
                let values = serially::<S>(&kernel.input);
                (Values::Owned(values), start.elapsed())
            }
            Self::Limit(reused) => {
                reused.fill(&kernel.input);
                (Values::Borrowed(reused.values()), start.elapsed())
            }
            Self::Python(python, chunk) => {
                let (time, values) = python.run(*chunk)?;
                (Values::Sampled(values, python.stride()), time)
            }
        };
        Ok(Turn { time, values })
    }
}

impl<S: Step> Contender<S> {
    /// Does the work once more; where the time went, if a pool did it.
    pub(crate) fn report(&self, kernel: &Kernel<S>) -> Result<Option<String>> {
        let Self::Pool(pool, chunk) = self else {
            return Ok(None);
        };
        let pending = pool
            .batch()
            .chunk_size(*chunk)
            .map_async::<_, _, (_, _, Plain), _>(S::step, &kernel.input)?;
        pending.get()?;
        Ok(pending.report().map(|report| report.to_string()))
    }
}

/// A plain loop.
pub(crate) fn serially<S: Step>(input: &[S::In]) -> Vec<S::Out> {
    input.iter().map(|&x| S::step(x)).collect()
}

/// As rayon's users write it.
fn in_threads<S: Step>(threads: &ThreadPool, chunk: Chunk, input: &[S::In]) -> Vec<S::Out> {
    let all = input.par_iter();
    let size = match chunk {
        Chunk::Auto => return threads.install(|| all.map(|&x| S::step(x)).collect()),
        Chunk::Pool => input.len().div_ceil(4 * threads.current_num_threads()),
        Chunk::Fixed(size) => size,
    };
    threads.install(|| {
        all.with_min_len(size)
            .with_max_len(size)
            .map(|&x| S::step(x))
            .collect()
    })
}

/// A pool of this many threads.
pub(crate) fn threads(count: usize) -> Result<ThreadPool> {
    Ok(ThreadPoolBuilder::new().num_threads(count).build()?)
}

impl<T: bytemuck::Pod> Values<'_, T> {
    /// The first position whose value differs from the reference, bit by bit.
    pub(crate) fn first_difference(&self, reference: &[T]) -> Option<usize> {
        match self {
            Self::Shared(values) => first_difference(values, reference),
            Self::Owned(values) => first_difference(values, reference),
            Self::Borrowed(values) => first_difference(values, reference),
            Self::Sampled(values, stride) => {
                let sampled: Vec<T> = reference.iter().step_by(*stride).copied().collect();
                first_difference(values, &sampled).map(|i| i * stride)
            }
        }
    }
}

fn first_difference<T: bytemuck::Pod>(values: &[T], reference: &[T]) -> Option<usize> {
    let bytes = |values| -> &[u8] { bytemuck::cast_slice(values) };
    if size_of::<T>() == 0 || bytes(values) == bytes(reference) {
        return (values.len() != reference.len()).then_some(values.len().min(reference.len()));
    }
    let pairs = values.iter().zip(reference);
    let common = values.len().min(reference.len());
    Some(
        pairs
            .map(|(a, b)| (bytemuck::bytes_of(a), bytemuck::bytes_of(b)))
            .position(|(a, b)| a != b)
            .unwrap_or(common),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_found_where_it_is() {
        let owned = |values: &[f64]| Values::Owned(values.to_vec());
        assert_eq!(owned(&[1.0, 2.0, 3.0]).first_difference(&[1.0, 2.0, 3.0]), None);
        assert_eq!(
            owned(&[1.0, 2.0, 3.0]).first_difference(&[1.0, -2.0, 3.0]),
            Some(1)
        );
        assert_eq!(owned(&[0.0]).first_difference(&[-0.0]), Some(0), "bit by bit");
        assert_eq!(
            owned(&[1.0]).first_difference(&[1.0, 2.0]),
            Some(1),
            "one is missing"
        );
        let sampled = Values::Sampled(vec![1.0, 5.0], 2);
        assert_eq!(sampled.first_difference(&[1.0, 2.0, 3.0, 4.0]), Some(2));
        assert_eq!(Values::Owned(vec![(); 2]).first_difference(&[(); 3]), Some(2));
    }
}
