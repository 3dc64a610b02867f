//! Where connections to a service go, seen from one node.

mod endpoints;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnetwork::IpNetwork;

use crate::model::{EndpointSlice, Port, Protocol, Service};
use crate::sorted;
use endpoints::Reachable;
pub(crate) use endpoints::{Merged, Near};

/// The node that connections are seen from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its zone (`topology.kubernetes.io/zone`).
    pub zone: Option<String>,
    /// Those of its addresses that have node ports.
    pub addresses: BTreeSet<IpAddr>,
    /// The ranges of its own pods (`spec.podCIDRs`), where pods are known by them.
    pub pod_ranges: Option<Vec<IpNetwork>>,
}

/// Where something is served: what a client connects to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct At {
    /// The address.
    pub address: IpAddr,
    /// The protocol.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
}

impl fmt::Display for At {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", SocketAddr::new(self.address, self.port), self.protocol)
    }
}

/// Endpoints of a service's port that get connections alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolId {
    /// Whether they are of IPv4.
    pub is_ipv4: bool,
    /// The protocol.
    pub protocol: Protocol,
    /// The service's port.
    pub port: u16,
    /// Which of them.
    pub scope: Scope,
}

/// Which endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Those of the cluster, or the near ones of them where hints say so.
    Cluster,
    /// Those of this node.
    Local,
}

impl PoolId {
    /// That which connections to a place go to.
    #[must_use]
    pub const fn of(at: &At, frontend: &Frontend, scope: Scope) -> Self {
        let (is_ipv4, protocol) = (at.address.is_ipv4(), at.protocol);
        Self { is_ipv4, protocol, port: frontend.port, scope }
    }
}

/// What happens to connections to a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frontend {
    /// What the address is.
    pub origin: Origin,
    /// The service's port that they are for.
    pub port: u16,
    /// Who may connect; `None`: everybody.
    pub sources: Option<Vec<IpNetwork>>,
    /// Where they go.
    pub way: Way,
}

/// What an address is to a service. Where several services have the same, the first in this order counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// The cluster's address of the service.
    ClusterIp,
    /// One of the node, with a node port.
    NodePort,
    /// A load balancer's.
    LoadBalancer,
    /// One that the service's author has named.
    ExternalIp,
}

/// Where connections go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// There is no endpoint: the client is told so.
    Reject,
    /// There is none here, and others may have some: nothing is answered.
    Drop,
    /// To endpoints of the port.
    Pool {
        /// Which.
        scope: Scope,
        /// Whether the client is hidden from the endpoint behind the node's address.
        masquerade: Masquerade,
    },
    /// `externalTrafficPolicy: Local`: from pods and from the node itself to endpoints of the cluster, the latter
    /// masqueraded; from elsewhere to those of the node.
    Divided {
        /// Whether the cluster has some.
        has_cluster: bool,
        /// Whether the node has some.
        has_local: bool,
    },
}

/// Whether clients are hidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Masquerade {
    /// Those that are not of the cluster, where it is known what is, or all where that was asked for.
    FromOutside,
    /// All: who answers must do it by this node.
    Always,
}

/// All of a service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// What happens where.
    pub frontends: sorted::Map<At, Frontend>,
    /// The endpoints that are led to; none is empty.
    pub pools: sorted::Map<PoolId, sorted::Set<SocketAddr>>,
    /// Endpoints of ports of UDP and SCTP that flows of before may go on to: all that serve, as kube-proxy has it, also those that
    /// get nothing new by a policy, by hints, or as they are on their end. The scope says nothing here.
    pub serving: sorted::Map<PoolId, sorted::Set<SocketAddr>>,
    /// For how many seconds a client comes to the same endpoint.
    pub affinity: Option<u32>,
    /// The cluster's addresses of the service.
    pub cluster_ips: sorted::Set<IpAddr>,
    /// Endpoints of this node: what they send to themselves has to be masqueraded.
    pub local_addresses: sorted::Set<IpAddr>,
    /// Where load balancers ask, and how many ready endpoints the node has.
    pub health_check: Option<(u16, usize)>,
}

