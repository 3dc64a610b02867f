//! Sockets that the kernel sends to unasked.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use netlink_sys::Socket as SystemSocket;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, setsockopt, sockopt};

use crate::Error;
use crate::datagram::{RECEIVE_BUFFER, Received, messages};
use crate::socket::wait_readable;

/// What was queued before an overrun is read in less, though others go on sending.
const LONGEST_DRAIN: Duration = Duration::from_millis(500);

/// What a subscriber was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<T> {
    /// What it subscribed to.
    Heard(T),
    /// More was sent than it had room for, and is lost: it has to look for itself.
    Missed,
}

/// A socket that is only read.
#[derive(Debug)]
pub(crate) struct Subscription {
    socket: SystemSocket,
    buffer: Vec<u8>,
    /// What it hears of, for errors.
    what: &'static str,
}

impl Subscription {
    /// Takes over a socket.
    pub(crate) fn new(socket: SystemSocket, what: &'static str) -> Self {
        Self { socket, buffer: Vec::with_capacity(RECEIVE_BUFFER), what }
    }

    /// Opens a socket of a netlink family, in the calling thread's namespace, that hears of a
    /// multicast group.
    pub(crate) fn open(family: isize, group: u32, what: &'static str) -> Result<Self, Error> {
        Self::open_of(family, &[group], what)
    }

    /// The same of several groups.
    pub(crate) fn open_of(
        family: isize,
        groups: &[u32],
        what: &'static str,
    ) -> Result<Self, Error> {
        let failed = |source| Error::Socket { what: what.into(), source };
        let mut socket = SystemSocket::new(family).map_err(failed)?;
        socket.bind_auto().map_err(failed)?;
        for group in groups {
            socket.add_membership(*group).map_err(failed)?;
        }
        Ok(Self::new(socket, what))
    }

    /// Has room for so many bytes that were not read yet; where the node's limit is less, for as many as that allows.
    pub(crate) fn with_room(self, bytes: usize) -> Self {
        _ = setsockopt(&self.socket, sockopt::RcvBufForce, &bytes)
            .or_else(|_| setsockopt(&self.socket, sockopt::RcvBuf, &bytes));
        self
    }

    /// Throws away what is queued since before the overrun: it would be taken for news by whoever
    /// has looked for itself meanwhile.
    fn drain(&mut self) {
        let started = Instant::now();
        while started.elapsed() < LONGEST_DRAIN {
            self.buffer.clear();
            let read = self.socket.recv(&mut self.buffer, MsgFlags::MSG_DONTWAIT.bits());
            if read.is_err_and(|error| error.raw_os_error() != Some(Errno::ENOBUFS as i32)) {
                return;
            }
        }
    }

    /// Waits until something is sent, for `milliseconds` at most, and throws it away.
    pub(crate) fn wait_and_drain(&mut self, milliseconds: u16) -> Result<(), Error> {
        let failed = |source| Error::Socket { what: self.what.into(), source };
        if wait_readable(self.as_fd(), milliseconds).map_err(failed)? {
            while self.receive(|_| None::<()>)?.is_some() {}
        }
        Ok(())
    }

    /// Reads one datagram, if there is one, and gives what `read` makes of its messages; `None`
    /// when there is none yet. Never waits.
    pub(crate) fn receive<T>(
        &mut self,
        mut read: impl FnMut(&Received<'_>) -> Option<T>,
    ) -> Result<Option<Vec<Event<T>>>, Error> {
        self.buffer.clear();
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
        let length = match self.socket.recv(&mut self.buffer, flags.bits()) {
            Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {
                self.drain();
                return Ok(Some(vec![Event::Missed]));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                return Ok(Some(Vec::new()));
            }
            result => result.map_err(|source| Error::Socket { what: self.what.into(), source })?,
        };
        let mut events = Vec::new();
        for received in messages(&self.buffer) {
            match received {
                Ok(received) => events.extend(read(&received).map(Event::Heard)),
                Err(_) => events.push(Event::Missed),
            }
        }
        if length > self.buffer.len() {
            events.push(Event::Missed);
        }
        Ok(Some(events))
    }
}

impl AsFd for Subscription {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
