//! What of the cluster cannot be as it says, while the rest is.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

/// A range that has no route, or not the one that it should have, and why; or what keeps the runtime
/// from the network.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Defect {
    /// The node is behind a router.
    #[error(
        "node {node}: no route to its pods ({range}): its InternalIP {address} is not on a link of this node, and without an overlay all nodes have to be in one network"
    )]
    NotOnLink {
        /// The node.
        node: String,
        /// The range of its pods.
        range: IpNetwork,
        /// Its address.
        address: IpAddr,
    },
    /// The node has no address of the family.
    #[error("node {node}: no route to its pods ({range}): it has no InternalIP of that family")]
    NoAddress {
        /// The node.
        node: String,
        /// The range of its pods.
        range: IpNetwork,
    },
    /// The range is not the node's alone.
    #[error("node {node}: no route to its pods ({range}): {with} is {whose}")]
    Overlap {
        /// The node.
        node: String,
        /// The range of its pods.
        range: IpNetwork,
        /// What it shares addresses with.
        with: IpNetwork,
        /// Whose that is.
        whose: String,
    },
    /// Somebody else has another opinion.
    #[error(
        "the route to the pods of node {node} ({range}) is overruled by one of somebody else's to the same range, of metric {metric}: is another CNI agent running, or has it left it behind?"
    )]
    Overruled {
        /// The node.
        node: String,
        /// The range of its pods.
        range: IpNetwork,
        /// The metric of the other route.
        metric: u32,
    },
    /// The runtime takes another file.
    #[error(
        "the runtime uses {file} and not ours, as it takes the first by name: remove it, or give --cni-conf-name"
    )]
    Shadowed {
        /// The file.
        file: String,
    },
}

impl Defect {
    /// The node that it keeps from being reached.
    #[must_use]
    pub fn node(&self) -> Option<&str> {
        match self {
            Self::NotOnLink { node, .. }
            | Self::NoAddress { node, .. }
            | Self::Overlap { node, .. }
            | Self::Overruled { node, .. } => Some(node),
            Self::Shadowed { .. } => None,
        }
    }
}
