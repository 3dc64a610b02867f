//! A node as full as nodes are.

use serde_json::{Value, json};

use crate::node::PolicedNode;

fn pod(number: usize) -> Value {
    let addresses =
        [format!("10.1.0.{}", number + 100), format!("fd00:1::{:x}", number * 257 + 4096)];
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("many-{number}"), "labels": {"app": "many"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
        "status": {"phase": "Running", "podIPs": addresses.map(|it| json!({"ip": it}))}})
}

#[test]
fn a_hundred_and_fifty_isolated_pods_have_their_rules_and_lose_them() {
    let node = PolicedNode::new(&["a"]);
    for number in 0..150 {
        node.write(&format!("pod-many-{number}"), &pod(number));
    }
    node.write(
        "deny",
        &json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "deny"},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}}),
    );
    let chains = |direction: &str| {
        let start = format!(":PODWIRE-{direction}-");
        node.rules().lines().filter(|line| line.starts_with(&start)).count()
    };
    // A chain in each family, for each pod and direction.
    node.wait("all chains", |_| ["TO", "FROM"].map(chains) == [302; 2]);
    assert!(node.rules().contains("-g PODWIRE-DST-"), "{}", node.rules());
    for number in 0..150 {
        node.remove(&format!("pod-many-{number}"));
    }
    node.wait("the end of those chains", |_| ["TO", "FROM"].map(chains) == [2; 2]);
    assert_eq!(node.metric("policyd_apply_failures_total"), 0);
    node.clean_up();
}
