//! Scratch areas: what a job needs in the arena besides its arrays. Parameters, a status word for each chunk, notes of deaths, a
//! tally for each worker.
//!
//! Small jobs take a scratch area that an earlier one has used. Nothing on it is cleared: status words are told apart by their
//! tag, tallies by their serial number. What workers wrote stays in their cores' caches, and what the parent wrote in
//! its own, so a job does not begin with moving it all to and fro.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use parking_lot::Mutex;
use swathe_memory::{Memory, MemoryError, SharedSlice};
use swathe_protocol::{StatusWord, Tag, Tally};

use crate::shared::{bytes, memory};

/// How many positions that cost workers are remembered for tasks that ask which try this is.
pub(crate) const DEATHS: u64 = 32;
pub(crate) const DEATHS_WORDS: usize = 1 + 2 * DEATHS as usize;

/// One job's share of the arena.
pub(crate) struct Scratch {
    start: usize,
    layout: Layout,
    params: SharedSlice<AtomicU64>,
    status: SharedSlice<StatusWord>,
    pub(crate) deaths: SharedSlice<AtomicU64>,
    /// One a slot.
    pub(crate) tallies: SharedSlice<Tally>,
    /// Of the job that uses it, or was the last to.
    tag: AtomicU64,
    /// Status words that were used since they were last cleared.
    used: AtomicUsize,
    /// In which age of its stock it was made; none for one that was made for one job.
    age: Option<u64>,
}

/// The parts of a block, bytes from its start.
#[derive(Clone, Copy)]
struct Layout {
    status: usize,
    deaths: usize,
    tallies: usize,
    end: usize,
}

impl Layout {
    fn of(params: usize, chunks: usize, slots: usize) -> Self {
        let status = params.next_multiple_of(64);
        // A line of its own: status words are written by all workers.
        let deaths = (status + chunks * 4).next_multiple_of(64);
        let tallies = (deaths + DEATHS_WORDS * 8).next_multiple_of(align_of::<Tally>());
        Self {
            status,
            deaths,
            tallies,
            end: tallies + slots * size_of::<Tally>(),
        }
    }
}

impl Scratch {
    /// A scratch area for one job, or one round of it: parameters of so many bytes, so many chunks, tallies for so many slots.
    pub(crate) fn new(
        memory: &Memory,
        params: usize,
        chunks: usize,
        slots: usize,
    ) -> Result<Self, MemoryError> {
        let layout = Layout::of(params, chunks, slots);
        // The tallies at its end are cleared by whoever opens them.
        let block = Arc::new(memory.alloc_zeroed_to(layout.tallies, layout.end, align_of::<Tally>())?);
        Ok(Self {
            start: block.offset(),
            params: memory::words_in(&block, 0, bytes::words_for(params))?,
            status: memory::words_in(&block, layout.status, chunks)?,
            deaths: memory::words_in(&block, layout.deaths, DEATHS_WORDS)?,
            tallies: memory::words_in(&block, layout.tallies, slots)?,
            layout,
            tag: AtomicU64::new(Tag::NONE.to_word()),
            used: AtomicUsize::new(0),
            age: None,
        })
    }

    /// For the next job, of so many chunks: none of them is final, and nobody has died. Nobody uses the area any more.
    fn renew(&self, chunks: usize) {
        let mut used = self.used.load(Ordering::Relaxed);
        let tag = self.tag().next().unwrap_or_else(|| {
            self.status[..used].iter().for_each(StatusWord::reset);
            used = 0;
            Tag::FIRST
        });
        self.used.store(used.max(chunks), Ordering::Relaxed);
        self.tag.store(tag.to_word(), Ordering::Relaxed);
        self.deaths[0].store(0, Ordering::Relaxed);
    }

    /// The tag of its status words.
    pub(crate) fn tag(&self) -> Tag {
        Tag::from_word(self.tag.load(Ordering::Relaxed))
    }

    /// The status words of a job with so many chunks.
    pub(crate) fn status(&self, chunks: usize) -> &[StatusWord] {
        &self.status[..chunks]
    }

    /// Writes a job's parameters.
    pub(crate) fn write_params(&self, params: &[u8]) {
        bytes::write(&self.params, params);
    }

    /// Where each part lies, bytes into the data segment.
    pub(crate) fn params_offset(&self) -> u64 {
        self.start as u64
    }

    pub(crate) fn status_offset(&self) -> u64 {
        (self.start + self.layout.status) as u64
    }

    pub(crate) fn deaths_offset(&self) -> u64 {
        (self.start + self.layout.deaths) as u64
    }

    pub(crate) fn tallies_offset(&self) -> u64 {
        (self.start + self.layout.tallies) as u64
    }
}

/// Bytes of parameters that an area in stock has room for.
const PARAMS: usize = 2048;
/// How many areas are kept in stock.
const SPARE: usize = 8;

/// The scratch areas of a pool that are in no job, for jobs of usual size.
pub(crate) struct ScratchStock {
    /// Room for the chunks of a job that was cut automatically.
    chunks: usize,
    slots: usize,
    stock: Mutex<Stock>,
}

#[derive(Default)]
struct Stock {
    age: u64,
    areas: Vec<Arc<Scratch>>,
}

impl ScratchStock {
    pub(crate) fn new(chunks: usize, slots: usize) -> Self {
        Self {
            chunks,
            slots,
            stock: Mutex::default(),
        }
    }

    /// A scratch area with these parameters, on which none of the chunks is final.
    pub(crate) fn take(
        &self,
        memory: &Memory,
        params: &[u8],
        chunks: usize,
    ) -> Result<Arc<Scratch>, MemoryError> {
        let scratch = if chunks > self.chunks || params.len() > PARAMS {
            Arc::new(Scratch::new(memory, params.len(), chunks, self.slots)?)
        } else {
            let (age, used) = {
                let mut stock = self.stock.lock();
                (stock.age, stock.areas.pop())
            };
            match used {
                Some(scratch) => scratch,
                None => Arc::new(Scratch {
                    age: Some(age),
                    ..Scratch::new(memory, PARAMS, self.chunks, self.slots)?
                }),
            }
        };
        scratch.renew(chunks);
        scratch.write_params(params);
        Ok(scratch)
    }

    /// The job is over, and no worker can write there for it any more. Its handles may still read.
    pub(crate) fn give(&self, scratch: Arc<Scratch>) {
        let mut stock = self.stock.lock();
        if scratch.age == Some(stock.age) && stock.areas.len() < SPARE {
            stock.areas.push(scratch);
        }
    }

    /// A worker has died, and may have written anything anywhere before: no area that it could reach is used again.
    pub(crate) fn renounce(&self) {
        let mut stock = self.stock.lock();
        stock.age += 1;
        stock.areas.clear();
    }
}
