//! `policyd explain --live`: what the objects say, and whether the kernel holds just that.

mod iptables;
mod nftables;

use std::net::IpAddr;
use std::process::Command;

use lab::{Pod, addresses, by_nftables};
use serde_json::{Value, json};

use crate::node::{PolicedNode, command};

/// Wires a pod as a runtime does, whose manifest has its addresses, and tells policyd of it.
pub(crate) fn attach(node: &PolicedNode, name: &str) -> (Pod, Vec<IpAddr>) {
    let pod = node.node.pod(name);
    pod.sh("ip link set lo up");
    let add = |conf: &Value| node.call(name, "ADD", &pod, conf).ok();
    let result = add(&node.conf());
    let addresses = addresses(&result);
    let ips: Vec<_> = addresses.iter().map(|it| json!({"ip": it})).collect();
    node.write(
        &format!("pod-{name}"),
        &json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": name}},
            "spec": {"containers": [{"name": "c", "image": "i"}]},
            "status": {"phase": "Running", "podIPs": ips}}),
    );
    add(
        &json!({"cniVersion": "1.0.0", "name": "net", "type": "podwire-policy", "prevResult": result}),
    );
    (pod, addresses)
}

/// All are isolated both ways, but that a may talk to b.
fn write_policies(node: &PolicedNode) {
    let is = |app: &str| json!({"podSelector": {"matchLabels": {"app": app}}});
    let policy = |name: &str, spec: Value| {
        let object = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": name}, "spec": spec});
        node.write(name, &object);
    };
    policy("deny", json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}));
    let mut from = is("b");
    from["ingress"] = json!([{"from": [is("a")], "ports": [{"port": 80}]}]);
    policy("b-from-a", from);
    let mut to = is("a");
    to["policyTypes"] = json!(["Egress"]);
    to["egress"] = json!([{"to": [is("b")]}]);
    policy("a-to-b", to);
    node.wait("the policies", |it| {
        let rules = it.rules();
        ["default/b-from-a ingress 0", "default/a-to-b egress 0"]
            .iter()
            .all(|of| rules.contains(of))
    });
}

/// What `policyd OPTIONS explain --live` from pod or address `from` to `to` says, and its exit code.
fn ask(node: &PolicedNode, options: &[&str], from: &str, to: &str, more: &[&str]) -> (i32, String) {
    let mut command = command(&node.node);
    // By netlink alone.
    if by_nftables() {
        command.env("PATH", "/nowhere");
    }
    answer(node, command, options, [from, to], more)
}

/// The same of one that is not told the backend.
fn find(node: &PolicedNode, from: &str, to: &str) -> (i32, String) {
    let mut command = command(&node.node);
    command.env_remove("POLICYD_BACKEND");
    answer(node, command, &[], [from, to], &[])
}

fn answer(
    node: &PolicedNode,
    mut command: Command,
    options: &[&str],
    [from, to]: [&str; 2],
    more: &[&str],
) -> (i32, String) {
    let end = |it: &str| if it.contains('.') { it.to_owned() } else { format!("default/{it}") };
    let (from, to) = (end(from), end(to));
    command.args(options).args(["explain", "--live", "--from", &from, "--to", &to]);
    command.args(["--port", "80/TCP"]).args(more);
    let ended = node.node.run(command);
    assert!(ended.stderr.is_empty(), "{}", ended.stderr);
    (ended.status.code().expect("it ends by itself"), ended.stdout)
}

/// The differences that it tells of a to b, next to this verdict.
pub(crate) fn differences(node: &PolicedNode, verdict: &str) -> Vec<(String, String)> {
    let (code, text) = ask(node, &[], "a", "b", &["--output", "json"]);
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(answer["outcome"], verdict, "{text}");
    let told = answer["live"]["differences"].as_array().unwrap().iter();
    let word = |it: &Value, key: &str| it[key].as_str().unwrap().to_owned();
    let told: Vec<_> = told.map(|it| (word(it, "place"), word(it, "problem"))).collect();
    assert_eq!(code, if told.is_empty() { 0 } else { 3 }, "{text}");
    told
}

