//! Whatever was told in whatever order, and whatever the kernel held before: the same objects end
//! in the same rules and sets.

use lab::{by_nftables, has_iptables};
use policyd::iptables::Settings;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use crate::cluster::{gated, nine};
use crate::node::{BareNode, Happening, attachment, dataplane};
use crate::objects::{deny_all, namespace, pod, policy, with_addresses};

/// Of each object, what happens to it in this order; some are gone at the end.
fn histories() -> Vec<Vec<Happening>> {
    use Happening::{Attached, Gone, There};
    let mut histories: Vec<_> = ["x", "y", "z"].map(|name| vec![There(namespace(name))]).into();
    let mut number = 0;
    for namespace in ["x", "y", "z"] {
        for name in ["a", "b", "c"] {
            let before = pod(&format!("{namespace}/{name}"));
            let pod = with_addresses(before.clone(), &nine(number));
            let bridge = (number % 2 == 0).then_some("cni0");
            histories.push(vec![Attached(attachment(&pod, &nine(number), bridge))]);
            histories.push(vec![There(before), There(pod)]);
            number += 1;
        }
    }
    let [first, second, third] = policies();
    let former = with_addresses(pod("z/former"), &["10.1.0.99".parse().unwrap()]);
    histories.extend([
        vec![There(deny_all("x")), There(first)],
        vec![There(second)],
        vec![There(third.clone()), Gone(third)],
        vec![There(former.clone()), Gone(former)],
        vec![There(deny_all("z"))],
        // Pods of which the addresses of a family go, and come.
        vec![There(both("v/a")), There(one("v/a"))],
        vec![There(one("w/a")), There(both("w/a"))],
        vec![There(deny_all("v"))],
        vec![There(deny_all("w"))],
    ]);
    histories
}

fn both(name: &str) -> Value {
    let last = if name.starts_with('v') { 200 } else { 201 };
    let addresses = [format!("10.1.0.{last}"), format!("fd00:1::{last}")];
    with_addresses(pod(name), &addresses.map(|it| it.parse().unwrap()))
}

fn one(name: &str) -> Value {
    let mut pod = both(name);
    pod["status"]["podIPs"].as_array_mut().unwrap().truncate(1);
    pod
}

fn policies() -> [Value; 3] {
    let b = json!({"podSelector": {"matchLabels": {"pod": "b"}}});
    let y = json!({"namespaceSelector": {"matchLabels": {"ns": "y"}}});
    let block = json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}});
    let ports = json!([{"port": 80, "endPort": 90}, {"port": "http"}, {"protocol": "SCTP"}]);
    let spec = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [b, block], "ports": ports}], "egress": [{"to": [y, block]}]});
    let mut first = policy("x/deny-all", spec);
    first["metadata"]["uid"] = deny_all("x")["metadata"]["uid"].clone();
    [
        first,
        policy("y/p", json!({"podSelector": b["podSelector"], "ingress": [{"from": [b, y]}]})),
        policy("z/gone", json!({"podSelector": {}, "ingress": [{"from": [y], "ports": ports}]})),
    ]
}

fn settings() -> Settings {
    Settings { rejects: true, log_group: Some(7), ..gated() }
}

/// The state that it shall end in: from all objects at once, on a node that held nothing.
fn wanted() -> String {
    let mut node = BareNode::new(&settings());
    histories().iter().flatten().for_each(|it| node.happens(it));
    node.adopt();
    node.saved()
}

/// All that happens in the order of these numbers, but that of one object in its own.
fn arranged(numbers: &[u32]) -> Vec<Happening> {
    let mut numbers = numbers.iter().cycle();
    let mut all = Vec::new();
    for history in histories() {
        let mut own: Vec<_> = numbers.by_ref().take(history.len()).collect();
        own.sort();
        all.extend(own.into_iter().zip(history));
    }
    all.sort_by_key(|(number, _)| **number);
    all.into_iter().map(|(_, it)| it).collect()
}

fn reaches(wanted: &str, happenings: &[Happening], applied: impl Fn(usize) -> bool) {
    let mut node = BareNode::new(&settings());
    node.adopt();
    for (index, happening) in happenings.iter().enumerate() {
        node.happens(happening);
        if applied(index) {
            node.apply();
        }
    }
    node.apply();
    pretty(&node.saved(), wanted);
    // What is known of the kernel is so: there is nothing to be mended.
    node.adopt();
    pretty(&node.saved(), wanted);
    node.dataplane = dataplane(&settings());
    node.adopt();
    pretty(&node.saved(), wanted);
}

