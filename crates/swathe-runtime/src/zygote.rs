//! The zygote: a small process that starts workers, reaps them, and reports both.
//!
//! It is the program's own executable, started anew, so that it knows the same tasks; it never gets past
//! [`init`]. Workers die with it (parent-death signal), it dies with the parent (the parent's pidfd and the socket).
//! Before it goes of its own accord it kills those that are left: a worker that has changed its user, or has disarmed the
//! signal, would outlive it.
//!
//! It forks workers while it has one thread. Where a library has started threads before `main` it starts each worker by
//! exec instead: the same program once more, which gets its place in the pool over descriptor 0.

use std::{
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use swathe_memory::{Segment, SegmentId};
use swathe_os::{
    AsFd, Descriptor, constructors, cores, descriptors, futex, image, memory_limits, own_threads,
    process::{self, ExitCause, Forked, Pidfd, Reaped},
    signals::{self, Mask},
    socket::Socket,
    spawn::{self, Program},
};

use crate::{
    error::EngineError,
    host::{self, Host, host},
    shared::{
        control::Control,
        memory,
        messages::{Message, MessageKind},
        plan::WorkerPlan,
    },
    supervisor::recipe::Greeting,
    worker,
};

/// Set in the environment of a process that a pool starts: the id of the process that started it.
pub(crate) const MARKER: &str = "SWATHE_ZYGOTE";
/// What a zygote is called.
pub(crate) const NAME: &str = "swathe-zygote";

static INITIALIZED: AtomicBool = AtomicBool::new(false);
/// Threads that the program had started when it called [`init`].
static EARLIER_THREADS: OnceLock<Vec<String>> = OnceLock::new();

/// Makes this program able to start workers. Call it on the first line of `main`: in a worker it never returns.
///
/// Threads that the program has started before are the reason for which `build()` then fails: workers would start them too.
/// (Threads of libraries that were there before `main` are borne.)
///
/// Calling it twice does no harm. It serves nobody but the process that has started this one, if that is of the same user
/// and group and runs the same build; in a program with raised privileges (set-uid, set-gid, file capabilities) it serves
/// nobody at all.
pub fn init() {
    // A program that knows what it does has said so: see `init_with`.
    if !host::is_set() {
        EARLIER_THREADS.get_or_init(own_threads::names);
    }
    if INITIALIZED.swap(true, Ordering::SeqCst) {
        return;
    }
    let Some(value) = std::env::var_os(MARKER) else {
        return;
    };
    let named = value.to_str().and_then(|value| value.parse().ok());
    let code = match named.map_or(Caller::Nobody, caller) {
        Caller::Nobody => return,
        Caller::Gone => 0,
        Caller::Stranger(why) => {
            eprintln!("swathe: this process starts no workers for whoever started it: {why}");
            1
        }
        // Nobody's panic must get to the program's `main`.
        Caller::Parent(id) => match std::panic::catch_unwind(|| serve(id)) {
            Ok(Ok(())) => 0,
            Ok(Err(e)) => {
                eprintln!("swathe: the process that starts workers cannot go on: {e}");
                1
            }
            Err(_) => 101,
        },
    };
    host().exit(code)
}

/// As [`init`], in a program that must do things of its own when its workers are started and ended. Call it in place of
/// `init`, on the first line of `main`.
pub fn init_with(host: &'static dyn Host) {
    host::set(host);
    init();
}

/// Whether [`init`] was called in this process.
pub fn is_initialized() -> bool {
    INITIALIZED.load(Ordering::SeqCst)
}

/// Fails if the program may not build pools.
///
/// # Errors
/// If [`init`] was not called, or too late.
pub(crate) fn check_initialized() -> Result<(), EngineError> {
    if !is_initialized() {
        return Err(EngineError::NotInitialized);
    }
    match EARLIER_THREADS.get().filter(|threads| !threads.is_empty()) {
        Some(threads) => Err(EngineError::LateInit {
            threads: threads.clone(),
        }),
        None => Ok(()),
    }
}

/// Who has started this process, and may want to be served.
enum Caller {
    /// Not a pool: the marker was left over in the environment.
    Nobody,
    /// The process that greets.
    Parent(u32),
    /// A pool's process that is gone already.
    Gone,
    /// Somebody who has no right to it.
    Stranger(&'static str),
}

/// The marker names a process. Descriptor 0 must be a socket that this very process has made, and it must be the parent.
fn caller(named: u32) -> Caller {
    let Ok(peer) = begin::stdin_peer() else {
        return Caller::Nobody;
    };
    let parent = process::parent_pid();
    // Across process namespaces ids do not agree; both are 0 for a parent outside of this one.
    if peer.pid != named && (peer.pid, parent) != (0, 0) {
        return Caller::Nobody;
    }
    if process::has_raised_privileges() {
        return Caller::Stranger("it has raised privileges (set-uid, set-gid or capabilities)");
    }
    if (peer.uid, peer.gid) != process::user_and_group() {
        return Caller::Stranger("that process belongs to another user or group");
    }
    if peer.pid != parent {
        return Caller::Gone;
    }
    Caller::Parent(parent)
}

/// The first acts of a process that a pool has started, when nothing of the program has run and no descriptor has an owner; and
/// how it multiplies.
mod begin {
    #![expect(
        unsafe_code,
        reason = "descriptors that nobody owns yet are closed, descriptor 0 is taken, and the process is forked"
    )]

    use std::{io, os::fd::BorrowedFd};

    use swathe_os::{
        descriptors,
        process::{self, Forked},
        socket::{Peer, Socket, peer_of},
    };

    /// Who made the socket on descriptor 0, if it is one.
    pub(super) fn stdin_peer() -> io::Result<Peer> {
        // SAFETY: borrowed for this call; if it is not open that is an error.
        peer_of(unsafe { BorrowedFd::borrow_raw(0) })
    }

    /// The socket on descriptor 0. No other descriptor above 2 is open afterwards, and 0 to 2 are.
    pub(super) fn only_socket() -> io::Result<Socket> {
        // SAFETY: this is the first line of the program, or a constructor: what is open was inherited, and has no owner.
        unsafe { descriptors::take_stdin_and_close_rest() }.map(Socket::from)
    }

    /// Forks this zygote, to make a worker.
    pub(super) fn fork() -> io::Result<Forked> {
        // SAFETY: the zygote runs no code of users but `Host::prepare`, and has no arrays: of what both processes map it
        // writes only words, which are atomics. The child gives up the zygote's socket and its handle of the parent at once.
        unsafe { process::fork() }
    }
}

