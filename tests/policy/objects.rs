//! Objects as the API server shows them.

use std::net::IpAddr;

use policyd::World;
use policyd::model::{Namespace, Pod, Policy};
use policyd::source::{Change, Event};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// A pod of node-1 without addresses. Its ports have names that are other numbers in `z`.
pub(crate) fn pod(name: &str) -> Value {
    let (namespace, name) = name.split_once('/').unwrap();
    let http = if namespace == "z" { 81 } else { 80 };
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "namespace": namespace, "name": name, "uid": format!("uid-of-{namespace}-{name}"),
            "creationTimestamp": "2026-11-01T00:00:00Z",
            "labels": {"pod": name, "tier": "web"},
        },
        "spec": {
            "nodeName": "node-1",
            "initContainers": [
                {"name": "proxy", "restartPolicy": "Always",
                 "ports": [{"name": "metrics", "containerPort": 8080}]},
                {"name": "setup", "ports": [{"name": "setup", "containerPort": 443}]},
            ],
            "containers": [{"name": "server", "ports": [
                {"name": "http", "containerPort": http},
                {"name": "dns", "containerPort": 53, "protocol": "UDP"},
                {"name": "dns", "containerPort": 53, "protocol": "TCP"},
                {"name": "signal", "containerPort": 80, "protocol": "SCTP"},
            ]}],
        },
        "status": {"phase": "Running"},
    })
}

/// The same pod with these addresses.
pub(crate) fn with_addresses(mut pod: Value, addresses: &[IpAddr]) -> Value {
    pod["status"]["podIPs"] = addresses.iter().map(|it| json!({"ip": it})).collect();
    pod
}

pub(crate) fn namespace(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {
            "name": name, "uid": format!("uid-of-{name}"),
            "creationTimestamp": "2026-11-01T00:00:00Z", "labels": {"ns": name},
        },
    })
}

pub(crate) fn policy(name: &str, spec: Value) -> Value {
    let (namespace, short) = name.split_once('/').unwrap();
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": namespace, "name": short, "uid": format!("uid-of-policy-{name}")},
        "spec": spec,
    })
}

/// Nothing to and from the pods of a namespace, but for what other policies allow.
pub(crate) fn deny_all(namespace: &str) -> Value {
    policy(
        &format!("{namespace}/deny-all"),
        json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}),
    )
}

pub(crate) fn uid(object: &Value) -> String {
    object["metadata"]["uid"].as_str().unwrap().to_owned()
}

fn read<T: DeserializeOwned>(object: &Value) -> T {
    serde_json::from_value(object.clone()).unwrap_or_else(|error| panic!("{error}: {object}"))
}

/// That the object is there, or not any more.
pub(crate) fn event(object: &Value, is_there: bool) -> Event {
    fn change<T>(object: T, is_there: bool) -> Change<T> {
        if is_there { Change::Applied(object) } else { Change::Removed(object) }
    }
    match object["kind"].as_str().unwrap() {
        "Pod" => Event::Pods(change(Pod::from(&read(object)), is_there)),
        "Namespace" => Event::Namespaces(change(Namespace::from(&read(object)), is_there)),
        "NetworkPolicy" => Event::Policies(change(Policy::from(&read(object)), is_there)),
        other => panic!("kind {other}"),
    }
}

/// What the objects are to the oracle.
pub(crate) fn world<'a>(objects: impl IntoIterator<Item = &'a Value>) -> World {
    let mut world = World::default();
    for object in objects {
        match event(object, true) {
            Event::Pods(Change::Applied(pod)) => world.pods.push(pod),
            Event::Namespaces(Change::Applied(namespace)) => world.namespaces.push(namespace),
            Event::Policies(Change::Applied(policy)) => world.policies.push(policy),
            other => panic!("{other:?}"),
        }
    }
    world
}
