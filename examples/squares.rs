//! Squares of ten numbers in three ways: waiting for all of them, taking each as it comes, and by callback.
//!
//! ```text
//! cargo run --example squares
//! ```
//!
//! prints, with other process ids, with the ten lines of the second way in any order, and with the first five lines
//! anywhere among the others, since the workers write them while the main process goes on:
//!
//! ```text
//! pool process with id 4244 received a task from main process with id 4242
//! (and four more such lines, one a worker)
//! Squares: [1, 4, 9, 16, 25, 36, 49, 64, 81, 100]
//! 1
//! 4
//! (and eight more such lines)
//! Received result as: [1, 4, 9, 16, 25, 36, 49, 64, 81, 100]
//! ```

use swathe::Pool;

fn square(x: i64) -> i64 {
    x * x
}

/// Runs in every worker before its first task.
fn greet(main_id: u32) {
    let id = std::process::id();
    println!("pool process with id {id} received a task from main process with id {main_id}");
}

fn main() -> swathe::Result<()> {
    swathe::init(); // a worker starts here and never returns
    let pool = Pool::builder()
        .processes(5)
        .initializer(greet, std::process::id())
        .max_tasks_per_child(50)
        .build()?;

    // The caller waits; results have the order of the input. Each worker takes two elements at a time.
    let squares = pool.batch().chunk_size(2).map(square, 1..=10)?;
    println!("Squares: {squares:?}");

    // The caller takes each result as soon as it is there, in whatever order.
    for square in pool.batch().chunk_size(2).imap_unordered(square, 1..=10) {
        println!("{}", square?);
    }

    // The caller goes on, and is told.
    pool.batch()
        .chunk_size(2)
        .on_success(|squares: &[i64]| println!("Received result as: {squares:?}"))
        .on_error(|error| eprintln!("Error: {error}"))
        .map_async(square, 1..=10)?;
    pool.close(); // no more calls
    pool.join() // until all that was asked for is done, and told
}
