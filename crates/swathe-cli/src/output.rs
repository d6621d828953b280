//! Standard output, whose reader may go away (`swathe doctor | head`): then there is nobody to tell anything.

use std::io::{self, ErrorKind, Write};

use crate::failure::{Failure, Result};

/// Writes text, and has it seen at once.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    let done = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    done.map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => Failure::unheard(),
        _ => Failure::new(format!("standard output cannot be written: {error}")),
    })
}
