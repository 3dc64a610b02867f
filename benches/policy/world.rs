//! The objects of a cluster of which one node is measured.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

/// The node that is measured, and its address.
pub(crate) const NODE: &str = "node-1";
pub(crate) const NODE_ADDRESS: &str = "192.0.2.2";
/// The range of its pods.
pub(crate) const RANGE: &str = "10.1.0.0/16";
/// Its pods.
const LOCAL: usize = 150;
const NAMESPACES: usize = 50;
/// The namespace of pods of other nodes whose packets are waited for.
pub(crate) const OUTSIDE: &str = "outside";
/// The ports of the probed pod: the first one is open to all pods of [`OUTSIDE`], the second to none.
pub(crate) const OPEN: u16 = 8999;
pub(crate) const CLOSED: u16 = 8998;

/// As many pods and policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) usize);

/// Namespaces, the node, pods and policies.
pub(crate) fn objects(size: Size) -> Vec<Value> {
    let mut objects = vec![node()];
    objects
        .extend((0..NAMESPACES).map(|it| namespace(&format!("ns{it}"), &format!("t{}", it % 10))));
    objects.push(namespace(OUTSIDE, "none"));
    objects.extend((0..size.0).map(numbered_pod));
    objects.push(local_pod("server", crate::site::SERVER, &json!({"app": "a0", "role": "server"})));
    objects.extend((0..size.0).map(numbered_policy));
    objects.push(open(&format!("{OUTSIDE}-pods"), OPEN));
    objects
}

pub(crate) fn namespace(name: &str, team: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": name, "labels": {"name": name, "team": team}}})
}

pub(crate) fn node() -> Value {
    let address = |address: &str| json!([{"type": "InternalIP", "address": address}]);
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE},
        "spec": {"podCIDR": RANGE, "podCIDRs": [RANGE]},
        "status": {"addresses": address(NODE_ADDRESS)}})
}

pub(crate) fn pod(
    namespace: &str,
    name: &str,
    node: &str,
    labels: &Value,
    address: Ipv4Addr,
) -> Value {
    let host = if node == NODE { NODE_ADDRESS } else { "192.0.2.3" };
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "labels": labels},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i",
            "ports": [{"name": "http", "containerPort": 8080}]}]},
        "status": {"phase": "Running", "hostIP": host, "podIP": address,
            "podIPs": [{"ip": address}]}})
}

/// A pod of the node in the first namespace.
pub(crate) fn local_pod(name: &str, address: Ipv4Addr, labels: &Value) -> Value {
    pod("ns0", name, NODE, labels, address)
}

/// The first ones are the node's.
pub(crate) fn numbered_pod(number: usize) -> Value {
    let (high, low) = ((number / 250 % 250) as u8, (number % 250 + 2) as u8);
    let (node, address) = if number < LOCAL {
        (NODE, Ipv4Addr::new(10, 1, high, low))
    } else {
        ("node-2", Ipv4Addr::new(10, 2 + (number / 62_500) as u8, high, low))
    };
    let labels = json!({"app": format!("a{}", number % 20), "tier": format!("x{}", number % 3)});
    pod(&format!("ns{}", number % NAMESPACES), &format!("p{number}"), node, &labels, address)
}

fn numbered_policy(number: usize) -> Value {
    let selected = json!({"matchLabels": {"app": format!("a{}", number / NAMESPACES % 20)}});
    let tier = json!({"podSelector": {"matchLabels": {"tier": format!("x{}", number % 3)}}});
    let team = json!({"namespaceSelector": {"matchLabels": {"team": format!("t{}", number % 10)}}});
    let second = 16 + number % 16;
    let block = json!({"ipBlock": {"cidr": format!("172.{second}.0.0/16"),
        "except": [format!("172.{second}.5.0/24")]}});
    let ingress = json!([
        {"from": [tier, team], "ports": [{"port": 80 + number % 1000}, {"port": "http"}]},
        {"from": [block], "ports": [{"port": 443}]},
    ]);
    let egress =
        json!([{"to": [{"namespaceSelector": {}}], "ports": [{"port": 53, "protocol": "UDP"}]}]);
    let spec = if number.is_multiple_of(4) {
        json!({"podSelector": selected, "policyTypes": ["Ingress", "Egress"],
            "ingress": ingress, "egress": egress})
    } else {
        json!({"podSelector": selected, "policyTypes": ["Ingress"], "ingress": ingress})
    };
    policy(&format!("ns{}", number % NAMESPACES), &format!("q{number}"), &spec)
}

pub(crate) fn policy(namespace: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": namespace, "name": name}, "spec": spec})
}

/// A policy that opens a UDP port of the probed pod, and some others, to the pods of [`OUTSIDE`].
pub(crate) fn open(name: &str, port: u16) -> Value {
    let from = json!([{"namespaceSelector": {"matchLabels": {"name": OUTSIDE}},
        "podSelector": {"matchLabels": {"role": "peer"}}}]);
    let spec = json!({"podSelector": {"matchLabels": {"app": "a0"}}, "policyTypes": ["Ingress"],
        "ingress": [{"from": from, "ports": [{"port": port, "protocol": "UDP"}]}]});
    policy("ns0", name, &spec)
}

/// A pod of another node that [`open`] lets in.
pub(crate) fn peer(number: usize) -> Value {
    let address = crate::site::peer_address(number);
    pod(OUTSIDE, &format!("peer-{number}"), "node-2", &json!({"role": "peer"}), address)
}
