//! A result that belongs to one process.

struct Handle(#[expect(dead_code)] *const u8);

fn open(_: i64) -> Handle {
    Handle(std::ptr::null())
}

fn main() -> swathe::Result<()> {
    swathe::init();
    let pool = swathe::Pool::new()?;
    pool.map(open, 0..3)?;
    Ok(())
}