/// A worker of this zygote.
struct Child {
    slot: u64,
    incarnation: u64,
    pid: u32,
}

/// A worker's place in its pool.
struct Place {
    slot: u64,
    incarnation: u64,
    line: Socket,
}

struct Zygote {
    plan: WorkerPlan,
    greeting: [u64; 7],
    socket: Socket,
    parent: Option<Pidfd>,
    parent_id: u32,
    id: u32,
    children: Vec<Child>,
    stopping: Option<Instant>,
    /// How to start a worker where forking is not allowed.
    program: Option<Program>,
}

/// How long after SIGTERM a worker gets SIGKILL.
const TERM_PATIENCE: Duration = Duration::from_millis(200);
/// How often a zygote that cannot watch its parent asks who it is.
const LOOK_FOR_PARENT: Duration = Duration::from_millis(100);

/// What a turn of the zygote's loop leads to.
enum Turn {
    /// Another turn.
    Again,
    /// The end: the parent is gone, or wants it.
    End,
    /// This process is a new worker.
    Worker(Place),
}

fn serve(parent_id: u32) -> io::Result<()> {
    // Signals first: they are blocked since the start, and some may be waiting.
    signals::reset();
    signals::leave_group_signals_to_parent();
    let socket = begin::only_socket()?;
    process::remove_variable(MARKER);
    let other = |text: String| io::Error::other(text);
    let Some(mut hello) = Message::receive(&socket)? else {
        return Ok(());
    };
    let employed = match (hello.kind, hello.fds.len()) {
        (MessageKind::Hello, 2 | 3) => false,
        (MessageKind::Employ, 3) => true,
        _ => return Err(other("the first message is no greeting".into())),
    };
    let last = (hello.fds.len() == 3).then(|| hello.fds.pop()).flatten();
    let data = attach(&mut hello, 2).map_err(other)?;
    let control = attach(&mut hello, 0).map_err(other)?;
    let control = Control::lay(control, hello.words[4] as usize).map_err(|e| other(e.to_string()))?;
    let plan = WorkerPlan::decode(Arc::new(control), data, hello.words[5], hello.words[6]).map_err(other)?;
    if employed {
        let place = place(&hello.text, last).ok_or_else(|| other("a worker was given no place".into()))?;
        drop(socket);
        constructors::run_rest();
        // The program was started once more, and so was a runtime in it that binds the main thread.
        cores::unbind_thread();
        host().prepare().map_err(other)?;
        become_worker(plan, place, parent_id);
    }
    let greeting = Greeting::decode(&hello.text).ok_or_else(|| other("the greeting is cut short".into()))?;
    if greeting.build != image::build_id() {
        return Err(other("the parent runs another build of this program".into()));
    }
    greeting.surroundings.restore();
    // A limit below what a worker itself has open would start none. Where it cannot be raised orders say what is short.
    let _ = descriptors::make_room_for(0);
    // Now, because they may start threads.
    constructors::run_rest();
    if let Err(why) = host().prepare() {
        return Message::new(MessageKind::Refused, &[])
            .with_text(why.as_bytes())
            .send(&socket, &[]);
    }
    // Where memory is short the kernel should end a worker, whose element is done again, and not the parent.
    memory_limits::offer_to_oom_killer();
    process::set_name(NAME);
    let program = match process::has_one_thread() {
        true => None,
        false => Some(own_program()),
    };
    signals::notice_children();
    signals::block_only(Mask::empty().with(signals::CHILD));
    let threads = match program {
        Some(_) => process::thread_names().get(1..).unwrap_or_default().join("\n"),
        None => String::new(),
    };
    let ready = [&image::build_id()[..], threads.as_bytes()].concat();
    Message::new(MessageKind::Ready, &[])
        .with_text(&ready)
        .send(&socket, &[])?;
    // Each worker would otherwise look for the kernel's clock. It inherits where that is.
    let _ = process::monotonic_ns();
    let zygote = Zygote {
        plan,
        greeting: hello.words,
        socket,
        parent: last.map(Pidfd::from),
        parent_id,
        // A worker learns it from here: if it asked who its parent is, the zygote might be gone by then.
        id: std::process::id(),
        children: Vec::new(),
        stopping: None,
        program,
    };
    zygote.run()
}

