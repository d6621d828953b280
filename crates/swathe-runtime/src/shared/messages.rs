//! The messages between parent, zygote and workers: eight words, some text, some descriptors.
//!
//! They carry only what concerns processes and memory (start, death, "give me a block"). Work goes through the ring.

use std::{io, os::fd::BorrowedFd};

use swathe_os::{Descriptor, socket::Socket};

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum MessageKind {
    /// Parent to zygote, first of all: the shape of the pool. Descriptors: control, data.
    Hello = 1,
    /// Zygote to parent: I am the same program, and listen.
    Ready,
    /// Parent to zygote: start a worker. Descriptor: the worker's socket.
    Fork,
    /// Zygote to parent: started. Descriptor: pidfd, if it could be had.
    Forked,
    /// Zygote to parent: there was no room for another process; the text says what was short.
    ForkFailed,
    /// Zygote to parent: a worker has ended and is reaped.
    Died,
    /// Parent to zygote: no more forks; end the workers that do not end in time, then yourself.
    Stop,
    /// Worker to parent: send me a segment.
    WantSegment,
    /// Parent to worker: here. Descriptor: the segment.
    Segment,
    /// Worker to parent: a heap block for a job.
    WantBlock,
    /// Parent to worker: here.
    Block,
    /// Parent to worker: that cannot be had; the text says why.
    Refused,
    /// Worker to parent: I go of my own accord; see that I come to an end.
    Leaving,
    /// Parent to zygote: do you still answer?
    Ping,
    /// Zygote to parent: yes.
    Pong,
    /// Parent to zygote: kill this worker, for I may not.
    Kill,
    /// Zygote to a worker that it started by exec, first of all: as `Hello`, with the worker's socket.
    Employ,
    /// Worker to parent: this job cannot be run here; the text says why.
    CannotRun,
    /// Parent to worker: noted.
    Noted,
    /// Worker to parent: where is the file of this object?
    WantObject,
    /// Parent to worker: the text is its path.
    Object,
}

impl MessageKind {
    fn from_word(word: u64) -> Option<Self> {
        use MessageKind::*;
        [
            Hello,
            Ready,
            Fork,
            Forked,
            ForkFailed,
            Died,
            Stop,
            WantSegment,
            Segment,
            WantBlock,
            Block,
            Refused,
            Leaving,
            Ping,
            Pong,
            Kill,
            Employ,
            CannotRun,
            Noted,
            WantObject,
            Object,
        ]
        .into_iter()
        .find(|kind| *kind as u64 == word)
    }
}

/// Words a message has besides its kind.
pub(crate) const WORDS: usize = 7;

/// One message.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) kind: MessageKind,
    pub(crate) words: [u64; WORDS],
    pub(crate) text: Vec<u8>,
    pub(crate) fds: Vec<Descriptor>,
}

impl Message {
    /// A message with some words; the others are 0.
    pub(crate) fn new(kind: MessageKind, words: &[u64]) -> Self {
        let mut all = [0; WORDS];
        all[..words.len()].copy_from_slice(words);
        Self {
            kind,
            words: all,
            text: Vec::new(),
            fds: Vec::new(),
        }
    }

    /// With a text, cut to what a packet holds.
    pub(crate) fn with_text(mut self, text: &[u8]) -> Self {
        self.text = text[..text.len().min(4096)].to_vec();
        self
    }

    /// Sends it, with borrowed descriptors, waiting for room.
    pub(crate) fn send(&self, socket: &Socket, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        socket.send(&self.to_bytes(), fds)
    }

    /// Sends it if there is room; `WouldBlock` if the other side does not read.
    pub(crate) fn try_send(&self, socket: &Socket, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        socket.try_send(&self.to_bytes(), fds)
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(8 * (WORDS + 1) + self.text.len());
        bytes.extend((self.kind as u64).to_le_bytes());
        for word in self.words {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(&self.text);
        bytes
    }

    /// Waits for one. `None`: the peer is gone.
    pub(crate) fn receive(socket: &Socket) -> io::Result<Option<Self>> {
        socket.receive()?.map(Self::decode).transpose()
    }

    /// Takes one if there is one; `WouldBlock` otherwise.
    pub(crate) fn try_receive(socket: &Socket) -> io::Result<Option<Self>> {
        socket.try_receive()?.map(Self::decode).transpose()
    }

    /// What came is an allegation: a packet of another form is an error, never a panic.
    pub(crate) fn decode(packet: swathe_os::socket::Packet) -> io::Result<Self> {
        let malformed = || io::Error::other("a peer sent a packet that is no message of Swathe's");
        let (head, text) = packet
            .bytes
            .split_at_checked(8 * (WORDS + 1))
            .ok_or_else(malformed)?;
        let mut words = head
            .chunks_exact(8)
            .map(|word| u64::from_le_bytes(word.try_into().expect("chunks of 8 bytes")));
        let kind = words
            .next()
            .and_then(MessageKind::from_word)
            .ok_or_else(malformed)?;
        let mut all = [0; WORDS];
        all.iter_mut().zip(words).for_each(|(word, value)| *word = value);
        Ok(Self {
            kind,
            words: all,
            text: text.to_vec(),
            fds: packet.fds,
        })
    }
}

/// What lies in a block begins at a multiple of so many bytes.
pub(crate) const ALIGN: u64 = 16;

/// What a worker wants a block for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Purpose {
    Results = 0,
    /// Records of failures with their texts.
    Texts = 1,
    /// Records of failures without texts: without room for them the job cannot go on.
    Records = 2,
}

impl Purpose {
    pub(crate) fn from_word(word: u64) -> Option<Self> {
        [Self::Results, Self::Texts, Self::Records]
            .into_iter()
            .find(|purpose| *purpose as u64 == word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_as_sent_and_garbage_is_refused() {
        let (a, b) = Socket::pair().unwrap();
        Message::new(MessageKind::Died, &[1, 2, 3])
            .with_text(b"why")
            .send(&a, &[])
            .unwrap();
        let got = Message::receive(&b).unwrap().unwrap();
        assert_eq!(
            (got.kind, got.words[..4].to_vec(), got.text),
            (MessageKind::Died, vec![1, 2, 3, 0], b"why".to_vec())
        );
        for garbage in [&b"short"[..], &[0xff; 80], &[0; 64]] {
            a.send(garbage, &[]).unwrap();
            assert!(Message::receive(&b).is_err());
        }
        drop(a);
        assert!(Message::receive(&b).unwrap().is_none());
    }
}
