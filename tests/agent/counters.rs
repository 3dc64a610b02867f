//! What the kernel dropped and let through is counted.

use lab::probe::{must_not_reach, must_reach};
use serde_json::{Value, json};

use crate::node::PolicedNode;

const DENIED: &str =
    "policyd_denied_packets_total{namespace=\"default\",pod=\"b\",direction=\"ingress\"}";

fn deny_b() -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "deny"}, "spec": {"podSelector": {"matchLabels": {"app": "b"}}}})
}

fn isolate(node: &PolicedNode) {
    node.write("deny", &deny_b());
    node.wait("isolation", |it| it.rules().contains("PODWIRE-TO-"));
}

#[test]
fn denied_packets_are_counted_by_pod_and_rules_that_are_replaced_take_nothing_back() {
    let node = PolicedNode::new(&["a", "b"]);
    isolate(&node);
    let address = node.addresses("b")[0].to_string();
    must_not_reach(node.space("a"), node.space("b"), &address);
    let first = node.metric(DENIED);
    assert!(first > 0);
    node.remove("deny");
    node.wait("openness", |it| !it.rules().contains("PODWIRE-TO-"));
    must_reach(node.space("a"), node.space("b"), &address);
    isolate(&node);
    must_not_reach(node.space("a"), node.space("b"), &address);
    node.wait("more than before", |it| it.metric(DENIED) > first);
    assert_eq!(node.metric("policyd_gate_drops_total"), 0);
    node.clean_up();
}

#[test]
fn what_the_gate_drops_is_counted() {
    let node = PolicedNode::new(&["a", "b"]);
    let address = node.addresses("b").iter().find(|it| it.is_ipv6()).unwrap().to_string();
    must_reach(node.space("a"), node.space("b"), &address);
    let of_b = node.link_of("b");
    node.node.sh(&format!("ip -6 route add fd00:1::77/128 dev {of_b}"));
    node.space("a").sh("ping -c 3 -i 0.2 -W 1 fd00:1::77 || true");
    assert!(node.metric("policyd_gate_drops_total") >= 3);
    assert_eq!(node.metric("policyd_forged_sources_total"), 0);
    node.clean_up();
}

#[test]
fn what_has_a_forged_source_is_counted() {
    let node = PolicedNode::new(&["a", "b"]);
    let address = node.addresses("b").iter().find(|it| it.is_ipv6()).unwrap().to_string();
    must_reach(node.space("a"), node.space("b"), &address);
    // IPv4 has a reverse path filter, which may be on.
    let forge = format!(
        "ip -6 address add fd00:1::77/128 dev eth0 nodad; ping -c 3 -i 0.2 -W 1 -I fd00:1::77 {address} || true"
    );
    node.space("a").sh(&forge);
    assert!(node.metric("policyd_forged_sources_total") >= 3);
    assert_eq!(node.metric("policyd_gate_drops_total"), 0);
    node.clean_up();
}

#[test]
fn what_a_rule_allows_is_counted_by_policy_and_entry() {
    let node = PolicedNode::new(&["a", "b"]);
    let from = json!([{"podSelector": {"matchLabels": {"app": "nobody"}}}]);
    let allow = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "allow"}, "spec": {"podSelector": {"matchLabels": {"app": "b"}},
        "ingress": [{"from": from}, {"from": [{"podSelector": {"matchLabels": {"app": "a"}}}]}]}});
    node.write("allow", &allow);
    node.wait("isolation", |it| it.rules().contains("PODWIRE-TO-"));
    for address in node.addresses("b") {
        must_reach(node.space("a"), node.space("b"), &address.to_string());
    }
    let counter = |rule: usize| {
        format!(
            "policyd_allowed_packets_total{{namespace=\"default\",policy=\"allow\",direction=\"ingress\",rule=\"{rule}\"}}"
        )
    };
    assert!(node.metric(&counter(1)) >= 2);
    assert_eq!(node.metric(&counter(0)), 0);
    node.clean_up();
}
