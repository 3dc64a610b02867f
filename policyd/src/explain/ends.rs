//! Who the ends of a question are.

use std::net::IpAddr;

use super::{End, Error};
use crate::World;
use crate::model::{Direction, NamespacedName, Pod};

/// One end, found in the world.
pub(super) struct Found<'a> {
    /// As it was asked for.
    pub(super) name: String,
    pub(super) addresses: Vec<IpAddr>,
    pod: Option<&'a Pod>,
}

impl<'a> Found<'a> {
    pub(super) fn find(world: &'a World, end: &End) -> Result<Self, Error> {
        match end {
            End::Address(address) => {
                Ok(Self { name: address.to_string(), addresses: vec![*address], pod: None })
            }
            End::Pod(name) => {
                let pod = newest(world, name)?;
                let addresses: Vec<_> = pod.addresses.iter().copied().collect();
                match (pod.finished, addresses.is_empty()) {
                    (true, _) => Err(Error::Finished(name.clone())),
                    (_, true) => Err(Error::NoAddress(name.clone())),
                    _ => Ok(Self { name: name.to_string(), addresses, pod: Some(pod) }),
                }
            }
        }
    }

    /// The node, where what has this address is the node itself.
    pub(super) fn node_that_sends(&self, world: &World, address: IpAddr) -> Option<String> {
        match self.pod {
            Some(pod) if pod.is_endpoint() => None,
            Some(pod) => pod.node.clone(),
            None if world.endpoints_at(address).next().is_some() => None,
            None => on_host_network(world, address).and_then(|pod| pod.node.clone()),
        }
    }

    /// What is special about it, as the end that sends (egress) or is sent to (ingress).
    pub(super) fn notes(&self, world: &World, direction: Direction) -> Vec<String> {
        let mut notes = Vec::new();
        match self.pod {
            Some(pod) if pod.host_network => notes.push(format!(
                "{} uses the node's network: no policy holds for it, and as a peer it is matched by ipBlocks alone",
                self.name
            )),
            Some(pod) if pod.terminating => {
                notes.push(format!("{} is being deleted; until then policy holds for it", self.name));
            }
            _ => {}
        }
        for address in self.addresses.iter().filter(|_| self.pod.is_none_or(Pod::is_endpoint)) {
            notes.extend(self.owners(world, *address, direction));
        }
        notes
    }

    fn owners(&self, world: &World, address: IpAddr, direction: Direction) -> Option<String> {
        let owners: Vec<_> = world.endpoints_at(address).map(|pod| pod.name.to_string()).collect();
        match (owners.as_slice(), world.subject_at(address)) {
            ([owner], _) => self.pod.is_none().then(|| format!("{address} is {owner}'s address")),
            ([], _) => Some(nobody(world, address, direction)),
            (several, subject) => Some(format!(
                "{address} is the address of {} at the moment; the policies of {} hold",
                several.join(" and "),
                subject.map(|pod| pod.name.to_string()).unwrap_or_default(),
            )),
        }
    }
}

/// An address that no pod has that policy knows by it.
fn nobody(world: &World, address: IpAddr, direction: Direction) -> String {
    if let Some(pod) = on_host_network(world, address) {
        let node = pod.node.as_deref().unwrap_or("unknown");
        return format!("{address} is an address of node {node}: {} uses its network", pod.name);
    }
    match direction {
        Direction::Ingress => format!(
            "{address} is no pod's address. If it is a Service's, ask for one of its pods: policy is asked after the Service's address has become a pod's"
        ),
        Direction::Egress => format!(
            "{address} is no pod's address. If it is one of the node that a pod runs on: that node always reaches the pod"
        ),
    }
}

/// Of several of one name, which is so while one is created again, the one that is there to stay.
fn newest<'a>(world: &'a World, name: &NamespacedName) -> Result<&'a Pod, Error> {
    let named = world.pods.iter().filter(|pod| pod.name == *name);
    let newest = named.max_by_key(|pod| (!pod.finished, !pod.terminating, pod.created, &pod.uid));
    newest.ok_or_else(|| {
        let of_namespace = world.pods.iter().filter(|pod| pod.name.namespace == name.namespace);
        Error::NoSuchPod { name: name.clone(), pods: of_namespace.count() }
    })
}

fn on_host_network(world: &World, address: IpAddr) -> Option<&Pod> {
    let on_host = world.pods.iter().filter(|pod| pod.host_network && !pod.finished);
    on_host.filter(|pod| pod.addresses.contains(&address)).min_by_key(|pod| &pod.name)
}

/// What is wrong with the objects that have a part in the answer: the pods, and the policies that
/// select them.
pub(super) fn problems(world: &World, ends: &[&Found<'_>]) -> Vec<String> {
    let mut pods: Vec<&Pod> = ends.iter().filter_map(|end| end.pod).collect();
    for address in ends.iter().flat_map(|end| &end.addresses) {
        pods.extend(world.endpoints_at(*address));
    }
    let selecting = world.policies.iter().filter(|it| pods.iter().any(|pod| it.selects(pod)));
    let of_policies = selecting.flat_map(|policy| &policy.problems);
    let of_pods = pods.iter().flat_map(|pod| &pod.problems);
    let mut texts: Vec<_> = of_pods.chain(of_policies).map(ToString::to_string).collect();
    texts.sort();
    texts.dedup();
    texts
}
