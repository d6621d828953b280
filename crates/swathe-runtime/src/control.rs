//! The control segment: one small segment a pool, which holds the protocol's words.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use swathe_memory::{MemoryError, Segment, Shared, SharedSlice};
use swathe_protocol::{
    Descriptor, Header, JobCell, JobKey, Lane, Outside, ParkWord, ParkWordState, Place, RingCell, RingEnds,
    RingView, SlotPhase, Words, WorkerSlot, bell, header::MAGIC,
};

use crate::fault::{self, Point};

/// Job cells: how many jobs can be in work at once; more wait in the parent.
pub(crate) const JOBS: u32 = 256;
/// Ring cells: how many runs can wait at once; more wait in the parent.
pub(crate) const RING: u32 = 1024;
/// The most workers a pool can have.
pub const MAX_PROCESSES: usize = 1024;

/// What the kernel calls the segment; see [`crate::observe`].
pub(crate) const NAME: &str = "swathe-control";

/// The protocol's words, laid over a segment.
#[derive(Clone, Debug)]
pub(crate) struct Control {
    pub(crate) segment: Arc<Segment>,
    pub(crate) header: Shared<Header>,
    ends: Shared<RingEnds>,
    cells: SharedSlice<RingCell>,
    pub(crate) slots: SharedSlice<WorkerSlot>,
    pub(crate) parks: SharedSlice<ParkWord>,
    pub(crate) jobs: SharedSlice<JobCell>,
    lanes: SharedSlice<Lane>,
}

/// Where each part lies, bytes: header, ring ends, ring cells, slots, park words, job cells, lanes, end.
fn layout(slots: usize) -> [usize; 8] {
    let parts = [
        size_of::<Header>(),
        size_of::<RingEnds>(),
        size_of::<RingCell>() * RING as usize,
        size_of::<WorkerSlot>() * slots,
        size_of::<ParkWord>() * slots,
        size_of::<JobCell>() * JOBS as usize,
        size_of::<Lane>() * JOBS as usize * slots,
    ];
    let mut offsets = [0; 8];
    for (i, part) in parts.iter().enumerate() {
        offsets[i + 1] = (offsets[i] + part).next_multiple_of(128);
    }
    offsets
}

/// What the protocol's moves need of the system they run on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct System;

impl Outside for System {
    fn wake(&self, word: &AtomicU32, most: u32) {
        swathe_os::futex::wake(word, most);
    }

    #[inline]
    fn reached(&self, place: Place) {
        fault::point(match place {
            Place::BeforeClaim => Point::BeforeClaim,
            Place::Claimed => Point::Claimed,
            Place::Recycling => Point::Recycling,
        });
    }
}

impl Control {
    /// Bytes of a control segment.
    pub(crate) fn len(slots: usize) -> usize {
        layout(slots)[7].next_multiple_of(4096)
    }

    /// Makes the control segment of a new pool.
    pub(crate) fn create(slots: usize) -> Result<Self, MemoryError> {
        let segment = Segment::create(NAME, Self::len(slots))?;
        let control = Self::lay(segment, slots)?;
        control.header.magic.store(MAGIC, Ordering::Relaxed);
        control.header.slots.store(slots as u32, Ordering::Relaxed);
        control.header.jobs.store(JOBS, Ordering::Relaxed);
        control.header.ring.store(RING, Ordering::Relaxed);
        Ok(control)
    }

    /// Lays the words over a segment that the parent made for `slots` workers.
    pub(crate) fn lay(segment: Arc<Segment>, slots: usize) -> Result<Self, MemoryError> {
        // The number is another process's word. One more than there can be fits into no segment that was made.
        let slots = slots.min(MAX_PROCESSES + 1);
        let at = layout(slots);
        Ok(Self {
            header: Shared::at(&segment, at[0])?,
            ends: Shared::at(&segment, at[1])?,
            cells: SharedSlice::at(&segment, at[2], RING as usize)?,
            slots: SharedSlice::at(&segment, at[3], slots)?,
            parks: SharedSlice::at(&segment, at[4], slots)?,
            jobs: SharedSlice::at(&segment, at[5], JOBS as usize)?,
            lanes: SharedSlice::at(&segment, at[6], JOBS as usize * slots)?,
            segment,
        })
    }

