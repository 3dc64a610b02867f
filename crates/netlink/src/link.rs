//! Links: interfaces of every kind.

use std::fmt;
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth,
    LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage, State,
};
use nix::errno::Errno;

use crate::{Error, Request, Socket};

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct HardwareAddress(pub [u8; 6]);

impl HardwareAddress {
    /// Reads `00:11:22:33:44:55`; `-` and `.` (in groups of four digits) separate as well, as Go's
    /// `net.ParseMAC` has it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits: Vec<u8> = if text.len() == 14 && text.split('.').all(|group| group.len() == 4) {
            text.bytes().filter(|byte| *byte != b'.').collect()
        } else {
            let separator = text.chars().nth(2).filter(|c| matches!(c, ':' | '-'))?;
            let groups: Vec<&str> = text.split(separator).collect();
            if groups.len() != 6 || groups.iter().any(|group| group.len() != 2) {
                return None;
            }
            groups.concat().into_bytes()
        };
        let mut octets = [0; 6];
        for (octet, pair) in octets.iter_mut().zip(digits.chunks(2)) {
            let digit = |byte: &u8| char::from(*byte).to_digit(16);
            let [high, low] = pair else { return None };
            *octet = u8::try_from(digit(high)? << 4 | digit(low)?).ok()?;
        }
        (digits.len() == 12).then_some(Self(octets))
    }

    /// Whether it is the address of nothing: a bridge without ports may have it.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self == Self::default()
    }
}

impl fmt::Display for HardwareAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(formatter, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

/// What is known of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Index in its namespace.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Hardware address, if it has one of six bytes.
    pub mac: Option<HardwareAddress>,
    /// `bridge`, `veth`...; empty for what has no kind (hardware, loopback).
    pub kind: String,
    /// Bytes.
    pub mtu: u32,
    /// Whether it is set up.
    pub is_up: bool,
    /// Whether promiscuous mode was asked for.
    pub is_promiscuous: bool,
    /// Whether it is a loopback.
    pub is_loopback: bool,
    /// RFC 2863 state.
    pub oper_state: State,
    /// Index of its bridge (or other controller).
    pub controller: Option<u32>,
    /// A veth's peer: its index, in its own namespace.
    pub peer: Option<u32>,
}

impl Link {
    /// The hardware address as results show it; empty when there is none.
    #[must_use]
    pub fn mac_text(&self) -> String {
        self.mac.map(|mac| mac.to_string()).unwrap_or_default()
    }

    fn from_message(message: LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            mac: None,
            kind: String::new(),
            mtu: 0,
            is_up: flags.contains(LinkFlags::Up),
            is_promiscuous: flags.contains(LinkFlags::Promisc),
            is_loopback: flags.contains(LinkFlags::Loopback),
            oper_state: State::Unknown,
            controller: None,
            peer: None,
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Address(bytes) => {
                    link.mac = bytes.try_into().ok().map(HardwareAddress);
                }
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::OperState(state) => link.oper_state = state,
                LinkAttribute::Controller(index) => link.controller = Some(index),
                LinkAttribute::Link(index) => link.peer = Some(index),
                LinkAttribute::LinkInfo(infos) => {
                    for info in infos {
                        if let LinkInfo::Kind(kind) = info {
                            link.kind = kind.to_string();
                        }
                    }
                }
                _ => {}
            }
        }
        link
    }
}

/// A bridge to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeSpec<'a> {
    /// Name.
    pub name: &'a str,
    /// Bytes; `None` leaves the kernel's default.
    pub mtu: Option<u32>,
    /// Hardware address; `None` has the bridge take the lowest of its ports', which changes as they
    /// come and go.
    pub mac: Option<HardwareAddress>,
    /// Whether it filters VLANs.
    pub vlan_filtering: bool,
}

/// A veth pair to create: one end here, the peer in a container's namespace.
#[derive(Debug, Clone)]
pub struct VethSpec<'a> {
    /// Name of the end in the socket's namespace.
    pub name: &'a str,
    /// Its hardware address.
    pub mac: HardwareAddress,
    /// Index of the bridge that it becomes a port of.
    pub bridge: Option<u32>,
    /// The peer's name.
    pub peer_name: &'a str,
    /// The peer's hardware address.
    pub peer_mac: HardwareAddress,
    /// The peer's namespace.
    pub peer_netns: BorrowedFd<'a>,
    /// Bytes, of both; `None` leaves the kernel's default.
    pub mtu: Option<u32>,
}

