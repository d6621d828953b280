//! A task that takes something else than the input has.

fn shout(text: &str) -> usize {
    text.len()
}

fn main() -> swathe::Result<()> {
    swathe::init();
    let pool = swathe::Pool::new()?;
    pool.map(shout, 0..3_i64)?;
    Ok(())
}
