//! What every worker of a pool must know from the beginning: written once by the parent, read by every zygote.

use std::sync::Arc;

use swathe_memory::Segment;

use crate::{
    fault::{Chaos, Injection},
    shared::{bytes, control::Control},
};

/// What every worker of a pool must know; written once by the parent into the data segment.
#[derive(Clone, Debug)]
pub(crate) struct WorkerPlan {
    pub(crate) control: Arc<Control>,
    pub(crate) data: Arc<Segment>,
    pub(crate) words: PlanWords,
    pub(crate) injections: Vec<Injection>,
    pub(crate) setup_params: Arc<[u8]>,
}

/// The fixed part of a [`WorkerPlan`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PlanWords {
    /// Object and offset of the setup function; offset 0 for none.
    pub(crate) setup: [u64; 2],
    /// Likewise of the exit hook.
    pub(crate) exit_hook: [u64; 2],
    /// Elements after which a worker is recycled, 0 for never.
    pub(crate) max_tasks: u64,
    /// Workers the pool starts with.
    pub(crate) processes: u64,
    /// Cores that a worker may use for itself.
    pub(crate) share: u64,
    /// Whether worker `w` is pinned to one core.
    pub(crate) pin: u64,
    /// Private memory that a worker may have, bytes; 0 for no limit.
    pub(crate) max_memory: u64,
    /// Private memory that a worker may gain before it is recycled, bytes; 0 for no limit.
    pub(crate) max_growth: u64,
    /// Bytes of encoded faults that follow.
    pub(crate) chaos: u64,
}

impl PlanWords {
    const LEN: usize = 11;

    fn to_words(self) -> [u64; Self::LEN] {
        let [setup_object, setup_offset] = self.setup;
        let [exit_object, exit_offset] = self.exit_hook;
        [
            setup_object,
            setup_offset,
            exit_object,
            exit_offset,
            self.max_tasks,
            self.processes,
            self.share,
            self.pin,
            self.max_memory,
            self.max_growth,
            self.chaos,
        ]
    }

    /// The bytes that [`WorkerPlan::decode`] reads.
    pub(crate) fn encode(mut self, chaos: &Chaos, setup_params: &[u8]) -> Vec<u8> {
        let chaos = chaos.encode();
        self.chaos = chaos.len() as u64;
        let words = self.to_words();
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.extend(chaos);
        bytes.extend(setup_params);
        bytes
    }
}

impl WorkerPlan {
    pub(crate) fn decode(
        control: Arc<Control>,
        data: Arc<Segment>,
        offset: u64,
        len: u64,
    ) -> Result<Self, String> {
        let bytes = bytes::read_segment(&data, offset, len).map_err(|e| e.to_string())?;
        let (head, params) = bytes
            .split_at_checked(PlanWords::LEN * 8)
            .ok_or("the pool's plan is shorter than its own header")?;
        let word = |i: usize| u64::from_le_bytes(head[i * 8..i * 8 + 8].try_into().expect("8 bytes"));
        let words = PlanWords {
            setup: [word(0), word(1)],
            exit_hook: [word(2), word(3)],
            max_tasks: word(4),
            processes: word(5),
            share: word(6),
            pin: word(7),
            max_memory: word(8),
            max_growth: word(9),
            chaos: word(10),
        };
        let (chaos, params) = usize::try_from(words.chaos)
            .ok()
            .and_then(|len| params.split_at_checked(len))
            .ok_or("the pool's plan is shorter than its list of faults")?;
        Ok(Self {
            control,
            data,
            words,
            injections: Chaos::decode(chaos),
            setup_params: params.into(),
        })
    }
}