/// This program once more, as it was started, with a mark for a process that this one starts.
fn own_program() -> Program {
    let add = [(MARKER.to_owned(), std::process::id().to_string())];
    Program {
        file: c"/proc/self/exe".to_owned(),
        args: spawn::own_arguments(),
        env: spawn::environment(|_| false, &add),
    }
}

/// Slot, incarnation and line of a worker that is started by exec.
fn place(text: &[u8], line: Option<Descriptor>) -> Option<Place> {
    let ([slot, incarnation], []) = text.as_chunks::<8>() else {
        return None;
    };
    Some(Place {
        slot: u64::from_le_bytes(*slot),
        incarnation: u64::from_le_bytes(*incarnation),
        line: Socket::from(line?),
    })
}

/// From here on this process is a worker, of the zygote that is its parent now.
fn become_worker(plan: WorkerPlan, place: Place, zygote: u32) -> ! {
    signals::forget_children();
    signals::end_on_parents_sigterm();
    signals::block_only(Mask::empty());
    if !process::die_with_parent(zygote) {
        std::process::exit(1);
    }
    worker::main(
        plan,
        place.slot as usize,
        place.incarnation as u32,
        place.line,
        zygote,
    )
}

/// Maps the last descriptor of the greeting; its id and length are the words at `at`.
fn attach(hello: &mut Message, at: usize) -> Result<Arc<Segment>, String> {
    let fd = hello
        .fds
        .pop()
        .ok_or("the greeting carries too few descriptors")?;
    let (id, len) = (SegmentId::from_bits(hello.words[at]), hello.words[at + 1]);
    memory::attach(id, fd, len as usize).map_err(|e| e.to_string())
}

