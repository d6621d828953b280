//! A program with a pool, to be interrupted or killed: it says its pool's process ids in one line, and goes on as its
//! first argument says until somebody ends it.

use std::{
    process::Command,
    thread,
    time::{Duration, Instant},
};

use swathe::{Array, Pool, Result};
use swathe_tests::Process;

/// Bytes of shared memory that it fills.
const MEMORY: usize = 256 << 20;
const HOUR: Duration = Duration::from_secs(3600);

fn sleep(_: u8) {
    thread::sleep(HOUR);
}

fn compute(x: u8) -> u64 {
    let start = Instant::now();
    let mut turns = u64::from(x);
    while start.elapsed() < HOUR {
        turns = std::hint::black_box(turns + 1);
    }
    turns
}

fn main() -> Result<()> {
    swathe::init();
    let what = std::env::args().nth(1).unwrap_or_default();
    let pool = Pool::builder().processes(2).build()?;
    let array = Array::<u64>::from_fn(if what == "memory" { MEMORY / 8 } else { 8 }, |i| i as u64)?;
    pool.map(|x: u64| x, &array)?;
    while pool.workers().len() < 2 {
        thread::sleep(Duration::from_millis(1));
    }
    let workers: Vec<u32> = pool.workers().iter().map(|worker| worker.pid).collect();
    let zygote = Process::read(workers[0]).map_or(0, |worker| worker.parent);
    println!("{} {} {zygote}", workers[0], workers[1]);
    match what.as_str() {
        "waits" => pool.map(sleep, [0; 2]).map(drop)?,
        "computes" => pool.map(compute, [0; 2]).map(drop)?,
        "children" => pool.map(wait_for_child, [0; 2]).map(drop)?,
        "idles" | "memory" => thread::sleep(HOUR),
        "streams" => pool.imap_unordered(|x: u64| vec![x; 100], 0..).for_each(drop),
        "recycles" => recycle()?,
        "ignores" => ignore(&pool)?,
        other => panic!("nothing is called {other:?}"),
    }
    Ok(())
}

/// A task that runs another program.
fn wait_for_child(_: u8) {
    let child = Command::new("sleep").arg("3600").spawn();
    let mut child = child.expect("it starts");
    println!("{}", child.id());
    let _ = child.wait();
}

/// Workers come and go all the time.
fn recycle() -> Result<()> {
    let pool = Pool::builder().processes(2).max_tasks_per_child(1).build()?;
    loop {
        pool.batch().chunk_size(1).map(|x: u64| x, 0..10)?;
    }
}

/// A program that does not care to be interrupted: neither do its workers.
#[expect(unsafe_code, reason = "a signal is ignored by a system call")]
fn ignore(pool: &Pool) -> Result<()> {
    use nix::sys::signal::{SigHandler, Signal, signal};
    // SAFETY: ignoring a signal installs no handler.
    let _ = unsafe { signal(Signal::SIGINT, SigHandler::SigIgn) }.expect("SIGINT may be ignored");
    println!("ready");
    let nap = |x: u64| {
        thread::sleep(Duration::from_millis(10));
        x
    };
    let before: Vec<u32> = pool.workers().iter().map(|worker| worker.pid).collect();
    let sum: u64 = pool.batch().chunk_size(1).map(nap, 0..100)?.iter().sum();
    let after: Vec<u32> = pool.workers().iter().map(|worker| worker.pid).collect();
    println!("{sum} {}", before == after);
    Ok(())
}
