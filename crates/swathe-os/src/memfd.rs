//! Memory without a name: sparse, sealed memory files.
//!
//! A memory file lives as long as a descriptor or a mapping of it, so nothing is left behind however its users die.
//! Its size is fixed by seals: whoever holds the descriptor may write bytes, but nobody can shrink the file under a
//! mapping (which would turn the next access into SIGBUS).

use std::fmt;
use std::io;
use std::os::fd::AsFd;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use crate::descriptors::{Descriptor, above_standard, make_room_for};

/// Why a memory file could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemfdError {
    /// The length is above `RLIMIT_FSIZE`; growing the file would have raised SIGXFSZ.
    #[error(
        "a memory file of {len} bytes is longer than the file size limit of this process allows ({limit} bytes); \
         ask for less memory or raise the limit (`ulimit -f`)"
    )]
    FileSizeLimit {
        /// Length asked for, in bytes.
        len: u64,
        /// The soft `RLIMIT_FSIZE`, in bytes.
        limit: u64,
    },
    /// A system call failed.
    #[error(
        "the memory file {name:?} of {len} bytes could not be made: {step} failed: {source}{}",
        remedy(source)
    )]
    System {
        /// Name shown in `/proc/PID/maps`.
        name: String,
        /// Length asked for, in bytes.
        len: u64,
        /// The call that failed.
        step: Step,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The system calls that make a memory file, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// `memfd_create`
    Create,
    /// `ftruncate`
    Size,
    /// `fcntl(F_ADD_SEALS)`
    Seal,
    /// `fcntl(F_GET_SEALS)`
    Look,
}

/// What to do about a call that is not allowed. (What is short, the kernel says itself.)
fn remedy(error: &io::Error) -> &'static str {
    match Errno::from_io_error(error) {
        Some(Errno::PERM | Errno::ACCESS | Errno::NOSYS | Errno::INVAL) => {
            "; have the seccomp filter of this sandbox or container allow it"
        }
        _ => "",
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Create => "memfd_create",
            Step::Size => "ftruncate",
            Step::Seal => "fcntl(F_ADD_SEALS), which fixes its size,",
            Step::Look => "fcntl(F_GET_SEALS)",
        })
    }
}

/// Makes a sparse memory file of exactly `len` bytes, all zero, that can neither shrink nor grow.
///
/// No page is taken until it is written. The descriptor is close-on-exec; if the soft limit leaves no number for it, that is
/// raised. `name` only labels the file in `/proc/PID/maps`; names need not be unique.
///
/// # Errors
/// When `len` is above `RLIMIT_FSIZE`, or the kernel refuses one of the calls.
pub fn create(name: &str, len: u64) -> Result<Descriptor, MemfdError> {
    let failed = |step: Step, errno: Errno| MemfdError::System {
        name: name.to_owned(),
        len,
        step,
        source: errno.into(),
    };
    // Growing a file past RLIMIT_FSIZE raises SIGXFSZ, which kills a process that did not expect it.
    if let Some(limit) = getrlimit(Resource::Fsize).current
        && len > limit
    {
        return Err(MemfdError::FileSizeLimit { len, limit });
    }
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels before 6.3 do not know NOEXEC_SEAL and answer EINVAL. Filters that do not know it have answers of their own.
    let make = || {
        rustix::fs::memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL).or_else(|errno| match errno {
            Errno::INVAL | Errno::PERM | Errno::ACCESS | Errno::NOSYS => {
                rustix::fs::memfd_create(name, flags)
            }
            other => Err(other),
        })
    };
    let fd: Descriptor = above_standard(make)
        .or_else(|errno| match errno {
            Errno::MFILE if make_room_for(1).is_ok() => above_standard(make),
            other => Err(other),
        })
        .map_err(|errno| failed(Step::Create, errno))?
        .into();
    rustix::fs::ftruncate(&fd, len).map_err(|errno| failed(Step::Size, errno))?;
    rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
        .map_err(|errno| failed(Step::Seal, errno))?;
    // A process that is handed the file asks for its seals, and refuses it without.
    rustix::fs::fcntl_get_seals(&fd).map_err(|errno| failed(Step::Look, errno))?;
    Ok(fd)
}

/// Whether the file behind `fd` can never shrink. False for anything that has no seals, ordinary files included.
pub fn cannot_shrink(fd: impl AsFd) -> bool {
    rustix::fs::fcntl_get_seals(fd).is_ok_and(|seals| seals.contains(SealFlags::SHRINK))
}

