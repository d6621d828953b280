//! A long scan that survives its own end: killed at any moment and started again, it does only what is left.
//!
//! Every point is the escape time of a complex number under `z -> z^2 + c`, the Mandelbrot set, on a grid of 512 x 512.
//! On a cluster, give the same line to the scheduler again and again until it has nothing to do:
//!
//! ```text
//! #SBATCH --requeue
//! srun ./resume scan.npy
//! ```
//!
//! Here, kill it (Ctrl-C) and start it again:
//!
//! ```text
//! cargo run --example resume -- scan.npy
//! ```
//!
//! prints, the first time:
//!
//! ```text
//! 0 of 262144 points were there
//! scan.npy: 43997 points never escape
//! ```

use std::{path::PathBuf, time::Duration};

use swathe::Pool;

const SIDE: u32 = 512;
const LONGEST: u32 = 10_000;

/// The steps until the point has escaped; `LONGEST` if it does not.
fn escape(point: u32) -> u32 {
    let scale = 3.0 / f64::from(SIDE);
    let (a, b) = (
        f64::from(point % SIDE) * scale - 2.0,
        f64::from(point / SIDE) * scale - 1.5,
    );
    let (mut x, mut y) = (0.0_f64, 0.0_f64);
    (0..LONGEST)
        .find(|_| {
            (x, y) = (x * x - y * y + a, 2.0 * x * y + b);
            x * x + y * y > 4.0
        })
        .unwrap_or(LONGEST)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    swathe::init();
    let path = PathBuf::from(
        std::env::args_os()
            .nth(1)
            .ok_or("say where the output is to lie")?,
    );
    let pool = Pool::new()?;
    let pending = pool
        .batch()
        .output_file(&path)
        .map_async(escape, 0..SIDE * SIDE)?;
    println!("{} of {} points were there", pending.restored(), SIDE * SIDE);
    while !pending.wait(Duration::from_secs(10)) {
        eprintln!("{} points are done", pending.progress().0);
    }
    let steps = pending.get()?;
    let inside = steps.iter().filter(|&&steps| steps == LONGEST).count();
    println!("{}: {inside} points never escape", path.display());
    Ok(())
}
