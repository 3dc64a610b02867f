//! Messages of conntrack, written and read.

use std::net::IpAddr;

use netlink_packet_core::NLM_F_DUMP;

use super::{End, Filter, Flow, Mark, Status};
use crate::attributes::{attributes, find, network_number};
use crate::netfilter::message::{IPV4, IPV6, Message};
use crate::tuple::{ICMP, ICMPV6, Layer4, Tuple};

const SUBSYSTEM: u8 = 1;
pub(super) const NEW: [u8; 2] = [SUBSYSTEM, 0];
const GET: [u8; 2] = [SUBSYSTEM, 1];
pub(super) const DELETE: [u8; 2] = [SUBSYSTEM, 2];
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const STATUS: u16 = 3;
const PROTOCOL_INFO: u16 = 4;
const INFO_TCP: u16 = 1;
/// What is known of either direction.
const TCP_FLAGS: [u16; 2] = [4, 5];
/// `IP_CT_TCP_FLAG_BE_LIBERAL`. Set for both directions by `tcp_new` where it sees no beginning.
const TCP_LIBERAL: u8 = 8;
const MARK: u16 = 8;
const ID: u16 = 12;
const ZONE: u16 = 18;
const MARK_MASK: u16 = 21;
const FILTER: u16 = 25;
const FILTER_ORIGINAL: u16 = 1;
/// `CTA_FILTER_F_CTA_IP_SRC`, `_PROTO_NUM` and `_PROTO_DST_PORT`, which are in no public header.
const COMPARE_SOURCE: u32 = 1;
const COMPARE_PROTOCOL: u32 = 1 << 3;
const COMPARE_DESTINATION_PORT: u32 = 1 << 5;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const IP_V4: [u16; 2] = [1, 2];
const IP_V6: [u16; 2] = [3, 4];
const PROTOCOL_NUMBER: u16 = 1;
const SOURCE_PORT: u16 = 2;
const DESTINATION_PORT: u16 = 3;
/// Identifier, type and code of ICMP.
const ICMP_ATTRIBUTES: [u16; 3] = [4, 5, 6];
/// Those of ICMPv6.
const ICMPV6_ATTRIBUTES: [u16; 3] = [7, 8, 9];

const fn family(is_ipv4: bool) -> u8 {
    if is_ipv4 { IPV4 } else { IPV6 }
}

/// Asks for the flows that pass a filter, and for others: the kernel can compare only some of it
/// (older ones less), which saves reading most of the list.
pub(super) fn list(filter: &Filter) -> Message {
    let mut message = Message::new(GET, NLM_F_DUMP, family(filter.is_ipv4), 0);
    if let Some(mark) = filter.mark {
        message = put_mark(message, mark);
    }
    let mut compared = 0;
    // The kernel cannot be asked for other addresses: of IPv6 it leaves out just those that are equal
    // (`ctnetlink_filter_match_tuple`), and for replies kernels 5.8 to 5.16 that were not updated
    // compare with zeros.
    let source = match filter.end {
        Some(End::Source(source @ IpAddr::V4(_))) if filter.is_ipv4 => Some(source),
        _ => None,
    };
    if source.is_some() {
        compared |= COMPARE_SOURCE;
    }
    // Ports are compared with those of a protocol.
    if filter.protocol.is_some() {
        compared |= COMPARE_PROTOCOL;
        if filter.port.is_some() {
            compared |= COMPARE_DESTINATION_PORT;
        }
    }
    if compared == 0 {
        return message;
    }
    message
        .nested(TUPLE_ORIGINAL, |tuple| {
            let tuple = match source {
                Some(source) => tuple.nested(TUPLE_IP, |ip| put_address(ip, 0, source)),
                None => tuple,
            };
            let Some(number) = filter.protocol else { return tuple };
            tuple.nested(TUPLE_PROTOCOL, |protocol| {
                let protocol = protocol.attribute(PROTOCOL_NUMBER, &[number]);
                match filter.port {
                    Some(port) => protocol.attribute(DESTINATION_PORT, &port.to_be_bytes()),
                    None => protocol,
                }
            })
        })
        .nested(FILTER, |filter| filter.attribute(FILTER_ORIGINAL, &compared.to_ne_bytes()))
}

/// Sets the bits of a mark: `(old & !mask) ^ value`, says `ctnetlink_change_mark`.
pub(super) fn set_mark(flow: &Flow, mark: Mark) -> Message {
    put_mark(about(NEW, flow), mark)
}

/// Deletes a flow, and none that has taken its place.
pub(super) fn delete(flow: &Flow) -> Message {
    let message = about(DELETE, flow);
    if flow.id == 0 { message } else { message.attribute(ID, &flow.id.to_be_bytes()) }
}

