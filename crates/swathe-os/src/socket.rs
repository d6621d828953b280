//! A connected pair of packet sockets that can carry file descriptors.

use std::{
    io,
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use crate::descriptors::{Both, Descriptor, above_standard, moved_above_standard};

/// The largest packet, bytes.
pub const MAX_PACKET: usize = 8192;
/// The most descriptors a packet carries.
pub const MAX_FDS: usize = 4;

/// One end of a pair. Packets arrive whole and in order; end-of-file means that the last holder of the other end is
/// gone.
#[derive(Debug)]
pub struct Socket(Descriptor);

/// A process at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its process id, 0 if it is outside of this process's namespace.
    pub pid: u32,
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// What was received.
#[derive(Debug, Default)]
pub struct Packet {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The descriptors, close-on-exec.
    pub fds: Vec<Descriptor>,
}

/// Who made the pair that this is an end of.
///
/// # Errors
/// If this is no socket, or none that knows.
pub fn peer_of(socket: impl AsFd) -> io::Result<Peer> {
    let mut peer = libc::ucred {
        pid: 0,
        uid: 0,
        gid: 0,
    };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    // Not through rustix: its type cannot hold the process id 0.
    // SAFETY: the kernel writes at most `len` bytes to a live variable of that size, any bytes of which are valid.
    let asked = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut len,
        )
    };
    match asked {
        0 => Ok(Peer {
            pid: peer.pid as u32,
            uid: peer.uid,
            gid: peer.gid,
        }),
        _ => Err(io::Error::last_os_error()),
    }
}

impl Socket {
    /// Makes a pair, both ends close-on-exec.
    pub fn pair() -> io::Result<(Self, Self)> {
        let Both(a, b) = above_standard(|| {
            rustix::net::socketpair(
                AddressFamily::UNIX,
                SocketType::SEQPACKET,
                SocketFlags::CLOEXEC,
                None,
            )
            .map(|(a, b)| Both(a, b))
        })?;
        Ok((Self(a.into()), Self(b.into())))
    }

    /// Sends one packet, waiting for room. A peer that is gone is `BrokenPipe`.
    pub fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.send_with(bytes, fds, SendFlags::NOSIGNAL)
    }

    /// Sends one packet if there is room; `WouldBlock` if there is none.
    pub fn try_send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.send_with(bytes, fds, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
    }

    fn send_with(&self, bytes: &[u8], fds: &[BorrowedFd<'_>], flags: SendFlags) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if fds.len() > MAX_FDS || bytes.len() > MAX_PACKET {
            return Err(io::Error::other("the packet is too large"));
        }
        if !fds.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(fds));
        }
        loop {
            match rustix::net::sendmsg(&self.0, &[IoSlice::new(bytes)], &mut ancillary, flags) {
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                // Gone as well, and it had not read everything.
                Err(rustix::io::Errno::CONNRESET) => return Err(rustix::io::Errno::PIPE.into()),
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Whether the number still stands for this socket: see [`Descriptor`].
    pub fn is_ours(&self) -> bool {
        self.0.is_ours()
    }

    /// Ends the connection for whoever holds either end, also under another number or in another process.
    pub fn shut_down(&self) {
        let _ = rustix::net::shutdown(&self.0, rustix::net::Shutdown::Both);
    }

    /// Receives one packet, waiting for it. `None`: the peer is gone.
    pub fn receive(&self) -> io::Result<Option<Packet>> {
        self.receive_with(RecvFlags::CMSG_CLOEXEC)
    }

    /// Receives one packet if there is one; `WouldBlock` if there is none.
    pub fn try_receive(&self) -> io::Result<Option<Packet>> {
        self.receive_with(RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT)
    }

    fn receive_with(&self, flags: RecvFlags) -> io::Result<Option<Packet>> {
        let mut bytes = [0; MAX_PACKET];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            match rustix::net::recvmsg(&self.0, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags) {
                Ok(received) => break received,
                Err(rustix::io::Errno::INTR) => {}
                // The peer is gone, and had not read everything. That is said once; what it sent before comes next.
                Err(rustix::io::Errno::CONNRESET) => {}
                Err(e) => return Err(e.into()),
            }
        };
        let mut fds = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                // One that finds no other number is as lost as one for which the kernel found none: the packet came all the same.
                fds.extend(rights.filter_map(|fd| moved_above_standard(fd).ok()));
            }
        }
        if received.bytes == 0 && fds.is_empty() {
            return Ok(None);
        }
        Ok(Some(Packet {
            bytes: bytes[..received.bytes].to_vec(),
            fds,
        }))
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<Descriptor> for Socket {
    fn from(fd: Descriptor) -> Self {
        Self(fd)
    }
}

impl From<Socket> for Descriptor {
    fn from(socket: Socket) -> Self {
        socket.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel says once that a peer has gone without reading everything, and says it first.
    #[test]
    fn what_a_peer_sent_is_read_though_it_has_gone_with_something_unread() {
        let gone = |unread: bool| {
            let (here, there) = Socket::pair().expect("a pair");
            there.send(b"last words", &[]).expect("there is room");
            if unread {
                here.send(b"an order", &[]).expect("there is room");
            }
            drop(there);
            here
        };
        for unread in [false, true] {
            let here = gone(unread);
            let packet = here.receive().expect("no error").expect("there is a packet");
            assert_eq!(packet.bytes, b"last words");
            assert!(here.try_receive().expect("no error").is_none());
            let refused = gone(unread).send(b"another order", &[]).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::BrokenPipe);
        }
    }
}
