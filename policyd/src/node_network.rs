//! The node's own network: what flannel's host-gw backend or kindnet does. Routes to the pods of the
//! other nodes, forwarding, a chain that lets pods' packets pass where others drop what is
//! forwarded, and last, once policies are in force, the file that tells the runtime to use podwire.
//!
//! [`plan`] and [`conflist`] are pure; [`Keeper`] has the effects, and [`run()`] calls it whenever
//! the cluster or the kernel changes.

use std::io;
use std::path::PathBuf;

use ipnetwork::IpNetwork;

use crate::dataplane;

mod accept;
mod conf_dir;
pub mod conflist;
mod constants;
mod defect;
mod forwarding;
mod keeper;
mod members;
mod metrics;
pub mod plan;
mod removal;
mod report;
mod run;
mod teller;

pub(crate) use accept::forget_jump;
pub use conf_dir::ConfDir;
pub use constants::{BRIDGE, CHAIN, LAST_METRIC, METRIC, NETWORK, PROTOCOL};
pub use defect::Defect;
pub use forwarding::enable as enable_forwarding;
pub use keeper::{Keeper, Options, uplink_addresses};
pub use members::{Member, Members, watch};
pub use metrics::Metrics;
pub use removal::{remove, remove_left_over};
pub use report::{Repairs, Report};
pub use run::run;

/// Why the node's network is not in place.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server has no such node.
    #[error(
        "there is no node {0} in the cluster (is its name the one that the cluster knows it by? see --node-name)"
    )]
    NoNode(String),
    /// Nobody has given the node ranges for its pods.
    #[error(
        "node {0} has no spec.podCIDRs (does the controller manager run with --allocate-node-cidrs and --cluster-cidr?)"
    )]
    NoRanges(String),
    /// The node has no address.
    #[error(
        "node {0} has no InternalIP in its status.addresses (has its kubelet, or the cloud's controller, told it?)"
    )]
    NoAddress(String),
    /// The node's address is not on one of its links.
    #[error(
        "the node's InternalIP {0} is on no link here (is policyd in the node's network namespace? without a link give --cni-mtu)"
    )]
    NoUplink(std::net::IpAddr),
    /// IPv6 is not possible with so small packets.
    #[error(
        "link {link:?} has an MTU of {mtu}, and {range} needs 1280 at least: IPv6 has no smaller ones"
    )]
    SmallMtu {
        /// The uplink.
        link: String,
        /// Its MTU.
        mtu: u32,
        /// A range of IPv6.
        range: IpNetwork,
    },
    /// The kernel's links or routes.
    #[error("the node's routes cannot be read or changed")]
    Routes(#[from] netlink::Error),
    /// A parameter cannot be set.
    #[error("cannot write {value} to {}: set {key}={value} on the node itself, by a file in /etc/sysctl.d or a privileged init container (is /proc/sys read-only here, as in every container that is not privileged?)", file.display())]
    Parameter {
        /// The file.
        file: PathBuf,
        /// The parameter as `sysctl` names it.
        key: String,
        /// What it should be.
        value: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Table filter cannot be read or changed.
    #[error("table filter cannot be read or changed, to let pods' packets pass")]
    Filter(#[from] dataplane::Error),
    /// The file for the runtime.
    #[error("cannot {what} {}", file.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What was given is no plugin.
    #[error("{given:?} is no CNI plugin: give its name, or a JSON object with its type")]
    Plugin {
        /// What was given.
        given: String,
    },
}
