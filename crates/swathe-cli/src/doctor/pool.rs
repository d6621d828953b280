//! A pool, tried.

use std::{fs, time::Instant};

use swathe::Pool;

use super::finding::{Finding, Severity};
use crate::units;

const SECTION: &str = "pool";

pub(super) fn examine() -> Vec<Finding> {
    let workers = swathe::cores().count;
    tried(workers).unwrap_or_else(|error| {
        vec![
            Finding::ok(SECTION, format!("{workers} workers"), error.to_string()).but(
                Severity::Failure,
                "do what the error says; the failures above, if there are any, are the likely cause",
            ),
        ]
    })
}

fn tried(workers: usize) -> swathe::Result<Vec<Finding>> {
    let start = Instant::now();
    let pool = Pool::builder().processes(workers).build()?;
    let pids = pool.run_per_worker(std::process::id)?;
    let started = start.elapsed();
    let start = Instant::now();
    let sums = pool.map(|x: u64| x + 1, 0..1000)?;
    let mapped = start.elapsed();
    let is_right = sums.iter().zip(1..).all(|(sum, x)| *sum == x);
    let watchable = pids
        .iter()
        .all(|pid| fs::read_dir(format!("/proc/{pid}/fd")).is_ok());
    pool.close();
    pool.join()?;
    let who = match workers {
        1 => "the one process has".to_owned(),
        n => format!("all {n} processes have"),
    };
    let start = format!("{who} answered after {}", units::seconds(started.as_secs_f64()));
    let map = format!(
        "a map of 1000 numbers took {}",
        units::seconds(mapped.as_secs_f64())
    );
    Ok(vec![
        Finding::ok(SECTION, "start", start),
        match is_right {
            true => Finding::ok(SECTION, "work", map),
            false => Finding::ok(SECTION, "work", "a map gave wrong numbers").but(
                Severity::Failure,
                "please report this, with what `swathe doctor --json` says",
            ),
        },
        match watchable {
            true => Finding::ok(SECTION, "swathe top", "can look into pools of this user"),
            false => Finding::ok(SECTION, "swathe top", "cannot look into other processes")
                .by("/proc/PID/fd")
                .but(
                    Severity::Note,
                    "mount /proc without hidepid, or do without `swathe top`; pools do not need it",
                ),
        },
    ])
}
