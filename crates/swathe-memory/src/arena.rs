//! The arena: one sparse memory file a process, from which arrays and slabs are allocated.
//!
//! Its capacity is virtual; pages are taken in granules of 2 MiB when an allocation first touches them, as huge pages
//! where the kernel has some. Freed ranges keep their pages (*warm*) and are handed out again, up to a limit; beyond it
//! pages go back to the system. Only the process that made an arena allocates in it. See `README.md` in this directory.

pub mod capacity;
mod free_ranges;
mod granules;
mod recent;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, LazyLock, Weak};

use parking_lot::{Mutex, RwLock};
use swathe_os::mapping::HUGE_PAGE;
use swathe_os::{cores, memory_limits, numa, process};

use crate::error::MemoryError;
use crate::placement::Placement;
use crate::segment::{Origin, Segment, SegmentId};

use capacity::Capacity;
use free_ranges::FreeRanges;
use granules::Granules;
use recent::Recent;

/// Every block starts and ends on a cache line, so that two blocks never share one.
pub const BLOCK_ALIGN: usize = 64;

/// Fresh memory from this size on is checked against the limits of the system.
const CHECKED_FROM: usize = 1 << 20;

/// The most that is left to the heaps and stacks of the processes beside an arena.
const RESERVE: u64 = 1 << 30;

/// An arena. A cheap clone; the memory lives until the last clone and the last block are gone.
#[derive(Clone)]
pub struct Memory(Arc<Arena>);

struct Arena {
    segment: Arc<Segment>,
    /// The process that may allocate: a forked child has a copy of `state` that knows nothing of its parent's blocks.
    owner: u32,
    /// Bytes of free warm memory that are kept for the next allocation.
    warm_limit: usize,
    /// A [`Placement`], as a number.
    placement: AtomicU8,
    state: Mutex<State>,
}

struct State {
    free: FreeRanges,
    recent: Recent,
    granules: Granules,
    in_use: usize,
    /// Bytes whose granules are marked warm but whose pages are still being taken.
    settling: usize,
    /// Blocks that references were made to, by offset.
    published: BTreeMap<usize, Weak<Block>>,
    next_serial: u64,
}

/// What an arena holds at this moment, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryStats {
    /// What the arena can hold at most; virtual, mostly without pages.
    pub capacity: usize,
    /// Held by blocks, rounded up to cache lines.
    pub in_use: usize,
    /// Backed by pages, in use or kept for the next allocation.
    pub warm: usize,
    /// Of `warm`, what this process maps through huge pages: what was obtained, not what was asked for.
    pub huge_page_bytes: usize,
}

/// The arenas that this process made, for finding the block behind a reference.
static ARENAS: LazyLock<RwLock<HashMap<SegmentId, Weak<Arena>>>> = LazyLock::new(RwLock::default);

/// The arena of [`Memory::global`].
static GLOBAL: Mutex<Option<Memory>> = Mutex::new(None);

impl Memory {
    /// The arena of this process, made at first use.
    ///
    /// Its capacity is four times the physical memory and at least 16 GiB, less where the address space or the file
    /// size is limited. It is address space, which each process of a pool maps, and no memory until it is used. Where
    /// that is counted (Grid Engine's `h_vmem`, say), bound it: with the environment variable `SWATHE_ARENA` (`8G`), or
    /// with [`reserve_global`](Self::reserve_global).
    ///
    /// # Errors
    /// When not even 64 MiB can be mapped, or not what `SWATHE_ARENA` or the program asked for; when `SWATHE_ARENA` makes
    /// no sense.
    pub fn global() -> Result<Memory, MemoryError> {
        let mut global = GLOBAL.lock();
        if let Some(memory) = own(&global) {
            return Ok(memory);
        }
        let memory = match capacity::choose()? {
            Capacity::Exactly(bytes) => Memory::with_capacity(bytes)?,
            Capacity::AtMost(bytes) => Memory::as_large_as_possible(bytes)?,
        };
        tracing::debug!(capacity = memory.segment().len(), segment = %memory.segment().id(), "arena made");
        // The arena that a forked child inherited stays mapped for the arrays that it inherited with it.
        if let Some(inherited) = global.replace(memory.clone()) {
            std::mem::forget(inherited);
        }
        Ok(memory)
    }

