//! A large array that lies in memory once, however many workers read it.
//!
//! ```text
//! cargo run --example shared_array
//! ```
//!
//! prints (the first four lines come when the workers do, in any order):
//!
//! ```text
//! Worker swathe-w0 initializing...
//! Worker swathe-w1 initializing...
//! Worker swathe-w2 initializing...
//! Worker swathe-w3 initializing...
//! [0.0, 0.5, 2.0, 4.5, 8.0, 12.5, 18.0, 24.5, 32.0, 40.5]
//! ```

use swathe::{Array, Context, Pool};

/// What every worker holds while it lives. `Array` is a handle: the numbers are not copied to the workers.
struct Loaded {
    large_data: Array<f64>,
}

/// Runs in every worker before its first task; what it returns is the first argument of tasks that ask for it. Expensive
/// things are done here: files opened, transforms planned.
fn load(context: &Context, large_data: Array<f64>) -> Loaded {
    println!("Worker {} initializing...", context.worker_name());
    Loaded { large_data }
}

fn weigh(loaded: &mut Loaded, index: usize) -> f64 {
    loaded.large_data[index] * index as f64
}

fn main() -> swathe::Result<()> {
    swathe::init();
    let large_data = Array::from_fn(10_000_000, |i| i as f64 / 2.0)?; // 80 MB
    let pool = Pool::builder()
        .processes(4)
        .state(load, large_data)
        .max_tasks_per_child(100)
        .build()?;
    let results = pool.map(weigh, 0..10)?;
    println!("{results:?}");
    pool.close();
    pool.join()
}
