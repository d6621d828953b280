//! Where the time of a job went, for people.

use std::{fmt, ops::Range, time::Duration};

use swathe_protocol::tally::Tallied;

/// Where the time of a job went.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Report {
    /// From the call to the end of the job.
    pub elapsed: Duration,
    /// Elements of the job.
    pub elements: u64,
    /// Bytes of its inputs and its output slab; 0 if it has none. Of values of variable length the inputs are counted.
    pub bytes: u64,
    /// Workers that died while they were at this job.
    pub deaths: u64,
    /// What each worker spent that was ever at the job, by number.
    pub workers: Vec<WorkerReport>,
    /// The strips that took longest, longest first: at most two of each worker.
    pub slowest: Vec<SlowStrip>,
}

/// What one worker spent in a job, its successors after a death or recycling included. The four times add up to the
/// time that the job took.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerReport {
    /// Its number.
    pub worker: usize,
    /// From the call until its first strip began: waking, claiming, mapping.
    pub start: Duration,
    /// In strips: the task, and the reading and writing of its elements.
    pub work: Duration,
    /// In strips that were run once more after a death, or that a death cut short.
    pub recovery: Duration,
    /// Everything else: claiming, publishing, retries' backoff, and having nothing to do while others had.
    pub wait: Duration,
    /// Elements it has run; more than the job has, all together, if some were run more than once.
    pub elements: u64,
    /// In how many strips.
    pub strips: u64,
}

/// A strip that took long.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SlowStrip {
    /// Which positions; in a round of retries, the numbers of those that were tried again.
    pub positions: Range<u64>,
    /// The worker's number.
    pub worker: usize,
    /// How long it took.
    pub took: Duration,
}

impl Report {
    /// From a job's words. Whatever they say, no time is negative.
    pub(crate) fn new(
        (submitted, over): (u64, u64),
        (elements, bytes): (u64, u64),
        deaths: u64,
        tallies: &[(usize, Tallied)],
    ) -> Self {
        let ns = Duration::from_nanos;
        let elapsed = over.saturating_sub(submitted);
        let workers = tallies.iter().map(|(worker, tally)| {
            let start = tally.began.saturating_sub(submitted).min(elapsed);
            let spent = tally.spent.min(elapsed - start);
            let recovery = tally.redone.min(spent);
            WorkerReport {
                worker: *worker,
                start: ns(start),
                work: ns(spent - recovery),
                recovery: ns(recovery),
                wait: ns(elapsed - start - spent),
                elements: tally.elements,
                strips: tally.strips,
            }
        });
        let slow = tallies.iter().flat_map(|(worker, tally)| {
            let there = tally.slowest.iter().filter(|slow| slow.len > 0);
            there.map(|slow| SlowStrip {
                positions: slow.first..slow.first.saturating_add(slow.len),
                worker: *worker,
                took: ns(slow.ns),
            })
        });
        let mut slowest: Vec<SlowStrip> = slow.collect();
        slowest.sort_by_key(|slow| std::cmp::Reverse(slow.took));
        Self {
            elapsed: ns(elapsed),
            elements,
            bytes,
            deaths,
            workers: workers.collect(),
            slowest,
        }
    }

    /// Bytes of inputs and output, in 10^9 a second of the whole job; `None` if the job has none.
    pub fn gigabytes_per_second(&self) -> Option<f64> {
        let seconds = self.elapsed.as_secs_f64();
        (self.bytes > 0 && seconds > 0.0).then(|| self.bytes as f64 / seconds / 1e9)
    }

    /// Elements a second of the whole job.
    pub fn elements_per_second(&self) -> f64 {
        self.elements as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// Time in tasks, of all workers, as a part of the time that they had together: 1 is perfect.
    pub fn utilisation(&self) -> f64 {
        let work: f64 = self.workers.iter().map(|worker| worker.work.as_secs_f64()).sum();
        work / (self.elapsed.as_secs_f64() * self.workers.len() as f64).max(1e-9)
    }
}

impl fmt::Display for Report {
    /// Some lines: the whole, a line for each worker, the slowest strips.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} elements in {:.1?}", self.elements, self.elapsed)?;
        if let Some(rate) = self.gigabytes_per_second() {
            write!(f, ", {rate:.2} GB/s")?;
        }
        write!(f, ", workers {:.1} % at work", 100.0 * self.utilisation())?;
        if self.deaths > 0 {
            write!(f, ", {} died", self.deaths)?;
        }
        writeln!(f)?;
        for worker in &self.workers {
            writeln!(
                f,
                "worker {:3}: start {:8.1?}  work {:8.1?}  wait {:8.1?}  recovery {:8.1?}  {} elements in {} strips",
                worker.worker,
                worker.start,
                worker.work,
                worker.wait,
                worker.recovery,
                worker.elements,
                worker.strips
            )?;
        }
        for slow in self.slowest.iter().take(5) {
            writeln!(
                f,
                "slowest: positions {} to {} took {:.1?} on worker {}",
                slow.positions.start,
                slow.positions.end - 1,
                slow.took,
                slow.worker
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use swathe_protocol::tally::Slow;

    use super::*;

    #[test]
    fn the_four_times_of_a_worker_add_up_to_the_time_of_the_job() {
        let tally = Tallied {
            began: 1_100,
            ended: 1_900,
            spent: 600,
            redone: 50,
            elements: 10,
            strips: 3,
            slowest: [
                Slow {
                    first: 4,
                    len: 2,
                    ns: 300,
                },
                Slow::default(),
            ],
        };
        let report = Report::new((1_000, 2_000), (10, 160), 1, &[(3, tally)]);
        let worker = &report.workers[0];
        assert_eq!(
            worker.start + worker.work + worker.recovery + worker.wait,
            report.elapsed
        );
        assert_eq!((worker.start.as_nanos(), worker.work.as_nanos()), (100, 550));
        assert_eq!(report.slowest.len(), 1);
        assert_eq!(report.slowest[0].positions, 4..6);
        assert!((report.gigabytes_per_second().unwrap() - 0.16).abs() < 1e-12);
        assert!(report.to_string().contains("1 died"));
    }

    #[test]
    fn overwritten_words_give_no_negative_time() {
        let wild = Tallied {
            began: u64::MAX,
            ended: 0,
            spent: u64::MAX,
            redone: u64::MAX,
            elements: u64::MAX,
            strips: 1,
            slowest: [Slow {
                first: u64::MAX,
                len: u64::MAX,
                ns: u64::MAX,
            }; 2],
        };
        let report = Report::new((5, 3), (1, 0), 0, &[(0, wild)]);
        assert_eq!(report.elapsed, Duration::ZERO);
        assert!(!report.to_string().is_empty());
    }
}
