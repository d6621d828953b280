//! Standard output, whose reader may go away (`swathe doctor | head`): then there is nobody to tell anything. And files,
//! in directories where others may have put something: no link is followed, nothing of others is written to.

use std::{
    fs,
    io::{self, ErrorKind, Write},
    path::Path,
};

use swathe_os::{
    file::{NotOurs, Place},
    text,
};

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

/// Writes a file anew.
pub(crate) fn write(file: &Path, bytes: &[u8]) -> Result<()> {
    let written = Place::of(file).and_then(|place| place.write(bytes));
    written.map_err(|reason| cannot_write(file, &reason))
}

/// Sees that a file can be written, before minutes are spent on what is to stand in it.
pub(crate) fn check(file: &Path) -> Result<()> {
    let opened = Place::of(file).and_then(|place| place.open_or_create());
    opened.map(drop).map_err(|reason| cannot_write(file, &reason))
}

/// Makes a folder, and sees that a file in it can be written.
pub(crate) fn check_folder(folder: &Path, file: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(|error| cannot_write(folder, &error.into()))?;
    check(file)
}

fn cannot_write(file: &Path, reason: &NotOurs) -> Failure {
    Failure::new(format!("{} cannot be written: {reason}", text::path(file)))
}