/// Options of a bridge port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PortOptions {
    /// Frames may go back to where they came from.
    pub hairpin: bool,
    /// No traffic to other isolated ports.
    pub isolated: bool,
}

fn message(index: u32, attributes: Vec<LinkAttribute>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes = attributes;
    message
}

fn with_flags(mut message: LinkMessage, on: LinkFlags, mask: LinkFlags) -> LinkMessage {
    message.header.flags = on;
    message.header.change_mask = mask;
    message
}

impl Request {
    /// Creates a bridge.
    #[must_use]
    pub fn create_bridge(spec: &BridgeSpec<'_>) -> Self {
        let mut info = vec![LinkInfo::Kind(InfoKind::Bridge)];
        if spec.vlan_filtering {
            info.push(LinkInfo::Data(InfoData::Bridge(vec![InfoBridge::VlanFiltering(true)])));
        }
        let mut attributes = vec![LinkAttribute::IfName(spec.name.to_owned())];
        attributes.extend(spec.mtu.map(LinkAttribute::Mtu));
        attributes.extend(spec.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
        attributes.push(LinkAttribute::LinkInfo(info));
        let what = format!("create bridge {:?}", spec.name);
        let message = RouteNetlinkMessage::NewLink(message(0, attributes));
        Self::new(what, message, NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Creates a veth pair with its near end up, and on its bridge.
    ///
    /// Both hardware addresses are given, because udev replaces those that the kernel made up. So
    /// is the number of queues: unasked the kernel makes one for each processor and then takes all
    /// but one away again, with all links locked (`veth_init_queues`).
    #[must_use]
    pub fn create_veth(spec: &VethSpec<'_>) -> Self {
        let ends = |name: &str, mac: HardwareAddress| {
            let mut attributes = vec![
                LinkAttribute::IfName(name.to_owned()),
                LinkAttribute::Address(mac.0.to_vec()),
                LinkAttribute::NumTxQueues(1),
                LinkAttribute::NumRxQueues(1),
            ];
            attributes.extend(spec.mtu.map(LinkAttribute::Mtu));
            attributes
        };
        let mut far = ends(spec.peer_name, spec.peer_mac);
        far.push(LinkAttribute::NetNsFd(spec.peer_netns.as_raw_fd()));
        let mut near = ends(spec.name, spec.mac);
        near.extend(spec.bridge.map(LinkAttribute::Controller));
        near.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(message(0, far)))),
        ]));
        let near = with_flags(message(0, near), LinkFlags::Up, LinkFlags::Up);
        let what = format!("create veth pair {:?} and {:?}", spec.name, spec.peer_name);
        Self::new(what, RouteNetlinkMessage::NewLink(near), NLM_F_CREATE | NLM_F_EXCL)
    }

    fn set_link(what: String, message: LinkMessage) -> Self {
        Self::new(what, RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Sets a link up.
    #[must_use]
    pub fn set_up(index: u32, name: &str) -> Self {
        let message = with_flags(message(index, Vec::new()), LinkFlags::Up, LinkFlags::Up);
        Self::set_link(format!("set {name:?} up"), message)
    }

    /// Sets a link down.
    #[must_use]
    pub fn set_down(index: u32, name: &str) -> Self {
        let message = with_flags(message(index, Vec::new()), LinkFlags::empty(), LinkFlags::Up);
        Self::set_link(format!("set {name:?} down"), message)
    }

    /// Puts a link into promiscuous mode.
    #[must_use]
    pub fn set_promiscuous(index: u32, name: &str) -> Self {
        let message =
            with_flags(message(index, Vec::new()), LinkFlags::Promisc, LinkFlags::Promisc);
        Self::set_link(format!("put {name:?} into promiscuous mode"), message)
    }

    /// Sets a link's hardware address.
    #[must_use]
    pub fn set_mac(index: u32, name: &str, mac: HardwareAddress) -> Self {
        let attributes = vec![LinkAttribute::Address(mac.0.to_vec())];
        Self::set_link(format!("set the MAC address of {name:?}"), message(index, attributes))
    }

    /// Sets the options of a bridge port.
    #[must_use]
    pub fn set_port_options(index: u32, name: &str, options: PortOptions) -> Self {
        let info = vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(vec![
                InfoBridgePort::HairpinMode(options.hairpin),
                InfoBridgePort::Isolated(options.isolated),
            ])),
        ];
        // A port's options go by RTM_NEWLINK without NLM_F_CREATE; RTM_SETLINK ignores them.
        let message = message(index, vec![LinkAttribute::LinkInfo(info)]);
        let what = format!("set the bridge port options of {name:?}");
        Self::new(what, RouteNetlinkMessage::NewLink(message), 0)
    }

    /// Deletes a link.
    #[must_use]
    pub fn delete_link(name: &str) -> Self {
        let attributes = vec![LinkAttribute::IfName(name.to_owned())];
        let message = RouteNetlinkMessage::DelLink(message(0, attributes));
        Self::new(format!("delete link {name:?}"), message, 0)
    }

    /// Asks for one link, leaving out its statistics (more than half of the answer).
    fn get_link(what: String, index: u32, name: Option<&str>) -> Self {
        let mut attributes = vec![LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])];
        attributes.extend(name.map(|name| LinkAttribute::IfName(name.to_owned())));
        Self::new(what, RouteNetlinkMessage::GetLink(message(index, attributes)), 0)
    }
}

