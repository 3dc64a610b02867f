//! What others break of the tables of nf_tables.

use std::net::IpAddr;

use super::{Case, name};
use crate::node::PolicedNode;

const TABLE: &str = "inet podwire";
const PORTS: &str = "bridge podwire-ports";
const NOTHING: &str = "no chain of policyd's is there";

/// What is broken of what a's and b's packets come to.
pub(super) fn damages(node: &PolicedNode, ends: [&[IpAddr]; 2]) -> Vec<Case> {
    let mut cases = damaged_chains(node);
    cases.extend(damaged_sets(node));
    cases.extend(damaged_dispatch(node, ends));
    cases.extend(damaged_base_chains());
    cases.extend(damaged_tables());
    cases
}

fn case(damage: String, told: &[(&str, &'static str)]) -> Case {
    let told = told.iter().map(|(place, problem)| (format!("nf_tables: {place}"), *problem));
    (damage, told.collect())
}

/// Deletes the first rule of a chain.
fn delete_first(table: &str, chain: &str) -> String {
    let handles = format!("nft -a list chain {table} {chain} | sed -n 's/.*# handle //p'");
    // The chain itself has one, too.
    format!("nft delete rule {table} {chain} handle $({handles} | sed -n 2p)")
}

fn damaged_chains(node: &PolicedNode) -> Vec<Case> {
    let chain = name(node, "PODWIRE-TO-", "default/b");
    let policy = name(node, "PODWIRE-INGRESS-", "default/b-from-a ingress");
    let place = format!("chain {TABLE} {chain} of default/b");
    let of_policy = format!("chain {TABLE} {policy} of default/b-from-a");
    let missing = "7 of its 7 rules are missing, the first: ct state established,related accept";
    vec![
        case(format!("nft flush chain {TABLE} {chain}"), &[(&place, missing)]),
        case(
            format!("nft add rule {TABLE} {chain} accept"),
            &[(&place, "1 rules of others are in it")],
        ),
        // A comment does not make it ours.
        case(
            format!("nft insert rule {TABLE} {policy} accept comment '\"good\"'"),
            &[(&of_policy, "1 rules of others are in it")],
        ),
        case(delete_first(TABLE, &policy), &[(&of_policy, "1 of its 2 rules are missing")]),
    ]
}

fn damaged_sets(node: &PolicedNode) -> Vec<Case> {
    let peers = name(node, "podwire-4-", "default/b-from-a ingress");
    let place = format!("set {TABLE} {peers} that PODWIRE-INGRESS-");
    vec![
        case(
            format!("nft delete element {TABLE} {peers} '{{ 10.1.0.2 }}'"),
            &[(&place, "it lacks 10.1.0.2 (default/a)")],
        ),
        case(
            format!("nft add element {TABLE} {peers} '{{ 192.0.2.7 }}'"),
            &[(&place, "it should not hold 192.0.2.7")],
        ),
    ]
}

/// What leads from an address or an interface of an end to its rules.
fn damaged_dispatch(node: &PolicedNode, [a, b]: [&[IpAddr]; 2]) -> Vec<Case> {
    let (link, [four, six]) = (node.link_to(a[0]), [a[0], b[1]]);
    let delete =
        |set: &str, element: &str| format!("nft delete element {TABLE} {set} '{{ {element} }}'");
    let to = "map inet podwire to-6 that forward-to looks into";
    let from = "map inet podwire from-4 that forward-from looks into";
    let sources = "set inet podwire sources-4 that prerouting looks into";
    let links = "set inet podwire links that prerouting looks into";
    let isolated = "set inet podwire ingress-4 that PODWIRE-MIDDLE looks into";
    let flush_to = "nft flush map inet podwire from-4";
    vec![
        case(delete("to-6", &six.to_string()), &[(to, "it lacks fd00:1::3 : jump PODWIRE-TO-")]),
        case(
            format!("{flush_to}; nft add element {TABLE} from-4 '{{ {four} : accept }}'"),
            &[
                (from, "it lacks 10.1.0.2 : jump PODWIRE-FROM-"),
                (from, "it should not hold 10.1.0.2 : accept (default/a)"),
            ],
        ),
        case(delete("sources-4", &format!("\"{link}\" . {four}")), &[(sources, "it lacks \"veth")]),
        case(
            format!("nft add element {TABLE} sources-4 '{{ \"{link}\" . 10.1.0.77 }}'"),
            &[(sources, "it should not hold \"veth")],
        ),
        case(delete("links", &format!("\"{link}\"")), &[(links, "it lacks \"veth")]),
        case(
            delete("ingress-4", &four.to_string()),
            &[(isolated, "it lacks 10.1.0.2 (default/a)")],
        ),
    ]
}

fn damaged_base_chains() -> Vec<Case> {
    let gone = format!("nft flush chain {TABLE} forward-to; nft delete chain {TABLE} forward-to");
    let elsewhere = format!(
        "{gone}; nft add chain {TABLE} forward-to '{{ type filter hook output priority 7; }}'"
    );
    vec![
        case(
            delete_first(TABLE, "prerouting"),
            &[(
                "chain inet podwire prerouting",
                "1 of its 10 rules are missing, the first: iifname \"lo\" accept",
            )],
        ),
        case(gone, &[("chain inet podwire forward-to", "it is not there")]),
        case(
            elsewhere,
            &[
                (
                    "chain inet podwire forward-to",
                    "it is \"type filter hook output priority 7;\", not \"type filter hook forward priority -149;\"",
                ),
                ("chain inet podwire forward-to", "5 of its 5 rules are missing, the first: "),
            ],
        ),
        case(
            format!("nft chain {TABLE} input '{{ policy drop; }}'"),
            &[(
                "chain inet podwire input",
                "it is \"type filter hook input priority -150; policy drop;\", not \"type ",
            )],
        ),
        case(
            format!(
                "nft add chain {TABLE} extra '{{ type filter hook forward priority 0; policy drop; }}'"
            ),
            &[("chain inet podwire extra", "the kernel calls it, and it should not be there")],
        ),
    ]
}

fn damaged_tables() -> Vec<Case> {
    let place = "table inet podwire";
    vec![
        case(format!("nft delete table {TABLE}"), &[(place, NOTHING)]),
        case(
            format!("nft add table {TABLE} '{{ flags dormant; }}'"),
            &[(place, "it is dormant: none of its rules is in force")],
        ),
    ]
}

/// What nothing of a's and b's comes to.
pub(super) fn damages_elsewhere(node: &PolicedNode, c: &[IpAddr]) -> Vec<Case> {
    let chain = name(node, "PODWIRE-TO-", "default/c");
    let (address, link) = (c[0], node.link_to(c[0]));
    let element = format!("nft delete element {TABLE}");
    let foreign = "nft add table inet others; nft add chain inet others forward '{ type filter hook forward priority -200; policy drop; }'";
    let all = [
        format!("nft flush chain {TABLE} {chain}"),
        format!("{element} from-4 '{{ {address} }}'"),
        format!("{element} sources-4 '{{ \"{link}\" . {address} }}'"),
        format!("{element} links '{{ \"{link}\" }}'"),
        format!("nft add element {TABLE} bound-4 '{{ 10.1.0.77 }}'"),
        // What policyd could not remove at once stays for a while, and is empty.
        format!("nft add chain {TABLE} left '{{ type filter hook forward priority 0; }}'"),
        // Rules of others can take nothing back that ours drop.
        foreign.to_owned(),
    ];
    vec![(all.join("; "), Vec::new()), ("nft delete table inet others".to_owned(), Vec::new())]
}

/// What is broken of what leads to the ports of a's and b's, and of c's, which does not matter.
pub(super) fn damages_of_ports(node: &PolicedNode, of_b: &str, of_c: &str) -> Vec<Case> {
    let chain = name(node, "PODWIRE-TO-", "default/b");
    let groups = "map bridge podwire-ports groups that forward looks into";
    let ports = "set bridge podwire-ports ports that ";
    let delete =
        |set: &str, port: &str| format!("nft delete element {PORTS} {set} '{{ \"{port}\" }}'");
    vec![
        case(
            format!("nft flush chain {PORTS} {chain}"),
            &[(
                &format!("chain {PORTS} {chain} of default/b"),
                "3 of its 3 rules are missing, the first: jump PODWIRE-INGRESS-",
            )],
        ),
        case(delete("groups", of_b), &[(groups, "it lacks \"veth")]),
        case(delete("ports", of_b), &[(ports, "it lacks \"veth")]),
        case(
            delete_first(PORTS, "forward"),
            &[("chain bridge podwire-ports forward", "1 of its ")],
        ),
        case(format!("nft delete table {PORTS}"), &[("table bridge podwire-ports", NOTHING)]),
        case(format!("{}; {}", delete("groups", of_c), delete("ports", of_c)), &[]),
    ]
}
