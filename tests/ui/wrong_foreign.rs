//! A result of a type that another crate has made, and that belongs to one process.

use std::time::Instant;

fn now(_: i64) -> Instant {
    Instant::now()
}

fn main() -> swathe::Result<()> {
    swathe::init();
    let pool = swathe::Pool::new()?;
    pool.map(now, 0..3)?;
    Ok(())
}
