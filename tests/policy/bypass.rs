//! Other agents of the node accept whatever they like ahead of us: that opens nothing.

use std::net::TcpStream;
use std::time::Duration;

use lab::{has_iptables, slowed};
use policyd::iptables::Settings;
use serde_json::{Value, json};

use crate::cluster::{Cluster, Wiring, gated};
use crate::objects::{deny_all, policy};
use crate::table::USUAL;

/// As Docker, firewalld and the CNI firewall plugin do it: ahead of everything, by a chain of
/// their own, and for known connections.
fn accept_all(cluster: &Cluster) {
    if !has_iptables() {
        let hooks = ["forward", "input"].map(|it| {
            format!(
                "nft add chain inet others {it} '{{ type filter hook {it} priority 0; }}'
                 nft add rule inet others {it} ct state related,established accept
                 nft add rule inet others {it} accept"
            )
        });
        cluster.node.sh(&format!("nft add table inet others\n{}", hooks.join("\n")));
        return;
    }
    for program in ["iptables", "ip6tables"] {
        cluster.node.sh(&format!(
            "{program} -N CNI-FORWARD; {program} -A CNI-FORWARD -j ACCEPT
             {program} -I FORWARD -j CNI-FORWARD; {program} -I FORWARD -j ACCEPT
             {program} -I INPUT -j ACCEPT
             {program} -I FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
        ));
    }
}

fn accept_no_more(cluster: &Cluster) {
    if !has_iptables() {
        cluster.node.sh("nft delete table inet others");
        return;
    }
    for program in ["iptables", "ip6tables"] {
        cluster.node.sh(&format!(
            "{program} -D FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
             {program} -D INPUT -j ACCEPT; {program} -D FORWARD -j ACCEPT
             {program} -D FORWARD -j CNI-FORWARD; {program} -F CNI-FORWARD; {program} -X CNI-FORWARD"
        ));
    }
}

fn some_policies() -> [Value; 3] {
    let from_a = json!([{"from": [{"podSelector": {"matchLabels": {"pod": "a"}}}]}]);
    let spec = json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [
        {"to": [{"podSelector": {}}], "ports": [{"port": 80}, {"protocol": "UDP"}]}]});
    [
        deny_all("x"),
        policy("x/in", json!({"podSelector": {}, "ingress": from_a})),
        policy("y/out", spec),
    ]
}

fn opens_nothing(wiring: Wiring, settings: Settings) {
    let mut cluster = Cluster::nine(wiring, settings);
    some_policies().iter().for_each(|it| cluster.tell(it));
    cluster.enforce();
    assert_eq!(cluster.compare(USUAL), [""; 0], "{wiring:?}: alone");
    accept_all(&cluster);
    assert_eq!(cluster.compare(USUAL), [""; 0], "{wiring:?}: others accept");
    // Put into place again below, or above, theirs.
    cluster.adopt();
    cluster.forget(&some_policies()[2]);
    cluster.enforce();
    assert_eq!(cluster.compare(USUAL), [""; 0], "{wiring:?}: changed");
    accept_no_more(&cluster);
    cluster.clean_up();
}

fn with_drop(wiring: Wiring) {
    opens_nothing(wiring, gated());
}

fn with_reject(wiring: Wiring) {
    opens_nothing(wiring, Settings { rejects: true, ..gated() });
}

/// Who is rejected is told so at once.
fn rejected_at_once(wiring: Wiring) {
    let mut cluster = Cluster::nine(wiring, Settings { rejects: true, ..gated() });
    some_policies().iter().for_each(|it| cluster.tell(it));
    cluster.enforce();
    for (from, to) in [("y/a", "z/a"), ("z/b", "x/b")] {
        for address in cluster.pods[to].attachment.addresses.clone() {
            let connected = cluster.pods[from].space.enter(|| {
                TcpStream::connect_timeout(&(address, 80).into(), slowed(Duration::from_secs(10)))
            });
            let kind = connected.map(drop).unwrap_err().kind();
            assert_eq!(kind, std::io::ErrorKind::ConnectionRefused, "{from} > {to} {address}");
        }
    }
    cluster.clean_up();
}

on_both_wirings!(with_drop, with_reject, rejected_at_once);
