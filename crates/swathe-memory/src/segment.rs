//! Segments: the pieces of memory that processes share.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::fs::File;
use std::hash::{BuildHasher, Hasher};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use bytemuck::{Pod, Zeroable};
use swathe_os::file::open_input;
pub use swathe_os::mapping::Access;
use swathe_os::mapping::{self, Mapping};
use swathe_os::{Descriptor, memfd, process, text};

use crate::error::MemoryError;
use crate::registry;

/// Names a segment in every process that shares it. Never reused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Pod, Zeroable)]
#[repr(transparent)]
pub struct SegmentId(u64);

impl SegmentId {
    /// A fresh random id, never zero: zeroed memory names no segment.
    fn random() -> SegmentId {
        static DRAWN: AtomicU64 = AtomicU64::new(0);
        // The standard library's hash keys are random per thread, but a forked process inherits them; the process id,
        // a counter and the clock keep siblings apart.
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_u32(std::process::id());
        hasher.write_u64(DRAWN.fetch_add(1, Ordering::Relaxed));
        let since_epoch = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        hasher.write_u128(since_epoch.as_nanos());
        SegmentId(hasher.finish().max(1))
    }

    /// The number itself, for messages between processes.
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// The id with this number, as [`to_bits`](Self::to_bits) gave it.
    pub fn from_bits(bits: u64) -> SegmentId {
        SegmentId(bits)
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SegmentId({self})")
    }
}

/// Where a segment's bytes come from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// A memory file that this process made for control words: read and written through overlays only.
    Control {
        /// Label in `/proc/PID/maps`.
        name: String,
    },
    /// A memory file that this process made to allocate arrays in.
    Arena,
    /// A file, mapped read-only.
    File {
        /// Its path when it was mapped.
        path: PathBuf,
    },
    /// A file that this process and its workers write.
    Output {
        /// Its path when it was mapped.
        path: PathBuf,
    },
    /// A memory file that nobody can change any more.
    Sealed,
    /// A named segment of another program, mapped read-only.
    Posix {
        /// Its name.
        name: String,
    },
    /// A segment of another process of this pool, received as a descriptor.
    Attached,
}

/// A file or memory file, mapped once in this process from its first byte.
///
/// The mapping and the descriptor live as long as the `Arc`; every view of the bytes holds one.
#[derive(Debug)]
pub struct Segment {
    id: SegmentId,
    fd: Descriptor,
    mapping: Mapping,
    origin: Origin,
    /// The process that mapped it; a forked child inherits the mapping but not the role.
    mapped_by: u32,
    /// A file whose lock is given up with the segment. Workers hold the same lock, because they have got the same
    /// descriptor: if this process is killed, the file stays locked until the last of them is gone.
    locked: Option<Descriptor>,
}

impl Segment {
    /// Makes a zeroed memory file of `len` bytes for control words and maps it. `name` labels it in `/proc/PID/maps`.
    ///
    /// # Errors
    /// When the kernel refuses the file or the mapping.
    pub fn create(name: &str, len: usize) -> Result<Arc<Segment>, MemoryError> {
        let origin = Origin::Control {
            name: name.to_owned(),
        };
        Segment::create_memfd(name, len, origin)
    }

    pub(crate) fn create_memfd(name: &str, len: usize, origin: Origin) -> Result<Arc<Segment>, MemoryError> {
        let fd = memfd::create(name, len as u64)?;
        Segment::map(SegmentId::random(), fd, len, Access::ReadWrite, origin, None)
    }

    /// Maps the first `len` bytes of a file, for this process and its workers to write. If the file is locked
    /// ([`File::lock`]), the lock lasts for as long as the segment.
    ///
    /// # Errors
    /// When the file is shorter, or the kernel refuses.
    pub fn map_file_mut(file: File, path: &Path, len: usize) -> Result<Arc<Segment>, MemoryError> {
        let fd = file.try_clone().map_err(|source| MemoryError::File {
            action: "map",
            path: path.to_owned(),
            source,
        })?;
        let origin = Origin::Output {
            path: path.to_owned(),
        };
        Segment::map(
            SegmentId::random(),
            fd.into(),
            len,
            Access::ReadWrite,
            origin,
            Some(file.into()),
        )
    }

