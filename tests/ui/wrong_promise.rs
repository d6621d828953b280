//! What a program must promise, the compiler asks for.
use swathe::{Array, Pool, Result};

fn main() -> Result<()> {
    swathe::init();
    let pool = Pool::new()?;
    let mapped = Array::<f64>::map_npy_path("strain.npy")?;
    let batch = pool.batch().output_file("roots.npy").unlocked();
    batch.map(|x: f64| x.sqrt(), &mapped)?;
    Ok(())
}
