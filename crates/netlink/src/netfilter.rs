//! The socket that the clients of netfilter's parts share.

pub(crate) mod message;

use std::io::IoSlice;
use std::ops::RangeInclusive;
use std::os::fd::AsRawFd;

use netlink_packet_core::{DecodeError, NLM_F_DUMP_INTR};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket as SystemSocket, SocketAddr};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, getsockopt, sendmsg, setsockopt,
    socketpair, sockopt,
};

use crate::Error;
use crate::datagram::{RECEIVE_BUFFER, Received, messages};
use message::Message;

/// So often the kernel may have had no room for its answers to one question.
const MOST_OVERRUNS: usize = 8;

/// A netfilter socket of the namespace in which it was opened.
#[derive(Debug)]
pub(crate) struct Socket {
    socket: SystemSocket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a socket in the calling thread's namespace, of which errors speak as `name`; `None`
    /// when the kernel has no netfilter.
    pub(crate) fn open(name: &str) -> Result<Option<Self>, Error> {
        let failed = |source| Error::Socket { what: format!("open {name} socket"), source };
        let socket = match SystemSocket::new(NETLINK_NETFILTER) {
            Err(error) if error.raw_os_error() == Some(Errno::EPROTONOSUPPORT as i32) => {
                return Ok(None);
            }
            result => result.map_err(failed)?,
        };
        socket.set_ext_ack(true).map_err(failed)?;
        socket.set_cap_ack(true).map_err(failed)?;
        Ok(Some(Self { socket, sequence: 0, buffer: Vec::with_capacity(RECEIVE_BUFFER) }))
    }

    /// Only to be read from now on.
    pub(crate) fn into_inner(self) -> SystemSocket {
        self.socket
    }

