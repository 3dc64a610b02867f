//! What is asked of a cluster, and the addresses that follow from it.

use std::fmt::{self, Display, Formatter};

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

/// As many nodes have a place in the plan of addresses.
pub const MOST_NODES: u8 = 9;

/// Where the API server listens.
pub const API_SERVER: u16 = 6443;

/// What a cluster is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Args, Serialize, Deserialize)]
pub struct Settings {
    /// Number of nodes; the first one is the control plane as well.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=i64::from(MOST_NODES)))]
    pub nodes: u8,
    /// Addresses of nodes, pods and Services.
    #[arg(long, value_enum, default_value_t = Family::Ipv4)]
    pub family: Family,
    /// Who serves Services: kube-proxy, by one of its modes, or proxyd.
    #[arg(long, value_enum, default_value_t = Proxy::Iptables)]
    pub proxy: Proxy,
    /// How policyd writes its rules.
    #[arg(long, value_enum, default_value_t = Backend::Auto)]
    pub backend: Backend,
}

/// Which addresses a cluster has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4 alone.
    Ipv4,
    /// IPv6 alone.
    Ipv6,
    /// Both, IPv4 first.
    Dual,
}

/// Who serves Services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proxy {
    /// kube-proxy by iptables.
    Iptables,
    /// kube-proxy by nf_tables.
    Nftables,
    /// proxyd, and no kube-proxy.
    Proxyd,
}

/// A backend of policyd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// As it chooses itself.
    Auto,
    /// iptables and ipset.
    Iptables,
    /// nf_tables.
    Nftables,
}

impl Display for Proxy {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Iptables => "iptables",
            Self::Nftables => "nftables",
            Self::Proxyd => "proxyd",
        })
    }
}

/// The ranges of one family.
#[derive(Debug, PartialEq, Eq)]
pub struct Ranges {
    /// All pods.
    pub pods: &'static str,
    /// Length of the prefix of one node's pods.
    pub node_mask: u8,
    /// Services.
    pub services: &'static str,
    /// The Service of the cluster's DNS.
    pub dns: &'static str,
    /// Whatever an address of the family can be: the way to everywhere.
    pub everything: &'static str,
    /// An address outside of the cluster, which only knows the nodes.
    pub world: &'static str,
    network: &'static str,
    mask: u8,
}

const IPV4: Ranges = Ranges {
    pods: "10.244.0.0/16",
    node_mask: 24,
    services: "10.96.0.0/16",
    dns: "10.96.0.10",
    everything: "0.0.0.0/0",
    // Of the range for documentation: masquerading leaves private addresses alone.
    world: "198.51.100.1",
    network: "172.30.0.",
    mask: 24,
};

const IPV6: Ranges = Ranges {
    pods: "fd00:10:244::/56",
    node_mask: 64,
    services: "fd00:10:96::/112",
    dns: "fd00:10:96::a",
    everything: "::/0",
    world: "2001:db8:100::1",
    network: "fd00:30::",
    mask: 64,
};

impl Ranges {
    /// Where a node is, by its number from 1.
    #[must_use]
    pub fn node(&self, number: u8) -> String {
        format!("{}1{number}", self.network)
    }

    /// The same, with the length of the nodes' prefix.
    #[must_use]
    pub fn node_with_mask(&self, number: u8) -> String {
        format!("{}/{}", self.node(number), self.mask)
    }

    /// The nodes' way out.
    #[must_use]
    pub fn gateway(&self) -> String {
        format!("{}1", self.network)
    }

    /// The same, with the length of the nodes' prefix.
    #[must_use]
    pub fn gateway_with_mask(&self) -> String {
        format!("{}/{}", self.gateway(), self.mask)
    }
}

impl Family {
    /// The ranges of each family, that of the first addresses first.
    #[must_use]
    pub fn ranges(self) -> &'static [Ranges] {
        const BOTH: &[Ranges] = &[IPV4, IPV6];
        const LAST: &[Ranges] = &[IPV6];
        const FIRST: &[Ranges] = &[IPV4];
        match self {
            Self::Ipv4 => FIRST,
            Self::Ipv6 => LAST,
            Self::Dual => BOTH,
        }
    }

    /// What `f` says of each family, with commas between.
    pub(crate) fn list(self, f: impl Fn(&Ranges) -> String) -> String {
        self.ranges().iter().map(f).collect::<Vec<_>>().join(",")
    }

    /// What `f` says of the first family.
    pub(crate) fn first(self, f: impl Fn(&Ranges) -> String) -> String {
        self.ranges().first().map(f).unwrap_or_default()
    }
}

impl Settings {
    /// The nodes' numbers.
    #[must_use]
    pub fn numbers(&self) -> std::ops::RangeInclusive<u8> {
        1..=self.nodes
    }

    /// The address of the API server.
    #[must_use]
    pub fn api_server_host(&self) -> String {
        self.family.first(|it| it.node(1))
    }

    /// Where the API server is reached.
    #[must_use]
    pub fn api_server(&self) -> String {
        let address = self.api_server_host();
        if address.contains(':') {
            format!("https://[{address}]:{API_SERVER}")
        } else {
            format!("https://{address}:{API_SERVER}")
        }
    }
}

/// The name of a node, by its number from 1.
#[must_use]
pub fn node_name(number: u8) -> String {
    format!("node-{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_are_told_in_one_list() {
        assert_eq!(Family::Dual.list(|it| it.services.to_owned()), "10.96.0.0/16,fd00:10:96::/112");
        assert_eq!(Family::Dual.list(|it| it.node(2)), "172.30.0.12,fd00:30::12");
        assert_eq!(Family::Ipv6.list(|it| it.gateway_with_mask()), "fd00:30::1/64");
    }

    #[test]
    fn an_ipv6_address_has_brackets_in_a_url() {
        let mut settings = Settings {
            nodes: 1,
            family: Family::Ipv6,
            proxy: Proxy::Iptables,
            backend: Backend::Auto,
        };
        assert_eq!(settings.api_server(), "https://[fd00:30::11]:6443");
        settings.family = Family::Dual;
        assert_eq!(settings.api_server(), "https://172.30.0.11:6443");
    }
}
