//! Where a task runs.

use std::{
    fmt,
    time::{Duration, Instant},
};

use rand_pcg::{Pcg64, rand_core::SeedableRng};
use swathe_os::process::monotonic_ns;
use swathe_runtime::{Call, SetupCall, WorkerFacts};

/// What a task can ask about where it runs: it takes a `&Context` before its other arguments.
///
/// ```
/// use swathe::{Context, Pool};
///
/// fn noisy(context: &Context, x: f64) -> f64 {
///     use rand_pcg::rand_core::RngCore;
///     x + context.rng().next_u32() as f64 / u32::MAX as f64
/// }
///
/// fn main() -> swathe::Result<()> {
///     swathe::init();
///     let pool = Pool::builder().processes(2).build()?;
///     let once = pool.map(noisy, [1.0; 100])?;
///     let again = pool.batch().chunk_size(7).map(noisy, [1.0; 100])?;
///     assert_eq!(once, again); // the generator depends on seed and position only
///     Ok(())
/// }
/// ```
#[derive(Clone)]
pub struct Context {
    pub(crate) position: u64,
    seed: u64,
    worker: WorkerFacts,
    rerun: bool,
    attempt: u32,
    deadline_ns: Option<u64>,
}

impl Context {
    pub(crate) fn of_call(call: &Call<'_>) -> Self {
        Self {
            position: call.base + call.first,
            seed: call.seed,
            worker: call.worker,
            rerun: call.careful,
            attempt: call.attempt,
            deadline_ns: call.deadline_ns,
        }
    }

    pub(crate) fn of_setup(call: &SetupCall<'_>) -> Self {
        Self {
            position: 0,
            seed: 0,
            worker: call.worker,
            rerun: false,
            attempt: 1,
            deadline_ns: None,
        }
    }

    /// The element's position in the input, from 0. (In `run_per_worker` it is the worker's number; in an initializer 0.)
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The number of the worker process, from 0; a replacement has the number of its predecessor.
    pub fn worker(&self) -> usize {
        self.worker.index as usize
    }

    /// The name of the worker process, as `ps` shows it.
    pub fn worker_name(&self) -> String {
        self.worker.name()
    }

    /// How many processes have had this worker's number, this one included: from 1.
    pub fn incarnation(&self) -> u32 {
        self.worker.incarnation
    }

    /// How many workers the pool had when this one started.
    pub fn processes(&self) -> usize {
        self.worker.processes as usize
    }

    /// Whether a worker died near this element before, so that this is possibly not its first run.
    pub fn is_rerun(&self) -> bool {
        self.rerun
    }

    /// Which try of this element this is, as far as is known: 1, and one more for each retry
    /// ([`Batch::retries`](crate::Batch::retries)) and for each worker that died of the element. A death that cannot be
    /// blamed on a single element is not counted: see [`is_rerun`](Self::is_rerun).
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// When this call must be done: at the element's timeout or at the job's deadline, whichever is earlier. Then its
    /// worker is killed.
    pub fn deadline(&self) -> Option<Instant> {
        Instant::now().checked_add(self.time_left()?)
    }

    /// How much time is left until the [`deadline`](Self::deadline); nothing, if it has passed.
    pub fn time_left(&self) -> Option<Duration> {
        let left = self.deadline_ns?.saturating_sub(monotonic_ns());
        Some(Duration::from_nanos(left))
    }

    /// A random generator for this element: a function of the job's seed and the position, and of nothing else. So the
    /// numbers do not depend on the workers, on chunk sizes or on reruns. Every call gives it from its start.
    ///
    /// It is a PCG XSL RR 128/64 ([`rand_pcg::Pcg64`]; O'Neill, HMC-CS-2014-0905), its state and stream filled by
    /// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
    pub fn rng(&self) -> Pcg64 {
        // Mixed twice, so that neighbouring positions do not run through shifted copies of one sequence.
        let mut state = mix(mix(self.seed.wrapping_add(GOLDEN)) ^ self.position);
        let mut seed = [0; 32];
        for word in seed.chunks_exact_mut(8) {
            state = state.wrapping_add(GOLDEN);
            word.copy_from_slice(&mix(state).to_le_bytes());
        }
        Pcg64::from_seed(seed)
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("position", &self.position)
            .field("worker", &self.worker.index)
            .finish_non_exhaustive()
    }
}

/// SplitMix64's increment: 2^64 divided by the golden ratio.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64's finalizer.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
