//! Routed pods (ptp).

use lab::probe::{must_not_reach, must_reach};
use serde_json::{Value, json};

use crate::network::{NODE4, NODE6, Network, WORLD4, WORLD6, dual};

fn ptp(keys: &Value) -> Network {
    let routes = json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]);
    Network::with(json!({"type": "ptp", "ipam": dual(&routes)}), keys)
}

#[test]
fn both_families_between_pods_and_gateway() {
    let network = ptp(&json!({}));
    let (one, two) = (network.guest("one"), network.guest("two"));
    network.is_whole_for(&one, &two);
    network.leave(&two);
    must_not_reach(&one.pod, &network.node, &two.v4);
    must_reach(&one.pod, &network.node, "fd00:1::1");
    network.leave(&one);
}

#[test]
fn the_world_is_reached_by_masquerade() {
    ptp(&json!({"ipMasq": true})).is_masqueraded();
}

/// That the test above can fail: without masquerade no answer finds its way; with a route back it does.
#[test]
fn the_world_needs_masquerade_or_a_route_back() {
    let network = ptp(&json!({}));
    let world = network.world();
    let one = network.guest("one");
    must_not_reach(&one.pod, &world, WORLD4);
    world
        .sh(&format!("ip route add 10.1.0.0/24 via {NODE4}; ip route add fd00:1::/64 via {NODE6}"));
    one.must_be_seen_by(&world, [WORLD4, WORLD6], [&one.v4, &one.v6]);
    network.leave(&one);
}

/// An address of a single host, with a gateway that is no neighbour by its address.
#[test]
fn host_prefixes_with_a_gateway_elsewhere() {
    let routes = json!([{"dst": "0.0.0.0/0"}]);
    let guest_of = |address: &str| json!({"type": "static", "routes": routes, "addresses": [{"address": address, "gateway": "169.254.1.1"}]});
    let network = ptp(&json!({"ipam": guest_of("10.1.0.7/32")}));
    let one = network.guest("one");
    must_reach(&one.pod, &network.node, "169.254.1.1");
    must_reach(&network.node, &one.pod, &one.v4);
    network.leave(&one);
}
