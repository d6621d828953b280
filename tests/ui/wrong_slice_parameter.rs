//! A task that takes a slice of a parameter that is a `Vec`.

fn main() -> swathe::Result<()> {
    swathe::init();
    let pool = swathe::Pool::new()?;
    let table = vec![1.0, 2.0];
    pool.map_with(&table, |table: &[f64], i: usize| table[i], 0..2_usize)?;
    Ok(())
}
