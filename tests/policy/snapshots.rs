//! What the kernel holds for small worlds, for people to read: looked through by hand.

use serde_json::{Value, json};

use lab::by_nftables;
use policyd::iptables::Settings;

use crate::cluster::{gated, nine};
use crate::node::{BareNode, Happening, attachment};
use crate::objects::{namespace, pod, policy, with_addresses};

fn shows(name: &str, settings: &Settings, bridge: Option<&str>, policies: &[Value]) {
    let mut node = BareNode::new(settings);
    node.adopt();
    node.happens(&Happening::There(namespace("x")));
    for (number, name) in ["x/a", "x/b"].into_iter().enumerate() {
        let object = with_addresses(pod(name), &nine(number));
        node.happens(&Happening::Attached(attachment(&object, &nine(number), bridge)));
        node.happens(&Happening::There(object));
    }
    policies.iter().for_each(|it| node.happens(&Happening::There(it.clone())));
    node.apply();
    let name = if by_nftables() { format!("{name}-nftables") } else { name.to_owned() };
    insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!(name, node.saved());
    });
    node.clean_up();
    assert_eq!(node.saved(), "", "after clean_up");
}

#[test]
fn no_policies() {
    shows("routed-open", &gated(), None, &[]);
}

#[test]
fn a_policy_of_each_kind() {
    let from = json!([{"podSelector": {"matchLabels": {"pod": "a"}}},
        {"ipBlock": {"cidr": "203.0.113.0/24", "except": ["203.0.113.128/25"]}}]);
    let ports =
        json!([{"port": 80}, {"port": 8000, "endPort": 8100}, {"port": "dns", "protocol": "UDP"}]);
    let ingress = json!([{"from": from, "ports": ports}]);
    let policies = [
        policy("x/web", json!({"podSelector": {"matchLabels": {"pod": "b"}}, "ingress": ingress})),
        policy("x/deny-egress", json!({"podSelector": {}, "policyTypes": ["Egress"]})),
    ];
    shows("routed-policies", &gated(), None, &policies);
}

#[test]
fn on_a_bridge_with_reject_and_log() {
    let settings = Settings { rejects: true, log_group: Some(7), ..gated() };
    shows(
        "bridged-reject-log",
        &settings,
        Some("cni0"),
        &[policy("x/deny", json!({"podSelector": {}}))],
    );
}
