//! `policyd explain --live`: what the objects say, and whether the kernel holds just that.

use std::net::IpAddr;

use lab::{Pod, addresses};
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
    node.wait("the policies", |it| it.rules().contains("default/b-from-a ingress 0"));
}

/// What `policyd OPTIONS explain --live` from pod or address `from` to `to` says, and its exit code.
fn ask(node: &PolicedNode, options: &[&str], from: &str, to: &str, more: &[&str]) -> (i32, String) {
    let mut command = command(&node.node);
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
    let saved = node.node.sh("iptables-save -t mangle; ipset save");
    let lines = saved.lines().filter(|line| line.contains(of) && !line.starts_with(':'));
    let mut words = lines.flat_map(|line| line.split(' '));
    let found = words.find(|it| it.starts_with(beginning) && !it.contains("programmed"));
    found.unwrap_or_else(|| panic!("no {beginning} of {of} in {saved}")).to_owned()
}

/// What is broken, and of each difference that is told then how its place and its problem begin.
type Case = (String, Vec<(String, &'static str)>);

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

fn damaged_interfaces(node: &PolicedNode, a: &[IpAddr]) -> Vec<Case> {
    let link = node.link_to(a[0]);
    let place = || "nf_tables: table netdev podwire-sources".to_owned();
    let chain = format!("nft insert rule netdev podwire-sources {link} accept");
    vec![
        (chain, vec![(place(), "chain veth")]),
        ("nft delete table netdev podwire-sources".to_owned(), vec![(place(), "it is missing (")]),
    ]
}

/// What nothing of a's and b's comes to.
fn damage_elsewhere(node: &PolicedNode) -> Case {
    let chain = name(node, "PODWIRE-TO-", "default/c");
    let add = "ipset add podwire-4-programmed 10.1.0.77";
    (format!("iptables -t mangle -F {chain}; {add}"), Vec::new())
}

fn holds_exactly_this(node: &PolicedNode) {
    let before = node.rules();
    for (from, to, verdict) in [("a", "b", "allowed"), ("b", "a", "denied")] {
        let (code, text) = ask(node, &[], from, to, &[]);
        assert_eq!(code, 0, "{text}");
        let head = format!("default/{from} to default/{to}, 80/TCP: {verdict}\n");
        assert!(text.starts_with(&head), "{text}");
        let end = "\nkernel of node-1: holds exactly this (49 chains and 8 sets compared)\n";
        assert!(text.ends_with(end), "{text}");
    }
    assert_eq!(node.rules(), before);
}

#[test]
fn a_pod_whose_object_tells_no_address_has_those_that_the_plugin_told_of() {
    let node = PolicedNode::new(&[]);
    let [a, b] = ["a", "b"].map(|name| attach(&node, name).1);
    for name in ["a", "b"] {
        node.write(
            &format!("pod-{name}"),
            &json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": name, "labels": {"app": name}},
                "spec": {"containers": [{"name": "c", "image": "i"}]}}),
        );
    }
    write_policies(&node);
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

#[test]
fn the_kernel_holds_what_explain_says_or_is_told_where_it_does_not() {
    let mut node = PolicedNode::new(&[]);
    let [(_a, a), (_b, b), _c] = ["a", "b", "c"].map(|name| attach(&node, name));
    write_policies(&node);
    holds_exactly_this(&node);
    // With policyd away, nobody repairs what is broken before it is looked at.
    node.kill();
    holds_exactly_this(&node);
    let mut cases = damaged_chains(&node);
    cases.extend(damaged_sets(&node, [&a, &b]));
    cases.push(damage_elsewhere(&node));
    cases.extend(damaged_hooks());
    cases.extend(damaged_interfaces(&node, &a));
    for (damage, expected) in cases {
        node.node.sh(&damage);
        let told = differences(&node, "allowed");
        assert_eq!(told.len(), expected.len(), "{damage}: {told:#?}");
        for ((place, problem), (expected_place, expected)) in told.iter().zip(&expected) {
            assert!(place.starts_with(expected_place), "{damage}: {told:#?}");
            assert!(problem.starts_with(expected), "{damage}: {told:#?}");
        }
        node.node.sh("iptables -t mangle -D FORWARD -s 192.0.2.1 -j ACCEPT || true");
        node.start();
        assert_eq!(differences(&node, "allowed"), []);
        node.kill();
    }
    node.wipe();
    assert_eq!(differences(&node, "allowed").len(), 3);
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
    assert!(text.contains("iptables-save: filter FORWARD: policyd's rule is missing"), "{text}");
    assert!(text.contains("note: this takes policyd to run with the options given here"), "{text}");
    node.clean_up();
}

#[test]
fn of_pods_that_policyd_found_by_itself_it_says_what_is_not_known() {
    for mut node in [PolicedNode::new(&["a", "b"]), PolicedNode::bridged(&["a", "b"])] {
        write_policies(&node);
        node.wait("both links", |it| it.rules().matches(" -s 10.1.0.").count() >= 2);
        let (code, text) = ask(&node, &[], "a", "b", &[]);
        assert_eq!(code, 0, "{text}");
        assert!(text.contains("\nkernel of node-1: holds exactly this ("), "{text}");
        assert!(
            text.contains("note: the CNI plugin has not told the interfaces of 2 pods"),
            "{text}"
        );
        node.kill();
        let chain = name(&node, "PODWIRE-FROM-", "default/a");
        node.node.sh(&format!("iptables -t mangle -F {chain}"));
        let told = differences(&node, "allowed");
        assert_eq!(told.len(), 1, "{told:#?}");
        assert_eq!(told[0].0, format!("iptables-save: chain {chain} of default/a"));
        node.wipe();
    }
}
