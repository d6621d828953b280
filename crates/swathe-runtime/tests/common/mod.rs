//! Squares without types: position i of the slab counts how often it was run, times i * i + 1.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use swathe_memory::{SegmentId, SharedSlice, registry};
use swathe_runtime::{
    Call, Chunking, Engine, EngineConfig, Job, JobHandle, JobTraits, Retries, TaskRef, Trampoline,
};

fn output(params: &[u8]) -> Result<SharedSlice<AtomicU64>, String> {
    let word = |i: usize| u64::from_le_bytes(params[i * 8..i * 8 + 8].try_into().unwrap());
    let segment = registry::resolve(SegmentId::from_bits(word(0))).map_err(|e| e.to_string())?;
    #[expect(unsafe_code, reason = "the words of a slab that `job` has made")]
    // SAFETY: the parameters are those of `job`, whose slab holds words of this size and nothing else.
    let words = unsafe { SharedSlice::at(&segment, word(1) as usize, word(2) as usize) };
    words.map_err(|e| e.to_string())
}

/// Runs the strip; `before` may do harm at a position.
pub(crate) fn square_unless(call: &mut Call<'_>, before: impl Fn(u64)) {
    let (first, len) = (call.first, call.len);
    let (slab, rest) = call.cached(output).unwrap();
    for i in 0..len {
        rest.set_cursor(i);
        before(first + i);
        slab[(first + i) as usize].fetch_add((first + i) * (first + i) + 1, Ordering::Relaxed);
    }
}

/// A slab and a job over it, not yet submitted.
pub(crate) fn job(engine: &Engine, task: Trampoline, n: u64) -> (Job, SharedSlice<AtomicU64>) {
    let block = Arc::new(
        engine
            .memory()
            .alloc_zeroed((n as usize * 8).max(64), 64)
            .unwrap(),
    );
    #[expect(unsafe_code, reason = "words in a block that nobody else has")]
    // SAFETY: the block is new, and for these words only.
    let slab = unsafe { SharedSlice::in_block(&block, 0, n as usize) }.unwrap();
    let params = [block.segment().id().to_bits(), block.offset() as u64, n]
        .iter()
        .flat_map(|w| w.to_le_bytes())
        .collect();
    let job = Job {
        task: TaskRef::trampoline(task).unwrap(),
        heap_hint: 0,
        positions: n,
        chunking: Chunking::Auto,
        chunk_align: 8,
        params,
        traits: JobTraits::default(),
        seed: 0,
        base: 0,
        max_deaths: 3,
        retries: Retries::default(),
        element_timeout: None,
        timeout: None,
        in_place: None,
        durable: None,
        bytes: 0,
        lends: false,
        keep: Box::new(block),
        on_done: None,
    };
    (job, slab)
}

/// Waits with a watchdog that says where everybody is.
pub(crate) fn wait(engine: &Engine, handle: &JobHandle) {
    let over = handle.wait(Some(Duration::from_secs(60)));
    assert!(
        over,
        "watchdog: progress {:?}, workers {:?}",
        handle.progress(),
        engine.workers()
    );
}

/// Each position was run; `exactly` once if nobody died.
pub(crate) fn check(slab: &[AtomicU64], exactly: bool) {
    for (i, v) in (0..).zip(slab) {
        let v = v.load(Ordering::Relaxed);
        assert!(v > 0, "position {i} was not run");
        assert_eq!(v % (i * i + 1), 0, "position {i}");
        assert!(
            !exactly || v == i * i + 1,
            "position {i} was run {} times",
            v / (i * i + 1)
        );
    }
}

/// A pool of `processes`.
pub(crate) fn pool(processes: usize) -> Engine {
    Engine::start(EngineConfig {
        processes: Some(processes),
        ..Default::default()
    })
    .unwrap()
}

/// Polls until something holds, with a deadline.
pub(crate) fn until(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(30), "watchdog: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// SIGKILL to a process that this test started.
pub(crate) fn kill(pid: u32) {
    let _ = std::process::Command::new("kill")
        .args(["-9", &pid.to_string()])
        .status();
}

/// The parent of a process.
pub(crate) fn parent_of(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok())
}

/// Whether a process runs (a zombie does not).
pub(crate) fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}
