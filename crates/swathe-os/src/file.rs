//! Files that processes write together and that outlive them: their room on the disk, and this boot of the machine.
//! Files that others may have put there: what is opened, and what is believed.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{
    AtFlags, FallocateFlags, FileType, MemfdFlags, Mode, OFlags, RenameFlags, Stat, Statx, StatxFlags,
};
use rustix::io::Errno;
use rustix::process::{Resource, geteuid, getrlimit};

use crate::{descriptors::Descriptor, kernel_files, memfd::cannot_shrink};

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

/// Opens a regular file to be read. Whatever else has the name is refused without waiting for anybody: a pipe, a socket,
/// a device, a directory, and a file of the kernel that has text but no length.
///
/// # Errors
/// What the kernel says, or that it is not a regular file.
pub fn open_input(path: &Path) -> io::Result<File> {
    // Opening a device may do something; a pipe would wait for its other end.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other(NOT_REGULAR));
    }
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::options()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other(NOT_REGULAR));
    }
    if found.len() == 0 && !matches!(file.read_at(&mut [0], 0), Ok(0)) {
        return Err(io::Error::other(
            "it has no length, because the kernel makes its text while it is read; copy it, and use the copy",
        ));
    }
    // Some file systems take the flag to mean that a file on tape is not worth waiting for.
    rustix::fs::fcntl_setfl(&file, rustix::fs::fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
    Ok(file)
}

/// Opens a file to be read if it is a memory file whose size is sealed. Anything else, whatever its name, is neither opened
/// nor waited for: `None`.
///
/// # Errors
/// When a memory file cannot be opened.
pub fn open_memory_file(path: &Path) -> io::Result<Option<File>> {
    // Asked of what the kernel knows already: the file may lie in a file system whose server does not answer.
    let facts = |directory: BorrowedFd<'_>, path: &Path, flags: AtFlags| {
        rustix::fs::statx(
            directory,
            path,
            flags | AtFlags::STATX_DONT_SYNC,
            StatxFlags::TYPE,
        )
    };
    let own = rustix::fs::memfd_create("swathe-device", MemfdFlags::CLOEXEC)?;
    let own = facts(own.as_fd(), Path::new(""), AtFlags::EMPTY_PATH)?;
    let found = facts(rustix::fs::CWD, path, AtFlags::empty())?;
    // All memory files, and nothing with a name, lie in one file system.
    let device = |facts: &Statx| (facts.stx_dev_major, facts.stx_dev_minor);
    if device(&found) != device(&own) {
        return Ok(None);
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file: File = rustix::fs::open(path, flags, Mode::empty())?.into();
    Ok(cannot_shrink(&file).then_some(file))
}

const NOT_REGULAR: &str = "it is not a regular file";

/// Why a file is neither believed nor written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotOurs {
    /// A path without a last name.
    #[error("it names no file")]
    NoName,
    /// A symbolic link, which may lead anywhere.
    #[error("it is a symbolic link; name the file it leads to")]
    Link,
    /// A directory.
    #[error("it is a directory")]
    Directory,
    /// A pipe, a socket, a device.
    #[error("{NOT_REGULAR}")]
    NotRegular,
    /// Somebody else's.
    #[error("it belongs to user {owner} and this process runs as user {user}")]
    Owner {
        /// Whose it is.
        owner: u32,
        /// Who asks.
        user: u32,
    },
    /// Others may change or truncate it.
    #[error("its mode {mode:04o} lets other users write it")]
    Writable {
        /// The mode.
        mode: u32,
    },
    /// A hard link: another directory has it too.
    #[error("it has {names} names (hard links), and what is written to one is written to all")]
    Names {
        /// How many.
        names: u64,
    },
    /// The directory of that name is a link that somebody else has made.
    #[error("its directory is a symbolic link that user {owner} has made; name the directory it leads to")]
    Directions {
        /// Whose link it is.
        owner: u32,
    },
    /// Another file has come to have its name meanwhile.
    #[error("another process has put another file in its place")]
    Replaced,
    /// A system call failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<Errno> for NotOurs {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

impl From<NotOurs> for io::Error {
    fn from(error: NotOurs) -> Self {
        match error {
            NotOurs::Io(error) => error,
            other => io::Error::other(other),
        }
    }
}

impl NotOurs {
    /// Whether there is no such file.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::NotFound)
    }
}

