//! Links as the kernel tells of them, read in place: an answer has some sixty attributes, of which
//! nine are needed.

use netlink_packet_route::link::State;

use super::{BridgeFiltering, Link};
use crate::HardwareAddress;
use crate::attributes::{attributes, find, number, text};

const LINK_HEADER: usize = 16;
const IFF_UP: u32 = 1;
const IFF_LOOPBACK: u32 = 1 << 3;
const IFF_PROMISC: u32 = 1 << 8;
const IFF_ALLMULTI: u32 = 1 << 9;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_TXQLEN: u16 = 13;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const IFLA_BR_NF_CALL_IPTABLES: u16 = 36;
const IFLA_BR_NF_CALL_IP6TABLES: u16 = 37;
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
        tx_queue_length: 0,
        is_up: flags & IFF_UP != 0,
        is_promiscuous: flags & IFF_PROMISC != 0,
        is_all_multicast: flags & IFF_ALLMULTI != 0,
        is_loopback: flags & IFF_LOOPBACK != 0,
        oper_state: State::Unknown,
        controller: None,
        peer: None,
        alias: None,
        filtering: None,
        is_isolated: false,
        accepts_advertisements: None,
    };
    for (kind, payload) in attributes(message.get(LINK_HEADER..)?) {
        match kind {
            IFLA_ADDRESS => link.mac = payload.try_into().ok().map(HardwareAddress),
            IFLA_IFNAME => link.name = text(payload),
            IFLA_MTU => link.mtu = number(payload)?,
            IFLA_TXQLEN => link.tx_queue_length = number(payload)?,
            IFLA_LINK => link.peer = number(payload),
            IFLA_IFALIAS => link.alias = Some(text(payload)),
            IFLA_MASTER => link.controller = number(payload),
            IFLA_OPERSTATE => link.oper_state = State::from(*payload.first()?),
            // Hardware that is a port has only the kind of what it is a port of.
            IFLA_LINKINFO => {
                link.kind = find(payload, IFLA_INFO_KIND).map(text).unwrap_or_default();
                if link.kind == "bridge" {
                    link.filtering = find(payload, IFLA_INFO_DATA).and_then(filtering);
                }
                let port = find(payload, IFLA_INFO_SLAVE_DATA);
                let isolated = port.and_then(|port| find(port, IFLA_BRPORT_ISOLATED));
                link.is_isolated = isolated.is_some_and(|it| it != [0]);
            }
            IFLA_AF_SPEC => link.accepts_advertisements = accepts_advertisements(payload),
            _ => {}
        }
    }
    Some(link)
}

fn filtering(bridge: &[u8]) -> Option<BridgeFiltering> {
    let is_on = |kind| Some(*find(bridge, kind)?.first()? != 0);
    Some(BridgeFiltering {
        ipv4: is_on(IFLA_BR_NF_CALL_IPTABLES)?,
        ipv6: is_on(IFLA_BR_NF_CALL_IP6TABLES)?,
    })
}

fn accepts_advertisements(families: &[u8]) -> Option<bool> {
    let conf = find(find(families, AF_INET6)?, IFLA_INET6_CONF)?;
    let value = conf.get(DEVCONF_ACCEPT_RA * 4..)?.get(..4)?;
    Some(number(value)? != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + payload.len()).unwrap();
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(attributes: &[Vec<u8>]) -> Vec<u8> {
        let header = [0, 7, IFF_UP | IFF_PROMISC | IFF_ALLMULTI, 0].map(u32::to_ne_bytes).concat();
        [header, attributes.concat()].concat()
    }

    #[test]
    fn hardware_that_is_a_port_has_no_kind() {
        const IFLA_INFO_SLAVE_KIND: u16 = 4;
        let info = attribute(IFLA_INFO_SLAVE_KIND, b"bridge\0");
        let mut conf = vec![0; DEVCONF_ACCEPT_RA * 4];
        conf.extend(2u32.to_ne_bytes());
        let ipv6 = attribute(AF_INET6, &attribute(IFLA_INET6_CONF, &conf));
        let link = read(&message(&[
            attribute(IFLA_IFNAME, b"eth0\0"),
            attribute(IFLA_MTU, &1500u32.to_ne_bytes()),
            attribute(IFLA_TXQLEN, &500u32.to_ne_bytes()),
            attribute(IFLA_LINKINFO, &info),
            attribute(IFLA_AF_SPEC, &ipv6),
        ]))
        .unwrap();
        assert_eq!((link.index, link.name.as_str(), link.mtu), (7, "eth0", 1500));
        assert_eq!((link.kind.as_str(), link.accepts_advertisements), ("", Some(true)));
        assert_eq!(link.tx_queue_length, 500);
        assert!(link.is_up && link.is_promiscuous && link.is_all_multicast && !link.is_loopback);
    }

    #[test]
    fn what_is_cut_off_is_no_link() {
        let whole = message(&[attribute(IFLA_MTU, &1500u32.to_ne_bytes())]);
        assert!(read(&whole).is_some());
        assert!(read(&whole[..15]).is_none());
        assert_eq!(read(&whole[..20]).unwrap().mtu, 0);
        assert!(read(&message(&[attribute(IFLA_MTU, &[1, 2])])).is_none());
    }
}
