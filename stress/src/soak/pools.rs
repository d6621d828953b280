//! One pool: its jobs, run by several threads at once, and what is done to it meanwhile.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use swathe::Pool;
use swathe_tests::Process;

use super::{
    Soak,
    draw::Draw,
    plan::{Ending, JobPlan, PoolPlan, Weather},
};
use crate::verdict::Verdict;

/// Stream of random numbers for what happens to a pool.
const OF_TROUBLES: u64 = 3 << 62;
/// How often the zygote of a pool is killed that is to bear it.
const ZYGOTE_EVERY: Duration = Duration::from_millis(400);

impl Soak {
    /// Builds the pool, runs its jobs, ends it.
    pub(super) fn run_pool(&self, number: u64, kills: f64) {
        let plan = PoolPlan::new(self.seed, number, kills);
        let name = format!("pool {number}");
        let entry = self.board.begin(format!("{name} starts: {plan:?}"));
        let pool = match plan.build() {
            Ok(pool) => pool,
            Err(error) if self.is_own_fault(&error) => return,
            Err(error) => return self.complain(format!("{name} cannot be built: {error}")),
        };
        drop(entry);
        let next = AtomicU64::new(plan.jobs().start);
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let clients: Vec<_> = (0..plan.clients)
                .map(|_| scope.spawn(|| self.run_jobs(&plan, &pool, &next)))
                .collect();
            let troubles = scope.spawn(|| self.trouble(&plan, &pool, &over));
            for client in clients {
                if client.join().is_err() {
                    self.complain(format!("a thread that ran jobs of {name} panicked"));
                }
            }
            over.store(true, Ordering::Relaxed);
            let _ = troubles.join();
        });
        let _entry = self.board.begin(format!("{name} ends: {plan:?}"));
        if let Err(error) = self.end(&plan, pool) {
            self.complain(format!("{name} ends with {error}"));
        }
        self.sum(|summary| summary.pools += 1);
    }

    /// One thread's jobs.
    fn run_jobs(&self, plan: &PoolPlan, pool: &Pool, next: &AtomicU64) {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if !plan.jobs().contains(&number) || self.is_over() {
                return;
            }
            if self.only.is_some_and(|only| only != number) {
                continue;
            }
            let job = JobPlan::new(self.seed, number, plan.weather);
            let _entry = self.board.begin(format!("job {number}: {job:?} on {plan:?}"));
            let name = format!("job {number} (--seed {} --only {number})", self.seed);
            let verdict = match job.run(pool) {
                Ok(verdict) => verdict,
                Err(error) if self.is_own_fault(&error) => continue,
                Err(error) => {
                    let mut verdict = Verdict::default();
                    verdict.lose(format!("refused: {error}"));
                    verdict
                }
            };
            if !verdict.is_good() {
                eprintln!(
                    "{name} of pool {}: {verdict:?}\n    {job:?}\n    {plan:?}",
                    plan.number
                );
            }
            self.sum(|summary| summary.add(&name, job.len, verdict));
        }
    }

    /// Resizes the pool and kills its zygote now and then.
    fn trouble(&self, plan: &PoolPlan, pool: &Pool, over: &AtomicBool) {
        let mut draw = Draw::new(self.seed, OF_TROUBLES | plan.number);
        while !over.load(Ordering::Relaxed) {
            let pause = draw.micros(2000..60_000);
            thread::sleep(pause);
            if plan.resized
                && let Err(error) = pool.resize(draw.size(1..7))
            {
                self.complain(format!("pool {} cannot be resized: {error}", plan.number));
                return;
            }
            self.sum(|summary| summary.resizes += u64::from(plan.resized));
            let chance = 100 * pause.as_micros() / ZYGOTE_EVERY.as_micros();
            if plan.zygote_killed && draw.percent(chance as u64) {
                let killed = kill_zygote(pool);
                self.sum(|summary| summary.zygotes_killed += u64::from(killed));
            }
        }
    }

    fn end(&self, plan: &PoolPlan, pool: Pool) -> swathe::Result<()> {
        match plan.ending {
            Ending::Dropped => drop(pool),
            Ending::ClosedAndJoined => {
                // A worker that was stopped for good takes the time that it may take to leave.
                pool.close();
                pool.join()?;
            }
            Ending::Terminated => {
                let job = JobPlan::left_over(&pool)?;
                if plan.weather == Weather::Calm {
                    thread::sleep(Duration::from_millis(20));
                }
                pool.terminate();
                let mut verdict = Verdict::default();
                job.judge(&mut verdict)?;
                self.sum(|summary| {
                    summary.add(&format!("the last job of pool {}", plan.number), 300, verdict);
                });
            }
        }
        Ok(())
    }
}

/// Kills the process that forks the workers. Gives whether there was one.
fn kill_zygote(pool: &Pool) -> bool {
    let worker = pool
        .workers()
        .first()
        .and_then(|worker| Process::read(worker.pid));
    let zygote = worker.and_then(|worker| Process::read(worker.parent));
    // The parent of a worker that is just being reaped may be this very process.
    zygote
        .filter(|process| process.name == "swathe-zygote" && process.parent == std::process::id())
        .is_some_and(|process| kill(Pid::from_raw(process.pid as i32), Signal::SIGKILL).is_ok())
}
