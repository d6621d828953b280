//! Doorbells: how somebody sleeps until there is something to do, without a lock and without a lost wake.
//!
//! The wait itself (a futex) is the caller's: these types say when to wait, on which word and value, and when a wake is
//! owed. Two shapes: a [`ParkWord`] wakes one chosen worker, a [`Bell`] wakes all who wait for one event.

use crate::sync::{AtomicU32, Ordering, fence};

/// State of a worker's park word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParkWordState {
    /// Nobody is there to run or to sleep.
    Vacant,
    /// Runs, or is about to.
    Awake,
    /// Sleeps, or is about to.
    Parked,
}

/// One worker's futex word. Zero is vacant: no worker has come to work, or it is gone. So whoever counts those that are
/// awake counts no dead worker, and need not look at the slots.
#[repr(transparent)]
#[derive(Debug, Default)]
pub struct ParkWord(AtomicU32);

impl ParkWord {
    /// The value to wait for a change of.
    pub const PARKED: u32 = 1;

    const VACANT: u32 = 0;
    const AWAKE: u32 = 2;

    /// Step S1: the sleeper says that it is going to sleep. It must then look for work once more, and call
    /// [`ParkWord::unpark_self`] if it finds some, or wait while the word holds [`ParkWord::PARKED`].
    pub fn prepare(&self) {
        self.0.store(Self::PARKED, Ordering::Relaxed);
        // The announcement before the last look for work; pairs with the fence in `claim_wake`.
        fence(Ordering::SeqCst);
    }

    /// The sleeper is up, or has come to work.
    pub fn unpark_self(&self) {
        self.0.store(Self::AWAKE, Ordering::Relaxed);
    }

    /// The supervisor says, under the lock that whoever wakes everybody holds, that the worker is gone.
    pub fn vacate(&self) {
        self.0.store(Self::VACANT, Ordering::Relaxed);
    }

    /// Ends the sleep, whoever else may have claimed to. A futex wake of all waiters is owed. Nothing happens to a word
    /// that is vacant: who comes to work there looks around by himself.
    pub fn wake_anyway(&self) {
        if self.state() != ParkWordState::Vacant {
            self.unpark_self();
        }
    }

    /// Whether the sleeper may stop waiting.
    #[inline]
    pub fn is_awake(&self) -> bool {
        self.0.load(Ordering::Acquire) != Self::PARKED
    }

    /// The word, for the futex.
    pub fn word(&self) -> &AtomicU32 {
        &self.0
    }

    /// Step R2: the ringer, after it has published work and called [`publish_fence`], takes the duty to wake this
    /// sleeper. `true`: it owes a futex wake of one waiter.
    #[inline]
    #[must_use]
    pub fn claim_wake(&self) -> bool {
        self.0.load(Ordering::Relaxed) == Self::PARKED
            && self
                .0
                .compare_exchange(Self::PARKED, Self::AWAKE, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
    }

    /// What the word says now, for others than the sleeper.
    #[inline]
    pub fn state(&self) -> ParkWordState {
        match self.0.load(Ordering::Acquire) {
            Self::VACANT => ParkWordState::Vacant,
            Self::PARKED => ParkWordState::Parked,
            _ => ParkWordState::Awake,
        }
    }
}

/// Step R1: between publishing work and looking for sleepers.
pub fn publish_fence() {
    fence(Ordering::SeqCst);
}

/// Where any number of processes wait for something that comes again and again, as the users of a queue do; two words. How
/// often the bell was rung, on which sleepers sleep, and whether somebody may be asleep.
///
/// The second is only a hint and heals by itself: whoever rings clears it, whoever goes to sleep sets it. A sleeper that
/// is killed leaves it set, which costs the next ringer one system call; a ringer that is killed between clearing and
/// ringing lets sleepers sleep until the next ring, or until they look again by themselves.
#[derive(Clone, Copy, Debug)]
pub struct DoorbellView<'a> {
    /// The word to wait on.
    pub rung: &'a AtomicU32,
    /// The hint.
    pub asleep: &'a AtomicU32,
}

impl DoorbellView<'_> {
    /// After a change. `true`: a futex wake of all who sleep on `rung` is owed. No write while nobody sleeps.
    #[must_use]
    pub fn ring(&self) -> bool {
        // SYNC doorbell: either the sleeper, looking again after its fence, sees the change before this one, or its
        // announcement is seen here.
        fence(Ordering::SeqCst);
        let owed = self.asleep.load(Ordering::Relaxed) != 0 && self.asleep.swap(0, Ordering::AcqRel) != 0;
        if owed {
            self.rung.fetch_add(1, Ordering::Release);
        }
        owed
    }

    /// Before sleeping: the caller looks once more for a change, and then waits while `rung` is what this returned.
    #[must_use]
    pub fn announce(&self) -> u32 {
        // Read before the announcement: a ring that answers the announcement makes the number stale.
        let heard = self.rung.load(Ordering::Acquire);
        self.asleep.store(1, Ordering::Relaxed);
        // SYNC doorbell: see `ring`.
        fence(Ordering::SeqCst);
        heard
    }
}

/// Where any number of threads of the parent wait for something. It does not say whether that has happened: who waits
/// looks there. So who makes it happen writes nothing here while nobody sleeps, and may ring late, or once too often.
///
/// Counts how often it rang to sleepers, so that who was about to sleep before notices, whoever came to wait since. The
/// last bit says whether somebody sleeps. Any value is a good first one.
#[repr(transparent)]
#[derive(Debug, Default)]
pub struct Bell(AtomicU32);

impl Bell {
    const WAITED: u32 = 1;

    /// The waiter says that it is going to sleep. It must then look once more, and wait while the word holds the value
    /// that is returned.
    #[must_use]
    pub fn prepare(&self) -> u32 {
        let waited = self.0.fetch_or(Self::WAITED, Ordering::AcqRel) | Self::WAITED;
        // The announcement before the last look; pairs with the fence in `ring`.
        fence(Ordering::SeqCst);
        waited
    }

    /// After it has happened, or when those who wait should look again. `true`: a futex wake of all waiters is owed.
    #[inline]
    #[must_use]
    pub fn ring(&self) -> bool {
        fence(Ordering::SeqCst);
        let word = self.0.load(Ordering::Relaxed);
        word & Self::WAITED != 0
            && self
                .0
                .compare_exchange(word, word.wrapping_add(1), Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
    }

    /// The word, for the futex.
    pub fn word(&self) -> &AtomicU32 {
        &self.0
    }
}
