//! Requests as values.

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable,
};
use netlink_packet_route::RouteNetlinkMessage;
use nix::errno::Errno;

/// One change to the kernel's state, with the words for the error should it be refused.
#[derive(Debug, Clone)]
pub struct Request {
    pub(crate) what: String,
    pub(crate) message: Message,
    pub(crate) flags: u16,
    /// Error numbers that mean "already so".
    pub(crate) tolerated: &'static [Errno],
}

/// What a request says.
#[derive(Debug, Clone)]
pub(crate) enum Message {
    /// What the library knows.
    Route(RouteNetlinkMessage),
    /// `RTM_GETNETCONF` for all links.
    GetForwarding {
        /// Or IPv6.
        is_ipv4: bool,
    },
}

impl From<RouteNetlinkMessage> for Message {
    fn from(message: RouteNetlinkMessage) -> Self {
        Self::Route(message)
    }
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        const RTM_GETNETCONF: u16 = 82;
        match self {
            Self::Route(message) => message.message_type(),
            Self::GetForwarding { .. } => RTM_GETNETCONF,
        }
    }

    fn buffer_len(&self) -> usize {
        match self {
            Self::Route(message) => message.buffer_len(),
            Self::GetForwarding { .. } => 12,
        }
    }

    fn serialize(&self, buffer: &mut [u8]) {
        match self {
            Self::Route(message) => message.serialize(buffer),
            Self::GetForwarding { is_ipv4 } => {
                // `netconfmsg`; then NETCONFA_IFINDEX (1), 8 bytes long: NETCONFA_IFINDEX_ALL (-1).
                let [a, b] = 8u16.to_ne_bytes();
                let [c, d] = 1u16.to_ne_bytes();
                let family = if *is_ipv4 { 2 } else { 10 };
                buffer.copy_from_slice(&[family, 0, 0, 0, a, b, c, d, 255, 255, 255, 255]);
            }
        }
    }
}

impl Request {
    pub(crate) fn new(what: String, message: impl Into<Message>, flags: u16) -> Self {
        Self { what, message: message.into(), flags, tolerated: &[] }
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
        self.tolerated = &[Errno::ENODEV, Errno::ENOENT, Errno::ESRCH, Errno::EADDRNOTAVAIL];
        self
    }

    /// Appends the message to a buffer.
    pub(crate) fn append_to(&self, buffer: &mut Vec<u8>, sequence: u32, acknowledged: bool) {
        let mut header = NetlinkHeader::default();
        let acknowledgement = if acknowledged { NLM_F_ACK } else { 0 };
        header.flags = self.flags | NLM_F_REQUEST | acknowledgement;
        header.sequence_number = sequence;
        let mut message =
            NetlinkMessage::new(header, NetlinkPayload::InnerMessage(self.message.clone()));
        message.finalize();
        let start = buffer.len();
        // Messages that share a buffer begin at multiples of four (NLMSG_ALIGN).
        buffer.resize(start + message.buffer_len().next_multiple_of(4), 0);
        if let Some(room) = buffer.get_mut(start..) {
            message.serialize(room);
        }
    }
}
