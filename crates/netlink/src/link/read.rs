//! Links as the kernel tells of them, read in place: an answer has some sixty attributes, of which
//! eight are needed.

use netlink_packet_route::link::State;

use super::Link;
use crate::HardwareAddress;
use crate::attributes::{attributes, find, number, text};

const LINK_HEADER: usize = 16;
const IFF_UP: u32 = 1;
const IFF_LOOPBACK: u32 = 1 << 3;
const IFF_PROMISC: u32 = 1 << 8;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_AF_SPEC: u16 = 26;
const AF_INET6: u16 = 10;
const IFLA_INET6_CONF: u16 = 2;
/// Place in the list of 32-bit numbers that `IFLA_INET6_CONF` is.
const DEVCONF_ACCEPT_RA: usize = 3;

/// Reads `ifinfomsg` and the attributes after it; `None` when it is cut off.
pub(crate) fn read(message: &[u8]) -> Option<Link> {
    let header = message.get(..LINK_HEADER)?;
    let flags = number(header.get(8..12)?)?;
    let mut link = Link {
        index: number(header.get(4..8)?)?,
        name: String::new(),
        mac: None,
        kind: String::new(),
        mtu: 0,
        is_up: flags & IFF_UP != 0,
        is_promiscuous: flags & IFF_PROMISC != 0,
        is_loopback: flags & IFF_LOOPBACK != 0,
        oper_state: State::Unknown,
        controller: None,
        peer: None,
        accepts_advertisements: None,
    };
    for (kind, payload) in attributes(message.get(LINK_HEADER..)?) {
        match kind {
            IFLA_ADDRESS => link.mac = payload.try_into().ok().map(HardwareAddress),
            IFLA_IFNAME => link.name = text(payload),
            IFLA_MTU => link.mtu = number(payload)?,
            IFLA_LINK => link.peer = number(payload),
            IFLA_MASTER => link.controller = number(payload),
            IFLA_OPERSTATE => link.oper_state = State::from(*payload.first()?),
            IFLA_LINKINFO => link.kind = find(payload, IFLA_INFO_KIND).map(text)?,
            IFLA_AF_SPEC => link.accepts_advertisements = accepts_advertisements(payload),
            _ => {}
        }
    }
    Some(link)
}

fn accepts_advertisements(families: &[u8]) -> Option<bool> {
    let conf = find(find(families, AF_INET6)?, IFLA_INET6_CONF)?;
    let value = conf.get(DEVCONF_ACCEPT_RA * 4..)?.get(..4)?;
    Some(number(value)? != 0)
}
