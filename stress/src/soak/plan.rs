//! What is run: pools and jobs, drawn from the seed and their number.

use std::{collections::BTreeMap, time::Duration};

use swathe::{
    ChunkSize, Memory, Pool,
    chaos::{Chaos, Fault, Injection, Point},
};

use super::{
    draw::Draw,
    tasks::{Harm, Pace},
};

/// Jobs of one pool.
pub(super) const JOBS_A_POOL: u64 = 24;
/// Deaths that no innocent element comes near.
const NEVER_GIVEN_UP: u32 = 1_000_000;
/// Deaths of an element that kills its workers, until it is given up.
const DEADLY: u32 = 12;
/// How long an element may take where some never end.
const ELEMENT_TIMEOUT: Duration = Duration::from_millis(250);

/// Streams of random numbers.
const OF_POOLS: u64 = 1 << 62;
const OF_JOBS: u64 = 2 << 62;

/// What a pool has to bear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weather {
    /// Nothing; workers are recycled, and the pool is resized. No element is started twice without cause.
    Calm,
    /// Kills and delays.
    Kills,
    /// Workers are stopped for good as well: every element has a timeout, and several tries.
    Stops,
}

/// How a pool ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Dropped,
    ClosedAndJoined,
    /// With a job in work.
    Terminated,
}

/// One pool.
#[derive(Clone, Debug)]
pub(super) struct PoolPlan {
    pub(super) number: u64,
    pub(super) weather: Weather,
    pub(super) processes: usize,
    max_tasks: Option<u64>,
    max_growth: Option<u64>,
    own_memory: bool,
    initializer: bool,
    kills: f64,
    stops: f64,
    delays: f64,
    /// Where its workers die besides.
    injection: Option<Injection>,
    /// Threads that run jobs on it.
    pub(super) clients: u64,
    pub(super) resized: bool,
    /// Whether its zygote is killed now and then.
    pub(super) zygote_killed: bool,
    pub(super) ending: Ending,
    chaos_seed: u64,
}

impl PoolPlan {
    /// `kills` a second, if it is to have any.
    pub(super) fn new(seed: u64, number: u64, kills: f64) -> Self {
        let draw = &mut Draw::new(seed, OF_POOLS | number);
        let weather = match draw.within(0..8) {
            0 => Weather::Calm,
            1 | 2 => Weather::Stops,
            _ => Weather::Kills,
        };
        let rough = weather != Weather::Calm && kills > 0.0;
        Self {
            number,
            weather,
            processes: draw.size(1..7),
            max_tasks: draw.percent(25).then(|| draw.within(20..400)),
            max_growth: draw.percent(10).then_some(64 << 20),
            own_memory: draw.percent(15),
            initializer: draw.percent(25),
            // Who is stopped must be found by the clock, too.
            kills: if rough && (weather == Weather::Kills || draw.percent(50)) {
                kills
            } else {
                0.0
            },
            stops: if weather == Weather::Stops && rough {
                1.0 + kills / 25.0
            } else {
                0.0
            },
            delays: if rough && draw.percent(50) {
                2.0 + kills / 10.0
            } else {
                0.0
            },
            injection: (rough && draw.percent(35)).then(|| injection(draw)),
            clients: draw.within(1..5),
            resized: draw.percent(40),
            zygote_killed: rough && draw.percent(30),
            ending: draw.pick(&[Ending::Dropped, Ending::ClosedAndJoined, Ending::Terminated]),
            chaos_seed: draw.next(),
        }
    }

    /// Starts it.
    pub(super) fn build(&self) -> swathe::Result<Pool> {
        let mut chaos = Chaos::seeded(self.chaos_seed)
            .kill(self.kills)
            .stop(self.stops)
            .delay(self.delays, Duration::from_millis(20));
        if let Some(injection) = self.injection {
            chaos = chaos.inject(injection);
        }
        let mut builder = Pool::builder()
            .processes(self.processes)
            .chaos(chaos)
            .restart_budget(u32::MAX, Duration::from_secs(1))
            .exit_timeout(Duration::from_secs(1))
            .initializer_timeout(Duration::from_secs(3));
        if let Some(elements) = self.max_tasks {
            builder = builder.max_tasks_per_child(elements);
        }
        if let Some(bytes) = self.max_growth {
            builder = builder.max_growth_per_child(bytes);
        }
        if self.own_memory {
            builder = builder.memory(Memory::with_capacity(256 << 20)?);
        }
        if self.initializer {
            builder = builder.initializer(settle_in, 200_u64);
        }
        builder.build()
    }

