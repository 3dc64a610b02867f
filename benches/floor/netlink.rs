//! The exchange with the kernel.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

use crate::message::Messages;
use crate::system::Failure;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_MULTI: u16 = 2;
const HEADER: usize = 16;

/// An rtnetlink socket of the namespace in which it was opened.
pub(crate) struct Socket(OwnedFd);

impl Socket {
    pub(crate) fn open() -> Result<Self, Failure> {
        socket(
            AddressFamily::Netlink,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )
        .map(Self)
        .map_err(Failure::at("open a netlink socket"))
    }

    /// Has dumps filtered by the kernel.
    pub(crate) fn filter_dumps(&self) -> Result<(), Failure> {
        let on: libc::c_int = 1;
        #[expect(unsafe_code, reason = "nix does not know the option")]
        // SAFETY: the option's value is an int, of which address and size are given.
        let result = unsafe {
            libc::setsockopt(
                self.0.as_raw_fd(),
                libc::SOL_NETLINK,
                libc::NETLINK_GET_STRICT_CHK,
                (&raw const on).cast(),
                size_of_val(&on) as libc::socklen_t,
            )
        };
        if result == 0 { Ok(()) } else { Err(Failure::new("filter dumps", Errno::last())) }
    }

    /// Sends all messages in one call, and gives what is told to `see`, until the last is answered.
    pub(crate) fn exchange(
        &self,
        messages: &Messages,
        mut see: impl FnMut(&[u8]),
    ) -> Result<(), Failure> {
        let kernel = NetlinkAddr::new(0, 0);
        sendto(self.0.as_raw_fd(), messages.as_bytes(), &kernel, MsgFlags::empty())
            .map_err(Failure::at("send"))?;
        let mut buffer = [0; 8192];
        loop {
            let length = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT)
                .map_err(Failure::at("receive"))?;
            if take(buffer.get(..length).unwrap_or_default(), messages.sequence, &mut see)? {
                return Ok(());
            }
        }
    }
}

/// Reads one datagram; whether it ends the answer to message `last`.
fn take(mut datagram: &[u8], last: u32, see: &mut impl FnMut(&[u8])) -> Result<bool, Failure> {
    while let (Some(length), Some(sequence)) = (number(datagram, 0), number(datagram, 8)) {
        let kind = half(datagram, 4);
        let is_last = sequence == last;
        match kind {
            NLMSG_ERROR => {
                let code = number(datagram, HEADER).unwrap_or_default().cast_signed();
                if code != 0 {
                    return Err(Failure::new("refused by the kernel", Errno::from_raw(-code)));
                }
                if is_last {
                    return Ok(true);
                }
            }
            NLMSG_DONE => return Ok(is_last),
            _ => {
                see(datagram.get(..length as usize).unwrap_or_default());
                if is_last && half(datagram, 6) & NLM_F_MULTI == 0 {
                    return Ok(true);
                }
            }
        }
        datagram = datagram.get(length.next_multiple_of(4) as usize..).unwrap_or_default();
    }
    Ok(false)
}

/// The 32-bit number at `offset`.
pub(crate) fn number(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn half(bytes: &[u8], offset: usize) -> u16 {
    let bytes = bytes.get(offset..).and_then(<[u8]>::first_chunk);
    bytes.map_or(0, |bytes| u16::from_ne_bytes(*bytes))
}

/// Gives each attribute that follows the fixed part of `message` to `see`.
pub(crate) fn attributes(message: &[u8], fixed: usize, mut see: impl FnMut(u16, &[u8])) {
    let mut rest = message.get(HEADER + fixed..).unwrap_or_default();
    while let [l0, l1, t0, t1, ..] = *rest {
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let Some(payload) = rest.get(4..length) else { return };
        see(u16::from_ne_bytes([t0, t1]), payload);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
}
