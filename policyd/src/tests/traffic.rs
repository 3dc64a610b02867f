//! Packets that are special: from nodes, to oneself, ICMP, through Services.

use serde_json::{Value, json};

use super::scene::{assert_packets, packet, packet6, with_policy};
use crate::evaluate::{Decision, Exemption};
use crate::{Packet, World, evaluate};

fn deny_all() -> Value {
    json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})
}

fn from_node(world: &World, node: &str, text: &str) -> Decision {
    let packet = Packet { from_node: Some(node.to_owned()), ..packet(text) };
    let verdict = evaluate(world, &packet);
    assert_eq!(verdict.egress, Decision::Exempt(Exemption::NoPod));
    verdict.ingress
}

#[test]
fn a_pods_own_node_always_reaches_it_and_other_nodes_do_not() {
    let world = with_policy(deny_all());
    let own = from_node(&world, "node-1", "192.0.2.1 > x/a 80/TCP");
    assert_eq!(own, Decision::Exempt(Exemption::OwnNode));
    assert!(!from_node(&world, "node-2", "192.0.2.2 > x/a 80/TCP").is_allowed());
}

#[test]
fn an_address_of_the_node_alone_does_not_make_its_sender_the_node() {
    assert_packets(&with_policy(deny_all()), &["!192.0.2.1 > x/a 80/TCP"]);
}

#[test]
fn other_nodes_match_address_blocks() {
    let block = json!([{"from": [{"ipBlock": {"cidr": "192.0.2.2/32"}}]}]);
    let world = with_policy(json!({"podSelector": {}, "ingress": block}));
    assert!(from_node(&world, "node-2", "192.0.2.2 > x/a 80/TCP").is_allowed());
    assert!(!from_node(&world, "node-3", "192.0.2.3 > x/a 80/TCP").is_allowed());
}

#[test]
fn egress_holds_towards_the_own_node() {
    assert_packets(&with_policy(deny_all()), &["!x/a > 192.0.2.1 10250/TCP"]);
}

#[test]
fn a_pod_always_reaches_itself() {
    let world = with_policy(deny_all());
    assert_packets(&world, &["x/a > x/a 80/TCP", "!x/a > x/b 80/TCP"]);
    let verdict = evaluate(&world, &packet("x/a > x/a 80/TCP"));
    assert_eq!(verdict.ingress, Decision::Exempt(Exemption::Itself));
}

#[test]
fn echo_requests_are_denied_like_anything_else() {
    let world = with_policy(deny_all());
    assert!(!evaluate(&world, &packet("y/a > x/a ICMP")).is_allowed());
    assert!(!evaluate(&world, &packet6("y/a > x/a ICMP")).is_allowed());
}

#[test]
fn a_service_is_judged_by_the_endpoint_that_it_leads_to() {
    let to_endpoint = json!([{"to": [{"namespaceSelector": {}}], "ports": [{"port": 8080}]}]);
    let world =
        with_policy(json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": to_endpoint}));
    // The Service's own address is nobody's: only what it becomes can be allowed.
    assert_packets(&world, &["!x/a > 10.96.0.10 80/TCP", "x/a > y/a 8080/TCP"]);
}

#[test]
fn outside_addresses_are_no_subjects() {
    assert_packets(&with_policy(deny_all()), &["203.0.113.9 > 198.51.100.1 80/TCP"]);
}
