//! A task that returns a `Result`, in a verb for values.

struct Wrong;

fn parse(x: i64) -> Result<i64, Wrong> {
    if x > 1 { Err(Wrong) } else { Ok(x) }
}

fn main() -> swathe::Result<()> {
    swathe::init();
    let pool = swathe::Pool::new()?;
    pool.map(parse, 0..3)?;
    Ok(())
}
