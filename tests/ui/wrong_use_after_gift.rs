//! An array that was given to the pool, and is used again.

use swathe::{ArrayMut, Pool};

fn main() -> swathe::Result<()> {
    swathe::init();
    let pool = Pool::new()?;
    let array = ArrayMut::from_vec(vec![1, 2, 3])?;
    pool.map_in_place(|x: i64| -x, array)?;
    println!("{}", array[0]);
    Ok(())
}
