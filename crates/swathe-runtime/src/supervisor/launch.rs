//! Starting a zygote: what may pass is tried again, what will not is said at once.

use std::{
    fmt, io,
    time::{Duration, Instant},
};

use swathe_os::{
    AsFd, image,
    process::{self, ExitCause},
    socket::Socket,
    spawn::Started,
};

use crate::{
    parent::core::Core,
    shared::messages::{Message, MessageKind},
    supervisor::recipe::{NAME_IT, Recipe},
};

/// How often in a row a zygote may crash.
const CRASHES: u32 = 3;
/// Signals that a program gets for what it does itself.
const CRASH_SIGNALS: [i32; 7] = [4, 5, 6, 7, 8, 11, 31];
/// How long a killed zygote may take to be gone.
const END: Duration = Duration::from_secs(1);
/// The first and the longest pause before a process is tried again that could not be started.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(200));

/// A zygote, from its start on.
pub(crate) struct Zygote {
    process: Started,
    pub(crate) socket: Socket,
    /// Whether it has answered the greeting.
    pub(crate) ready: bool,
    pub(crate) started: Instant,
    /// When it was asked whether it still answers; none if it has said anything since.
    pub(crate) asked: Option<Instant>,
    /// Threads that it had from the start, by name: then it does not fork.
    pub(crate) threads: Vec<String>,
}

impl Zygote {
    /// Starts one. It is ready when it says so.
    pub(crate) fn start(core: &Core, recipe: &Recipe) -> io::Result<Self> {
        let (process, socket) = recipe.start(core)?;
        Ok(Self {
            process,
            socket,
            ready: false,
            started: Instant::now(),
            asked: None,
            threads: Vec::new(),
        })
    }

    /// Starts one, and waits until it is ready. A shortage, and a signal that has ended it, may pass within `patience`.
    pub(crate) fn start_ready(core: &Core, recipe: &Recipe, patience: Duration) -> Result<Self, String> {
        let until = Instant::now() + patience;
        let mut backoff = Backoff::default();
        let mut crashes = 0;
        loop {
            let loss = match Self::start(core, recipe) {
                Err(e) => Loss::at_start(&e),
                Ok(mut zygote) => match zygote.await_ready(until) {
                    Ok(()) => return Ok(zygote),
                    Err(Some(text)) => return Err(text),
                    Err(None) => zygote.end(),
                },
            };
            crashes += u32::from(loss.is_crash());
            let pause = backoff.fail();
            if loss.is_final(crashes) || Instant::now() + pause > until {
                return Err(loss.to_string());
            }
            std::thread::sleep(pause);
        }
    }

    /// `None` for an error: it has ended.
    fn await_ready(&mut self, until: Instant) -> Result<(), Option<String>> {
        let left = until.saturating_duration_since(Instant::now());
        let answered = process::poll(&[self.socket.as_fd()], Some(left)).is_ok_and(|ready| ready[0]);
        if !answered {
            return Err(Some(
                "the process that starts workers did not answer; is it stopped?".to_owned(),
            ));
        }
        match Message::receive(&self.socket) {
            Ok(Some(message)) => self.hear_ready(&message).map_err(Some),
            Ok(None) | Err(_) => Err(None),
        }
    }

    /// What it says when it is ready.
    pub(crate) fn hear_ready(&mut self, message: &Message) -> Result<(), String> {
        if message.kind == MessageKind::Refused {
            let why = String::from_utf8_lossy(&message.text);
            return Err(format!(
                "the program could not prepare itself to start workers: {why}"
            ));
        }
        let text = message.text.split_first_chunk::<{ image::BUILD_ID_LEN }>();
        let Some((build, threads)) = text.filter(|_| message.kind == MessageKind::Ready) else {
            return Err("the process that starts workers gave an answer that is none".to_owned());
        };
        if *build != image::build_id() {
            return Err("the executable was replaced by another build while it ran".to_owned());
        }
        let threads = String::from_utf8_lossy(threads);
        self.threads = threads.lines().map(str::to_owned).collect();
        if !self.threads.is_empty() {
            tracing::warn!(
                threads = ?self.threads,
                "libraries have started threads before main: workers are started by exec, which takes longer than a fork"
            );
        }
        self.ready = true;
        Ok(())
    }

