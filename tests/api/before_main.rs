//! Workers of programs that have no `main` of their own find what workers of others find.

use std::io::{self, Write as _};

use swathe::Result;
use swathe_tests::{constructed, pool};

// As another file of the same program may have it, too.
swathe::init_before_main!();

#[test]
fn every_constructor_has_run_once() -> Result<()> {
    assert_eq!(constructed(), 1);
    assert!(
        pool(2)
            .map(|_: u64| constructed(), 0..20)?
            .iter()
            .all(|n| *n == 1)
    );
    Ok(())
}

#[test]
fn a_write_to_a_closed_pipe_is_an_error() -> Result<()> {
    fn write(_: u64) -> String {
        let (read, mut write) = io::pipe().expect("a pipe can be made");
        drop(read);
        format!("{:?}", write.write_all(b"x").map_err(|e| e.kind()))
    }
    assert_eq!(pool(1).apply(write, 0)?, "Err(BrokenPipe)");
    assert_eq!(write(0), "Err(BrokenPipe)");
    Ok(())
}
