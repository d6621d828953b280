//! Parameters of another type than the task takes.

fn main() -> swathe::Result<()> {
    swathe::init();
    let pool = swathe::Pool::new()?;
    let factor = 3_i32;
    pool.map_with(&factor, |factor: &i64, x: i64| factor * x, 0..3_i64)?;
    Ok(())
}