impl Socket {
    /// The link of that name; `None` when there is none.
    ///
    /// # Errors
    /// [`Error`].
    pub fn link_by_name(&mut self, name: &str) -> Result<Option<Link>, Error> {
        self.find_link(&Request::get_link(format!("look up link {name:?}"), 0, Some(name)))
    }

    /// The link of that index; `None` when there is none.
    ///
    /// # Errors
    /// [`Error`].
    pub fn link_by_index(&mut self, index: u32) -> Result<Option<Link>, Error> {
        self.find_link(&Request::get_link(format!("look up link {index}"), index, None))
    }

    fn find_link(&mut self, request: &Request) -> Result<Option<Link>, Error> {
        match self.execute_and_get(std::slice::from_ref(request)) {
            Ok(messages) => Ok(links(messages).next()),
            Err(error) if error.errno() == Some(Errno::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates a link by `request` and looks it up, in one exchange.
    ///
    /// # Errors
    /// [`Error`]; the link does not exist then.
    pub fn create_link(&mut self, request: Request, name: &str) -> Result<Link, Error> {
        let look_up = Request::get_link(format!("look up link {name:?}"), 0, Some(name));
        let what = look_up.what.clone();
        let messages = self.execute_and_get(&[request, look_up])?;
        let problem = "the new link is not there".into();
        links(messages).next().ok_or(Error::Answer { what, problem })
    }

    /// Carries out `requests` and looks the link up, in one exchange.
    ///
    /// Asked for a link, the kernel first finishes what follows from its carrier (operational
    /// state, queueing); left alone it does so later and drops what is sent until then
    /// (`linkwatch_sync_dev`).
    ///
    /// # Errors
    /// [`Error`], also when the link does not exist.
    pub fn execute_and_look_up(
        &mut self,
        mut requests: Vec<Request>,
        index: u32,
    ) -> Result<Link, Error> {
        let look_up = Request::get_link(format!("look up link {index}"), index, None);
        let what = look_up.what.clone();
        requests.push(look_up);
        let messages = self.execute_and_get(&requests)?;
        let problem = "the link is not there".into();
        links(messages).next().ok_or(Error::Answer { what, problem })
    }

    /// Both links by index, in one exchange.
    ///
    /// # Errors
    /// [`Error`], also when one of them does not exist.
    pub fn link_pair(&mut self, first: u32, second: u32) -> Result<(Link, Link), Error> {
        let request = |index| Request::get_link(format!("look up link {index}"), index, None);
        let messages = self.execute_and_get(&[request(first), request(second)])?;
        let mut links = links(messages);
        match (links.next(), links.next()) {
            (Some(first), Some(second)) => Ok((first, second)),
            _ => Err(Error::Answer {
                what: format!("look up links {first} and {second}"),
                problem: "one is missing".into(),
            }),
        }
    }
}

fn links(messages: Vec<RouteNetlinkMessage>) -> impl Iterator<Item = Link> {
    messages.into_iter().filter_map(|message| match message {
        RouteNetlinkMessage::NewLink(message) => Some(Link::from_message(message)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_addresses_are_read_as_go_reads_them() {
        let expected = HardwareAddress([0x02, 0, 0x5e, 0x10, 0xab, 1]);
        for text in ["02:00:5e:10:ab:01", "02-00-5E-10-AB-01", "0200.5e10.ab01"] {
            assert_eq!(HardwareAddress::parse(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "02:00:5e:10:ab",
            "02:00:5e:10:ab:1",
            "02:00:5e:10:ab:zz",
            "02-00:5e-10-ab-01",
            "é2:00:5e:10:ab:01",
        ] {
            assert_eq!(HardwareAddress::parse(text), None, "{text}");
        }
        assert_eq!(expected.to_string(), "02:00:5e:10:ab:01");
    }
}
