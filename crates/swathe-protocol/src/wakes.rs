//! Who is awake, and whom to wake: park words, bells and the courier, seen from all words together.
//!
//! Each of these is one side of the park rule or the bell rule (README, "Orders and fences"): what there is to be found was
//! written before, a fence stands between, and then the word of whoever may sleep is read.

use crate::{
    bell::{self, ParkWord, ParkWordState},
    job::{JobCell, JobKey},
    slot::SlotPhase,
    sync::Ordering,
    words::{Outside, Words},
};

impl Words<'_> {
    /// How many of the first `slots` workers are awake and have nothing to do: they find work by themselves.
    pub fn lookouts(&self, slots: usize) -> usize {
        let pairs = self.slots.iter().zip(self.parks).take(slots);
        pairs
            .filter(|(slot, park)| slot.phase() == SlotPhase::Idle && park.state() == ParkWordState::Awake)
            .count()
    }

    /// How many workers do not sleep.
    pub fn awake(&self) -> usize {
        let parks = self.parks.iter().take(self.used_slots());
        parks.filter(|park| park.state() == ParkWordState::Awake).count()
    }

    /// Whether there is a core that no worker needs at this moment.
    pub fn spares_a_core(&self) -> bool {
        self.awake() <= self.header.lookouts.load(Ordering::Relaxed) as usize
    }

    /// Wakes workers for the runs that wait in the ring: those that are awake and idle will each find one.
    pub fn wake_for_runs(&self, outside: &impl Outside) {
        bell::publish_fence();
        // In this order: a worker says that it takes a run before it does, so one whose run is not counted here is not
        // counted as idle there.
        let waiting = self.ring.len() as usize;
        let idle = self.lookouts(self.used_slots());
        self.wake_sleepers(outside, waiting.saturating_sub(idle));
    }

    /// Wakes one worker who will steal, unless one is awake and idle.
    pub fn call_for_help(&self, outside: &impl Outside) {
        bell::publish_fence();
        if self.lookouts(self.used_slots()) == 0 {
            self.wake_sleepers(outside, 1);
        }
    }

    /// Wakes workers for what nobody has begun of a job, and for runs that wait in the ring. A caller does so before it
    /// sleeps: whoever began the job may be in its first element for long, and can call nobody. Gives whether anybody was
    /// woken.
    pub fn wake_for_rest(&self, outside: &impl Outside, job: JobKey) -> bool {
        let lanes = self.lanes_of(job).iter();
        let in_lanes: u64 = lanes.map(|lane| u64::from(lane.waiting().len())).sum();
        let rest = in_lanes + self.ring.len();
        if rest == 0 {
            return false;
        }
        bell::publish_fence();
        self.wake_sleepers(outside, usize::try_from(rest).unwrap_or(usize::MAX)) > 0
    }

    /// Wakes so many of those that sleep, if there are as many. Gives how many were woken.
    fn wake_sleepers(&self, outside: &impl Outside, most: usize) -> usize {
        let sleepers = self.parks.iter().take(self.used_slots());
        let woken = sleepers.filter(|park| park.claim_wake()).take(most);
        woken.map(|park| outside.wake(park.word(), 1)).count()
    }

    /// Wakes one worker, for what only it can do.
    pub fn wake(&self, outside: &impl Outside, worker: usize) {
        bell::publish_fence();
        wake_claimed(outside, &self.parks[worker]);
    }

    /// Wakes every sleeping worker, also one whose wake was lost by a death.
    pub fn wake_all(&self, outside: &impl Outside) {
        bell::publish_fence();
        let taken = |park: &&ParkWord| park.state() != ParkWordState::Vacant;
        for park in self.parks.iter().filter(taken) {
            park.wake_anyway();
            outside.wake(park.word(), u32::MAX);
        }
    }

    /// Wakes the parent's courier.
    pub fn wake_courier(&self, outside: &impl Outside) {
        bell::publish_fence();
        wake_claimed(outside, &self.header.courier);
    }

    /// Wakes it even if somebody else claimed to: the one who claimed it may have died.
    pub fn wake_courier_anyway(&self, outside: &impl Outside) {
        self.header.courier.unpark_self();
        outside.wake(self.header.courier.word(), 1);
    }

    /// Makes those who wait for a job look at it: it is over, or nearly. The courier too, if the job is `attended`.
    pub fn ring_bell(&self, outside: &impl Outside, cell: &JobCell, attended: bool) {
        if cell.bell.ring() {
            outside.wake(cell.bell.word(), u32::MAX);
        }
        if attended {
            self.wake_courier(outside);
        }
    }

    /// Wakes those who wait for a job whatever its bell says: a dead worker may have rung, and owe the wake.
    pub fn wake_waiters(&self, outside: &impl Outside, cell: &JobCell) {
        let _ = cell.bell.ring();
        outside.wake(cell.bell.word(), u32::MAX);
    }
}

fn wake_claimed(outside: &impl Outside, park: &ParkWord) {
    if park.claim_wake() {
        outside.wake(park.word(), 1);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::{Header, JobCell, Lane, RingCell, RingEnds, RingView, WorkerSlot};

    #[test]
    fn only_slots_with_a_worker_count_as_awake_or_looking_for_work() {
        let (header, ends, cells) = (Header::default(), RingEnds::default(), [RingCell::default()]);
        let slots: [WorkerSlot; 4] = Default::default();
        let parks: [ParkWord; 4] = Default::default();
        let (jobs, lanes): ([JobCell; 1], [Lane; 4]) = Default::default();
        let words = Words {
            header: &header,
            ring: RingView::new(&ends, &cells),
            slots: &slots,
            parks: &parks,
            cells: &jobs,
            lanes: &lanes,
        };
        header.used_slots.store(4, Ordering::Relaxed);
        header.lookouts.store(1, Ordering::Relaxed);
        assert_eq!((words.awake(), words.lookouts(4)), (0, 0), "nobody has come");
        for worker in 0..3 {
            parks[worker].unpark_self();
            slots[worker].set_phase(SlotPhase::Idle);
        }
        parks[2].prepare();
        assert_eq!((words.awake(), words.lookouts(4)), (2, 2));
        assert!(!words.spares_a_core());
        // One dies looking for work, one asleep.
        words.vacate(1);
        words.vacate(2);
        words.wake_all(&());
        assert_eq!((words.awake(), words.lookouts(4)), (1, 1));
        assert!(words.spares_a_core());
        assert_eq!(words.wake_sleepers(&(), 4), 0, "nobody is left to be woken");
    }
}
