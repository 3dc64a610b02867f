//! Objects, and a cluster to have them in.

use lab::Node;
use lab::cluster::{Cluster, Version};
use serde_json::{Value, json};

/// The node that the agent is on.
pub(crate) const NODE: &str = "node-1";

/// The ranges of its pods.
pub(crate) const RANGES: [&str; 2] = ["10.244.1.0/24", "fd00:1::/64"];

/// What the agent reads.
pub(crate) const READ: [&str; 4] =
    ["pods", "namespaces", "nodes", "networking.k8s.io/networkpolicies"];

/// A cluster with namespace `shop` and the node, where the agent may read what it needs.
pub(crate) fn cluster(node: &Node, version: Version) -> Cluster<'_> {
    let cluster = Cluster::start(node, version);
    cluster.allow("agent", &["get", "list", "watch"], &READ);
    cluster.apply(&namespace("shop", &json!({})));
    join(&cluster, &RANGES);
    cluster
}

/// Makes the node's object, with these ranges.
pub(crate) fn join(cluster: &Cluster<'_>, ranges: &[&str]) {
    let mut object = this_node();
    object["spec"]["podCIDRs"] = json!(ranges);
    cluster.apply(&object);
    let addresses = json!([
        {"type": "InternalIP", "address": "192.0.2.1"},
        {"type": "Hostname", "address": NODE},
    ]);
    cluster.set_status(&object, &json!({"addresses": addresses}));
}

/// The node's object, without ranges.
pub(crate) fn this_node() -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}})
}

pub(crate) fn namespace(name: &str, labels: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

/// A pod of namespace `shop`.
pub(crate) fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "shop", "name": name, "labels": {"app": name}},
        "spec": {"nodeName": NODE, "containers": [{"name": "a", "image": "a"}]},
    })
}

/// A policy of namespace `shop`.
pub(crate) fn policy(name: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": "shop", "name": name},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
    })
}
