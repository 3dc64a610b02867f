//! The little of nf_tables that the plugins need: to find and delete the rules that lead to a
//! chain, and the chain, in one transaction and without starting a program.

mod message;
mod rule;

use std::io;

use netlink_packet_core::NetlinkBuffer;
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::sys::socket::MsgFlags;

use crate::Error;
use crate::socket::explanation;
use message::{Message, batch};
pub use rule::Jump;

/// The kernel fills a dump's datagrams up to what the reader offers, 32 KiB at most.
const RECEIVE_BUFFER: usize = 32 << 10;
/// How often an interrupted dump is repeated.
const DUMP_ATTEMPTS: usize = 10;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_HEADER: usize = 16;
const NLM_F_DUMP_INTR: u16 = 0x10;

/// A table of IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table<'a> {
    /// Or IPv6.
    pub is_ipv4: bool,
    /// Name, such as `nat`.
    pub name: &'a str,
}

/// An nf_tables socket of the namespace in which it was opened.
///
/// Closing it waits until the kernel has freed what was deleted, an RCU grace period (8 to 19 ms),
/// and keeps everybody else from changing rules meanwhile (`nft_rcv_nl_event`): worth doing late,
/// when that time has passed anyway.
#[derive(Debug)]
pub struct Client {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

/// One message of the kernel.
struct Answer<'a> {
    kind: u16,
    flags: u16,
    bytes: &'a [u8],
}

impl Answer<'_> {
    /// The error number, if it is an error, an acknowledgement (0) or the end of a dump (0).
    fn code(&self) -> Option<i32> {
        if self.kind != NLMSG_ERROR && self.kind != NLMSG_DONE {
            return None;
        }
        let code = self.bytes.get(NLMSG_HEADER..NLMSG_HEADER + 4)?.try_into().ok()?;
        Some(i32::from_ne_bytes(code).saturating_abs())
    }
}

