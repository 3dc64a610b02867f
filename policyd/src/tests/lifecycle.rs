//! Pods that start, end, pass their address on, or use the node's.

use serde_json::{Value, json};

use super::scene::{assert_packets, compile_pod, pod, policy, with};

/// In `x`, only pods labelled `pod: client` get in.
fn from_clients() -> Value {
    policy(
        "x/p",
        json!({"podSelector": {}, "ingress": [
            {"from": [{"podSelector": {"matchLabels": {"pod": "client"}}}]}]}),
    )
}

fn client(changes: &[(&str, Value)]) -> Value {
    let mut client = pod("x/client", &["10.0.1.9"]);
    for (pointer, value) in changes {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        client.pointer_mut(parent).unwrap()[key] = value.clone();
    }
    client
}

const FROM_CLIENT: &str = "10.0.1.9 > x/a 80/TCP";
const TO_CLIENT: &str = "y/a > 10.0.1.9 80/TCP";

#[test]
fn finished_pods_are_neither_peers_nor_subjects_nor_have_ports() {
    for phase in ["Succeeded", "Failed"] {
        let finished = client(&[("/status/phase", json!(phase))]);
        let world = with([finished.clone(), from_clients()]);
        assert_packets(&world, &["!10.0.1.9 > x/a 80/TCP", TO_CLIENT]);
        let named = json!({"podSelector": {}, "policyTypes": ["Egress"],
            "egress": [{"ports": [{"port": "http"}]}]});
        let world = with([finished, policy("x/p", named)]);
        assert_packets(&world, &["!x/a > 10.0.1.9 80/TCP"]);
    }
    for phase in ["Pending", "Running", "Unknown"] {
        let world = with([client(&[("/status/phase", json!(phase))]), from_clients()]);
        assert_packets(&world, &[FROM_CLIENT, "!y/a > 10.0.1.9 80/TCP"]);
    }
}

#[test]
fn terminating_pods_keep_policy_and_membership() {
    let terminating = client(&[("/metadata/deletionTimestamp", json!("2026-11-01T01:00:00Z"))]);
    let world = with([terminating, from_clients()]);
    assert_packets(&world, &[FROM_CLIENT, "!y/a > 10.0.1.9 80/TCP"]);
}

#[test]
fn the_address_of_a_finished_pod_belongs_to_the_next_one_alone() {
    let finished = client(&[("/status/phase", json!("Succeeded"))]);
    let next = pod("y/next", &["10.0.1.9"]);
    let world = with([finished, next, from_clients()]);
    assert_packets(&world, &["!10.0.1.9 > x/a 80/TCP", TO_CLIENT]);
}

#[test]
fn while_an_address_passes_on_the_newer_pod_is_the_subject_and_both_are_peers() {
    let mut newer = pod("y/newer", &["10.0.1.9"]);
    newer["metadata"]["creationTimestamp"] = json!("2026-11-01T00:00:01Z");
    let mut world = with([client(&[]), newer, from_clients()]);
    for _ in 0..2 {
        assert_packets(&world, &[FROM_CLIENT, TO_CLIENT]);
        world.pods.reverse();
    }
}

#[test]
fn a_pod_that_is_not_being_deleted_is_the_subject_before_one_that_is() {
    // It was created first, but waited for its address until the other went.
    let waited = client(&[("/metadata/creationTimestamp", json!("2026-10-01T00:00:00Z"))]);
    let mut going = pod("y/going", &["10.0.1.9"]);
    going["metadata"]["deletionTimestamp"] = json!("2026-11-01T01:00:00Z");
    let mut world = with([waited, going, from_clients()]);
    for _ in 0..2 {
        assert_packets(&world, &["!y/a > 10.0.1.9 80/TCP"]);
        world.pods.reverse();
    }
}

#[test]
fn a_rule_must_match_one_owner_of_the_address_as_a_whole() {
    let unnamed = client(&[("/spec/containers", json!([{"name": "c"}]))]);
    let stranger = pod("y/stranger", &["10.0.1.9"]);
    let rule = json!({"podSelector": {"matchLabels": {"pod": "a"}}, "policyTypes": ["Egress"],
    "egress": [{
        "to": [{"podSelector": {"matchLabels": {"pod": "client"}}}],
        "ports": [{"port": "http"}],
    }]});
    let world = with([unnamed, stranger, policy("x/p", rule)]);
    assert_packets(&world, &["!x/a > 10.0.1.9 80/TCP"]);
}

#[test]
fn a_pod_without_addresses_is_nobody_yet() {
    let waiting = client(&[("/status", json!({"phase": "Pending"}))]);
    assert!(compile_pod(&waiting).addresses.is_empty());
    let world = with([waiting, from_clients()]);
    assert_packets(&world, &["!10.0.1.9 > x/a 80/TCP", TO_CLIENT]);
}

#[test]
fn an_address_may_be_only_in_the_older_field() {
    let world = with([client(&[("/status", json!({"podIP": "10.0.1.9"}))]), from_clients()]);
    assert_packets(&world, &[FROM_CLIENT]);
    let both = client(&[("/status/podIP", json!("10.0.1.9"))]);
    assert_eq!(compile_pod(&both).addresses.len(), 1);
}

#[test]
fn host_network_pods_are_neither_subjects_nor_selectable() {
    let host = client(&[("/spec/hostNetwork", json!(true))]);
    let world = with([host.clone(), from_clients()]);
    assert_packets(&world, &["!10.0.1.9 > x/a 80/TCP", TO_CLIENT]);
    let rules = json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [
        {"to": [{"namespaceSelector": {}}]}, {"ports": [{"port": "http"}]}]});
    let world = with([host.clone(), policy("x/p", rules)]);
    assert_packets(&world, &["!x/a > 10.0.1.9 80/TCP", "10.0.1.9 > y/a 80/TCP"]);
    let block =
        json!({"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.1.9/32"}}]}]});
    assert_packets(&with([host, policy("x/p", block)]), &[FROM_CLIENT]);
}

#[test]
fn labels_that_change_move_the_pod() {
    let renamed = client(&[("/metadata/labels/pod", json!("other"))]);
    assert_packets(&with([renamed, from_clients()]), &["!10.0.1.9 > x/a 80/TCP"]);
}

#[test]
fn static_pods_are_pods() {
    let annotations =
        json!({"kubernetes.io/config.mirror": "hash", "kubernetes.io/config.source": "file"});
    let mirror = client(&[("/metadata/annotations", annotations)]);
    assert_packets(&with([mirror, from_clients()]), &[FROM_CLIENT, "!y/a > 10.0.1.9 80/TCP"]);
}

#[test]
fn isolation_is_of_the_pod_and_so_of_both_families() {
    let block =
        json!({"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]});
    let world = with([policy("x/p", block)]);
    assert_packets(&world, &["10.0.2.1 > 10.0.1.1 80/TCP", "!fd00::2:1 > fd00::1:1 80/TCP"]);
}