    /// Sets the capacity that [`global`](Self::global) will have, in this process and in the workers of its pools: at least
    /// 64 MiB. Call it before the first array and the first pool. The environment variable `SWATHE_ARENA` goes before it.
    ///
    /// ```
    /// use swathe_memory::Memory;
    ///
    /// Memory::reserve_global(1 << 30).unwrap();
    /// assert_eq!(Memory::global().unwrap().stats().capacity, 1 << 30);
    /// ```
    ///
    /// # Errors
    /// When the arena is there already.
    pub fn reserve_global(bytes: usize) -> Result<(), MemoryError> {
        let global = GLOBAL.lock();
        if let Some(memory) = own(&global) {
            return Err(MemoryError::AlreadyReserved {
                capacity: memory.segment().len() as u64,
            });
        }
        capacity::ask(bytes);
        Ok(())
    }

    fn as_large_as_possible(mut bytes: usize) -> Result<Memory, MemoryError> {
        loop {
            match Memory::with_capacity(bytes) {
                Err(_) if bytes / 2 >= capacity::LEAST => bytes /= 2,
                result => return result,
            }
        }
    }

    /// A separate arena for at most `bytes` bytes, rounded up to 2 MiB.
    ///
    /// # Errors
    /// When the kernel refuses the memory file or the mapping.
    pub fn with_capacity(bytes: usize) -> Result<Memory, MemoryError> {
        let too_large = MemoryError::TooLarge {
            count: bytes,
            element_size: 1,
        };
        let capacity = bytes
            .max(1)
            .checked_next_multiple_of(HUGE_PAGE)
            .ok_or(too_large)?;
        let warm_limit = usize::try_from(memory_limits::physical_memory() / 4).unwrap_or(usize::MAX);
        Memory::make(capacity, process::id(), warm_limit)
    }

    fn make(capacity: usize, owner: u32, warm_limit: usize) -> Result<Memory, MemoryError> {
        let segment = Segment::create_memfd("swathe-arena", capacity, Origin::Arena)?;
        let id = segment.id();
        let arena = Arc::new(Arena {
            segment,
            owner,
            warm_limit,
            placement: AtomicU8::new(0),
            state: Mutex::new(State {
                free: FreeRanges::new(capacity),
                recent: Recent::default(),
                granules: Granules::new(capacity),
                in_use: 0,
                settling: 0,
                published: BTreeMap::new(),
                next_serial: 1,
            }),
        });
        ARENAS.write().insert(id, Arc::downgrade(&arena));
        Ok(Memory(arena))
    }

    /// The arena behind a segment, if this very process made it.
    pub(crate) fn owner_of(id: SegmentId) -> Option<Memory> {
        let arena = ARENAS.read().get(&id)?.upgrade()?;
        (arena.owner == process::id()).then_some(Memory(arena))
    }

    /// Takes `len` bytes that start at a multiple of `align` (at least of 64; of 2 MiB for 2 MiB and more).
    ///
    /// The bytes are initialised but arbitrary: recycled memory keeps what its last user wrote. Memory that is taken
    /// for the first time gets its pages here, so that a shortage is this error and not a later SIGBUS.
    ///
    /// # Errors
    /// [`MemoryError::Shortage`] when the system has too little memory, [`MemoryError::ArenaFull`] when the arena has,
    /// [`MemoryError::ForeignArena`] in a forked child.
    pub fn alloc(&self, len: usize, align: usize) -> Result<Block, MemoryError> {
        self.take(len, align).map(|(block, _)| block)
    }

    /// As [`alloc`](Self::alloc); says whether all of it is fresh, and so holds nothing of an earlier user.
    pub(crate) fn alloc_noting(&self, len: usize, align: usize) -> Result<(Block, bool), MemoryError> {
        let (block, fresh) = self.take(len, align)?;
        let end = block.offset + block.len;
        let fresh = fresh
            .iter()
            .map(|run| run.end.min(end) - run.start.clamp(block.offset, end.min(run.end)));
        let is_fresh = fresh.sum::<usize>() == block.len;
        Ok((block, is_fresh))
    }