#[track_caller]
fn pretty(held: &str, wanted: &str) {
    let missing = wanted.lines().filter(|line| !held.lines().any(|it| it == *line));
    let extra = held.lines().filter(|line| !wanted.lines().any(|it| it == *line));
    let difference: Vec<_> =
        missing.map(|it| format!("- {it}")).chain(extra.map(|it| format!("+ {it}"))).collect();
    assert!(held == wanted, "not the same, or in another order:\n{}", difference.join("\n"));
}

#[test]
fn the_order_does_not_matter() {
    let wanted = wanted();
    let numbers = vec(any::<u32>(), 40);
    let mut runner =
        TestRunner::new(Config { cases: 8, failure_persistence: None, ..Config::default() });
    runner
        .run(&(numbers, vec(any::<bool>(), 40)), |(numbers, applied)| {
            reaches(&wanted, &arranged(&numbers), |index| applied[index % applied.len()]);
            Ok(())
        })
        .unwrap();
}

#[test]
fn nor_does_the_opposite_order_nor_hearing_twice() {
    let wanted = wanted();
    let numbers: Vec<u32> = (0..40).rev().collect();
    reaches(&wanted, &arranged(&numbers), |_| true);
    let twice: Vec<_> = arranged(&numbers).into_iter().flat_map(|it| [it.clone(), it]).collect();
    reaches(&wanted, &twice, |index| index % 5 == 0);
}

/// Sets of a family are there as long as a pod of the node has an address of it.
#[test]
fn a_family_that_pods_of_the_node_come_to_have_has_its_sets_until_it_is_left() {
    let y = json!({"namespaceSelector": {"matchLabels": {"ns": "y"}}});
    let policy = policy("v/p", json!({"podSelector": {}, "ingress": [{"from": [y]}]}));
    let mut remote = with_addresses(pod("y/remote"), &nine(3));
    remote["spec"]["nodeName"] = json!("node-2");
    let all = [namespace("v"), namespace("y"), policy, remote];
    let mut node = BareNode::new(&settings());
    node.adopt();
    all.iter().for_each(|it| node.happens(&Happening::There(it.clone())));
    let member = nine(3).iter().find(|it| it.is_ipv6()).unwrap().to_string();
    for (object, has_sets) in [
        (one("v/a"), false),
        (both("v/a"), true),
        (one("v/a"), false),
        (both("w/a"), true),
        (both("v/a"), true),
    ] {
        node.happens(&Happening::There(object));
        node.apply();
        let saved = node.saved();
        assert_eq!(saved.contains(&member), has_sets, "{saved}");
        // Changes reach the sets that there are, and find none missing.
        node.happens(&Happening::There(with_addresses(pod("y/other"), &nine(4))));
        node.apply();
        node.happens(&Happening::Gone(with_addresses(pod("y/other"), &nine(4))));
        node.apply();
        assert_eq!(node.saved(), saved);
        node.dataplane = dataplane(&settings());
        node.adopt();
        assert_eq!(node.saved(), saved, "from nothing");
    }
    node.happens(&Happening::Gone(both("v/a")));
    node.happens(&Happening::Gone(both("w/a")));
    node.apply();
    assert!(!node.saved().contains(&member), "{}", node.saved());
}

