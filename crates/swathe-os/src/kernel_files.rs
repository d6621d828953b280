//! Files in which the kernel says something: `/proc`, `/sys`, control groups.
//!
//! They are read by threads of ours too, while the host runs, and a host may close every descriptor at any moment. The
//! standard library ends a program whose descriptor has vanished under it (in builds with debug assertions), so its
//! functions are not used for that.

use std::{io, os::fd::AsFd, path::Path};

use rustix::fs::{Mode, OFlags, RawDir};

use crate::descriptors::Descriptor;

/// All of a file.
///
/// # Errors
/// What the kernel says.
pub(crate) fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let file = open(path.as_ref(), OFlags::RDONLY)?;
    let mut bytes = Vec::new();
    let mut part = [0; 4096];
    loop {
        match rustix::io::retry_on_intr(|| rustix::io::read(file.as_fd(), &mut part))? {
            0 => return Ok(bytes),
            len => bytes.extend_from_slice(&part[..len]),
        }
    }
}

/// All of a file that holds text.
///
/// # Errors
/// What the kernel says; `InvalidData` if it is no text.
pub(crate) fn text(path: impl AsRef<Path>) -> io::Result<String> {
    String::from_utf8(read(path)?).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

/// Writes a setting, in one piece.
///
/// # Errors
/// What the kernel says.
pub(crate) fn write(path: impl AsRef<Path>, setting: &[u8]) -> io::Result<()> {
    let file = open(path.as_ref(), OFlags::WRONLY)?;
    rustix::io::retry_on_intr(|| rustix::io::write(file.as_fd(), setting))?;
    Ok(())
}

/// The names in a directory, in no order; those that are no text are left out. One that cannot be listed has none.
pub(crate) fn names(directory: impl AsRef<Path>) -> Vec<String> {
    try_names(directory).unwrap_or_default()
}

/// The names in a directory.
///
/// # Errors
/// What the kernel says.
pub(crate) fn try_names(directory: impl AsRef<Path>) -> io::Result<Vec<String>> {
    let directory = open(directory.as_ref(), OFlags::RDONLY | OFlags::DIRECTORY)?;
    let mut names = Vec::new();
    let mut space = Vec::with_capacity(4096);
    let mut entries = RawDir::new(directory.as_fd(), space.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        match entry?.file_name().to_str() {
            Ok("." | "..") | Err(_) => {}
            Ok(name) => names.push(name.to_owned()),
        }
    }
    Ok(names)
}

fn open(path: &Path, flags: OFlags) -> io::Result<Descriptor> {
    let flags = flags | OFlags::CLOEXEC;
    Ok(rustix::io::retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty()))?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_files_and_directories_are_read_whole() {
        let maps = text("/proc/self/smaps").unwrap();
        assert!(maps.len() > 4096, "more than one part");
        assert!(maps.ends_with('\n'));
        assert!(names("/proc").contains(&"self".to_owned()));
        let devices = std::fs::read_dir("/sys/class/tty").into_iter().flatten().count();
        assert_eq!(names("/sys/class/tty").len(), devices);
        assert_eq!(read("/proc/none").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(names("/proc/none").is_empty());
    }
}
