//! What nodes have of the cluster's network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use testbed::settings::node_name;

use crate::bed::{Bed, PATIENCE, await_that};

impl Bed {
    /// The ranges of a node's pods; none while the cluster does not know it.
    #[must_use]
    pub fn ranges(&self, node: u8) -> Vec<IpNetwork> {
        let nodes = self.get(&["nodes"]);
        let mut nodes = nodes["items"].as_array().unwrap().iter();
        let known = nodes.find(|it| it["metadata"]["name"] == node_name(node).as_str());
        let ranges = known.and_then(|it| it["spec"]["podCIDRs"].as_array());
        ranges.into_iter().flatten().map(|it| it.as_str().unwrap().parse().unwrap()).collect()
    }

    /// Whether a node has a route to each of these ranges of another one's pods.
    #[must_use]
    pub fn has_routes(&self, node: u8, ranges: &[IpNetwork]) -> bool {
        let routes = self.routes(node);
        ranges.iter().all(|it| routes.contains(it))
    }

    /// The ranges of other nodes' pods that a node has routes to.
    #[must_use]
    pub fn routes(&self, node: u8) -> Vec<IpNetwork> {
        let printed = self.on(node, "ip -4 route show proto 112; ip -6 route show proto 112");
        let others = printed.lines().filter(|it| it.contains(" via "));
        others.filter_map(|it| it.split(' ').next()?.parse().ok()).collect()
    }

    /// Has a node's kernel know each connection for hours, until somebody has it forget.
    pub fn remember_connections(&self, node: u8) {
        self.on(
            node,
            "for file in /proc/sys/net/netfilter/nf_conntrack_*_timeout*; do
                echo 7200 >$file
            done",
        );
    }

    /// The connections that a node's kernel knows with such an address at an end.
    #[must_use]
    pub fn connections(&self, node: u8, is_meant: impl Fn(&IpAddr) -> bool) -> Vec<String> {
        let printed = self.on(node, "conntrack -L -f ipv4; conntrack -L -f ipv6");
        let has_meant = |line: &&str| {
            let ends = line.split(' ').filter_map(|it| it.strip_prefix("src="));
            ends.filter_map(|it| it.parse().ok()).any(|it| is_meant(&it))
        };
        printed.lines().filter(has_meant).map(str::to_owned).collect()
    }

    /// Has a node give these addresses, one of each family, to its next pod. A pod's object may have gone
    /// before its addresses are free.
    pub fn hand_out_next(&self, node: u8, addresses: &[IpAddr]) {
        for (which, address) in addresses.iter().enumerate() {
            let lease = format!("find /var/lib/cni/networks -name {address}");
            await_that(&format!("{address} is free"), PATIENCE, || {
                self.on(node, &lease).is_empty()
            });
            let before = predecessor(*address);
            let file = format!("/var/lib/cni/networks/*/last_reserved_ip.{which}");
            self.on(node, &format!("for file in {file}; do printf %s {before} >$file; done"));
        }
    }
}

fn predecessor(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(it) => Ipv4Addr::from_bits(it.to_bits() - 1).into(),
        IpAddr::V6(it) => Ipv6Addr::from_bits(it.to_bits() - 1).into(),
    }
}
