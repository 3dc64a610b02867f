//! What is denied is logged when that is asked for.

use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use netlink::nflog::Log;
use serde_json::{Value, json};

use crate::node::PolicedNode;

const OPTIONS: &[&str] = &["--log-denied=12", "--log-format=json"];
const PORT: u16 = 4242;

fn deny(app: &str, direction: &str) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": format!("no-{direction}")},
        "spec": {"podSelector": {"matchLabels": {"app": app}}, "policyTypes": [direction]}})
}

/// Sends one packet, which nobody answers.
fn send(node: &PolicedNode, from: &str, to: IpAddr, protocol: &str) {
    let to = SocketAddr::new(to, PORT);
    node.space(from).enter(|| {
        if protocol == "TCP" {
            // Shorter than the time after which it would be sent again.
            let error = TcpStream::connect_timeout(&to, Duration::from_millis(300)).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
        } else {
            let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            UdpSocket::bind(any).unwrap().send_to(b"anybody?", to).unwrap();
        }
    });
}

/// What was logged of denied packets.
fn told(node: &PolicedNode) -> Vec<Value> {
    let log = std::fs::read_to_string(node.node.home().join("policyd.log")).unwrap();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let fields = lines.map(|mut line| line["fields"].take());
    fields.filter(|fields| fields["message"] == "denied").collect()
}

#[test]
fn denied_packets_are_told_with_their_pod_peer_port_and_policies() {
    let node = PolicedNode::told(&["a", "b", "c"], OPTIONS);
    node.write("in", &deny("b", "Ingress"));
    node.write("out", &deny("c", "Egress"));
    node.wait("both isolations", |it| {
        let rules = it.rules();
        rules.contains(":PODWIRE-TO-") && rules.contains(":PODWIRE-FROM-")
    });
    let mut wanted = 0;
    for (direction, pod, from, to) in
        [("ingress", "default/b", "a", "b"), ("egress", "default/c", "c", "a")]
    {
        let sources = node.addresses(from).iter();
        for (source, destination) in sources.zip(node.addresses(to)) {
            for protocol in ["TCP", "UDP"] {
                send(&node, from, *destination, protocol);
                wanted += 1;
                node.wait("the line", |it| told(it).len() >= wanted);
                let peer = if direction == "ingress" { source } else { destination };
                let policy = if direction == "ingress" { "no-Ingress" } else { "no-Egress" };
                let line = json!({"message": "denied", "pod": pod, "direction": direction,
                    "peer": peer, "peer_pod": "default/a", "protocol": protocol, "port": PORT,
                    "policies": policy, "suppressed": 0});
                assert_eq!(told(&node)[wanted - 1..], [line]);
            }
        }
    }
    node.clean_up();
}

#[test]
fn who_denies_goes_on_while_another_receives_the_log_and_receives_it_after_him() {
    let mut node = PolicedNode::told(&["a", "b"], OPTIONS);
    node.kill();
    let other = node.node.enter(|| Log::open(12)).unwrap();
    node.start();
    node.write("in", &deny("b", "Ingress"));
    node.wait("isolation", |it| it.rules().contains(":PODWIRE-TO-"));
    let address = node.addresses("b")[0];
    send(&node, "a", address, "TCP");
    let log = std::fs::read_to_string(node.node.home().join("policyd.log")).unwrap();
    assert_eq!(log.matches("group 12: has it another receiver").count(), 1, "{log}");
    drop(other);
    node.wait("a line", |it| {
        send(it, "a", address, "UDP");
        !told(it).is_empty()
    });
    node.clean_up();
}

#[test]
fn nothing_is_copied_unasked() {
    let node = PolicedNode::new(&["a", "b"]);
    node.write("in", &deny("b", "Ingress"));
    node.wait("isolation", |it| it.rules().contains(":PODWIRE-TO-"));
    assert!(!node.rules().contains("NFLOG"));
    node.clean_up();
}
