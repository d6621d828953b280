//! Making a dead worker's copy of results over their inputs once more.
#![expect(
    unsafe_code,
    reason = "bytes are copied between mappings that no reference points to"
)]

use std::ptr::NonNull;

use swathe_memory::registry;
use swathe_protocol::InPlaceCopy;

use crate::{
    job::Region,
    parent::{core::Core, job::JobEntry},
};

impl Region {
    /// Makes the copy, if it is one from the job's heap to this region: the words come from a process that died.
    pub(crate) fn copy_into(
        self,
        core: &Core,
        job: &JobEntry,
        copy: InPlaceCopy,
    ) -> Result<(), &'static str> {
        let end = copy.to.checked_add(copy.len).ok_or("its end cannot be counted")?;
        let within = copy.to >= self.offset && end <= self.offset.saturating_add(self.len);
        if copy.to_segment != self.segment.to_bits() || !within {
            return Err("it does not lie in the array that the job changes");
        }
        let data = core.memory.segment();
        let target = match self.segment == data.id() {
            true => data.clone(),
            false => registry::find(self.segment).ok_or("its segment is gone")?,
        };
        let source_end = copy
            .from
            .checked_add(copy.len)
            .ok_or("its end cannot be counted")?;
        let inner = job.inner.lock();
        let from_heap = inner.heap.iter().any(|block| {
            let start = block.offset() as u64;
            copy.from >= start && source_end <= start + block.len() as u64
        });
        if !from_heap {
            return Err("it does not come from the job's heap");
        }
        let range = |segment: &swathe_memory::Segment, offset: u64| -> Result<NonNull<u8>, &'static str> {
            segment
                .range(offset as usize, copy.len as usize)
                .map_err(|_| "it ends outside of its segment")
        };
        let (from, to) = (range(data, copy.from)?, range(&target, copy.to)?);
        // SAFETY: both ranges were checked to lie in live mappings; the array that the job changes is kept, with its
        // mapping, by the job, and nobody in this process refers to its elements until the job is over; the one worker
        // that wrote these positions is dead and reaped. A heap block and the array do not overlap: both are the
        // arena's, which gave them to different owners; `copy` would bear it if they did.
        unsafe { std::ptr::copy(from.as_ptr(), to.as_ptr(), copy.len as usize) };
        Ok(())
    }
}
