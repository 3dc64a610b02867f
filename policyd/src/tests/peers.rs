//! `from` and `to`: selectors and address blocks.

use serde_json::{Value, json};

use super::scene::{assert_packets, namespace, nine_pods, policy, with, with_policy, world};

/// Policy of all pods in `x` with one ingress rule from these peers.
fn from(peers: Value) -> Value {
    json!({"podSelector": {}, "ingress": [{"from": peers}]})
}

/// The same for egress.
fn to(peers: Value) -> Value {
    json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": peers}]})
}

#[test]
fn a_pod_selector_alone_means_the_policys_namespace() {
    let world = with_policy(from(json!([{"podSelector": {"matchLabels": {"pod": "b"}}}])));
    assert_packets(&world, &["x/b > x/a 80/TCP", "!y/b > x/a 80/TCP", "!x/c > x/a 80/TCP"]);
    let world = with_policy(to(json!([{"podSelector": {}}])));
    assert_packets(&world, &["x/a > x/c 80/TCP", "!x/a > y/a 80/TCP", "!x/a > 203.0.113.9 80/TCP"]);
}

#[test]
fn a_namespace_selector_alone_means_all_their_pods() {
    let world = with_policy(from(json!([{"namespaceSelector": {"matchLabels": {"ns": "y"}}}])));
    assert_packets(&world, &["y/a > x/a 80/TCP", "y/c > x/a 80/TCP", "!z/a > x/a 80/TCP"]);
    assert_packets(&world, &["!x/b > x/a 80/TCP"]);
}

#[test]
fn an_empty_namespace_selector_means_all_namespaces_and_nothing_outside() {
    let world = with_policy(from(json!([{"namespaceSelector": {}}])));
    assert_packets(&world, &["x/b > x/a 80/TCP", "z/c > x/a ICMP", "!203.0.113.9 > x/a 80/TCP"]);
}

#[test]
fn both_selectors_in_one_peer_must_hold_and_in_two_either() {
    let pod = json!({"matchLabels": {"pod": "b"}});
    let namespace = json!({"matchLabels": {"ns": "y"}});
    let one = json!([{"podSelector": pod, "namespaceSelector": namespace}]);
    let packets = ["y/b > x/a 80/TCP", "!y/c > x/a 80/TCP", "!x/b > x/a 80/TCP"];
    assert_packets(&with_policy(from(one)), &packets);
    let two = json!([{"podSelector": pod}, {"namespaceSelector": namespace}]);
    let packets = ["y/b > x/a 80/TCP", "y/c > x/a 80/TCP", "x/b > x/a 80/TCP", "!z/b > x/a 80/TCP"];
    assert_packets(&with_policy(from(two)), &packets);
}

#[test]
fn expressions_match_labels_as_kubernetes_does() {
    for (expression, selected) in [
        (json!({"key": "pod", "operator": "In", "values": ["a", "b"]}), ["a", "b"].as_slice()),
        (json!({"key": "pod", "operator": "NotIn", "values": ["a"]}), &["b", "c"]),
        (json!({"key": "absent", "operator": "NotIn", "values": ["a"]}), &["a", "b", "c"]),
        (json!({"key": "absent", "operator": "In", "values": ["a", ""]}), &[]),
        (json!({"key": "pod", "operator": "Exists"}), &["a", "b", "c"]),
        (json!({"key": "absent", "operator": "Exists", "values": []}), &[]),
        (json!({"key": "pod", "operator": "DoesNotExist"}), &[]),
        (json!({"key": "absent", "operator": "DoesNotExist"}), &["a", "b", "c"]),
    ] {
        let peer =
            json!({"namespaceSelector": {}, "podSelector": {"matchExpressions": [expression]}});
        let world = with_policy(from(json!([peer])));
        assert_eq!(world.policies[0].problems, []);
        for pod in ["a", "b", "c"] {
            let denied = if selected.contains(&pod) { "" } else { "!" };
            assert_packets(&world, &[&format!("{denied}y/{pod} > x/a 80/TCP")]);
        }
    }
}

#[test]
fn labels_and_expressions_must_all_hold() {
    let selector = json!({
        "matchLabels": {"tier": "web"},
        "matchExpressions": [
            {"key": "pod", "operator": "NotIn", "values": ["a"]},
            {"key": "pod", "operator": "NotIn", "values": ["b"]},
        ],
    });
    let peer = json!([{"namespaceSelector": {}, "podSelector": selector}]);
    assert_packets(
        &with_policy(from(peer)),
        &["y/c > x/a 80/TCP", "!y/b > x/a 80/TCP", "!y/a > x/a 80/TCP"],
    );
}

#[test]
fn every_namespace_has_its_name_as_a_label() {
    let selector = json!({"matchLabels": {"kubernetes.io/metadata.name": "y"}});
    let world = with_policy(from(json!([{"namespaceSelector": selector}])));
    assert_packets(&world, &["y/a > x/a 80/TCP", "!z/a > x/a 80/TCP"]);
}

