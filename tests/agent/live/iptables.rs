//! What others break of the rules of iptables.

use std::net::IpAddr;

use super::{Case, name};
use crate::node::PolicedNode;

/// What is broken of what a's and b's packets come to.
pub(super) fn damages(node: &PolicedNode, ends: [&[IpAddr]; 2]) -> Vec<Case> {
    let mut cases = damaged_chains(node);
    cases.extend(damaged_sets(node, ends));
    cases.extend(damaged_hooks());
    cases
}

fn damaged_chains(node: &PolicedNode) -> Vec<Case> {
    let chain = name(node, "PODWIRE-TO-", "default/b");
    let place = format!("iptables-save: chain {chain} of default/b");
    vec![
        (
            format!("iptables -t mangle -F {chain}"),
            vec![(place.clone(), "8 of its 8 rules are missing, the first: ")],
        ),
        (
            format!("iptables -t mangle -A {chain} -j ACCEPT"),
            vec![(place, "1 rules of others are in it")],
        ),
        (
            "ip6tables -t raw -D PODWIRE-LINK 1".to_owned(),
            vec![("ip6tables-save: chain PODWIRE-LINK of default/".to_owned(), "1 of its ")],
        ),
    ]
}

fn damaged_sets(node: &PolicedNode, [a, b]: [&[IpAddr]; 2]) -> Vec<Case> {
    let peers = name(node, "podwire-4-", "default/b-from-a ingress");
    let place = format!("ipset: set {peers} that PODWIRE-INGRESS-");
    let of_gate = "ipset: set podwire-6-programmed that PODWIRE-".to_owned();
    vec![
        (
            format!("ipset del {peers} {}", a[0]),
            vec![(place.clone(), "it lacks 10.1.0.2 (default/a)")],
        ),
        (format!("ipset add {peers} 192.0.2.7"), vec![(place, "it should not hold 192.0.2.7")]),
        (
            format!("ipset del podwire-6-programmed {}", b[1]),
            vec![(of_gate, "it lacks fd00:1::3 (default/b)")],
        ),
    ]
}

fn damaged_hooks() -> Vec<Case> {
    let input = || "ip6tables-save: mangle INPUT".to_owned();
    vec![
        (
            "iptables -t mangle -I FORWARD -s 192.0.2.1 -j ACCEPT".to_owned(),
            vec![(
                "iptables-save: mangle FORWARD".to_owned(),
                "policyd's rule is not the first; 1 of others ahead of it, the first: -A FORWARD -s 192.0.2.1/32 -j ACCEPT",
            )],
        ),
        (
            "iptables -t raw -D PREROUTING 1".to_owned(),
            vec![(
                "iptables-save: raw PREROUTING".to_owned(),
                "policyd's rule is missing (-j PODWIRE-PREROUTING)",
            )],
        ),
        (
            "ip6tables -t mangle -D INPUT 1".to_owned(),
            vec![(input(), "policyd's rule is missing (-j PODWIRE-INPUT)")],
        ),
        (
            "for it in raw mangle; do iptables -t $it -F; iptables -t $it -X; done; ip6tables -t mangle -D INPUT 1"
                .to_owned(),
            vec![
                ("iptables-save".to_owned(), "no chain of policyd's is there"),
                (input(), "policyd's rule is missing"),
            ],
        ),
    ]
}

/// What nothing of a's and b's comes to.
pub(super) fn damage_elsewhere(node: &PolicedNode) -> Case {
    let chain = name(node, "PODWIRE-TO-", "default/c");
    let add = "ipset add podwire-4-programmed 10.1.0.77";
    (format!("iptables -t mangle -F {chain}; {add}"), Vec::new())
}

/// What is broken of what leads to the ports of a's and b's.
pub(super) fn damages_of_ports() -> Vec<Case> {
    let place = "iptables-save: chain PODWIRE-OUT of default/".to_owned();
    vec![("iptables -t mangle -D PODWIRE-OUT 1".to_owned(), vec![(place, "1 of its ")])]
}
