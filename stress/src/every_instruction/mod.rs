//! Death at every instruction: a process is stepped to before instruction 0, 1, 2, ... of its way and killed there, and
//! each time what it worked at must come to its right end.

mod course;
pub mod doorbell;
mod jobs;
mod shared;
mod tally;
mod trial;

use std::{io, process::ExitCode, time::Duration};

pub use tally::Tally;

use crate::tracee;

/// Who has not been woken by then never will be.
const PATIENCE: Duration = Duration::from_secs(10);

/// So many hangs in a case are enough to know.
const MOST_HANGS: u64 = 3;

/// What is killed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Target {
    /// A worker on its way through a job.
    Job,
    /// A sleeper and a ringer of the protocol's doorbells.
    Doorbell,
    /// A worker that uses a shared `Queue`.
    Queue,
    /// A worker that uses a shared `Value`.
    Value,
    /// Each of them.
    #[default]
    All,
}

/// Kills a process before every instruction of its way, and checks what comes of it.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What is killed.
    #[arg(long, value_enum, default_value_t)]
    pub target: Target,
    /// Only the cases whose name contains this.
    #[arg(long, default_value = "")]
    pub case: String,
    /// Every how many instructions.
    #[arg(long, default_value_t = 1)]
    pub stride: usize,
    /// At most so many deaths a case.
    #[arg(long)]
    pub max: Option<usize>,
    /// Chooses where the strides begin.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

/// The instructions that are tried.
#[derive(Clone, Copy, Debug)]
pub struct Pick {
    stride: usize,
    max: usize,
    seed: u64,
}

impl Pick {
    /// Every so many, at most so many of them; the seed chooses the first.
    pub fn new(stride: usize, max: usize, seed: u64) -> Self {
        Self {
            stride: stride.max(1),
            max: max.max(1),
            seed,
        }
    }

    /// Of a course of this length.
    pub fn of(self, len: usize) -> impl Iterator<Item = usize> {
        // Far enough apart that the most there may be reach the end.
        let stride = self.stride.max(len.div_ceil(self.max)).max(1);
        let first = mix(self.seed) % stride as u64;
        (first as usize..len).step_by(stride)
    }
}

/// A number whose bits all depend on all bits of `x`: the finalizer of MurmurHash3.
fn mix(x: u64) -> u64 {
    let x = (x ^ x >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let x = (x ^ x >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ x >> 33
}

/// Runs the cases, telling of each as soon as it is over.
///
/// # Errors
/// If processes cannot be stepped, or nothing can be started.
pub fn run(args: &Args, mut tell: impl FnMut(&Tally)) -> io::Result<Vec<Tally>> {
    let pick = Pick::new(args.stride, args.max.unwrap_or(usize::MAX), args.seed);
    tracee::stay_on_this_core();
    let wanted = |target| args.target == target || args.target == Target::All;
    let mut tallies = Vec::new();
    let mut cases = Vec::new();
    if wanted(Target::Job) {
        cases.extend(jobs::CASES);
    }
    if wanted(Target::Queue) {
        cases.extend(shared::QUEUE_CASES);
    }
    if wanted(Target::Value) {
        cases.extend(shared::VALUE_CASES);
    }
    for case in cases.into_iter().filter(|case| case.name.contains(&args.case)) {
        let tally = trial::run(case, pick)?;
        tell(&tally);
        tallies.push(tally);
    }
    if wanted(Target::Doorbell) {
        for scene in doorbell::SCENES
            .iter()
            .filter(|scene| scene.name.contains(&args.case))
        {
            let tally = doorbell::run(scene, pick, PATIENCE, MOST_HANGS)?;
            tell(&tally);
            tallies.push(tally);
        }
    }
    Ok(tallies)
}

/// The subcommand.
pub fn main(args: &Args) -> ExitCode {
    if let Err(why) = tracee::permitted() {
        eprintln!("nothing was tried: {why}");
        return ExitCode::FAILURE;
    }
    match run(args, |tally| println!("{tally}")) {
        Ok(tallies) => {
            let sum = |of: fn(&Tally) -> u64| tallies.iter().map(of).sum::<u64>();
            println!(
                "{} instructions, {} deaths: lost {}, doubled {}, wrong {}, hung {}",
                sum(|t| t.instructions as u64),
                sum(|t| t.deaths),
                sum(|t| t.sum.lost),
                sum(|t| t.sum.doubled),
                sum(|t| t.sum.wrong),
                sum(|t| t.hung)
            );
            match tallies.iter().all(Tally::is_good) {
                true => ExitCode::SUCCESS,
                false => ExitCode::FAILURE,
            }
        }
        Err(error) => {
            eprintln!("the trials could not go on: {error}");
            ExitCode::FAILURE
        }
    }
}
