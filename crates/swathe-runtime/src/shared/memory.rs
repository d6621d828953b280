//! The promises that this crate makes about shared memory, in one place: which bytes are words, and whose descriptors go where.
#![expect(
    unsafe_code,
    reason = "what a segment holds is known to who laid it out, and to no type"
)]

use std::{
    os::fd::BorrowedFd,
    sync::{Arc, atomic::AtomicU64},
};

use swathe_memory::{Access, Block, MemoryError, Overlay, Segment, SegmentId, Shared, SharedSlice, registry};
use swathe_os::Descriptor;

/// Words in a segment: the control segment, a scratch area or a worker's notes in the arena, the file that says how far a job
/// has come.
///
/// What lies where is [`Control`](super::control::Control)'s, [`Scratch`](super::scratch)'s and the job's terms' to say: a
/// worker asks for nothing else than what these have given it. (Terms and links come from memory that other processes write.
/// They are processes of this program, and one that goes wild can write over an array as well.)
pub(crate) fn words<T: Overlay>(
    segment: &Arc<Segment>,
    offset: usize,
    count: usize,
) -> Result<SharedSlice<T>, MemoryError> {
    // SAFETY: no array lies there, in any process. A control segment holds words from end to end. A scratch area and a
    // worker's notes are blocks that the parent has allocated for that and holds in an `Arc`, so they cannot become arrays;
    // which words lie where in them does not change while a job uses them. The file of progress is written by the workers of
    // the one job that has locked it, and is mapped as nothing but words.
    unsafe { SharedSlice::at(segment, offset, count) }
}

/// One word in a segment, as [`words`].
pub(crate) fn word<T: Overlay>(segment: &Arc<Segment>, offset: usize) -> Result<Shared<T>, MemoryError> {
    // SAFETY: as in `words`.
    unsafe { Shared::at(segment, offset) }
}

/// Words in a block of this process's arena that was allocated for them.
pub(crate) fn words_in<T: Overlay>(
    block: &Arc<Block>,
    offset: usize,
    count: usize,
) -> Result<SharedSlice<T>, MemoryError> {
    // SAFETY: blocks come here that are scratch areas, plans, picks or notes. Workers lay words over them, by `words`, and no
    // array.
    unsafe { SharedSlice::in_block(block, offset, count) }
}

/// The words of a copy of a control segment, to be written in pieces of 8 bytes. Only who holds a lock writes or reads them.
pub(crate) fn copied_words(
    segment: &Arc<Segment>,
    count: usize,
) -> Result<SharedSlice<AtomicU64>, MemoryError> {
    // SAFETY: the segment is this process's own and holds words only; words of other sizes are used under the same lock.
    unsafe { SharedSlice::at(segment, 0, count) }
}

/// The descriptor of a segment, for a message to another process of the pool.
pub(crate) fn descriptor(segment: &Segment) -> BorrowedFd<'_> {
    // SAFETY: it is sent, and mapped by `attach` where it arrives; neither side writes or cuts a file by way of it.
    unsafe { segment.fd() }
}

/// Maps what came with the parent's message: the segment that it calls so.
pub(crate) fn attach(id: SegmentId, fd: Descriptor, len: usize) -> Result<Arc<Segment>, MemoryError> {
    // SAFETY: the message came from the process that has started this one, over a socket that no other has; it sends its
    // segments under their own ids.
    unsafe { Segment::attach(id, fd, len, Access::ReadWrite) }
}

/// From now on this process asks `ask`, who asks the parent, for segments that it does not have.
pub(crate) fn ask_for_unknown_segments(ask: registry::Resolver) {
    // SAFETY: the parent answers with the descriptor of the segment that has this id there, by its own registry.
    unsafe { registry::set_resolver(ask) };
}
