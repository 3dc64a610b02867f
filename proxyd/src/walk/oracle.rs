//! What Kubernetes says of a connection to a service, as plainly as it can be written: for one connection, from the
//! objects, without anything of how proxyd does it.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::{Client, Outcome};
use crate::model::{Endpoint, EndpointSlice, Port, Service};
use crate::plan::{At, Node};

/// What is asked of.
pub(super) struct World<'a> {
    pub(super) service: &'a Service,
    pub(super) slices: &'a [EndpointSlice],
    pub(super) node: &'a Node,
    /// Whether it is known who is a pod.
    pub(super) knows_pods: bool,
    pub(super) masquerades_all: bool,
}

enum Entrance {
    Inside,
    Outside,
    Balancer,
}

pub(super) fn outcome(world: &World<'_>, at: &At, client: &Client) -> Outcome {
    let service = world.service;
    // Which port of the service is meant, and by which of its addresses.
    let by_port = |wanted: u16| {
        let mut ports = service.ports.iter();
        ports.find(|it| it.port == wanted && it.protocol == at.protocol)
    };
    let by_node_port = || {
        let mut ports = service.ports.iter();
        ports.find(|it| it.node_port == Some(at.port) && it.protocol == at.protocol)
    };
    let (port, entrance) = if service.cluster_ips.contains(&at.address) {
        match by_port(at.port) {
            Some(port) => (port, Entrance::Inside),
            None => return Outcome::Rejected,
        }
    } else if world.node.addresses.contains(&at.address)
        && let Some(port) = by_node_port()
    {
        (port, Entrance::Outside)
    } else if service.load_balancer_ips.contains(&at.address)
        && let Some(port) = by_port(at.port)
    {
        (port, Entrance::Balancer)
    } else if service.external_ips.contains(&at.address)
        && let Some(port) = by_port(at.port)
    {
        (port, Entrance::Outside)
    } else {
        return Outcome::NotServed;
    };
    // The node's own is its own.
    if at.address.is_loopback() && !client.is_node {
        return Outcome::Dropped;
    }
    let endpoints = Endpoints::of(world, port, at.address.is_ipv4());
    let all_hidden = matches!(entrance, Entrance::Inside) && world.masquerades_all;
    let is_known_stranger = world.knows_pods && !client.is_pod;
    let decided = match entrance {
        Entrance::Inside if !service.is_internal_local => {
            (endpoints.anywhere(), all_hidden || is_known_stranger, false)
        }
        Entrance::Inside => {
            (endpoints.here(), all_hidden || is_known_stranger, endpoints.are_some())
        }
        _ if !service.is_external_local => (endpoints.anywhere(), true, false),
        // Pods and the node are as near as any: they may go everywhere.
        _ if client.is_pod => (endpoints.anywhere(), false, endpoints.are_some()),
        _ if client.is_node => (endpoints.anywhere(), true, endpoints.are_some()),
        _ => (endpoints.here(), false, endpoints.are_some()),
    };
    let (to, is_hidden, is_dropped) = decided;
    let is_rejected = to.is_empty() && !is_dropped;
    if matches!(entrance, Entrance::Balancer) && !is_rejected && !may_reach(world, at, client) {
        return Outcome::Dropped;
    }
    match (to.is_empty(), is_dropped) {
        (true, true) => Outcome::Dropped,
        (true, false) => Outcome::Rejected,
        (false, _) => Outcome::Led { to, is_hidden, sticky: service.affinity },
    }
}

/// A load balancer's addresses are for those whom its ranges hold. The node's own connections to such an address may come from
/// one; they may if the node may.
fn may_reach(world: &World<'_>, at: &At, client: &Client) -> bool {
    let Some(ranges) = &world.service.source_ranges else { return true };
    let holds = |address| ranges.iter().any(|it| it.contains(address));
    let nodes =
        world.node.addresses.iter().any(|it| it.is_ipv4() == at.address.is_ipv4() && holds(*it));
    holds(client.address) || world.service.load_balancer_ips.contains(&client.address) && nodes
}

struct Endpoints<'a> {
    all: Vec<(SocketAddr, &'a Endpoint)>,
    node: &'a Node,
}

impl<'a> Endpoints<'a> {
    fn of(world: &World<'a>, port: &Port, is_ipv4: bool) -> Self {
        let mut all = Vec::new();
        for slice in world.slices {
            for of_slice in &slice.ports {
                if of_slice.name == port.name && of_slice.protocol == port.protocol {
                    let endpoints = slice.endpoints.iter();
                    let endpoints = endpoints.filter(|it| it.address.is_ipv4() == is_ipv4);
                    all.extend(
                        endpoints.map(|it| (SocketAddr::new(it.address, of_slice.port), it)),
                    );
                }
            }
        }
        Self { all, node: world.node }
    }

    fn those(&self, is_one: impl Fn(&Endpoint) -> bool) -> BTreeSet<SocketAddr> {
        self.all.iter().filter(|(_, it)| is_one(it)).map(|(place, _)| *place).collect()
    }

    fn is_here(&self, endpoint: &Endpoint) -> bool {
        endpoint.node.as_deref() == Some(self.node.name.as_str())
    }

    /// Ready ones, or else those that still serve.
    fn here(&self) -> BTreeSet<SocketAddr> {
        let ready = self.those(|it| it.is_ready && self.is_here(it));
        if !ready.is_empty() {
            return ready;
        }
        self.those(|it| it.is_serving && it.is_terminating && self.is_here(it))
    }

    fn anywhere(&self) -> BTreeSet<SocketAddr> {
        let ready = self.those(|it| it.is_ready);
        if ready.is_empty() {
            return self.those(|it| it.is_serving && it.is_terminating);
        }
        let every = |has: fn(&Endpoint) -> bool| {
            self.all.iter().filter(|(_, it)| it.is_ready).all(|(_, it)| has(it))
        };
        let of_node = self.those(|it| it.is_ready && it.for_nodes.contains(&self.node.name));
        if every(|it| !it.for_nodes.is_empty()) && !of_node.is_empty() {
            return of_node;
        }
        let zone = self.node.zone.clone().unwrap_or_default();
        let of_zone = self.those(|it| it.is_ready && it.for_zones.contains(&zone));
        if every(|it| !it.for_zones.is_empty()) && !of_zone.is_empty() {
            return of_zone;
        }
        ready
    }

    fn are_some(&self) -> bool {
        !self.those(|it| it.is_ready || it.is_serving && it.is_terminating).is_empty()
    }
}
