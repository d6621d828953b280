//! The zygote: a small process with one thread that forks workers, reaps them, and reports both.
//!
//! It is the program's own executable, started anew, so that it knows the same tasks; it never gets past
//! [`init`]. Workers die with it (parent-death signal), it dies with the parent (the parent's pidfd and the socket).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use swathe_memory::{Access, Segment, SegmentId};
use swathe_os::{
    AsFd, futex, image,
    process::{self, ExitCause, Forked, Pidfd},
    socket::Socket,
};

use crate::{
    control::Control,
    wire::{Kind, Message},
    worker,
};

/// Set in a zygote's environment, and nowhere else.
pub(crate) const MARKER: &str = "SWATHE_ZYGOTE";

static INITIALIZED: AtomicBool = AtomicBool::new(false);

/// Makes this program able to start workers. Call it on the first line of `main`: in a worker it never returns.
///
/// Calling it twice does no harm.
pub fn init() {
    if INITIALIZED.swap(true, Ordering::SeqCst) || std::env::var_os(MARKER).is_none() {
        return;
    }
    process::remove_variable(MARKER);
    let code = match serve() {
        Ok(()) => 0,
        Err(e) => {
            eprintln!("swathe: the process that starts workers cannot go on: {e}");
            1
        }
    };
    std::process::exit(code);
}

/// Whether [`init`] was called in this process.
pub fn is_initialized() -> bool {
    INITIALIZED.load(Ordering::SeqCst)
}

/// A forked worker.
struct Child {
    slot: u64,
    incarnation: u64,
    pid: u32,
    pidfd: Pidfd,
}

struct Zygote {
    control: Arc<Control>,
    socket: Socket,
    parent: Pidfd,
    children: Vec<Child>,
    stopping: Option<Instant>,
}

/// How long after SIGTERM a worker gets SIGKILL.
const TERM_PATIENCE: Duration = Duration::from_millis(200);

/// What a turn of the zygote's loop leads to.
enum Turn {
    /// Another turn.
    Again,
    /// The end: the parent is gone, or wants it.
    End,
    /// This process is a new worker.
    Worker {
        slot: u64,
        incarnation: u64,
        line: Socket,
    },
}

fn serve() -> std::io::Result<()> {
    let socket = Socket::from(process::take_stdin_and_close_rest()?);
    let parent = Pidfd::open(process::parent_pid())?;
    process::set_name("swathe-zygote");
    process::ignore_interrupt();
    let other = |text: String| std::io::Error::other(text);
    let mut hello = match Message::receive(&socket)? {
        Some(hello) if hello.kind == Kind::Hello && hello.fds.len() == 2 => hello,
        Some(_) => return Err(other("the first message is no greeting".into())),
        None => return Ok(()),
    };
    let data = attach(&mut hello, 2).map_err(other)?;
    let control = attach(&mut hello, 0).map_err(other)?;
    let control = Control::lay(control, hello.words[4] as usize).map_err(|e| other(e.to_string()))?;
    let plan =
        worker::Plan::decode(Arc::new(control), data, hello.words[5], hello.words[6]).map_err(other)?;
    Message::new(Kind::Ready, &[])
        .with_text(&image::build_id())
        .send(&socket, &[])?;
    let zygote = Zygote {
        control: plan.control.clone(),
        socket,
        parent,
        children: Vec::new(),
        stopping: None,
    };
    // A new worker has dropped the zygote's descriptors by then: held, they would hide the zygote's death.
    match zygote.run()? {
        Some((slot, incarnation, line)) => worker::main(plan, slot as usize, incarnation as u32, line),
        None => Ok(()),
    }
}

/// Maps the last descriptor of the greeting; its id and length are the words at `at`.
fn attach(hello: &mut Message, at: usize) -> Result<Arc<Segment>, String> {
    let fd = hello
        .fds
        .pop()
        .ok_or("the greeting carries too few descriptors")?;
    let (id, len) = (SegmentId::from_bits(hello.words[at]), hello.words[at + 1]);
    Segment::attach(id, fd, len as usize, Access::ReadWrite).map_err(|e| e.to_string())
}

