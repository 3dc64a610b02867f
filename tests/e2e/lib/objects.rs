//! Objects as JSON.

use serde_json::{Value, json};

/// The port that a [`server`] answers on.
pub const PORT: u16 = 8080;

/// The port that it answers datagrams on.
pub const DATAGRAMS: u16 = 8081;

/// A pod that answers requests; its label `app` is its name.
#[must_use]
pub fn server(namespace: &str, name: &str) -> Value {
    let probe = json!({"httpGet": {"path": "/healthz", "port": PORT}, "periodSeconds": 1});
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "labels": {"app": name}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "server", "image": "agnhost:1.37.2",
                "args": ["netexec", "--http-port=8080", "--udp-port=8081"],
                "readinessProbe": probe, "livenessProbe": probe,
            }],
        },
    })
}

/// The same, on a certain node.
#[must_use]
pub fn server_on(node: u8, namespace: &str, name: &str) -> Value {
    let mut pod = server(namespace, name);
    pod["spec"]["nodeName"] = json!(format!("node-{node}"));
    pod
}

/// Servers on a certain node whose pods keep their names when they are replaced.
#[must_use]
pub fn stateful_on(node: u8, namespace: &str, name: &str, replicas: u32) -> Value {
    let mut template = server_on(node, namespace, name);
    let labels = template["metadata"]["labels"].take();
    json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "replicas": replicas, "serviceName": name, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": template["spec"].take()},
        },
    })
}

/// A Service before the pods with this label `app`.
#[must_use]
pub fn service(namespace: &str, name: &str, app: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"selector": {"app": app}, "ipFamilyPolicy": "PreferDualStack", "type": "NodePort",
            "ports": [{"port": 80, "targetPort": PORT}]},
    })
}

/// A policy that lets nothing in to any pod of the namespace.
#[must_use]
pub fn deny(namespace: &str) -> Value {
    policy(namespace, "deny", &json!({"podSelector": {}, "policyTypes": ["Ingress"]}))
}

/// A policy that lets nothing out of any pod of the namespace.
#[must_use]
pub fn deny_egress(namespace: &str) -> Value {
    policy(namespace, "deny-egress", &json!({"podSelector": {}, "policyTypes": ["Egress"]}))
}

/// The same, on a certain node.
#[must_use]
pub fn sender_on(node: u8, namespace: &str, name: &str, target: &str) -> Value {
    let mut pod = sender(namespace, name, target);
    pod["spec"]["nodeName"] = json!(format!("node-{node}"));
    pod
}

/// A pod that connects to `target` as the first thing, and has succeeded when it could.
#[must_use]
pub fn sender(namespace: &str, name: &str, target: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "terminationGracePeriodSeconds": 0, "restartPolicy": "Never",
            "containers": [{"name": "sender", "image": "agnhost:1.37.2",
                "args": ["connect", "--timeout=2s", target]}],
        },
    })
}

/// A policy that lets those with the label `app: from` in to those with `app: to`.
#[must_use]
pub fn allow(namespace: &str, from: &str, to: &str) -> Value {
    let of = |app: &str| json!({"podSelector": {"matchLabels": {"app": app}}});
    let mut spec = of(to);
    spec["ingress"] = json!([{"from": [of(from)]}]);
    policy(namespace, &format!("{from}-to-{to}"), &spec)
}

/// A policy that says just this.
#[must_use]
pub fn special(namespace: &str, spec: &Value) -> Value {
    policy(namespace, "special", spec)
}

/// A policy that lets everybody in to those with the label `app: to`.
#[must_use]
pub fn allow_all(namespace: &str, to: &str) -> Value {
    let spec = json!({"podSelector": {"matchLabels": {"app": to}}, "ingress": [{}]});
    policy(namespace, &format!("all-to-{to}"), &spec)
}

fn policy(namespace: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": namespace, "name": name}, "spec": spec,
    })
}

/// A pod that does nothing, and has nothing to wait for.
#[must_use]
pub fn idle(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": namespace, "name": name},
        "spec": idle_spec(),
    })
}

fn idle_spec() -> Value {
    json!({"terminationGracePeriodSeconds": 0, "enableServiceLinks": false,
        "automountServiceAccountToken": false,
        "containers": [{"name": "pause", "image": "pause:1"}]})
}

/// Pods that do nothing, as many.
#[must_use]
pub fn crowd(namespace: &str, replicas: u32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"namespace": namespace, "name": "crowd"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "crowd"}},
            "template": {
                "metadata": {"labels": {"app": "crowd"}},
                "spec": idle_spec(),
            },
        },
    })
}
