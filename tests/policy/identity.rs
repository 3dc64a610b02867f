//! Whose an address is: addresses that pass on, interfaces that are not known, pods of one family,
//! and those that have no rules yet.

use serde_json::json;

use crate::cluster::{Cluster, Wiring, gated};
use crate::objects::{deny_all, pod, policy, with_addresses};
use crate::prober::Protocol::{Echo, Sctp, Tcp, Udp};
use crate::prober::{Probe, deviations};
use crate::table::{Kind, USUAL};

const FEW: &[Kind] = &[(Tcp, 80), (Udp, 53), (Echo, 0)];

#[derive(Debug, Clone, Copy)]
enum Step {
    Gone,
    Detached,
    Told,
    Attached,
}

/// A.4.3: `z/heir` gets the addresses of `x/a`; what is told of the two comes in any order.
fn address_reuse(wiring: Wiring) {
    use Step::{Attached, Detached, Gone, Told};
    let mut cluster = Cluster::nine(wiring, gated());
    // The former is isolated and a peer of x; the heir is a peer of y.
    cluster.tell(&policy(
        "x/p",
        json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}]}),
    ));
    let from_z = json!([{"from": [{"namespaceSelector": {"matchLabels": {"ns": "z"}}}]}]);
    cluster.tell(&policy("y/p", json!({"podSelector": {}, "ingress": from_z})));
    cluster.enforce();
    for steps in [
        [Gone, Detached, Told, Attached],
        [Told, Attached, Gone, Detached],
        [Attached, Told, Detached, Gone],
        [Told, Gone, Attached, Detached],
        [Attached, Detached, Gone, Told],
    ] {
        let former = cluster.objects["uid-of-x-a"].clone();
        let old = cluster.pods["x/a"].attachment.clone();
        let addresses: Vec<_> = old.addresses.iter().copied().collect();
        let mut heir = with_addresses(pod("z/heir"), &addresses);
        heir["metadata"]["creationTimestamp"] = json!("2026-11-09T00:00:00Z");
        let mut new = old.clone();
        new.container_id = "heir".to_owned();
        let reference = new.pod.as_mut().unwrap();
        reference.name.namespace = "z".to_owned();
        reference.name.name = "heir".to_owned();
        reference.uid = Some("uid-of-z-heir".to_owned());
        for step in steps {
            match step {
                Gone => cluster.forget(&former),
                Detached => cluster.index.detach(&old.container_id),
                Told => cluster.tell(&heir),
                Attached => cluster.index.attach(new.clone()),
            }
            cluster.enforce();
        }
        assert_eq!(cluster.compare(FEW), [""; 0], "{wiring:?}: {steps:?}");
        cluster.forget(&heir);
        cluster.index.detach("heir");
        cluster.tell(&former);
        cluster.index.attach(old);
        cluster.enforce();
    }
    assert_eq!(cluster.compare(FEW), [""; 0], "{wiring:?}: as before");
    cluster.clean_up();
}

/// Where the interface is not told, and where nobody tells of an attachment at all.
fn unknown_interfaces(wiring: Wiring) {
    let mut cluster = Cluster::nine(wiring, gated());
    let only_b = json!([{"namespaceSelector": {}, "podSelector": {"matchLabels": {"pod": "b"}}}]);
    let spec = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": only_b, "ports": [{"port": 80}]}], "egress": [{"to": only_b}]});
    cluster.tell(&policy("x/p", spec));
    let attachments: Vec<_> = cluster.pods.values().map(|it| it.attachment.clone()).collect();
    for attachment in &attachments {
        let mut attachment = attachment.clone();
        attachment.interface = None;
        cluster.index.attach(attachment);
    }
    cluster.enforce();
    assert_eq!(cluster.compare(USUAL), [""; 0], "{wiring:?}: no interfaces");
    attachments.iter().for_each(|it| cluster.index.detach(&it.container_id));
    // Who was detached has no addresses any more: these are others, of whom nobody tells.
    let pods = cluster.objects.values().filter(|it| it["kind"] == "Pod").cloned();
    for pod in pods.collect::<Vec<_>>() {
        cluster.forget(&pod);
        cluster.tell(&pod);
    }
    cluster.enforce();
    assert_eq!(cluster.compare(USUAL), [""; 0], "{wiring:?}: no attachments");
    // One with, the others without.
    cluster.index.attach(attachments[0].clone());
    cluster.enforce();
    assert_eq!(cluster.compare(USUAL), [""; 0], "{wiring:?}: one interface");
    cluster.clean_up();
}

