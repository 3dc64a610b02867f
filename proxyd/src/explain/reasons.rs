//! Why, in a sentence.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::{Outcome as Told, Part, WayReport, World, endpoints};
use crate::model::{Protocol, Service};
use crate::nftables::Scheduler;
use crate::plan::{At, Frontend, Masquerade, Merged, Near, Origin, Scope, Way};
use crate::walk::{Client, Outcome};
use crate::words::{all_of, count};

/// What is asked, of one who connects.
pub(super) struct Question<'a> {
    pub(super) world: &'a World,
    pub(super) at: &'a At,
    pub(super) part: &'a Part<'a>,
    pub(super) client: &'a Client,
}

/// What an address is to its Service.
pub(super) fn kind(at: &At, frontend: Option<&Frontend>) -> String {
    match frontend.map(|it| it.origin) {
        // It has the address, and not the port.
        Some(Origin::ClusterIp) | None => "its cluster address".to_owned(),
        Some(Origin::NodePort) => format!("its node port {} at {}", at.port, at.address),
        Some(Origin::LoadBalancer) => {
            "an address of its load balancer (status.loadBalancer.ingress)".to_owned()
        }
        Some(Origin::ExternalIp) => "one of its spec.externalIPs".to_owned(),
    }
}

/// A port by its name, where it has one, and number.
pub(super) fn port_words(service: &Service, protocol: Protocol, port: u16) -> String {
    let mut ports = service.ports.iter().filter(|it| it.port == port && it.protocol == protocol);
    match ports.next().map(|it| it.name.as_str()) {
        Some(name) if !name.is_empty() => format!("{name} ({port}/{protocol})"),
        _ => format!("{port}/{protocol}"),
    }
}

/// What of a Service shapes what happens there.
pub(super) fn settings_of(
    service: &Service,
    frontend: &Frontend,
    scheduler: Scheduler,
) -> Vec<String> {
    let mut settings = Vec::new();
    let (field, is_local) = policy(service, frontend.origin);
    let policy = if is_local { "Local" } else { "Cluster" };
    settings.push(format!("{field} {policy}"));
    if let Some(sources) = &frontend.sources {
        settings.push(match sources.as_slice() {
            [] => "only for nobody of this family (spec.loadBalancerSourceRanges)".to_owned(),
            some => format!("only for {} (spec.loadBalancerSourceRanges)", all_of(some)),
        });
    }
    if let Some(seconds) = service.affinity {
        settings.push(format!(
            "sessionAffinity ClientIP: who comes again within {seconds} s comes to the same endpoint"
        ));
    }
    if scheduler == Scheduler::SourceHash {
        settings.push(
            "each client's address says to which endpoint (--scheduler source-hash)".to_owned(),
        );
    }
    settings
}

/// The policy that holds for an address, and whether it is Local.
const fn policy(service: &Service, origin: Origin) -> (&'static str, bool) {
    match origin {
        Origin::ClusterIp => ("internalTrafficPolicy", service.is_internal_local),
        _ => ("externalTrafficPolicy", service.is_external_local),
    }
}

