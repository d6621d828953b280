//! Results of variable length: written by workers, copied out by the parent.
#![allow(
    unnameable_types,
    reason = "they are in hidden methods of traits that are sealed by that: nobody outside can name them"
)]

use std::{ptr, slice, sync::Arc};

use bytemuck::{Pod, Zeroable};
use rkyv::util::AlignedVec;
use swathe_memory::{Block, lease};
use swathe_runtime::{Outcome, Rest};

/// Where a record lies: in its segment (results) or its array of bytes (inputs).
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct RecordRef {
    pub(crate) offset: u64,
    pub(crate) len: u32,
    reserved: u32,
}

impl RecordRef {
    /// A record without bytes. One that is not there is all zeros.
    const EMPTY: Self = Self {
        offset: 1,
        len: 0,
        reserved: 0,
    };

    /// Whether there is none.
    pub(crate) fn is_nothing(&self) -> bool {
        (self.offset, self.len) == (0, 0)
    }

    pub(crate) fn new(offset: u64, len: usize) -> Result<Self, String> {
        let len =
            u32::try_from(len).map_err(|_| format!("one value has {len} bytes; at most 4 GiB can cross"))?;
        Ok(Self {
            offset,
            len,
            reserved: 0,
        })
    }
}

/// Why a worker does not return a handle to what it has made.
const OWN_MEMORY: &str = "the result holds an array or another handle that this worker has made, in memory that ends with \
                          the worker and that no other process has; return the elements themselves (`to_vec()`), or write \
                          them to memory that the caller has made and passed on";

/// Where a worker puts a result of variable length.
#[derive(Debug)]
pub struct Sink<'a, 'r> {
    pub(super) rest: &'a mut Rest<'r>,
    pub(super) scratch: &'a mut AlignedVec,
}

impl Sink<'_, '_> {
    /// Stores what `fill` writes.
    pub(crate) fn record(
        &mut self,
        fill: impl FnOnce(&mut AlignedVec) -> Result<(), String>,
    ) -> Result<RecordRef, String> {
        self.scratch.clear();
        let own = lease::own();
        fill(self.scratch)?;
        if lease::own() != own {
            return Err(OWN_MEMORY.to_owned());
        }
        store(self.rest, self.scratch)
    }

    /// Stores these bytes, which are private.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<RecordRef, String> {
        store(self.rest, bytes)
    }
}

fn store(rest: &mut Rest<'_>, bytes: &[u8]) -> Result<RecordRef, String> {
    if bytes.is_empty() {
        return Ok(RecordRef::EMPTY);
    }
    let span = rest.heap(bytes.len())?;
    // SAFETY: the span is `bytes.len()` mapped bytes that were given to this worker alone, and private bytes cannot
    // overlap it. No reference is formed to the shared side.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), span.pointer.as_ptr(), bytes.len()) };
    RecordRef::new(span.offset, bytes.len())
}

/// The blocks that a job's workers wrote records to.
#[derive(Clone, Debug)]
pub(crate) struct HeapBlocks(Arc<[Arc<Block>]>);

impl HeapBlocks {
    pub(crate) fn of(outcome: &Outcome) -> Self {
        let mut blocks = outcome.heap.clone();
        blocks.sort_unstable_by_key(|block| block.offset());
        Self(blocks.into())
    }

    #[cfg(any(test, feature = "_untrusted"))]
    pub(crate) fn over(mut blocks: Vec<Arc<Block>>) -> Self {
        blocks.sort_unstable_by_key(|block| block.offset());
        Self(blocks.into())
    }

    /// Shows the bytes of a record to a function that copies them: only what lies in private memory, nobody else can change
    /// any more.
    pub(crate) fn read<R>(
        &self,
        record: &RecordRef,
        copy: impl FnOnce(&[u8]) -> Result<R, String>,
    ) -> Result<R, String> {
        let len = record.len as usize;
        if len == 0 {
            return copy(&[]);
        }
        let offset = usize::try_from(record.offset).unwrap_or(usize::MAX);
        let after = self.0.partition_point(|block| block.offset() <= offset);
        let block = after.checked_sub(1).and_then(|i| self.0.get(i));
        let within = block.map(|block| (block, offset - block.offset()));
        let Some((block, skip)) = within.filter(|(block, skip)| block.len() >= skip.saturating_add(len))
        else {
            return Err("its bytes lie outside the memory of its job".to_owned());
        };
        // SAFETY: skip + len <= block.len(), and the block is held. The job is over (its outcome made these blocks
        // known), so no worker writes them and a plain slice may be formed for the time of the copy.
        let bytes = unsafe { slice::from_raw_parts(block.as_ptr().add(skip).as_ptr(), len) };
        copy(bytes)
    }
}
