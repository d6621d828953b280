//! What workers ask for and complain of: memory, segments, a job that cannot be run.

use std::{io, os::unix::ffi::OsStrExt, time::Instant};

use swathe_memory::{Access, registry};
use swathe_os::{image, socket::Socket};
use swathe_protocol::JobKey;

use crate::{
    job::End,
    parent::jobs::STOP_GRACE,
    shared::{
        memory,
        messages::{Message, MessageKind, Purpose, WORDS},
    },
    supervisor::Supervisor,
};

impl Supervisor {
    /// A worker asks for something, or has something to say.
    pub(super) fn hear_worker(&mut self, slot: usize) {
        let Some(line) = self.line(slot) else { return };
        let question = match Message::try_receive(line) {
            Ok(Some(question)) => question,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
            // Gone, or talking nonsense, or a task has closed it. It is not heard again: a line that hung up would be ready
            // for ever.
            Ok(None) | Err(_) => return self.lose_line(slot),
        };
        let answer = match question.kind {
            MessageKind::WantBlock => self.grant_block(question.words),
            // It is watched over in the next turn.
            MessageKind::Leaving => return,
            MessageKind::WantSegment => return self.send_segment(slot, question.words[0]),
            MessageKind::WantObject => image::path_of(question.words[0])
                .map(|path| Message::new(MessageKind::Object, &[]).with_text(path.as_os_str().as_bytes())),
            MessageKind::CannotRun => Ok(self.end_job(&question)),
            _ => Err("the parent does not understand the question".to_owned()),
        };
        let answer =
            answer.unwrap_or_else(|why| Message::new(MessageKind::Refused, &[]).with_text(why.as_bytes()));
        // It waits for its answer, so there is room, unless it asks and never reads: then it is not heard any more.
        if answer.try_send(line, &[]).is_err() {
            self.lose_line(slot);
        }
    }

    pub(super) fn lose_line(&mut self, slot: usize) {
        let Some(mut process) = self.processes[slot].take() else {
            return;
        };
        self.hang_up(&mut process);
        process.watch.hung_up.get_or_insert_with(Instant::now);
        self.processes[slot] = Some(process);
        // Whether it still is a worker is looked at in the next turn.
        self.next_look = Some(Instant::now());
    }

    pub(super) fn line(&self, slot: usize) -> Option<&Socket> {
        self.processes[slot].as_ref()?.line.as_ref()
    }

    pub(super) fn grant_block(
        &self,
        [job, bytes, purpose, least, ..]: [u64; WORDS],
    ) -> Result<Message, String> {
        let purpose = Purpose::from_word(purpose).ok_or("that is nothing to want a block for")?;
        let key = JobKey::from_word(job);
        let job = self.core.state.lock().job(key);
        let job = job.filter(|job| !job.is_over()).ok_or("the job is over")?;
        let epoch = self
            .core
            .control
            .job(key)
            .map_or(0, |cell| cell.gate.state().epoch);
        if let Some([first, end]) = job.inner.lock().spares.take(purpose, least, epoch) {
            return Ok(Message::new(MessageKind::Block, &[first, end - first]));
        }
        let len = usize::try_from(bytes).map_err(|_| "a block of that size cannot exist")?;
        if purpose == Purpose::Texts {
            job.take_text(bytes)?;
        }
        // Without the lock: taking its pages is what takes long.
        let block = match self.core.memory.alloc(len, 64) {
            Ok(block) => block,
            Err(e) if purpose == Purpose::Records => {
                let text = format!("no memory was left to report the failures of this job: {e}");
                let mut state = self.core.state.lock();
                state.stop(&self.core, &job, End::Shortage(text), STOP_GRACE);
                return Err(e.to_string());
            }
            Err(e) => return Err(e.to_string()),
        };
        let answer = Message::new(MessageKind::Block, &[block.offset() as u64, block.len() as u64]);
        job.keep_block(block, purpose);
        Ok(answer)
    }

    /// A job that one worker cannot run is run by none: they are all alike.
    pub(super) fn end_job(&self, complaint: &Message) -> Message {
        let why = String::from_utf8_lossy(&complaint.text);
        let mut state = self.core.state.lock();
        if let Some(job) = state.job(JobKey::from_word(complaint.words[0])) {
            let ending = End::CannotRun(format!("the workers cannot run this job: {why}"));
            state.stop(&self.core, &job, ending, STOP_GRACE);
        }
        Message::new(MessageKind::Noted, &[])
    }

    pub(super) fn send_segment(&mut self, slot: usize, id: u64) {
        let Some(line) = self.line(slot) else { return };
        let answer = match registry::find(swathe_memory::SegmentId::from_bits(id)) {
            Some(segment) => {
                let writable = u64::from(segment.access() == Access::ReadWrite);
                Message::new(MessageKind::Segment, &[segment.len() as u64, writable])
                    .try_send(line, &[memory::descriptor(&segment)])
            }
            None => Message::new(MessageKind::Refused, &[])
                .with_text(b"the array it belongs to no longer exists in the parent")
                .try_send(line, &[]),
        };
        if let Err(e) = answer {
            tracing::debug!(slot, %e, "a worker went away while it was answered, or does not read");
            self.lose_line(slot);
        }
    }
}