    /// The numbers of its jobs.
    pub(super) fn jobs(&self) -> std::ops::Range<u64> {
        self.number * JOBS_A_POOL..(self.number + 1) * JOBS_A_POOL
    }
}

/// A death at a point of every worker's way that random kills seldom hit.
fn injection(draw: &mut Draw) -> Injection {
    let points = [
        Point::Idle,
        Point::BeforeClaim,
        Point::Claimed,
        Point::Reading,
        Point::Running,
        Point::Writing,
        Point::Written,
        Point::Published,
        Point::Recycling,
        Point::ExitHook,
    ];
    let point = draw.pick(&points);
    let often = matches!(
        point,
        Point::Claimed | Point::BeforeClaim | Point::Reading | Point::Recycling | Point::ExitHook
    );
    Injection {
        point,
        fault: Fault::Kill,
        worker: draw.percent(50).then(|| draw.within(0..3) as u32),
        incarnation: None,
        nth: if often {
            draw.within(2..12)
        } else {
            draw.within(3..200)
        },
    }
}

/// An initializer that takes its time.
fn settle_in(micros: u64) {
    std::thread::sleep(Duration::from_micros(micros));
}

/// What is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Map,
    Starmap,
    Texts,
    InPlace,
    Chunks,
    Reduce,
    Imap,
    ImapUnordered,
    Apply,
    PerWorker,
    Produce,
    Consume,
    Relay,
}

const VERBS: [Verb; 16] = [
    Verb::Map,
    Verb::Map,
    Verb::Starmap,
    Verb::Texts,
    Verb::Texts,
    Verb::InPlace,
    Verb::InPlace,
    Verb::Chunks,
    Verb::Reduce,
    Verb::Imap,
    Verb::ImapUnordered,
    Verb::Apply,
    Verb::PerWorker,
    Verb::Produce,
    Verb::Consume,
    Verb::Relay,
];

impl Verb {
    /// Whether a task has many elements at once, and fails for all of them.
    pub(super) fn takes_chunks(self) -> bool {
        matches!(self, Self::Chunks | Self::Reduce)
    }

    /// Whether there is a verdict for each position, so that elements may fail and jobs be stopped.
    fn is_judged_by_position(self) -> bool {
        matches!(self, Self::Map | Self::Starmap | Self::Texts | Self::InPlace)
    }

    fn is_stream(self) -> bool {
        matches!(self, Self::Imap | Self::ImapUnordered)
    }
}

/// What ends a job before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    Cancelled(Duration),
    Deadline(Duration),
    FirstFailure,
}

/// One job.
#[derive(Clone, Debug)]
pub(super) struct JobPlan {
    pub(super) verb: Verb,
    pub(super) weather: Weather,
    pub(super) len: usize,
    pub(super) chunks: ChunkSize,
    pub(super) pace: Pace,
    pub(super) harms: BTreeMap<u64, Harm>,
    pub(super) retries: u32,
    pub(super) timeout: Option<Duration>,
    pub(super) max_deaths: u32,
    pub(super) cut: Option<Cut>,
    /// Whether the input lies in shared memory already.
    pub(super) in_array: bool,
    /// Whether the caller waits in the verb itself.
    pub(super) blocking: bool,
    /// A stream is dropped after so many results.
    pub(super) dropped_after: Option<usize>,
    pub(super) look_ahead: Option<usize>,
    /// For whatever else must be drawn.
    pub(super) seed: u64,
}