impl Plan {
    /// The plan for a service with these slices, which are its own.
    pub fn of<'a>(
        service: &Service,
        slices: impl IntoIterator<Item = &'a EndpointSlice> + Clone,
        node: &Node,
    ) -> Self {
        let mut draft = Draft::default();
        for port in &service.ports {
            for is_ipv4 in [true, false] {
                draft.add_port(service, port, is_ipv4, slices.clone(), node);
            }
        }
        Self {
            frontends: draft.frontends.into(),
            pools: draft.pools.into(),
            serving: draft.serving.into(),
            affinity: service.affinity,
            cluster_ips: service.cluster_ips.iter().copied().collect(),
            local_addresses: draft.local_addresses.into(),
            health_check: service.health_check_port.map(|port| (port, ready_here(slices, node))),
        }
    }
}

/// What grows while a plan is made.
#[derive(Default)]
struct Draft {
    frontends: BTreeMap<At, Frontend>,
    pools: BTreeMap<PoolId, sorted::Set<SocketAddr>>,
    serving: BTreeMap<PoolId, sorted::Set<SocketAddr>>,
    local_addresses: BTreeSet<IpAddr>,
}

impl Draft {
    fn add_port<'a>(
        &mut self,
        service: &Service,
        port: &Port,
        is_ipv4: bool,
        slices: impl IntoIterator<Item = &'a EndpointSlice>,
        node: &Node,
    ) {
        let of_family = |it: &&IpAddr| it.is_ipv4() == is_ipv4;
        let addresses = |of: &[IpAddr]| of.iter().filter(of_family).copied().collect::<Vec<_>>();
        let cluster_ips = addresses(&service.cluster_ips);
        let external = external(service, port, node);
        let external: Vec<_> = external.filter(|(_, at)| at.address.is_ipv4() == is_ipv4).collect();
        if cluster_ips.is_empty() && external.is_empty() {
            return;
        }
        let mut reachable = Reachable::of(port, is_ipv4, slices, node);
        let internal_way = if service.is_internal_local {
            local_way(&reachable)
        } else {
            cluster_way(&reachable, Masquerade::FromOutside)
        };
        for address in cluster_ips {
            let at = At { address, protocol: port.protocol, port: port.port };
            let origin = Origin::ClusterIp;
            self.add(at, Frontend { origin, port: port.port, sources: None, way: internal_way });
        }
        let external_way = if service.is_external_local {
            divided_way(&reachable)
        } else {
            cluster_way(&reachable, Masquerade::Always)
        };
        let sources = sources(service, is_ipv4, node);
        for (origin, at) in external {
            let sources = sources.clone().filter(|_| origin == Origin::LoadBalancer);
            self.add(at, Frontend { origin, port: port.port, sources, way: external_way });
        }
        let serving = std::mem::take(&mut reachable.serving);
        // Flows of TCP end by themselves.
        if port.protocol != Protocol::Tcp && !serving.is_empty() {
            self.serving.insert(flows_pool(is_ipv4, port.protocol, port.port), serving.into());
        }
        self.add_pools(port, is_ipv4, reachable);
    }

    /// Of two of the same service the more important counts.
    fn add(&mut self, at: At, frontend: Frontend) {
        if self.frontends.get(&at).is_none_or(|it| it.origin > frontend.origin) {
            self.frontends.insert(at, frontend);
        }
    }

    /// Those that something leads to.
    fn add_pools(&mut self, port: &Port, is_ipv4: bool, reachable: Reachable) {
        let Reachable { cluster, local, local_addresses, .. } = reachable;
        for (scope, endpoints) in [(Scope::Cluster, cluster), (Scope::Local, local)] {
            let id = PoolId { is_ipv4, protocol: port.protocol, port: port.port, scope };
            let leads = |(at, it): (&At, &Frontend)| {
                at.address.is_ipv4() == is_ipv4
                    && at.protocol == port.protocol
                    && it.port == port.port
                    && it.way.leads_to(scope)
            };
            if !endpoints.is_empty() && self.frontends.iter().any(leads) {
                self.local_addresses.extend(&local_addresses);
                self.pools.insert(id, endpoints.into());
            }
        }
    }
}

