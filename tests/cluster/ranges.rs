//! The ranges of the node's pods change, or are none: the gate is for those that its object tells.

use std::collections::BTreeSet;
use std::net::IpAddr;

use lab::cluster::{Cluster, Version};
use lab::probe::{must_not_reach, must_reach};
use lab::{Node, Pod, by_nftables, policy_rules};
use serde_json::json;

use crate::away::start;
use crate::deployed::{PATIENCE, answer, attach, clean_up, is_ready, ours, wire};
use crate::objects::{RANGES, cluster, join, this_node};

const OTHERS: [&str; 2] = ["10.244.2.0/24", "fd00:2::/64"];
const REFUSED: &str = "the node has no spec.podCIDRs: give --pod-cidr, or --gate=off\n";

/// The API server lets nobody change the ranges of a node that has some but by a new object.
fn join_again(cluster: &Cluster<'_>, ranges: &[&str]) {
    cluster.delete(&this_node());
    join(cluster, ranges);
}

/// The ranges that are gated.
fn gated(node: &Node) -> BTreeSet<String> {
    let rules = policy_rules(node);
    let (of_gate, before) = if by_nftables() {
        (" goto PODWIRE-GATE-", " saddr ")
    } else {
        ("! --match-set podwire-", " -s ")
    };
    let of_gate = rules.lines().filter(|it| it.contains(of_gate));
    let range = |rule: &str| Some(rule.split_once(before)?.1.split(' ').next()?.to_owned());
    of_gate.filter_map(range).collect()
}

fn set(ranges: &[&str]) -> BTreeSet<String> {
    ranges.iter().map(|it| (*it).to_owned()).collect()
}

/// A pod, and two containers that nobody tells of: with addresses of the node's ranges, and of others.
struct Site {
    server: (Pod, Vec<IpAddr>),
    strangers: [Pod; 2],
}

impl Site {
    fn new(node: &Node, cluster: &Cluster<'_>) -> Self {
        let strangers = [("one", RANGES), ("two", OTHERS)];
        let strangers = strangers.map(|(name, ranges)| attach(node, name, ranges).0);
        Self { server: wire(node, cluster, "server"), strangers }
    }

    /// Whether each of them reaches the pod, by either family.
    fn reach(&self, expected: [[bool; 2]; 2]) {
        let (server, addresses) = &self.server;
        for (stranger, by_family) in self.strangers.iter().zip(expected) {
            for (address, passes) in addresses.iter().zip(by_family) {
                if passes {
                    must_reach(stranger, server, &address.to_string());
                } else {
                    must_not_reach(stranger, server, &address.to_string());
                }
            }
        }
    }
}

#[test]
fn the_gate_is_for_the_ranges_that_the_node_has_now() {
    let node = Node::quick();
    let cluster = cluster(&node, Version::New);
    let site = Site::new(&node, &cluster);
    let mut daemon = start(&node, &cluster);
    daemon.wait_until(PATIENCE, || is_ready(&node, 9099));
    assert_eq!(gated(&node), set(&RANGES));
    site.reach([[false; 2], [true; 2]]);
    for (ranges, expected) in [
        (&OTHERS[..], [[true; 2], [false; 2]]),
        (&RANGES[..1], [[false, true], [true; 2]]),
        (&[RANGES[0], OTHERS[1]], [[false, true], [true, false]]),
    ] {
        join_again(&cluster, ranges);
        daemon.wait_until(PATIENCE, || gated(&node) == set(ranges));
        site.reach(expected);
    }
    drop(daemon);
    clean_up(&node, &[]);
}

#[test]
fn a_node_without_ranges_is_not_ready_until_it_has_some() {
    let node = Node::quick();
    let cluster = cluster(&node, Version::New);
    let site = Site::new(&node, &cluster);
    join_again(&cluster, &[]);
    let mut daemon = start(&node, &cluster);
    daemon.wait_until(PATIENCE, || answer(&node, 9099, "readyz") == REFUSED);
    assert_eq!(ours(&node), "");
    site.reach([[true; 2]; 2]);
    let given = json!({"spec": {"podCIDR": RANGES[0], "podCIDRs": RANGES}});
    cluster.patch(&this_node(), &given);
    daemon.wait_until(PATIENCE, || is_ready(&node, 9099));
    assert_eq!(gated(&node), set(&RANGES));
    site.reach([[false; 2], [true; 2]]);
    // Who had some keeps the gate of before.
    join_again(&cluster, &[]);
    daemon.wait_until(PATIENCE, || answer(&node, 9099, "readyz") == REFUSED);
    assert_eq!(gated(&node), set(&RANGES));
    site.reach([[false; 2], [true; 2]]);
    drop(daemon);
    clean_up(&node, &[]);
}
