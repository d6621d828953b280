//! How many positions a worker runs between two looks at the shared words.
//!
//! Long enough that the words cost nothing, short enough that a death or a thief loses little: about
//! [`TARGET_NS`] of work, or one element where an element takes longer. The pace is learnt anew in every job, from one
//! element upwards, because the elements of one job cost alike more often than those of two.

/// Aimed-at length of a strip, nanoseconds.
const TARGET_NS: u64 = 20_000;
/// The longest strip, positions: bounds what a sudden change of cost can hold up.
const LONGEST: u64 = 1 << 20;
/// How fast a strip may grow from one to the next.
const GROWTH: u64 = 64;
/// What is expected to be done within this is not left to thieves, nanoseconds.
const NOT_WORTH_A_THEFT: u64 = 5_000;
/// A strip that took less than this says little about what an element takes, nanoseconds.
const TELLING: u64 = 1_000;
/// What is expected to take longer than this is worth waking somebody, nanoseconds: about what a wake takes.
const WORTH_A_WAKE: u64 = 50_000;

/// The pace of one worker in one job.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    strip: u64,
    /// Of the last strip.
    len: u64,
    ns: u64,
}

impl Pace {
    /// A new job: nothing is known, so the first strip is one element.
    pub(crate) fn new() -> Self {
        Self {
            strip: 1,
            len: 0,
            ns: 0,
        }
    }

    /// Positions the next strip should have.
    pub(crate) fn strip(self) -> u64 {
        self.strip
    }

    /// Chunks to take at once: as many as a strip covers, but never more than half of what waits, so that thieves find
    /// something; unless all of it is soon done.
    pub(crate) fn chunks(self, chunk_len: u64, waiting: u32) -> u32 {
        let fit = (self.strip / chunk_len.max(1)).min(u64::from(u32::MAX)) as u32;
        let most = if self.time_for(u64::from(waiting).saturating_mul(chunk_len)) <= NOT_WORTH_A_THEFT {
            waiting
        } else {
            waiting / 2
        };
        fit.clamp(1, most.max(1))
    }

    /// How long so many positions may take, nanoseconds; as long as nothing is known, a short time.
    fn time_for(self, positions: u64) -> u64 {
        (u128::from(positions) * u128::from(self.ns) / u128::from(self.len.max(1))).min(u64::MAX.into())
            as u64
    }

    /// Whether so many positions take long enough to wake somebody for half of them. A strip that was shorter than what
    /// surrounds it tells too little.
    pub(crate) fn wants_help(self, positions: u64) -> bool {
        self.ns >= TELLING && self.time_for(positions) > WORTH_A_WAKE
    }

    /// A strip of `len` positions took `ns`.
    pub(crate) fn learn(&mut self, len: u64, ns: u64) {
        (self.len, self.ns) = (len, ns);
        let fit = len.saturating_mul(TARGET_NS) / ns.max(1);
        self.strip = fit.clamp(1, self.strip.saturating_mul(GROWTH).min(LONGEST));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_elements_make_long_strips_and_long_ones_make_strips_of_one() {
        let mut pace = Pace::new();
        for _ in 0..10 {
            pace.learn(pace.strip(), pace.strip());
        }
        assert_eq!(pace.strip(), TARGET_NS);
        assert_eq!(pace.chunks(1000, 1000), 20);
        assert_eq!(pace.chunks(1000, 8), 4, "half is left for thieves");
        pace.learn(10, 1_000_000_000);
        assert_eq!((pace.strip(), pace.chunks(1, 100)), (1, 1));
    }
}
