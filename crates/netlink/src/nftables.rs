//! Whether nf_tables has a chain: one question, for those who would otherwise start a program to
//! find that there is nothing to do.

use std::io;

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::sys::socket::MsgFlags;

use crate::Error;

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETCHAIN`.
const GET_CHAIN: u16 = 10 << 8 | 4;
/// `NFT_MSG_NEWCHAIN` of the same subsystem: the answer.
const NEW_CHAIN: u16 = 10 << 8 | 3;
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_HEADER: usize = 16;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
/// An answer is shorter; what is cut off is not looked at.
const ANSWER: usize = 4096;

/// Whether table `table` of IPv4 or IPv6 has chain `chain`, in the calling thread's namespace. A
/// kernel without nf_tables has none.
///
/// # Errors
/// [`Error`], also without CAP_NET_ADMIN, which nf_tables asks of every question.
pub fn has_chain(is_ipv4: bool, table: &str, chain: &str) -> Result<bool, Error> {
    let what = || format!("look for chain {chain:?} in nf_tables");
    let failed = |source: io::Error| Error::Socket { what: what(), source };
    let socket = match Socket::new(NETLINK_NETFILTER) {
        Err(error) if error.raw_os_error() == Some(Errno::EPROTONOSUPPORT as i32) => {
            return Ok(false);
        }
        result => result.map_err(failed)?,
    };
    socket.send_to(&question(is_ipv4, table, chain), &SocketAddr::new(0, 0), 0).map_err(failed)?;
    let mut answer = Vec::with_capacity(ANSWER);
    // The kernel has queued its answer when the question is sent: there is nothing to wait for.
    socket.recv(&mut answer, MsgFlags::MSG_DONTWAIT.bits()).map_err(failed)?;
    match verdict(&answer) {
        Some(Ok(is_there)) => Ok(is_there),
        Some(Err(errno)) => Err(Error::Refused { what: what(), explanation: String::new(), errno }),
        None => Err(Error::Answer { what: what(), problem: "it is no answer".into() }),
    }
}

fn question(is_ipv4: bool, table: &str, chain: &str) -> Vec<u8> {
    // nfgenmsg: the protocol family, version 0, no resource.
    let mut body = vec![if is_ipv4 { 2 } else { 10 }, 0, 0, 0];
    for (kind, text) in [(NFTA_CHAIN_TABLE, table), (NFTA_CHAIN_NAME, chain)] {
        let length = u16::try_from(4 + text.len() + 1).unwrap_or(u16::MAX);
        body.extend(length.to_ne_bytes());
        body.extend(kind.to_ne_bytes());
        body.extend(text.bytes());
        body.push(0);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    let length = u32::try_from(NLMSG_HEADER + body.len()).unwrap_or(u32::MAX);
    let mut message = Vec::from(length.to_ne_bytes());
    message.extend(GET_CHAIN.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    // Sequence and port: one question, one answer.
    message.extend([0; 8]);
    message.extend(body);
    message
}

/// What an answer says; `None` when it is none.
fn verdict(answer: &[u8]) -> Option<Result<bool, Errno>> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    if kind == NEW_CHAIN {
        return Some(Ok(true));
    }
    if kind != NLMSG_ERROR {
        return None;
    }
    let code = i32::from_ne_bytes(answer.get(NLMSG_HEADER..NLMSG_HEADER + 4)?.try_into().ok()?);
    Some(match Errno::from_raw(code.saturating_abs()) {
        // Neither the table nor the chain, or (EINVAL, EOPNOTSUPP) not even nf_tables.
        Errno::ENOENT | Errno::EINVAL | Errno::EOPNOTSUPP => Ok(false),
        errno => Err(errno),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_answer(errno: Errno) -> Vec<u8> {
        let mut answer = vec![36, 0, 0, 0];
        answer.extend(NLMSG_ERROR.to_ne_bytes());
        answer.extend([0; 10]);
        answer.extend((-(errno as i32)).to_ne_bytes());
        answer
    }

    #[test]
    fn only_a_clear_no_is_a_no() {
        assert_eq!(verdict(&error_answer(Errno::ENOENT)), Some(Ok(false)));
        assert_eq!(verdict(&error_answer(Errno::EINVAL)), Some(Ok(false)));
        assert_eq!(verdict(&error_answer(Errno::EPERM)), Some(Err(Errno::EPERM)));
        assert_eq!(verdict(&[0; 5]), None);
        assert_eq!(verdict(&[0; 40]), None);
    }

    #[test]
    fn attributes_are_padded() {
        let question = question(true, "nat", "CNI-x");
        assert_eq!(question.len(), 16 + 4 + 8 + 12);
        assert_eq!(question[..4], 40u32.to_ne_bytes());
    }
}