    /// As [`alloc`](Self::alloc), and all bytes are zero. Fresh memory is zero already and costs nothing more.
    ///
    /// # Errors
    /// As [`alloc`](Self::alloc).
    pub fn alloc_zeroed(&self, len: usize, align: usize) -> Result<Block, MemoryError> {
        self.alloc_zeroed_to(len, len, align)
    }

    /// As [`alloc`](Self::alloc), and the first `zeroed` bytes are zero.
    ///
    /// # Errors
    /// As [`alloc`](Self::alloc).
    ///
    /// # Panics
    /// If more bytes are to be zero than there are.
    pub fn alloc_zeroed_to(&self, zeroed: usize, len: usize, align: usize) -> Result<Block, MemoryError> {
        assert!(zeroed <= len, "{zeroed} of {len} bytes cannot be zero");
        let (block, fresh) = self.take(len, align)?;
        let end = block.offset + zeroed;
        let mut stale_from = block.offset;
        for fresh in fresh.into_iter().chain(std::iter::once(end..end)) {
            let stale_to = fresh.start.clamp(stale_from, end);
            // SAFETY: stale_from..stale_to lies in the block, which nobody else knows yet.
            unsafe {
                let start = block.as_ptr().byte_add(stale_from - block.offset);
                start.write_bytes(0, stale_to - stale_from);
            }
            stale_from = fresh.end.clamp(stale_to, end);
        }
        Ok(block)
    }

    /// Takes a block; with it, in address order, the ranges that got their pages for it and therefore hold zeros.
    fn take(&self, len: usize, align: usize) -> Result<(Block, Vec<Range<usize>>), MemoryError> {
        let arena = &*self.0;
        arena.check_owner()?;
        if !align.is_power_of_two() || align > HUGE_PAGE {
            return Err(MemoryError::Alignment { align });
        }
        let too_large = MemoryError::TooLarge {
            count: len,
            element_size: 1,
        };
        let size = block_size(len).ok_or(too_large)?;
        let align = align.max(if size >= HUGE_PAGE { HUGE_PAGE } else { BLOCK_ALIGN });

        let mut state = arena.state.lock();
        if let Some(offset) = state.recent.take(size, align) {
            // Its granules are warm: only free ranges are cooled.
            return Ok((self.block(&mut state, offset, len, size), Vec::new()));
        }
        let found = state.free.take(size, align).or_else(|| {
            state.free_recent();
            state.free.take(size, align)
        });
        let Some(offset) = found else {
            return Err(MemoryError::ArenaFull {
                needed: size as u64,
                capacity: arena.segment.len() as u64,
                in_use: state.in_use as u64,
                align: align as u64,
                longest_free: state.free.longest(align) as u64,
            });
        };
        let range = offset..offset + size;
        let cold = state.granules.cold(&range);
        let fresh_bytes = cold.iter().map(Range::len).sum::<usize>();
        if let Err(shortage) = arena.check_headroom(&mut state, fresh_bytes) {
            state.free.give(range);
            return Err(shortage);
        }
        for run in &cold {
            state.granules.mark(run, true);
        }
        state.settling += fresh_bytes;
        // From here on dropping the block undoes it all.
        let block = self.block(&mut state, offset, len, size);
        drop(state);
        if cold.is_empty() {
            return Ok((block, cold));
        }

        let warmed = cold.iter().try_for_each(|run| arena.warm_up(run));
        arena.state.lock().settling -= fresh_bytes;
        if let Err(source) = warmed {
            drop(block);
            // Granules that are marked warm but have no pages must not be taken for reserved memory.
            self.trim();
            return Err(MemoryError::Pages {
                needed: fresh_bytes as u64,
                source,
            });
        }
        Ok((block, cold))
    }

