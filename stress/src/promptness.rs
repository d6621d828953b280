//! How long it takes until a death is noticed, and until a hung element is dead.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use swathe::{Context, Pool, SharedArray, Status};
use swathe_os::process::monotonic_ns;

use crate::watch::Watch;

/// Measures how long after its timeout the worker of a hung element is dead, replaced, and its element reported; and how
/// long after a SIGKILL what a busy worker held is run by another.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Trials of each kind.
    #[arg(long, default_value_t = 100)]
    pub trials: usize,
    /// Timeout of the hung element, milliseconds.
    #[arg(long, default_value_t = 50)]
    pub timeout: u64,
}

/// Runs both measurements and prints them.
pub fn main(args: &Args) -> ExitCode {
    let measured = timeouts(args).and_then(|late| Ok((late, requeues(args.trials)?)));
    match measured {
        Ok((mut late, mut requeued)) => {
            println!("{:<44} {:>9} {:>9} {:>9}", "", "median", "99 %", "longest");
            print("timeout of a hung element to its report", &mut late);
            print("SIGKILL of a busy worker to its work's rerun", &mut requeued);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn print(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    println!(
        "{what:<44} {:>6.2} ms {:>6.2} ms {:>6.2} ms",
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

/// Writes down when it starts, then hangs if it is the first.
fn hang(started: SharedArray<u64>, x: u64) -> u64 {
    if x == 0 {
        started.store(0, monotonic_ns());
        loop {
            std::hint::spin_loop();
        }
    }
    x
}

/// From the moment an element's time is over to the moment its caller knows.
fn timeouts(args: &Args) -> swathe::Result<Vec<Duration>> {
    let watch = Watch::over("timeouts");
    let timeout = Duration::from_millis(args.timeout.max(1));
    let pool = Pool::builder().processes(1).build()?;
    let started = SharedArray::from_slice(&[0u64])?;
    let mut late = Vec::with_capacity(args.trials);
    for _ in 0..args.trials.max(1) {
        watch.still_alive();
        let batch = pool.batch().timeout(timeout).collect_errors();
        let partial = batch.starmap(hang, [(started.clone(), 0u64)])?;
        let now = monotonic_ns();
        assert_eq!(
            partial.status(0),
            Status::TimedOut,
            "a hung element has another status"
        );
        let over = started.load(0) + timeout.as_nanos() as u64;
        late.push(Duration::from_nanos(now.saturating_sub(over)));
    }
    Ok(late)
}

/// Sleeps the first time, so that it can be killed; the second time says when it began.
fn linger(context: &Context, begun: SharedArray<u64>, _: u64) -> u64 {
    if context.attempt() == 1 {
        begun.store(1, u64::from(std::process::id()));
        loop {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    begun.store(0, monotonic_ns());
    0
}

/// From the SIGKILL of a busy worker to the moment another, already there, runs what it held.
fn requeues(trials: usize) -> swathe::Result<Vec<Duration>> {
    let watch = Watch::over("requeues");
    let pool = Pool::builder().processes(2).build()?;
    let mut requeued = Vec::with_capacity(trials);
    for _ in 0..trials.max(1) {
        watch.still_alive();
        let begun = SharedArray::from_slice(&[0u64, 0])?;
        let pending = pool.batch().starmap_async(linger, [(begun.clone(), 0u64)])?;
        let ready = Instant::now();
        while begun.load(1) == 0 && ready.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_micros(200));
        }
        let killed = monotonic_ns();
        let _ = kill(Pid::from_raw(begun.load(1) as i32), Signal::SIGKILL);
        pending.get()?;
        requeued.push(Duration::from_nanos(begun.load(0).saturating_sub(killed)));
    }
    Ok(requeued)
}
