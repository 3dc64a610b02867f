//! Requests that create, change and delete links.

use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet, AfSpecUnspec, InetDevConf, InfoBridge, InfoBridgePort, InfoData, InfoKind,
    InfoPortData, InfoPortKind, InfoVeth, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo,
    LinkMessage,
};

use crate::{HardwareAddress, Request};

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

/// Whose packets, going from one port of a bridge to another, are passed to iptables. Either these
/// or the parameters `net.bridge.bridge-nf-call-*` of the whole namespace suffice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BridgeFiltering {
    /// Those of IPv4, to iptables.
    pub ipv4: bool,
    /// Those of IPv6, to ip6tables.
    pub ipv6: bool,
}

impl BridgeFiltering {
    /// All packets.
    pub const BOTH: Self = Self { ipv4: true, ipv6: true };
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

/// Changes one flag of a link.
fn with_flag(index: u32, flag: LinkFlags, on: bool) -> LinkMessage {
    let mut message = message(index, Vec::new());
    message.header.flags.set(flag, on);
    message.header.change_mask = flag;
    message
}

const fn on_or_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
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
        let mut message = with_flag(0, LinkFlags::Up, true);
        message.attributes = near;
        let what = format!("create veth pair {:?} and {:?}", spec.name, spec.peer_name);
        Self::new(what, RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Creates an intermediate functional block: what is sent out by it comes back as if received
    /// where it came from, and can be limited on its way. It is up, and has no queue but that of a discipline.
    #[must_use]
    pub fn create_ifb(name: &str, mtu: u32) -> Self {
        let mut message = with_flag(0, LinkFlags::Up, true);
        message.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Mtu(mtu),
            LinkAttribute::TxQueueLen(0),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Ifb)]),
        ];
        let what = format!("create {name:?} of kind ifb (is the kernel's module ifb missing?)");
        Self::new(what, RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Gives a link a name besides its own, of up to 255 bytes.
    #[must_use]
    pub fn set_alias(index: u32, name: &str, alias: &str) -> Self {
        let attributes = vec![LinkAttribute::IfAlias(alias.to_owned())];
        Self::set_link(format!("set the alias of {name:?}"), message(index, attributes))
    }

    fn set_link(what: String, message: LinkMessage) -> Self {
        Self::new(what, RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Sets a link up.
    #[must_use]
    pub fn set_up(index: u32, name: &str) -> Self {
        Self::set_link(format!("set {name:?} up"), with_flag(index, LinkFlags::Up, true))
    }

    /// Sets a link down.
    #[must_use]
    pub fn set_down(index: u32, name: &str) -> Self {
        Self::set_link(format!("set {name:?} down"), with_flag(index, LinkFlags::Up, false))
    }

    /// Puts a link into promiscuous mode, or takes it out.
    #[must_use]
    pub fn set_promiscuous(index: u32, name: &str, on: bool) -> Self {
        let what = format!("turn promiscuous mode of {name:?} {}", on_or_off(on));
        Self::set_link(what, with_flag(index, LinkFlags::Promisc, on))
    }

    /// Has a link take all multicast packets, or those of its own groups alone.
    #[must_use]
    pub fn set_all_multicast(index: u32, name: &str, on: bool) -> Self {
        let what = format!("turn reception of all multicast by {name:?} {}", on_or_off(on));
        Self::set_link(what, with_flag(index, LinkFlags::Allmulti, on))
    }

    /// Sets a link's MTU, bytes.
    #[must_use]
    pub fn set_mtu(index: u32, name: &str, mtu: u32) -> Self {
        let message = message(index, vec![LinkAttribute::Mtu(mtu)]);
        Self::set_link(format!("set the MTU of {name:?} to {mtu}"), message)
    }

    /// Sets the length of a link's transmit queue, packets.
    #[must_use]
    pub fn set_tx_queue_length(index: u32, name: &str, packets: u32) -> Self {
        let message = message(index, vec![LinkAttribute::TxQueueLen(packets)]);
        Self::set_link(format!("set the transmit queue length of {name:?} to {packets}"), message)
    }

    /// Has a link announce its IPv4 addresses when it goes up, so that neighbours that knew them
    /// elsewhere hear of it (sysctl `arp_notify`).
    #[must_use]
    pub fn announce_addresses(index: u32, name: &str) -> Self {
        let mut conf = InetDevConf::default();
        conf.arp_notify = 1;
        let spec = AfSpecUnspec::Inet(vec![AfSpecInet::DevConfRequest(conf)]);
        let message = message(index, vec![LinkAttribute::AfSpecUnspec(vec![spec])]);
        Self::set_link(format!("have {name:?} announce its addresses"), message)
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
        let options = vec![
            InfoBridgePort::HairpinMode(options.hairpin),
            InfoBridgePort::Isolated(options.isolated),
        ];
        Self::set_port(index, name, options)
    }

    /// Has a bridge take nothing from this port to others of which the same was asked.
    #[must_use]
    pub fn isolate_port(index: u32, name: &str) -> Self {
        Self::set_port(index, name, vec![InfoBridgePort::Isolated(true)])
    }

    fn set_port(index: u32, name: &str, options: Vec<InfoBridgePort>) -> Self {
        let info = vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(options)),
        ];
        // A port's options go by RTM_NEWLINK without NLM_F_CREATE; RTM_SETLINK ignores them.
        let message = message(index, vec![LinkAttribute::LinkInfo(info)]);
        let what = format!("set the bridge port options of {name:?}");
        Self::new(what, RouteNetlinkMessage::NewLink(message), 0)
    }

    /// Sets whose packets a bridge passes to iptables.
    pub(super) fn set_bridge_filtering(index: u32, name: &str, filtering: BridgeFiltering) -> Self {
        let options = vec![
            InfoBridge::NfCallIpTables(filtering.ipv4),
            InfoBridge::NfCallIp6Tables(filtering.ipv6),
        ];
        let info =
            vec![LinkInfo::Kind(InfoKind::Bridge), LinkInfo::Data(InfoData::Bridge(options))];
        let message = message(index, vec![LinkAttribute::LinkInfo(info)]);
        let what = format!("have bridge {name:?} pass packets to iptables");
        Self::new(what, RouteNetlinkMessage::NewLink(message), 0)
    }

    /// Deletes a link.
    #[must_use]
    pub fn delete_link(name: &str) -> Self {
        let attributes = vec![LinkAttribute::IfName(name.to_owned())];
        let message = RouteNetlinkMessage::DelLink(message(0, attributes));
        Self::new(format!("delete link {name:?}"), message, 0)
    }

    /// Asks for all links, without statistics.
    pub(super) fn list_links() -> Self {
        let attributes = vec![LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])];
        let message = RouteNetlinkMessage::GetLink(message(0, attributes));
        Self::dump("list the links".into(), message)
    }

    /// Asks for one link, leaving out its statistics (more than half of the answer).
    pub(super) fn get_link(what: String, index: u32, name: Option<&str>) -> Self {
        let mut attributes = vec![LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])];
        attributes.extend(name.map(|name| LinkAttribute::IfName(name.to_owned())));
        Self::new(what, RouteNetlinkMessage::GetLink(message(index, attributes)), 0)
    }
}
