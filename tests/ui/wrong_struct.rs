//! Elements of a struct that derives nothing.

struct Point {
    x: f64,
}

fn main() -> swathe::Result<()> {
    swathe::init();
    let pool = swathe::Pool::new()?;
    pool.map(|p: Point| p.x, vec![Point { x: 1.0 }])?;
    Ok(())
}