/// The first word of what is in the kernel with this beginning, where the line has `of` in it.
fn name(node: &PolicedNode, beginning: &str, of: &str) -> String {
    let saved = if by_nftables() {
        node.rules()
    } else {
        node.node.sh("iptables-save -t mangle; ipset save")
    };
    let lines = saved.lines().filter(|line| line.contains(of) && !line.starts_with(':'));
    let mut words = lines.flat_map(|line| line.split(' ')).map(|it| it.trim_start_matches('@'));
    let found = words.find(|it| it.starts_with(beginning) && !it.contains("programmed"));
    found.unwrap_or_else(|| panic!("no {beginning} of {of} in {saved}")).to_owned()
}

/// What is broken, and of each difference that is told then how its place and its problem begin.
type Case = (String, Vec<(String, &'static str)>);

fn damaged_interfaces(node: &PolicedNode, a: &[IpAddr]) -> Vec<Case> {
    let link = node.link_to(a[0]);
    let place = || "nf_tables: table netdev podwire-sources".to_owned();
    let chain = format!("nft insert rule netdev podwire-sources {link} accept");
    vec![
        (chain, vec![(place(), "chain veth")]),
        (
            "nft add table netdev podwire-sources '{ flags dormant; }'".to_owned(),
            vec![(place(), "it is dormant: ")],
        ),
        ("nft delete table netdev podwire-sources".to_owned(), vec![(place(), "it is missing (")]),
    ]
}

fn holds_exactly_this(node: &PolicedNode) {
    let before = node.rules();
    let compared = if by_nftables() { "20 chains and 17 sets" } else { "49 chains and 8 sets" };
    for (from, to, verdict) in [("a", "b", "allowed"), ("b", "a", "denied")] {
        for (code, text) in [ask(node, &[], from, to, &[]), find(node, from, to)] {
            assert_eq!(code, 0, "{text}");
            let head = format!("default/{from} to default/{to}, 80/TCP: {verdict}\n");
            assert!(text.starts_with(&head), "{text}");
            let end = format!("\nkernel of node-1: holds exactly this ({compared} compared)\n");
            assert!(text.ends_with(&end), "{text}");
        }
    }
    assert_eq!(node.rules(), before);
}

/// Breaks things one after the other, with policyd away, and looks what is told of each.
fn tell_each(node: &mut PolicedNode, cases: Vec<Case>) {
    for (damage, expected) in cases {
        node.node.sh(&damage);
        let told = differences(node, "allowed");
        assert_eq!(told.len(), expected.len(), "{damage}: {told:#?}");
        for ((place, problem), (expected_place, expected)) in told.iter().zip(&expected) {
            assert!(place.starts_with(expected_place), "{damage}: {told:#?}");
            assert!(problem.starts_with(expected), "{damage}: {told:#?}");
        }
        if !by_nftables() {
            node.node.sh("iptables -t mangle -D FORWARD -s 192.0.2.1 -j ACCEPT || true");
        }
        node.start();
        assert_eq!(differences(node, "allowed"), [], "after {damage}");
        node.kill();
    }
}

#[test]
fn a_pod_whose_object_tells_no_address_has_those_that_the_plugin_told_of() {
    let node = PolicedNode::new(&[]);
    let [(_a, a), (_b, b)] = ["a", "b"].map(|name| attach(&node, name));
    for name in ["a", "b"] {
        node.write(
            &format!("pod-{name}"),
            &json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": name, "labels": {"app": name}},
                "spec": {"containers": [{"name": "c", "image": "i"}]}}),
        );
    }
    write_policies(&node);
    // What looks at the interfaces is seen to after the rules.
    node.wait("all that is written", |it| ask(it, &[], "a", "b", &[]).0 == 0);
    for (from, to, outcome) in [("a", "b", "allowed"), ("b", "a", "denied")] {
        let by_name = ask(&node, &[], from, to, &["--output", "json"]);
        let (source, destination) = if from == "a" { (&a, &b) } else { (&b, &a) };
        let [source, destination] = [source[0].to_string(), destination[0].to_string()];
        let by_address = ask(&node, &[], &source, &destination, &["--output", "json"]);
        for (code, text) in [by_name, by_address] {
            let answer: Value = serde_json::from_str(&text).unwrap();
            assert_eq!((code, &answer["outcome"]), (0, &json!(outcome)), "{text}");
        }
    }
    node.clean_up();
}

