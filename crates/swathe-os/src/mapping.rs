//! Shared mappings of files and memory files.
//!
//! memmap2 maps input files. Memory that processes write is mapped here directly, because it must start on a huge
//! page boundary: the kernel can back a range with 2 MiB pages only where address and file offset agree modulo
//! 2 MiB, and neither `mmap` by itself nor memmap2 (which takes no address) promises that.

use std::ffi::c_void;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::os::fd::AsFd;
use std::ptr::{self, NonNull};

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, MprotectFlags, MremapFlags, ProtFlags};
use rustix::param::page_size;

use crate::memfd;

/// Size and alignment of a huge page, in bytes.
pub const HUGE_PAGE: usize = 2 << 20;

/// What a mapping permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Loads only; a store raises SIGSEGV.
    ReadOnly,
    /// Loads and stores, seen by every process that maps the same file.
    ReadWrite,
}

/// Why a mapping could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MappingError {
    /// The file ends before the last byte to be mapped; touching the rest would raise SIGBUS.
    #[error("cannot map {wanted} bytes of a file that holds {found}")]
    FileTooShort {
        /// Bytes to be mapped.
        wanted: u64,
        /// Bytes in the file.
        found: u64,
    },
    /// The kernel refused.
    #[error(
        "the kernel did not map {len} bytes: {source} (with \"Cannot allocate memory\", the address space limit \
         `ulimit -v` is too low for it; with \"Resource temporarily unavailable\", that of locked memory, `ulimit -l`)"
    )]
    System {
        /// Bytes to be mapped.
        len: usize,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A file mapped from its first byte, so that what others write is seen (`MAP_SHARED`), unless nobody can write it; unmapped on drop.
///
/// Hands out addresses only. Whoever forms references to the bytes must know who else writes them.
#[derive(Debug)]
pub struct Mapping {
    pages: Pages,
    len: usize,
    access: Access,
}

#[derive(Debug)]
enum Pages {
    Input(MmapRaw),
    Live(AlignedPages),
}

impl Mapping {
    /// Maps the first `len` bytes for loads and stores, at an address that is a multiple of [`HUGE_PAGE`].
    ///
    /// # Errors
    /// When the file is shorter than `len`, or the kernel refuses (address space limit, write permission).
    pub fn read_write(fd: impl AsFd, len: usize) -> Result<Mapping, MappingError> {
        check_file_len(fd.as_fd(), len)?;
        let pages = match pages_are_locked() {
            true => AlignedPages::map_unlocked(fd, len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED),
            false => AlignedPages::map(fd, len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED),
        };
        let pages = pages.map_err(|errno| MappingError::System {
            len,
            source: errno.into(),
        })?;
        Ok(Mapping {
            pages: Pages::Live(pages),
            len,
            access: Access::ReadWrite,
        })
    }

    /// Maps the first `len` bytes for loads only.
    ///
    /// # Errors
    /// When the file is shorter than `len`, or the kernel refuses.
    pub fn read_only(fd: impl AsFd, len: usize) -> Result<Mapping, MappingError> {
        check_file_len(fd.as_fd(), len)?;
        let fd = fd.as_fd();
        let failed = |source| MappingError::System { len, source };
        // Kernels before 6.7 refuse a shared mapping of a file that is sealed against writing, even one for loads. A private
        // one shows the same pages, and as nobody changes them no page of its own is ever made.
        let sharing = match memfd::cannot_change(fd) {
            true => MapFlags::PRIVATE,
            false => MapFlags::SHARED,
        };
        let pages = if pages_are_locked() {
            let pages = AlignedPages::map_unlocked(fd, len, ProtFlags::READ, sharing);
            Pages::Live(pages.map_err(|errno| failed(errno.into()))?)
        } else if sharing == MapFlags::PRIVATE {
            let pages = AlignedPages::map(fd, len, ProtFlags::READ, sharing);
            Pages::Live(pages.map_err(|errno| failed(errno.into()))?)
        } else {
            let raw = MmapOptions::new()
                .len(len)
                .map_raw_read_only(&fd)
                .map_err(failed)?;
            keep_out_of_dumps(raw.as_mut_ptr().cast(), len);
            Pages::Input(raw)
        };
        Ok(Mapping {
            pages,
            len,
            access: Access::ReadOnly,
        })
    }

    /// Address of the first byte. Valid for [`len`](Self::len) bytes while `self` lives.
    pub fn as_ptr(&self) -> NonNull<u8> {
        match &self.pages {
            Pages::Input(raw) => NonNull::new(raw.as_mut_ptr()).unwrap_or(NonNull::dangling()),
            Pages::Live(pages) => pages.base,
        }
    }

    /// Bytes mapped.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is mapped.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What the mapping permits.
    pub fn access(&self) -> Access {
        self.access
    }

    /// Makes sure that every page of the range is there and writable, without changing a byte. `fd` is the file that is
    /// mapped.
    ///
    /// A shortage of memory is an error here, where a store would have raised SIGBUS or woken the OOM killer.
    ///
    /// # Errors
    /// When the range lies outside the mapping (`InvalidInput`), the kernel cannot provide the pages, or a filter of system
    /// calls forbids every way of asking for them.
    pub fn populate_write(&self, fd: impl AsFd, offset: usize, len: usize) -> io::Result<()> {
        let start = self.page_range(offset, len)?;
        // SAFETY: page_range checked that the range lies in this live mapping; populating changes no byte.
        match unsafe { rustix::mm::madvise(start.cast(), len, Advice::LinuxPopulateWrite) } {
            Err(errno) if is_refusal(errno) => reserve(fd, offset, len, errno),
            result => Ok(result?),
        }
    }

    /// Backs the range, both ends multiples of [`HUGE_PAGE`], with huge pages, without changing a byte. `fd` is the file
    /// that is mapped.
    ///
    /// Collapsing works where huge pages for shared memory are otherwise off (`shmem_enabled` = never), but only on
    /// pages that exist, so one page in each huge page is populated first.
    ///
    /// # Errors
    /// When the range is misaligned or outside the mapping (`InvalidInput`), or the kernel has no huge pages to
    /// give. Part of the range may have been collapsed then; all of it is still usable.
    pub fn collapse(&self, fd: impl AsFd, offset: usize, len: usize) -> io::Result<()> {
        let start = self.page_range(offset, len)?;
        if !offset.is_multiple_of(HUGE_PAGE) || !len.is_multiple_of(HUGE_PAGE) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        for first_page in (offset..offset + len).step_by(HUGE_PAGE) {
            self.populate_write(&fd, first_page, page_size())?;
        }
        // SAFETY: page_range checked that the range lies in this live mapping; collapsing changes no byte.
        match unsafe { libc::madvise(start.cast(), len, libc::MADV_COLLAPSE) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Gives the pages of a range back to the system; it reads as zeros afterwards. `fd` is the memory file that is mapped.
    ///
    /// # Errors
    /// When the range lies outside the mapping (`InvalidInput`); otherwise what the kernel says.
    pub fn punch_hole(&self, fd: impl AsFd, offset: usize, len: usize) -> io::Result<()> {
        let start = self.page_range(offset, len)?;
        if len == 0 {
            return Ok(());
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(fd, flags, offset as u64, len as u64) {
            Err(errno) if is_refusal(errno) => {
                // The same by another name, for filters that forbid the first.
                // SAFETY: page_range checked that the range lies in this live mapping; its bytes are given up as by the
                // call above, by a caller who knows that nobody uses them.
                match unsafe { libc::madvise(start.cast(), len, libc::MADV_REMOVE) } {
                    0 => Ok(()),
                    _ => Err(errno.into()),
                }
            }
            result => Ok(result?),
        }
    }

    /// Bytes of this mapping that this process sees through huge pages at this moment.
    ///
    /// # Errors
    /// When `/proc/self/smaps` cannot be read.
    pub fn huge_page_bytes(&self) -> io::Result<usize> {
        let start = self.as_ptr().addr().get();
        let smaps = BufReader::new(fs::File::open("/proc/self/smaps")?);
        sum_pmd_mapped(smaps, start, start + self.len)
    }

    fn page_range(&self, offset: usize, len: usize) -> io::Result<*mut u8> {
        let inside = offset.checked_add(len).is_some_and(|end| end <= self.len);
        if !inside || !offset.is_multiple_of(page_size()) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(self.as_ptr().as_ptr().wrapping_add(offset))
    }
}

/// Whether a call is forbidden or not known, by a filter of system calls or an old kernel, rather than in vain.
fn is_refusal(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::INVAL | Errno::PERM | Errno::ACCESS | Errno::NOSYS | Errno::OPNOTSUPP
    )
}

/// Takes pages for a range of a file where they cannot be populated through the mapping. A first store to each page then
/// costs a small fault, and finds the page: only a page that has to be taken could raise SIGBUS.
fn reserve(fd: impl AsFd, offset: usize, len: usize, refused: Errno) -> io::Result<()> {
    match rustix::fs::fallocate(fd, FallocateFlags::empty(), offset as u64, len as u64) {
        Err(errno) if is_refusal(errno) => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!(
                "both madvise(MADV_POPULATE_WRITE) ({}) and fallocate ({}) are refused here, as a seccomp filter does: \
                 have it allow one of them",
                io::Error::from(refused),
                io::Error::from(errno)
            ),
        )),
        result => Ok(result?),
    }
}

/// Length of the file behind `fd` at this moment, in bytes.
///
/// # Errors
/// What the kernel says.
pub fn file_len(fd: impl AsFd) -> io::Result<u64> {
    let stat = rustix::fs::fstat(fd)?;
    Ok(u64::try_from(stat.st_size).unwrap_or(0))
}

fn check_file_len(fd: impl AsFd, len: usize) -> Result<(), MappingError> {
    let found = file_len(fd).map_err(|source| MappingError::System { len, source })?;
    let wanted = len as u64;
    if found < wanted {
        return Err(MappingError::FileTooShort { wanted, found });
    }
    Ok(())
}

/// Adds up the `ShmemPmdMapped` and `FilePmdMapped` lines of the areas that lie in `start..end`.
fn sum_pmd_mapped(smaps: impl BufRead, start: usize, end: usize) -> io::Result<usize> {
    let mut inside = false;
    let mut kib = 0_usize;
    for line in smaps.lines() {
        let line = line?;
        let mut words = line.split_ascii_whitespace();
        let Some(first) = words.next() else { continue };
        if matches!(first, "ShmemPmdMapped:" | "FilePmdMapped:") {
            let value = words.next().and_then(|word| word.parse::<usize>().ok());
            kib += value.filter(|_| inside).unwrap_or(0);
        } else if let Some((from, to)) = first.split_once('-')
            && let (Ok(from), Ok(to)) = (usize::from_str_radix(from, 16), usize::from_str_radix(to, 16))
        {
            inside = from < end && to > start;
        }
    }
    Ok(kib << 10)
}

/// A mapping that starts on a [`HUGE_PAGE`] boundary.
#[derive(Debug)]
struct AlignedPages {
    base: NonNull<u8>,
    /// Whole pages, at least one.
    mapped: usize,
}

// SAFETY: the type holds an address range that it owns; no method reads or writes the bytes, and the system calls made
// through it may come from any thread.
unsafe impl Send for AlignedPages {}
// SAFETY: as above.
unsafe impl Sync for AlignedPages {}

impl AlignedPages {
    fn map(
        fd: impl AsFd,
        len: usize,
        protection: ProtFlags,
        sharing: MapFlags,
    ) -> Result<AlignedPages, Errno> {
        let mapped = len
            .max(1)
            .checked_next_multiple_of(page_size())
            .ok_or(Errno::NOMEM)?;
        let room = mapped.checked_add(HUGE_PAGE).ok_or(Errno::NOMEM)?;
        // An inaccessible reservation, wide enough to hold an aligned range wherever it comes to lie.
        // SAFETY: a null hint without MAP_FIXED replaces no mapping.
        let reserved = unsafe {
            rustix::mm::mmap_anonymous(
                ptr::null_mut(),
                room,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )?
        };
        let head = reserved.addr().next_multiple_of(HUGE_PAGE) - reserved.addr();
        let base = reserved.wrapping_byte_add(head);
        // SAFETY: the target lies inside the reservation, which is ours and holds nothing.
        let placed = unsafe { rustix::mm::mmap(base, mapped, protection, sharing | MapFlags::FIXED, fd, 0) };
        if let Err(errno) = placed {
            unmap(reserved.cast(), room);
            return Err(errno);
        }
        unmap(reserved.cast(), head);
        unmap(base.wrapping_byte_add(mapped).cast(), HUGE_PAGE - head);
        keep_out_of_dumps(base, mapped);
        match NonNull::new(base.cast()) {
            Some(base) => Ok(AlignedPages { base, mapped }),
            None => Err(Errno::NOMEM),
        }
    }
}

/// For programs that have locked all memory that they will ever map (`mlockall(MCL_FUTURE)`): the kernel takes every page
/// of a new mapping at once, and counts the mapping against `RLIMIT_MEMLOCK`. For an arena, which is larger than the
/// memory, that is death. What cannot be accessed is not taken, and a mapping grows as what it was: so one page without
/// access is mapped and unlocked, then grown, moved into place, and opened last.
impl AlignedPages {
    fn map_unlocked(
        fd: impl AsFd,
        len: usize,
        protection: ProtFlags,
        sharing: MapFlags,
    ) -> Result<AlignedPages, Errno> {
        let mapped = len
            .max(1)
            .checked_next_multiple_of(page_size())
            .ok_or(Errno::NOMEM)?;
        let room = mapped.checked_add(HUGE_PAGE).ok_or(Errno::NOMEM)?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a null hint without MAP_FIXED replaces no mapping.
        let seed =
            unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), page_size(), ProtFlags::empty(), flags)? };
        let reserved = grow_unlocked(seed, room)?;
        let head = reserved.addr().next_multiple_of(HUGE_PAGE) - reserved.addr();
        let base = reserved.wrapping_byte_add(head);
        // SAFETY: as above.
        let page =
            unsafe { rustix::mm::mmap(ptr::null_mut(), page_size(), ProtFlags::empty(), sharing, fd, 0) };
        let placed = page.and_then(|page| place_unlocked(page, base, mapped, protection));
        if let Err(errno) = placed {
            unmap(reserved.cast(), room);
            return Err(errno);
        }
        unmap(reserved.cast(), head);
        unmap(base.wrapping_byte_add(mapped).cast(), HUGE_PAGE - head);
        keep_out_of_dumps(base, mapped);
        match NonNull::new(base.cast()) {
            Some(base) => Ok(AlignedPages { base, mapped }),
            None => Err(Errno::NOMEM),
        }
    }
}

