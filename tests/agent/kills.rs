//! policyd is killed again and again while it applies large changes, under traffic.

use std::thread::sleep;
use std::time::Instant;

use lab::iptables_rules;
use serde_json::{Value, json};

use crate::node::{BY_IPTABLES, PolicedNode};
use crate::stream::{Traffic, retransmissions};

const KILLS: u32 = 100;

fn policy(name: &str, ingress: &Value) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name},
        "spec": {"podSelector": {"matchLabels": {"app": "server"}}, "ingress": ingress}})
}

/// Half of the policies are other ones each time, and none allows anything that is sent.
fn rewrite(node: &PolicedNode, turn: u32) {
    for number in 0..60 {
        let variant = if number % 2 == 0 { 0 } else { turn % 2 };
        let block = format!("198.51.{number}.{}/32", 1 + variant);
        let ports = json!([{"port": 7000 + variant}]);
        let rule = json!([{"from": [{"ipBlock": {"cidr": block}}], "ports": ports}]);
        node.write(&format!("many-{number}"), &policy(&format!("many-{number}"), &rule));
    }
}

fn start_traffic(node: &PolicedNode) -> Traffic {
    let [client, other, server] = ["client", "other", "server"].map(|it| node.space(it));
    Traffic::start(client, other, server, node.addresses("server"), node.addresses("other"))
}

/// Allowed to the client alone, and in force.
fn isolate(node: &PolicedNode) {
    let from = json!([{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}]}]);
    node.write("client", &policy("client", &from));
    rewrite(node, 0);
    node.wait("the policies", |it| it.rules().contains("198.51.59.1"));
}

/// Nothing was lost, of what the kernel itself would have hidden by sending it again either.
fn end(traffic: Traffic, node: &PolicedNode) -> (u64, u64) {
    let counts = traffic.end();
    for name in ["client", "server"] {
        assert_eq!(retransmissions(node.space(name)), 0, "{name} had to send again");
    }
    counts
}

#[test]
fn killed_while_it_applies_it_neither_loses_nor_lets_through() {
    let mut node = PolicedNode::new(&["client", "other", "server"]);
    isolate(&node);
    node.kill();
    rewrite(&node, 1);
    let started = Instant::now();
    node.start();
    let whole = started.elapsed();
    node.kill();
    let traffic = start_traffic(&node);
    for turn in 0..KILLS {
        rewrite(&node, turn);
        let mut daemon = node.begin();
        // Every hundredth of the time that a start takes, out of order.
        sleep(whole * (turn * 37 % KILLS) / KILLS);
        daemon.kill();
    }
    rewrite(&node, 1);
    node.start();
    let (answers, denied) = end(traffic, &node);
    println!(
        "{KILLS} kills within {whole:?}: {answers} answers, none lost; {denied} packets denied"
    );
    let state = node.state();
    node.wipe();
    node.start();
    assert_eq!(state, node.state(), "not as from nothing");
    node.clean_up();
}

#[test]
fn rolled_while_traffic_flows_it_neither_loses_nor_lets_through() {
    let mut node = PolicedNode::new(&["client", "other", "server"]);
    isolate(&node);
    let state = node.state();
    let traffic = start_traffic(&node);
    for _ in 0..10 {
        node.kill();
        node.start();
        node.roll(&[]);
    }
    let (answers, denied) = end(traffic, &node);
    println!("rolled twenty times: {answers} answers, none lost; {denied} packets denied");
    assert_eq!(state, node.state());
    node.clean_up();
}

/// What another version does to the rules: all of them are replaced.
#[test]
fn rolled_to_one_whose_rules_are_others_it_neither_loses_nor_lets_through() {
    let mut node = PolicedNode::new(&["client", "other", "server"]);
    isolate(&node);
    let state = node.state();
    let traffic = start_traffic(&node);
    for _ in 0..5 {
        node.roll(&["--mark-allowed", "0x10000000", "--mark-cut", "0x20000000"]);
        assert_ne!(state, node.state());
        node.roll(&["--log-denied", "--deny", "reject"]);
        assert_ne!(state, node.state());
        node.roll(&[]);
        assert_eq!(state, node.state());
    }
    let (answers, denied) = end(traffic, &node);
    println!("rolled fifteen times: {answers} answers, none lost; {denied} packets denied");
    node.clean_up();
}

/// Both are in force for a moment, and then the new one alone.
#[test]
fn rolled_from_one_backend_to_the_other_it_neither_loses_nor_lets_through() {
    const BY_NF_TABLES: &[&str] = &["--backend", "nftables"];
    const BY_ITSELF: &[&str] = &["--backend", "auto"];
    let mut node = PolicedNode::told(&["client", "other", "server"], BY_IPTABLES);
    isolate(&node);
    let held = |node: &PolicedNode| {
        let tables = node.node.sh("nft list tables");
        let of_nf_tables = tables.lines().any(|it| it == "table inet podwire");
        (!iptables_rules(&node.node).is_empty(), of_nf_tables)
    };
    let traffic = start_traffic(&node);
    for _ in 0..3 {
        // What there is decides.
        for (options, expected) in [
            (BY_ITSELF, (true, false)),
            (BY_NF_TABLES, (false, true)),
            (BY_ITSELF, (false, true)),
            (BY_IPTABLES, (true, false)),
        ] {
            node.roll(options);
            assert_eq!(held(&node), expected, "{options:?}");
        }
    }
    let (answers, denied) = end(traffic, &node);
    println!("rolled twelve times: {answers} answers, none lost; {denied} packets denied");
    node.roll(BY_ITSELF);
    node.wipe();
    // Nothing of policyd's is there.
    node.start();
    assert_eq!(held(&node), (false, true), "a new node");
    node.clean_up();
}