    /// The block for a range that was just taken, `size` bytes long.
    fn block(&self, state: &mut State, offset: usize, len: usize, size: usize) -> Block {
        state.in_use += size;
        let serial = state.next_serial;
        state.next_serial += 1;
        Block {
            memory: self.clone(),
            offset,
            len,
            serial,
        }
    }

    /// Says where pages are taken from that are taken from now on; those that are there stay where they are.
    ///
    /// # Errors
    /// When the kernel has no NUMA support, or in a forked child.
    pub fn set_placement(&self, placement: Placement) -> Result<(), MemoryError> {
        let arena = &*self.0;
        arena.check_owner()?;
        let nodes = match placement {
            Placement::Interleave => cores::numa_nodes().into_iter().map(|node| node.id).collect(),
            Placement::Local | Placement::FirstTouch => Vec::new(),
        };
        numa::interleave(arena.segment.mapping(), &nodes)
            .map_err(|source| MemoryError::Placement { placement, source })?;
        arena.placement.store(placement as u8, Ordering::Relaxed);
        Ok(())
    }

    /// Bytes in use, kept warm and on huge pages now.
    pub fn stats(&self) -> MemoryStats {
        let state = self.0.state.lock();
        let (in_use, warm) = (state.in_use, state.granules.warm_bytes());
        drop(state);
        MemoryStats {
            capacity: self.0.segment.len(),
            in_use,
            warm,
            // Without /proc nothing is known to be huge.
            huge_page_bytes: self.0.segment.mapping().huge_page_bytes().unwrap_or(0),
        }
    }

    /// The segment that blocks lie in.
    pub fn segment(&self) -> &Arc<Segment> {
        &self.0.segment
    }

    /// Gives the pages of all free memory back to the system and returns how many bytes that were.
    pub fn trim(&self) -> usize {
        let arena = &*self.0;
        match arena.check_owner() {
            Ok(()) => arena.cool_to(&mut arena.state.lock(), 0),
            Err(_) => 0,
        }
    }

    /// The live, published block that holds the range, if it is the one with this serial number.
    pub(crate) fn find_published(&self, range: &Range<usize>, serial: u64) -> Option<Arc<Block>> {
        let state = self.0.state.lock();
        let (_, block) = state.published.range(..=range.start).next_back()?;
        // Upgraded while the lock is held: a block leaves the map, under the same lock, before its range is free.
        let block = block.upgrade();
        // A block that lost the race is dropped here, which takes the lock.
        drop(state);
        block.filter(|block| block.serial == serial && range.end <= block.offset + block.len)
    }
}

impl State {
    /// Makes the small blocks free for good that were kept aside.
    fn free_recent(&mut self) {
        for range in self.recent.drain() {
            self.free.give(range);
        }
    }
}

impl Arena {
    fn check_owner(&self) -> Result<(), MemoryError> {
        let current = process::id();
        if self.owner != current {
            return Err(MemoryError::ForeignArena {
                owner: self.owner,
                current,
            });
        }
        Ok(())
    }

    /// Checks that the system can give `fresh` more bytes, giving back idle ones of this arena if that is what it takes.
    fn check_headroom(&self, state: &mut State, fresh: usize) -> Result<(), MemoryError> {
        if fresh < CHECKED_FROM {
            return Ok(());
        }
        let shortage = |state: &State| {
            let headroom = memory_limits::page_headroom();
            // Processes need stacks and heaps besides: the last sixteenth of what is left is not ours to take.
            let reserve = (headroom.bytes / 16).min(RESERVE);
            let available = headroom.bytes.saturating_sub(reserve + state.settling as u64);
            (available < fresh as u64).then_some(MemoryError::Shortage {
                needed: fresh as u64,
                available,
                limited_by: headroom.limited_by,
            })
        };
        match shortage(state) {
            None => Ok(()),
            Some(error) if self.cool_to(state, 0) == 0 => Err(error),
            Some(_) => shortage(state).map_or(Ok(()), Err),
        }
    }

