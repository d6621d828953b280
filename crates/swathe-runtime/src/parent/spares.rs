//! What dead workers have left of the blocks that they had for a job, for the next that asks: workers that live for one element
//! do not take a block each.

use std::sync::Arc;

use swathe_memory::Block;
use swathe_protocol::Unused;

use crate::shared::messages::{ALIGN, Purpose};

/// What dead workers have left of the blocks that they had for a job.
#[derive(Debug, Default)]
pub(crate) struct Spares {
    results: Vec<[u64; 2]>,
    /// Of blocks that are let go at the end of the round.
    notes: Vec<[u64; 2]>,
    /// The epoch of `notes`.
    epoch: u32,
}

impl Spares {
    /// Less is not worth keeping.
    const LEAST: u64 = 1 << 10;

    /// Keeps what a worker has left, of these blocks and this epoch. A worker that went wild may have written anything.
    pub(crate) fn keep(&mut self, left: Unused, results: &[Arc<Block>], notes: &[Arc<Block>], epoch: u32) {
        let lies_in = |blocks: &[Arc<Block>], [first, end]: [u64; 2]| {
            let within = |block: &Arc<Block>| {
                let start = block.offset() as u64;
                start <= first && end <= start + block.len() as u64
            };
            let is_worth_it = first.saturating_add(Self::LEAST) <= end && first.is_multiple_of(ALIGN);
            is_worth_it && blocks.iter().any(within)
        };
        if lies_in(results, left.results) {
            self.results.push(left.results);
        }
        if left.epoch == epoch && lies_in(notes, left.notes) {
            if self.epoch != epoch {
                (self.notes, self.epoch) = (Vec::new(), epoch);
            }
            self.notes.push(left.notes);
        }
    }

    /// The largest, if it has room for so much.
    pub(crate) fn take(&mut self, purpose: Purpose, least: u64, epoch: u32) -> Option<[u64; 2]> {
        let list = match purpose {
            Purpose::Results => &mut self.results,
            _ if self.epoch != epoch => return None,
            Purpose::Texts | Purpose::Records => &mut self.notes,
        };
        let len = |range: &[u64; 2]| range[1] - range[0];
        let (at, largest) = list.iter().enumerate().max_by_key(|(_, range)| len(range))?;
        (len(largest) >= least).then(|| list.swap_remove(at))
    }

    /// The blocks of failures are let go.
    pub(crate) fn drop_notes(&mut self) {
        self.notes.clear();
    }
}

#[cfg(test)]
mod tests {
    use swathe_memory::Memory;
    use swathe_protocol::JobKey;

    use super::*;

    #[test]
    fn only_what_lies_in_a_block_of_the_round_is_kept() {
        let memory = Memory::with_capacity(1 << 20).expect("there is memory");
        let block = || Arc::new(memory.alloc(64 << 10, 64).expect("it fits"));
        let (results, notes) = ([block()], [block()]);
        let of = |block: &Arc<Block>, from: u64| {
            let start = block.offset() as u64;
            [start + from, start + block.len() as u64]
        };
        let left = Unused {
            job: JobKey::new(0, 1),
            epoch: 4,
            results: of(&results[0], 1008),
            notes: of(&notes[0], 0),
        };
        let mut spares = Spares::default();
        spares.keep(left, &results, &notes, 4);
        assert_eq!(spares.take(Purpose::Results, 64 << 10, 4), None);
        assert_eq!(spares.take(Purpose::Results, 60 << 10, 4), Some(left.results));
        assert_eq!(spares.take(Purpose::Results, 1, 4), None);
        // Of an earlier epoch.
        assert_eq!(spares.take(Purpose::Texts, 1, 5), None);
        spares.drop_notes();
        assert_eq!(spares.take(Purpose::Texts, 1, 4), None);
        spares.keep(left, &results, &notes, 5);
        assert_eq!(spares.take(Purpose::Texts, 1, 5), None);
        spares.results.clear();
        // Too little, or nonsense.
        for results_left in [
            of(&results[0], 64 << 10),
            of(&results[0], 1),
            [u64::MAX, 0],
            [0, u64::MAX],
            of(&notes[0], 0),
        ] {
            let wild = Unused {
                results: results_left,
                ..left
            };
            spares.keep(wild, &results, &notes, 4);
        }
        assert!(spares.results.is_empty(), "{spares:?}");
    }
}