impl Zygote {
    /// Until the parent is gone or wants the end. In a new worker it does not return.
    fn run(mut self) -> io::Result<()> {
        loop {
            match self.turn() {
                Ok(Turn::Again) => {}
                Ok(Turn::End) => {
                    self.kill_all();
                    return Ok(());
                }
                Ok(Turn::Worker(place)) => {
                    // A worker must not hold the zygote's descriptors: they would hide the zygote's death.
                    let Self {
                        plan,
                        socket,
                        parent,
                        id,
                        ..
                    } = self;
                    drop((socket, parent));
                    become_worker(plan, place, id);
                }
                Err(e) => {
                    self.kill_all();
                    // A parent that is gone need not be told anything.
                    return match e.kind() {
                        io::ErrorKind::BrokenPipe => Ok(()),
                        _ => Err(e),
                    };
                }
            }
        }
    }

    fn turn(&mut self) -> io::Result<Turn> {
        if self.stopping.is_some() && self.children.is_empty() {
            return Ok(Turn::End);
        }
        let hurry = self.stopping.map(|_| Duration::from_millis(5));
        let look = self.parent.is_none().then_some(LOOK_FOR_PARENT);
        let fds: Vec<_> = [self.socket.as_fd()]
            .into_iter()
            .chain(self.parent.iter().map(AsFd::as_fd))
            .collect();
        // The end of a child comes as a signal, which is let in only here.
        let ready = process::poll_or_signal(&fds, hurry.into_iter().chain(look).min(), Mask::empty())?;
        let parent_is_gone = match ready.get(1) {
            Some(gone) => *gone,
            None => process::parent_pid() != self.parent_id,
        };
        if parent_is_gone {
            return Ok(Turn::End);
        }
        self.reap()?;
        let turn = match ready[0] {
            true => self.obey()?,
            false => Turn::Again,
        };
        self.hurry();
        Ok(turn)
    }

    fn reap(&mut self) -> io::Result<()> {
        loop {
            match process::reap_one() {
                // A child that is none of ours was a constructor's.
                Ok(Some(reaped)) => self.report(reaped)?,
                Ok(None) => return Ok(()),
                Err(_) => break,
            }
        }
        // There are no children at all. Whom this process still counts among them somebody else has reaped.
        while let Some(child) = self.children.pop() {
            self.tell_death(&child, (2, 0), 0)?;
        }
        Ok(())
    }

    fn report(&mut self, reaped: Reaped) -> io::Result<()> {
        let Some(at) = self.children.iter().position(|child| child.pid == reaped.pid) else {
            return Ok(());
        };
        let child = self.children.swap_remove(at);
        let how = match reaped.exit.cause {
            ExitCause::Code(code) => (0, code as u64),
            ExitCause::Signal(signal) => (1, signal as u64),
            _ => (2, 0),
        };
        self.tell_death(&child, how, reaped.exit.peak_kib)
    }

    fn tell_death(&self, child: &Child, (by, number): (u64, u64), peak_kib: u64) -> io::Result<()> {
        let words = [
            child.slot,
            child.incarnation,
            u64::from(child.pid),
            by,
            number,
            peak_kib,
        ];
        Message::new(MessageKind::Died, &words).send(&self.socket, &[])
    }