    /// Takes pages for whole cold granules: huge ones if the kernel has them, ordinary ones if not.
    fn warm_up(&self, range: &Range<usize>) -> std::io::Result<()> {
        if self.placement.load(Ordering::Relaxed) == Placement::FirstTouch as u8 {
            return Ok(());
        }
        let mapping = self.segment.mapping();
        match mapping.collapse(self.segment.descriptor(), range.start, range.len()) {
            Ok(()) => Ok(()),
            Err(error) => {
                tracing::debug!(%error, bytes = range.len(), "no huge pages, falling back to ordinary ones");
                mapping.populate_write(self.segment.descriptor(), range.start, range.len())
            }
        }
    }

    /// Gives back pages of free granules, highest first, until at most `limit` bytes of warm memory are not in use.
    /// Returns the bytes given back.
    fn cool_to(&self, state: &mut State, limit: usize) -> usize {
        let before = state.granules.warm_bytes();
        state.free_recent();
        let State { free, granules, .. } = state;
        for range in free.descending() {
            for run in granules.warm_inside(&range).into_iter().rev() {
                let idle = granules.warm_bytes().saturating_sub(state.in_use);
                if idle <= limit {
                    return before - granules.warm_bytes();
                }
                let surplus = (idle - limit).next_multiple_of(HUGE_PAGE).min(run.len());
                let cooled = run.end - surplus..run.end;
                match self
                    .segment
                    .mapping()
                    .punch_hole(self.segment.descriptor(), cooled.start, surplus)
                {
                    Ok(()) => granules.mark(&cooled, false),
                    Err(error) => tracing::warn!(%error, "free memory could not be given back"),
                }
            }
        }
        before - granules.warm_bytes()
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        ARENAS.write().remove(&self.segment.id());
    }
}

/// A range of an arena, owned: freed when dropped. Its bytes stay where they are, in every process, until then.
pub struct Block {
    memory: Memory,
    offset: usize,
    len: usize,
    /// Tells this block from later ones at the same offset.
    serial: u64,
}

impl Block {
    /// Address of the first byte in this process, valid for [`len`](Self::len) bytes while the block lives.
    pub fn as_ptr(&self) -> NonNull<u8> {
        let base = self.memory.0.segment.mapping().as_ptr();
        // SAFETY: the allocator hands out offsets inside the mapping only.
        unsafe { base.byte_add(self.offset) }
    }

    /// Bytes asked for.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no bytes were asked for.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Position of the first byte in the arena's segment.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// The arena that the block is taken from.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The arena's segment.
    pub fn segment(&self) -> &Arc<Segment> {
        self.memory.segment()
    }

    pub(crate) fn serial(&self) -> u64 {
        self.serial
    }

    /// Lets references to this block be resolved in this process for as long as it lives.
    pub(crate) fn publish(self: &Arc<Self>) {
        let arena = &*self.memory.0;
        arena
            .state
            .lock()
            .published
            .insert(self.offset, Arc::downgrade(self));
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let arena = &*self.memory.0;
        // A forked child drops its copies of its parent's blocks; the parent's memory is not its to free.
        if arena.check_owner().is_err() {
            return;
        }
        let Some(size) = block_size(self.len) else { return };
        let mut state = arena.state.lock();
        state.published.remove(&self.offset);
        if let Some(range) = state.recent.give(self.offset..self.offset + size) {
            state.free.give(range);
        }
        state.in_use -= size;
        let idle = state.granules.warm_bytes().saturating_sub(state.in_use);
        if idle > arena.warm_limit {
            arena.cool_to(&mut state, arena.warm_limit);
        }
    }
}

/// Bytes that a block of `len` bytes takes: whole cache lines, at least one.
fn block_size(len: usize) -> Option<usize> {
    len.max(1).checked_next_multiple_of(BLOCK_ALIGN)
}

/// The arena of [`Memory::global`], if this very process made it.
fn own(global: &Option<Memory>) -> Option<Memory> {
    global
        .as_ref()
        .filter(|memory| memory.0.owner == process::id())
        .cloned()
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory")
            .field("segment", &self.segment().id())
            .field("capacity", &self.segment().len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Block")
            .field("segment", &self.segment().id())
            .field("offset", &self.offset)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