/// Before Linux 6.16 its chain has gone with it.
#[test]
fn of_an_interface_that_has_gone_it_says_that_nothing_comes_by_it() {
    let node = PolicedNode::new(&[]);
    let [(a, of_a), (_b, _)] = ["a", "b"].map(|name| attach(&node, name));
    write_policies(&node);
    node.wait("all that is written", |it| ask(it, &[], "a", "b", &[]).0 == 0);
    let link = node.link_to(of_a[0]);
    // The runtime has the plugins called once the namespace has gone, and until then policyd knows of the pod.
    drop(a);
    let gone = format!("ip -o link show {link} 2>/dev/null || true");
    node.wait("the interface's end", |it| it.node.sh(&gone).is_empty());
    let (code, text) = ask(&node, &[], "a", "b", &[]);
    assert_eq!(code, 0, "{text}");
    let note = format!("\nnote: interface {link} is not there any more: nothing comes by it");
    assert!(text.contains(&note), "{text}");
    node.clean_up();
}

#[test]
fn the_kernel_holds_what_explain_says_or_is_told_where_it_does_not() {
    let mut node = PolicedNode::new(&[]);
    let [(_a, a), (_b, b), (_c, c)] = ["a", "b", "c"].map(|name| attach(&node, name));
    write_policies(&node);
    holds_exactly_this(&node);
    // With policyd away, nobody repairs what is broken before it is looked at.
    node.kill();
    holds_exactly_this(&node);
    let ends: [&[IpAddr]; 2] = [&a, &b];
    let mut cases = if by_nftables() {
        let mut cases = nftables::damages(&node, ends);
        cases.extend(nftables::damages_elsewhere(&node, &c));
        cases
    } else {
        let mut cases = iptables::damages(&node, ends);
        cases.push(iptables::damage_elsewhere(&node));
        cases
    };
    cases.extend(damaged_interfaces(&node, &a));
    tell_each(&mut node, cases);
    node.wipe();
    // Of iptables there are tables for each family; the table of interfaces is the same.
    assert_eq!(differences(&node, "allowed").len(), if by_nftables() { 2 } else { 3 });
    let (code, text) = find(&node, "a", "b");
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("note: the kernel holds no rules of policyd's, neither of"), "{text}");
}

/// The port of a bridge that a pod is behind.
fn port_to(node: &PolicedNode, pod: &Pod) -> String {
    let link = pod.sh("ip -o link show eth0");
    let index = link.split_once("@if").and_then(|(_, it)| it.split(':').next()).unwrap();
    let name = format!("ip -o link | sed -n 's/^{index}: \\([^@:]*\\).*/\\1/p'");
    node.node.sh(&name).trim().to_owned()
}

#[test]
fn what_bridges_bring_to_ports_is_compared_too() {
    let mut node = PolicedNode::bridged(&[]);
    let [_a, (b, _), (c, _)] = ["a", "b", "c"].map(|name| attach(&node, name));
    write_policies(&node);
    assert_eq!(differences(&node, "allowed"), []);
    let [of_b, of_c] = [b, c].map(|it| port_to(&node, &it));
    node.kill();
    let cases = if by_nftables() {
        nftables::damages_of_ports(&node, &of_b, &of_c)
    } else {
        iptables::damages_of_ports()
    };
    tell_each(&mut node, cases);
    node.wipe();
}

