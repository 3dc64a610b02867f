//! A node as full as nodes are.

use lab::by_nftables;
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
    // A chain for each pod and direction; of iptables in each family.
    let (families, dispatch) =
        if by_nftables() { (1, "vmap @to-4") } else { (2, "-g PODWIRE-DST-") };
    node.wait("all chains", |_| ["TO", "FROM"].map(chains) == [151 * families; 2]);
    assert!(node.rules().contains(dispatch), "{}", node.rules());
    for number in 0..150 {
        node.remove(&format!("pod-many-{number}"));
    }
    node.wait("the end of those chains", |_| ["TO", "FROM"].map(chains) == [families; 2]);
    assert_eq!(node.metric("policyd_apply_failures_total"), 0);
    node.clean_up();
}
