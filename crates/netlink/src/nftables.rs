//! The little of nf_tables that the plugins need: to find and delete the rules that lead to a
//! chain, and the chain, in one transaction and without starting a program.

mod message;
mod rule;

use std::ops::RangeInclusive;

use netlink_packet_core::NLM_F_DUMP_INTR;
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::sys::socket::MsgFlags;

use crate::Error;
use crate::datagram::{DUMP_ATTEMPTS, RECEIVE_BUFFER, Received, messages};
use message::{Message, batch};
pub use rule::Jump;

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
        let code = self.receive(&what, sequence..=sequence, |answer| Ok(Some(answer.code())))?;
        match code.map(Errno::from_raw) {
            None => Ok(true),
            // Neither the table nor the chain, or (EINVAL, EOPNOTSUPP) not even nf_tables.
            Some(Errno::ENOENT | Errno::EINVAL | Errno::EOPNOTSUPP) => Ok(false),
            Some(errno) => Err(Error::Refused { what, explanation: String::new(), errno }),
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
            self.receive(&what, sequence..=sequence, |answer| {
                is_interrupted |= answer.flags & NLM_F_DUMP_INTR != 0;
                if let Some(code) = answer.code() {
                    return end(&what, answer, code);
                }
                let attributes = answer.bytes.get(message::HEADERS..).unwrap_or_default();
                jumps.extend(rule::read_jump(attributes, table, chain, target));
                Ok(None)
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
        self.receive(&what, first..=last, |answer| match answer.code() {
            Some(code) => end(&what, answer, code),
            None => Ok(None),
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

    /// Reads answers until `take` has found what it looks for.
    fn receive<T>(
        &mut self,
        what: &str,
        sequences: RangeInclusive<u32>,
        mut take: impl FnMut(&Received<'_>) -> Result<Option<T>, Error>,
    ) -> Result<T, Error> {
        // The kernel has queued its answer when the question is sent: there is nothing to wait for.
        let flags = MsgFlags::MSG_DONTWAIT.bits();
        loop {
            self.buffer.clear();
            self.socket
                .recv(&mut self.buffer, flags)
                .map_err(|source| Error::Socket { what: what.into(), source })?;
            for answer in messages(&self.buffer) {
                let answer = answer.map_err(|error| Error::Answer {
                    what: what.into(),
                    problem: error.to_string(),
                })?;
                if !sequences.contains(&answer.sequence) {
                    continue;
                }
                if let Some(found) = take(&answer)? {
                    return Ok(found);
                }
            }
        }
    }
}

/// The end of an exchange, good or bad.
fn end(what: &str, answer: &Received<'_>, code: i32) -> Result<Option<()>, Error> {
    if code == 0 {
        return Ok(Some(()));
    }
    let (explanation, errno) = (answer.explanation(), Errno::from_raw(code));
    Err(Error::Refused { what: what.into(), explanation, errno })
}