/// Unlocks a mapping of one page that nobody else knows, and lets it grow to so many bytes, wherever there is room.
fn grow_unlocked(page: *mut c_void, len: usize) -> Result<*mut c_void, Errno> {
    // SAFETY: the page is a mapping of the caller's, which holds nothing; nobody has its address.
    let grown = unsafe {
        rustix::mm::munlock(page, page_size())
            .and_then(|()| rustix::mm::mremap(page, page_size(), len, MremapFlags::MAYMOVE))
    };
    if grown.is_err() {
        unmap(page.cast(), page_size());
    }
    grown
}

/// Unlocks a mapping of one page and lets it grow to so many bytes at `base`, in a reservation of the caller's, then
/// permits access.
fn place_unlocked(
    page: *mut c_void,
    base: *mut c_void,
    len: usize,
    protection: ProtFlags,
) -> Result<(), Errno> {
    let protection = MprotectFlags::from_bits_retain(protection.bits());
    // SAFETY: the page is a mapping of the caller's, the target a part of the caller's reservation, which is as long; both
    // hold nothing and nobody else has their addresses.
    unsafe {
        let moved = rustix::mm::munlock(page, page_size())
            .and_then(|()| rustix::mm::mremap_fixed(page, page_size(), len, MremapFlags::MAYMOVE, base));
        match moved {
            Ok(_) => rustix::mm::mprotect(base, len, protection),
            Err(errno) => {
                unmap(page.cast(), page_size());
                Err(errno)
            }
        }
    }
}

