//! Descriptor numbers: none of ours is one that the host writes text to, and none of the host's gets into our processes.

use std::{
    fs, io,
    mem::ManuallyDrop,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use rustix::{
    io::{Errno, FdFlags},
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

use crate::kernel_files;

/// A descriptor of ours, unless the host has closed it.
///
/// Some programs close every descriptor there is. Then the number is nobody's, or stands for something of the host's: it is
/// closed only if it still stands for what it stood for when it was made. (All event counters look alike, and so do all
/// lists of descriptors that are waited for: a host's own under the number of ours would not be told from it.)
#[derive(Debug)]
pub struct Descriptor {
    /// Never dropped: it is closed by number.
    fd: ManuallyDrop<OwnedFd>,
    identity: Option<(u64, u64)>,
}

impl Descriptor {
    /// Whether the number still stands for what it stood for.
    pub fn is_ours(&self) -> bool {
        self.identity.is_some() && identity(&*self.fd) == self.identity
    }

    /// Gives up the lock of a file ([`fs::File::lock`]), for whoever else has it open by the same descriptor too.
    pub fn unlock(&self) {
        if self.is_ours() {
            let _ = rustix::fs::flock(&*self.fd, rustix::fs::FlockOperation::Unlock);
        }
    }

    /// Another number for the same, close-on-exec.
    ///
    /// # Errors
    /// If there is no number left.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(self.fd.try_clone()?.into())
    }
}

impl From<OwnedFd> for Descriptor {
    fn from(fd: OwnedFd) -> Self {
        Self {
            identity: identity(&fd),
            fd: ManuallyDrop::new(fd),
        }
    }
}

impl From<fs::File> for Descriptor {
    fn from(file: fs::File) -> Self {
        OwnedFd::from(file).into()
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        if self.is_ours() {
            // SAFETY: the number stands for what this value owns (or did a moment ago: then closing it is an error without
            // effect), and nobody uses it after its owner.
            unsafe { libc::close(self.fd.as_raw_fd()) };
        }
    }
}

/// Standard input, output and error.
const STANDARD: u32 = 3;

/// Makes a descriptor, or several together, whose numbers are all above 2.
///
/// In a program that has closed its standard descriptors the kernel hands their numbers out again, and what the program
/// prints would go into whatever we opened. Such a number is kept taken while another one is made.
///
/// # Errors
/// What `make` says.
pub fn above_standard<T: Descriptors, E>(mut make: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    let mut low = Vec::new();
    loop {
        let made = make()?;
        if made.lowest() >= STANDARD as i32 {
            return Ok(made);
        }
        low.push(made);
    }
}

/// What [`above_standard`] can make.
pub trait Descriptors {
    /// The smallest of the numbers.
    fn lowest(&self) -> i32;
}

impl<F: AsFd> Descriptors for F {
    fn lowest(&self) -> i32 {
        self.as_fd().as_raw_fd()
    }
}

/// Two descriptors that are made together.
#[derive(Debug)]
pub struct Both<A, B>(pub A, pub B);

impl<A: AsFd, B: AsFd> Descriptors for Both<A, B> {
    fn lowest(&self) -> i32 {
        self.0.lowest().min(self.1.lowest())
    }
}

/// A received descriptor, moved above 2 if the kernel gave it a standard number.
///
/// # Errors
/// If there is no other number left.
pub fn moved_above_standard(fd: OwnedFd) -> io::Result<Descriptor> {
    if fd.as_raw_fd() >= STANDARD as i32 {
        return Ok(fd.into());
    }
    Ok(rustix::io::fcntl_dupfd_cloexec(&fd, STANDARD as i32)?.into())
}

/// Closes every descriptor above 2 of this process. Where the kernel refuses `close_range` (a seccomp filter may), the
/// list in `/proc` is walked.
///
/// # Safety
/// Nobody in this process may own any of them.
pub unsafe fn close_above_standard() {
    // SAFETY: the caller promises that nobody owns what is closed.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, STANDARD, u32::MAX, 0u32) };
    if closed == 0 {
        return;
    }
    // The list is read whole first: its own descriptor is among them, and closed by then.
    for number in open_numbers() {
        if number >= STANDARD as i32 {
            // SAFETY: as above; a number that is closed already is an error without effect.
            unsafe { libc::close(number) };
        }
    }
}

/// The numbers of the descriptors that are open in this process; one of them may be the list's own.
fn open_numbers() -> Vec<i32> {
    let names = kernel_files::names("/proc/self/fd");
    names.iter().filter_map(|name| name.parse().ok()).collect()
}

/// Those above 2 that a program started now would inherit.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn inheritable() -> Vec<i32> {
    open_numbers()
        .into_iter()
        .filter(|number| *number >= STANDARD as i32 && is_inherited(*number))
        .collect()
}

