//! Naps: nobody sleeps for longer than a while without a look around, though every sleeper is woken when there is something
//! for it. So a wake that was lost would cost a nap, and nobody would know. Under the feature `chaos` such naps are
//! counted; the soak asserts that there was none.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use swathe_os::futex;
use swathe_protocol::{Order, ParkWord};

use crate::shared::control::Control;

/// How long whoever has made something to do may take to ring for it.
#[cfg(feature = "chaos")]
const GRACE: Duration = Duration::from_millis(100);

#[cfg(feature = "chaos")]
static RESCUED: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

/// How many naps have found something to do that nobody had rung for: of the pools of this process that have ended. Each is
/// a fault of Swathe's.
#[cfg(feature = "chaos")]
pub fn rescued() -> u64 {
    RESCUED.load(Ordering::Relaxed)
}

/// A pool has ended.
#[cfg(feature = "chaos")]
pub(crate) fn add(control: &Control) {
    let rescued = control.header.rescued.load(Ordering::Relaxed);
    RESCUED.fetch_add(rescued.into(), Ordering::Relaxed);
}

/// Sleeps while the word holds this value. Gives whether the whole nap was slept.
pub(crate) fn sleep(word: &AtomicU32, value: u32, nap: Duration) -> bool {
    let before = Instant::now();
    futex::wait(word, value, nap);
    before.elapsed() >= nap
}

/// A worker's nap is over.
pub(crate) fn of_worker(control: &Control, worker: usize) {
    count(control, (control.parks[worker].word(), ParkWord::PARKED), || {
        control.slots[worker].order.read() != Order::None
            || control.header.shutdown.load(Ordering::Acquire) != 0
            // Whoever is awake finds what lies in the ring, be it stopped at this moment.
            || (!control.ring().is_empty() && control.words().awake() == 0)
    });
}

/// Somebody has slept on a word for a whole nap, and there is something to do. If it is still there after a while, and
/// nobody has rung, nobody would have.
#[cfg(feature = "chaos")]
pub(crate) fn count(control: &Control, (word, value): (&AtomicU32, u32), there: impl Fn() -> bool) {
    if there() {
        futex::wait(word, value, GRACE);
        if word.load(Ordering::Acquire) == value && there() {
            control.header.rescued.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(not(feature = "chaos"))]
pub(crate) fn count(_: &Control, _: (&AtomicU32, u32), _: impl Fn() -> bool) {}

#[cfg(all(test, feature = "chaos"))]
mod tests {
    use swathe_protocol::{Descriptor, JobKey};

    use super::*;
    use crate::shared::control::System;

    /// Two workers that sleep.
    fn asleep() -> Control {
        let control = Control::create(2).expect("a small segment can be made");
        control.header.used_slots.store(2, Ordering::Relaxed);
        control.parks.iter().for_each(ParkWord::prepare);
        control
    }

    fn rescued_by(control: &Control) -> u32 {
        of_worker(control, 0);
        control.header.rescued.load(Ordering::Relaxed)
    }

    #[test]
    fn a_nap_is_counted_if_nobody_has_rung() {
        let control = asleep();
        assert_eq!(rescued_by(&control), 0, "there is nothing to do");
        control.slots[0].order.give(Order::Retire);
        assert_eq!(rescued_by(&control), 1, "an order");
        control.words().wake(&System, 0);
        assert_eq!(rescued_by(&control), 1, "it was rung for");

        let control = asleep();
        let run = Descriptor {
            job: JobKey::new(0, 1),
            epoch: 0,
            first: 0,
            chunks: 1,
            careful: false,
        };
        control.parent().push(run).expect("there is room");
        assert_eq!(rescued_by(&control), 1, "a run");
        control.words().wake(&System, 1);
        assert_eq!(rescued_by(&control), 1, "the other one is awake");
        control.words().vacate(1);
        assert_eq!(rescued_by(&control), 2, "it is gone");

        let control = asleep();
        control.header.shutdown.store(1, Ordering::Relaxed);
        assert_eq!(rescued_by(&control), 1, "a shutdown");
    }
}
