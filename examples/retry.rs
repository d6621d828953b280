//! Squares by a task that fails at one element in five, until every element has its square.
//!
//! ```text
//! cargo run --example retry
//! ```
//!
//! prints:
//!
//! ```text
//! ```

use rand_pcg::rand_core::RngCore;
use swathe::{Context, Pool};

/// Fails at one element in five. The generator depends on the seed of the call and the element's position only, so
/// every run of this program sees the same failures.
fn square(context: &Context, x: i64) -> Result<i64, &'static str> {
    if context.rng().next_u32().is_multiple_of(5) { Err("injected failure") } else { Ok(x * x) }
}

/// Asks again for the positions that failed; each result has the place of its element.
fn by_position(pool: &Pool, elements: &[i64]) -> swathe::Result<()> {
    let mut squares = vec![None; elements.len()];
    let mut failures = 0;
    for round in 0.. {
        let missing: Vec<usize> = (0..elements.len()).filter(|&i| squares[i].is_none()).collect();
        if missing.is_empty() {
            break;
        }
        let again = swathe::items(missing.iter().map(|&i| elements[i]));
        let partial = pool.batch().chunk_size(2).seed(round).collect_errors().try_map(square, again)?;
        for (at, &position) in missing.iter().enumerate() {
            squares[position] = partial.value(at)?;
        }
        failures += partial.failures().len();
    }
    let squares: Vec<i64> = squares.into_iter().flatten().collect();
    println!("by position: {failures} failures, then {squares:?}");
    Ok(())
}

fn main() -> swathe::Result<()> {
    swathe::init();
    let pool = Pool::builder().processes(5).max_tasks_per_child(50).build()?;
    by_position(&pool, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
}