/// Whether a program that this process starts gets this number: it is open, and not close-on-exec.
pub fn is_inherited(number: i32) -> bool {
    flags_of(number).is_some_and(|flags| flags & libc::FD_CLOEXEC == 0)
}

/// The flags of a number that may be anybody's or nobody's; `None` if it is not open.
fn flags_of(number: i32) -> Option<i32> {
    // SAFETY: the number is only asked about, and any number may be; if it is not open the answer is an error.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    (flags >= 0).then_some(flags)
}

/// Which file, socket or pipe a descriptor stands for: device and inode. `None` if it is not open.
pub fn identity(fd: impl AsFd) -> Option<(u64, u64)> {
    let stat = rustix::fs::fstat(fd).ok()?;
    Some((stat.st_dev, stat.st_ino))
}

/// Opens the standard descriptors that are closed, on `/dev/null` (or, where there is none, on memory of nobody). Programs
/// that are started inherit them.
///
/// No number is taken over: the kernel hands out the lowest that is free, so what is opened until one above 2 comes has filled
/// the gaps, whatever other threads open meanwhile.
///
/// # Errors
/// If nothing can be opened at all.
pub fn fill_standard() -> io::Result<()> {
    while (0..STANDARD as i32).any(|number| flags_of(number).is_none()) {
        let nothing: OwnedFd = match fs::OpenOptions::new().read(true).write(true).open("/dev/null") {
            Ok(null) => null.into(),
            Err(_) => rustix::fs::memfd_create("swathe-null", rustix::fs::MemfdFlags::CLOEXEC)?,
        };
        if nothing.as_raw_fd() >= STANDARD as i32 {
            break;
        }
        rustix::io::fcntl_setfd(&nothing, FdFlags::empty())?;
        // It stays open as that number.
        std::mem::forget(nothing);
    }
    Ok(())
}

/// Takes descriptor 0 away from a process that has just started (`/dev/null` takes its place), and closes every other
/// above 2: what it inherited by accident must not outlive its owner in there.
///
/// # Safety
/// Nobody in this process may own a descriptor yet.
///
/// # Errors
/// If descriptor 0 is not open, or no other number is left.
pub unsafe fn take_stdin_and_close_rest() -> io::Result<Descriptor> {
    // SAFETY: the caller promises that nobody owns what is closed.
    unsafe { close_above_standard() };
    // SAFETY: only borrowed, for the duplication; if it is not open that is an error.
    let taken = rustix::io::fcntl_dupfd_cloexec(unsafe { BorrowedFd::borrow_raw(0) }, STANDARD as i32)?;
    // SAFETY: nobody owns descriptor 0 (as above), and what it stood for was duplicated.
    drop(unsafe { OwnedFd::from_raw_fd(0) });
    fill_standard()?;
    Ok(taken.into())
}

/// What is short when more descriptors are needed than this process may open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany {
    /// Descriptors that the process would have.
    pub needed: u64,
    /// Its hard limit (`ulimit -Hn`).
    pub limit: u64,
}

