//! Others change tables of nf_tables of their own all the time, as kube-proxy does of a large cluster.

use std::collections::{BTreeMap, BTreeSet};

use lab::Churn;
use netlink::nftables::{Change, Client, HeldRule};
use ruleset::nft::{Encoded, Family, Table};
use serde_json::{Value, json};

use crate::node::{BY_NFTABLES, PolicedNode};

const OURS: Table<'_> = Table { family: Family::Inet, name: "podwire" };

fn pod(number: usize) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("many-{number}"), "labels": {"app": "many"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
        "status": {"phase": "Running", "podIPs": [{"ip": format!("10.1.0.{}", number + 100)}]}})
}

/// Isolates those that have this label.
fn deny(name: &str, app: &str) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name},
        "spec": {"podSelector": {"matchLabels": {"app": app}}, "policyTypes": ["Ingress", "Egress"]}})
}

/// What tells the rules of each chain of ours, and what leads to those of pods.
fn held(node: &PolicedNode) -> (BTreeMap<String, Vec<Option<String>>>, BTreeSet<Encoded>) {
    node.node.enter(|| {
        let mut client = Client::open().unwrap().unwrap();
        let rules = client.all_rules(OURS).unwrap().into_iter();
        let comments = |it: Vec<HeldRule>| it.into_iter().map(|it| it.comment).collect();
        let rules = rules.map(|(chain, rules)| (chain, comments(rules))).collect();
        (rules, client.elements(OURS, "to-4").unwrap().into_iter().collect())
    })
}

#[test]
fn others_that_change_tables_of_their_own_all_the_time_hold_up_nothing() {
    let mut node = PolicedNode::told(&["a", "b"], BY_NFTABLES);
    for number in 0..150 {
        node.write(&format!("pod-many-{number}"), &pod(number));
    }
    node.write("many", &deny("many", "many"));
    node.wait("isolation of many", |it| it.isolated() == 150);
    let churn = Churn::start(&node.node);
    node.kill();
    node.start();
    let chains = node.metric("policyd_chains");
    node.write("b", &deny("b", "b"));
    node.wait("isolation of one more", |it| it.metric("policyd_chains") > chains);
    // The program nft would be interrupted for ever.
    drop(churn);
    assert_eq!(node.isolated(), 151);
    let before = held(&node);
    for damage in [Change::Empty("forward-to"), Change::EmptySet("to-4"), Change::DeleteAll] {
        let _churn = Churn::start(&node.node);
        let damaged = || Client::open().unwrap().unwrap().change(OURS, &[damage]).unwrap();
        node.node.enter(damaged);
        node.wait("a repair", |it| held(it) == before);
    }
    assert!(node.metric("policyd_drift_repairs_total") > 0);
    assert_eq!(node.metric("policyd_look_failures_total"), 0);
    node.clean_up();
}

/// What is part of a rule, a chain or a set in braces, can neither be changed nor go by itself.
#[test]
fn rules_of_others_that_have_parts_keep_nothing_from_going() {
    let mut node = PolicedNode::told(&["a", "b"], BY_NFTABLES);
    node.write("b", &deny("b", "b"));
    node.wait("isolation", |it| it.isolated() == 1);
    let before = held(&node);
    for damage in [
        "add chain inet podwire mine; add rule inet podwire mine ip saddr 192.0.2.1 jump { accept; }",
        "add chain inet podwire mine; add rule inet podwire mine ip saddr { 192.0.2.1, 192.0.2.2 } accept",
        "add rule inet podwire forward-to ip saddr 192.0.2.1 goto { ip daddr { 192.0.2.2, 192.0.2.3 } accept; }",
    ] {
        node.node.sh(&format!("nft '{damage}'"));
        node.wait(damage, |it| held(it) == before);
    }
    // Nobody looks at what was done while policyd is away.
    node.kill();
    node.node.sh("nft 'add chain inet podwire mine; add rule inet podwire mine ip saddr 192.0.2.1 jump { accept; }'");
    node.node.sh("nft 'add table netdev podwire; add chain netdev podwire q; add rule netdev podwire q ip saddr 192.0.2.1 jump { accept; }'");
    node.remove("b");
    node.start();
    node.wait("the table of closed interfaces to go", |it| {
        !it.node.sh("nft list tables").contains("netdev podwire\n")
    });
    assert_eq!(node.isolated(), 0);
    for (metric, name) in
        [("policyd_apply_failures_total", "writes"), ("policyd_look_failures_total", "looks")]
    {
        assert_eq!(node.metric(metric), 0, "{name}");
    }
    node.clean_up();
}
