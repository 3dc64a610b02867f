//! A container is not started before its rules are in the kernel.

use std::net::IpAddr;

use lab::probe::{must_not_reach, must_reach};
use lab::{Pod, addresses};
use serde_json::{Value, json};

use crate::node::PolicedNode;

fn call(node: &PolicedNode, command: &str, pod: &Pod, conf: &Value) -> Value {
    let reply = node.call("late", command, pod, conf);
    if command == "ADD" {
        reply.ok()
    } else {
        assert!(reply.succeeded());
        Value::Null
    }
}

fn lets_pass(node: &PolicedNode, address: &IpAddr) -> bool {
    lab::let_pass(&node.node).contains(&address.to_string())
}

#[test]
fn an_attached_pod_has_its_rules_when_the_plugin_answers_and_none_when_it_is_gone() {
    let node = PolicedNode::new(&["other"]);
    node.write(
        "pod-late",
        &json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "late", "labels": {"app": "late"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]}}),
    );
    node.write(
        "deny",
        &json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "deny"},
        "spec": {"podSelector": {"matchLabels": {"app": "late"}}}}),
    );
    let pod = node.node.pod("late");
    pod.sh("ip link set lo up");
    let ptp = node.conf();
    let result = call(&node, "ADD", &pod, &ptp);
    let addresses = addresses(&result);
    // Nobody has told policyd of it: the gate is closed, in both directions.
    let other = node.addresses("other");
    for (late, other) in addresses.iter().zip(other) {
        must_not_reach(node.space("other"), &pod, &late.to_string());
        must_not_reach(&pod, node.space("other"), &other.to_string());
    }
    let policy = json!({"cniVersion": "1.0.0", "name": "net", "type": "podwire-policy",
        "prevResult": result});
    assert_eq!(call(&node, "ADD", &pod, &policy), result);
    // Without any waiting: what the answer promised is in the kernel.
    let rules = node.rules();
    assert!(rules.contains("default/late"), "{rules}");
    assert!(lets_pass(&node, &addresses[0]));
    assert!(lets_pass(&node, &addresses[1]));
    for (late, other) in addresses.iter().zip(other) {
        must_not_reach(node.space("other"), &pod, &late.to_string());
        must_reach(&pod, node.space("other"), &other.to_string());
    }
    call(&node, "CHECK", &pod, &policy);
    // IPv4 has a reverse path filter, which may be on.
    pod.sh(&format!(
        "ip -6 address add 2001:db8::1/128 dev eth0 nodad; ping -c 3 -i 0.2 -W 1 -I 2001:db8::1 {} || true",
        other[1]
    ));
    assert!(node.metric("policyd_forged_sources_total") >= 3);
    call(&node, "DEL", &pod, &policy);
    assert!(!lab::bound(&node.node).contains(&addresses[0].to_string()));
    assert!(!lets_pass(&node, &addresses[0]));
    call(&node, "DEL", &pod, &ptp);
    node.clean_up();
}
