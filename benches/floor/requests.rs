//! The requests, each the bytes that podwire sends for it.

use crate::message::{CREATE, CREATE_NEW, DUMP, Messages};
use crate::netlink::{attributes, number};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETNETCONF: u16 = 82;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_NUM_TX_QUEUES: u16 = 31;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const RTEXT_FILTER_SKIP_STATS: u32 = 8;
const IFLA_INET_CONF: u16 = 1;
const DEVCONF_ARP_NOTIFY: u16 = 22;
const NESTED: u16 = 1 << 15;
const NETCONFA_IFINDEX: u16 = 1;
const NETCONFA_IFINDEX_ALL: u32 = u32::MAX;
const NETCONFA_FORWARDING: u16 = 2;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
/// No duplicate address detection.
pub(crate) const NODAD: u32 = 2;
/// No route to the address's network.
pub(crate) const NOPREFIXROUTE: u32 = 0x200;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PREFSRC: u16 = 7;
const MAIN_TABLE: u8 = 254;
const PROTOCOL_BOOT: u8 = 3;
const UNICAST: u8 = 1;
/// The destination is on the link.
pub(crate) const SCOPE_LINK: u8 = 253;
/// The destination is this host's.
pub(crate) const SCOPE_HOST: u8 = 254;

const UP: u32 = 1;

fn link(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut fixed = [0; 16];
    for (room, value) in fixed.chunks_exact_mut(4).skip(1).zip([index, flags, change]) {
        room.copy_from_slice(&value.to_ne_bytes());
    }
    fixed
}

/// The family's number.
fn family(address: &[u8]) -> u8 {
    let family = if address.len() == 4 { libc::AF_INET } else { libc::AF_INET6 };
    family as u8
}

/// A veth pair to create.
pub(crate) struct Pair<'a> {
    pub(crate) name: &'a str,
    pub(crate) mac: [u8; 6],
    pub(crate) bridge: Option<u32>,
    pub(crate) peer_name: &'a str,
    pub(crate) peer_mac: [u8; 6],
    pub(crate) peer_netns: u32,
}

/// A route through a link.
#[derive(Default)]
pub(crate) struct Route<'a> {
    pub(crate) dst: &'a [u8],
    pub(crate) prefix: u8,
    pub(crate) gateway: &'a [u8],
    pub(crate) source: &'a [u8],
    pub(crate) scope: u8,
    pub(crate) link: u32,
}

/// Whether an answer to [`Messages::forwarding`] says yes.
pub(crate) fn is_forwarding(message: &[u8]) -> bool {
    let mut forwards = false;
    attributes(message, 4, |kind, payload| {
        forwards |= kind == NETCONFA_FORWARDING && number(payload, 0) == Some(1);
    });
    forwards
}

impl Messages {
    pub(crate) fn link_by_name(&mut self, name: &str) {
        self.begin(RTM_GETLINK, 0, &link(0, 0, 0));
        self.number(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
        self.name(IFLA_IFNAME, name);
    }

    pub(crate) fn link_by_index(&mut self, index: u32) {
        self.begin(RTM_GETLINK, 0, &link(index, 0, 0));
        self.number(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
    }

    /// Has a link announce its IPv4 addresses when it goes up.
    pub(crate) fn announce_addresses(&mut self, index: u32) {
        self.begin(RTM_SETLINK, 0, &link(index, 0, 0));
        let families = self.open_nest(IFLA_AF_SPEC);
        let family = self.open_nest(libc::AF_INET as u16);
        let conf = self.open_nest(IFLA_INET_CONF | NESTED);
        self.number(DEVCONF_ARP_NOTIFY, 1);
        self.close_nest(conf);
        self.close_nest(family);
        self.close_nest(families);
    }

    /// Asks whether packets of a family are forwarded.
    pub(crate) fn forwarding(&mut self, family: i32) {
        self.begin(RTM_GETNETCONF, 0, &[family as u8, 0, 0, 0]);
        self.number(NETCONFA_IFINDEX, NETCONFA_IFINDEX_ALL);
    }

    pub(crate) fn set_up(&mut self, index: u32, flags: u16) {
        self.begin(RTM_SETLINK, flags, &link(index, UP, UP));
    }

    pub(crate) fn set_down(&mut self, index: u32, flags: u16) {
        self.begin(RTM_SETLINK, flags, &link(index, 0, UP));
    }

    pub(crate) fn delete_link(&mut self, name: &str, flags: u16) {
        self.begin(RTM_DELLINK, flags, &link(0, 0, 0));
        self.name(IFLA_IFNAME, name);
    }

    pub(crate) fn create_pair(&mut self, pair: &Pair<'_>) {
        self.begin(RTM_NEWLINK, CREATE_NEW, &link(0, UP, UP));
        self.name(IFLA_IFNAME, pair.name);
        self.attribute(IFLA_ADDRESS, &pair.mac);
        self.number(IFLA_NUM_TX_QUEUES, 1);
        self.number(IFLA_NUM_RX_QUEUES, 1);
        if let Some(bridge) = pair.bridge {
            self.number(IFLA_MASTER, bridge);
        }
        let info = self.open_nest(IFLA_LINKINFO);
        self.attribute(1, b"veth\0");
        let data = self.open_nest(2);
        let peer = self.open_nest(1);
        self.put(&link(0, 0, 0));
        self.name(IFLA_IFNAME, pair.peer_name);
        self.attribute(IFLA_ADDRESS, &pair.peer_mac);
        self.number(IFLA_NUM_TX_QUEUES, 1);
        self.number(IFLA_NUM_RX_QUEUES, 1);
        self.number(IFLA_NET_NS_FD, pair.peer_netns);
        self.close_nest(peer);
        self.close_nest(data);
        self.close_nest(info);
    }

    pub(crate) fn list_addresses(&mut self, link: u32) {
        let [a, b, c, d] = link.to_ne_bytes();
        self.begin(RTM_GETADDR, DUMP, &[0, 0, 0, 0, a, b, c, d]);
    }

    pub(crate) fn add_address(&mut self, link: u32, address: &[u8], prefix: u8, flags: u32) {
        let [a, b, c, d] = link.to_ne_bytes();
        let fixed = [family(address), prefix, 0, 0, a, b, c, d];
        self.begin(RTM_NEWADDR, CREATE_NEW, &fixed);
        self.attribute(IFA_LOCAL, address);
        self.attribute(IFA_ADDRESS, address);
        if let ([a, b, _, _], 16) = (address, prefix) {
            self.attribute(IFA_BROADCAST, &[*a, *b, 255, 255]);
        }
        if flags != 0 {
            self.number(IFA_FLAGS, flags);
        }
    }

    pub(crate) fn add_route(&mut self, route: &Route<'_>, flags: u16) {
        let Route { dst, prefix, gateway, source, scope, link } = *route;
        let some_address = if dst.is_empty() { gateway } else { dst };
        let fixed = [
            family(some_address),
            prefix,
            0,
            0,
            MAIN_TABLE,
            PROTOCOL_BOOT,
            scope,
            UNICAST,
            0,
            0,
            0,
            0,
        ];
        self.begin(RTM_NEWROUTE, CREATE | flags, &fixed);
        for (kind, address) in [(RTA_DST, dst), (RTA_GATEWAY, gateway), (RTA_PREFSRC, source)] {
            if !address.is_empty() {
                self.attribute(kind, address);
            }
        }
        self.number(RTA_OIF, link);
    }
}