#[test]
fn of_an_address_that_waits_for_a_pod_it_says_that_the_gate_drops() {
    let node = PolicedNode::new(&[]);
    let _a = attach(&node, "a");
    // The link of a pod may be written after its object was read.
    node.wait("the pod's link", |it| ask(it, &[], "10.1.0.77", "a", &[]).0 == 0);
    let (_, text) = ask(&node, &[], "10.1.0.77", "a", &[]);
    assert!(text.contains("allowed\n") && text.contains("note: 10.1.0.77 is in the gated ranges of node node-1, and none of its pods has it: the gate drops"), "{text}");
    let (_, text) = ask(&node, &[], "192.0.2.7", "a", &[]);
    assert!(text.contains("note: 192.0.2.7 is none of node node-1's pods"), "{text}");
    // The gateway is the node itself, which the gate does not keep from its pods.
    let (_, text) = ask(&node, &[], "10.1.0.1", "a", &[]);
    assert!(!text.contains("note: 10.1.0.1 is in") && !text.contains("is none of"), "{text}");
    node.clean_up();
}

#[test]
fn one_that_is_asked_of_another_policyd_says_that_options_matter() {
    let node = PolicedNode::new(&[]);
    for name in ["a", "b"] {
        attach(&node, name);
    }
    write_policies(&node);
    let (code, text) = ask(&node, &["--deny", "reject"], "a", "b", &[]);
    assert_eq!(code, 3, "{text}");
    let (place, missing) = if by_nftables() {
        let chain = name(&node, "PODWIRE-TO-", "default/b");
        let place = format!("nf_tables: chain inet podwire {chain} of default/b");
        (place, "1 of its 7 rules are missing, the first: counter reject")
    } else {
        ("iptables-save: filter FORWARD".to_owned(), "policyd's rule is missing")
    };
    assert!(text.contains(&format!("{place}: {missing}")), "{text}");
    assert!(text.contains("note: this takes policyd to run with the options given here"), "{text}");
    node.clean_up();
}

const FOUND: &[&str] = &["a", "b"];

#[test]
fn of_routed_pods_that_policyd_found_by_itself_it_says_what_is_not_known() {
    says_what_is_not_known(PolicedNode::new(FOUND), true);
}

/// On a bridge they are found once the node has neighbours there.
#[test]
fn of_bridged_pods_that_policyd_found_by_itself_it_says_what_is_not_known() {
    for are_found in [false, true] {
        says_what_is_not_known(PolicedNode::bridged(FOUND), are_found);
    }
}

fn says_what_is_not_known(mut node: PolicedNode, are_found: bool) {
    write_policies(&node);
    if are_found {
        let addresses = FOUND.iter().flat_map(|it| node.addresses(it));
        addresses.for_each(|it| _ = node.node.sh(&format!("ping -c1 -W5 {it}")));
        node.wait("both links", |it| it.knows(FOUND));
    }
    let (code, text) = ask(&node, &[], "a", "b", &[]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("\nkernel of node-1: holds exactly this ("), "{text}");
    assert!(text.contains("note: the CNI plugin has not told the interfaces of 2 pods"), "{text}");
    node.kill();
    let chain = name(&node, "PODWIRE-FROM-", "default/a");
    let (damage, place) = if by_nftables() {
        ("nft flush chain inet podwire", "nf_tables: chain inet podwire")
    } else {
        ("iptables -t mangle -F", "iptables-save: chain")
    };
    node.node.sh(&format!("{damage} {chain}"));
    let told = differences(&node, "allowed");
    assert_eq!(told.len(), 1, "{told:#?}");
    assert_eq!(told[0].0, format!("{place} {chain} of default/a"));
    node.wipe();
}
