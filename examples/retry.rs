//! Squares by a task that fails at one element in five, until every element has its square: once with a queue of
//! failed elements, once by the positions that the pool reports.
//!
//! ```text
//! cargo run --example retry
//! ```
//!
//! prints:
//!
//! ```text
//! by queue: 4 failures, then [4, 9, 16, 36, 49, 64, 81, 100, 1, 25]
//! by position: 4 failures, then [1, 4, 9, 16, 25, 36, 49, 64, 81, 100]
//! ```

use rand_pcg::rand_core::RngCore;
use swathe::{Context, Pool, Queue, QueueError};

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// Fails at one element in five. The generator depends on the seed of the call and the element's position only, so
/// every run of this program sees the same failures.
fn square(context: &Context, x: i64) -> Result<i64, &'static str> {
    let unlucky = context.rng().next_u32().is_multiple_of(5);
    if unlucky {
        Err("injected failure")
    } else {
        Ok(x * x)
    }
}

/// Fails as `square` does, and tells the parent by putting the element into the queue.
fn square_or_put(failed: &Queue<i64>, context: &Context, x: i64) -> Result<Option<i64>, QueueError> {
    let square = square(context, x).ok();
    if square.is_none() {
        failed.put(&x)?;
    }
    Ok(square)
}

/// The parent submits what is in the queue, until nothing is. Squares come in the order of the rounds, not of the
/// elements. (If a worker dies after a `put`, its element runs again and may be put twice.)
fn by_queue(pool: &Pool, mut elements: Vec<i64>) -> Result<()> {
    let failed = Queue::bounded(elements.len())?;
    let (mut squares, mut failures) = (Vec::new(), 0);
    for round in 0.. {
        let batch = pool.batch().chunk_size(2).seed(round).with(&failed)?;
        let results = batch.try_map(square_or_put, &elements)?;
        squares.extend(results.iter().flatten());
        elements = failed.drain().collect::<Result<_, _>>()?;
        if elements.is_empty() {
            break;
        }
        elements.sort_unstable(); // who fails first is a matter of luck; this program always prints the same
        failures += elements.len();
    }
    println!("by queue: {failures} failures, then {squares:?}");
    Ok(())
}

/// The parent asks again for the positions that failed, so each square has the place of its element.
fn by_position(pool: &Pool, elements: &[i64]) -> Result<()> {
    let mut squares = vec![None; elements.len()];
    let mut failures = 0;
    for round in 0.. {
        let missing: Vec<usize> = (0..elements.len()).filter(|&i| squares[i].is_none()).collect();
        if missing.is_empty() {
            break;
        }
        let again = swathe::items(missing.iter().map(|&i| elements[i]));
        let batch = pool.batch().chunk_size(2).seed(round).collect_errors();
        let partial = batch.try_map(square, again)?;
        for (at, &position) in missing.iter().enumerate() {
            squares[position] = partial.value(at)?;
        }
        failures += partial.failures().len();
    }
    let squares: Vec<i64> = squares.into_iter().flatten().collect();
    println!("by position: {failures} failures, then {squares:?}");
    Ok(())
}

fn main() -> Result<()> {
    swathe::init();
    let pool = Pool::builder().processes(5).max_tasks_per_child(50).build()?;
    let elements: Vec<i64> = (1..=10).collect();
    by_queue(&pool, elements.clone())?;
    by_position(&pool, &elements)?;
    pool.close();
    Ok(pool.join()?)
}
