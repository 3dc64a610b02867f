//! Pods on a bridge.

use lab::probe::{must_not_reach, must_reach};
use serde_json::{Value, json};

use crate::network::{Network, WORLD4, WORLD6, dual};

fn bridge(keys: &Value) -> Network {
    let conf = json!({"type": "bridge", "bridge": "br0", "isDefaultGateway": true, "ipam": dual(&json!([]))});
    Network::with(conf, keys)
}

#[test]
fn v4_alone() {
    let network =
        bridge(&json!({"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}]]}}));
    let (one, two) = (network.guest("one"), network.guest("two"));
    must_reach(&one.pod, &two.pod, &two.v4);
    must_reach(&one.pod, &network.node, "10.1.0.1");
    network.leave(&two);
    must_not_reach(&one.pod, &network.node, &two.v4);
    network.leave(&one);
}

#[test]
fn v6_alone() {
    let network =
        bridge(&json!({"ipam": {"type": "host-local", "ranges": [[{"subnet": "fd00:1::/64"}]]}}));
    let (one, two) = (network.guest("one"), network.guest("two"));
    must_reach(&one.pod, &two.pod, &two.v6);
    must_reach(&one.pod, &network.node, "fd00:1::1");
    network.leave(&one);
    network.leave(&two);
}

#[test]
fn both_families_between_pods_and_gateway() {
    let network = bridge(&json!({}));
    let (one, two) = (network.guest("one"), network.guest("two"));
    network.is_whole_for(&one, &two);
    // The pod itself, by its own addresses and by loopback.
    must_reach(&one.pod, &one.pod, &one.v4);
    must_reach(&one.pod, &one.pod, &one.v6);
    must_reach(&one.pod, &one.pod, "127.0.0.1");
    must_reach(&one.pod, &one.pod, "::1");
    network.leave(&one);
    network.leave(&two);
}

#[test]
fn the_world_is_reached_by_masquerade() {
    bridge(&json!({"ipMasq": true})).is_masqueraded();
}

/// That the test above can fail: without masquerade no answer finds its way.
#[test]
fn the_world_is_not_reached_without_masquerade() {
    let network = bridge(&json!({}));
    let world = network.world();
    let one = network.guest("one");
    must_not_reach(&one.pod, &world, WORLD4);
    must_not_reach(&one.pod, &world, WORLD6);
    network.leave(&one);
}

#[test]
fn an_isolated_port_reaches_the_gateway_alone() {
    let network = bridge(&json!({"portIsolation": true}));
    let (one, two) = (network.guest("one"), network.guest("two"));
    must_reach(&one.pod, &network.node, "10.1.0.1");
    must_reach(&two.pod, &network.node, "10.1.0.1");
    must_not_reach(&one.pod, &two.pod, &two.v4);
    network.leave(&one);
    network.leave(&two);
}

/// Without IPAM the bridge is only a switch; addresses come from elsewhere.
#[test]
fn layer_two_only() {
    let network = Network::new(json!({"type": "bridge", "bridge": "br0"}));
    let (one, two) = (network.guest("one"), network.guest("two"));
    assert!(one.result.get("ips").is_none(), "no IPAM, no addresses: {:#}", one.result);
    one.pod.sh("ip addr add 198.51.100.1/24 dev eth0; ip addr add 2001:db8:7::1/64 dev eth0 nodad");
    two.pod.sh("ip addr add 198.51.100.2/24 dev eth0; ip addr add 2001:db8:7::2/64 dev eth0 nodad");
    must_reach(&one.pod, &two.pod, "198.51.100.2");
    must_reach(&two.pod, &one.pod, "2001:db8:7::1");
    network.leave(&one);
    must_not_reach(&two.pod, &network.node, "198.51.100.1");
    network.leave(&two);
}

#[test]
fn a_large_mtu_carries_large_packets() {
    let network = bridge(&json!({"mtu": 9000}));
    let (one, two) = (network.guest("one"), network.guest("two"));
    let line = format!("ip route get {} | grep -q . && ip -j link show eth0", two.v4);
    assert!(one.pod.sh(&line).contains("\"mtu\":9000"));
    must_reach(&one.pod, &two.pod, &two.v4);
    network.leave(&one);
    network.leave(&two);
}