    /// All words, for the protocol's moves.
    #[inline]
    pub(crate) fn words(&self) -> Words<'_> {
        Words {
            header: &self.header,
            ring: self.ring(),
            slots: &self.slots,
            parks: &self.parks,
            cells: &self.jobs,
            lanes: &self.lanes,
        }
    }

    /// The ring.
    pub(crate) fn ring(&self) -> RingView<'_> {
        RingView::new(&self.ends, &self.cells)
    }

    /// Takes every run out of the ring that is there now. The gates of all jobs are closed.
    pub(crate) fn empty_ring(&self) {
        if self.ring().is_damaged() {
            tracing::error!("the ends of the ring were overwritten; all claims are made anew");
            self.ring().repair();
        }
        for _ in 0..RING {
            if self.ring().pop().is_none() {
                return;
            }
        }
    }

    /// All lanes of a job that a worker was ever inside of.
    pub(crate) fn lanes(&self, job: JobKey) -> &[Lane] {
        self.words().lanes_of(job)
    }

    /// One worker's lane in a job.
    pub(crate) fn lane(&self, job: JobKey, worker: usize) -> &Lane {
        self.words().lane(job, worker)
    }

    /// The cell of a job.
    pub(crate) fn job(&self, key: JobKey) -> Option<&JobCell> {
        self.words().cell(key)
    }

    /// Whether any worker announces this job. Asked when its gate is not open any more, whoever has changed it.
    pub(crate) fn anyone_inside(&self, key: JobKey) -> bool {
        self.words().anyone_inside(key)
    }

    /// Whether anybody may hold something of a job, or be about to say that it is over. An onlooker may miss a theft that is
    /// under way: ask twice.
    pub(crate) fn anyone_at(&self, key: JobKey) -> bool {
        bell::publish_fence();
        self.slots
            .iter()
            .take(self.used_slots())
            .any(|slot| match slot.phase() {
                SlotPhase::Popping | SlotPhase::Stealing => true,
                // It has left a job, and has not yet compared the counts or rung.
                SlotPhase::Working => slot.inside().is_none_or(|inside| inside == key),
                _ => slot.inside() == Some(key),
            })
    }

    /// Says how many idle workers may stay awake: see [`Header::lookouts`].
    pub(crate) fn set_lookouts(&self, processes: usize, cores: usize) {
        let seats = if processes > cores { 0 } else { cores - 1 };
        self.header.lookouts.store(seats as u32, Ordering::Relaxed);
    }

    /// How many of the first `slots` workers are awake and have nothing to do: they find work by themselves.
    pub(crate) fn lookouts(&self, slots: usize) -> usize {
        let pairs = self.slots.iter().zip(self.parks.iter()).take(slots);
        pairs
            .filter(|(slot, park)| slot.phase() == SlotPhase::Idle && park.state() == ParkWordState::Awake)
            .count()
    }

    /// How many workers do not sleep.
    pub(crate) fn awake(&self) -> usize {
        let parks = self.parks.iter().take(self.used_slots());
        parks.filter(|park| park.state() == ParkWordState::Awake).count()
    }

    /// Whether there is a core that no worker needs at this moment.
    pub(crate) fn spares_a_core(&self) -> bool {
        self.awake() <= self.header.lookouts.load(Ordering::Relaxed) as usize
    }

    /// Slots that ever had a worker.
    pub(crate) fn used_slots(&self) -> usize {
        self.words().used_slots()
    }

    /// Wakes workers for the runs that wait in the ring: those that are awake and idle will each find one.
    pub(crate) fn wake_for_runs(&self) {
        bell::publish_fence();
        // In this order: a worker says that it takes a run before it does, so one whose run is not counted here is not
        // counted as idle there.
        let waiting = self.ring().len() as usize;
        self.wake_sleepers_for(waiting.saturating_sub(self.lookouts(self.used_slots())));
    }

    /// Wakes one worker who will steal, unless one is awake and idle.
    pub(crate) fn call_for_help(&self) {
        bell::publish_fence();
        if self.lookouts(self.used_slots()) == 0 {
            self.wake_sleepers_for(1);
        }
    }

    /// Wakes workers for what nobody has begun of a job, and for runs that wait in the ring. A caller does so before it
    /// sleeps: whoever began the job may be in its first element for long, and can call nobody. Gives whether anybody was
    /// woken.
    pub(crate) fn wake_for_rest(&self, job: JobKey) -> bool {
        let in_lanes: u64 = self
            .lanes(job)
            .iter()
            .map(|lane| u64::from(lane.waiting().len()))
            .sum();
        let rest = in_lanes + self.ring().len();
        if rest == 0 {
            return false;
        }
        bell::publish_fence();
        self.wake_sleepers_for(usize::try_from(rest).unwrap_or(usize::MAX)) > 0
    }

    /// Wakes so many of those that sleep, if there are as many. Gives how many were woken.
    fn wake_sleepers_for(&self, runs: usize) -> usize {
        let sleepers = self.parks.iter().take(self.used_slots());
        let woken = sleepers.filter(|park| park.claim_wake()).take(runs);
        woken.map(|park| swathe_os::futex::wake(park.word(), 1)).count()
    }

    /// Wakes one worker, for what only it can do.
    pub(crate) fn wake(&self, worker: usize) {
        bell::publish_fence();
        if self.parks[worker].claim_wake() {
            swathe_os::futex::wake(self.parks[worker].word(), 1);
        }
    }

    /// The worker of a slot is gone for good, or until another is started: nobody is awake there, or looks for work.
    pub(crate) fn vacate(&self, worker: usize) {
        self.slots[worker].vacate();
        self.parks[worker].vacate();
    }

    /// Wakes every sleeping worker, also one whose wake was lost by a death.
    pub(crate) fn wake_all(&self) {
        bell::publish_fence();
        let taken = |park: &&ParkWord| park.state() != ParkWordState::Vacant;
        for park in self.parks.iter().filter(taken) {
            park.wake_anyway();
            swathe_os::futex::wake(park.word(), u32::MAX);
        }
    }

    /// Wakes the parent's courier.
    pub(crate) fn wake_courier(&self) {
        bell::publish_fence();
        if self.header.courier.claim_wake() {
            swathe_os::futex::wake(self.header.courier.word(), 1);
        }
    }

    /// Wakes it even if somebody else claimed to: the one who claimed it may have died.
    pub(crate) fn wake_courier_anyway(&self) {
        self.header.courier.unpark_self();
        swathe_os::futex::wake(self.header.courier.word(), 1);
    }

    /// Makes those who wait for a job look at it: it is over, or nearly. The courier too, if the job asks for it.
    pub(crate) fn ring_bell(&self, cell: &JobCell, attended: bool) {
        self.words().ring_bell(&System, cell, attended);
    }

    /// Wakes those who wait for a job whatever its bell says: a dead worker may have rung, and owe the wake.
    pub(crate) fn wake_waiters(&self, cell: &JobCell) {
        let _ = cell.bell.ring();
        swathe_os::futex::wake(cell.bell.word(), u32::MAX);
    }

    /// Completes the job if all its chunks are counted. `true` for the one who did it.
    pub(crate) fn complete_if_counted(
        &self,
        key: JobKey,
        cell: &JobCell,
        seen: swathe_protocol::GateState,
    ) -> bool {
        cell.complete_if_counted(seen, || self.lanes(key))
    }

    /// Puts a run into the ring.
    pub(crate) fn push(&self, run: Descriptor) -> Result<(), Descriptor> {
        self.ring().push(run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_slots_with_a_worker_count_as_awake_or_looking_for_work() {
        let control = Control::create(4).expect("a small segment can be made");
        control.header.used_slots.store(4, Ordering::Relaxed);
        control.set_lookouts(1, 2);
        assert_eq!((control.awake(), control.lookouts(4)), (0, 0), "nobody has come");
        for worker in 0..3 {
            control.parks[worker].unpark_self();
            control.slots[worker].set_phase(SlotPhase::Idle);
        }
        control.parks[2].prepare();
        assert_eq!((control.awake(), control.lookouts(4)), (2, 2));
        assert!(!control.spares_a_core());
        // One dies looking for work, one asleep.
        control.vacate(1);
        control.vacate(2);
        control.wake_all();
        assert_eq!((control.awake(), control.lookouts(4)), (1, 1));
        assert!(control.spares_a_core());
        assert_eq!(control.wake_sleepers_for(4), 0, "nobody is left to be woken");
    }
}