impl Question<'_> {
    /// The answer.
    pub(super) fn way(&self, words: &str, outcome: &Outcome) -> WayReport {
        let (told, reason) = match outcome {
            Outcome::NotServed => (Told::LeftAlone, self.left_alone()),
            Outcome::Rejected => (Told::Refused, self.refused()),
            Outcome::Dropped => (Told::Dropped, self.dropped()),
            Outcome::Led { to, is_hidden, .. } => (Told::Led, self.led(to, *is_hidden)),
        };
        let (endpoints, is_masqueraded) = match outcome {
            Outcome::Led { to, is_hidden, .. } => (to.len(), *is_hidden),
            _ => (0, false),
        };
        let from = vec![words.to_owned()];
        WayReport { from, outcome: told, reason, endpoints, is_masqueraded }
    }

    fn frontend(&self) -> Option<&Frontend> {
        self.part.frontend(self.at)
    }

    fn service(&self) -> Option<&Service> {
        self.world.index().service(self.part.service?)
    }

    fn left_alone(&self) -> String {
        if self.world.left_alone_at(self.at.address).next().is_none() {
            return "no Service has it, so that the packet goes on as it is".to_owned();
        }
        let dropped = self.world.range_of(self.at.address).map(|range| {
            format!("; what nobody else leads on is dropped, as it is of the range of Services' addresses, {range} (--service-cidr)")
        });
        let dropped = dropped.unwrap_or_default();
        format!("it is an address of a Service that proxyd does not serve{dropped}")
    }

    fn refused(&self) -> String {
        let Some(service) = self.service() else { return "no Service has it".to_owned() };
        if self.frontend().is_none() {
            let ports = service.ports.iter();
            let ports: Vec<_> = ports.map(|it| port_words(service, it.protocol, it.port)).collect();
            let (port, protocol) = (self.at.port, self.at.protocol);
            return match ports.as_slice() {
                [] => format!("it has no port {port}/{protocol}, nor any other"),
                some => format!("it has no port {port}/{protocol}; it has {}", all_of(some)),
            };
        }
        let Some((service, port)) = endpoints::port(self.world, self.part, self.at) else {
            return "it has no endpoint".to_owned();
        };
        let slices = self.world.index().slices_of(&service.name);
        let node = self.world.index().node();
        let is_ipv4 = self.at.address.is_ipv4();
        let all = Merged::all(port, is_ipv4, slices.clone(), node);
        match all.len() {
            0 => {}
            1 => return "its only endpoint is not ready".to_owned(),
            several => return format!("none of its {several} endpoints is ready"),
        }
        let family = if is_ipv4 { "IPv4" } else { "IPv6" };
        let of_family = slices.flat_map(|it| &it.endpoints);
        match of_family.filter(|it| it.address.is_ipv4() == is_ipv4).count() {
            0 => format!("it has no endpoint of {family}"),
            some => format!(
                "it has {}, but no EndpointSlice has a port {:?} of {}",
                count(some, "endpoint"),
                port.name,
                port.protocol
            ),
        }
    }

    fn dropped(&self) -> String {
        let (Some(frontend), Some(service)) = (self.frontend(), self.service()) else {
            let range = self.world.range_of(self.at.address).map(ToString::to_string);
            let range = range.unwrap_or_default();
            return format!(
                "no Service has it, and it is of the range of Services' addresses, {range} (--service-cidr)"
            );
        };
        if self.at.address.is_loopback() && !self.client.is_node {
            return "only the node itself reaches its own 127.0.0.0/8".to_owned();
        }
        let may = |it: &ipnetwork::IpNetwork| it.contains(self.client.address);
        match &frontend.sources {
            Some(sources) if frontend.way != Way::Drop && !sources.iter().any(may) => {
                "spec.loadBalancerSourceRanges do not let it in".to_owned()
            }
            _ => {
                let (field, _) = policy(service, frontend.origin);
                format!("only other nodes have endpoints, and {field} is Local")
            }
        }
    }

    fn led(&self, to: &BTreeSet<SocketAddr>, is_hidden: bool) -> String {
        let (Some(frontend), Some(service)) = (self.frontend(), self.service()) else {
            return String::new();
        };
        let is_near = self.client.is_pod || self.client.is_node;
        let scope = match frontend.way {
            Way::Pool { scope, .. } => scope,
            Way::Divided { .. } if is_near => Scope::Cluster,
            _ => Scope::Local,
        };
        let number = if to.len() == 1 {
            "the only endpoint".to_owned()
        } else {
            format!("one of {} endpoints", to.len())
        };
        let which = self.which(service, frontend, scope, to);
        let seen = match (is_hidden, self.hidden(frontend)) {
            (false, _) => "; it sees the client's address".to_owned(),
            (true, why) => format!("; masqueraded, {why}"),
        };
        format!("{number}{which}{seen}")
    }

    /// Which endpoints these are, if not all.
    fn which(
        &self,
        service: &Service,
        frontend: &Frontend,
        scope: Scope,
        to: &BTreeSet<SocketAddr>,
    ) -> String {
        let Some((_, port)) = endpoints::port(self.world, self.part, self.at) else {
            return String::new();
        };
        let node = self.world.index().node();
        let slices = self.world.index().slices_of(&service.name);
        let all = Merged::all(port, self.at.address.is_ipv4(), slices, node);
        let led = || all.iter().filter(|(place, _)| to.contains(place)).map(|(_, it)| it);
        let leaving = if led().all(|it| it.is_ready) {
            ""
        } else {
            ", which are on their end, as no other is there"
        };
        let near = match scope {
            Scope::Local => {
                let (field, _) = policy(service, frontend.origin);
                format!(" of this node ({field} Local)")
            }
            Scope::Cluster if !leaving.is_empty() => String::new(),
            Scope::Cluster => match Near::of(all.values(), node) {
                Near::All => String::new(),
                Near::Node => format!(" for node {} (hints.forNodes)", node.name),
                Near::Zone => {
                    let zone = node.zone.as_deref().unwrap_or_default();
                    format!(" for zone {zone} (hints.forZones)")
                }
            },
        };
        near + leaving
    }

    /// Why a client is hidden.
    fn hidden(&self, frontend: &Frontend) -> &'static str {
        match frontend.way {
            Way::Pool { masquerade: Masquerade::Always, .. } => {
                "so that answers come back by this node"
            }
            Way::Pool { .. } if self.world.settings().masquerades_all => {
                "as all are who come to a cluster address (--masquerade-all)"
            }
            Way::Pool { .. } => "as it is no pod of the cluster",
            _ => "as the node itself connects",
        }
    }
}