    /// Time in which nobody watched does not count.
    pub(crate) fn grant(&mut self, lost: Duration) {
        self.started += lost;
        if let Some(asked) = &mut self.asked {
            *asked += lost;
        }
    }

    /// Kills it. One that this process may not signal ends when its socket does.
    pub(crate) fn kill(&mut self) {
        if !self.process.kill() {
            self.socket.shut_down();
        }
    }

    /// Makes sure that it has ended. Gives how.
    pub(crate) fn end(&mut self) -> Loss {
        // It may be about to end by itself: how is known then.
        let exit = self.process.wait(END / 50).or_else(|| {
            self.kill();
            self.process.wait(END)
        });
        Loss {
            what: match self.ready {
                true => "the process that starts workers was lost",
                false => "the process that starts workers ended before it was ready",
            },
            cause: exit.map_or(ExitCause::Unknown, |exit| exit.cause),
            was_ready: self.ready,
            error: None,
        }
    }
}

/// Nobody else waits for it.
impl Drop for Zygote {
    fn drop(&mut self) {
        if self.process.try_wait().is_none() {
            self.kill();
            self.end();
        }
    }
}

/// Why there is no zygote.
#[derive(Debug)]
pub(crate) struct Loss {
    what: &'static str,
    cause: ExitCause,
    was_ready: bool,
    /// Why it could not be started.
    error: Option<(String, bool)>,
}

impl Loss {
    pub(crate) fn at_start(error: &io::Error) -> Self {
        Self {
            what: "the process that starts workers could not be started",
            cause: ExitCause::Unknown,
            was_ready: false,
            error: Some((error.to_string(), is_shortage(error))),
        }
    }

    /// Whether it was its own fault, which another try is likely to repeat.
    pub(crate) fn is_crash(&self) -> bool {
        matches!(self.cause, ExitCause::Signal(signal) if CRASH_SIGNALS.contains(&signal))
    }

    /// Whether another try makes no sense, after so many crashes.
    pub(crate) fn is_final(&self, crashes: u32) -> bool {
        match (&self.error, self.cause) {
            (Some((_, passes)), _) => !passes,
            // A program that ends before it is ready did not come to `init`, or said why it could not go on.
            (None, ExitCause::Code(_)) => !self.was_ready,
            (None, ExitCause::Signal(_)) => crashes >= CRASHES,
            (None, _) => false,
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)?;
        match (&self.error, self.cause) {
            (Some((text, _)), _) => write!(f, ": {text}"),
            (None, ExitCause::Unknown) => Ok(()),
            (None, cause @ ExitCause::Code(_)) if !self.was_ready => write!(f, ": it {cause}; {NAME_IT}"),
            (None, cause) => write!(f, ": it {cause}"),
        }
    }
}

/// Whether an error says that something is short which may be there a moment later.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    const NOMEM: i32 = 12;
    const AGAIN: i32 = 11;
    const NFILE: i32 = 23;
    const MFILE: i32 = 24;
    const NOBUFS: i32 = 105;
    // Too many descriptors are on their way between processes (unix(7)).
    const TOOMANYREFS: i32 = 109;
    let codes = [NOMEM, AGAIN, NFILE, MFILE, NOBUFS, TOOMANYREFS];
    error.raw_os_error().is_some_and(|code| codes.contains(&code))
}

/// Longer and longer pauses between tries.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    pause: Option<Duration>,
    next: Option<Instant>,
}

impl Backoff {
    /// It failed again. Gives how long to wait.
    pub(crate) fn fail(&mut self) -> Duration {
        let now = Instant::now();
        // Several that fail at once have failed once.
        if let Some(next) = self.next.filter(|next| *next > now) {
            return next - now;
        }
        let pause = self.pause.map_or(PAUSES.0, |pause| (2 * pause).min(PAUSES.1));
        self.pause = Some(pause);
        self.next = Some(now + pause);
        pause
    }

    pub(crate) fn succeed(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn must_wait(&self) -> bool {
        self.next.is_some_and(|next| next > Instant::now())
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.next
    }
}
