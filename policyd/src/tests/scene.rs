//! Nine pods as in Kubernetes' e2e tests: a, b and c in each of the namespaces x, y and z.
//!
//! `y/c` has the addresses 10.0.2.3 and fd00::2:3, the labels `pod: c` and `tier: web`, and its
//! namespace the label `ns: y`. It serves `http` (80/TCP), `dns` (53/TCP and 53/UDP).

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::model::{Namespace, Pod, Policy, Protocol};
use crate::{Packet, Transport, Verdict, World, evaluate};

/// A pod as the API server shows it, to be changed by the test.
pub(crate) fn pod(name: &str, addresses: &[&str]) -> Value {
    let (namespace, name) = name.split_once('/').unwrap();
    let addresses: Vec<_> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "namespace": namespace, "name": name, "uid": format!("uid-of-{namespace}-{name}"),
            "creationTimestamp": "2026-11-01T00:00:00Z",
            "labels": {"pod": name, "tier": "web"},
        },
        "spec": {
            "nodeName": "node-1",
            "containers": [{"name": "server", "ports": [
                {"name": "http", "containerPort": 80},
                {"name": "dns", "containerPort": 53, "protocol": "UDP"},
                {"name": "dns", "containerPort": 53, "protocol": "TCP"},
            ]}],
        },
        "status": {"phase": "Running", "podIPs": addresses},
    })
}

pub(crate) fn namespace(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": name, "uid": format!("uid-of-{name}"),
            "creationTimestamp": "2026-11-01T00:00:00Z", "labels": {"ns": name},
        },
    })
}

pub(crate) fn policy(name: &str, spec: Value) -> Value {
    let (namespace, name) = name.split_once('/').unwrap();
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"namespace": namespace, "name": name, "uid": format!("uid-of-{name}")},
        "spec": spec,
    })
}

pub(crate) fn nine_pods() -> Vec<Value> {
    let mut objects: Vec<_> = ["x", "y", "z"].map(namespace).into();
    for namespace in ["x", "y", "z"] {
        for name in ["a", "b", "c"] {
            let name = format!("{namespace}/{name}");
            let [four, six] = ["10.0.{}.{}", "fd00::{}:{}"].map(|form| address(&name, form));
            objects.push(pod(&name, &[&four, &six]));
        }
    }
    objects
}

/// The nine pods and one policy of `x`.
pub(crate) fn with_policy(spec: Value) -> World {
    with([policy("x/p", spec)])
}

/// The nine pods and other objects.
pub(crate) fn with(objects: impl IntoIterator<Item = Value>) -> World {
    let mut all = nine_pods();
    all.extend(objects);
    world(&all)
}

pub(crate) fn world(objects: &[Value]) -> World {
    let mut world = World::default();
    for object in objects {
        match object["kind"].as_str().unwrap() {
            "Pod" => world.pods.push(compile_pod(object)),
            "Namespace" => world
                .namespaces
                .push(Namespace::from(&serde_json::from_value(object.clone()).unwrap())),
            "NetworkPolicy" => world.policies.push(compile_policy(object)),
            other => panic!("kind {other}"),
        }
    }
    world
}

pub(crate) fn compile_pod(object: &Value) -> Pod {
    Pod::from(&serde_json::from_value(object.clone()).unwrap())
}

pub(crate) fn compile_policy(object: &Value) -> Policy {
    Policy::from(&serde_json::from_value(object.clone()).unwrap())
}

fn address(name: &str, form: &str) -> String {
    let (namespace, pod) = name.split_once('/').unwrap();
    let number = |text: &str, first: u8| (text.as_bytes()[0] - first + 1).to_string();
    form.replacen("{}", &number(namespace, b'x'), 1).replacen("{}", &number(pod, b'a'), 1)
}

fn end(text: &str, form: &str) -> IpAddr {
    let text = if text.contains('/') { address(text, form) } else { text.to_owned() };
    text.parse().unwrap()
}

fn transport(text: &str) -> Transport {
    if text == "ICMP" {
        return Transport::Icmp;
    }
    let (number, protocol) = text.split_once('/').unwrap();
    let number = number.parse().unwrap();
    let protocol = match protocol {
        "TCP" => Protocol::Tcp,
        "UDP" => Protocol::Udp,
        "SCTP" => Protocol::Sctp,
        _ => return Transport::Other { number: u8::try_from(number).unwrap() },
    };
    Transport::Port { protocol, destination_port: number }
}

fn parse(text: &str, form: &str) -> Packet {
    let words: Vec<_> = text.split_whitespace().collect();
    let [source, ">", destination, carries] = words[..] else { panic!("packet {text}") };
    Packet {
        source: end(source, form),
        destination: end(destination, form),
        transport: transport(carries),
        from_node: None,
    }
}

/// `x/a > y/b 80/TCP`: pods or addresses, and port/protocol, ICMP or number/IP. Pods by their
/// IPv4 addresses.
pub(crate) fn packet(text: &str) -> Packet {
    parse(text, "10.0.{}.{}")
}

/// As [`packet`], with the pods' IPv6 addresses.
pub(crate) fn packet6(text: &str) -> Packet {
    parse(text, "fd00::{}:{}")
}

pub(crate) fn verdict(world: &World, text: &str) -> Verdict {
    evaluate(world, &packet(text))
}

/// Asserts that the packets are allowed, and those that begin with `!` denied. Between pods, in
/// both families.
#[track_caller]
pub(crate) fn assert_packets(world: &World, texts: &[&str]) {
    for text in texts {
        let (wanted, line) = text.strip_prefix('!').map_or((true, *text), |line| (false, line));
        let verdict = verdict(world, line);
        assert_eq!(verdict.is_allowed(), wanted, "{text}: {verdict:#?}");
        if line.matches('/').count() == 3 {
            let verdict = evaluate(world, &packet6(line));
            assert_eq!(verdict.is_allowed(), wanted, "{text} by IPv6: {verdict:#?}");
        }
    }
}
