//! What rules are made of, as far as it is written here: each expression reads or fills registers,
//! and one that does not match ends the rule.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use ruleset::iptables::Side;
use ruleset::nft::{Family, Match, Rule, Verdict};

use crate::netfilter::message::{IPV4, IPV6, Message};

const LIST_ELEMENT: u16 = 1;
const NAME: u16 = 1;
const DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
/// Has room for the name of an interface (`NFT_REG_1`).
const REGISTER: [u8; 4] = 1_u32.to_be_bytes();
/// `NFT_REG_VERDICT`.
const VERDICT_REGISTER: [u8; 4] = 0_u32.to_be_bytes();

/// The name of a link is shorter (`IFNAMSIZ`).
pub(super) const NAME_ROOM: usize = 16;

/// Types of frames (`ETH_P_IP`, `ETH_P_IPV6`, `ETH_P_ARP`).
pub(super) const IPV4_FRAME: u16 = 0x0800;
pub(super) const IPV6_FRAME: u16 = 0x86dd;
pub(super) const ARP_FRAME: u16 = 0x0806;

/// Which of a frame's interfaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interface {
    /// By which it came.
    In,
    /// By which it goes.
    Out,
}

/// All of a rule's.
pub(super) fn expressions(message: Message, family: Family, rule: &Rule) -> Message {
    let (mut message, mut known) = (message, None);
    for it in &rule.matches {
        if let Match::Address(_, network) | Match::NotAddress(_, network) = it
            && known.replace(network.is_ipv4()) != Some(network.is_ipv4())
        {
            message = match family {
                Family::Ip | Family::Ip6 => message,
                Family::Inet => of_family(message, network.is_ipv4()),
                Family::Bridge | Family::Netdev => of_protocol(message, network.is_ipv4()),
            };
        }
        message = match it {
            Match::Address(side, network) => address(message, *side, network, EQUAL),
            Match::NotAddress(side, network) => address(message, *side, network, NOT_EQUAL),
            Match::Arp => of_type(message, ARP_FRAME),
            Match::HeaderBytes { place, value } => {
                compare(load(message, NETWORK_HEADER, *place, value.len()), EQUAL, value)
            }
            Match::Fragment => fragment(message),
            Match::FragmentHeader => fragment_header(message),
            Match::Protocol(number) => {
                compare(load_meta(message, TRANSPORT_PROTOCOL), EQUAL, &[*number])
            }
            Match::FirstByte(value) => {
                compare(load(message, TRANSPORT_HEADER, 0, 1), EQUAL, &[*value])
            }
            Match::InInterface(name) => came_through(message, name),
            Match::HardwareSource(address) => hardware_source(message, *address),
        };
    }
    verdict(message, &rule.verdict)
}

fn expression(message: Message, name: &str, fill: impl FnOnce(Message) -> Message) -> Message {
    message.nested(LIST_ELEMENT, |it| it.text(NAME, name).nested(DATA, fill))
}

const LINK_HEADER: u32 = 0;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
/// `NFT_CMP_EQ`, `NFT_CMP_NEQ`.
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
/// `NFT_META_PROTOCOL`, `NFT_META_IIFNAME`, `NFT_META_OIFNAME`, `NFT_META_NFPROTO`.
const PROTOCOL: u32 = 1;
const INTERFACE_IN: u32 = 6;
const INTERFACE_OUT: u32 = 7;
const NF_PROTOCOL: u32 = 15;
/// `NFT_META_L4PROTO`.
const TRANSPORT_PROTOCOL: u32 = 16;

fn load(message: Message, header: u32, offset: u32, length: usize) -> Message {
    const TO: u16 = 1;
    const BASE: u16 = 2;
    const OFFSET: u16 = 3;
    const LENGTH: u16 = 4;
    let length = u32::try_from(length).unwrap_or_default();
    expression(message, "payload", |it| {
        it.attribute(TO, &REGISTER)
            .attribute(BASE, &header.to_be_bytes())
            .attribute(OFFSET, &offset.to_be_bytes())
            .attribute(LENGTH, &length.to_be_bytes())
    })
}

