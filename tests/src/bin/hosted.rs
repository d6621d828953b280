//! A program that wants to be told of its workers' lives. It says what it was told, process by process.

use std::{
    process,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

use swathe::{Host, Pool, Result};

/// How often each function was called in this process, and in those that it was forked from.
static CALLS: [AtomicU32; 6] = [const { AtomicU32::new(0) }; 6];
/// The process that prepared itself.
static PREPARED: AtomicU32 = AtomicU32::new(0);

struct Counting;

fn count(which: usize) {
    CALLS[which].fetch_add(1, Relaxed);
}

impl Host for Counting {
    fn prepare(&self) -> Result<(), String> {
        count(0);
        PREPARED.store(process::id(), Relaxed);
        if std::env::var_os("REFUSE").is_some() {
            Err("there is no library".into())
        } else {
            Ok(())
        }
    }

    fn before_fork(&self) {
        count(1);
    }

    fn after_fork_in_parent(&self) {
        count(2);
    }

    fn after_fork_in_child(&self) {
        count(3);
    }

    fn enter(&self, worker: u32, life: &mut dyn FnMut()) {
        count(4);
        life();
        println!("worker {worker} is back, left {} times", calls()[5]);
    }

    fn leave(&self) {
        count(5);
    }

    fn exit(&self, code: i32) -> ! {
        println!("exit {code}");
        process::exit(code)
    }
}

fn calls() -> [u32; 6] {
    [0, 1, 2, 3, 4, 5].map(|i: usize| CALLS[i].load(Relaxed))
}

fn main() {
    swathe::init_with(&Counting);
    if let Err(error) = run() {
        println!("{error}");
    }
}

fn run() -> Result<()> {
    let pool = Pool::builder().processes(2).build()?;
    // One after the other, so that the first is forked before the second.
    let seen = pool.run_per_worker(|| {
        let prepared = PREPARED.load(Relaxed) == std::os::unix::process::parent_id();
        let [a, b, c, d, e, f] = calls();
        [a, b, c, d, e, f, u32::from(prepared)]
    })?;
    for (worker, calls) in seen.iter().enumerate() {
        println!("worker {worker}: {calls:?}");
    }
    pool.close();
    pool.join()?;
    println!("parent: {:?}", calls());
    Ok(())
}
