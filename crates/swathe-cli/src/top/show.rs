//! What was seen, for people and for programs.

use std::fmt::Write;

use serde_json::{Value, json};

use super::look::{JobLook, Look, PoolLook, WorkerLook};
use crate::{tables, units};

/// Width of a job's bar.
const BAR: usize = 30;

/// For people: a head and a table for each pool.
pub(crate) fn text(look: &Look) -> String {
    let mut text = String::new();
    for (i, pool) in look.pools.iter().enumerate() {
        let _ = writeln!(
            text,
            "process {}, pool {} of {}: {} workers, {} replaced, {} elements/s{}",
            look.pid,
            i + 1,
            look.pools.len(),
            pool.workers.len(),
            pool.replaced(),
            units::decimal(pool.rate()),
            if pool.is_closing { ", closing" } else { "" },
        );
        for job in &pool.jobs {
            let _ = writeln!(text, "{}", job_line(job));
        }
        if pool.jobs.is_empty() {
            let _ = writeln!(text, "no job");
        }
        let _ = writeln!(text, "{}\n", workers(pool));
    }
    text
}

fn job_line(job: &JobLook) -> String {
    let full = (job.progress * BAR as f64) as usize;
    let bar = "#".repeat(full) + &"-".repeat(BAR.saturating_sub(full));
    let (now, percent) = (&job.now, job.progress * 100.0);
    let failed = match now.failed {
        0 => String::new(),
        n => format!(", {n} failed"),
    };
    let attempt = match now.attempt {
        0 | 1 => String::new(),
        n => format!(", try {n}"),
    };
    format!(
        "job {} [{bar}] {percent:.0} % of {} elements in {} chunks, {}{failed}{attempt}",
        now.id, now.positions, now.chunks, now.state
    )
}

fn workers(pool: &PoolLook) -> String {
    let mut table = tables::table([
        "worker", "pid", "state", "job", "in hand", "for", "per s", "busy", "private", "shared", "elements",
    ]);
    for worker in &pool.workers {
        table.add_row(row(worker));
    }
    tables::text(table, |column| column != 2)
}

fn row(worker: &WorkerLook) -> Vec<String> {
    let now = &worker.now;
    let known = |text: Option<String>| text.unwrap_or_default();
    let strip = now.strip.as_ref().map(|strip| match strip.end - strip.start {
        1 => strip.start.to_string(),
        _ => format!("{}-{}", strip.start, strip.end - 1),
    });
    vec![
        now.index.to_string(),
        now.pid.to_string(),
        state(worker),
        known(now.job.map(|job| job.to_string())),
        known(strip),
        known(now.strip_age.map(|age| units::seconds(age.as_secs_f64()))),
        known(worker.rate.map(units::decimal)),
        known(worker.busy.map(|busy| format!("{:.0} %", busy * 100.0))),
        known(worker.memory.map(|memory| units::bytes(memory.private))),
        known(worker.memory.map(|memory| units::bytes(memory.shared))),
        now.elements.to_string(),
    ]
}

fn state(worker: &WorkerLook) -> String {
    let now = &worker.now;
    let mut state = if now.is_asleep {
        "asleep".to_owned()
    } else {
        now.phase.to_string()
    };
    if now.is_rerun {
        state += ", again";
    }
    if now.incarnation > 1 {
        let _ = write!(state, ", process {}", now.incarnation);
    }
    state
}

/// For programs: one object a look.
pub(crate) fn json(look: &Look) -> Value {
    json!({
        "pid": look.pid,
        "pools": look.pools.iter().map(pool_json).collect::<Vec<_>>(),
    })
}

fn pool_json(pool: &PoolLook) -> Value {
    json!({
        "is_closing": pool.is_closing,
        "elements_per_second": pool.rate(),
        "replaced": pool.replaced(),
        "workers": pool.workers.iter().map(worker_json).collect::<Vec<_>>(),
        "jobs": pool.jobs.iter().map(job_json).collect::<Vec<_>>(),
    })
}

fn worker_json(worker: &WorkerLook) -> Value {
    let now = &worker.now;
    json!({
        "index": now.index,
        "pid": now.pid,
        "incarnation": now.incarnation,
        "phase": now.phase.to_string(),
        "is_asleep": now.is_asleep,
        "job": now.job,
        "first_position": now.strip.as_ref().map(|strip| strip.start),
        "last_position": now.strip.as_ref().map(|strip| strip.end.saturating_sub(1)),
        "seconds_in_hand": now.strip_age.map(|age| age.as_secs_f64()),
        "is_rerun": now.is_rerun,
        "elements": now.elements,
        "elements_per_second": worker.rate,
        "busy_seconds": now.busy.as_secs_f64(),
        "busy": worker.busy,
        "private_bytes": worker.memory.map(|memory| memory.private),
        "shared_bytes": worker.memory.map(|memory| memory.shared),
    })
}

fn job_json(job: &JobLook) -> Value {
    let now = &job.now;
    json!({
        "id": now.id,
        "state": now.state.to_string(),
        "elements": now.positions,
        "chunks": now.chunks,
        "chunks_done": now.chunks_done,
        "progress": job.progress,
        "failed": now.failed,
        "attempt": now.attempt,
    })
}
