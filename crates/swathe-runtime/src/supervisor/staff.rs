//! As many workers as there should be, and a zygote that starts them.

use std::{io, sync::atomic::Ordering, time::Instant};

use swathe_os::{
    process::{ExitCause, Pidfd},
    socket::Socket,
};
use swathe_protocol::Order;

use crate::{
    parent::{core::Core, jobs::State},
    shared::messages::{Message, MessageKind},
    supervisor::{
        Course, ORDERS, Process, Supervisor,
        clock::Watch,
        launch::{Loss, Zygote, is_shortage},
        mark,
    },
};

impl Supervisor {
    /// Starts the processes that should be there, asks those to leave that should not.
    pub(super) fn staff(&mut self, core: &Core, state: &mut State) {
        self.replace_zygote(core, state);
        let mut orders = self
            .processes
            .iter()
            .flatten()
            .filter(|process| process.is_unborn())
            .count();
        for slot in 0..self.processes.len() {
            let wanted = slot < state.target || state.has_order(core, slot);
            match (&self.processes[slot], wanted) {
                (None, true) if orders < ORDERS => {
                    orders += usize::from(self.start_worker(core, slot));
                }
                (Some(_), false) => core.control.parent().retire(slot),
                _ => {}
            }
        }
        self.despair(state);
    }

    /// Starts another zygote if there is none and it is time.
    pub(super) fn replace_zygote(&mut self, core: &Core, state: &mut State) {
        if self.zygote.is_some() || self.backoff.must_wait() {
            return;
        }
        let started = Zygote::start(core, &self.recipe).and_then(|zygote| {
            self.sources.add(&zygote.socket, mark::ZYGOTE)?;
            Ok(zygote)
        });
        match started {
            Ok(zygote) => self.zygote = Some(zygote),
            Err(e) if is_shortage(&e) => self.fall_short(Loss::at_start(&e).to_string()),
            Err(e) => state.break_down(core, Loss::at_start(&e).to_string()),
        }
    }

    /// Something that processes are made of is short. That may pass.
    pub(super) fn fall_short(&mut self, what: String) {
        tracing::debug!(what, "a process could not be started, and is tried again");
        self.backoff.fail();
        let living = |process: &Process| process.pid != 0 && !process.orphan;
        if !self.processes.iter().flatten().any(living) {
            let since = self.nobody.take().map_or_else(Instant::now, |(since, _)| since);
            self.nobody = Some((since, what));
        }
    }

    pub(super) fn despair(&mut self, state: &mut State) {
        if let Some((since, what)) = &self.nobody
            && since.elapsed() > self.limits.start
        {
            let text = format!("no worker could be started for {:?}: {what}", self.limits.start);
            state.break_down(&self.core, text);
        }
    }

    /// When those processes are tried again that could not be started.
    pub(crate) fn next_start(&self) -> Option<Instant> {
        let wanted = self.course == Course::Staffing;
        let waits = self.zygote.is_none() || self.processes.iter().any(Option::is_none);
        // What was due has just been tried.
        let next = self.backoff.next().filter(|next| *next > Instant::now());
        next.filter(|_| wanted && waits)
    }

    /// Gives whether an order is under way.
    pub(super) fn start_worker(&mut self, core: &Core, slot: usize) -> bool {
        let ready = self.zygote.as_ref().filter(|zygote| zygote.ready);
        let (Some(zygote), false) = (ready, self.backoff.must_wait()) else {
            return false;
        };
        let words = &core.control.slots[slot];
        let sent = Socket::pair().and_then(|(line, theirs)| {
            self.sources.add(&line, mark::LINE | slot as u64)?;
            words.renew();
            words.order.clear(Order::Retire);
            // It needs a core from now on.
            core.control.parks[slot].unpark_self();
            let incarnation = words.incarnation.load(Ordering::Relaxed);
            let order = Message::new(MessageKind::Fork, &[slot as u64, u64::from(incarnation)]);
            order.try_send(&zygote.socket, &[swathe_os::AsFd::as_fd(&theirs)])?;
            Ok((line, incarnation))
        });
        match sent {
            Ok((line, incarnation)) => {
                self.processes[slot] = Some(Process {
                    incarnation,
                    pid: 0,
                    pidfd: None,
                    line: Some(line),
                    watch: Watch::new(),
                    kill_reason: None,
                    hit_by_chaos: false,
                    orphan: false,
                });
                true
            }
            Err(e) => {
                core.control.words().vacate(slot);
                // A zygote that is gone is heard of soon, and replaced.
                if e.kind() != io::ErrorKind::BrokenPipe {
                    self.fall_short(format!("a worker could not be started: {e}"));
                }
                false
            }
        }
    }

    /// Everything the zygote has said.
    pub(super) fn hear_zygote(&mut self) {
        while let Some(zygote) = &self.zygote {
            match Message::try_receive(&zygote.socket) {
                Ok(Some(message)) => self.obey_zygote(message),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                // No room for a descriptor that came with a message: the next look may find some.
                Err(e) if is_shortage(&e) => {
                    return self.fall_short(format!("the zygote cannot be heard: {e}"));
                }
                Ok(None) | Err(_) => return self.lose_zygote(),
            }
        }
    }

    pub(super) fn obey_zygote(&mut self, mut message: Message) {
        let Some(zygote) = &mut self.zygote else { return };
        zygote.asked = None;
        match message.kind {
            MessageKind::Ready => match zygote.hear_ready(&message) {
                Ok(()) => self.core.event.raise(),
                Err(text) => self.give_up(text),
            },
            MessageKind::Pong => self.recover_unreported(),
            _ => {}
        }
        let [slot, incarnation, pid, by, number, peak_kib, ..] = message.words;
        let slot = slot as usize;
        let Some(Some(process)) = self.processes.get_mut(slot) else {
            return;
        };
        if u64::from(process.incarnation) != incarnation {
            return;
        }
        match message.kind {
            MessageKind::Forked => {
                process.pid = pid as u32;
                process.pidfd = message.fds.pop().map(Pidfd::from);
                self.backoff.succeed();
                self.nobody = None;
                self.core.state.lock().pids[slot] = Some(pid as u32);
                // More orders may be sent.
                self.core.event.raise();
            }
            MessageKind::ForkFailed => {
                let text = String::from_utf8_lossy(&message.text).into_owned();
                self.forget(slot);
                self.core.control.words().vacate(slot);
                self.fall_short(text);
            }
            MessageKind::Died => {
                let cause = match by {
                    0 => ExitCause::Code(number as i32),
                    1 => ExitCause::Signal(number as i32),
                    _ => ExitCause::Unknown,
                };
                self.lose_worker(slot, pid as u32, cause, Some(peak_kib.saturating_mul(1024)));
            }
            _ => {}
        }
    }
}