/// Makes room for so many descriptors besides those that are open: the soft limit is raised if it has to be.
///
/// # Errors
/// If the hard limit is too low.
pub fn make_room_for(more: u64) -> Result<(), TooMany> {
    /// For what the program itself opens meanwhile.
    const SPARE: u64 = 32;
    let limit = getrlimit(Resource::Nofile);
    let Some(soft) = limit.current else { return Ok(()) };
    let needed = open_below(soft) + more + SPARE;
    if needed <= soft {
        return Ok(());
    }
    if let Some(hard) = limit.maximum.filter(|hard| *hard < needed) {
        return Err(TooMany { needed, limit: hard });
    }
    let raised = Rlimit {
        current: Some(needed),
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).map_err(|_| TooMany { needed, limit: soft })
}

/// How many are open, as far as can be told under a soft limit; more numbers than that limit may be open.
fn open_below(soft: u64) -> u64 {
    // Since Linux 6.2 the directory's size is their number.
    let counted = fs::metadata("/proc/self/fd").map(|directory| directory.len());
    if let Some(open) = counted.ok().filter(|open| *open > 0) {
        return open;
    }
    match kernel_files::try_names("/proc/self/fd") {
        Ok(names) => names.len() as u64,
        // Not even the list can be opened: every number is taken.
        Err(e) if e.raw_os_error() == Some(Errno::MFILE.raw_os_error()) => soft,
        // Without /proc they are asked about one by one.
        Err(_) => (0..soft.min(1 << 16) as i32)
            .filter(|number| flags_of(*number).is_some())
            .count() as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What stands under a number that was closed behind its owner's back is not the owner's.
    #[test]
    fn a_number_that_is_anothers_by_now_is_not_closed() {
        let open = |path| fs::File::open(path).expect("it is there");
        let ours = Descriptor::from(OwnedFd::from(open("/proc/self/stat")));
        assert!(ours.is_ours());
        let number = ours.as_fd().as_raw_fd();
        // One that takes the number over, as a host does that closes everything and opens a file of its own.
        let theirs = open("/dev/null");
        // SAFETY: the number is open, and only its owner, which is told apart below, would still use it.
        assert_eq!(unsafe { libc::dup2(theirs.as_raw_fd(), number) }, number);
        assert!(!ours.is_ours());
        drop(ours);
        // SAFETY: the test owns what it has put there.
        let theirs = unsafe { OwnedFd::from_raw_fd(number) };
        assert!(identity(&theirs).is_some(), "it is still open");

        let gone = crate::memfd::unsealed("swathe-test").expect("there is room");
        // SAFETY: its owner finds it closed, which is what is tested.
        unsafe { libc::close(gone.as_fd().as_raw_fd()) };
        drop(gone);
    }

    /// -1 is no descriptor that may be borrowed, and says nothing about one.
    #[test]
    fn any_number_can_be_asked_about() {
        for number in [-1, i32::MIN, i32::MAX] {
            assert!(!is_inherited(number), "{number}");
        }
        let file = fs::File::open("/dev/null").expect("it is there");
        assert!(
            !is_inherited(file.as_raw_fd()),
            "the standard library opens close-on-exec"
        );
        rustix::io::fcntl_setfd(&file, FdFlags::empty()).expect("it is open");
        assert!(is_inherited(file.as_raw_fd()));
    }

    #[test]
    fn low_numbers_are_made_again_and_given_back() {
        // A descriptor stands for a low number if it is the first that is made.
        struct Fake(i32);
        impl AsFd for Fake {
            fn as_fd(&self) -> BorrowedFd<'_> {
                // SAFETY: the number is only compared.
                unsafe { BorrowedFd::borrow_raw(self.0) }
            }
        }
        let mut next = 1;
        let made = above_standard(|| {
            next += 1;
            Ok::<_, io::Error>(Fake(next - 1))
        });
        assert_eq!(made.unwrap().0, 3);
    }

    #[test]
    fn room_is_refused_with_both_numbers() {
        let hard = getrlimit(Resource::Nofile).maximum;
        let Some(hard) = hard else { return };
        let refused = make_room_for(hard).unwrap_err();
        assert_eq!(refused.limit, hard);
        assert!(refused.needed > hard);
        make_room_for(0).unwrap();
    }
}