    /// One message from the parent.
    fn obey(&mut self) -> io::Result<Turn> {
        let Some(mut message) = Message::receive(&self.socket)? else {
            return Ok(Turn::End);
        };
        let [slot, incarnation, ..] = message.words;
        match message.kind {
            MessageKind::Fork => {
                let Some(line) = message.fds.pop() else {
                    // It came with the order, and there was no room for it here. There is for the next order's.
                    let _ = descriptors::make_room_for(1);
                    let text = b"a worker could not be started: no descriptor was free for its socket";
                    let failed = Message::new(MessageKind::ForkFailed, &[slot, incarnation]);
                    failed.with_text(text).send(&self.socket, &[])?;
                    return Ok(Turn::Again);
                };
                return self.start(Place {
                    slot,
                    incarnation,
                    line: Socket::from(line),
                });
            }
            MessageKind::Kill => self
                .children
                .iter()
                .filter(|child| (child.slot, child.incarnation) == (slot, incarnation))
                .for_each(|child| process::kill_child(child.pid)),
            MessageKind::Ping => Message::new(MessageKind::Pong, &[]).send(&self.socket, &[])?,
            MessageKind::Stop => {
                self.stopping
                    .get_or_insert(Instant::now() + Duration::from_millis(message.words[0]));
            }
            _ => {
                return Err(io::Error::other(
                    "the parent sent what a zygote does not understand",
                ));
            }
        }
        Ok(Turn::Again)
    }

    /// Starts a worker, and tells the parent. What is short now may be there a moment later: that is the parent's business.
    fn start(&mut self, place: Place) -> io::Result<Turn> {
        let (slot, incarnation) = (place.slot, place.incarnation);
        let started = match &self.program {
            None => {
                host().before_fork();
                let forked = begin::fork();
                match forked {
                    Ok(Forked::Child) => host().after_fork_in_child(),
                    _ => host().after_fork_in_parent(),
                }
                match forked {
                    Ok(Forked::Child) => return Ok(Turn::Worker(place)),
                    Ok(Forked::Parent(pid)) => Ok(pid),
                    Err(e) => Err(e),
                }
            }
            Some(program) => self.exec(program, &place),
        };
        match started {
            Ok(pid) => {
                let pidfd = Pidfd::open(pid).ok();
                let fds: Vec<_> = pidfd.iter().map(AsFd::as_fd).collect();
                Message::new(MessageKind::Forked, &[slot, incarnation, u64::from(pid)])
                    .send(&self.socket, &fds)?;
                self.announce(slot, pid);
                self.children.push(Child {
                    slot,
                    incarnation,
                    pid,
                });
            }
            Err(e) => {
                let text = format!("a worker could not be started: {e}");
                Message::new(MessageKind::ForkFailed, &[slot, incarnation])
                    .with_text(text.as_bytes())
                    .send(&self.socket, &[])?;
            }
        }
        Ok(Turn::Again)
    }

    /// The program once more. What it must know waits for it in its socket.
    fn exec(&self, program: &Program, place: &Place) -> io::Result<u32> {
        let (ours, theirs) = Socket::pair()?;
        let (control, data) = (&self.plan.control.segment, &self.plan.data);
        let text = [place.slot.to_le_bytes(), place.incarnation.to_le_bytes()].concat();
        Message::new(MessageKind::Employ, &self.greeting)
            .with_text(&text)
            .send(
                &ours,
                &[
                    memory::descriptor(control),
                    memory::descriptor(data),
                    place.line.as_fd(),
                ],
            )?;
        Ok(program.start(&theirs, None)?.pid())
    }

    /// The parent will hear of this worker, whatever happens to the zygote now: it may begin.
    fn announce(&self, slot: u64, pid: u32) {
        if let Some(slot) = self.plan.control.slots.get(slot as usize) {
            slot.pid.store(pid, Ordering::Release);
            futex::wake(&slot.pid, 1);
        }
    }

    fn kill_all(&self) {
        self.children
            .iter()
            .for_each(|child| process::kill_child(child.pid));
    }

    /// Ends the workers that have not ended in time: SIGTERM first, SIGKILL after some patience.
    fn hurry(&self) {
        let Some(late) = self
            .stopping
            .and_then(|at| Instant::now().checked_duration_since(at))
        else {
            return;
        };
        if late < TERM_PATIENCE {
            self.children
                .iter()
                .for_each(|child| process::terminate_child(child.pid));
        } else {
            self.kill_all();
        }
    }
}
