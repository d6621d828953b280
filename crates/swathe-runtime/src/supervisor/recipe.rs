//! How the zygotes of a pool are started: recorded once, when the pool is built, so that every worker of its life finds the
//! same program, directory, environment, limits, mask of created files, niceness and cores, whatever the host has changed
//! meanwhile.

use std::{
    any::Any,
    ffi::{CString, OsString},
    io,
    os::fd::AsFd,
    path::PathBuf,
    sync::Arc,
};

use swathe_memory::{Block, arena::capacity};
use swathe_os::{
    Descriptor, image,
    process::Pidfd,
    socket::Socket,
    spawn::{self, Program, Started},
    surroundings::{self, Surroundings},
    thread_caps,
};

use crate::{
    parent::core::Core,
    shared::{
        memory,
        messages::{Message, MessageKind},
    },
    zygote::{MARKER, NAME},
};

/// Names the program that workers are started from, where the pool's builder does not.
const WORKER_VARIABLE: &str = "SWATHE_WORKER";

/// What helps where this program cannot be started once more as it is.
pub(crate) const NAME_IT: &str = "if it runs under a loader, an emulator or an interpreter, name the program that workers \
                                  are started from (`Builder::worker_executable`, or the variable SWATHE_WORKER)";

/// EBADF and EMFILE.
const BAD_NUMBER: i32 = 9;
const NO_FILES: i32 = 24;

/// How a zygote is started, the first time and again.
pub(crate) struct Recipe {
    program: Program,
    directory: Option<Descriptor>,
    surroundings: Surroundings,
    plan: Arc<Block>,
    plan_len: usize,
    /// What the setup's arguments refer to.
    _keep: Option<Box<dyn Any + Send + Sync>>,
}

impl Recipe {
    /// From this process as it is now, but for its `surroundings`. `share` is how many cores a worker may use for itself.
    pub(crate) fn record(
        surroundings: Surroundings,
        executable: Option<PathBuf>,
        share: usize,
        (plan, plan_len): (Arc<Block>, usize),
        keep: Option<Box<dyn Any + Send + Sync>>,
    ) -> Result<Self, String> {
        let named = executable.map(PathBuf::into_os_string);
        let named = named.or_else(|| std::env::var_os(WORKER_VARIABLE).filter(|name| !name.is_empty()));
        let name = || CString::new(NAME).unwrap_or_default();
        let (file, args) = match named {
            Some(path) => (c_string(path)?, vec![name()]),
            None => {
                let own = spawn::own_program()
                    .map_err(|e| format!("this program's own file cannot be found ({e}); {NAME_IT}"))?;
                let args = own.args.unwrap_or_else(|| vec![name()]);
                (own.file, args)
            }
        };
        let mut add: Vec<(String, String)> = thread_caps::caps(share, |name| std::env::var_os(name))
            .into_iter()
            .chain(capacity::for_children())
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        add.push((MARKER.to_owned(), std::process::id().to_string()));
        Ok(Self {
            program: Program {
                file,
                args,
                env: spawn::environment(surroundings::is_launchers, &add),
            },
            // Without it workers begin where the host is when they are started.
            directory: surroundings::current_directory().ok(),
            surroundings,
            plan,
            plan_len,
            _keep: keep,
        })
    }

    /// Starts a zygote, and greets it. It answers when it is ready.
    pub(crate) fn start(&self, core: &Core) -> io::Result<(Started, Socket)> {
        let (ours, theirs) = Socket::pair()?;
        let directory = self.directory.as_ref().map(AsFd::as_fd);
        let mut started = self
            .program
            .start(&theirs, directory)
            .map_err(|e| match e.kind() {
                // A shortage stays what it is.
                io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => {
                    io::Error::other(format!("{}: {e}", self.program.file.to_string_lossy()))
                }
                // Under a limit below the standard numbers the kernel says that of them.
                _ if e.raw_os_error() == Some(BAD_NUMBER) => io::Error::from_raw_os_error(NO_FILES),
                _ => e,
            })?;
        drop(theirs);
        let (control, data) = (&core.control.segment, core.memory.segment());
        let words = [
            control.id().to_bits(),
            control.len() as u64,
            data.id().to_bits(),
            data.len() as u64,
            core.control.slots.len() as u64,
            self.plan.offset() as u64,
            self.plan_len as u64,
        ];
        // By this the zygote learns of this process's end. Where it cannot be had it asks who its parent is.
        let me = Pidfd::open(std::process::id()).ok();
        let fds = [memory::descriptor(control), memory::descriptor(data)]
            .into_iter()
            .chain(me.iter().map(AsFd::as_fd));
        let greeting =
            Message::new(MessageKind::Hello, &words).with_text(&Greeting::encode(&self.surroundings));
        match greeting.try_send(&ours, &fds.collect::<Vec<_>>()) {
            Ok(()) => Ok((started, ours)),
            // It has ended already, and how is heard in the usual way.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok((started, ours)),
            Err(e) => {
                started.kill();
                Err(e)
            }
        }
    }
}

fn c_string(text: OsString) -> Result<CString, String> {
    use std::os::unix::ffi::OsStringExt;
    CString::new(text.into_vec())
        .map_err(|_| "the name of the program that workers are started from contains a zero byte".to_owned())
}

/// What a greeting says besides its words.
pub(crate) struct Greeting {
    /// The build of the object that holds the parent's code.
    pub(crate) build: [u8; image::BUILD_ID_LEN],
    pub(crate) surroundings: Surroundings,
}

impl Greeting {
    fn encode(surroundings: &Surroundings) -> Vec<u8> {
        [&image::build_id()[..], &surroundings.encode()].concat()
    }

    pub(crate) fn decode(text: &[u8]) -> Option<Self> {
        let (build, rest) = text.split_first_chunk()?;
        Some(Self {
            build: *build,
            surroundings: Surroundings::decode(rest)?,
        })
    }
}
