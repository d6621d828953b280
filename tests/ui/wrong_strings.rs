//! A task that takes a `&str` of an input that owns its texts.

fn main() -> swathe::Result<()> {
    swathe::init();
    let pool = swathe::Pool::new()?;
    let words = vec!["a".to_owned()];
    pool.map(|word: &str| word.len(), words)?;
    Ok(())
}
