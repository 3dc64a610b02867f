//! A.3: packets that begin no flow, and those that are none by themselves.

use std::net::SocketAddr;

use lab::sockets::{raw, udp};
use lab::wire::{LONGEST, echo_reply, echo_request, read_echo_reply};
use nix::sys::socket::SockProtocol;
use serde_json::json;

use crate::cluster::{Cluster, Wiring, gated};
use crate::objects::policy;
use crate::paths::wait_until;

/// What conntrack holds to belong to no flow, and to begin none, passes neither into an isolated pod nor
/// out of one, even where all is allowed: nobody translates its addresses.
fn of_no_flow(wiring: Wiring) {
    let mut cluster = Cluster::nine(wiring, gated());
    for (name, key, kind) in [("x/a", "egress", "Egress"), ("y/b", "ingress", "Ingress")] {
        let (namespace, pod) = name.split_once('/').unwrap();
        let spec = json!({"podSelector": {"matchLabels": {"pod": pod}},
            "policyTypes": [kind], (key): [{}]});
        cluster.tell(&policy(&format!("{namespace}/all"), spec));
    }
    cluster.enforce();
    for is_ipv4 in [true, false] {
        for (from, to, passes) in [
            ("x/a", "z/a", false),
            ("z/a", "y/b", false),
            ("z/a", "x/a", true),
            ("y/b", "z/a", true),
        ] {
            let came = comes_unasked(&cluster, from, to, is_ipv4);
            assert_eq!(came, passes, "{wiring:?}: from {from} to {to}, IPv4 {is_ipv4}");
        }
    }
    cluster.clean_up();
}

/// Whether an echo reply to no request arrives, which is sent ahead of a request that does.
fn comes_unasked(cluster: &Cluster, from: &str, to: &str, is_ipv4: bool) -> bool {
    const REPLY: u64 = 0x5eed_0000_0000_0001;
    const REQUEST: u64 = 0x5eed_0000_0000_0002;
    let protocol = if is_ipv4 { SockProtocol::Icmp } else { SockProtocol::IcmpV6 };
    let [(sender, _), (receiver, target)] = [from, to].map(|name| {
        let pod = &cluster.pods[name];
        let address = pod.address(is_ipv4);
        (pod.space.enter(|| raw(address, protocol)), SocketAddr::new(address, 0))
    });
    sender.send_to(&echo_reply(is_ipv4, 4242, REPLY), target).unwrap();
    let request = echo_request(is_ipv4, 4243, REQUEST);
    let (mut has_come, mut buffer) = (false, [0; LONGEST]);
    wait_until("the request comes", || {
        sender.send_to(&request, target).unwrap();
        let mut is_over = false;
        while let Ok(length) = receiver.recv(&mut buffer) {
            let packet = &buffer[..length];
            has_come |= read_echo_reply(is_ipv4, packet) == Some(REPLY);
            is_over |= packet.ends_with(&REQUEST.to_be_bytes());
        }
        is_over
    });
    has_come
}

/// A datagram that is longer than any packet comes in parts, of which only the first tells the port.
fn longer_than_a_packet(wiring: Wiring) {
    const LONG: usize = 4000;
    let mut cluster = Cluster::nine(wiring, gated());
    let ports = [7200, 7201];
    for is_restricted in [false, true] {
        if is_restricted {
            let spec = json!({"podSelector": {"matchLabels": {"pod": "b"}},
                "ingress": [{"ports": [{"port": ports[0], "protocol": "UDP"}]}]});
            cluster.tell(&policy("y/p", spec));
            cluster.enforce();
        }
        let (client, server) = (&cluster.pods["x/a"], &cluster.pods["y/b"]);
        let links = client.space.sh("ip -o link show dev eth0");
        assert!(links.contains(" mtu 1500 "), "{links}");
        for is_ipv4 in [true, false] {
            let at = |port| SocketAddr::new(server.address(is_ipv4), port);
            let listeners = ports.map(|port| server.space.enter(|| udp(at(port))));
            let own = SocketAddr::new(client.address(is_ipv4), 0);
            let sender = client.space.enter(|| udp(own));
            let mut came = [0; 2];
            wait_until("a long datagram comes to the port that is allowed", || {
                // To the other one first.
                for port in ports.iter().rev() {
                    sender.send_to(&[7; LONG], at(*port)).unwrap();
                }
                let mut buffer = [0; 2 * LONG];
                for (listener, came) in listeners.iter().zip(&mut came) {
                    while let Ok(length) = listener.recv(&mut buffer) {
                        assert_eq!(length, LONG);
                        *came += 1;
                    }
                }
                came[0] > 0 && (is_restricted || came[1] > 0)
            });
            assert!(!is_restricted || came[1] == 0, "{wiring:?}, IPv4 {is_ipv4}: {came:?}");
        }
    }
    cluster.clean_up();
}

on_both_wirings!(of_no_flow, longer_than_a_packet);
