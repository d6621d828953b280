//! The hot path makes no system call while nobody sleeps, and few whatever the number of elements and chunks.
//!
//! Without the harness: the program that is counted is this one, started again.

use stress::{system_calls, tracee};

/// What a job may make in the middle case, all processes together. Somebody may have gone to sleep meanwhile, and must be
/// woken: a call for who sleeps and one for who wakes, for each worker and for the parent, and as many again for those who
/// were called for help. None of it may depend on the number of elements or chunks.
const MOST: u64 = 4 * (system_calls::WORKERS as u64 + 1);
/// What the luckiest of the short jobs may make: none if it met a worker that was awake; on a machine that is so busy that
/// none ever is, one worker and the parent sleep and are woken.
const LEAST: u64 = 4;

fn main() {
    swathe::init();
    system_calls::init();
    if let Err(why) = tracee::permitted() {
        println!("skipped: {why}");
        return;
    }
    let counts = system_calls::count().expect("the program can be traced");
    println!(
        "{:30} {:>5} {:>8} {:>6}",
        "system calls of a job", "least", "median", "most"
    );
    for count in &counts {
        println!("{count}");
    }
    for count in &counts {
        assert!(
            count.median() <= MOST,
            "{}: {} system calls a job, and at most {MOST} are accounted for",
            count.kind,
            count.median()
        );
    }
    for count in &counts[..2] {
        assert!(
            count.fewest() <= LEAST,
            "{}: at least {} system calls a job, and at most {LEAST} are accounted for",
            count.kind,
            count.fewest()
        );
    }
    println!("ok: no job's system calls grow with its elements or chunks");
}
