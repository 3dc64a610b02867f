//! The plan as iptables chains and ipsets: what stands where, and why, is told in
//! `docs/policyd.md`. All of it is pure.
//!
//! ```text
//! raw PREROUTING -> PODWIRE-PREROUTING
//!   by interface -> PODWIRE-LINK, PODWIRE-PORT             not the pod's address: drop
//! mangle FORWARD, INPUT -> PODWIRE-FORWARD, PODWIRE-INPUT
//!   a flow that was cut              drop
//!   an address of the node's pods that has no rules yet    drop (the gate)
//!   to a pod's port of a bridge -> PODWIRE-OUT             not for that pod: drop
//!   established                      pass
//!   of TCP or SCTP, and begins no flow -> PODWIRE-MIDDLE   might be an answer: drop
//!   by source -> PODWIRE-SRC
//!     -> PODWIRE-FROM-pod -> PODWIRE-EGRESS-policy ...     none allows it: drop
//!   by destination -> PODWIRE-DST (only in FORWARD)
//!     -> PODWIRE-TO-pod -> PODWIRE-INGRESS-policy ...      none allows it: drop
//! ```

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use ruleset::iptables::{Chain, Match, Rule, Side, Target};
use ruleset::networks::{BROADCAST, MULTICAST_V4, MULTICAST_V6};

mod address_dispatch;
pub(crate) mod discovery;
mod endpoint;
mod hooks;
mod interface_dispatch;
mod policy;
mod sets;
mod sources;

pub(crate) use endpoint::{
    LOGGED_EACH_MINUTE, direction as endpoint_chain_direction, name as endpoint_chain_name,
};
pub use endpoint::{endpoint_chains, is_in_use, policies};
pub use hooks::{Hook, dispatch, hooks};
pub(crate) use policy::rules as policy_rules;
pub use policy::{name as policy_chain_name, policy_chain};
pub(crate) use sets::is_of_plan;
pub use sets::{bound_set, members, programmed_set, set};
pub use sources::sources;

/// What all chains of ours begin with.
pub const CHAIN_PREFIX: &str = "PODWIRE-";
/// What all sets of ours begin with.
pub const SET_PREFIX: &str = "podwire-";

/// The table that comes ahead of connection tracking.
pub(crate) const RAW: &str = "raw";
/// The table that has all verdicts of policies.
pub(crate) const MANGLE: &str = "mangle";

/// Chains that stand alone.
const ALLOW: &str = "PODWIRE-ALLOW";
pub(crate) const FORGED: &str = "PODWIRE-FORGED";
pub(crate) const GATE: &str = "PODWIRE-GATE";

/// A family of addresses: each has tables and sets of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// That of an address.
    #[must_use]
    pub const fn of(address: &IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// Whether it is IPv4.
    #[must_use]
    pub const fn is_ipv4(self) -> bool {
        matches!(self, Self::V4)
    }

    /// The family of the tables of nf_tables that the programs of iptables make for it.
    #[must_use]
    pub const fn of_nf_tables(self) -> ruleset::nft::Family {
        if self.is_ipv4() { ruleset::nft::Family::Ip } else { ruleset::nft::Family::Ip6 }
    }

    /// Whether the address is of this family.
    #[must_use]
    pub const fn has(self, address: &IpAddr) -> bool {
        self.is_ipv4() == address.is_ipv4()
    }

    /// Whether the network is of this family.
    #[must_use]
    pub fn has_network(self, network: &IpNetwork) -> bool {
        self.is_ipv4() == network.is_ipv4()
    }
}

/// Bits of marks. They are podwire's alone; every other bit is left as it is. Change them where
/// another agent of the node uses the same: kube-proxy has 0x4000 and 0x8000 of packets, Calico by
/// default 0xffff0000, kube-router 0x10000 and 0x20000.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    /// Of packets, only within our chains: a rule allows it.
    pub allowed: u32,
    /// Of packets, on the way to the filter table: to be rejected there.
    pub rejected: u32,
    /// Of connections: the flow was allowed once, and is no longer.
    pub cut: u32,
}

impl Default for Marks {
    fn default() -> Self {
        Self { allowed: 0x0400, rejected: 0x0800, cut: 0x0400 }
    }
}

/// What the rules depend on besides the plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// The bits of marks that are used.
    pub marks: Marks,
    /// Whether who sends what is denied is told so, instead of left waiting.
    pub rejects: bool,
    /// Whether flows are cut that began before and are not allowed.
    pub cuts_flows: bool,
    /// The group of netfilter's log that what is denied is copied to.
    pub log_group: Option<u16>,
    /// The ranges of the node's pods: an address of theirs passes only once it has its rules.
    pub gated: Vec<IpNetwork>,
}

/// The network of one address.
fn host(address: IpAddr) -> IpNetwork {
    IpNetwork::from(address)
}

/// Destinations that are not one host's.
fn to_several(family: Family) -> Vec<Match> {
    let network = |it| Match::Address(Side::Destination, it);
    match family {
        Family::V4 => {
            let of_network = Match::BroadcastAddress(Side::Destination);
            vec![network(MULTICAST_V4), network(BROADCAST), of_network]
        }
        Family::V6 => vec![network(MULTICAST_V6)],
    }
}

fn chain(name: &str, rules: impl Into<Vec<Rule>>) -> Chain {
    Chain { name: name.to_owned(), rules: rules.into() }
}

fn goto(matches: impl Into<Vec<Match>>, chain: &str) -> Rule {
    Rule::new(matches, Target::Goto(chain.to_owned()))
}

fn jump(matches: impl Into<Vec<Match>>, chain: &str) -> Rule {
    Rule::new(matches, Target::Jump(chain.to_owned()))
}
