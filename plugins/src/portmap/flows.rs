//! Flows that the kernel tracks and that nothing ends: packets of UDP and SCTP would go on to who had the port before.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use netlink::conntrack::{Client, Filter, Flow};
use netlink::{Layer4, Socket};

use super::mapping::{Held, Key, Mapping, Protocol};
use crate::error::warn;

/// What is published no more: where flows must not go on to.
#[derive(Debug, Default)]
pub(super) struct Ended {
    /// By ports of protocols whose flows stay, to these addresses.
    ports: BTreeSet<(Protocol, u16, IpAddr)>,
    /// By whatever ports.
    pub(super) addresses: BTreeSet<IpAddr>,
}

impl Ended {
    /// And this, but for what is kept for its address.
    pub(super) fn extend(
        &mut self,
        published: impl IntoIterator<Item = (Key, IpAddr)>,
        is_kept: &dyn Fn(IpAddr) -> bool,
    ) {
        let staying =
            published.into_iter().filter(|(key, to)| key.protocol.leaves_flows() && !is_kept(*to));
        self.ports.extend(staying.map(|(key, to)| (key.protocol, key.port, to)));
    }

    /// And what was held.
    pub(super) fn extend_by(&mut self, held: &[Held]) {
        self.extend(held.iter().map(|it| (it.key, it.to)), &|_| false);
    }

    /// All addresses, whatever was published there.
    pub(super) fn all_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.ports.iter().map(|it| it.2).chain(self.addresses.iter().copied())
    }

    /// Whether it is nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.ports.is_empty() && self.addresses.is_empty()
    }

    /// Cuts the flows that were translated to there.
    pub(super) fn cut(&self) {
        let is_one = |flow: &Flow| {
            let to = flow.reply.source;
            let by_port = || {
                let (protocol, port) = port(flow)?;
                Some(self.ports.contains(&(protocol, port, to)))
            };
            flow.status.is_destination_translated()
                && (self.addresses.contains(&to) || by_port().unwrap_or_default())
        };
        let families: BTreeSet<bool> = self.all_addresses().map(|it| it.is_ipv4()).collect();
        cut(&families, |client, is_ipv4| list(client, is_ipv4, is_one));
    }
}

/// Cuts the flows that were translated by ports which are published no more, wherever they led.
pub(super) fn cut_translated(mappings: &[Mapping]) {
    let published = Published::of(mappings);
    let is_one =
        |flow: &Flow| flow.status.is_destination_translated() && published.is_for(flow, true);
    cut(&published.families(), |client, is_ipv4| list(client, is_ipv4, is_one));
}

/// Cuts the flows to published ports of this host that do not lead to where those lead now: the container's address and port.
pub(super) fn cut_stale(mappings: &[Mapping], to: &[IpAddr]) {
    let published = Published::of(mappings);
    let is_stale = |flow: &Flow, is_hosts: bool| {
        let ports: Vec<u16> = published.container_ports(flow, is_hosts).collect();
        let leads = |port| to.contains(&flow.reply.source) && ports.contains(&port);
        !ports.is_empty() && !source_port(flow).is_some_and(leads)
    };
    let of_container: BTreeSet<bool> = to.iter().map(IpAddr::is_ipv4).collect();
    cut(&(&published.families() & &of_container), |client, is_ipv4| {
        let mut flows = list(client, is_ipv4, |flow| is_stale(flow, true))?;
        // Flows to other hosts have such ports, too.
        let mut hosts = BTreeMap::new();
        if !flows.is_empty() {
            let mut socket = Socket::open()?;
            for destination in flows.iter().map(|it| it.original.destination) {
                if let Entry::Vacant(entry) = hosts.entry(destination) {
                    entry.insert(socket.is_local(destination)?);
                }
            }
        }
        let is_hosts = |flow: &Flow| hosts.get(&flow.original.destination) == Some(&true);
        flows.retain(|flow| is_stale(flow, is_hosts(flow)));
        Ok(flows)
    });
}

/// What publishes ports of protocols whose flows stay: by their family (IPv4 or not), their protocol and their number.
struct Published(BTreeMap<(bool, Protocol, u16), Vec<Mapping>>);

impl Published {
    fn of(mappings: &[Mapping]) -> Self {
        let mut ports: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for mapping in mappings.iter().filter(|it| it.protocol.leaves_flows()) {
            for is_ipv4 in [true, false].into_iter().filter(|it| mapping.key(*it).is_some()) {
                let port = (is_ipv4, mapping.protocol, mapping.host_port);
                ports.entry(port).or_default().push(*mapping);
            }
        }
        Self(ports)
    }

    fn families(&self) -> BTreeSet<bool> {
        self.0.keys().map(|it| it.0).collect()
    }

    /// Whether a flow was begun with one of them, when its destination is the host's or not.
    fn is_for(&self, flow: &Flow, is_hosts: bool) -> bool {
        self.container_ports(flow, is_hosts).next().is_some()
    }

    /// The same; where those lead that it may have been begun with.
    fn container_ports(&self, flow: &Flow, is_hosts: bool) -> impl Iterator<Item = u16> {
        let destination = flow.original.destination;
        let of_port = port(flow)
            .and_then(|(protocol, port)| self.0.get(&(destination.is_ipv4(), protocol, port)));
        let is_one = move |it: &&Mapping| {
            let address = it.key(destination.is_ipv4()).map(|key| key.address);
            address.is_some_and(|it| it.map_or(is_hosts, |address| address == destination))
        };
        of_port.into_iter().flatten().filter(is_one).map(|it| it.container_port)
    }
}

/// The port that a flow was begun with, if it is of a protocol whose flows stay.
fn port(flow: &Flow) -> Option<(Protocol, u16)> {
    let protocol = Protocol::numbered(flow.original.protocol).filter(|it| it.leaves_flows())?;
    match flow.original.layer4 {
        Layer4::Ports { destination, .. } => Some((protocol, destination)),
        Layer4::Icmp { .. } | Layer4::Unknown => None,
    }
}

/// The port that it is answered from.
const fn source_port(flow: &Flow) -> Option<u16> {
    match flow.reply.layer4 {
        Layer4::Ports { source, .. } => Some(source),
        Layer4::Icmp { .. } | Layer4::Unknown => None,
    }
}

/// One look at the flows of each of these families, IPv4 or not. What cannot be cut ends by itself, later.
fn cut(
    families: &BTreeSet<bool>,
    look: impl Fn(&mut Client, bool) -> Result<Vec<Flow>, netlink::Error>,
) {
    let cut_family = |is_ipv4: bool| {
        let Some(mut client) = Client::open()? else { return Ok(()) };
        for flow in look(&mut client, is_ipv4)? {
            client.forget(&flow)?;
        }
        Ok(())
    };
    let errors = families.iter().filter_map(|is_ipv4| cut_family(*is_ipv4).err());
    errors.for_each(|error: netlink::Error| {
        warn(&format!("flows to published ports may go on to where they led: {error}"));
    });
}

/// The flows of protocols whose flows stay of which one asks.
fn list(
    client: &mut Client,
    is_ipv4: bool,
    is_one: impl Fn(&Flow) -> bool,
) -> Result<Vec<Flow>, netlink::Error> {
    // No other message may be sent before the list was read to its end.
    let mut flows = Vec::new();
    client.flows(&Filter::all(is_ipv4), |flow| {
        if port(flow).is_some() && is_one(flow) {
            flows.push(*flow);
        }
    })?;
    Ok(flows)
}
