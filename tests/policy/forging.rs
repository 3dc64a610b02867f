//! What a pod sends by an address that is not its own comes nowhere, and is counted.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use lab::{Space, slowed};
use serde_json::json;

use crate::cluster::{Cluster, NODE, NODE_2, OUTSIDE, Wiring, gated};
use crate::objects::{deny_all, pod, policy};
use crate::prober::Protocol::Udp;
use crate::saved;
use crate::table::USUAL;

/// More than any number that probes use.
const FORGED: u64 = 1 << 62;

/// Gives the address to the sender, too: so it is a source like its own.
fn sends_by(sender: &Space, address: IpAddr) {
    let (length, flags) = if address.is_ipv4() { (32, "") } else { (128, "nodad") };
    sender.sh(&format!("ip addr add {address}/{length} dev lo {flags}"));
}

fn no_longer(sender: &Space, address: IpAddr) {
    let length = if address.is_ipv4() { 32 } else { 128 };
    sender.sh(&format!("ip addr del {address}/{length} dev lo"));
}

/// Sends forged datagrams, then waits for an honest one: nothing of the forged may come by then.
fn must_be_dropped(
    cluster: &Cluster,
    sender: &Space,
    honest: &Space,
    cases: &[(IpAddr, u16, SocketAddr)],
) {
    let mut number = FORGED;
    for (source, port, to) in cases {
        sends_by(sender, *source);
        let socket = sender.enter(|| UdpSocket::bind((*source, *port))).unwrap();
        for _ in 0..3 {
            number += 1;
            // The kernel of the sender itself may refuse.
            socket
                .send_to(&number.to_be_bytes(), to)
                .unwrap_or_else(|error| panic!("{source} cannot be forged towards {to}: {error}"));
        }
        drop(socket);
        no_longer(sender, *source);
    }
    for (_, _, to) in cases {
        number += 1;
        let like = if to.is_ipv4() { "0.0.0.0" } else { "::" }.parse::<IpAddr>().unwrap();
        let socket = honest.enter(|| UdpSocket::bind((like, 0))).unwrap();
        let deadline = Instant::now() + slowed(Duration::from_secs(10));
        while !cluster.arrivals.lock().unwrap().contains(&number) {
            assert!(Instant::now() < deadline, "nothing comes to {to}");
            socket.send_to(&number.to_be_bytes(), to).unwrap();
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    let came: Vec<_> = cluster.arrivals.lock().unwrap().iter().copied().collect();
    let first = number - cases.len() as u64;
    let forged: Vec<_> = came.iter().filter(|it| (FORGED + 1..=first).contains(it)).collect();
    let which: Vec<_> =
        forged.iter().map(|it| cases[usize::try_from(**it - FORGED - 1).unwrap() / 3]).collect();
    assert!(which.is_empty(), "came through: {which:?}");
    cluster.arrivals.lock().unwrap().clear();
}

fn parse(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The addresses that `x/a` might forge, and where to: each pod but itself and whose address it
/// is, the node, and outside.
fn cases(cluster: &Cluster) -> Vec<(IpAddr, u16, SocketAddr)> {
    let mut cases = Vec::new();
    for is_ipv4 in [true, false] {
        let other_family = usize::from(!is_ipv4);
        let peer = cluster.pods["y/b"].address(is_ipv4);
        let forged = [
            parse(NODE[other_family]),
            parse(NODE[2 + other_family]),
            parse(NODE_2[other_family]),
            parse(OUTSIDE[other_family]),
            peer,
            // Of the pods' range, but nobody's.
            parse(["10.1.0.200", "fd00:1::200"][other_family]),
        ];
        let targets = [
            cluster.pods["x/b"].address(is_ipv4),
            cluster.pods["y/c"].address(is_ipv4),
            parse(NODE[other_family]),
            parse(OUTSIDE[other_family]),
        ];
        for source in forged {
            let others = targets.iter().filter(|it| **it != source);
            cases.extend(others.map(|to| (source, 0, SocketAddr::new(*to, 53))));
        }
    }
    cases
}

fn forged_count(cluster: &Cluster) -> u64 {
    // Addresses of the pods' range that no pod has do not come as far as to their interface.
    ["PODWIRE-FORGED", "PODWIRE-GATE"].iter().map(|it| saved::packets(&cluster.node, it)).sum()
}

/// Without policies, and with those that allow the address that is forged.
fn pods(wiring: Wiring) {
    let mut cluster = Cluster::nine(wiring, gated());
    // Only the interface tells who it is: a node's own filter would answer for us.
    cluster.node.sh("for it in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 >$it; done
        for it in /proc/sys/net/ipv4/conf/*/accept_local; do echo 1 >$it; done");
    let cases = cases(&cluster);
    let before = forged_count(&cluster);
    let (sender, honest) = (&cluster.pods["x/a"].space, &cluster.pods["z/a"].space);
    must_be_dropped(&cluster, sender, honest, &cases);
    let counted = forged_count(&cluster) - before;
    assert!(counted >= 3 * cases.len() as u64, "{counted} are counted");
    let from_y = json!([{"from": [{"namespaceSelector": {"matchLabels": {"ns": "y"}}},
        {"namespaceSelector": {"matchLabels": {"ns": "z"}}}, {"ipBlock": {"cidr": "0.0.0.0/0"}},
        {"ipBlock": {"cidr": "::/0"}}]}]);
    cluster.tell(&policy("x/p", json!({"podSelector": {}, "ingress": from_y})));
    cluster.tell(&policy("y/p", json!({"podSelector": {}, "ingress": from_y})));
    cluster.enforce();
    let (sender, honest) = (&cluster.pods["x/a"].space, &cluster.pods["z/a"].space);
    must_be_dropped(&cluster, sender, honest, &cases);
    cluster.clean_up();
}

/// With all of the five numbers of a flow that is established between two others.
fn established_flow(wiring: Wiring) {
    let mut cluster = Cluster::nine(wiring, gated());
    cluster.tell(&deny_all("x"));
    let from_y = json!([{"from": [{"namespaceSelector": {"matchLabels": {"ns": "y"}}},
        {"namespaceSelector": {"matchLabels": {"ns": "z"}}}]}]);
    cluster.tell(&policy(
        "x/p",
        json!({"podSelector": {"matchLabels": {"pod": "b"}}, "ingress": from_y}),
    ));
    cluster.enforce();
    let cases = [true, false].map(|is_ipv4| {
        let (one, two) =
            (cluster.pods["y/b"].address(is_ipv4), cluster.pods["x/b"].address(is_ipv4));
        let to = SocketAddr::new(two, 53);
        let socket = cluster.pods["y/b"].space.enter(|| UdpSocket::bind((one, 7777))).unwrap();
        socket.set_read_timeout(Some(slowed(Duration::from_secs(5)))).unwrap();
        for _ in 0..2 {
            socket.send_to(&1_u64.to_be_bytes(), to).unwrap();
            socket.recv(&mut [0; 8]).expect("the flow is established");
        }
        (one, 7777, to)
    });
    let (sender, honest) = (&cluster.pods["x/a"].space, &cluster.pods["z/a"].space);
    must_be_dropped(&cluster, sender, honest, &cases);
    cluster.clean_up();
}

/// From outside, and from an interface that no pod is known at, by a pod's address.
fn elsewhere(wiring: Wiring) {
    let mut cluster = Cluster::nine(wiring, gated());
    cluster.node.sh("for it in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 >$it; done");
    let late = cluster.attach("x/late", &pod("x/late"));
    let cases: Vec<_> = [true, false]
        .into_iter()
        .flat_map(|is_ipv4| {
            let source = cluster.pods["y/b"].address(is_ipv4);
            let to = [cluster.pods["x/b"].address(is_ipv4), parse(NODE[usize::from(!is_ipv4)])];
            to.map(|to| (source, 0, SocketAddr::new(to, 53)))
        })
        .collect();
    let honest = &cluster.pods["z/a"].space;
    let before = forged_count(&cluster);
    must_be_dropped(&cluster, &cluster.other, honest, &cases);
    must_be_dropped(&cluster, &late.space, honest, &cases);
    let counted = forged_count(&cluster) - before;
    assert!(counted >= 2 * 3 * cases.len() as u64, "{counted} are counted");
    cluster.clean_up();
}

/// All that pods do of their own accord, discovery included, is never taken for forged.
fn honest(wiring: Wiring) {
    let cluster = Cluster::nine(wiring, gated());
    assert_eq!(cluster.compare(USUAL), [""; 0]);
    assert_eq!(forged_count(&cluster), 0, "{}", cluster.node.sh("ip6tables-save -c -t mangle"));
    assert_eq!(cluster.compare(&[(Udp, 53)]), [""; 0]);
    cluster.clean_up();
}

on_both_wirings!(pods, established_flow, elsewhere, honest);
