//! What the kernel sends, message by message.

use netlink_packet_core::{DecodeError, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer};

use crate::attributes::{find, text};

/// The kernel fills a dump's datagrams up to what the reader offers, 32 KiB at most.
pub(crate) const RECEIVE_BUFFER: usize = 32 << 10;
/// How often an interrupted dump is repeated (plugins#1121: busy nodes interrupt some of them).
pub(crate) const DUMP_ATTEMPTS: usize = 10;
/// `nlmsghdr`.
const HEADER: usize = 16;
/// An error number, in the messages that have one.
const CODE: usize = 4;

/// One message of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Received<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    /// Whose message it is, or from which the change came.
    pub(crate) port: u32,
    /// All of it, header included.
    pub(crate) bytes: &'a [u8],
}

/// The messages of a datagram. Behind one that is wrong the next cannot be found.
pub(crate) fn messages(mut rest: &[u8]) -> impl Iterator<Item = Result<Received<'_>, DecodeError>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let header = match NetlinkBuffer::new_checked(rest) {
            Ok(header) => header,
            Err(error) => {
                rest = &[];
                return Some(Err(error));
            }
        };
        let size = header.length() as usize;
        let received = Received {
            kind: header.message_type(),
            flags: header.flags(),
            sequence: header.sequence_number(),
            port: header.port_number(),
            bytes: rest.get(..size).unwrap_or_default(),
        };
        rest = rest.get(size.next_multiple_of(4).max(HEADER)..).unwrap_or_default();
        Some(Ok(received))
    })
}

impl Received<'_> {
    /// What follows the header.
    pub(crate) fn body(&self) -> &[u8] {
        self.bytes.get(HEADER..).unwrap_or_default()
    }

    /// The error number, if it is an error, an acknowledgement (0) or the end of a dump (0).
    pub(crate) fn code(&self) -> Option<i32> {
        if self.kind != NLMSG_ERROR && self.kind != NLMSG_DONE {
            return None;
        }
        let code = self.body().get(..CODE)?.try_into().ok()?;
        Some(i32::from_ne_bytes(code).saturating_abs())
    }

    /// The kernel's explanation of an error: attribute `NLMSGERR_ATTR_MSG`, after the error number
    /// and the refused message's header (the rest of that is cut by `NETLINK_CAP_ACK`).
    pub(crate) fn explanation(&self) -> String {
        const NLM_F_ACK_TLVS: u16 = 0x200;
        const ATTRIBUTE_MESSAGE: u16 = 1;
        if self.flags & NLM_F_ACK_TLVS == 0 {
            return String::new();
        }
        let attributes = self.body().get(CODE + HEADER..).unwrap_or_default();
        find(attributes, ATTRIBUTE_MESSAGE).map(text).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, code: i32) -> Vec<u8> {
        let mut bytes = vec![36, 0, 0, 0];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend((-code).to_ne_bytes());
        bytes.resize(36, 0);
        bytes
    }

    #[test]
    fn only_errors_and_ends_have_an_error_number() {
        let code = |kind, errno| {
            let bytes = message(kind, errno);
            messages(&bytes).next().unwrap().unwrap().code()
        };
        assert_eq!(code(NLMSG_ERROR, 1), Some(1));
        // ENOTSUPP, which is the kernel's own.
        assert_eq!(code(NLMSG_ERROR, 524), Some(524));
        assert_eq!(code(NLMSG_ERROR, 0), Some(0));
        assert_eq!(code(NLMSG_DONE, 0), Some(0));
        assert_eq!(code(10 << 8 | 3, 0), None);
        let cut_off =
            Received { kind: NLMSG_ERROR, flags: 0, sequence: 0, port: 0, bytes: &[0; 5] };
        assert_eq!(cut_off.code(), None);
    }

    #[test]
    fn a_datagram_is_read_up_to_what_is_wrong() {
        let mut datagram = [message(NLMSG_DONE, 0), message(16, 0)].concat();
        let kinds = |datagram: &[u8]| {
            messages(datagram).map(|it| it.map(|it| it.kind).ok()).collect::<Vec<_>>()
        };
        assert_eq!(kinds(&datagram), [Some(NLMSG_DONE), Some(16)]);
        datagram.extend([0; 3]);
        assert_eq!(kinds(&datagram), [Some(NLMSG_DONE), Some(16), None]);
        datagram.truncate(50);
        assert_eq!(kinds(&datagram), [Some(NLMSG_DONE), None]);
        assert_eq!(kinds(&[]), []);
    }
}