/// Whether the bytes of the file behind `fd` that are there now can never change and never go away: it is a memory file
/// sealed against writing and against shrinking (`F_SEAL_WRITE`, `F_SEAL_SHRINK`).
///
/// The kernel refuses the first of these seals while a writable shared mapping of the file exists, and any such mapping
/// afterwards; no seal is ever taken off. `F_SEAL_FUTURE_WRITE` does not count: mappings that were there before it still
/// write.
pub fn cannot_change(fd: impl AsFd) -> bool {
    let needed = SealFlags::WRITE | SealFlags::SHRINK;
    rustix::fs::fcntl_get_seals(fd).is_ok_and(|seals| seals.contains(needed))
}

/// Whether the file behind `fd` lies in a file system. One that cannot be told, for want of `/proc`, does not.
pub fn is_ordinary(fd: impl AsFd) -> bool {
    use std::os::fd::AsRawFd;
    // A memory file shows as `/memfd:name (deleted)`; its own file system is mounted nowhere.
    let link = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    std::fs::read_link(link).is_ok_and(|path| !path.as_os_str().as_encoded_bytes().starts_with(b"/memfd:"))
}

/// A memory file whose size anybody may change, for tests.
///
/// # Errors
/// What the kernel says.
#[doc(hidden)]
pub fn unsealed(name: &str) -> io::Result<Descriptor> {
    Ok(rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?.into())
}

/// A memory file that holds these bytes for ever, for tests.
///
/// # Errors
/// What the kernel says.
#[doc(hidden)]
pub fn sealed(name: &str, bytes: &[u8]) -> io::Result<Descriptor> {
    let fd = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let file = std::fs::File::from(fd);
    std::os::unix::fs::FileExt::write_all_at(&file, bytes, 0)?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::SHRINK)?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::Mapping;

    #[test]
    fn a_file_is_final_only_with_the_seals_against_writing_and_shrinking() {
        let file = |seals: SealFlags| {
            let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
            let fd = rustix::fs::memfd_create("swathe-test", flags).unwrap();
            rustix::fs::ftruncate(&fd, 4096).unwrap();
            rustix::fs::fcntl_add_seals(&fd, seals).unwrap();
            fd
        };
        let all_but_one = SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE;
        assert!(!cannot_change(file(all_but_one)));
        assert!(!cannot_change(file(SealFlags::WRITE)));
        assert!(!cannot_change(std::fs::File::open("/proc/self/exe").unwrap()));
        let sealed = file(SealFlags::WRITE | SealFlags::SHRINK);
        assert!(cannot_change(&sealed));
        // What the promise rests on: nobody maps it for writing any more, and it is not sealed while somebody does.
        assert!(Mapping::read_write(&sealed, 4096).is_err());
        let written = file(SealFlags::SHRINK);
        let mapping = Mapping::read_write(&written, 4096).unwrap();
        assert_eq!(
            rustix::fs::fcntl_add_seals(&written, SealFlags::WRITE),
            Err(Errno::BUSY)
        );
        drop(mapping);
        rustix::fs::fcntl_add_seals(&written, SealFlags::WRITE).unwrap();
        assert!(cannot_change(&written));
    }

    #[test]
    fn size_is_sealed_and_pages_are_not_taken() {
        let fd = create("swathe-test", 1 << 40).unwrap();
        let stat = rustix::fs::fstat(&fd).unwrap();
        assert_eq!(stat.st_size, 1 << 40);
        assert_eq!(stat.st_blocks, 0, "a sparse file holds no page");
        assert_eq!(rustix::fs::ftruncate(&fd, 4096), Err(Errno::PERM));
        assert_eq!(rustix::fs::ftruncate(&fd, 1 << 41), Err(Errno::PERM));
        assert_eq!(
            rustix::fs::fcntl_add_seals(&fd, SealFlags::WRITE),
            Err(Errno::PERM)
        );
        assert!(cannot_shrink(&fd));
        let cloexec = rustix::io::fcntl_getfd(&fd).unwrap();
        assert!(cloexec.contains(rustix::io::FdFlags::CLOEXEC));
    }

    #[test]
    fn an_ordinary_file_can_shrink() {
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        assert!(!cannot_shrink(&file) && is_ordinary(&file));
        let memory = unsealed("swathe-test").unwrap();
        assert!(!cannot_shrink(&memory) && !is_ordinary(&memory));
    }

    #[test]
    fn a_bad_name_is_an_error_with_the_step() {
        let text = create("a\0b", 4096).unwrap_err().to_string();
        assert!(text.contains("memfd_create failed"), "{text}");
    }
}
