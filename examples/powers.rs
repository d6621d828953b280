//! The verbs side by side: `map`, `starmap`, `starmap_async` with a timeout, and single calls with `apply_async`.
//!
//! ```text
//! cargo run --example powers
//! ```
//!
//! prints (the lines of the three tasks come in the order in which they start and end, which may be another):
//!
//! ```text
//! Map result: [4, 9, 16]
//! Starmap result: [8, 9, 4]
//! Main process can do other work here...
//! Async result: [8, 9, 4]
//! All tasks submitted. Main process is free.
//! Task1 starting
//! Task2 starting
//! Task3 starting
//! Callback received: Task2 finished after 0.1s
//! Manually retrieved: Task2 finished after 0.1s
//! Callback received: Task1 finished after 0.2s
//! Callback received: Task3 finished after 0.3s
//! ```

use std::{thread::sleep, time::Duration};

use swathe::Pool;

fn power(x: i64, n: u32) -> i64 {
    sleep(Duration::from_millis(100)); // some work
    x.pow(n)
}

fn slow_task(name: &str, seconds: f64) -> String {
    println!("{name} starting");
    sleep(Duration::from_secs_f64(seconds));
    format!("{name} finished after {seconds}s")
}

fn many_calls() -> swathe::Result<()> {
    let pool = Pool::builder().processes(4).build()?;

    // `map` has one argument for each element; what is the same for all of them is a parameter of the call. A worker
    // takes two elements at a time.
    let to_the = |n: &u32, x: i64| power(x, *n);
    let squares = pool.batch().chunk_size(2).with(&2)?.map(to_the, [2, 3, 4])?;
    println!("Map result: {squares:?}");

    // A row for each call. (`(&bases, &exponents)`, a column for each argument, is the form for large inputs.)
    let arguments = [(2, 3), (3, 2), (4, 1)];
    println!("Starmap result: {:?}", pool.starmap(power, arguments)?);

    let pending = pool.starmap_async(power, arguments)?;
    println!("Main process can do other work here...");
    let powers = pending.get_timeout(Duration::from_secs(20))?; // or `Error::Timeout`
    println!("Async result: {powers:?}");
    Ok(())
} // the pool's processes end here

fn single_calls() -> swathe::Result<()> {
    let pool = Pool::builder().processes(2).build()?;
    let mut jobs = Vec::new();
    for (name, seconds) in [("Task1", 0.2), ("Task2", 0.1), ("Task3", 0.3)] {
        let job = pool
            .batch()
            .on_success(|text: &String| println!("Callback received: {text}"))
            .apply_async(slow_task, (name, seconds))?;
        jobs.push(job);
    }
    println!("All tasks submitted. Main process is free.");
    println!("Manually retrieved: {}", jobs[1].get()?);
    pool.close(); // without this the pool would end with the tasks still running
    pool.join()
}

fn main() -> swathe::Result<()> {
    swathe::init();
    many_calls()?;
    single_calls()
}
