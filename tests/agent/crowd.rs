//! Very many policies while pods come and go, names of the greatest length, and others that wipe
//! whole tables.

use std::net::IpAddr;
use std::time::Instant;

use lab::probe::{must_not_reach, must_reach};
use lab::{addresses, by_nftables, has_iptables};
use serde_json::{Value, json};

use crate::node::{BY_IPTABLES, BY_NFTABLES, PolicedNode};

const POLICIES: usize = 1000;

/// A policy of the server that names a pod of the crowd.
fn policy(number: usize) -> Value {
    let from = json!({"podSelector": {"matchLabels": {"crowd": format!("c{}", number % 40)}}});
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": format!("p{number}")},
        "spec": {"podSelector": {"matchLabels": {"app": "server"}},
            "ingress": [{"from": [from], "ports": [{"port": 1000 + number}]}]}})
}

/// A pod of another node.
fn member(node: &PolicedNode, number: usize, turn: usize) {
    let ips = json!([{"ip": format!("10.9.{turn}.{}", 1 + number)}]);
    node.write(
        &format!("crowd-{number}"),
        &json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("crowd-{number}"), "labels": {"crowd": format!("c{number}")}},
        "spec": {"nodeName": "node-2", "containers": [{"name": "c", "image": "i"}]},
        "status": {"phase": "Running", "podIPs": ips}}),
    );
}

fn has_member(node: &PolicedNode, address: &str) -> bool {
    let is_it = |word: &str| word.trim_end_matches(',') == address;
    node.rules().split_whitespace().any(is_it)
}

#[test]
fn a_thousand_policies_while_pods_churn_end_as_from_nothing() {
    let mut node = PolicedNode::new(&["client", "server"]);
    let list: Vec<_> = (0..POLICIES).map(policy).collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": list});
    node.write("policies", &list);
    for turn in 0..5 {
        for number in 0..40 {
            if (number + turn) % 4 == 3 && turn > 0 && turn < 4 {
                _ = std::fs::remove_file(
                    node.node.home().join(format!("manifests/crowd-{number}.json")),
                );
            } else {
                member(&node, number, turn);
            }
        }
        assert_eq!(node.node.sh("curl -s --max-time 5 http://127.0.0.1:9099/healthz"), "ok\n");
    }
    node.wait("the last pods", |it| {
        (0..40).all(|one| has_member(it, &format!("10.9.4.{}", 1 + one)))
    });
    node.wait("all policies", |it| it.rules().matches(":PODWIRE-INGRESS-").count() >= POLICIES);
    must_not_reach(
        node.space("client"),
        node.space("server"),
        &node.addresses("server")[0].to_string(),
    );
    let state = node.state();
    node.wipe();
    node.start();
    assert_eq!(state, node.state(), "not as from nothing");
    node.clean_up();
}

/// A namespace, and what is in it, of names of the greatest length.
struct Longest {
    namespace: String,
    name: String,
    labels: Value,
}

impl Longest {
    fn new() -> Self {
        let (namespace, label) = ("n".repeat(63), "l".repeat(63));
        let name =
            [["d".repeat(63), "e".repeat(63), "f".repeat(63)].join("."), "g".repeat(61)].join(".");
        assert_eq!(name.len(), 253);
        let labels = json!({format!("{name}/{label}"): label});
        Self { namespace, name, labels }
    }

    fn write_pod(&self, node: &PolicedNode, addresses: &[IpAddr]) {
        let Self { namespace, name, labels } = self;
        let ips: Vec<_> = addresses.iter().map(|it| json!({"ip": it})).collect();
        node.write(
            "long-pod",
            &json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "labels": labels},
            "spec": {"containers": [{"name": "c", "image": "i"}]},
            "status": {"phase": "Running", "podIPs": ips}}),
        );
    }

    fn write_policy(&self, node: &PolicedNode, ingress: &Value) {
        let Self { namespace, name, labels } = self;
        node.write(
            "long-policy",
            &json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"podSelector": {"matchLabels": labels}, "ingress": ingress}}),
        );
    }
}

/// The client, by every port.
fn from_client() -> Value {
    json!([{"from": [{"namespaceSelector": {}, "podSelector": {
        "matchLabels": {"app": "client"}}}], "ports": [{"port": 1, "endPort": 65535},
        {"port": 1, "endPort": 65535, "protocol": "UDP"}]}])
}

