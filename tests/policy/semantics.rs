//! Reference A.2 to A.5: every row a world, played on both wirings.

use policyd::dataplane::Kind;
use serde_json::{Value, json};

use crate::cluster::{Cluster, Wiring, gated};
use crate::objects::{deny_all, policy};
use crate::table::{Row, USUAL, play, play_on};

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
    let leaks = cluster.compare(USUAL);
    for (protocol, [one, two]) in [
        ("Tcp", ["x/a", "y/b"]),
        ("Udp", ["y/b", "x/a"]),
        ("Sctp", ["x/a", "x/b"]),
        ("Echo", ["x/c", "z/a"]),
    ] {
        let is_seen = |it: &String| {
            it.starts_with(&format!("let through: {one} ")) && it.ends_with(protocol) && {
                cluster.pods[two].attachment.addresses.iter().any(|two| {
                    it.contains(&format!("> {two}:")) || it.contains(&format!("> [{two}]:"))
                })
            }
        };
        assert_eq!(leaks.iter().filter(|it| is_seen(it)).count() % 2, 0);
        assert!(leaks.iter().any(is_seen), "{protocol} is not seen");
    }
    cluster.enforce();
    cluster.forget(&deny_all("x"));
    let lost = cluster.compare(&[(crate::prober::Protocol::Udp, 53)]);
    assert!(lost.iter().any(|it| it.starts_with("not let through: x/a ")));
}

/// As [`Row`] has it.
fn row(name: &'static str, objects: impl Into<Vec<Value>>) -> Row {
    crate::table::row(name, objects)
}
