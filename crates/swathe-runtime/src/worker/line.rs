//! A worker's line to its parent: the few things that are not in shared memory are asked for here.

use parking_lot::Mutex;
use std::{
    ffi::OsString,
    io,
    os::unix::ffi::OsStringExt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use swathe_memory::{Access, SegmentId, registry};
use swathe_os::{Descriptor, descriptors, socket::Socket};

use crate::{
    shared::{
        memory,
        messages::{Message, MessageKind},
    },
    worker::code,
};

/// A worker's line to the parent, for the few things that are not in shared memory. Shared with user threads of the
/// worker, hence the lock; one question, one answer.
///
/// A task may close descriptors that it does not own. Then the number may stand for something of the task's by now, which
/// must not be written to: so it is looked at before it is used.
#[derive(Debug)]
pub(crate) struct ParentLine(Mutex<Socket>);

impl ParentLine {
    pub(crate) fn new(socket: Socket) -> Self {
        Self(Mutex::new(socket))
    }

    /// Says something that needs no answer. A parent that is gone need not know it.
    pub(crate) fn tell(&self, message: &Message) {
        let socket = self.0.lock();
        if socket.is_ours() {
            let _ = message.send(&socket, &[]);
        }
    }

    /// Asks, and waits for the answer. A parent that is gone ends this process.
    pub(crate) fn ask(&self, question: &Message) -> Result<Message, String> {
        let socket = self.0.lock();
        if !socket.is_ours() {
            return Err(
                "a task or an initializer has closed the descriptor by which this worker speaks to its pool"
                    .to_owned(),
            );
        }
        let answer = question
            .send(&socket, &[])
            .and_then(|()| Message::receive(&socket));
        match answer {
            Ok(Some(answer)) if answer.kind == MessageKind::Refused => {
                Err(String::from_utf8_lossy(&answer.text).into())
            }
            Ok(Some(answer)) => Ok(answer),
            // There is nobody left to work for.
            Ok(None) => std::process::exit(1),
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => std::process::exit(1),
            Err(e) => Err(format!("the worker could not talk to its parent: {e}")),
        }
    }
}

pub(crate) fn ask_parent_for_unknown_segments(line: &Arc<ParentLine>) {
    let line = line.clone();
    memory::ask_for_unknown_segments(Box::new(move |id: SegmentId| {
        let (fd, answer) = ask_for_segment(&line, id)?;
        let access = if answer.words[1] == 0 {
            Access::ReadOnly
        } else {
            Access::ReadWrite
        };
        Ok((fd, answer.words[0] as usize, access))
    }));
}

/// A descriptor that comes while no number is free is lost, and its message comes without: then room is made, and it is asked
/// for once more.
fn ask_for_segment(line: &ParentLine, id: SegmentId) -> Result<(Descriptor, Message), String> {
    /// What tasks hold open may be closed by another of their threads.
    const TRIES: u32 = 20;
    const APART: Duration = Duration::from_millis(10);
    /// It was in vain the last time: then nobody waits.
    static IN_VAIN: AtomicBool = AtomicBool::new(false);
    let tries = if IN_VAIN.load(Ordering::Relaxed) { 2 } else { TRIES };
    for again in 0..tries {
        let mut answer = line.ask(&Message::new(MessageKind::WantSegment, &[id.to_bits()]))?;
        if let Some(fd) = answer.fds.pop() {
            IN_VAIN.store(false, Ordering::Relaxed);
            return Ok((fd, answer));
        }
        if descriptors::make_room_for(1).is_err() {
            registry::release_kept();
        }
        if again > 0 && tries == TRIES {
            std::thread::sleep(APART);
        }
    }
    IN_VAIN.store(true, Ordering::Relaxed);
    Err(format!(
        "its memory cannot be had, because worker process {} has every descriptor open that it may (RLIMIT_NOFILE): have \
         tasks close files, or raise the hard limit (`ulimit -Hn`) before the pool is built",
        std::process::id()
    ))
}

pub(crate) fn ask_parent_for_unknown_code(line: &Arc<ParentLine>) {
    let line = line.clone();
    code::ask_for_unknown_objects(Box::new(move |object| {
        let answer = line.ask(&Message::new(MessageKind::WantObject, &[object]))?;
        Ok(OsString::from_vec(answer.text).into())
    }));
}