#[test]
fn names_of_the_greatest_length_are_enforced() {
    let node = PolicedNode::new(&["client", "server"]);
    let longest = Longest::new();
    // The addresses are the server's, under other names: what is told last has them.
    node.remove("pod-server");
    longest.write_pod(&node, node.addresses("server"));
    longest.write_policy(&node, &json!([]));
    node.wait("isolation", |it| it.rules().contains("PODWIRE-TO-"));
    let address = node.addresses("server")[0].to_string();
    must_not_reach(node.space("client"), node.space("server"), &address);
    longest.write_policy(&node, &from_client());
    must_reach(node.space("client"), node.space("server"), &address);
    node.clean_up();
}

#[test]
fn a_pod_with_names_of_the_greatest_length_is_told_of_when_it_starts() {
    let node = PolicedNode::new(&["client"]);
    let longest = Longest::new();
    longest.write_policy(&node, &json!([]));
    // As containerd makes them.
    let id = "c".repeat(64);
    let pod = node.node.pod("long");
    pod.sh("ip link set lo up");
    let of_pod = [&*longest.namespace, &longest.name];
    let wired = node.conf();
    let result = node.call_for(of_pod, &id, "ADD", &pod, &wired).ok();
    let addresses = addresses(&result);
    longest.write_pod(&node, &addresses);
    let policy = json!({"cniVersion": "1.0.0", "name": "net", "type": "podwire-policy",
        "timeout": 20_000, "prevResult": result});
    let reply = node.call_for(of_pod, &id, "ADD", &pod, &policy);
    assert_eq!((reply.ok(), reply.stderr.as_str()), (result, ""));
    node.wait("isolation", |it| it.isolated() == 1);
    for address in &addresses {
        must_not_reach(node.space("client"), &pod, &address.to_string());
    }
    longest.write_policy(&node, &from_client());
    for address in &addresses {
        must_reach(node.space("client"), &pod, &address.to_string());
    }
    for conf in [&policy, &wired] {
        let reply = node.call_for(of_pod, &id, "DEL", &pod, conf);
        assert!(reply.succeeded(), "{reply}");
    }
    node.clean_up();
}

#[test]
fn tables_and_sets_that_others_wipe_come_back_and_theirs_stay() {
    let node = PolicedNode::new(&["client", "server"]);
    node.write(
        "deny",
        &json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "deny"}, "spec": {"podSelector": {"matchLabels": {"app": "server"}}}}),
    );
    node.wait("isolation", |it| it.rules().contains("PODWIRE-TO-"));
    let before = node.state();
    let (add_set, destroy_set, open) = if has_iptables() {
        let add = "ipset create foreign hash:ip; ipset add foreign 198.51.100.2";
        (add, "ipset destroy foreign", "; iptables -t filter -P FORWARD ACCEPT")
    } else {
        (":", ":", "")
    };
    node.node.sh(&format!("{add_set}; nft add table inet foreign"));
    let with_foreign = node.state();
    // As firewalld does when it starts: all goes, and its own comes.
    let anew = format!("nft flush ruleset; nft add table inet foreign{open}");
    let by_iptables = [
        "iptables -t mangle -F; ip6tables -t mangle -F",
        "iptables -t mangle -F; iptables -t mangle -X",
        "iptables -t raw -F; ip6tables -t raw -D PREROUTING 1",
        "nft delete table ip mangle; nft delete table ip6 mangle",
        "nft delete table ip raw; nft delete table ip6 mangle",
        &anew,
        // Of sets, nobody tells.
        "ipset flush podwire-4-programmed",
        "ipset add podwire-6-bound 2001:db8::9",
    ];
    let by_nft = [
        "nft flush table inet podwire",
        "nft flush chain inet podwire forward-to",
        "nft add rule inet podwire forward-from accept",
        "nft insert rule inet podwire forward-to ip saddr 192.0.2.1 accept",
        "nft delete table inet podwire",
        &anew,
        "nft flush map inet podwire to-4",
        "nft add element inet podwire bound-6 '{ 2001:db8::9 }'",
    ];
    for what in if by_nftables() { by_nft } else { by_iptables } {
        let repairs = node.metric("policyd_drift_repairs_total");
        node.node.sh(what);
        let started = Instant::now();
        node.wait(what, |it| it.state() == with_foreign);
        println!("{what}: repaired after {:?}", started.elapsed());
        node.wait("the count", |it| it.metric("policyd_drift_repairs_total") > repairs);
        assert!(node.node.sh("nft list tables").contains("inet foreign"));
        must_not_reach(
            node.space("client"),
            node.space("server"),
            &node.addresses("server")[0].to_string(),
        );
    }
    node.node.sh(&format!("{destroy_set}; nft delete table inet foreign"));
    assert_eq!(before, node.state());
    node.clean_up();
}