/// What each damage does, as a line for the node's shell.
const DAMAGES: [(&str, &str); 17] = [
    (
        "a chain with our prefix",
        "iptables -t mangle -N PODWIRE-GARBAGE; iptables -t mangle -A PODWIRE-GARBAGE -j ACCEPT",
    ),
    (
        "garbage that leads to ours",
        "iptables -t mangle -N PODWIRE-GARBAGE; iptables -t mangle -A PODWIRE-GARBAGE -j PODWIRE-GATE",
    ),
    ("a foreign rule in our chain", "iptables -t mangle -I PODWIRE-FORWARD -j ACCEPT"),
    ("our chain flushed", "ip6tables -t mangle -F PODWIRE-FORWARD-REST"),
    ("one rule deleted", "iptables -t mangle -D PODWIRE-FORWARD 2"),
    (
        "a rule out of its place",
        "iptables -t mangle -D PODWIRE-GATE 1; iptables -t mangle -A PODWIRE-GATE -j RETURN; iptables -t mangle -A PODWIRE-GATE -j DROP",
    ),
    ("a hook missing", "iptables -t mangle -D FORWARD 1; ip6tables -t filter -D FORWARD 1"),
    (
        "a hook not first",
        "iptables -t mangle -I FORWARD -s 198.51.100.9 -j ACCEPT; ip6tables -I FORWARD -s 2001:db8:7::9 -j ACCEPT",
    ),
    (
        "a hook twice",
        "rule=$(iptables-save -t mangle | grep -e '-A FORWARD'); iptables -t mangle $rule",
    ),
    ("tables flushed", "iptables -t mangle -F; iptables -t mangle -X; ip6tables -t filter -F"),
    ("sources open", "iptables -t raw -D PREROUTING 1; ip6tables -t raw -F PODWIRE-LINK"),
    (
        "a chain in another table, as an earlier release had it",
        "iptables -t mangle -N PODWIRE-FORGED; iptables -t mangle -A PODWIRE-FORGED -j DROP",
    ),
    ("sets flushed", "ipset flush podwire-4-programmed; ipset flush podwire-6-bound"),
    (
        "members that do not belong",
        "for set in $(ipset -n list | grep podwire-4); do case $(ipset -t list $set | sed -n 2p) in *ip,port) ipset add $set 10.9.9.9,tcp:9;; *) ipset add $set 10.9.9.9;; esac; done",
    ),
    (
        "sets that nobody uses",
        "ipset create podwire-4-garbage hash:ip; ipset add podwire-4-garbage 10.9.9.9; ipset create podwire-6-x hash:net family inet6",
    ),
    (
        "sets of another kind",
        "iptables -t mangle -F; iptables -t mangle -X; ipset destroy podwire-4-programmed; ipset create podwire-4-programmed hash:net",
    ),
    (
        "all sets missing",
        "for table in raw mangle; do iptables -t $table -F; ip6tables -t $table -F; done; for set in $(ipset -n list | grep podwire-); do ipset destroy $set; done",
    ),
];

/// The same to the tables of nf_tables.
const DAMAGES_OF_TABLES: [(&str, &str); 17] = [
    (
        "a chain of somebody else",
        "nft add chain inet podwire garbage; nft add rule inet podwire garbage accept",
    ),
    (
        "garbage that leads to ours",
        "nft add chain inet podwire garbage; nft add rule inet podwire garbage goto PODWIRE-GATE-4",
    ),
    ("a foreign rule in our chain", "nft insert rule inet podwire forward-from accept"),
    (
        "a foreign rule with a comment like ours",
        "nft insert rule inet podwire forward-from accept comment \\\"podwire:2hhtmgk25hvp\\\"",
    ),
    ("our chain flushed", "nft flush chain inet podwire forward-to"),
    (
        "one rule deleted",
        "handle=$(nft -a list chain inet podwire input | sed -n 's/.*podwire:.*# handle //p' | sed -n 2p)
         nft delete rule inet podwire input handle $handle",
    ),
    (
        "a rule out of its place",
        "rule=$(nft list chain inet podwire prerouting | sed -n 's/^.*iifname \"lo\".*$/&/p')
         handle=$(nft -a list chain inet podwire prerouting | sed -n 's/.*\"lo\".*# handle //p')
         echo \"delete rule inet podwire prerouting handle $handle
         add rule inet podwire prerouting $rule\" | nft -f -",
    ),
    (
        "a chain that is called elsewhere",
        "nft flush chain inet podwire input; nft delete chain inet podwire input
         nft add chain inet podwire input '{ type filter hook input priority 7; }'",
    ),
    (
        "a chain that nobody calls",
        "nft flush chain inet podwire forward-to; nft delete chain inet podwire forward-to
         nft add chain inet podwire forward-to",
    ),
    ("a chain that drops all else", "nft chain inet podwire input '{ policy drop; }'"),
    ("a table that sleeps", "nft add table inet podwire '{ flags dormant; }'"),
    ("no table", "nft delete table inet podwire"),
    (
        "maps and sets flushed",
        "nft flush map inet podwire from-4; nft flush set inet podwire sources-6; nft flush set inet podwire links",
    ),
    (
        "elements that do not belong",
        "for set in $(nft list sets inet | sed -n 's/.*set \\(podwire-4-a[^ ]*\\).*/\\1/p') bound-4; do nft add element inet podwire $set '{ 10.9.9.9 }'; done",
    ),
    (
        "an element that leads elsewhere",
        "nft flush map inet podwire from-4; nft add element inet podwire from-4 '{ 10.1.0.2 : accept }'",
    ),
    ("a set that nobody uses", "nft add set inet podwire garbage '{ type ipv4_addr; }'"),
    (
        "sets of another kind",
        "nft delete table inet podwire; nft add table inet podwire; nft add set inet podwire bound-4 '{ type ipv4_addr; flags interval; }'",
    ),
];

