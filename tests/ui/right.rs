//! What the wrong programs beside this one should have done.

use swathe::{ArrayMut, Pool};

fn main() -> swathe::Result<()> {
    swathe::init();
    let pool = Pool::builder().processes(1).build()?;
    let factor = 3;
    assert_eq!(pool.map_with(&factor, |factor: &i64, x: i64| factor * x, 0..3)?, [0, 3, 6]);
    let array = pool.map_in_place(|x: i64| x + 1, ArrayMut::from_vec(vec![1, 2])?)?;
    assert_eq!(array[..], [2, 3]);
    Ok(())
}
