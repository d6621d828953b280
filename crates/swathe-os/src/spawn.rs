//! Starting a program with nothing of the host's but what it is given.
//!
//! `posix_spawn`, so that no code of this process runs in the child, however many threads and locks it has, and whatever
//! it has initialized (MPI, CUDA). The standard library's `Command` would do, but cannot block signals in the child, nor
//! close what it must not inherit before its constructors run.

use std::{
    ffi::{CStr, CString},
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    ptr,
    sync::OnceLock,
    time::{Duration, Instant},
};

use crate::{
    descriptors::is_inherited,
    kernel_files,
    process::{Exit, ExitCause, Pidfd},
    signals::Mask,
};

/// What to start.
#[derive(Clone, Debug)]
pub struct Program {
    /// The file.
    pub file: CString,
    /// All arguments, its own name first.
    pub args: Vec<CString>,
    /// Its whole environment, as `NAME=value`.
    pub env: Vec<CString>,
}

/// A program that was started.
#[derive(Debug)]
pub struct Started {
    pid: u32,
    pidfd: Option<Pidfd>,
    exit: Option<Exit>,
}

struct Actions(libc::posix_spawn_file_actions_t);
struct Attributes(libc::posix_spawnattr_t);

impl Drop for Actions {
    fn drop(&mut self) {
        // SAFETY: initialized by `Actions::new`, and destroyed once.
        unsafe { libc::posix_spawn_file_actions_destroy(&raw mut self.0) };
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: initialized by `Attributes::new`, and destroyed once.
        unsafe { libc::posix_spawnattr_destroy(&raw mut self.0) };
    }
}

