//! Where the time of a job went: what each worker spent in it, kept by the worker as it goes.

use crate::sync::{AtomicU64, Ordering};

/// How many of its slowest strips a worker remembers.
pub const SLOWEST: usize = 2;

/// One worker's account of one job. Nobody clears it when a job begins, because a cache line that goes from the parent to
/// a worker and back costs a short job more than its work: it names the job that it is about, and whoever finds another
/// one there begins anew.
///
/// Each word has one writer at a time: the worker, and when it is dead the supervisor; a successor goes on with the
/// account. Nobody decides anything by it.
#[repr(C, align(128))]
#[derive(Debug, Default)]
pub struct Tally {
    /// The serial number of the job, which no other job has, of no other pool either: the same memory may have held another
    /// pool's tally.
    serial: AtomicU64,
    /// When its first strip began, nanoseconds of the monotonic clock.
    began: AtomicU64,
    /// When its last strip ended.
    ended: AtomicU64,
    /// Nanoseconds in strips.
    spent: AtomicU64,
    /// Of these, in strips that were run once more after a death, or that a death cut short.
    redone: AtomicU64,
    elements: AtomicU64,
    strips: AtomicU64,
    /// First position, length and nanoseconds of the slowest strips.
    slowest: [[AtomicU64; 3]; SLOWEST],
}

/// A strip that took long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slow {
    /// Its first position.
    pub first: u64,
    /// How many positions.
    pub len: u64,
    /// Nanoseconds.
    pub ns: u64,
}

/// A [`Tally`], read as one value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tallied {
    /// When its first strip began, nanoseconds of the monotonic clock.
    pub began: u64,
    /// When its last strip ended.
    pub ended: u64,
    /// Nanoseconds in strips.
    pub spent: u64,
    /// Of these, in strips that were run once more after a death, or that a death cut short.
    pub redone: u64,
    /// Elements run.
    pub elements: u64,
    /// Strips run.
    pub strips: u64,
    /// The slowest strips; those that there are not have no length.
    pub slowest: [Slow; SLOWEST],
}

fn add(word: &AtomicU64, n: u64) {
    word.store(word.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
}

impl Tally {
    /// The account of this job is kept here from now on: a worker's first step in a job, and the supervisor's, who may find
    /// that its worker died before that.
    #[inline]
    pub fn open(&self, serial: u64) {
        if self.serial.load(Ordering::Relaxed) == serial {
            return;
        }
        for word in [
            &self.began,
            &self.ended,
            &self.spent,
            &self.redone,
            &self.elements,
            &self.strips,
        ] {
            word.store(0, Ordering::Relaxed);
        }
        for slow in &self.slowest {
            slow.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        }
        self.serial.store(serial, Ordering::Relaxed);
    }

    /// The worker has run a strip, `again` if somebody has died over it before.
    #[inline]
    pub fn strip(&self, started: u64, strip: Slow, again: bool) {
        if self.strips.load(Ordering::Relaxed) == 0 {
            self.began.store(started, Ordering::Relaxed);
        }
        self.ended
            .store(started.wrapping_add(strip.ns), Ordering::Relaxed);
        add(&self.spent, strip.ns);
        add(&self.elements, strip.len);
        add(&self.strips, 1);
        if again {
            add(&self.redone, strip.ns);
        }
        let ns = |i: usize| self.slowest[i][2].load(Ordering::Relaxed);
        let quickest = (1..SLOWEST).fold(0, |least, i| if ns(i) < ns(least) { i } else { least });
        if strip.ns > ns(quickest) {
            for (word, value) in self.slowest[quickest]
                .iter()
                .zip([strip.first, strip.len, strip.ns])
            {
                word.store(value, Ordering::Relaxed);
            }
        }
    }

    /// The supervisor has found the worker dead within a strip that began then.
    pub fn cut_short(&self, ns: u64) {
        add(&self.spent, ns);
        add(&self.redone, ns);
    }

    /// All of it, if it is about this job.
    pub fn read(&self, serial: u64) -> Option<Tallied> {
        if self.serial.load(Ordering::Relaxed) != serial {
            return None;
        }
        let slow = |i: usize| {
            let [first, len, ns] = core::array::from_fn(|k| self.slowest[i][k].load(Ordering::Relaxed));
            Slow { first, len, ns }
        };
        Some(Tallied {
            began: self.began.load(Ordering::Relaxed),
            ended: self.ended.load(Ordering::Relaxed),
            spent: self.spent.load(Ordering::Relaxed),
            redone: self.redone.load(Ordering::Relaxed),
            elements: self.elements.load(Ordering::Relaxed),
            strips: self.strips.load(Ordering::Relaxed),
            slowest: core::array::from_fn(slow),
        })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_strips_are_remembered_and_all_are_counted() {
        let (tally, job) = (Tally::default(), 31);
        assert_eq!(tally.read(job), None);
        tally.open(32);
        tally.cut_short(1000);
        tally.open(job);
        for (i, ns) in [5, 40, 10, 30, 20].into_iter().enumerate() {
            let first = i as u64 * 10;
            tally.strip(100 + first, Slow { first, len: 10, ns }, i == 2);
        }
        tally.cut_short(7);
        tally.open(job);
        assert_eq!(tally.read(32), None);
        let read = tally.read(job).expect("it is about this job");
        assert_eq!((read.began, read.ended), (100, 160));
        assert_eq!(
            (read.spent, read.redone, read.elements, read.strips),
            (112, 17, 50, 5)
        );
        let mut slowest: Vec<u64> = read.slowest.iter().map(|slow| slow.ns).collect();
        slowest.sort_unstable();
        assert_eq!(slowest, [30, 40]);
    }
}