/// Pods of one family beside those of both.
fn one_family(wiring: Wiring) {
    let mut cluster = Cluster::nine(wiring, gated());
    for (name, subnet) in [("x/four", "10.1.0.0/24"), ("y/six", "fd00:1::/64")] {
        let both = cluster.conf["ipam"]["ranges"].clone();
        cluster.conf["ipam"]["ranges"] = json!([[{"subnet": subnet}]]);
        cluster.add(name, pod(name));
        cluster.conf["ipam"]["ranges"] = both;
    }
    let peers = json!([{"podSelector": {}}, {"ipBlock": {"cidr": "10.1.0.0/29"}}]);
    let spec = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": peers, "ports": [{"port": 80}, {"port": "dns", "protocol": "UDP"}]}],
        "egress": [{"to": peers}]});
    cluster.enforce();
    assert_eq!(cluster.compare(FEW), [""; 0], "{wiring:?}: open");
    cluster.tell(&policy("x/p", spec.clone()));
    cluster.tell(&policy("y/p", spec));
    cluster.enforce();
    assert_eq!(cluster.compare(USUAL), [""; 0], "{wiring:?}");
    cluster.clean_up();
}

/// What has no rules yet passes nothing but ARP and neighbour discovery, whatever the policies; a
/// container that is no pod passes once it is attached.
fn gate(wiring: Wiring) {
    let mut cluster = Cluster::nine(wiring, gated());
    let late = cluster.attach("x/late", &pod("x/late"));
    let attachment = late.attachment.clone();
    cluster.pods.insert("x/late".to_owned(), late);
    assert_eq!(deviations(&cluster, &to_and_from(&cluster, false)), [""; 0], "{wiring:?}: unknown");
    let mut plain = attachment.clone();
    plain.pod = None;
    cluster.index.attach(plain);
    cluster.enforce();
    assert_eq!(deviations(&cluster, &to_and_from(&cluster, true)), [""; 0], "{wiring:?}: plain");
    cluster.index.detach(&attachment.container_id);
    cluster.tell(&deny_all("x"));
    cluster.index.attach(attachment);
    cluster.enforce();
    assert_eq!(deviations(&cluster, &to_and_from(&cluster, false)), [""; 0], "{wiring:?}: no pod");
    let addresses: Vec<_> = cluster.pods["x/late"].attachment.addresses.iter().copied().collect();
    cluster.tell(&with_addresses(pod("x/late"), &addresses));
    cluster.enforce();
    assert_eq!(cluster.compare(FEW), [""; 0], "{wiring:?}: isolated");
    cluster.forget(&deny_all("x"));
    cluster.enforce();
    assert_eq!(cluster.compare(FEW), [""; 0], "{wiring:?}: open");
    cluster.clean_up();
}

/// Between `x/late` and somebody of every kind.
fn to_and_from(cluster: &Cluster, expected: bool) -> Vec<(Probe, bool)> {
    let late = &cluster.pods["x/late"];
    let mut probes = Vec::new();
    for (protocol, port) in [(Tcp, 80), (Udp, 53), (Sctp, 80), (Echo, 0)] {
        for address in &late.attachment.addresses {
            let is_ipv4 = address.is_ipv4();
            let beyond = if is_ipv4 { "203.0.113.9" } else { "2001:db8:9::9" }.parse().unwrap();
            let node = if is_ipv4 { "192.0.2.1" } else { "2001:db8::1" }.parse().unwrap();
            let pod = cluster.pods["y/b"].address(is_ipv4);
            for (who, other) in [("y/b", pod), ("other", beyond), ("node", node)] {
                // What the node sends is never policed; it is its answer that does not come.
                let arrives = protocol == Udp && who == "node";
                let ways = [(who, other, *address), ("x/late", *address, other)];
                for (from, source, to) in ways.into_iter().skip(usize::from(arrives)) {
                    let probe =
                        Probe { from: from.to_owned(), source, to: (to, port).into(), protocol };
                    probes.push((probe, expected));
                }
            }
        }
    }
    probes
}

/// Without ranges there is no gate: nobody is kept out but by policies.
#[test]
fn without_a_gate_unknown_pods_pass() {
    let mut cluster = Cluster::nine(Wiring::Ptp, policyd::iptables::Settings::default());
    let late = cluster.attach("x/late", &pod("x/late"));
    cluster.pods.insert("x/late".to_owned(), late);
    cluster.tell(&deny_all("x"));
    cluster.enforce();
    let mut wrong = deviations(&cluster, &to_and_from(&cluster, true));
    wrong.extend(cluster.compare(FEW));
    assert_eq!(wrong, [""; 0]);
    cluster.clean_up();
}

on_both_wirings!(address_reuse, unknown_interfaces, one_family, gate);
