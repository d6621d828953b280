//! Blows from outside, at times drawn from a seed.

use std::time::{Duration, Instant};

use swathe_protocol::{SlotPhase, WorkerSlot};

use crate::{fault::Chaos, supervisor::Process};

/// When which blow falls next.
pub(crate) struct Strikes {
    draws: u64,
    kills: Clock,
    stops: Clock,
    delays: Clock,
    longest_delay: Duration,
    /// Workers that are let go on: slot, pid, when.
    paused: Vec<(usize, u32, Instant)>,
}

/// One kind of blow: a Poisson process.
struct Clock {
    per_second: f64,
    next: Option<Instant>,
}

impl Strikes {
    pub(crate) fn new(chaos: &Chaos) -> Self {
        let clock = |per_second| Clock {
            per_second,
            next: None,
        };
        Self {
            draws: chaos.seed,
            kills: clock(chaos.kills),
            stops: clock(chaos.stops),
            delays: clock(chaos.delays),
            longest_delay: chaos.longest_delay,
            paused: Vec::new(),
        }
    }

    /// Strikes where it is time. Gives the time of the next blow.
    pub(crate) fn due(&mut self, processes: &mut [Option<Process>], slots: &[WorkerSlot]) -> Option<Instant> {
        let now = Instant::now();
        let draws = &mut self.draws;
        if self.kills.is_due(now, draws)
            && let Some((_, process)) = victim(processes, slots, draws)
        {
            process.hit_by_chaos = true;
            process.pidfd.iter().for_each(|pidfd| {
                pidfd.kill();
            });
        }
        if self.stops.is_due(now, draws)
            && let Some((_, process)) = victim(processes, slots, draws)
        {
            process.hit_by_chaos = true;
            process.pidfd.iter().for_each(|pidfd| pidfd.pause(true));
        }
        if self.delays.is_due(now, draws)
            && let Some((slot, process)) = victim(processes, slots, draws)
        {
            process.pidfd.iter().for_each(|pidfd| pidfd.pause(true));
            let length = self.longest_delay.mul_f64(unit(draws));
            self.paused.push((slot, process.pid, now + length));
        }
        self.paused.retain(|(slot, pid, until)| {
            let same = processes[*slot].as_ref().filter(|process| process.pid == *pid);
            if *until <= now {
                same.and_then(|process| process.pidfd.as_ref())
                    .into_iter()
                    .for_each(|pidfd| pidfd.pause(false));
            }
            same.is_some() && *until > now
        });
        let clocks = [&self.kills, &self.stops, &self.delays];
        let blows = clocks.into_iter().filter_map(|clock| clock.next);
        blows.chain(self.paused.iter().map(|(_, _, until)| *until)).min()
    }
}

impl Clock {
    fn is_due(&mut self, now: Instant, draws: &mut u64) -> bool {
        if self.per_second <= 0.0 {
            return false;
        }
        let due = self.next.is_some_and(|at| at <= now);
        if due || self.next.is_none() {
            // Exponentially distributed waiting times, by inversion.
            let wait = -(1.0 - unit(draws)).ln() / self.per_second;
            self.next = Some(now + Duration::from_secs_f64(wait.min(3600.0)));
        }
        due
    }
}

/// One of those that live. Not one that was started this instant: stopped before it is bound to its zygote's life, it would
/// outlive everybody.
fn victim<'p>(
    processes: &'p mut [Option<Process>],
    slots: &[WorkerSlot],
    draws: &mut u64,
) -> Option<(usize, &'p mut Process)> {
    let lives = |slot: usize, process: &Process| {
        process.pidfd.is_some() && slots[slot].phase() != SlotPhase::Starting
    };
    let mut living: Vec<_> = processes
        .iter_mut()
        .enumerate()
        .filter_map(|(slot, process)| Some((slot, process.as_mut()?)))
        .filter(|(slot, process)| lives(*slot, process))
        .collect();
    let at = (unit(draws) * living.len() as f64) as usize;
    (at < living.len()).then(|| living.swap_remove(at))
}

/// A number in [0, 1), by SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
fn unit(draws: &mut u64) -> f64 {
    *draws = draws.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *draws;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}