/// Checks that a file is a regular one that belongs to this user and that nobody else can write.
///
/// # Errors
/// What it is instead.
pub fn check_ours(file: &File) -> Result<(), NotOurs> {
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(NotOurs::NotRegular);
    }
    let user = geteuid().as_raw();
    if found.uid() != user {
        return Err(NotOurs::Owner {
            owner: found.uid(),
            user,
        });
    }
    let mode = found.mode() & 0o777;
    if mode & 0o022 != 0 {
        return Err(NotOurs::Writable { mode });
    }
    Ok(())
}

/// A name in a directory that is held open: where a file of ours is, or is to be.
///
/// Others may be able to write in the directory. No link is followed there, nothing is opened that is not a regular file,
/// of this user, writable by nobody else and of one name, and no file that is there is replaced.
#[derive(Clone, Debug)]
pub struct Place {
    directory: Arc<Descriptor>,
    name: OsString,
    path: PathBuf,
}

impl Place {
    /// The place of this path.
    ///
    /// # Errors
    /// When its directory cannot be opened, or is a link of another user's.
    pub fn of(path: &Path) -> Result<Self, NotOurs> {
        let name = path.file_name().ok_or(NotOurs::NoName)?;
        if path.as_os_str().as_bytes().ends_with(b"/") {
            return Err(NotOurs::Directory);
        }
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = open_directory(parent.unwrap_or(Path::new(".")))?;
        Ok(Self {
            directory: Arc::new(directory),
            name: name.to_owned(),
            path: path.to_owned(),
        })
    }

    /// A place in the same directory, with something behind the name.
    pub fn beside(&self, suffix: &str) -> Self {
        let longer = |text: &OsStr| {
            let mut text = text.to_owned();
            text.push(suffix);
            text
        };
        Self {
            directory: self.directory.clone(),
            name: longer(&self.name),
            path: longer(self.path.as_os_str()).into(),
        }
    }

    /// Its path, as it was given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the file that is there, to be read and written.
    ///
    /// # Errors
    /// When there is none ([`NotOurs::is_missing`]), it is not ours, or the kernel refuses.
    pub fn open(&self) -> Result<File, NotOurs> {
        // Looked at first, because opening a device may do something.
        match FileType::from_raw_mode(self.stat()?.st_mode) {
            FileType::RegularFile => {}
            FileType::Symlink => return Err(NotOurs::Link),
            FileType::Directory => return Err(NotOurs::Directory),
            _ => return Err(NotOurs::NotRegular),
        }
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(&*self.directory, &self.name, flags, Mode::empty());
        let file: File = match opened {
            Err(Errno::LOOP) => return Err(NotOurs::Link),
            opened => opened?.into(),
        };
        check_ours(&file)?;
        match file.metadata()?.nlink() {
            0 | 1 => Ok(file),
            names => Err(NotOurs::Names { names }),
        }
    }

