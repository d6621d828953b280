//! What a soak has come to.

use std::fmt;

use super::deaths::Told;
use crate::verdict::Verdict;

/// Counts of a soak.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Its seed.
    pub seed: u64,
    /// How long it took, seconds.
    pub seconds: u64,
    /// Pools that were built.
    pub pools: u64,
    /// Jobs that were judged.
    pub jobs: u64,
    /// Their positions.
    pub elements: u64,
    /// Elements that were started again after a death.
    pub restarted: u64,
    /// Workers that were killed from outside.
    pub workers_killed: u64,
    /// Of these, while they were claiming work: the rarest moment.
    pub killed_claiming: u64,
    /// Workers that the engine killed: for a timeout, a deadline, a cancelled job.
    pub workers_executed: u64,
    /// Workers that their own element aborted.
    pub workers_aborted: u64,
    /// Workers that went down with their zygote.
    pub workers_orphaned: u64,
    /// Zygotes that were killed.
    pub zygotes_killed: u64,
    /// Programs with a pool that were killed.
    pub programs_killed: u64,
    /// Programs that did strange things to themselves, and had them done to.
    pub hosts: u64,
    /// Jobs that these have judged.
    pub host_jobs: u64,
    /// Signals and stops that their groups got.
    pub signals: u64,
    /// Pools that were resized while they worked.
    pub resizes: u64,
    /// Results that are missing.
    pub lost: u64,
    /// Results that came twice, or elements that were started twice without cause.
    pub doubled: u64,
    /// Results that are neither.
    pub wrong: u64,
    /// Jobs that did not come to an end.
    pub hangs: u64,
    /// Sleeps that ended by their time-out, with something to do that nobody had rung for.
    pub rescued: u64,
    /// Processes, files, names and memory that were left behind.
    pub leaks: u64,
    /// What was wrong, in words.
    pub complaints: Vec<String>,
}

impl Summary {
    /// Whether nothing was wrong.
    pub fn is_good(&self) -> bool {
        self.lost + self.doubled + self.wrong + self.hangs + self.rescued + self.leaks == 0
    }

    /// Adds what a job has come to.
    pub(super) fn add(&mut self, name: &str, elements: usize, verdict: Verdict) {
        self.jobs += 1;
        self.elements += elements as u64;
        self.restarted += verdict.rerun;
        self.lost += verdict.lost;
        self.doubled += verdict.doubled;
        self.wrong += verdict.wrong;
        let complaint = verdict.complaint.map(|what| {
            format!(
                "{name}: {what} ({} lost, {} doubled, {} wrong)",
                verdict.lost, verdict.doubled, verdict.wrong
            )
        });
        self.complaints.extend(complaint);
    }

    /// Adds what the engine told.
    pub(super) fn add_deaths(&mut self, told: &Told) {
        let killed = told.of(KILLED, &[]);
        self.workers_executed = told.executed.min(killed);
        self.workers_killed = killed - self.workers_executed;
        self.killed_claiming = told.of(KILLED, &["Popping", "Stealing"]);
        self.workers_aborted = told.of(ABORTED, &[]);
        self.workers_orphaned = told.of(ORPHANED, &[]);
        self.wrong += told.errors.len() as u64;
        self.complaints.extend(told.errors.iter().cloned());
    }

    fn counts(&self) -> [(&'static str, u64); 23] {
        [
            ("seed", self.seed),
            ("seconds", self.seconds),
            ("pools", self.pools),
            ("jobs", self.jobs),
            ("elements", self.elements),
            ("restarted", self.restarted),
            ("workers_killed", self.workers_killed),
            ("killed_claiming", self.killed_claiming),
            ("workers_executed", self.workers_executed),
            ("workers_aborted", self.workers_aborted),
            ("workers_orphaned", self.workers_orphaned),
            ("zygotes_killed", self.zygotes_killed),
            ("programs_killed", self.programs_killed),
            ("hosts", self.hosts),
            ("host_jobs", self.host_jobs),
            ("signals", self.signals),
            ("resizes", self.resizes),
            ("lost", self.lost),
            ("doubled", self.doubled),
            ("wrong", self.wrong),
            ("hangs", self.hangs),
            ("rescued", self.rescued),
            ("leaks", self.leaks),
        ]
    }

    /// As one JSON object of numbers.
    pub fn to_json(&self) -> String {
        let counts = self.counts().map(|(name, count)| format!("\"{name}\": {count}"));
        format!("{{{}}}", counts.join(", "))
    }
}

const KILLED: &str = "was killed by signal 9";
const ABORTED: &str = "was killed by signal 6";
const ORPHANED: &str = "died together";

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for complaint in &self.complaints {
            writeln!(f, "{complaint}")?;
        }
        writeln!(
            f,
            "{} jobs of {} elements on {} pools in {} s, seed {}; {} elements were started again, {} pools resized",
            self.jobs, self.elements, self.pools, self.seconds, self.seed, self.restarted, self.resizes
        )?;
        writeln!(
            f,
            "survived: {} workers killed ({} while claiming), {} timed out or stopped, {} aborted, {} lost with \
             {} zygotes, {} programs killed",
            self.workers_killed,
            self.killed_claiming,
            self.workers_executed,
            self.workers_aborted,
            self.workers_orphaned,
            self.zygotes_killed,
            self.programs_killed
        )?;
        writeln!(
            f,
            "{} strange hosts ran {} jobs; their groups got {} signals and stops",
            self.hosts, self.host_jobs, self.signals
        )?;
        write!(
            f,
            "results lost {}, doubled {}, wrong {}; hangs {}, rescued naps {}, leaks {}",
            self.lost, self.doubled, self.wrong, self.hangs, self.rescued, self.leaks
        )
    }
}
