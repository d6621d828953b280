//! A C library that must not be used from two threads and leaks at every call, used in parallel for as long as one
//! likes: each worker process has a copy of its globals, and is replaced before it has leaked much.
//!
//! ```text
//! cargo run --example legacy_c
//! ```
//!
//! prints, with other sizes and about as many processes:
//!
//! ```text
//! 2000 of 2000 expressions have the right value
//! 40 processes took turns, each for at most 50 expressions
//! a single process would have leaked 125 MiB; the largest worker had 3.3 MiB of its own
//! a wrong expression is an error like any other: position 1 failed: a number is missing at column 9 (worker 0, pid 4244)
//! ```

mod calculator;

use std::collections::BTreeMap;

use bytemuck::{Pod, Zeroable};
use calculator::Calculator;
use swathe::Pool;

/// Expressions after which a worker is replaced.
const TURN: u64 = 50;
/// What the library loses at each call, in KiB.
const LEAK: u64 = 64;

/// What a task returns: plain data, so it lies in shared memory as it is.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Evaluated {
    value: f64,
    /// Memory that the worker shares with nobody, in KiB.
    private: u64,
    pid: u64,
}

fn evaluate(calculator: &mut Calculator, text: &str) -> Result<Evaluated, String> {
    let value = calculator.evaluate(text)?;
    Ok(Evaluated {
        value,
        private: private_memory()?,
        pid: std::process::id().into(),
    })
}

/// Memory of this process that is not shared, in KiB.
fn private_memory() -> Result<u64, String> {
    let status = std::fs::read_to_string("/proc/self/status").map_err(|error| error.to_string())?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let number = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
    number.ok_or_else(|| "the kernel does not tell how much memory the process has".into())
}

fn main() -> swathe::Result<()> {
    swathe::init();
    let pool = Pool::builder()
        .processes(4)
        .try_state(Calculator::open, ())
        .max_tasks_per_child(TURN)
        .build()?;

    let expressions: Vec<String> = (0..2000).map(|i| format!("({i} + 1) * 2 - {i} / 4")).collect();
    let results = pool.try_map(evaluate, &expressions)?;

    let right = |i: usize| (i as f64 + 1.0) * 2.0 - i as f64 / 4.0;
    let correct = results
        .iter()
        .enumerate()
        .filter(|(i, result)| result.value == right(*i))
        .count();
    println!("{correct} of {} expressions have the right value", results.len());

    let mut turns = BTreeMap::new();
    for result in results.iter() {
        *turns.entry(result.pid).or_insert(0) += 1;
    }
    let longest = turns.values().max().unwrap_or(&0);
    println!(
        "{} processes took turns, each for at most {longest} expressions",
        turns.len()
    );

    let largest = results.iter().map(|result| result.private).max().unwrap_or(0);
    println!(
        "a single process would have leaked {} MiB; the largest worker had {:.1} MiB of its own",
        results.len() as u64 * LEAK / 1024,
        largest as f64 / 1024.0,
    );

    if let Err(error) = pool.try_map(evaluate, ["1 + 2", "3 * (4 -"]) {
        println!("a wrong expression is an error like any other: {error}");
    }
    pool.close();
    pool.join()
}
