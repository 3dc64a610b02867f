//! Packets that rules log to a program (target NFLOG;
//! `include/uapi/linux/netfilter/nfnetlink_log.h`).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use nix::errno::Errno;

use crate::attributes::{attributes, network_number, text};
use crate::netfilter::Socket;
use crate::netfilter::message::{HEADERS, Message};
use crate::subscription::Subscription;
use crate::{Error, Event};

const SUBSYSTEM: u8 = 4;
const PACKET: [u8; 2] = [SUBSYSTEM, 0];
const CONFIGURE: [u8; 2] = [SUBSYSTEM, 1];
const CONFIGURE_COMMAND: u16 = 1;
const CONFIGURE_MODE: u16 = 2;
const CONFIGURE_TIMEOUT: u16 = 4;
const COMMAND_BIND: u8 = 1;
const COPY_PACKET: u8 = 2;
/// Enough for the headers of IPv6, some extensions and ports.
const COPIED: u32 = 128;
/// How long the kernel collects packets before it sends what it has, in hundredths of a second.
const COLLECTED: u32 = 10;
const INPUT: u16 = 4;
const OUTPUT: u16 = 5;
const PHYSICAL_INPUT: u16 = 6;
const PHYSICAL_OUTPUT: u16 = 7;
const PAYLOAD: u16 = 9;
const PREFIX: u16 = 10;

/// A packet that a rule logged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Packet {
    /// What the rule has logs begin with.
    pub prefix: String,
    /// Index of the link that it came in by.
    pub input: Option<u32>,
    /// Index of the link that it is to go out by.
    pub output: Option<u32>,
    /// Index of the bridge's port that it came in by.
    pub physical_input: Option<u32>,
    /// Index of the bridge's port that it is to go out by.
    pub physical_output: Option<u32>,
    /// Its first 128 bytes, from the IP header on.
    pub payload: Vec<u8>,
}

/// Receives what rules of the namespace in which it was opened log to a group.
#[derive(Debug)]
pub struct Log(Subscription);

impl Log {
    /// Becomes the receiver of a group. Each group has one.
    ///
    /// # Errors
    /// [`Error`]: with EPERM when the group has another receiver, or without `CAP_NET_ADMIN`.
    pub fn open(group: u16) -> Result<Self, Error> {
        let what = format!("receive what is logged to NFLOG group {group}");
        let unsupported = || Error::Refused {
            what: what.clone(),
            explanation: "the kernel has no netfilter".into(),
            errno: Errno::EPROTONOSUPPORT,
        };
        let mut socket = Socket::open("an NFLOG")?.ok_or_else(unsupported)?;
        let [a, b, c, d] = COPIED.to_be_bytes();
        let message = Message::new(CONFIGURE, 0, 0, group)
            .attribute(CONFIGURE_COMMAND, &[COMMAND_BIND])
            .attribute(CONFIGURE_MODE, &[a, b, c, d, COPY_PACKET, 0])
            .attribute(CONFIGURE_TIMEOUT, &COLLECTED.to_be_bytes());
        match socket.change(message, &what)? {
            0 => Ok(Self(Subscription::new(socket.into_inner(), "receive logged packets"))),
            code => {
                let errno = Errno::from_raw(code);
                let explanation = match errno {
                    Errno::EPERM => "has it another receiver, or is CAP_NET_ADMIN missing?".into(),
                    _ => String::new(),
                };
                Err(Error::Refused { what, explanation, errno })
            }
        }
    }

    /// The packets that were logged, as far as they are told at once; `None` when there is nothing
    /// yet. Never waits: the descriptor becomes readable, 0.1 s after a packet at the latest.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn receive(&mut self) -> Result<Option<Vec<Event<Packet>>>, Error> {
        self.0.receive(|received| {
            let is_packet = received.kind == u16::from_be_bytes(PACKET);
            is_packet.then(|| read(received.bytes.get(HEADERS..).unwrap_or_default()))
        })
    }
}

impl AsFd for Log {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Log {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

fn read(packet: &[u8]) -> Packet {
    let mut read = Packet::default();
    for (kind, payload) in attributes(packet) {
        match kind {
            INPUT => read.input = network_number(payload),
            OUTPUT => read.output = network_number(payload),
            PHYSICAL_INPUT => read.physical_input = network_number(payload),
            PHYSICAL_OUTPUT => read.physical_output = network_number(payload),
            PAYLOAD => read.payload = payload.to_owned(),
            PREFIX => read.prefix = text(payload),
            _ => {}
        }
    }
    read
}