impl Plan {
    /// Where flows to a place of it may go on to.
    #[must_use]
    pub fn serving(&self, at: &At) -> BTreeSet<SocketAddr> {
        let port = self.frontends.get(at).map(|it| it.port);
        let id = port.map(|it| flows_pool(at.address.is_ipv4(), at.protocol, it));
        let serving = id.and_then(|it| self.serving.get(&it));
        serving.into_iter().flatten().copied().collect()
    }
}

/// By what [`Plan::serving`] knows a port.
const fn flows_pool(is_ipv4: bool, protocol: Protocol, port: u16) -> PoolId {
    PoolId { is_ipv4, protocol, port, scope: Scope::Cluster }
}

impl Way {
    /// Whether connections may go to such endpoints.
    #[must_use]
    pub fn leads_to(self, wanted: Scope) -> bool {
        match self {
            Self::Reject | Self::Drop => false,
            Self::Pool { scope, .. } => scope == wanted,
            Self::Divided { has_cluster, has_local } => match wanted {
                Scope::Cluster => has_cluster,
                Scope::Local => has_local,
            },
        }
    }
}

/// Where a port is served besides the cluster's addresses.
fn external<'a>(
    service: &'a Service,
    port: &'a Port,
    node: &'a Node,
) -> impl Iterator<Item = (Origin, At)> + 'a {
    let at = |address, number| At { address, protocol: port.protocol, port: number };
    let nodes = node.addresses.iter().zip(std::iter::repeat(port.node_port));
    let nodes = nodes.filter_map(|(it, port)| port.map(|port| (Origin::NodePort, *it, port)));
    let balancers = service.load_balancer_ips.iter();
    let balancers = balancers.map(|it| (Origin::LoadBalancer, *it, port.port));
    let named = service.external_ips.iter().map(|it| (Origin::ExternalIp, *it, port.port));
    nodes.chain(balancers).chain(named).map(move |(origin, it, port)| (origin, at(it, port)))
}

/// To endpoints of the cluster.
fn cluster_way(reachable: &Reachable, masquerade: Masquerade) -> Way {
    if reachable.cluster.is_empty() {
        return Way::Reject;
    }
    Way::Pool { scope: Scope::Cluster, masquerade }
}

/// To endpoints of the node.
fn local_way(reachable: &Reachable) -> Way {
    if !reachable.local.is_empty() {
        return Way::Pool { scope: Scope::Local, masquerade: Masquerade::FromOutside };
    }
    if reachable.has_any { Way::Drop } else { Way::Reject }
}

fn divided_way(reachable: &Reachable) -> Way {
    let (has_cluster, has_local) = (!reachable.cluster.is_empty(), !reachable.local.is_empty());
    if !has_cluster && !has_local && !reachable.has_any {
        return Way::Reject;
    }
    Way::Divided { has_cluster, has_local }
}

/// Who may connect to a load balancer's addresses of a family. Where a range holds the node's address, the node may connect as
/// any of them as well: those that are its own too are what its packets to them come from.
fn sources(service: &Service, is_ipv4: bool, node: &Node) -> Option<Vec<IpNetwork>> {
    let ranges = service.source_ranges.iter().flatten().copied();
    let mut sources: Vec<_> = ranges.filter(|it| it.is_ipv4() == is_ipv4).collect();
    let holds = |address: &IpAddr| sources.iter().any(|it| it.contains(*address));
    if node.addresses.iter().any(holds) {
        let own = service.load_balancer_ips.iter().filter(|it| it.is_ipv4() == is_ipv4);
        sources.extend(own.map(|it| IpNetwork::from(*it)));
    }
    sources.sort();
    sources.dedup();
    service.source_ranges.as_ref().map(|_| sources)
}

/// How many ready endpoints the node has.
fn ready_here<'a>(slices: impl IntoIterator<Item = &'a EndpointSlice>, node: &Node) -> usize {
    let endpoints = slices.into_iter().flat_map(|it| &it.endpoints);
    let here = endpoints.filter(|it| it.is_ready && it.node.as_ref() == Some(&node.name));
    here.map(|it| it.address).collect::<BTreeSet<_>>().len()
}
