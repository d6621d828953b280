//! The whole program is killed, again and again, and ends with the same bytes.

use std::{
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use rand_pcg::{
    Pcg64,
    rand_core::{RngCore, SeedableRng},
};
use swathe::Result;
use swathe_tests::{descendants, runs, until, watch};

use super::{Place, Published};

const POSITIONS: usize = 4000;

fn program(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_scenario"));
    command.arg("resume").arg(directory).stdout(Stdio::null());
    command
}

/// Starts the program, and kills it at some moment, while it starts or while it works: the parent alone, or all its
/// processes in any order.
fn run_and_kill(place: &Place, random: &mut Pcg64) {
    let mut child = program(place.path()).spawn().expect("it starts");
    let number = random.next_u32();
    if number.is_multiple_of(3) {
        thread::sleep(Duration::from_micros(u64::from(number % 60_000)));
    } else {
        let more = Published::read(place, POSITIONS).count() + number as usize % 300;
        until("it gets on", || Published::read(place, POSITIONS).count() > more);
    }
    let of_child = |family: &mut Vec<u32>, process: &swathe_tests::Process| {
        if family.contains(&process.parent) {
            family.push(process.pid);
        }
    };
    let mut family = vec![child.id()];
    descendants()
        .iter()
        .for_each(|process| of_child(&mut family, process));
    if random.next_u32().is_multiple_of(2) {
        let first = random.next_u32() as usize % family.len();
        family.rotate_left(first);
        for &pid in &family {
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pid as i32),
                nix::sys::signal::Signal::SIGKILL,
            );
        }
    } else {
        child.kill().expect("it can be killed");
    }
    child.wait().expect("it ends");
    until("its workers are gone", || family.iter().all(|&pid| !runs(pid)));
}

#[test]
fn a_killed_program_goes_on() -> Result<()> {
    let _watch = watch();
    let whole = Place::new();
    assert!(program(whole.path()).status().expect("it starts").success());
    for seed in 0..3 {
        let mut random = Pcg64::seed_from_u64(seed);
        let place = Place::new();
        let mut seen: Vec<(Published, Vec<u8>)> = Vec::new();
        for _ in 0..8 {
            run_and_kill(&place, &mut random);
            seen.push((Published::read(&place, POSITIONS), place.counts(POSITIONS)));
        }
        assert!(program(place.path()).status().expect("it starts").success());
        assert_eq!(place.bytes().0, whole.bytes().0, "seed {seed}");
        let counts = place.counts(POSITIONS);
        let mut last = 0;
        for (published, then) in &seen {
            for position in (0..POSITIONS).filter(|&position| published.done[position]) {
                assert_eq!(
                    counts[position], then[position],
                    "position {position}, seed {seed}"
                );
            }
            assert!(
                published.count() >= last,
                "{} positions are done, and {last} were before",
                published.count()
            );
            last = published.count();
        }
        assert!((1..POSITIONS).contains(&last), "killed in the middle: {last}");
        let starts: usize = counts.iter().map(|&count| usize::from(count)).sum();
        // Each kill costs at most what two workers have in hand.
        assert!(starts < 2 * POSITIONS, "{starts} starts");
    }
    Ok(())
}

/// The workers of a killed program hold its lock until they are gone: the next run waits for that.
#[test]
fn the_next_run_may_start_at_once() -> Result<()> {
    let _watch = watch();
    let place = Place::new();
    for _ in 0..5 {
        let mut child = program(place.path()).spawn().expect("it starts");
        until("it has begun", || place.output().exists());
        thread::sleep(Duration::from_millis(20));
        child.kill().expect("it can be killed");
        child.wait().expect("it ends");
    }
    assert!(program(place.path()).status().expect("it starts").success());
    Ok(())
}