#[test]
fn whatever_the_kernel_holds_is_adopted() {
    let wanted = wanted();
    let mut node = BareNode::new(&settings());
    histories().iter().flatten().for_each(|it| node.happens(it));
    for (what, line) in if by_nftables() { DAMAGES_OF_TABLES } else { DAMAGES } {
        node.adopt();
        node.node.sh(line);
        assert_ne!(node.saved(), wanted, "{what} does nothing");
        let foreign = foreign(&node.saved());
        // As after a start, and as in the middle of a run.
        node.dataplane = dataplane(&settings());
        node.adopt();
        let (ours, others) = split(&node.saved());
        pretty(&ours, &split(&wanted).0);
        assert_eq!(others, foreign, "{what}: others' rules");
        if has_iptables() {
            node.node.sh("iptables -t mangle -D FORWARD -s 198.51.100.9 -j ACCEPT || true
                          ip6tables -D FORWARD -s 2001:db8:7::9 -j ACCEPT || true");
        }
        println!("{what}: mended");
    }
    let with_others = {
        node.node.sh(if has_iptables() {
            "iptables -t mangle -A FORWARD -s 198.51.100.9 -j ACCEPT
             ipset create foreign hash:ip; ipset add foreign 10.9.9.9"
        } else {
            "nft add table inet foreign; nft add set inet foreign addresses '{ type ipv4_addr; }'"
        });
        foreign(&node.saved())
    };
    node.clean_up();
    assert_eq!(node.saved(), with_others);
    node.clean_up();
    assert_eq!(node.saved(), with_others);
}

/// What is ours, and what is not.
fn split(saved: &str) -> (String, String) {
    let (ours, others): (Vec<_>, Vec<_>) =
        saved.lines().partition(|line| line.to_lowercase().contains("podwire"));
    (ours.join("\n"), others.join("\n"))
}

fn foreign(saved: &str) -> String {
    split(saved).1
}

/// Neither packets nor other rules could lead there.
#[test]
fn a_family_that_a_pod_has_no_address_of_has_no_chains_for_it() {
    let mut node = BareNode::new(&settings());
    node.adopt();
    if by_nftables() {
        return of_one_table(node);
    }
    let chains = |node: &BareNode, program: &str| -> usize {
        let saved = node.saved();
        let ours = saved.lines().filter(|line| line.starts_with(&format!("{program} mangle :")));
        ours.filter(|line| line.contains("PODWIRE-TO-") || line.contains("PODWIRE-INGRESS-"))
            .count()
    };
    node.happens(&Happening::There(one("v/a")));
    node.happens(&Happening::There(policy("v/p", json!({"podSelector": {}, "ingress": [{}]}))));
    node.apply();
    let single = node.saved();
    assert_eq!((chains(&node, "iptables-save"), chains(&node, "ip6tables-save")), (2, 0));
    node.happens(&Happening::There(both("v/a")));
    node.apply();
    assert_eq!((chains(&node, "iptables-save"), chains(&node, "ip6tables-save")), (2, 2));
    node.happens(&Happening::There(one("v/a")));
    node.apply();
    pretty(&node.saved(), &single);
    node.adopt();
    pretty(&node.saved(), &single);
}

/// There are chains for both families, with rules of those that there are.
fn of_one_table(mut node: BareNode) {
    node.happens(&Happening::There(one("v/a")));
    node.happens(&Happening::There(policy("v/p", json!({"podSelector": {}, "ingress": [{}]}))));
    node.apply();
    let single = node.saved();
    let is_six = |it: &&str| it.contains("ip6 ") || it.contains("-6: type");
    // Ranges are gated whether a pod has an address of them or not.
    let is_gate = |it: &&str| it.contains("PODWIRE-GATE-6");
    let six = |saved: &str| saved.lines().filter(is_six).filter(|it| !is_gate(it)).count();
    assert_eq!(six(&single), 0, "{single}");
    node.happens(&Happening::There(both("v/a")));
    node.apply();
    assert!(six(&node.saved()) > 20, "{}", node.saved());
    node.happens(&Happening::There(one("v/a")));
    node.apply();
    pretty(&node.saved(), &single);
    node.adopt();
    pretty(&node.saved(), &single);
}
