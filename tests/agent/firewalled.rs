//! The plugin firewall opens what others close, and nothing that a policy closes.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use lab::probe::{must_not_reach, must_reach};
use lab::sockets::{received, udp};
use serde_json::{Value, json};

use crate::node::PolicedNode;

/// The node drops what it forwards, unless somebody accepts it.
const DROPS: &str = "iptables -P FORWARD DROP; ip6tables -P FORWARD DROP; nft -f - <<END
table inet mine {
  chain forward { type filter hook forward priority 0; policy drop; }
}
END";
const PORT: u16 = 4243;

fn conf(node: &PolicedNode, name: &str, backend: &str) -> Value {
    let ips = node.addresses(name).iter().map(|address| {
        let prefix = if address.is_ipv4() { 32 } else { 128 };
        json!({"address": format!("{address}/{prefix}")})
    });
    json!({"cniVersion": "1.0.0", "name": "net", "type": "firewall", "backend": backend,
        "prevResult": {"cniVersion": "1.0.0", "interfaces": [{"name": "x"}], "ips": ips.collect::<Vec<_>>()}})
}

fn nobody_gets_in(options: &'static [&'static str]) {
    let node = PolicedNode::told(&["a", "b"], options);
    node.node.sh(DROPS);
    // What comes by nf_tables' own chain is for nf_tables alone to accept.
    let call = |name: &'static str, command: &str, backend: &str| {
        let pod = node.space(name);
        let _ = node.call(name, command, pod, &conf(&node, name, backend)).ok();
    };
    let deny = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "no-ingress"},
        "spec": {"podSelector": {"matchLabels": {"app": "b"}}, "policyTypes": ["Ingress"]}});
    for backend in ["iptables", "nftables"] {
        if backend == "iptables" {
            node.node.sh("nft delete table inet mine");
        }
        for address in node.addresses("b").iter().map(ToString::to_string) {
            must_not_reach(node.space("a"), node.space("b"), &address);
        }
        for name in ["a", "b"] {
            call(name, "ADD", backend);
        }
        for address in node.addresses("b").iter().map(ToString::to_string) {
            must_reach(node.space("a"), node.space("b"), &address);
        }
        node.write("policy", &deny);
        node.wait("the isolation", |it| it.isolated() == 1);
        while_it_comes_and_goes(&node, || {
            for _ in 0..8 {
                for name in ["a", "b"] {
                    call(name, "DEL", backend);
                }
                for name in ["b", "a"] {
                    call(name, "ADD", backend);
                }
            }
        });
        for address in node.addresses("b").iter().map(ToString::to_string) {
            must_not_reach(node.space("a"), node.space("b"), &address);
        }
        // The other way round nobody is kept from anything.
        must_reach(node.space("b"), node.space("a"), &node.addresses("a")[0].to_string());
        node.remove("policy");
        node.wait("no isolation", |it| it.isolated() == 0);
        for name in ["a", "b"] {
            call(name, "DEL", backend);
        }
        node.node.sh(DROPS);
    }
    node.node
        .sh("nft delete table inet mine; iptables -P FORWARD ACCEPT; ip6tables -P FORWARD ACCEPT
        iptables -F FORWARD; ip6tables -F FORWARD");
    node.clean_up();
}

/// Not one of the packets that are sent all the time arrives.
fn while_it_comes_and_goes(node: &PolicedNode, comes_and_goes: impl FnOnce()) {
    let sockets: Vec<UdpSocket> = node
        .addresses("b")
        .iter()
        .map(|it| node.space("b").enter(|| udp(SocketAddr::new(*it, PORT))))
        .collect();
    let ends = AtomicBool::new(false);
    thread::scope(|scope| {
        let sender = scope.spawn(|| {
            node.space("a").enter(|| {
                let mut sent = 0_u32;
                while !ends.load(Ordering::Relaxed) {
                    for to in node.addresses("b") {
                        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                        // A socket of its own for each, so that each is new to the node. A refusal is told to
                        // the sender.
                        let socket = UdpSocket::bind(any).unwrap();
                        sent += u32::from(socket.send_to(b"in?", (*to, PORT)).is_ok());
                    }
                    thread::sleep(Duration::from_millis(1));
                }
                sent
            })
        });
        comes_and_goes();
        ends.store(true, Ordering::Relaxed);
        let sent = sender.join().unwrap();
        assert!(sent > 50, "only {sent} packets were sent");
    });
    for socket in sockets {
        assert!(received(&socket).is_empty(), "a packet got in");
    }
}

#[test]
fn what_a_policy_drops_no_firewall_opens() {
    nobody_gets_in(&[]);
}

#[test]
fn what_a_policy_rejects_no_firewall_opens() {
    nobody_gets_in(&["--deny", "reject"]);
}
