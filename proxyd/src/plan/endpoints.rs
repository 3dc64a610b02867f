//! Which endpoints of a service's port get connections (reference: kube-proxy's `CategorizeEndpoints`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::Node;
use crate::model::{Endpoint, EndpointSlice, Port};

/// The endpoints of a port, of one family.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Reachable {
    /// Those for connections that may go anywhere.
    pub(super) cluster: BTreeSet<SocketAddr>,
    /// Those for connections that stay on the node.
    pub(super) local: BTreeSet<SocketAddr>,
    /// Those that serve, whether new connections go to them or not.
    pub(super) serving: BTreeSet<SocketAddr>,
    /// Whether any node has one that could serve.
    pub(super) has_any: bool,
    /// The addresses of those of the node.
    pub(super) local_addresses: BTreeSet<IpAddr>,
}

/// One endpoint, as all slices together tell of it.
#[derive(Debug, Default)]
pub(crate) struct Merged<'a> {
    pub(crate) is_ready: bool,
    pub(crate) is_serving: bool,
    /// It is on its end, and serves.
    pub(crate) is_leaving: bool,
    pub(crate) is_local: bool,
    /// The node that it is on, where that is told.
    pub(crate) on: Option<&'a str>,
    /// The zones that it is for.
    pub(crate) zones: BTreeSet<&'a str>,
    /// The nodes that it is for.
    pub(crate) nodes: BTreeSet<&'a str>,
}

impl Reachable {
    pub(super) fn of<'a>(
        port: &Port,
        is_ipv4: bool,
        slices: impl IntoIterator<Item = &'a EndpointSlice>,
        node: &Node,
    ) -> Self {
        let all = Merged::all(port, is_ipv4, slices, node);
        let near = Near::of(all.values(), node);
        let chosen = |is_wanted: &dyn Fn(&Merged<'_>) -> bool| -> BTreeSet<SocketAddr> {
            all.iter().filter(|(_, it)| is_wanted(it)).map(|(place, _)| *place).collect()
        };
        // Those that are on their end serve where no other can, of the cluster and of the node each for itself (KEP-1669).
        let first_of = |ready: BTreeSet<SocketAddr>, leaving: BTreeSet<SocketAddr>| {
            if ready.is_empty() { leaving } else { ready }
        };
        Self {
            cluster: first_of(
                chosen(&|it| it.is_ready && near.has(it, node)),
                chosen(&|it| it.is_leaving),
            ),
            local: first_of(
                chosen(&|it| it.is_ready && it.is_local),
                chosen(&|it| it.is_leaving && it.is_local),
            ),
            serving: chosen(&|it| it.is_ready || it.is_serving),
            has_any: all.values().any(|it| it.is_ready || it.is_leaving),
            local_addresses: chosen(&|it| it.is_local).iter().map(SocketAddr::ip).collect(),
        }
    }
}

impl<'a> Merged<'a> {
    /// The endpoints of a port.
    pub(crate) fn all(
        port: &Port,
        is_ipv4: bool,
        slices: impl IntoIterator<Item = &'a EndpointSlice>,
        node: &Node,
    ) -> BTreeMap<SocketAddr, Self> {
        let mut all: BTreeMap<SocketAddr, Self> = BTreeMap::new();
        for slice in slices {
            let mut ports = slice.ports.iter();
            let of_port = ports.find(|it| it.name == port.name && it.protocol == port.protocol);
            let Some(of_port) = of_port else { continue };
            for endpoint in slice.endpoints.iter().filter(|it| it.address.is_ipv4() == is_ipv4) {
                let place = SocketAddr::new(endpoint.address, of_port.port);
                all.entry(place).or_default().merge(endpoint, node);
            }
        }
        all
    }

    /// While an endpoint passes from one slice to another, both may have it.
    fn merge(&mut self, endpoint: &'a Endpoint, node: &Node) {
        self.is_ready |= endpoint.is_ready;
        self.is_serving |= endpoint.is_serving;
        self.is_leaving |= endpoint.is_serving && endpoint.is_terminating;
        self.is_local |= endpoint.node.as_ref() == Some(&node.name);
        self.on = self.on.or(endpoint.node.as_deref());
        self.zones.extend(endpoint.for_zones.iter().map(String::as_str));
        self.nodes.extend(endpoint.for_nodes.iter().map(String::as_str));
    }
}

/// Which endpoints are near enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Near {
    /// Those that hints give to this node.
    Node,
    /// Those that hints give to this zone.
    Zone,
    /// All.
    All,
}

impl Near {
    /// Hints count only if all that are ready have some, and one of them is for us: else somebody would get none, or more
    /// than was planned.
    pub(crate) fn of<'a>(endpoints: impl Iterator<Item = &'a Merged<'a>>, node: &Node) -> Self {
        let ready: Vec<_> = endpoints.filter(|it| it.is_ready).collect();
        let all_have = |hints: fn(&Merged<'_>) -> bool| ready.iter().all(|it| hints(it));
        let is_for = |near: Self| ready.iter().any(|it| near.has(it, node));
        if all_have(|it| !it.nodes.is_empty()) && is_for(Self::Node) {
            Self::Node
        } else if all_have(|it| !it.zones.is_empty()) && is_for(Self::Zone) {
            Self::Zone
        } else {
            Self::All
        }
    }

    fn has(self, endpoint: &Merged<'_>, node: &Node) -> bool {
        match self {
            Self::Node => endpoint.nodes.contains(node.name.as_str()),
            Self::Zone => node.zone.as_deref().is_some_and(|it| endpoint.zones.contains(it)),
            Self::All => true,
        }
    }
}
