//! A task that captures a value of its environment, as it is written first: without `move`.

fn main() -> swathe::Result<()> {
    swathe::init();
    let pool = swathe::Pool::new()?;
    let factor = 3;
    pool.map(|x: i64| factor * x, 0..3)?;
    Ok(())
}
