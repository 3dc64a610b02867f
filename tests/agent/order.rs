//! In which order manifests come does not matter, nor does what they said before.

use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};

use crate::node::PolicedNode;

/// Long enough for whatever is still being written.
const QUIET: Duration = Duration::from_secs(1);

fn policy(name: &str, spec: &Value) -> (String, Value) {
    let object = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": name}, "spec": spec});
    (format!("policy-{name}"), object)
}

fn objects() -> Vec<(String, Value)> {
    let only = |app: &str| json!({"podSelector": {"matchLabels": {"app": app}}});
    let spec = |app: &str| only(app)["podSelector"].clone();
    let blocks = json!([{"ipBlock": {"cidr": "10.9.0.0/16", "except": ["10.9.1.0/24"]}},
        {"ipBlock": {"cidr": "fd00:9::/64"}}]);
    let namespaces = json!([{"namespaceSelector": {"matchLabels": {"team": "red"}}}]);
    let other = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "other", "namespace": "red", "labels": {"app": "a"}},
        "spec": {"containers": [{"name": "c", "image": "i"}], "nodeName": "node-2"},
        "status": {"phase": "Running", "podIPs": [{"ip": "10.2.0.7"}, {"ip": "fd00:2::7"}]}});
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": "red", "labels": {"team": "red"}}});
    let egress =
        json!([{"to": [only("a"), only("b")], "ports": [{"port": 53, "protocol": "UDP"}]}]);
    vec![
        ("namespace".to_owned(), namespace),
        ("other".to_owned(), other),
        policy("deny", &json!({"podSelector": {}})),
        policy("in", &json!({"podSelector": spec("b"), "ingress": [{"from": [only("a")]}]})),
        policy("red", &json!({"podSelector": spec("c"), "ingress": [{"from": namespaces}]})),
        policy("blocks", &json!({"podSelector": spec("b"), "ingress": [{"from": blocks}]})),
        policy("out", &json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": egress})),
    ]
}

/// A manifest that says something else first.
fn otherwise(object: &Value) -> Value {
    let mut other = object.clone();
    match object["kind"].as_str() {
        Some("NetworkPolicy") => other["spec"] = json!({"podSelector": {}, "ingress": [{}]}),
        Some("Pod") => other["status"]["podIPs"] = json!([{"ip": "10.2.0.9"}]),
        _ => other["metadata"]["labels"] = json!({"team": "blue"}),
    }
    other
}

#[test]
fn manifests_in_any_order_end_in_the_same_rules_and_sets() {
    let node = PolicedNode::new(&["a", "b", "c"]);
    let objects = objects();
    let before = node.state();
    let count = objects.len();
    let orders = [
        (0..count).collect::<Vec<_>>(),
        (0..count).rev().collect(),
        (0..count).map(|it| it * 3 % count).collect(),
    ];
    let mut expected = None;
    for (round, order) in orders.iter().enumerate() {
        for (step, index) in order.iter().enumerate() {
            let (file, object) = &objects[*index];
            if round == 2 {
                node.write(file, &otherwise(object));
            }
            // Some come together, some alone.
            if (round + step) % 2 == 0 {
                sleep(Duration::from_millis(60));
            }
            node.write(file, object);
        }
        if let Some(expected) = &expected {
            node.wait("the same rules and sets", |it| it.state() == *expected);
        }
        sleep(QUIET);
        let state = node.state();
        assert!(state.len() > before.len() + 6, "{state:?}");
        assert_eq!(*expected.get_or_insert_with(|| state.clone()), state, "order {order:?}");
        objects.iter().for_each(|(file, _)| node.remove(file));
        node.wait("what was before", |it| it.state() == before);
    }
    node.clean_up();
}