    /// Makes the file, which must not be there, for this user to write and nobody else.
    ///
    /// # Errors
    /// When it is there, or the kernel refuses.
    pub fn create(&self) -> Result<File, NotOurs> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH;
        let file: File = rustix::fs::openat(&*self.directory, &self.name, flags, mode)?.into();
        Ok(file)
    }

    /// As [`create`](Self::create), where the file system keeps others from writing it.
    fn create_checked(&self) -> Result<File, NotOurs> {
        let file = self.create()?;
        check_ours(&file).inspect_err(|_| self.remove(&file))?;
        Ok(file)
    }

    /// Opens the file that is there, or makes it.
    ///
    /// # Errors
    /// As [`open`](Self::open) and [`create`](Self::create), and when the file system lets others write what was made.
    pub fn open_or_create(&self) -> Result<File, NotOurs> {
        loop {
            match self.open() {
                Err(error) if error.is_missing() => {}
                opened => return opened,
            }
            match self.create_checked() {
                // Somebody was quicker; it is looked at as any other.
                Err(NotOurs::Io(error)) if error.kind() == io::ErrorKind::AlreadyExists => {}
                created => return created,
            }
        }
    }

    /// Makes the file, in place of one of ours that a run which was killed has left there.
    ///
    /// # Errors
    /// As [`open_or_create`](Self::open_or_create).
    pub fn create_anew(&self) -> Result<File, NotOurs> {
        match self.open() {
            Ok(left) => self.remove(&left),
            Err(error) if error.is_missing() => {}
            Err(error) => return Err(error),
        }
        self.create_checked()
    }

    /// Whether this is where the file is.
    pub fn holds(&self, file: &File) -> bool {
        match (self.stat(), rustix::fs::fstat(file)) {
            (Ok(here), Ok(held)) => (here.st_dev, here.st_ino) == (held.st_dev, held.st_ino),
            _ => false,
        }
    }

    /// Takes the name from the file, if it still has it.
    pub fn remove(&self, file: &File) {
        if self.holds(file) {
            let _ = rustix::fs::unlinkat(&*self.directory, &self.name, AtFlags::empty());
        }
    }

    /// Gives the file, which is here, another name in the directory, which nothing must have.
    ///
    /// # Errors
    /// When there is something of that name, or it is not this file that has it then.
    pub fn rename(&self, file: &File, to: &Place) -> Result<(), NotOurs> {
        let (from_directory, to_directory) = (&*self.directory, &*to.directory);
        let flags = RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(from_directory, &self.name, to_directory, &to.name, flags) {
            // A file system that knows no flags.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => return self.rename_over(file, to),
            renamed => renamed?,
        }
        to.expect(file)
    }

    /// Gives the file, which is here, another name in the directory. What has that name loses it; a link is not followed.
    ///
    /// # Errors
    /// When the kernel refuses, or it is not this file that has the name then.
    pub fn rename_over(&self, file: &File, to: &Place) -> Result<(), NotOurs> {
        rustix::fs::renameat(&*self.directory, &self.name, &*to.directory, &to.name)?;
        to.expect(file)
    }

    fn expect(&self, file: &File) -> Result<(), NotOurs> {
        match self.holds(file) {
            true => Ok(()),
            false => Err(NotOurs::Replaced),
        }
    }

    /// Writes the file anew: nothing is left of what was in it.
    ///
    /// # Errors
    /// As [`open_or_create`](Self::open_or_create), and when the bytes cannot be written.
    pub fn write(&self, bytes: &[u8]) -> Result<(), NotOurs> {
        let file = self.open_or_create()?;
        file.set_len(0)?;
        Ok(file.write_all_at(bytes, 0)?)
    }

    /// Makes creations and renamings in the directory survive a power failure.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&*self.directory)?)
    }

    fn stat(&self) -> Result<Stat, Errno> {
        rustix::fs::statat(&*self.directory, &self.name, AtFlags::SYMLINK_NOFOLLOW)
    }
}

