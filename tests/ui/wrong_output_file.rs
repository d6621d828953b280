//! Verbs and results that cannot be resumed.

fn main() -> swathe::Result<()> {
    swathe::init();
    let pool = swathe::Pool::new()?;
    let array = swathe::ArrayMut::<i64>::zeros(3)?;
    pool.batch().output_file("out.npy").map_in_place(|x: i64| x + 1, array)?;
    pool.batch().output_file("out.npy").map(|x: i64| x.to_string(), 0..3)?;
    Ok(())
}