impl Zygote {
    /// `Some` in a new worker: its slot, incarnation and line to the parent.
    fn run(mut self) -> std::io::Result<Option<(u64, u64, Socket)>> {
        loop {
            if self.stopping.is_some() && self.children.is_empty() {
                return Ok(None);
            }
            let timeout = self.stopping.map(|_| Duration::from_millis(5));
            let ready = {
                let mut fds = vec![self.socket.as_fd(), self.parent.as_fd()];
                fds.extend(self.children.iter().map(|child| child.pidfd.as_fd()));
                process::poll(&fds, timeout)?
            };
            if ready[1] {
                return Ok(None); // The workers' parent-death signal does the rest.
            }
            self.reap(&ready[2..])?;
            if ready[0] {
                match self.obey()? {
                    Turn::Again => {}
                    Turn::End => return Ok(None),
                    Turn::Worker {
                        slot,
                        incarnation,
                        line,
                    } => return Ok(Some((slot, incarnation, line))),
                }
            }
            self.hurry();
        }
    }

    fn reap(&mut self, ended: &[bool]) -> std::io::Result<()> {
        let mut index = 0;
        let mut flags = ended.iter();
        while index < self.children.len() {
            let child = &self.children[index];
            let exit = flags
                .next()
                .copied()
                .unwrap_or(false)
                .then(|| process::reap(child.pid))
                .flatten();
            let Some(exit) = exit else {
                index += 1;
                continue;
            };
            let (by_signal, number) = match exit.cause {
                ExitCause::Code(code) => (0, code as u64),
                ExitCause::Signal(signal) => (1, signal as u64),
                ExitCause::Unknown => (2, 0),
            };
            let words = [
                child.slot,
                child.incarnation,
                u64::from(child.pid),
                by_signal,
                number,
                exit.peak_kib,
            ];
            Message::new(Kind::Died, &words).send(&self.socket, &[])?;
            self.children.remove(index);
        }
        Ok(())
    }

    /// One message from the parent.
    fn obey(&mut self) -> std::io::Result<Turn> {
        let Some(mut message) = Message::receive(&self.socket)? else {
            return Ok(Turn::End);
        };
        match message.kind {
            Kind::Fork => {
                let Some(line) = message.fds.pop() else {
                    return Err(std::io::Error::other(
                        "an order to fork lacks the worker's socket",
                    ));
                };
                self.fork(message.words[0], message.words[1], Socket::from(line))
            }
            Kind::Stop => {
                self.stopping
                    .get_or_insert(Instant::now() + Duration::from_millis(message.words[0]));
                Ok(Turn::Again)
            }
            _ => Err(std::io::Error::other(
                "the parent sent what a zygote does not understand",
            )),
        }
    }

    fn fork(&mut self, slot: u64, incarnation: u64, line: Socket) -> std::io::Result<Turn> {
        let zygote = std::process::id();
        match process::fork() {
            Ok(Forked::Child) => {
                if !process::die_with_parent(zygote) {
                    std::process::exit(1);
                }
                return Ok(Turn::Worker {
                    slot,
                    incarnation,
                    line,
                });
            }
            Ok(Forked::Parent(pid)) => {
                let pidfd = Pidfd::open(pid)?;
                Message::new(Kind::Forked, &[slot, incarnation, u64::from(pid)])
                    .send(&self.socket, &[pidfd.as_fd()])?;
                self.announce(slot, pid);
                self.children.push(Child {
                    slot,
                    incarnation,
                    pid,
                    pidfd,
                });
            }
            Err(e) => {
                let text = format!("a worker could not be forked: {e}");
                Message::new(Kind::ForkFailed, &[slot, incarnation])
                    .with_text(text.as_bytes())
                    .send(&self.socket, &[])?;
            }
        }
        Ok(Turn::Again)
    }

    /// The parent will hear of this worker, whatever happens to the zygote now: it may begin.
    fn announce(&self, slot: u64, pid: u32) {
        if let Some(slot) = self.control.slots.get(slot as usize) {
            slot.pid.store(pid, Ordering::Release);
            futex::wake(&slot.pid, 1);
        }
    }

    /// Ends the workers that have not ended in time: SIGTERM first, SIGKILL after some patience.
    fn hurry(&self) {
        let Some(late) = self
            .stopping
            .and_then(|at| Instant::now().checked_duration_since(at))
        else {
            return;
        };
        for child in &self.children {
            if late < TERM_PATIENCE {
                child.pidfd.terminate();
            } else {
                child.pidfd.kill();
            }
        }
    }
}