fn check(code: i32) -> io::Result<()> {
    match code {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

impl Actions {
    /// Descriptor 0 is `stdin`; 1 and 2 are this process's, or `/dev/null` where it has none to give; nothing else is open.
    fn new(stdin: BorrowedFd<'_>, directory: Option<BorrowedFd<'_>>) -> io::Result<Self> {
        let mut actions = std::mem::MaybeUninit::uninit();
        // SAFETY: initializes the object it is given.
        check(unsafe { libc::posix_spawn_file_actions_init(actions.as_mut_ptr()) })?;
        // SAFETY: initialized just now.
        let mut actions = Self(unsafe { actions.assume_init() });
        let raw = &raw mut actions.0;
        // SAFETY: the object is initialized; numbers are copied.
        check(unsafe { libc::posix_spawn_file_actions_adddup2(raw, stdin.as_raw_fd(), 0) })?;
        let null = c"/dev/null";
        for number in [1, 2] {
            if !is_inherited(number) && std::path::Path::new("/dev/null").exists() {
                // SAFETY: the object is initialized; the string is copied.
                check(unsafe {
                    libc::posix_spawn_file_actions_addopen(raw, number, null.as_ptr(), libc::O_RDWR, 0)
                })?;
            }
        }
        if let Some(directory) = directory {
            actions.enter(directory)?;
        }
        actions.close_rest()?;
        Ok(actions)
    }

    fn enter(&mut self, directory: BorrowedFd<'_>) -> io::Result<()> {
        // SAFETY: the object is initialized; the descriptor is open until the program has started.
        check(unsafe { libc::posix_spawn_file_actions_addfchdir_np(&raw mut self.0, directory.as_raw_fd()) })
    }

    /// glibc does it with `close_range`, or walks `/proc/self/fd` where the kernel refuses.
    #[cfg(target_env = "gnu")]
    fn close_rest(&mut self) -> io::Result<()> {
        // SAFETY: the object is initialized.
        check(unsafe { libc::posix_spawn_file_actions_addclosefrom_np(&raw mut self.0, 3) })
    }

    #[cfg(not(target_env = "gnu"))]
    fn close_rest(&mut self) -> io::Result<()> {
        for number in crate::descriptors::inheritable() {
            // SAFETY: the object is initialized.
            check(unsafe { libc::posix_spawn_file_actions_addclose(&raw mut self.0, number) })?;
        }
        Ok(())
    }
}

impl Attributes {
    /// All signals have their default disposition, and are blocked: whoever starts is not ended by a signal to the whole
    /// group before it can say what it does about it.
    fn new() -> io::Result<Self> {
        let mut attributes = std::mem::MaybeUninit::uninit();
        // SAFETY: initializes the object it is given.
        check(unsafe { libc::posix_spawnattr_init(attributes.as_mut_ptr()) })?;
        // SAFETY: initialized just now.
        let mut attributes = Self(unsafe { attributes.assume_init() });
        let raw = &raw mut attributes.0;
        let flags = libc::POSIX_SPAWN_SETSIGDEF | libc::POSIX_SPAWN_SETSIGMASK;
        let all = Mask::all();
        // SAFETY: the object and the set are initialized; the set is copied.
        check(unsafe { libc::posix_spawnattr_setsigdefault(raw, all.as_raw()) })?;
        // SAFETY: likewise.
        check(unsafe { libc::posix_spawnattr_setsigmask(raw, all.as_raw()) })?;
        // SAFETY: likewise; the flags are two bits of a short.
        check(unsafe { libc::posix_spawnattr_setflags(raw, flags as libc::c_short) })?;
        Ok(attributes)
    }
}

fn pointers(strings: &[CString]) -> Vec<*mut libc::c_char> {
    let pointers = strings.iter().map(|string| string.as_ptr().cast_mut());
    pointers.chain([ptr::null_mut()]).collect()
}

impl Program {
    /// Starts it: `stdin` becomes its descriptor 0, it begins in `directory`, with every signal blocked.
    ///
    /// # Errors
    /// What the kernel says: the file cannot be executed, or there is no room for another process.
    pub fn start(&self, stdin: impl AsFd, directory: Option<BorrowedFd<'_>>) -> io::Result<Started> {
        let actions = Actions::new(stdin.as_fd(), directory)?;
        let attributes = Attributes::new()?;
        let (args, env) = (pointers(&self.args), pointers(&self.env));
        let mut pid = 0;
        // SAFETY: file, arguments and environment are strings closed by a zero in lists closed by a null pointer, and live
        // until the call returns; actions and attributes are initialized.
        check(unsafe {
            libc::posix_spawn(
                &raw mut pid,
                self.file.as_ptr(),
                &raw const actions.0,
                &raw const attributes.0,
                args.as_ptr(),
                env.as_ptr(),
            )
        })?;
        let pid = pid as u32;
        // If its end was ignored it may be gone already, and the id another's: whoever looks for it learns that it is no
        // child.
        let pidfd = Pidfd::open(pid).ok();
        Ok(Started {
            pid,
            pidfd,
            exit: None,
        })
    }
}

impl Started {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Kills it. `false` if this process may not.
    pub fn kill(&mut self) -> bool {
        if self.try_wait().is_some() {
            return true;
        }
        match &self.pidfd {
            Some(pidfd) => pidfd.kill(),
            // Not reaped, so the id is still its own.
            // SAFETY: sends a signal to a child, which touches no memory of this process.
            None => unsafe { libc::kill(self.pid as i32, libc::SIGKILL) == 0 },
        }
    }

    /// How it ended, if it has. Somebody else may have reaped it, or nobody had to: then the cause is unknown.
    pub fn try_wait(&mut self) -> Option<Exit> {
        if self.exit.is_none() {
            self.exit = self.look();
        }
        self.exit
    }

    /// Waits until it has ended, at most this long. Gives how.
    pub fn wait(&mut self, patience: Duration) -> Option<Exit> {
        let until = Instant::now() + patience;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if let Some(exit) = self.try_wait() {
                return Some(exit);
            }
            if left.is_zero() {
                return None;
            }
            match &self.pidfd {
                Some(pidfd) => _ = pidfd.wait_gone(left),
                None => std::thread::sleep(left.min(Duration::from_micros(200))),
            }
        }
    }

    fn look(&self) -> Option<Exit> {
        use rustix::process::{WaitId, WaitIdOptions, waitid};
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let id = match &self.pidfd {
            Some(pidfd) => WaitId::PidFd(pidfd.as_fd()),
            None => WaitId::Pid(rustix::process::Pid::from_raw(self.pid as i32)?),
        };
        let unknown = ExitCause::Unknown;
        let cause = match waitid(id, options) {
            Ok(None) | Err(rustix::io::Errno::INTR) => return None,
            Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => ExitCause::Code(code),
                (None, Some(signal)) => ExitCause::Signal(signal),
                (None, None) => unknown,
            },
            Err(_) => unknown,
        };
        Some(Exit { cause, peak_kib: 0 })
    }
}

