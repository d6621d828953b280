//! Tasks of two arguments, an integer and a text, that return a text.
//!
//! ```text
//! cargo run --example labels
//! ```
//!
//! prints, after a line from each of the five workers as in `squares`:
//!
//! ```text
//! chunk1-1
//! chunk2-9
//! chunk3-25
//! chunk4-49
//! chunk5-81
//! ```

use swathe::{Pool, Records};

fn label(x: i64, chunk: &str) -> String {
    format!("{chunk}-{}", x * x)
}

/// Runs in every worker before its first task.
fn greet(main_id: u32) {
    let id = std::process::id();
    println!("pool process with id {id} received a task from main process with id {main_id}");
}

fn main() -> swathe::Result<()> {
    swathe::init();
    let pool = Pool::builder()
        .processes(5)
        .initializer(greet, std::process::id())
        .max_tasks_per_child(50)
        .build()?;

    let arguments = [
        (1, "chunk1"),
        (3, "chunk2"),
        (5, "chunk3"),
        (7, "chunk4"),
        (9, "chunk5"),
    ];
    // Texts have no fixed size, so the results are `Records`, where numbers would be a slice.
    let show = |labels: &Records<String>| labels.iter().for_each(|label| println!("{label}"));
    pool.batch()
        .chunk_size(2)
        .on_success(show)
        .on_error(|error| eprintln!("Error: {error}"))
        .starmap_async(label, arguments)?;
    pool.close();
    pool.join()
}