/// As a node's own service does, or whoever loads a file of rules: policyd goes on with what nft has made of it, whether
/// it was there meanwhile or not.
#[test]
fn tables_that_nft_has_restored_are_as_good_as_its_own() {
    let mut node = PolicedNode::told(&["client", "server"], BY_NFTABLES);
    let policy = |name: &str, from: &Value| {
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name},
            "spec": {"podSelector": {"matchLabels": {"app": "server"}}, "ingress": [from]}})
    };
    let ports =
        json!([{"port": 1000, "endPort": 2000}, {"port": 53, "protocol": "UDP"}, {"port": 443}]);
    let blocks = json!([{"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.128/25"]}},
        {"ipBlock": {"cidr": "2001:db8::/32"}}]);
    node.write("first", &policy("first", &json!({"from": blocks, "ports": ports})));
    node.wait("isolation", |it| it.isolated() == 1);
    let file = node.node.home().join("ruleset");
    let restore = format!("nft list ruleset > {0}; nft flush ruleset; nft -f {0}", file.display());
    let with_first = node.state();
    for runs in [false, true] {
        if !runs {
            node.kill();
        }
        node.node.sh(&restore);
        if !runs {
            assert_eq!(node.state(), with_first);
            node.start();
        }
        node.wait("the same", |it| it.state() == with_first);
        // Sets of every kind come and go.
        let from = json!([{"podSelector": {"matchLabels": {"app": "client"}}},
            {"ipBlock": {"cidr": "198.51.100.0/24", "except": ["198.51.100.7/32"]}}]);
        let ports = json!([{"port": 8000, "endPort": 9000}, {"port": 4243}]);
        node.write("second", &policy("second", &json!({"from": from, "ports": ports})));
        node.wait("the second", |it| it.rules().contains("8000-9000"));
        for address in node.addresses("server") {
            must_not_reach(node.space("client"), node.space("server"), &address.to_string());
        }
        node.remove("second");
        node.wait("the first alone", |it| it.state() == with_first);
    }
    node.clean_up();
}

/// Nobody tells of changes to the tables of before nf_tables.
#[test]
fn old_tables_that_others_wipe_come_back() {
    let mut node = PolicedNode::told(&["client", "server"], BY_IPTABLES);
    node.wipe();
    for program in ["iptables-legacy", "ip6tables-legacy"] {
        node.node.sh(&format!("{program} -t mangle -N KUBE-IPTABLES-HINT"));
    }
    node.write(
        "deny",
        &json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "deny"}, "spec": {"podSelector": {"matchLabels": {"app": "server"}}}}),
    );
    node.start();
    let held = |node: &PolicedNode| {
        let of_family = |program: &str| {
            let saved = node.node.sh(&format!("{program} -t raw; {program} -t mangle"));
            let ours = saved.lines().filter(|it| it.starts_with("-A") && it.contains("PODWIRE"));
            ours.map(|rule| format!("{program} {rule}")).collect::<Vec<_>>()
        };
        let mut rules =
            [of_family("iptables-legacy-save"), of_family("ip6tables-legacy-save")].concat();
        // By chain in the order of rules, as the chains come in the order in which they were made.
        rules.sort_by_key(|rule| rule.split(' ').take(3).collect::<Vec<_>>().join(" "));
        rules
    };
    node.wait("isolation", |it| held(it).iter().any(|rule| rule.contains("PODWIRE-TO-")));
    let before = held(&node);
    for (repairs, what) in
        [(1, "iptables-legacy -t mangle -F"), (2, "ip6tables-legacy -t raw -D PREROUTING 1")]
    {
        node.node.sh(what);
        node.wait(what, |it| it.metric("policyd_drift_repairs_total") == repairs);
        node.wait(what, |it| held(it) == before);
    }
    let address = node.addresses("server")[0].to_string();
    must_not_reach(node.space("client"), node.space("server"), &address);
    node.wipe();
    assert!(held(&node).is_empty(), "{:?}", held(&node));
}