/// The environment of this process as `NAME=value`, without what `drop` names; later values of `add` replace earlier ones.
pub fn environment(drop: impl Fn(&str) -> bool, add: &[(String, String)]) -> Vec<CString> {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let kept = std::env::vars_os().filter(|(name, _)| {
        let name = name.to_string_lossy();
        !drop(&name) && add.iter().all(|(added, _)| *added != name)
    });
    let kept = kept.map(|(name, value)| [name.as_bytes(), b"=", &value.into_vec()].concat());
    let added = add
        .iter()
        .map(|(name, value)| format!("{name}={value}").into_bytes());
    kept.chain(added)
        .filter_map(|text| CString::new(text).ok())
        .collect()
}

/// The arguments of this process, from the kernel: also in a library, and before `main`.
pub fn own_arguments() -> Vec<CString> {
    let bytes = kernel_files::read("/proc/self/cmdline").unwrap_or_default();
    let texts = bytes.split_inclusive(|byte| *byte == 0);
    texts
        .filter_map(|text| CStr::from_bytes_with_nul(text).ok())
        .map(CStr::to_owned)
        .collect()
}

/// How this program can be started once more.
#[derive(Debug)]
pub struct OwnProgram {
    /// The file to execute.
    pub file: CString,
    /// All arguments that it needs, its name first, if it needs any.
    pub args: Option<Vec<CString>>,
}

/// The file that this program runs from: the very inode, even if its name is another's by now. Where the program was given
/// to a loader (`ld.so ./program`) the loader is started with the same program; under a tool that has taken the place of
/// the executable (valgrind) the program's own file is found by its mapping.
///
/// # Errors
/// If there is no such file, or it cannot be told.
pub fn own_program() -> io::Result<OwnProgram> {
    let exe = std::path::Path::new("/proc/self/exe");
    let file = c"/proc/self/exe".to_owned();
    let running = identity(exe)?;
    let Some((path, program)) = main_object_file() else {
        return Ok(OwnProgram { file, args: None });
    };
    if program == running {
        return Ok(OwnProgram { file, args: None });
    }
    let is_program = |arg: &CString| {
        use std::os::unix::ffi::OsStrExt;
        let path = std::path::Path::new(std::ffi::OsStr::from_bytes(arg.to_bytes()));
        identity(path).is_ok_and(|found| found == program)
    };
    let is_loader = std::fs::read_link(exe).is_ok_and(|exe| {
        let name = exe.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("ld") && name.contains(".so")
    });
    let mut args = own_arguments();
    if is_loader && let Some(at) = args.iter().skip(1).position(is_program) {
        args.truncate(at + 2);
        return Ok(OwnProgram {
            file,
            args: Some(args),
        });
    }
    if identity(std::path::Path::new(&path)).is_ok_and(|found| found == program) {
        let file = CString::new(path).map_err(|_| io::Error::other("its path contains a zero byte"))?;
        return Ok(OwnProgram { file, args: None });
    }
    Err(io::Error::other(
        "it was moved or replaced, and does not run by itself",
    ))
}

fn identity(path: &std::path::Path) -> io::Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).map(|file| (file.dev(), file.ino()))
}

/// Path, device and inode of the file that the main program is mapped from.
fn main_object_file() -> Option<(String, (u64, u64))> {
    static FILE: OnceLock<Option<(String, (u64, u64))>> = OnceLock::new();
    FILE.get_or_init(find_main_object_file).clone()
}

fn find_main_object_file() -> Option<(String, (u64, u64))> {
    let address = crate::image::main_program_address()?;
    let maps = kernel_files::text("/proc/self/maps").ok()?;
    maps.lines().find_map(|line| {
        // start-end perms offset major:minor inode path (proc(5))
        let mut fields = line.splitn(6, ' ');
        let (start, end) = fields.next()?.split_once('-')?;
        let hex = |text: &str| u64::from_str_radix(text, 16).ok();
        if !(hex(start)?..hex(end)?).contains(&(address as u64)) {
            return None;
        }
        let (major, minor) = fields.nth(2)?.split_once(':')?;
        let device = libc::makedev(hex(major)? as u32, hex(minor)? as u32);
        let inode = fields.next()?.parse().ok()?;
        Some((fields.next()?.trim_start().to_owned(), (device, inode)))
    })
}
