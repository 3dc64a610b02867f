//! The world as policy needs it: pods, namespaces and compiled NetworkPolicies.
//!
//! Every type is made `From` the Kubernetes object, which never fails: what is wrong in an object
//! is told in its `problems`, and means nothing is matched by it rather than everything.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

mod error;
mod ip_block;
mod namespace;
mod pod;
mod policy;
mod port;
mod selector;

pub use cluster::NamespacedName;
pub use error::{Error, Problem};
pub use ip_block::IpBlock;
pub(crate) use ip_block::parse_cidr;
pub use namespace::Namespace;
pub use pod::{NamedPort, Pod};
pub use policy::{Direction, Peer, Peers, Policy, Ports, Rule};
pub use port::{Port, PortNumber, Protocol};
pub use selector::{Requirement, Selector};

/// An object's labels: `metadata.labels`.
pub type Labels = BTreeMap<String, String>;

/// All objects that policy depends on, in any order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct World {
    /// The pods of the cluster, those of other nodes included.
    pub pods: Vec<Pod>,
    /// The namespaces.
    pub namespaces: Vec<Namespace>,
    /// The policies.
    pub policies: Vec<Policy>,
}

impl World {
    /// The endpoints that have `address`. While an address passes from one pod to another, both
    /// may be known to have it: the events of the two come in either order.
    pub fn endpoints_at(&self, address: IpAddr) -> impl Iterator<Item = &Pod> {
        self.pods.iter().filter(move |pod| pod.is_endpoint() && pod.addresses.contains(&address))
    }

    /// The one endpoint whose policies hold for `address`: the newest, but one that is being
    /// deleted only where there is no other.
    #[must_use]
    pub fn subject_at(&self, address: IpAddr) -> Option<&Pod> {
        self.endpoints_at(address).max_by_key(|pod| (!pod.terminating, pod.created, &pod.uid))
    }

    /// The namespace of that name. While one is created again under the same name, both may be
    /// known: the newest counts.
    #[must_use]
    pub fn namespace(&self, name: &str) -> Option<&Namespace> {
        self.namespaces
            .iter()
            .filter(|namespace| namespace.name == name)
            .max_by_key(|namespace| (namespace.created, &namespace.uid))
    }
}

/// `metadata.creationTimestamp` in seconds since the Unix epoch; 0 where it is absent, as in a
/// manifest.
fn created(metadata: &ObjectMeta) -> i64 {
    metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second())
}