impl JobPlan {
    pub(super) fn new(seed: u64, number: u64, weather: Weather) -> Self {
        let draw = &mut Draw::new(seed, OF_JOBS | number);
        let verb = draw.pick(&VERBS);
        let (len, pace) = size(draw, verb);
        let chunks = match draw.within(0..4) {
            0 if verb.takes_chunks() => ChunkSize::Fixed(draw.size(1..40)),
            0 | 1 => ChunkSize::Fixed(draw.size(1..80)),
            2 => ChunkSize::Pool,
            _ => ChunkSize::Auto,
        };
        let mut plan = Self {
            verb,
            weather,
            len,
            chunks,
            pace,
            harms: BTreeMap::new(),
            retries: if draw.percent(50) {
                draw.within(1..4) as u32
            } else {
                0
            },
            timeout: None,
            max_deaths: NEVER_GIVEN_UP,
            cut: None,
            in_array: draw.percent(50),
            blocking: draw.percent(50),
            dropped_after: (verb.is_stream() && draw.percent(20)).then(|| draw.size(0..len + 1)),
            look_ahead: draw.percent(40).then(|| draw.size(1..300)),
            seed: draw.next(),
        };
        if verb.is_judged_by_position() || verb.is_stream() {
            plan.draw_harms(draw);
        }
        if verb.is_judged_by_position() && draw.percent(20) {
            plan.cut = Some(match draw.within(0..3) {
                0 => Cut::Cancelled(draw.micros(0..20_000)),
                1 => Cut::Deadline(draw.micros(1..20_000)),
                _ => Cut::FirstFailure,
            });
        }
        let hangs = plan
            .harms
            .values()
            .any(|harm| matches!(harm, Harm::Hang | Harm::HangOnce));
        if weather == Weather::Stops {
            // Whoever is stopped loses a try of an element that is not to blame.
            plan.retries = plan.retries.max(6);
        }
        if hangs || weather == Weather::Stops {
            plan.timeout = Some(ELEMENT_TIMEOUT);
        }
        if hangs || plan.harms.values().any(|harm| *harm == Harm::Abort) {
            plan.max_deaths = DEADLY;
        }
        plan
    }

    fn draw_harms(&mut self, draw: &mut Draw) {
        if draw.percent(50) {
            return;
        }
        let end = self.len as u64;
        let mild: &[Harm] = &[Harm::Error, Harm::Panic, Harm::ErrorOnce, Harm::PanicOnce];
        for at in draw.some_of(30, end) {
            self.harms.insert(at, draw.pick(mild));
        }
        if draw.percent(15) {
            for at in draw.some_of(2, end) {
                self.harms.insert(at, Harm::Abort);
            }
        }
        if draw.percent(15) {
            for at in draw.some_of(2, end) {
                self.harms.insert(at, draw.pick(&[Harm::Hang, Harm::HangOnce]));
            }
        }
    }

    /// How the element at a position may end, if the job is not cut short: the harm that it does at its last try.
    pub(super) fn last_harm(&self, at: u64) -> Option<Harm> {
        let harm = self.harms.get(&at).copied()?;
        (!harm.passes() || self.retries == 0).then_some(harm)
    }

    /// Whether starts can be counted exactly.
    pub(super) fn counts_starts(&self) -> bool {
        self.weather == Weather::Calm && !self.harms.values().any(|harm| harm.is_deadly())
    }
}

/// How many elements, and how long each takes.
fn size(draw: &mut Draw, verb: Verb) -> (usize, Pace) {
    match verb {
        Verb::PerWorker => return (0, Pace::Asleep(draw.within(0..500))),
        Verb::Apply => return (draw.size(1..60), Pace::Busy(draw.within(0..200))),
        Verb::Produce | Verb::Consume | Verb::Relay => {
            return (draw.size(1..400), Pace::Asleep(draw.within(0..200)));
        }
        Verb::Chunks | Verb::Reduce => {
            return match draw.percent(50) {
                true => (draw.size(0..20_000), Pace::Free),
                false => (draw.size(0..4000), Pace::Busy(2)),
            };
        }
        _ => {}
    }
    if draw.percent(5) {
        return (draw.size(0..3), Pace::Free);
    }
    match draw.within(0..5) {
        0 => (draw.size(1..40_000), Pace::Free),
        1 => (draw.size(1..6000), Pace::Busy(3)),
        2 => (draw.size(1..1000), Pace::Busy(30)),
        3 => (draw.size(1..800), Pace::Asleep(50)),
        _ => (draw.size(1..120), Pace::Asleep(1000)),
    }
}
