//! Flows that the kernel tracks and that nothing ends: packets of UDP and SCTP would go on to who had the port before.

use std::net::IpAddr;

use netlink::Layer4;
use netlink::conntrack::{Client, Filter, Flow};

use super::mapping::{Key, Mapping, Protocol};
use crate::error::warn;

/// Cuts the flows to published ports that do not lead to where they lead now.
pub(super) fn cut_stale(mappings: &[Mapping], to: &[IpAddr]) {
    cut(mappings, |keys, flow| {
        let leads_here = to.contains(&flow.reply.source);
        !leads_here && keys.iter().any(|key| is_for(key, flow))
    });
}

/// Cuts the flows that were translated to an address that nobody has from now on; where none is known, those by the
/// ports that were published.
pub(super) fn cut_ended(mappings: &[Mapping], from: &[IpAddr]) {
    cut(mappings, |keys, flow| {
        let was_there = match from {
            [] => keys.iter().any(|key| is_for(key, flow)),
            from => from.contains(&flow.reply.source),
        };
        was_there && flow.status.is_destination_translated()
    });
}

/// One look at each family's flows, if there is a port whose flows stay. What cannot be cut ends by itself, later.
fn cut(mappings: &[Mapping], is_one: impl Fn(&[Key], &Flow) -> bool) {
    let stay: Vec<&Mapping> = mappings.iter().filter(|it| it.protocol.leaves_flows()).collect();
    for is_ipv4 in [true, false] {
        let keys: Vec<Key> = stay.iter().filter_map(|it| it.key(is_ipv4)).collect();
        if keys.is_empty() {
            continue;
        }
        if let Err(error) = cut_family(is_ipv4, &keys, &is_one) {
            warn(&format!("flows to published ports may go on to where they led: {error}"));
        }
    }
}

fn cut_family(
    is_ipv4: bool,
    keys: &[Key],
    is_one: &impl Fn(&[Key], &Flow) -> bool,
) -> Result<(), netlink::Error> {
    let Some(mut client) = Client::open()? else { return Ok(()) };
    // No other message may be sent before the list was read to its end.
    let mut flows = Vec::new();
    client.flows(&Filter::all(is_ipv4), |flow| {
        let stays = Protocol::numbered(flow.original.protocol).is_some_and(Protocol::leaves_flows);
        if stays && is_one(keys, flow) {
            flows.push(*flow);
        }
    })?;
    for flow in flows {
        client.forget(&flow)?;
    }
    Ok(())
}

/// Whether a flow was begun with a published port.
fn is_for(key: &Key, flow: &Flow) -> bool {
    let has_port = match flow.original.layer4 {
        Layer4::Ports { destination, .. } => destination == key.port,
        Layer4::Icmp { .. } | Layer4::Unknown => false,
    };
    flow.original.protocol == key.protocol.number()
        && has_port
        && key.address.is_none_or(|address| flow.original.destination == address)
}