fn load_meta(message: Message, key: u32) -> Message {
    const TO: u16 = 1;
    const KEY: u16 = 2;
    expression(message, "meta", |it| it.attribute(TO, &REGISTER).attribute(KEY, &key.to_be_bytes()))
}

fn mask(message: Message, mask: &[u8]) -> Message {
    const FROM: u16 = 1;
    const TO: u16 = 2;
    const LENGTH: u16 = 3;
    const MASK: u16 = 4;
    const XOR: u16 = 5;
    let length = u32::try_from(mask.len()).unwrap_or_default();
    expression(message, "bitwise", |it| {
        it.attribute(FROM, &REGISTER)
            .attribute(TO, &REGISTER)
            .attribute(LENGTH, &length.to_be_bytes())
            .nested(MASK, |data| data.attribute(DATA_VALUE, mask))
            .nested(XOR, |data| data.attribute(DATA_VALUE, &vec![0; mask.len()]))
    })
}

fn compare(message: Message, operator: u32, value: &[u8]) -> Message {
    const FROM: u16 = 1;
    const OPERATOR: u16 = 2;
    const VALUE: u16 = 3;
    expression(message, "cmp", |it| {
        it.attribute(FROM, &REGISTER)
            .attribute(OPERATOR, &operator.to_be_bytes())
            .nested(VALUE, |data| data.attribute(DATA_VALUE, value))
    })
}

/// Goes on for what is part of a packet of IPv4: more follows it, or it does not begin at the beginning.
fn fragment(message: Message) -> Message {
    const FRAGMENT_OFFSET: u32 = 6;
    const MORE_OR_OFFSET: [u8; 2] = [0x3f, 0xff];
    let offset = mask(load(message, NETWORK_HEADER, FRAGMENT_OFFSET, 2), &MORE_OR_OFFSET);
    compare(offset, NOT_EQUAL, &[0, 0])
}

/// Goes on for what has IPv6's header of fragments, wherever it is among its headers.
fn fragment_header(message: Message) -> Message {
    const TO: u16 = 1;
    const KIND: u16 = 2;
    const OFFSET: u16 = 3;
    const LENGTH: u16 = 4;
    const FLAGS: u16 = 5;
    const FRAGMENT: u8 = 44;
    /// `NFT_EXTHDR_F_PRESENT`: whether there is one, and not what is in it.
    const PRESENT: u32 = 1;
    let exists = expression(message, "exthdr", |it| {
        it.attribute(TO, &REGISTER)
            .attribute(KIND, &[FRAGMENT])
            .attribute(OFFSET, &0_u32.to_be_bytes())
            .attribute(LENGTH, &1_u32.to_be_bytes())
            .attribute(FLAGS, &PRESENT.to_be_bytes())
    });
    compare(exists, EQUAL, &[1])
}

/// Goes on for packets of an IP family, in a table that has both.
fn of_family(message: Message, is_ipv4: bool) -> Message {
    let family = if is_ipv4 { IPV4 } else { IPV6 };
    compare(load_meta(message, NF_PROTOCOL), EQUAL, &[family])
}

/// The same, in a table of frames.
fn of_protocol(message: Message, is_ipv4: bool) -> Message {
    of_type(message, if is_ipv4 { IPV4_FRAME } else { IPV6_FRAME })
}

fn of_type(message: Message, kind: u16) -> Message {
    compare(load_meta(message, PROTOCOL), EQUAL, &kind.to_be_bytes())
}

