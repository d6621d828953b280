//! Two looks at the pools of a process, and what lies between them.

use std::{collections::BTreeMap, time::Duration};

use swathe::observe::{self, JobView, ObservedPool, PoolView, WorkerView};

use super::memory::{Memory, memory};

/// The pools of a process, watched.
pub(crate) struct Watched {
    pid: u32,
    pools: Vec<(ObservedPool, Option<PoolView>)>,
}

/// What was seen.
pub(crate) struct Look {
    pub(crate) pid: u32,
    pub(crate) pools: Vec<PoolLook>,
}

/// A pool now, against what it was before.
pub(crate) struct PoolLook {
    pub(crate) is_closing: bool,
    pub(crate) workers: Vec<WorkerLook>,
    pub(crate) jobs: Vec<JobLook>,
}

/// A worker now, against what it was before.
pub(crate) struct WorkerLook {
    pub(crate) now: WorkerView,
    /// Elements a second since the last look; `None` if it is another process.
    pub(crate) rate: Option<f64>,
    /// Its part of the time since the last look that it spent in tasks.
    pub(crate) busy: Option<f64>,
    /// `None`: it has just ended.
    pub(crate) memory: Option<Memory>,
}

/// A job.
pub(crate) struct JobLook {
    pub(crate) now: JobView,
    /// Its chunks done, 0 to 1.
    pub(crate) progress: f64,
}

impl PoolLook {
    /// Elements a second of all workers.
    pub(crate) fn rate(&self) -> f64 {
        self.workers
            .iter()
            .filter_map(|worker| worker.rate)
            .fold(0.0, |sum, rate| sum + rate)
    }

    /// Whether none of its processes is there any more.
    fn is_dead(&self) -> bool {
        !self.workers.is_empty() && self.workers.iter().all(|worker| worker.memory.is_none())
    }

    /// Processes that stand in for others which died or were recycled.
    pub(crate) fn replaced(&self) -> u64 {
        let incarnations = self
            .workers
            .iter()
            .map(|worker| u64::from(worker.now.incarnation));
        incarnations.map(|n| n.saturating_sub(1)).sum()
    }
}

impl Watched {
    pub(crate) fn new(pid: u32, pools: Vec<ObservedPool>) -> Self {
        Self {
            pid,
            pools: pools.into_iter().map(|pool| (pool, None)).collect(),
        }
    }

    /// Looks for pools that were built or dropped since.
    pub(crate) fn find_more(&mut self, look: &Look) {
        // If there is none just now, or the process is ending, those that are known are shown on.
        if let Ok(pools) = observe::pools(self.pid)
            && (pools.len() != self.pools.len() || look.pools.iter().any(PoolLook::is_dead))
        {
            *self = Self::new(self.pid, pools);
            self.look();
        }
    }

    /// Looks at all pools; rates are since the last look.
    pub(crate) fn look(&mut self) -> Look {
        let pools = self.pools.iter_mut().map(|(pool, last)| {
            let now = pool.look();
            let look = compare(&now, last.as_ref());
            *last = Some(now);
            look
        });
        Look {
            pid: self.pid,
            pools: pools.collect(),
        }
    }
}

fn compare(now: &PoolView, before: Option<&PoolView>) -> PoolLook {
    let elapsed = before.map_or(Duration::ZERO, |before| now.at.saturating_sub(before.at));
    let before: BTreeMap<u32, &WorkerView> = before
        .into_iter()
        .flat_map(|before| &before.workers)
        .map(|worker| (worker.pid, worker))
        .collect();
    // Words may say that many workers are one process; it is asked once.
    let mut known: BTreeMap<u32, Option<Memory>> = BTreeMap::new();
    let workers = now.workers.iter().filter(|worker| worker.pid != 0).map(|worker| {
        let before = before.get(&worker.pid).filter(|_| !elapsed.is_zero());
        let share = |part: f64| part / elapsed.as_secs_f64();
        WorkerLook {
            rate: before.map(|before| share(worker.elements.saturating_sub(before.elements) as f64)),
            busy: before.map(|before| share(worker.busy.saturating_sub(before.busy).as_secs_f64()).min(1.0)),
            memory: *known.entry(worker.pid).or_insert_with(|| memory(worker.pid)),
            now: worker.clone(),
        }
    });
    let jobs = now.jobs.iter().map(|job| JobLook {
        progress: match job.chunks {
            0 => 1.0,
            chunks => job.chunks_done as f64 / chunks as f64,
        },
        now: job.clone(),
    });
    PoolLook {
        is_closing: now.is_closing,
        workers: workers.collect(),
        jobs: jobs.collect(),
    }
}