    /// The same bytes, mapped once more for loads only. Nothing of this segment, its lock included, is kept by it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn read_only(&self) -> Result<Arc<Segment>, MemoryError> {
        let origin = match &self.origin {
            Origin::Output { path } => Origin::File { path: path.clone() },
            other => other.clone(),
        };
        let what = origin.to_string();
        let fd = self.fd.try_clone().map_err(|source| MemoryError::Map {
            what,
            source: mapping::MappingError::System {
                len: self.len(),
                source,
            },
        })?;
        Segment::map(
            SegmentId::random(),
            fd,
            self.len(),
            Access::ReadOnly,
            origin,
            None,
        )
    }

    /// Maps the whole file read-only. Nothing is copied or read; the length is remembered, see
    /// [`verify`](Self::verify).
    ///
    /// This gives an address and no more, so it asks for no promise. Who makes an array of it does
    /// ([`Array::over_segment`](crate::Array::over_segment)).
    ///
    /// # Errors
    /// When the file cannot be opened or mapped.
    pub fn map_file(path: impl AsRef<Path>) -> Result<Arc<Segment>, MemoryError> {
        let path = path.as_ref();
        let failed = |source| MemoryError::File {
            action: "open",
            path: path.to_owned(),
            source,
        };
        let file = open_input(path).map_err(failed)?;
        let origin = Origin::File {
            path: path.to_owned(),
        };
        Segment::map_input(file.into(), origin)
    }

    /// Maps a whole memory file that can neither be written nor shrink.
    pub(crate) fn map_sealed(fd: Descriptor) -> Result<Arc<Segment>, MemoryError> {
        match memfd::cannot_change(&fd) {
            true => Segment::map_input(fd, Origin::Sealed),
            false => Err(MemoryError::Sealed {
                reason: "it is no memory file (memfd_create) that is sealed against writing and against shrinking, so \
                         others could change it under the array; add F_SEAL_WRITE and F_SEAL_SHRINK by \
                         fcntl(F_ADD_SEALS) when nobody has it mapped for writing any more, or read a file with \
                         Array::from_raw_file"
                    .to_owned(),
            }),
        }
    }

    /// Maps the whole file behind `fd` read-only.
    pub(crate) fn map_input(fd: Descriptor, origin: Origin) -> Result<Arc<Segment>, MemoryError> {
        let unmappable = |source: std::io::Error| MemoryError::Map {
            what: origin.to_string(),
            source: mapping::MappingError::System { len: 0, source },
        };
        let bytes = mapping::file_len(&fd).map_err(unmappable)?;
        let len = usize::try_from(bytes).map_err(|_| unmappable(std::io::ErrorKind::FileTooLarge.into()))?;
        Segment::map(SegmentId::random(), fd, len, Access::ReadOnly, origin, None)
    }

    /// Maps a segment of another process, received as a descriptor, under the id it has there.
    ///
    /// A segment that is already attached under this id is returned as it is, and `fd` is closed.
    ///
    /// # Safety
    /// The process that made the segment gave it this id and this file: from now on, whatever is said here of the id is
    /// believed of the file, that nobody writes an array in it, for example.
    ///
    /// # Errors
    /// When the file is shorter than `len`, when it is a memory file that is to be writable but could be shrunk by
    /// others, or when the kernel refuses. (A file in a file system can always be shrunk; who maps one to write it has
    /// locked it.)
    pub unsafe fn attach(
        id: SegmentId,
        fd: Descriptor,
        len: usize,
        access: Access,
    ) -> Result<Arc<Segment>, MemoryError> {
        if let Some(known) = registry::find(id) {
            return Ok(known);
        }
        if access == Access::ReadWrite && !memfd::cannot_shrink(&fd) && !memfd::is_ordinary(&fd) {
            return Err(MemoryError::WrongSegment {
                segment: id,
                purpose: "shared memory",
                reason: "its size is not sealed, so another process could shrink it under this one",
            });
        }
        let segment = Segment::map(id, fd, len, access, Origin::Attached, None)?;
        registry::keep(&segment);
        Ok(segment)
    }

    fn map(
        id: SegmentId,
        fd: Descriptor,
        len: usize,
        access: Access,
        origin: Origin,
        locked: Option<Descriptor>,
    ) -> Result<Arc<Segment>, MemoryError> {
        let mapped = match access {
            Access::ReadOnly => Mapping::read_only(&fd, len),
            Access::ReadWrite => Mapping::read_write(&fd, len),
        };
        let mapping = mapped.map_err(|source| MemoryError::Map {
            what: origin.to_string(),
            source,
        })?;
        let mapped_by = process::id();
        let segment = Arc::new(Segment {
            id,
            fd,
            mapping,
            origin,
            mapped_by,
            locked,
        });
        registry::register(&segment);
        Ok(segment)
    }

    /// Its name in every process.
    pub fn id(&self) -> SegmentId {
        self.id
    }

    /// The descriptor, to pass to a process that is to [`attach`](Self::attach) the segment.
    ///
    /// # Safety
    /// By way of it nobody writes a byte over which an array lies, or cuts holes there: arrays are plain memory, and a
    /// descriptor can be written by safe code.
    pub unsafe fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(crate) fn descriptor(&self) -> &Descriptor {
        &self.fd
    }

    /// Takes all pages of the file, which otherwise are taken when they are first touched: a shortage is this error then, and
    /// not a SIGBUS in some process.
    ///
    /// # Errors
    /// [`MemoryError::Pages`], or that it cannot be mapped for writing.
    pub fn take_pages(&self) -> Result<(), MemoryError> {
        let len = self.len();
        // Pages belong to the file, not to a mapping: one that is dropped right away serves to take them.
        let mapping = Mapping::read_write(&self.fd, len).map_err(|source| MemoryError::Map {
            what: self.origin.to_string(),
            source,
        })?;
        let huge = len - len % mapping::HUGE_PAGE;
        if huge > 0
            && let Err(error) = mapping.collapse(&self.fd, 0, huge)
        {
            tracing::debug!(%error, len, "no huge pages for shared words");
        }
        mapping
            .populate_write(&self.fd, 0, len)
            .map_err(|source| MemoryError::Pages {
                needed: len as u64,
                source,
            })
    }

    /// Bytes mapped.
    pub fn len(&self) -> usize {
        self.mapping.len()
    }

    /// Whether it has no bytes (an empty file).
    pub fn is_empty(&self) -> bool {
        self.mapping.is_empty()
    }

    /// What this process may do with the bytes.
    pub fn access(&self) -> Access {
        self.mapping.access()
    }

    /// Where the bytes come from.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    pub(crate) fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    /// Whether this very process made the segment, or mapped it by itself.
    pub fn is_own(&self) -> bool {
        self.origin != Origin::Attached && self.mapped_by == process::id()
    }

    /// Whether this very process allocates arrays in the segment.
    pub(crate) fn is_own_arena(&self) -> bool {
        self.origin == Origin::Arena && self.mapped_by == process::id()
    }

    /// Address of the range of `len` bytes at `offset`, valid while the segment lives.
    ///
    /// Only an address: whoever reads or writes through it must know what lies there and who else uses it.
    ///
    /// # Errors
    /// When the range ends outside the segment.
    pub fn range(&self, offset: usize, len: usize) -> Result<NonNull<u8>, MemoryError> {
        let inside = offset.checked_add(len).is_some_and(|end| end <= self.len());
        if !inside {
            return Err(MemoryError::OutOfBounds {
                segment: self.id,
                offset: offset as u64,
                len: len as u64,
                segment_len: self.len() as u64,
            });
        }
        // SAFETY: the mapping is self.len() bytes long, and offset was just found to be at most that.
        Ok(unsafe { self.mapping.as_ptr().byte_add(offset) })
    }

    /// Checks that the file behind the mapping still has all mapped bytes.
    ///
    /// A worker that touches a lost page gets SIGBUS; asking before a job starts turns that into an error. Memory
    /// files are sealed and always pass.
    ///
    /// # Errors
    /// [`MemoryError::Shrunk`] with path, mapped length and length now.
    pub fn verify(&self) -> Result<(), MemoryError> {
        let mapped = self.len() as u64;
        // A descriptor that cannot be asked any more has no bytes to offer either.
        let now = mapping::file_len(&self.fd).unwrap_or(0);
        if now < mapped {
            return Err(MemoryError::Shrunk {
                what: self.origin.to_string(),
                mapped,
                now,
            });
        }
        Ok(())
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // A forked child has no say. It takes no lock either, which another thread of its parent may have held.
        if self.mapped_by != process::id() {
            return;
        }
        registry::forget(self.id);
        // In words, because closing the descriptor is not enough: workers have it too.
        if let Some(file) = &self.locked {
            file.unlock();
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Control { name } => write!(f, "the control segment {name:?}"),
            Origin::Arena => f.write_str("the arena of this process"),
            Origin::File { path } | Origin::Output { path } => write!(f, "the file {}", text::path(path)),
            Origin::Sealed => f.write_str("a sealed memory file"),
            Origin::Posix { name } => write!(f, "the shared memory segment {name:?}"),
            Origin::Attached => f.write_str("a segment of another process"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn attach(id: SegmentId, fd: Descriptor, len: usize) -> Result<Arc<Segment>, MemoryError> {
        // SAFETY: the id is drawn for the test, and nobody makes an array of the segment.
        unsafe { Segment::attach(id, fd, len, Access::ReadWrite) }
    }

    #[test]
    fn ids_differ_and_are_never_zero() {
        let ids: std::collections::HashSet<_> = (0..1000).map(|_| SegmentId::random()).collect();
        assert_eq!(ids.len(), 1000);
        assert!(!ids.contains(&SegmentId::zeroed()));
        let id = SegmentId::random();
        assert_eq!(SegmentId::from_bits(id.to_bits()), id);
    }

    #[test]
    fn ranges_are_checked() {
        let segment = Segment::create("swathe-test", 4096).unwrap();
        assert!(segment.range(0, 4096).is_ok());
        assert!(segment.range(4096, 0).is_ok());
        for (offset, len) in [(0, 4097), (4097, 0), (usize::MAX, 2), (1, usize::MAX)] {
            let error = segment.range(offset, len).unwrap_err();
            assert!(matches!(error, MemoryError::OutOfBounds { .. }), "{error}");
        }
        segment.verify().unwrap();
    }

    #[test]
    fn a_file_that_shrinks_is_noticed_and_one_that_grows_is_fine() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&[1; 10_000]).unwrap();
        let segment = Segment::map_file(file.path()).unwrap();
        assert_eq!((segment.len(), segment.access()), (10_000, Access::ReadOnly));
        file.write_all(&[2; 10]).unwrap();
        segment.verify().unwrap();
        file.as_file().set_len(4096).unwrap();
        let text = segment.verify().unwrap_err().to_string();
        let path = file.path().display();
        assert!(
            text.starts_with(&format!(
                "the file {path} shrank while it was mapped: 10000 bytes were mapped and 4096 are left"
            )),
            "{text}"
        );
    }

    #[test]
    fn empty_files_map_and_directories_do_not() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(Segment::map_file(file.path()).unwrap().is_empty());
        let text = Segment::map_file("/").unwrap_err().to_string();
        assert_eq!(text, "cannot open /: it is not a regular file");
        let text = Segment::map_file("/no/such/file").unwrap_err().to_string();
        assert!(
            text.starts_with("cannot open /no/such/file: No such file"),
            "{text}"
        );
    }

    #[test]
    fn a_written_file_is_locked_for_as_long_as_its_segment() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = || {
            let file = File::options().read(true).write(true).open(file.path()).unwrap();
            file.try_lock().map(|()| file)
        };
        let first = open().unwrap();
        first.set_len(4096).unwrap();
        let segment = Segment::map_file_mut(first, file.path(), 4096).unwrap();
        // SAFETY: it is passed on to another mapping of the test's, and to nobody else.
        let passed_on = unsafe { segment.fd() }.try_clone_to_owned().unwrap();
        let in_a_worker = attach(SegmentId::random(), passed_on.into(), 4096).unwrap();
        // SAFETY: the file holds this word and nothing else.
        let words = |segment| unsafe { crate::SharedSlice::<AtomicU64>::at(segment, 8, 1) }.unwrap();
        words(&in_a_worker)[0].store(7, Ordering::Relaxed);
        let read_only = segment.read_only().unwrap();
        assert_eq!(words(&segment)[0].load(Ordering::Relaxed), 7);
        assert_eq!(std::fs::read(file.path()).unwrap()[8], 7);
        assert!(open().is_err());
        drop(segment);
        open().unwrap();
        assert_eq!(read_only.access(), Access::ReadOnly);
    }

    #[test]
    fn attaching_refuses_what_could_shrink_or_is_too_short() {
        let id = SegmentId::random();
        let unsealed = memfd::unsealed("swathe-test").unwrap();
        let error = attach(id, unsealed, 0).unwrap_err();
        assert!(error.to_string().contains("size is not sealed"), "{error}");
        let short = memfd::create("swathe-test", 4096).unwrap();
        let error = attach(id, short, 8192).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a segment of another process could not be mapped: cannot map 8192 bytes of a file that holds 4096"
        );
    }
}
