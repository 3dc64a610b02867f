//! What the kernel calls at its hooks (`include/uapi/linux/netfilter/nfnetlink_hook.h`), since Linux 5.14: the one way to
//! find a hook's chains without a list of all chains, of which a service proxy has tens of thousands.

use netlink_packet_core::NLM_F_DUMP;
use ruleset::nft::{Family, Hook};

use crate::attributes::{find, network_number, text};
use crate::netfilter::message::{INET, IPV4, IPV6, Message, NETDEV};

const SUBSYSTEM: u8 = 12;
const GET_HOOKS: [u8; 2] = [SUBSYSTEM, 0];
const HOOK_NUMBER: u16 = 1;
const HOOK_INTERFACE: u16 = 3;
const HOOK_CHAIN: u16 = 6;
const CHAIN_DESCRIPTION: u16 = 1;
const CHAIN_KIND: u16 = 2;
/// `NFNL_HOOK_TYPE_NFTABLES`.
const OF_NFTABLES: u32 = 1;
const TABLE: u16 = 1;
const FAMILY: u16 = 2;
const NAME: u16 = 3;

/// What IP has hooks for: chains of the family inet are told of for both.
pub(super) const PROTOCOLS: [u8; 2] = [IPV4, IPV6];

/// A base chain of nf_tables.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) family: Family,
    pub(super) table: String,
    pub(super) chain: String,
}

/// Asks for what is called at a hook of a protocol.
pub(super) fn list(protocol: u8, hook: Hook<'_>) -> Message {
    let message = Message::new(GET_HOOKS, NLM_F_DUMP, protocol, 0);
    let message = message.attribute(HOOK_NUMBER, &hook.number().to_be_bytes());
    hook.interface().into_iter().fold(message, |message, it| message.text(HOOK_INTERFACE, it))
}

/// The base chain that is called, if it is one of IP or of single interfaces.
pub(super) fn read(called: &[u8]) -> Option<Place> {
    let chain = find(called, HOOK_CHAIN)?;
    find(chain, CHAIN_KIND).and_then(network_number).filter(|kind| *kind == OF_NFTABLES)?;
    let description = find(chain, CHAIN_DESCRIPTION)?;
    let family = match *find(description, FAMILY)?.first()? {
        IPV4 => Family::Ip,
        IPV6 => Family::Ip6,
        INET => Family::Inet,
        NETDEV => Family::Netdev,
        _ => return None,
    };
    let name = |kind| find(description, kind).map(text);
    Some(Place { family, table: name(TABLE)?, chain: name(NAME)? })
}
