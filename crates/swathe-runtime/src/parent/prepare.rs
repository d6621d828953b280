//! A job is prepared before it is queued: cut into chunks, and given what it needs of the arena.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use swathe_os::process::{self};
use swathe_protocol::{JobTerms, status::MAX_CHUNK_LEN};

use crate::{
    error::EngineError,
    job::{Chunking, Job},
    parent::{core::Core, job::JobEntry, retry::Round},
    shared::scratch::ScratchStock,
};

/// Bytes of texts that the failures of one job may have, and the part of its memory that they may take.
const TEXTS: (u64, u64) = (64 << 20, 8);

/// Decides the chunks, and lays parameters and status words out in one block.
pub(crate) fn prepare(core: &Core, job: Job, processes: usize) -> Result<JobEntry, EngineError> {
    let chunk_len = chunk_len(&job, processes as u64)?;
    let chunks = job.positions.div_ceil(chunk_len);
    if chunks > u64::from(u32::MAX - 1) {
        return Err(EngineError::TooManyChunks {
            chunks,
            max: u64::from(u32::MAX - 1),
        });
    }
    let heap = match job.heap_hint {
        0 => None,
        bytes => Some(Arc::new(core.memory.alloc(bytes.next_multiple_of(64), 64)?)),
    };
    let flag = |on: bool, flag: u64| if on { flag } else { 0 };
    let nanoseconds =
        |time: Option<Duration>| time.map_or(0, |t| (t.as_nanos().min(u64::MAX.into()) as u64).max(1));
    let mut terms = JobTerms {
        task_object: job.task.0.object,
        task_offset: job.task.0.offset,
        positions: job.positions,
        chunk_len,
        chunks,
        flags: flag(job.traits.pinned, JobTerms::PINNED)
            | flag(job.in_place.is_some(), JobTerms::IN_PLACE)
            | flag(job.traits.whole_chunks, JobTerms::WHOLE_CHUNKS)
            // With retries it is the last round whose failures stop the job.
            | flag(job.traits.fail_fast, JobTerms::FAIL_FAST)
            | flag(job.traits.attended || job.on_done.is_some(), JobTerms::ATTENDED)
            | flag(job.durable.is_some(), JobTerms::DURABLE),
        seed: job.seed,
        base: job.base,
        heap_offset: heap.as_ref().map_or(0, |block| block.offset() as u64),
        heap_len: heap.as_ref().map_or(0, |block| block.len() as u64),
        params_len: job.params.len() as u64,
        attempt: 1,
        serial: serial(),
        element_ns: nanoseconds(job.element_timeout),
        deadline_ns: job.timeout.map_or(0, |time| {
            process::monotonic_ns().saturating_add(nanoseconds(Some(time)))
        }),
        ..JobTerms::default()
    };
    let last = job.retries.more == 0;
    let words = if job.durable.is_some() { 0 } else { chunks as usize };
    let scratch = core.stock.take(&core.memory, &job.params, words)?;
    let round = Round::first(&mut terms, scratch.clone(), job.durable.as_ref(), last)?;
    let (most, part) = TEXTS;
    let texts = most.min(core.memory.segment().len() as u64 / part);
    Ok(JobEntry::new(job, terms, round, scratch, heap, texts)?)
}

/// A number that no other job has, and that memory which was used for something else hardly holds.
fn serial() -> u64 {
    static JOBS: AtomicU64 = AtomicU64::new(1);
    let job = JOBS.fetch_add(1, Ordering::Relaxed);
    job.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Chunks a worker should find under automatic chunking: enough that the last ones even out.
const CHUNKS_A_WORKER: u64 = 256;

/// ScratchStock for jobs that are cut automatically.
pub(crate) fn stock(slots: usize) -> ScratchStock {
    ScratchStock::new(CHUNKS_A_WORKER as usize * slots, slots)
}

fn chunk_len(job: &Job, processes: u64) -> Result<u64, EngineError> {
    if job.traits.pinned {
        return Ok(1);
    }
    let wanted = match job.chunking {
        Chunking::Size(0) => return Err(EngineError::ZeroChunk),
        Chunking::Size(n) if n > MAX_CHUNK_LEN && job.positions > MAX_CHUNK_LEN => {
            return Err(EngineError::ChunkTooLong {
                asked: n,
                max: MAX_CHUNK_LEN,
            });
        }
        Chunking::Size(n) => return Ok(n.min(MAX_CHUNK_LEN)),
        Chunking::Pool => return Ok(job.positions.div_ceil(4 * processes).clamp(1, MAX_CHUNK_LEN)),
        Chunking::Auto if job.traits.whole_chunks => job.positions.div_ceil(16 * processes),
        Chunking::Auto => job.positions.div_ceil(CHUNKS_A_WORKER * processes),
    };
    let align = job.chunk_align.max(1);
    let aligned = if wanted > align {
        wanted.next_multiple_of(align)
    } else {
        wanted
    };
    Ok(aligned.clamp(1, MAX_CHUNK_LEN))
}