fn about(kind: [u8; 2], flow: &Flow) -> Message {
    let message = Message::new(kind, 0, family(flow.original.source.is_ipv4()), 0)
        .nested(TUPLE_ORIGINAL, |tuple| put_tuple(tuple, &flow.original));
    if flow.zone == 0 { message } else { message.attribute(ZONE, &flow.zone.to_be_bytes()) }
}

fn put_mark(message: Message, mark: Mark) -> Message {
    message
        .attribute(MARK, &(mark.value & mark.mask).to_be_bytes())
        .attribute(MARK_MASK, &mark.mask.to_be_bytes())
}

fn put_address(message: Message, which: usize, address: IpAddr) -> Message {
    let kind = |kinds: [u16; 2]| kinds.get(which).copied().unwrap_or_default();
    match address {
        IpAddr::V4(address) => message.attribute(kind(IP_V4), &address.octets()),
        IpAddr::V6(address) => message.attribute(kind(IP_V6), &address.octets()),
    }
}

fn put_tuple(message: Message, tuple: &Tuple) -> Message {
    message
        .nested(TUPLE_IP, |ip| put_address(put_address(ip, 0, tuple.source), 1, tuple.destination))
        .nested(TUPLE_PROTOCOL, |protocol| {
            let protocol = protocol.attribute(PROTOCOL_NUMBER, &[tuple.protocol]);
            match tuple.layer4 {
                Layer4::Ports { source, destination } => protocol
                    .attribute(SOURCE_PORT, &source.to_be_bytes())
                    .attribute(DESTINATION_PORT, &destination.to_be_bytes()),
                Layer4::Icmp { kind, code, id } => {
                    let [of_id, of_kind, of_code] = icmp_attributes(tuple.protocol);
                    protocol
                        .attribute(of_id, &id.to_be_bytes())
                        .attribute(of_kind, &[kind])
                        .attribute(of_code, &[code])
                }
                Layer4::Unknown => protocol,
            }
        })
}

const fn icmp_attributes(protocol: u8) -> [u16; 3] {
    if protocol == ICMPV6 { ICMPV6_ATTRIBUTES } else { ICMP_ATTRIBUTES }
}

/// The flow with these attributes; `None` when it is not one of the family.
pub(super) fn read(flow: &[u8], is_ipv4: bool) -> Option<Flow> {
    let (mut original, mut reply) = (None, None);
    let (mut status, mut mark, mut is_taken_up) = (Status(0), 0, false);
    let (mut id, mut zone) = (0, 0);
    for (kind, payload) in attributes(flow) {
        match kind {
            TUPLE_ORIGINAL => original = read_tuple(payload, is_ipv4),
            TUPLE_REPLY => reply = read_tuple(payload, is_ipv4),
            PROTOCOL_INFO => is_taken_up = find(payload, INFO_TCP).is_some_and(has_no_beginning),
            STATUS => status = Status(network_number(payload)?),
            MARK => mark = network_number(payload)?,
            ID => id = network_number(payload)?,
            ZONE => zone = network_short(payload)?,
            _ => {}
        }
    }
    Some(Flow { original: original?, reply: reply?, status, mark, is_taken_up, id, zone })
}

fn has_no_beginning(tcp: &[u8]) -> bool {
    let flags = TCP_FLAGS.map(|kind| find(tcp, kind).and_then(|it| it.first().copied()));
    flags.iter().all(|it| it.is_some_and(|flags| flags & TCP_LIBERAL != 0))
}

fn network_short(payload: &[u8]) -> Option<u16> {
    payload.try_into().ok().map(u16::from_be_bytes)
}

fn read_tuple(tuple: &[u8], is_ipv4: bool) -> Option<Tuple> {
    let ip = find(tuple, TUPLE_IP)?;
    let address = |which: usize| -> Option<IpAddr> {
        if is_ipv4 {
            Some(<[u8; 4]>::try_from(find(ip, *IP_V4.get(which)?)?).ok()?.into())
        } else {
            Some(<[u8; 16]>::try_from(find(ip, *IP_V6.get(which)?)?).ok()?.into())
        }
    };
    let (source, destination) = (address(0)?, address(1)?);
    let transport = find(tuple, TUPLE_PROTOCOL)?;
    let byte = |kind| find(transport, kind)?.first().copied();
    let short = |kind| find(transport, kind).and_then(network_short);
    let protocol = byte(PROTOCOL_NUMBER)?;
    let layer4 = if protocol == ICMP || protocol == ICMPV6 {
        let [of_id, of_kind, of_code] = icmp_attributes(protocol);
        Layer4::Icmp { kind: byte(of_kind)?, code: byte(of_code)?, id: short(of_id)? }
    } else {
        match (short(SOURCE_PORT), short(DESTINATION_PORT)) {
            (Some(source), Some(destination)) => Layer4::Ports { source, destination },
            _ => Layer4::Unknown,
        }
    };
    Some(Tuple { source, destination, protocol, layer4 })
}
