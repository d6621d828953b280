//! A task whose error is none.

struct Wrong;

fn parse(x: i64) -> Result<i64, Wrong> {
    if x > 1 { Err(Wrong) } else { Ok(x) }
}

fn main() -> swathe::Result<()> {
    swathe::init();
    let pool = swathe::Pool::new()?;
    pool.try_map(parse, 0..3)?;
    Ok(())
}
