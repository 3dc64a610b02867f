//! Reference A.2 to A.5: every row a world, played on both wirings.

use policyd::dataplane::Kind;
use serde_json::{Value, json};

use crate::cluster::{Cluster, Wiring, gated};
use crate::objects::{deny_all, policy};
use crate::table::{Row, USUAL, play, play_on};

/// As often a world is looked at that should have been another.
const ROUNDS: usize = 3;

mod blocks;
mod defaults;
mod lifecycle;
mod peers;
mod pitfalls;
mod ports;

/// A policy of `x` for all its pods.
fn in_x(spec: Value) -> [Value; 1] {
    let mut spec = spec;
    spec["podSelector"] = json!({});
    [policy("x/p", spec)]
}

/// Only these rules for what comes to `x`.
fn to_x(ingress: Value) -> [Value; 1] {
    in_x(json!({"policyTypes": ["Ingress"], "ingress": ingress}))
}

/// Only these rules for what leaves `x`.
fn from_x(egress: Value) -> [Value; 1] {
    in_x(json!({"policyTypes": ["Egress"], "egress": egress}))
}

macro_rules! played {
    ($($rows:ident),*) => {
        $(fn $rows(wiring: Wiring) { play(wiring, $rows::rows()); })*
        on_both_wirings!($($rows,)* legacy);
    };
}

played!(blocks, defaults, lifecycle, peers, pitfalls, ports);

/// On a node that uses the tables of before nf_tables.
fn legacy(wiring: Wiring) {
    let mut cluster = Cluster::by(wiring, gated(), Kind::Iptables, "-legacy");
    cluster.populate();
    let tables = cluster.node.sh("cat /proc/thread-self/net/ip_tables_names 2>/dev/null || :");
    assert!(tables.contains("mangle"), "the tables that are used: {tables}");
    play_on(cluster, pitfalls::rows());
}

/// The table itself is able to fail, in both directions and for every protocol.
#[test]
fn what_the_kernel_does_otherwise_is_seen() {
    let mut cluster = Cluster::nine(Wiring::Ptp, gated());
    cluster.tell(&deny_all("x"));
    let mut unseen: Vec<_> = [
        ("Tcp", ["x/a", "y/b"]),
        ("Udp", ["y/b", "x/a"]),
        ("Sctp", ["x/a", "x/b"]),
        ("Echo", ["x/c", "z/a"]),
    ]
    .into_iter()
    .flat_map(|(protocol, [one, two])| {
        [true, false].map(|is_ipv4| {
            let to = cluster.pods[two].address(is_ipv4);
            let to = if is_ipv4 { format!("> {to}:") } else { format!("> [{to}]:") };
            (format!("let through: {one} "), to, protocol)
        })
    })
    .collect();
    // What a busy machine has lost was not let through, either.
    for _ in 0..ROUNDS {
        let leaks = if unseen.is_empty() { Vec::new() } else { cluster.compare(USUAL) };
        unseen.retain(|(from, to, protocol)| {
            let mut leaks = leaks.iter();
            !leaks.any(|it| it.starts_with(from) && it.contains(to) && it.ends_with(protocol))
        });
    }
    assert!(unseen.is_empty(), "not seen: {unseen:?}");
    cluster.enforce();
    cluster.forget(&deny_all("x"));
    let lost = cluster.compare(&[(crate::prober::Protocol::Udp, 53)]);
    assert!(lost.iter().any(|it| it.starts_with("not let through: x/a ")));
}

/// As [`Row`] has it.
fn row(name: &'static str, objects: impl Into<Vec<Value>>) -> Row {
    crate::table::row(name, objects)
}
