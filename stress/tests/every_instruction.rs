//! The short form of the proofs: some instructions of every case, and the wedge that must be seen where there is one.
//!
//! Without the harness: tracer and tracees must be one process's, and roles start before anything else.

use std::time::Duration;

use stress::{
    controls,
    every_instruction::{self, Args, Pick, Tally, Target, doorbell},
    roles, tracee,
};

/// Deaths in each case, spread over all of its instructions.
const DEATHS: usize = 24;
/// Who has not been woken by then never will be.
const PATIENCE: Duration = Duration::from_secs(1);

fn main() {
    swathe::init();
    roles::init();
    if let Err(why) = tracee::permitted() {
        println!("skipped: {why}");
        return;
    }
    let args = Args {
        target: Target::All,
        case: String::new(),
        stride: 1,
        max: Some(DEATHS),
        seed: 1,
    };
    let ours = every_instruction::run(&args, |tally| println!("{tally}")).expect("processes can be stepped");
    assert!(ours.len() > 20, "there are more than {} cases", ours.len());
    for tally in &ours {
        assert!(tally.deaths > 0, "nobody was killed: {tally}");
        assert!(tally.is_good(), "{tally}");
    }
    println!("ok: every death was recovered");

    // One wedge each is enough to know that a wedge would be seen.
    let pick = Pick::new(16, usize::MAX, 1);
    for scene in controls::SCENES {
        let tally = doorbell::run(scene, pick, PATIENCE, 1).expect("processes can be stepped");
        println!("{tally}");
        assert_eq!(
            tally.hung, 1,
            "no death among the users of raw_sync was seen to wedge anybody"
        );
    }
    let waits: u64 = ours.iter().map(|tally: &Tally| tally.hung).sum();
    println!("ok: raw_sync is wedged by such deaths, ours is not ({waits})");
}
