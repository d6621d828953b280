//! Negative controls: `raw_sync`'s event and mutex get the deaths that the engine's doorbells and values get. A check
//! that no death wedges anybody proves something only if it sees a wedge where there is one.

use std::{io, process::ExitCode, time::Duration};

use crate::{
    every_instruction::{
        self, Pick, Tally, Target,
        doorbell::{self, Scene},
    },
    roles::{Act, WaitKind},
    tracee,
};

/// What `raw_sync` offers.
pub const SCENES: &[Scene] = &[
    Scene {
        name: "raw_sync/event-waiter",
        kind: WaitKind::RawEvent,
        mortal: Act::Wait,
    },
    Scene {
        name: "raw_sync/event-setter",
        kind: WaitKind::RawEvent,
        mortal: Act::Wake,
    },
    Scene {
        name: "raw_sync/mutex-holder",
        kind: WaitKind::RawMutex,
        mortal: Act::Wait,
    },
];

/// Kills users of raw_sync's event and mutex, and of our doorbells and values, at every instruction, and shows who is
/// left waiting for ever.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Every how many instructions.
    #[arg(long, default_value_t = 1)]
    pub stride: usize,
    /// Chooses where the strides begin.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// After how many milliseconds a survivor of raw_sync is said to wait for ever.
    #[arg(long, default_value_t = 500)]
    pub patience: u64,
}

/// Runs the scenes of `raw_sync`, telling of each as soon as it is over.
///
/// # Errors
/// If processes cannot be started or stepped.
pub fn run(pick: Pick, patience: Duration, mut tell: impl FnMut(&Tally)) -> io::Result<Vec<Tally>> {
    let scene = |scene| {
        let tally = doorbell::run(scene, pick, patience, u64::MAX)?;
        tell(&tally);
        Ok(tally)
    };
    SCENES.iter().map(scene).collect()
}

/// The subcommand: succeeds if `raw_sync` is seen to wedge, and ours is not.
pub fn main(args: &Args) -> ExitCode {
    if let Err(why) = tracee::permitted() {
        eprintln!("nothing was tried: {why}");
        return ExitCode::FAILURE;
    }
    let tell = |tally: &Tally| println!("{tally}");
    let pick = Pick::new(args.stride, usize::MAX, args.seed);
    let ours = || -> io::Result<Vec<Tally>> {
        let targets = [Target::Doorbell, Target::Value, Target::Queue];
        let tallies = targets.map(|target| {
            let ours = every_instruction::Args {
                target,
                case: String::new(),
                stride: args.stride,
                max: None,
                seed: args.seed,
            };
            every_instruction::run(&ours, tell)
        });
        Ok(tallies.into_iter().collect::<io::Result<Vec<_>>>()?.concat())
    };
    let both = run(pick, Duration::from_millis(args.patience), tell).and_then(|theirs| Ok((theirs, ours()?)));
    match both {
        Ok((theirs, ours)) => {
            let wedged = |tallies: &[Tally]| tallies.iter().map(|tally| tally.hung).sum::<u64>();
            let deaths = |tallies: &[Tally]| tallies.iter().map(|tally| tally.deaths).sum::<u64>();
            println!(
                "survivors left waiting for ever: raw_sync {} after {} deaths, ours {} after {}",
                wedged(&theirs),
                deaths(&theirs),
                wedged(&ours),
                deaths(&ours)
            );
            match wedged(&theirs) > 0 && ours.iter().all(Tally::is_good) {
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
