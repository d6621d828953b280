//! What a pool keeps in memory.

use std::fs;

use crate::{
    Result,
    harness::{Bound, Measured, Setup, Side, Unit},
};

const MIB: Unit = Unit("MiB", 1.0 / 1048576.0);

/// Control block, idle workers, and a stream that must not grow.
pub(crate) fn memory(setup: &Setup) -> Result<Measured> {
    let stream = setup.sized(20_000_000) as u64;
    let pool = setup.pool()?;
    pool.run_per_worker(|| ())?; // all of them are there
    setup
        .bout(MIB, 3)
        .contender("control_block", || control_block().map(|bytes| bytes as f64))
        .contender("idle_worker", || {
            // The largest of them.
            let workers = pool.workers();
            let sizes = workers
                .iter()
                .map(|worker| private(worker.pid))
                .collect::<Result<Vec<_>>>()?;
            Ok(sizes.into_iter().max().ok_or("there are no workers")? as f64)
        })
        .contender("zygote", || {
            // One a pool, from which the workers are forked.
            let worker = pool
                .workers()
                .first()
                .map(|worker| worker.pid)
                .ok_or("there are no workers")?;
            let status = fs::read_to_string(format!("/proc/{worker}/status"))?;
            let parent = status
                .lines()
                .find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok());
            private(parent.ok_or("a worker has no parent")?).map(|bytes| bytes as f64)
        })
        .contender("imap_growth", || {
            // What this process holds, from the first tenth of a stream on.
            let (mut least, mut most) = (u64::MAX, 0);
            for (square, x) in pool.imap(|x: u64| x, 0..stream).zip(0..) {
                if square? != x {
                    return Err(format!("element {x} is another").into());
                }
                if x >= stream / 10 && x % (stream / 50) == 0 {
                    let now = resident()?;
                    (least, most) = (least.min(now), most.max(now));
                }
            }
            Ok((most - least) as f64)
        })
        .ratio("control_block", Side::Fixed(1.0), Bound::AtMost(1.0))
        .ratio("idle_worker", Side::Fixed(3.0), Bound::AtMost(1.0))
        .ratio("imap_growth", Side::Fixed(4.0), Bound::AtMost(1.0))
        .run()
}

/// Bytes of the pool's control segment.
fn control_block() -> Result<u64> {
    let mut sizes = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let path = entry?.path();
        // A descriptor may be closed by now: that of this listing is.
        let named = fs::read_link(&path)
            .is_ok_and(|target| target.to_string_lossy().starts_with("/memfd:swathe-control"));
        if named {
            sizes.push(fs::metadata(&path)?.len());
        }
    }
    sizes
        .into_iter()
        .max()
        .ok_or_else(|| "this process holds no control segment".into())
}

/// Bytes that belong to this process alone.
fn private(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).map_err(|error| format!("cannot read {path}: {error}"))?;
    Ok(kib(&text, "Private_Clean:") + kib(&text, "Private_Dirty:"))
}

/// Bytes that this process has in memory, shared ones included.
fn resident() -> Result<u64> {
    Ok(kib(&fs::read_to_string("/proc/self/status")?, "VmRSS:"))
}

/// The bytes of a line that gives KiB.
fn kib(text: &str, key: &str) -> u64 {
    let lines = text
        .lines()
        .filter_map(|line| line.strip_prefix(key)?.trim().strip_suffix("kB"));
    lines
        .filter_map(|number| number.trim().parse::<u64>().ok())
        .sum::<u64>()
        * 1024
}
