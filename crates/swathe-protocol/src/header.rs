//! The first words of a pool's control segment: its shape, and the words that concern everybody.

use crate::{
    bell::ParkWord,
    sync::{AtomicU32, AtomicU64, QuietU32},
};

/// First bytes of a control segment; the last but one is the version of its layout, which `tests/layout.rs` watches over.
pub const MAGIC: u64 = u64::from_le_bytes(*b"swathe\x03\0");

/// The header of a control segment.
#[repr(C, align(128))]
#[derive(Debug, Default)]
pub struct Header {
    /// [`MAGIC`].
    pub magic: AtomicU64,
    /// Number of worker slots.
    pub slots: AtomicU32,
    /// Number of job cells.
    pub jobs: AtomicU32,
    /// Number of ring cells.
    pub ring: AtomicU32,
    /// One past the highest slot that ever had a worker: how far scans of slots and lanes must go.
    pub used_slots: QuietU32,
    /// 0: go on; [`Header::DRAIN`]: leave when there is nothing to do; [`Header::STOP`]: leave.
    pub shutdown: AtomicU32,
    /// How many idle workers may stay awake for a while, looking for work: one less than there are cores, because the
    /// parent needs one; 0 when there are more processes than cores.
    pub lookouts: AtomicU32,
    /// Naps that have found something to do for which nobody had rung: counted under the feature `chaos`, 0 if all is well.
    pub rescued: AtomicU32,
    /// Where the parent's courier sleeps.
    pub courier: ParkWord,
}

impl Header {
    /// Value of `shutdown`: leave when there is nothing to do.
    pub const DRAIN: u32 = 1;
    /// Value of `shutdown`: leave now.
    pub const STOP: u32 = 2;
}
