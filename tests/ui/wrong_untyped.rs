//! A closure whose argument has no type.

fn main() -> swathe::Result<()> {
    swathe::init();
    let pool = swathe::Pool::new()?;
    let squares = pool.map(|x| x * x, 0..3)?;
    println!("{}", squares[2]);
    Ok(())
}
