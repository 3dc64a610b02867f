//! Requests as values.

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage};
use netlink_packet_route::RouteNetlinkMessage;
use nix::errno::Errno;

/// One change to the kernel's state, with the words for the error should it be refused.
#[derive(Debug, Clone)]
pub struct Request {
    pub(crate) what: String,
    pub(crate) message: RouteNetlinkMessage,
    pub(crate) flags: u16,
    /// Error numbers that mean "already so".
    pub(crate) tolerated: &'static [Errno],
}

impl Request {
    pub(crate) fn new(what: String, message: RouteNetlinkMessage, flags: u16) -> Self {
        Self { what, message, flags, tolerated: &[] }
    }

    pub(crate) fn dump(what: String, message: RouteNetlinkMessage) -> Self {
        Self::new(what, message, NLM_F_DUMP)
    }

    /// The same request, for which finding that the object exists already is success.
    #[must_use]
    pub fn or_exists(mut self) -> Self {
        self.tolerated = &[Errno::EEXIST];
        self
    }

    /// The same request, for which finding that the object is gone already is success.
    #[must_use]
    pub fn or_gone(mut self) -> Self {
        self.tolerated = &[Errno::ENODEV, Errno::ESRCH, Errno::EADDRNOTAVAIL];
        self
    }

    /// Appends the message to a buffer.
    pub(crate) fn append_to(&self, buffer: &mut Vec<u8>, sequence: u32, acknowledged: bool) {
        let mut header = NetlinkHeader::default();
        let acknowledgement = if acknowledged { NLM_F_ACK } else { 0 };
        header.flags = self.flags | NLM_F_REQUEST | acknowledgement;
        header.sequence_number = sequence;
        let mut message = NetlinkMessage::new(header, self.message.clone().into());
        message.finalize();
        let start = buffer.len();
        // Messages that share a buffer begin at multiples of four (NLMSG_ALIGN).
        buffer.resize(start + message.buffer_len().next_multiple_of(4), 0);
        if let Some(room) = buffer.get_mut(start..) {
            message.serialize(room);
        }
    }
}