impl Client {
    /// Opens a socket in the calling thread's namespace; `None` when the kernel has no nf_tables.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn open() -> Result<Option<Self>, Error> {
        let failed = |source| Error::Socket { what: "open an nf_tables socket".into(), source };
        let socket = match Socket::new(NETLINK_NETFILTER) {
            Err(error) if error.raw_os_error() == Some(Errno::EPROTONOSUPPORT as i32) => {
                return Ok(None);
            }
            result => result.map_err(failed)?,
        };
        socket.set_ext_ack(true).map_err(failed)?;
        socket.set_cap_ack(true).map_err(failed)?;
        Ok(Some(Self { socket, sequence: 0, buffer: Vec::with_capacity(RECEIVE_BUFFER) }))
    }

    /// Whether a table has a chain.
    ///
    /// # Errors
    /// [`Error`], also without `CAP_NET_ADMIN`, which nf_tables asks of every question.
    pub fn has_chain(&mut self, table: Table<'_>, chain: &str) -> Result<bool, Error> {
        let what = format!("look for chain {chain:?} in nf_tables");
        let sequence = self.next();
        self.send(&Message::get_chain(table, chain, sequence).into_bytes(), &what)?;
        let mut verdict = None;
        self.receive(&what, sequence, |answer| {
            verdict = Some(answer.code().map(Errno::from_raw));
            Ok(true)
        })?;
        match verdict {
            Some(None) => Ok(true),
            // Neither the table nor the chain, or (EINVAL, EOPNOTSUPP) not even nf_tables.
            Some(Some(Errno::ENOENT | Errno::EINVAL | Errno::EOPNOTSUPP)) => Ok(false),
            Some(Some(errno)) => Err(Error::Refused { what, explanation: String::new(), errno }),
            None => Err(Error::Answer { what, problem: "there is none".into() }),
        }
    }

    /// The rules of `chain` that jump to `target`.
    ///
    /// # Errors
    /// [`Error`].
    pub fn jumps(
        &mut self,
        table: Table<'_>,
        chain: &str,
        target: &str,
    ) -> Result<Vec<Jump>, Error> {
        let what = format!("list the rules of chain {chain:?} in nf_tables");
        for _ in 0..DUMP_ATTEMPTS {
            let sequence = self.next();
            self.send(&Message::list_rules(table, chain, sequence).into_bytes(), &what)?;
            let mut jumps = Vec::new();
            let mut is_interrupted = false;
            self.receive(&what, sequence, |answer| {
                is_interrupted |= answer.flags & NLM_F_DUMP_INTR != 0;
                match answer.code() {
                    Some(0) => Ok(true),
                    Some(code) => Err(refusal(&what, answer.bytes, code)),
                    None => {
                        let attributes = answer.bytes.get(message::HEADERS..).unwrap_or_default();
                        jumps.extend(rule::read_jump(attributes, table, chain, target));
                        Ok(false)
                    }
                }
            })?;
            if !is_interrupted {
                return Ok(jumps);
            }
        }
        Err(Error::Interrupted { what })
    }

    /// Deletes rules of `chain` by their handles and, with all its rules, `target`: all or nothing.
    ///
    /// # Errors
    /// [`Error`]: the first refusal.
    pub fn delete(
        &mut self,
        table: Table<'_>,
        (chain, handles): (&str, &[u64]),
        target: Option<&str>,
    ) -> Result<(), Error> {
        let what = match target {
            Some(target) => format!("delete chain {target:?} and what leads there in nf_tables"),
            None => format!("delete {} rules of {chain:?} in nf_tables", handles.len()),
        };
        let mut changes: Vec<Message> =
            handles.iter().map(|handle| Message::delete_rule(table, chain, *handle)).collect();
        if let Some(target) = target {
            changes.push(Message::empty_chain(table, target));
            changes.push(Message::delete_chain(table, target));
        }
        if changes.is_empty() {
            return Ok(());
        }
        let first = self.next();
        let (bytes, last) = batch(changes, first);
        self.sequence = last;
        self.send(&bytes, &what)?;
        // The last change is acknowledged, and refusals are always answered.
        self.receive_range(&what, first..=last, |answer| match answer.code() {
            Some(0) => Ok(true),
            Some(code) => Err(refusal(&what, answer.bytes, code)),
            None => Ok(false),
        })
    }

    fn next(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    fn send(&self, bytes: &[u8], what: &str) -> Result<(), Error> {
        let failed = |source| Error::Socket { what: what.into(), source };
        self.socket.send_to(bytes, &SocketAddr::new(0, 0), 0).map_err(failed)?;
        Ok(())
    }

    fn receive(
        &mut self,
        what: &str,
        sequence: u32,
        take: impl FnMut(&Answer<'_>) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        self.receive_range(what, sequence..=sequence, take)
    }

    /// Reads answers until `take` says that it was the last one.
    fn receive_range(
        &mut self,
        what: &str,
        sequences: std::ops::RangeInclusive<u32>,
        mut take: impl FnMut(&Answer<'_>) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        // The kernel has queued its answer when the question is sent: there is nothing to wait for.
        let flags = MsgFlags::MSG_DONTWAIT.bits();
        let failed = |source: io::Error| Error::Socket { what: what.into(), source };
        loop {
            self.buffer.clear();
            self.socket.recv(&mut self.buffer, flags).map_err(failed)?;
            let mut rest = self.buffer.as_slice();
            while !rest.is_empty() {
                let problem = |problem: String| Error::Answer { what: what.into(), problem };
                let header = NetlinkBuffer::new_checked(&rest)
                    .map_err(|error| problem(error.to_string()))?;
                let size = header.length() as usize;
                let bytes = rest.get(..size).unwrap_or_default();
                let (kind, flags) = (header.message_type(), header.flags());
                let is_ours = sequences.contains(&header.sequence_number());
                if is_ours && take(&Answer { kind, flags, bytes })? {
                    return Ok(());
                }
                rest = rest.get(size.next_multiple_of(4).max(NLMSG_HEADER)..).unwrap_or_default();
            }
        }
    }
}

fn refusal(what: &str, answer: &[u8], code: i32) -> Error {
    let errno = Errno::from_raw(code);
    Error::Refused { what: what.into(), explanation: explanation(answer), errno }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(kind: u16, errno: i32) -> Vec<u8> {
        let mut bytes = vec![36, 0, 0, 0];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend((-errno).to_ne_bytes());
        bytes
    }

    #[test]
    fn only_errors_and_ends_have_an_error_number() {
        let code = |kind, errno| {
            let bytes = answer(kind, errno);
            Answer { kind, flags: 0, bytes: &bytes }.code()
        };
        assert_eq!(code(NLMSG_ERROR, Errno::EPERM as i32), Some(1));
        // ENOTSUPP, which is the kernel's own.
        assert_eq!(code(NLMSG_ERROR, 524), Some(524));
        assert_eq!(code(NLMSG_ERROR, 0), Some(0));
        assert_eq!(code(NLMSG_DONE, 0), Some(0));
        assert_eq!(code(10 << 8 | 3, 0), None);
        assert_eq!(Answer { kind: NLMSG_ERROR, flags: 0, bytes: &[0; 5] }.code(), None);
    }
}
