//! Masquerading what leaves the cluster by this node: what ip-masq-agent does, with its
//! configuration file (reference: kubernetes-sigs/ip-masq-agent, `cmd/ip-masq-agent`).
//!
//! A packet is masqueraded once at most: the kernel asks its NAT chains only for the first packet of a
//! connection, and the first rule that decides ends that. So where a plugin's `ipMasq` or the
//! service proxy masqueraded a connection, no rule here sees it, and the other way round.

mod agent;
mod config;
mod iptables;
mod metrics;
mod nftables;
mod ports;

use std::path::PathBuf;

use ipnetwork::IpNetwork;
use ruleset::networks::{LINK_LOCAL_V4, LINK_LOCAL_V6, MULTICAST_V4, MULTICAST_V6};
use runner::Runner;

use crate::dataplane::{self, Kind, Programs};
use crate::iptables::Family;

pub use agent::{Agent, Report};
pub use config::{Config, Options, ReadConfig};
pub use iptables::{CHAIN, chain, hook};
pub use metrics::Metrics;
pub use ports::PortRanges;

/// Removes all rules that an agent made by this way.
///
/// # Errors
/// By iptables the first of the two families' errors; both are tried.
pub fn remove<R: Runner>(kind: Kind, programs: &mut Programs<R>) -> Result<(), Error> {
    if kind == Kind::Nftables {
        return Ok(nftables::remove()?);
    }
    let place = iptables::own_chain();
    let [four, six] = Family::ALL.map(|family| place.remove(programs, family));
    Ok(four.and(six).map(drop)?)
}

/// The destinations of a family that are left alone.
fn spared(config: &Config, family: Family) -> impl Iterator<Item = IpNetwork> {
    let (link_local, is_masqueraded, multicast) = if family.is_ipv4() {
        (LINK_LOCAL_V4, config.masquerade_link_local, MULTICAST_V4)
    } else {
        (LINK_LOCAL_V6, config.masquerade_link_local_ipv6, MULTICAST_V6)
    };
    let link_local = Some(link_local).filter(|_| !is_masqueraded);
    let fixed = [Some(multicast), link_local].into_iter().flatten();
    fixed.chain(config.non_masquerade.iter().copied().filter(move |it| family.has_network(it)))
}

/// Why masquerading cannot be as it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read {}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is larger than any configuration.
    #[error("{}: more than {limit} bytes: this cannot be a configuration of masquerading", file.display())]
    TooLarge {
        /// The file.
        file: PathBuf,
        /// How large it may be.
        limit: u64,
    },
    /// The file is neither YAML nor JSON.
    #[error("{}: neither YAML nor JSON", file.display())]
    Syntax {
        /// The file.
        file: PathBuf,
        /// Where, and why.
        #[source]
        source: Box<serde_saphyr::Error>,
    },
    /// A field of the file.
    #[error("{}: {field}: {problem}", file.display())]
    Field {
        /// The file.
        file: PathBuf,
        /// The field's path, such as `nonMasqueradeCIDRs[1]`.
        field: String,
        /// What is wrong with it.
        problem: Problem,
    },
    /// A list of port ranges.
    #[error("{text:?} is no list of ports (such as 1024-29999,32768-65535)")]
    Ports {
        /// What was given.
        text: String,
    },
    /// The rules cannot be read or changed.
    #[error("cannot masquerade: table nat cannot be read or changed")]
    Kernel(#[from] dataplane::Error),
}

/// What can be wrong with a field of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Another type of value is needed.
    #[error("{found} is not {wanted}")]
    Type {
        /// What is there, as JSON.
        found: String,
        /// What should be.
        wanted: &'static str,
    },
    /// An address block.
    #[error("{0:?} is not a CIDR (address/prefix length)")]
    Cidr(String),
    /// An address block with host bits.
    #[error("{given:?} has bits set after its prefix (did you mean {aligned}?)")]
    Unaligned {
        /// What was given.
        given: String,
        /// The block that the address is in.
        aligned: String,
    },
    /// An IPv6 block where IPv6 is off.
    #[error("{0} is of IPv6, which is not masqueraded here (it is by --enable-ipv6)")]
    Ipv6Disabled(String),
    /// Too many blocks.
    #[error("{count} CIDRs are more than cidrLimit ({limit}): is this really meant?")]
    TooMany {
        /// How many there are.
        count: usize,
        /// How many may be.
        limit: usize,
    },
    /// A span of time.
    #[error("{0:?} is no span of time (such as 60s or 1m30s), or is not more than nothing")]
    Duration(String),
}
