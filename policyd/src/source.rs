//! What a source of objects tells: the API server's watches, or a folder of manifests.

use std::net::IpAddr;

pub use cluster::Change;
use ipnetwork::IpNetwork;

use crate::model::{Namespace, Pod, Policy};

pub mod api_server;
pub mod folder;
mod snapshot;

pub use snapshot::snapshot;

/// Something about the objects changed. They are told apart by their uids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Pods.
    Pods(Change<Pod>),
    /// Namespaces.
    Namespaces(Change<Namespace>),
    /// A pod that was asked for. The watch tells of it too, later or before.
    Answer(Pod),
    /// NetworkPolicies.
    Policies(Change<Policy>),
    /// This node, as it is now.
    Node(Node),
}

/// What policy needs of the node that policyd runs on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    /// Its name, as in `spec.nodeName` of its pods.
    pub name: String,
    /// The ranges that its pods' addresses are from: `spec.podCIDRs`.
    pub pod_ranges: Vec<IpNetwork>,
    /// Its own addresses: those of `status.addresses` that are addresses.
    pub addresses: Vec<IpAddr>,
}
