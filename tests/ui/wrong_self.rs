//! A task that captures `self`.

struct Model {
    factor: i64,
}

impl Model {
    fn run(&self, pool: &swathe::Pool) -> swathe::Result<()> {
        pool.map(|x: i64| self.factor * x, 0..3)?;
        Ok(())
    }
}

fn main() -> swathe::Result<()> {
    swathe::init();
    Model { factor: 2 }.run(&swathe::Pool::new()?)
}