    /// Leaves it to the kernel to close it, in a time of its own.
    ///
    /// It goes as a message to a socket that is in the same message, and that nobody else has. What can be reached by
    /// nobody any more the kernel collects (`unix_gc`), since Linux 6.9 by itself and not in this process. Before that, and
    /// where it cannot be sent, it is closed here, which waits for what closing it waits for.
    pub(crate) fn leave_to_kernel(self) {
        let kind = SockType::Datagram;
        let pair = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC);
        let Ok((near, far)) = pair else { return };
        let both = [self.socket.as_raw_fd(), far.as_raw_fd()];
        let (message, both) = ([IoSlice::new(&[0])], [ControlMessage::ScmRights(&both)]);
        // Where it is refused, all are closed here.
        _ = sendmsg::<()>(near.as_raw_fd(), &message, &both, MsgFlags::MSG_DONTWAIT, None);
        // Closing the sender has the kernel look for what nobody can reach: until then only the message may hold it.
        drop((self, far));
        drop(near);
    }

    /// The port that the kernel gave it with the first message.
    pub(crate) fn port(&self) -> Result<u32, Error> {
        let mut address = SocketAddr::new(0, 0);
        self.socket.get_address(&mut address).map_err(|source| Error::Socket {
            what: "learn the port of a netfilter socket".into(),
            source,
        })?;
        Ok(address.port_number())
    }

    /// The number of the next message.
    pub(crate) fn next(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// Numbers up to `last` have been used.
    pub(crate) fn used(&mut self, last: u32) {
        self.sequence = last;
    }

    pub(crate) fn send(&self, bytes: &[u8], what: &str) -> Result<(), Error> {
        let failed = |source| Error::Socket { what: what.into(), source };
        self.socket.send_to(bytes, &SocketAddr::new(0, 0), 0).map_err(failed)?;
        Ok(())
    }

    /// The same of what may be more than a socket takes unasked: it gets the room first.
    pub(crate) fn send_all(&self, bytes: &[u8], what: &str) -> Result<(), Error> {
        const EMSGSIZE: i32 = Errno::EMSGSIZE as i32;
        const KEPT: usize = 32;
        /// What a socket takes in any case (`SOCK_MIN_SNDBUF` is less, `net.core.wmem_default` more).
        const ALWAYS: usize = 64 << 10;
        if bytes.len() > ALWAYS {
            // Where it may not have more than the node's limit, sending tells.
            _ = setsockopt(&self.socket, sockopt::SndBufForce, &bytes.len())
                .or_else(|_| setsockopt(&self.socket, sockopt::SndBuf, &bytes.len()));
        }
        self.send(bytes, what).map_err(|error| match error {
            Error::Socket { source, .. } if source.raw_os_error() == Some(EMSGSIZE) => {
                // Of what it has the kernel keeps a little (`netlink_sendmsg`).
                let room = getsockopt(&self.socket, sockopt::SndBuf).unwrap_or_default();
                let limit = room.saturating_sub(KEPT);
                Error::TooLarge { what: what.into(), bytes: bytes.len(), limit }
            }
            error => error,
        })
    }

    /// Sends `message` and returns the error number of the answer: 0 when it was done.
    pub(crate) fn change(&mut self, message: Message, what: &str) -> Result<i32, Error> {
        let sequence = self.next();
        self.send(&message.acknowledged().numbered(sequence).into_bytes(), what)?;
        self.receive(what, sequence..=sequence, |answer| Ok(answer.code()))
    }

    /// Sends `messages` at once, all of which are tried, and returns the error numbers of those that were refused. There is room
    /// for some hundred of these.
    pub(crate) fn change_each(
        &mut self,
        messages: impl IntoIterator<Item = Message>,
        what: &str,
    ) -> Result<Vec<i32>, Error> {
        let mut messages = messages.into_iter().peekable();
        let (mut bytes, mut refusals) = (Vec::new(), Vec::new());
        let first = self.sequence.wrapping_add(1);
        while let Some(message) = messages.next() {
            // Refusals are told unasked; that the last one was done tells that the others were looked at.
            let is_last = messages.peek().is_none();
            let message = if is_last { message.acknowledged() } else { message };
            bytes.extend(message.numbered(self.next()).into_bytes());
        }
        if bytes.is_empty() {
            return Ok(refusals);
        }
        self.send(&bytes, what)?;
        let last = self.sequence;
        self.receive(what, first..=last, |answer| {
            let code = answer.code();
            refusals.extend(code.filter(|it| *it != 0));
            Ok((code.is_some() && answer.sequence == last).then_some(()))
        })?;
        Ok(refusals)
    }

    /// Sends `message`, which asks for a list, and gives what follows the headers of each entry to
    /// `take`.
    pub(crate) fn list(
        &mut self,
        message: Message,
        what: &str,
        mut take: impl FnMut(&[u8]),
    ) -> Result<Listed, Error> {
        let sequence = self.next();
        self.send(&message.numbered(sequence).into_bytes(), what)?;
        let mut listed = Listed::default();
        self.receive(what, sequence..=sequence, |answer| {
            listed.is_interrupted |= answer.flags & NLM_F_DUMP_INTR != 0;
            if let Some(code) = answer.code() {
                return end(what, answer, code);
            }
            listed.resource = listed.resource.or_else(|| message::resource(answer.bytes));
            take(answer.bytes.get(message::HEADERS..).unwrap_or_default());
            Ok(None)
        })?;
        Ok(listed)
    }

    /// Reads answers until `take` has found what it looks for.
    pub(crate) fn receive<T>(
        &mut self,
        what: &str,
        sequences: RangeInclusive<u32>,
        mut take: impl FnMut(&Received<'_>) -> Result<Option<T>, Error>,
    ) -> Result<T, Error> {
        loop {
            self.fill(what)?;
            for answer in answers(&self.buffer, what, &sequences) {
                if let Some(found) = take(&answer?)? {
                    return Ok(found);
                }
            }
        }
    }

    /// Reads the answers of one datagram.
    pub(crate) fn receive_some(
        &mut self,
        what: &str,
        sequence: u32,
        mut take: impl FnMut(&Received<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.fill(what)?;
        answers(&self.buffer, what, &(sequence..=sequence)).try_for_each(|answer| take(&answer?))
    }

    /// Reads the next datagram.
    fn fill(&mut self, what: &str) -> Result<(), Error> {
        // The kernel has queued its answer when the question is sent: there is nothing to wait for.
        let flags = MsgFlags::MSG_DONTWAIT.bits();
        let mut overruns = 0;
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, flags) {
                // Of many refusals the first ones had room. The kernel tells of the others' loss ahead of them.
                Err(error)
                    if error.raw_os_error() == Some(Errno::ENOBUFS as i32)
                        && overruns < MOST_OVERRUNS =>
                {
                    overruns += 1;
                }
                read => {
                    let failed = |source| Error::Socket { what: what.into(), source };
                    return read.map(|_| ()).map_err(failed);
                }
            }
        }
    }

    /// Drops what has been answered and nobody has read: where it fills the room, the answer to the next question is lost.
    pub(crate) fn drain(&mut self, what: &str) {
        while self.fill(what).is_ok() {}
    }
}

/// How a list was made.
#[derive(Debug, Default)]
pub(crate) struct Listed {
    /// By a change, between two pieces of it.
    pub(crate) is_interrupted: bool,
    /// `nfgenmsg.res_id` of the first entry; `None`: there was none.
    pub(crate) resource: Option<u16>,
}

/// The answers in a datagram that have one of these numbers.
fn answers<'a>(
    datagram: &'a [u8],
    what: &'a str,
    sequences: &'a RangeInclusive<u32>,
) -> impl Iterator<Item = Result<Received<'a>, Error>> {
    let wrong =
        |error: DecodeError| Error::Answer { what: what.into(), problem: error.to_string() };
    let answers = messages(datagram).map(move |answer| answer.map_err(wrong));
    answers.filter(|answer| answer.as_ref().map_or(true, |it| sequences.contains(&it.sequence)))
}

/// The end of an exchange, good or bad.
pub(crate) fn end(what: &str, answer: &Received<'_>, code: i32) -> Result<Option<()>, Error> {
    if code == 0 {
        return Ok(Some(()));
    }
    let (explanation, errno) = (answer.explanation(), Errno::from_raw(code));
    Err(Error::Refused { what: what.into(), explanation, errno })
}

/// A refusal without words of the kernel: netfilter's old parts have none.
pub(crate) fn refused(what: String, code: i32) -> Error {
    Error::Refused { what, explanation: String::new(), errno: Errno::from_raw(code) }
}