/// Opens a directory, unless its name is a link that another user has made.
fn open_directory(path: &Path) -> Result<Descriptor, NotOurs> {
    // A slash or a dot at the end would have the link followed.
    let plain: PathBuf = path.components().collect();
    let named = fs::symlink_metadata(&plain)?;
    if named.is_symlink() && ![0, geteuid().as_raw()].contains(&named.uid()) {
        return Err(NotOurs::Directions { owner: named.uid() });
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}

/// Which run of the kernel this is: another one after every boot and on every machine. What lies in the page cache is
/// exact within one. `None` if the kernel does not tell.
pub fn boot_id() -> Option<[u8; 16]> {
    let text = kernel_files::text("/proc/sys/kernel/random/boot_id").ok()?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16)
        .ok()
        .filter(|_| digits.len() == 32)
        .map(u128::to_be_bytes)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, Write};
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    /// A directory that is removed however the test ends.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("swathe-file-{}-{name}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn place(&self, name: &str) -> Place {
            Place::of(&self.0.join(name)).unwrap()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn make_fifo(path: &Path) {
        rustix::fs::mknodat(rustix::fs::CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    }

    #[test]
    fn only_files_of_ours_are_opened() {
        let folder = Folder::new("ours");
        let victim = folder.0.join("victim");
        fs::write(&victim, "precious").unwrap();
        let refused = |name: &str| folder.place(name).open_or_create().unwrap_err().to_string();
        symlink(&victim, folder.0.join("link")).unwrap();
        symlink(folder.0.join("nowhere"), folder.0.join("dangling")).unwrap();
        for name in ["link", "dangling"] {
            assert_eq!(refused(name), "it is a symbolic link; name the file it leads to");
            assert!(folder.place(name).create_anew().is_err() && folder.place(name).write(b"x").is_err());
        }
        assert!(!folder.0.join("nowhere").exists());
        fs::create_dir(folder.0.join("directory")).unwrap();
        assert_eq!(refused("directory"), "it is a directory");
        make_fifo(&folder.0.join("pipe"));
        assert_eq!(refused("pipe"), "it is not a regular file");
        fs::hard_link(&victim, folder.0.join("second")).unwrap();
        assert!(refused("second").starts_with("it has 2 names (hard links)"));
        fs::write(folder.0.join("open"), "").unwrap();
        fs::set_permissions(folder.0.join("open"), fs::Permissions::from_mode(0o664)).unwrap();
        assert_eq!(refused("open"), "its mode 0664 lets other users write it");
        fs::write(folder.0.join("theirs"), "").unwrap();
        // Only root can give files away.
        if chown(folder.0.join("theirs"), Some(65_534), None).is_ok() {
            assert!(refused("theirs").starts_with("it belongs to user 65534 and this process runs as"));
            symlink(&folder.0, folder.0.join("way")).unwrap();
            rustix::fs::chownat(
                rustix::fs::CWD,
                folder.0.join("way"),
                Some(rustix::fs::Uid::from_raw(65_534)),
                None,
                AtFlags::SYMLINK_NOFOLLOW,
            )
            .unwrap();
            let text = Place::of(&folder.0.join("way/new")).unwrap_err().to_string();
            assert!(text.starts_with("its directory is a symbolic link that user 65534 has made"));
        }
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
        assert!(Place::of(&folder.0.join("a/")).is_err() && Place::of(Path::new("..")).is_err());
    }

    #[test]
    fn names_are_given_and_taken_of_the_file_that_is_held() {
        let folder = Folder::new("names");
        let (place, other) = (folder.place("a"), folder.place("b"));
        let file = place.create().unwrap();
        assert!(place.create().is_err() && place.holds(&file) && !other.holds(&file));
        fs::write(folder.0.join("b"), "in the way").unwrap();
        assert!(place.rename(&file, &other).is_err());
        fs::remove_file(folder.0.join("b")).unwrap();
        place.rename(&file, &other).unwrap();
        assert!(other.holds(&file) && !place.holds(&file));
        // Another file has got the name.
        fs::remove_file(folder.0.join("b")).unwrap();
        fs::write(folder.0.join("b"), "another").unwrap();
        other.remove(&file);
        assert_eq!(fs::read(folder.0.join("b")).unwrap(), b"another");
        other.write(b"new").unwrap();
        assert_eq!(fs::read(folder.0.join("b")).unwrap(), b"new");
        assert_eq!(other.create_anew().unwrap().metadata().unwrap().len(), 0);
        other.sync().unwrap();
    }

    #[test]
    fn only_sealed_memory_files_are_looked_at() {
        let folder = Folder::new("memory");
        make_fifo(&folder.0.join("pipe"));
        let named = File::create(folder.0.join("file")).unwrap();
        let sealed = crate::memfd::create("swathe-test", 4096).unwrap();
        let unsealed = crate::memfd::unsealed("swathe-test").unwrap();
        let opened = |fd: BorrowedFd<'_>| {
            let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd));
            open_memory_file(Path::new(&path)).unwrap().is_some()
        };
        assert!(opened(sealed.as_fd()) && !opened(unsealed.as_fd()) && !opened(named.as_fd()));
        assert!(open_memory_file(&folder.0.join("pipe")).unwrap().is_none());
        assert!(open_memory_file(Path::new("/dev/zero")).unwrap().is_none());
        assert!(open_memory_file(&folder.0.join("none")).is_err());
    }

    #[test]
    fn only_regular_files_are_inputs() {
        let folder = Folder::new("inputs");
        make_fifo(&folder.0.join("pipe"));
        let socket = std::os::unix::net::UnixListener::bind(folder.0.join("socket")).unwrap();
        for path in [
            folder.0.join("pipe"),
            folder.0.join("socket"),
            "/dev/zero".into(),
            "/dev/tty".into(),
            "/".into(),
        ] {
            let text = open_input(&path).unwrap_err().to_string();
            assert_eq!(text, NOT_REGULAR, "{}", path.display());
        }
        drop(socket);
        let text = open_input(Path::new("/proc/self/maps")).unwrap_err().to_string();
        assert!(text.starts_with("it has no length"), "{text}");
        fs::write(folder.0.join("empty"), "").unwrap();
        let file = open_input(&folder.0.join("empty")).unwrap();
        assert!(!rustix::fs::fcntl_getfl(&file).unwrap().contains(OFlags::NONBLOCK));
        // A link of one's own is followed.
        symlink(folder.0.join("empty"), folder.0.join("link")).unwrap();
        open_input(&folder.0.join("link")).unwrap();
    }

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
