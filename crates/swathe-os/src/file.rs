//! Files that processes write together and that outlive them: their room on the disk, and this boot of the machine.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

/// Why a file cannot have the length that it needs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReserveError {
    /// The length is above `RLIMIT_FSIZE`; a write behind the limit would have raised SIGXFSZ.
    #[error(
        "it needs {needed} bytes, and the file size limit of this process is {limit} bytes; raise the limit \
         (`ulimit -f`)"
    )]
    FileSizeLimit {
        /// Length asked for, in bytes.
        needed: u64,
        /// The soft `RLIMIT_FSIZE`, in bytes.
        limit: u64,
    },
    /// The file system is full, or will be.
    #[error(
        "it needs {needed} more bytes, and its file system has {available} available; free some, or use another file \
         system"
    )]
    NoSpace {
        /// Bytes that the file has not yet.
        needed: u64,
        /// Bytes that the file system has for this user.
        available: u64,
    },
    /// A quota is used up.
    #[error("it needs {needed} more bytes, and the disk quota of this user or project has no room for them")]
    Quota {
        /// Bytes that the file has not yet.
        needed: u64,
    },
    /// A system call failed.
    #[error("its {needed} bytes could not be reserved: {source}")]
    System {
        /// Length asked for, in bytes.
        needed: u64,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Makes the file at least `len` bytes long and reserves the room for all of them, so that no later write through a
/// mapping finds the disk full (which would be a SIGBUS). Bytes that are there stay as they are, new ones are zero.
///
/// What is free is asked first, because a file system that is asked for more may fill up before it says no. Where it
/// cannot reserve at all the file is made long without blocks: others may then use the room up. After an error the file
/// is as it was.
///
/// # Errors
/// When the length is above `RLIMIT_FSIZE`, or the room is not to be had.
pub fn reserve(file: &File, len: u64) -> Result<(), ReserveError> {
    let system = |source: io::Error| ReserveError::System { needed: len, source };
    // Writing past RLIMIT_FSIZE raises SIGXFSZ, which kills a process that did not expect it.
    if let Some(limit) = getrlimit(Resource::Fsize).current
        && len > limit
    {
        return Err(ReserveError::FileSizeLimit { needed: len, limit });
    }
    let before = rustix::fs::fstat(file).map_err(|errno| system(errno.into()))?;
    let length = u64::try_from(before.st_size).unwrap_or(0);
    let stored = u64::try_from(before.st_blocks).unwrap_or(0) * 512;
    let needed = len.saturating_sub(stored);
    if len == 0 {
        return Ok(());
    }
    let refused = |errno| {
        // Blocks that were had before the disk was full go back.
        let _ = file.set_len(length);
        match errno {
            Errno::NOSPC => ReserveError::NoSpace {
                needed,
                available: available(file).unwrap_or(0),
            },
            Errno::DQUOT => ReserveError::Quota { needed },
            other => system(other.into()),
        }
    };
    if available(file).is_some_and(|available| available < needed) {
        return Err(refused(Errno::NOSPC));
    }
    loop {
        match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, len) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => break,
            Err(errno) => return Err(refused(errno)),
        }
    }
    if length < len {
        file.set_len(len).map_err(system)?;
    }
    Ok(())
}

/// Bytes that the file system of this file has left for this user, if it says.
pub fn available(file: &File) -> Option<u64> {
    let system = rustix::fs::fstatvfs(file).ok()?;
    // Some that count nothing have no blocks at all.
    (system.f_blocks > 0).then(|| system.f_bavail.saturating_mul(system.f_frsize))
}

/// Makes creations and renamings in the directory of this file survive a power failure.
///
/// # Errors
/// What the kernel says.
pub fn sync_directory_of(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

/// Which run of the kernel this is: another one after every boot and on every machine. What lies in the page cache is
/// exact within one. `None` if the kernel does not tell.
pub fn boot_id() -> Option<[u8; 16]> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16)
        .ok()
        .filter(|_| digits.len() == 32)
        .map(u128::to_be_bytes)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, Write};

    use rustix::fs::{Mode, OFlags};

    use super::*;

    /// A file on the disk without a name.
    fn file() -> File {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        rustix::fs::open(std::env::temp_dir(), flags, Mode::RUSR | Mode::WUSR)
            .unwrap()
            .into()
    }

    #[test]
    fn reserved_bytes_are_zero_and_old_ones_stay() {
        let mut file = file();
        file.write_all(b"old").unwrap();
        reserve(&file, 9000).unwrap();
        reserve(&file, 4000).unwrap();
        file.rewind().unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len(), 9000);
        assert_eq!(&bytes[..3], b"old");
        assert!(bytes[3..].iter().all(|&byte| byte == 0));
        assert!(rustix::fs::fstat(&file).unwrap().st_blocks * 512 >= 9000);
    }

    #[test]
    fn a_full_file_system_is_said_in_numbers() {
        // No disk has an exbibyte free.
        let file = file();
        let error = reserve(&file, 1 << 60).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains(&(1_u64 << 60).to_string()),
            "needed and available, or the limit: {text}"
        );
        assert_eq!(rustix::fs::fstat(&file).unwrap().st_size, 0);
    }

    #[test]
    fn the_boot_has_one_id() {
        assert_eq!(boot_id(), boot_id());
        assert!(boot_id().is_none_or(|id| id != [0; 16]));
    }
}