/// Whether the kernel takes the pages of new mappings at once, found out by asking for one: nothing tells it.
pub fn pages_are_locked() -> bool {
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a null hint without MAP_FIXED replaces no mapping.
    let page =
        unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), page_size(), protection, MapFlags::PRIVATE) };
    let Ok(page) = page else {
        return true; // A limit on locked memory refuses even this page; any other limit will refuse again.
    };
    let mut resident = 0_u8;
    // SAFETY: one page of our own is asked for, and one byte written.
    let asked = unsafe { libc::mincore(page, page_size(), &raw mut resident) };
    unmap(page.cast(), page_size());
    asked == 0 && resident & 1 != 0
}

impl Drop for AlignedPages {
    fn drop(&mut self) {
        unmap(self.base.as_ptr(), self.mapped);
    }
}

/// Shared pages are not of the process that dies: a core dump with the arena in it would be as long as the arena, and the
/// kernel would take a page for each hole in it. A kernel that knows no such advice dumps them; nothing else changes.
fn keep_out_of_dumps(start: *mut c_void, len: usize) {
    // SAFETY: the range is a mapping that was just made here; the advice changes no byte and no access.
    let _ = unsafe { rustix::mm::madvise(start, len, Advice::LinuxDontDump) };
}

/// Unmaps pages that this module mapped and nobody uses any more.
fn unmap(start: *mut u8, len: usize) {
    if len == 0 {
        return;
    }
    // SAFETY: callers pass a range of their own mapping and never touch it again.
    let unmapped = unsafe { rustix::mm::munmap(start.cast(), len) };
    debug_assert_eq!(unmapped, Ok(()), "munmap of an own range");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memfd;

    fn byte(mapping: &Mapping, offset: usize) -> *mut u8 {
        assert!(offset < mapping.len());
        mapping.as_ptr().as_ptr().wrapping_add(offset)
    }

    #[test]
    fn both_mappings_see_one_memory_and_live_ones_are_aligned() {
        let len = 3 * HUGE_PAGE + page_size();
        let fd = memfd::create("swathe-test", len as u64).unwrap();
        let writer = Mapping::read_write(&fd, len).unwrap();
        let reader = Mapping::read_only(&fd, len).unwrap();
        assert_eq!(writer.as_ptr().addr().get() % HUGE_PAGE, 0);
        // SAFETY: in bounds, and no other thread knows these mappings.
        unsafe {
            byte(&writer, len - 1).write_volatile(7);
            assert_eq!(byte(&reader, len - 1).read_volatile(), 7);
        }
        assert_eq!((reader.len(), reader.access()), (len, Access::ReadOnly));
    }

    #[test]
    fn a_punched_range_reads_zero_and_gives_its_pages_back() {
        let fd = memfd::create("swathe-test", HUGE_PAGE as u64).unwrap();
        let mapping = Mapping::read_write(&fd, HUGE_PAGE).unwrap();
        mapping.populate_write(&fd, 0, 16 * page_size()).unwrap();
        // SAFETY: in bounds, single thread.
        unsafe { byte(&mapping, page_size()).write_volatile(9) };
        let blocks = || rustix::fs::fstat(&fd).unwrap().st_blocks * 512;
        assert_eq!(blocks(), 16 * page_size() as i64);
        mapping.punch_hole(&fd, 0, 8 * page_size()).unwrap();
        assert_eq!(blocks(), 8 * page_size() as i64);
        // SAFETY: in bounds, single thread.
        assert_eq!(unsafe { byte(&mapping, page_size()).read_volatile() }, 0);
    }

    #[test]
    fn a_mapping_that_grew_from_an_unlocked_page_is_as_any_other() {
        let len = 2 * HUGE_PAGE + page_size();
        let fd = memfd::create("swathe-test", len as u64).unwrap();
        let both = ProtFlags::READ | ProtFlags::WRITE;
        let pages = AlignedPages::map_unlocked(&fd, len, both, MapFlags::SHARED).unwrap();
        assert_eq!(pages.base.addr().get() % HUGE_PAGE, 0);
        let mapping = Mapping {
            pages: Pages::Live(pages),
            len,
            access: Access::ReadWrite,
        };
        let other = Mapping::read_only(&fd, len).unwrap();
        // SAFETY: in bounds, and no other thread knows these mappings.
        unsafe {
            byte(&mapping, len - 1).write_volatile(7);
            assert_eq!(byte(&other, len - 1).read_volatile(), 7);
        }
        assert_eq!(
            rustix::fs::fstat(&fd).unwrap().st_blocks * 512,
            page_size() as i64
        );
    }

    #[test]
    fn a_reservation_that_a_filter_forbids_is_told_with_both_calls() {
        let pipe = rustix::pipe::pipe().unwrap().0;
        // Nothing but files has room to reserve.
        let short = reserve(&pipe, 0, page_size(), Errno::PERM).unwrap_err();
        assert_ne!(short.kind(), io::ErrorKind::Unsupported, "{short}");
        let fd = memfd::create("swathe-test", page_size() as u64).unwrap();
        reserve(&fd, 0, page_size(), Errno::PERM).unwrap();
        assert_eq!(
            rustix::fs::fstat(&fd).unwrap().st_blocks * 512,
            page_size() as i64
        );
        let grown = reserve(&fd, 0, 2 * page_size(), Errno::PERM).unwrap_err();
        let text = grown.to_string();
        assert!(
            text.contains("MADV_POPULATE_WRITE") && text.contains("fallocate"),
            "{text}"
        );
    }

    #[test]
    fn collapse_keeps_the_bytes_and_is_reported_as_obtained() {
        let len = 4 * HUGE_PAGE;
        let fd = memfd::create("swathe-test", len as u64).unwrap();
        let mapping = Mapping::read_write(&fd, len).unwrap();
        // SAFETY: in bounds, single thread.
        unsafe { byte(&mapping, HUGE_PAGE + 5).write_volatile(42) };
        assert_eq!(mapping.huge_page_bytes().unwrap(), 0);
        let outcome = mapping.collapse(&fd, HUGE_PAGE, 2 * HUGE_PAGE);
        // SAFETY: in bounds, single thread.
        assert_eq!(unsafe { byte(&mapping, HUGE_PAGE + 5).read_volatile() }, 42);
        match outcome {
            Ok(()) => assert_eq!(mapping.huge_page_bytes().unwrap(), 2 * HUGE_PAGE),
            // The kernel may lack huge pages; the range is usable all the same, as was just read.
            Err(error) => eprintln!("no huge pages here: {error}"),
        }
    }

    #[test]
    fn ranges_outside_are_refused() {
        let fd = memfd::create("swathe-test", page_size() as u64).unwrap();
        let error = Mapping::read_write(&fd, 2 * page_size()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "cannot map {} bytes of a file that holds {}",
                2 * page_size(),
                page_size()
            )
        );
        let mapping = Mapping::read_write(&fd, page_size()).unwrap();
        for (offset, len) in [
            (0, 2 * page_size()),
            (1, 8),
            (page_size(), 1),
            (usize::MAX - page_size() + 1, page_size()),
        ] {
            let error = mapping.populate_write(&fd, offset, len).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{offset} {len}");
        }
        assert_eq!(
            mapping.collapse(&fd, 0, page_size()).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
        assert!(Mapping::read_write(&fd, usize::MAX).is_err());
    }

    #[test]
    fn no_mapping_is_in_a_core_dump() {
        let fd = memfd::create("swathe-test-dump", 4 * HUGE_PAGE as u64).unwrap();
        let both = [
            Mapping::read_write(&fd, 4 * HUGE_PAGE),
            Mapping::read_only(&fd, 100),
        ];
        let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
        let mut areas = smaps.split("VmFlags:");
        let mut found = 0;
        let mut area = areas.next().unwrap();
        for next in areas {
            let (flags, rest) = next.split_once('\n').unwrap();
            if area.contains("swathe-test-dump") {
                found += 1;
                assert!(flags.split_whitespace().any(|flag| flag == "dd"), "{area}{flags}");
            }
            area = rest;
        }
        assert_eq!(found, both.len());
        // Nothing is mapped, so there is nothing to advise.
        Mapping::read_only(&fd, 0).unwrap();
    }

    #[test]
    fn smaps_lines_outside_the_range_do_not_count() {
        let text = "1000-3000 rw-s 00000000 00:01 5 /memfd:a (deleted)\nSize: 8 kB\nShmemPmdMapped:     2048 kB\n\
                    3000-5000 rw-s 00000000 00:01 6 /memfd:b (deleted)\nShmemPmdMapped:     4096 kB\n\
                    FilePmdMapped:      6 kB\n9000-a000 r--p 0 0 0\nShmemPmdMapped: 512 kB\nVmFlags: rd\n";
        let sum = |from, to| sum_pmd_mapped(text.as_bytes(), from, to).unwrap() >> 10;
        assert_eq!(sum(0x3000, 0x5000), 4102);
        assert_eq!(sum(0x2000, 0x3001), 2048 + 4102);
        assert_eq!(sum(0x5000, 0x9000), 0);
    }
}
