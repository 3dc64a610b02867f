//! Flows of UDP and SCTP that lead where a service no longer does: nothing ends them while packets come.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use netlink::Layer4;
use netlink::conntrack::{Client, Filter, Flow};

use crate::model::Protocol;
use crate::plan::At;

/// Has the kernel forget the flows to these places that lead elsewhere than to the endpoints, and tells how many there
/// were.
///
/// # Errors
/// [`netlink::Error`].
pub fn cut(places: &BTreeMap<At, BTreeSet<SocketAddr>>) -> Result<usize, netlink::Error> {
    let mut count = 0;
    for is_ipv4 in [true, false] {
        for protocol in [Protocol::Udp, Protocol::Sctp] {
            let is_of = |at: &At| at.address.is_ipv4() == is_ipv4 && at.protocol == protocol;
            if places.keys().any(is_of) {
                count += cut_of(is_ipv4, protocol, places)?;
            }
        }
    }
    Ok(count)
}

fn cut_of(
    is_ipv4: bool,
    protocol: Protocol,
    places: &BTreeMap<At, BTreeSet<SocketAddr>>,
) -> Result<usize, netlink::Error> {
    let Some(mut client) = Client::open()? else { return Ok(0) };
    let filter = Filter { protocol: Some(protocol.number()), ..Filter::all(is_ipv4) };
    // No other message may be sent before the list was read to its end.
    let mut stale = Vec::new();
    client.flows(&filter, |flow| {
        if is_stale(flow, places) {
            stale.push(*flow);
        }
    })?;
    let mut count = 0;
    for flow in stale {
        count += usize::from(client.forget(&flow)? == netlink::conntrack::Outcome::Done);
    }
    Ok(count)
}

/// Whether a flow is to one of the places, and leads to none of its endpoints. Where a place has none, one that was not
/// translated does no harm.
fn is_stale(flow: &Flow, places: &BTreeMap<At, BTreeSet<SocketAddr>>) -> bool {
    let (Some(protocol), Layer4::Ports { destination, .. }, Layer4::Ports { source, .. }) =
        (Protocol::of_number(flow.original.protocol), flow.original.layer4, flow.reply.layer4)
    else {
        return false;
    };
    let at = At { address: flow.original.destination, protocol, port: destination };
    let Some(endpoints) = places.get(&at) else { return false };
    if endpoints.is_empty() && !flow.status.is_destination_translated() {
        return false;
    }
    !endpoints.contains(&SocketAddr::new(flow.reply.source, source))
}