#[test]
fn pods_of_an_unknown_namespace_are_in_no_selected_one() {
    let mut objects = nine_pods();
    objects.retain(|object| object["metadata"]["name"] != "y");
    objects.push(policy("x/p", from(json!([{"namespaceSelector": {}}]))));
    assert_packets(&world(&objects), &["!y/a > x/a 80/TCP", "z/a > x/a 80/TCP"]);
}

#[test]
fn a_namespace_created_again_counts_with_its_new_labels() {
    let mut again = namespace("y");
    again["metadata"]["uid"] = json!("another");
    again["metadata"]["creationTimestamp"] = json!("2026-11-02T00:00:00Z");
    again["metadata"]["labels"] = json!({"ns": "new"});
    let policy = policy("x/p", from(json!([{"namespaceSelector": {"matchLabels": {"ns": "y"}}}])));
    let mut world = with([policy, again]);
    assert_packets(&world, &["!y/a > x/a 80/TCP"]);
    world.namespaces.reverse();
    assert_packets(&world, &["!y/a > x/a 80/TCP"]);
}

#[test]
fn an_address_block_is_of_one_family_and_isolates_the_other() {
    let world = with_policy(from(json!([{"ipBlock": {"cidr": "0.0.0.0/0"}}])));
    assert_packets(&world, &["203.0.113.9 > 10.0.1.1 80/TCP", "255.255.255.255 > x/a 1/UDP"]);
    assert_packets(&world, &["!2001:db8::9 > fd00::1:1 80/TCP", "!fd00::2:2 > fd00::1:1 80/TCP"]);
    let world = with_policy(to(json!([{"ipBlock": {"cidr": "::/0"}}])));
    let sixes = ["::1", "64:ff9b::1", "fe80::1", "fc00::1", "ff02::1", "2001:db8::9", "ffff::"];
    for six in sixes {
        assert_packets(&world, &[&format!("fd00::1:1 > {six} 80/TCP")]);
    }
    assert_packets(&world, &["!10.0.1.1 > 203.0.113.9 80/TCP", "!10.0.1.1 > 10.0.2.2 80/TCP"]);
}

#[test]
fn an_address_block_matches_pods_and_nodes_too() {
    let world = with_policy(from(json!([{"ipBlock": {"cidr": "10.0.2.2/31"}}])));
    assert_packets(&world, &["10.0.2.2 > x/a 80/TCP", "10.0.2.3 > x/a 80/TCP"]);
    assert_packets(&world, &["!10.0.2.1 > x/a 80/TCP", "!10.0.2.4 > x/a 80/TCP"]);
}

#[test]
fn host_bits_of_a_block_do_not_count() {
    let world =
        with_policy(to(json!([{"ipBlock": {"cidr": "10.9.8.7/8", "except": ["10.1.2.3/16"]}}])));
    assert_eq!(world.policies[0].problems, []);
    assert_packets(&world, &["x/a > 10.0.0.1 80/TCP", "!x/a > 10.1.0.1 80/TCP"]);
}

#[test]
fn exceptions_leave_out_parts_of_their_own_block_only() {
    let blocks = json!([
        {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.1.0/24", "10.1.0.0/16", "10.7.0.0/16"]}},
        {"ipBlock": {"cidr": "10.1.0.0/16"}},
    ]);
    let world = with_policy(to(blocks));
    assert_packets(&world, &["x/a > 10.1.1.5 80/TCP", "x/a > 10.1.2.5 80/TCP"]);
    assert_packets(&world, &["x/a > 10.6.255.255 80/TCP", "!x/a > 10.7.0.0 80/TCP"]);
    assert_packets(&world, &["!x/a > 10.7.255.255 80/TCP", "x/a > 10.8.0.0 80/TCP"]);
    // Nor does an exception keep a selected pod out.
    let peers = json!([
        {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.2.0/24"]}},
        {"podSelector": {"matchLabels": {"pod": "b"}}, "namespaceSelector": {}},
    ]);
    assert_packets(&with_policy(to(peers)), &["x/a > y/b 80/TCP", "!x/a > 10.0.2.1 80/TCP"]);
}

#[test]
fn overlapping_blocks_are_united() {
    let world = with_policy(to(json!([
        {"ipBlock": {"cidr": "10.0.0.0/16"}}, {"ipBlock": {"cidr": "10.0.2.0/24"}},
        {"ipBlock": {"cidr": "10.0.0.0/16"}},
    ])));
    assert_packets(
        &world,
        &["x/a > 10.0.2.1 80/TCP", "x/a > 10.0.9.1 80/TCP", "!x/a > 10.1.0.1 80/TCP"],
    );
}

#[test]
fn each_rule_of_a_policy_stands_alone() {
    let world = with([policy(
        "x/p",
        json!({"podSelector": {}, "ingress": [
            {"from": [{"podSelector": {"matchLabels": {"pod": "b"}}}], "ports": [{"port": 80}]},
            {"from": [{"podSelector": {"matchLabels": {"pod": "c"}}}], "ports": [{"port": 81}]},
        ]}),
    )]);
    assert_packets(&world, &["x/b > x/a 80/TCP", "!x/b > x/a 81/TCP"]);
    assert_packets(&world, &["!x/c > x/a 80/TCP", "x/c > x/a 81/TCP"]);
}