/// Goes on for packets whose address is in the network, or is not. Only as many bytes are loaded as the
/// prefix fills, as nft does it.
fn address(message: Message, side: Side, network: &IpNetwork, operator: u32) -> Message {
    let (bytes, offset) = match (network.network(), side) {
        (IpAddr::V4(it), Side::Source) => (it.octets().to_vec(), 12),
        (IpAddr::V4(it), Side::Destination) => (it.octets().to_vec(), 16),
        (IpAddr::V6(it), Side::Source) => (it.octets().to_vec(), 8),
        (IpAddr::V6(it), Side::Destination) => (it.octets().to_vec(), 24),
    };
    let prefix = usize::from(network.prefix());
    // Of an empty prefix something is loaded and masked away.
    if prefix > 0 && prefix.is_multiple_of(8) {
        let bytes = bytes.get(..prefix / 8).unwrap_or_default();
        return compare(load(message, NETWORK_HEADER, offset, bytes.len()), operator, bytes);
    }
    let bits: Vec<u8> = match network.mask() {
        IpAddr::V4(it) => it.octets().to_vec(),
        IpAddr::V6(it) => it.octets().to_vec(),
    };
    let masked = mask(load(message, NETWORK_HEADER, offset, bytes.len()), &bits);
    compare(masked, operator, &bytes)
}

/// Goes on for frames from this hardware address.
fn hardware_source(message: Message, address: [u8; 6]) -> Message {
    const SOURCE_OFFSET: u32 = 6;
    let message = load(message, LINK_HEADER, SOURCE_OFFSET, address.len());
    compare(message, EQUAL, &address)
}

/// Goes on for packets that came through this interface.
fn came_through(message: Message, interface: &str) -> Message {
    let mut name = [0; NAME_ROOM];
    for (room, byte) in name.iter_mut().zip(interface.bytes().take(NAME_ROOM - 1)) {
        *room = byte;
    }
    compare(load_meta(message, INTERFACE_IN), EQUAL, &name)
}

/// Goes on for frames of other types than this. Of one with a tag the type is the tag's, wherever the
/// kernel keeps it (`nft_payload_copy_vlan`).
pub(super) fn not_frame_type(message: Message, kind: u16) -> Message {
    const TYPE_OFFSET: u32 = 12;
    compare(load(message, LINK_HEADER, TYPE_OFFSET, 2), NOT_EQUAL, &kind.to_be_bytes())
}

/// Goes on for frames whose interface has its name in a set.
pub(super) fn interface_in(message: Message, interface: Interface, set: &str) -> Message {
    let message = load_meta(
        message,
        match interface {
            Interface::In => INTERFACE_IN,
            Interface::Out => INTERFACE_OUT,
        },
    );
    const SET: u16 = 1;
    const FROM: u16 = 2;
    expression(message, "lookup", |it| it.text(SET, set).attribute(FROM, &REGISTER))
}

/// What happens to what came so far.
pub(super) fn verdict(message: Message, verdict: &Verdict) -> Message {
    const TO: u16 = 1;
    const VALUE: u16 = 2;
    const CODE: u16 = 1;
    const CHAIN: u16 = 2;
    const DROP: i32 = 0;
    const JUMP: i32 = -3;
    const GOTO: i32 = -4;
    const RETURN: i32 = -5;
    let is_counted = *verdict == Verdict::CountedDrop;
    let message = if is_counted { expression(message, "counter", |it| it) } else { message };
    let (code, chain) = match verdict {
        Verdict::Masquerade => return expression(message, "masq", |it| it),
        Verdict::Jump(chain) => (JUMP, Some(chain)),
        Verdict::Goto(chain) => (GOTO, Some(chain)),
        Verdict::Return => (RETURN, None),
        Verdict::Drop | Verdict::CountedDrop => (DROP, None),
    };
    expression(message, "immediate", |it| {
        it.attribute(TO, &VERDICT_REGISTER).nested(VALUE, |data| {
            data.nested(DATA_VERDICT, |data| {
                let data = data.attribute(CODE, &code.to_be_bytes());
                chain.into_iter().fold(data, |data, chain| data.text(CHAIN, chain))
            })
        })
    })
}
