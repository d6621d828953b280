//! A task that takes a slice of each element of a ragged table.

fn main() -> swathe::Result<()> {
    swathe::init();
    let pool = swathe::Pool::new()?;
    let rows = vec![vec![1.0, 2.0], vec![3.0]];
    pool.map(|row: &[f64]| row.iter().sum::<f64>(), &rows)?;
    Ok(())
}
