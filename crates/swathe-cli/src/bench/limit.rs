//! The machine's limit: what is left when nothing but the work is done.

use rayon::{ThreadPool, prelude::*};

use super::{
    kernel::{Kernel, Step},
    turn,
};
use crate::failure::Result;

/// Elements that a thread takes at a time where it pays to take more than one: small enough to even out, large enough
/// that taking costs nothing.
const PIECE: usize = 1 << 15;

/// Threads that write into memory which they wrote before: no page is touched for the first time, nothing is allocated.
pub(crate) struct Reused<S: Step> {
    threads: ThreadPool,
    values: Vec<S::Out>,
}

impl<S: Step> Reused<S> {
    pub(crate) fn new(kernel: &Kernel<S>, threads: usize) -> Result<Self> {
        Ok(Self {
            threads: turn::threads(threads)?,
            values: vec![bytemuck::Zeroable::zeroed(); kernel.input.len()],
        })
    }

    /// Does the work once.
    pub(crate) fn fill(&mut self, input: &[S::In]) {
        let threads = self.threads.current_num_threads();
        let piece = PIECE.min(input.len().div_ceil(64 * threads)).max(1);
        let values = &mut self.values;
        self.threads.install(|| {
            let inputs = input.par_chunks(piece);
            inputs.zip(values.par_chunks_mut(piece)).for_each(|(xs, out)| {
                for (x, out) in xs.iter().zip(out) {
                    *out = S::step(*x);
                }
            });
        });
    }

    pub(crate) fn values(&self) -> &[S::Out] {
        &self.values
    }
}
