//! What is special about a place, or about who connects to it.

use std::net::IpAddr;

use super::reasons::{kind, port_words};
use super::{Part, Query, Who, World};
use crate::model::{LeftAlone, NamespacedName};
use crate::plan::At;
use crate::words::all_of;

pub(super) fn list(world: &World, part: &Part<'_>, query: &Query) -> Vec<String> {
    let at = &query.to;
    let mut notes = Vec::new();
    notes.extend(others(world, at));
    notes.extend(world.left_alone_at(at.address).map(|(name, why)| left_alone(name, why)));
    if part.service.is_none() {
        notes.extend(endpoints_at(world, at));
        notes.extend(node_ports(world, at));
    }
    if let Who::Address { address, .. } = &query.from {
        if part.plan.local_addresses.contains(address) {
            notes.push(format!(
                "{address} is one of these endpoints: what comes back to itself is masqueraded"
            ));
        } else if world.own().contains(address) {
            notes.push(format!("{address} is an address of the node"));
        }
    }
    notes
}

/// Others that want the place.
fn others(world: &World, at: &At) -> Option<String> {
    let wanted = world.index().claimants(at).skip(1);
    let wanted: Vec<_> =
        wanted.map(|(name, frontend)| format!("{name} ({})", kind(at, Some(frontend)))).collect();
    (!wanted.is_empty()).then(|| {
        format!(
            "it is also of {}: a cluster address comes first, then node ports, load balancers' and external addresses, and of the same kind the oldest Service has it",
            all_of(&wanted)
        )
    })
}

fn left_alone(name: &NamespacedName, why: &LeftAlone) -> String {
    match why {
        LeftAlone::Label { label, value, .. } => {
            format!("Service {name} has the label {label}={value}: proxyd leaves it alone")
        }
        LeftAlone::Headless => format!("Service {name} is headless: proxyd leaves it alone"),
        LeftAlone::ExternalName => {
            format!("Service {name} is another name for something else: proxyd leaves it alone")
        }
        LeftAlone::NoAddresses => format!("Service {name} has no addresses"),
    }
}

/// Services of which it is an endpoint.
fn endpoints_at(world: &World, at: &At) -> Vec<String> {
    let is_one = |it: &&crate::model::EndpointSlice| {
        it.ports.iter().any(|port| port.port == at.port && port.protocol == at.protocol)
            && it.endpoints.iter().any(|it| it.address == at.address)
    };
    let slices = world.index().all_slices().filter(is_one);
    let names = slices.map(|it| NamespacedName {
        namespace: it.name.namespace.clone(),
        name: it.service.clone(),
    });
    let names: std::collections::BTreeSet<_> = names.collect();
    if names.is_empty() {
        return Vec::new();
    }
    let all: Vec<_> = names.iter().collect();
    let mut notes = vec![format!(
        "it is an endpoint of {}: who connects to it gets there without proxyd",
        all_of(&all)
    )];
    let reasons = names.iter().filter_map(|name| Some((name, world.left_alone().get(name)?)));
    notes.extend(reasons.take(1).map(|(name, why)| left_alone(name, why)));
    notes
}

/// Services that have the port at addresses of the node.
fn node_ports(world: &World, at: &At) -> Option<String> {
    let services = world.index().all_services().flat_map(|service| {
        let ports = service.ports.iter();
        let is_one =
            |it: &&crate::model::Port| it.node_port == Some(at.port) && it.protocol == at.protocol;
        ports.filter(is_one).map(move |it| (service, it))
    });
    let (service, port) = services.min_by_key(|(service, _)| &service.name)?;
    let node = world.index().node();
    let addresses: Vec<&IpAddr> = node.addresses.iter().collect();
    let port = port_words(service, port.protocol, port.port);
    let of =
        format!("{}/{} is the node port of {}, port {port}", at.port, at.protocol, service.name);
    Some(match addresses.as_slice() {
        [] => format!(
            "{of}, but no address of node {} has node ports (--nodeport-addresses)",
            node.name
        ),
        some => {
            format!("{of}: node {} has it at {} (--nodeport-addresses)", node.name, all_of(some))
        }
    })
}

impl World {
    /// Services that are left alone and have the address.
    pub(super) fn left_alone_at(
        &self,
        address: IpAddr,
    ) -> impl Iterator<Item = (&NamespacedName, &LeftAlone)> {
        self.left_alone().iter().filter(move |(_, why)| match why {
            LeftAlone::Label { addresses, .. } => addresses.contains(&address),
            _ => false,
        })
    }
}
