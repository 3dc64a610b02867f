//! `policyd explain --live`: what the objects say, and whether the kernel holds just that.

use std::net::IpAddr;

use lab::{Call, Suite};
use serde_json::{Value, json};

use crate::node::{PolicedNode, command};

/// Wires a pod as a runtime does, whose manifest has its addresses, and tells policyd of it.
fn attach(node: &PolicedNode, name: &str) -> Vec<IpAddr> {
    let pod = node.node.pod(name);
    pod.sh("ip link set lo up");
    let args = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={name}");
    let add = |conf: &Value| {
        let plugin = conf["type"].as_str().unwrap();
        let call = Call::new(plugin, "ADD").container(name).netns(&pod.path()).args(&args);
        call.conf(conf).run(&node.node, &Suite::podwire()).ok()
    };
    let result = add(&node.conf());
    let ips = result["ips"].as_array().unwrap().iter();
    let addresses = ips.map(|ip| ip["address"].as_str().unwrap().split('/').next().unwrap());
    let addresses: Vec<IpAddr> = addresses.map(|it| it.parse().unwrap()).collect();
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
    addresses
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

/// What `policyd OPTIONS explain --live` from pod `from` to pod `to` says, and its exit code.
fn ask(node: &PolicedNode, options: &[&str], from: &str, to: &str, more: &[&str]) -> (i32, String) {
    let mut command = command(&node.node);
    let (from, to) = (format!("default/{from}"), format!("default/{to}"));
    command.args(options).args(["explain", "--live", "--from", &from, "--to", &to]);
    command.args(["--port", "80/TCP"]).args(more);
    let ended = node.node.run(command);
    assert!(ended.stderr.is_empty(), "{}", ended.stderr);
    (ended.status.code().expect("it ends by itself"), ended.stdout)
}

/// The differences that it tells of a to b.
fn differences(node: &PolicedNode) -> Vec<(String, String)> {
    let (code, text) = ask(node, &[], "a", "b", &["--output", "json"]);
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(answer["outcome"], "allowed", "{text}");
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

#[test]
fn the_kernel_holds_what_explain_says_or_is_told_where_it_does_not() {
    let mut node = PolicedNode::new(&[]);
    let [a, b, _] = ["a", "b", "c"].map(|name| attach(&node, name));
    write_policies(&node);
    let before = node.rules();
    for policyd_runs in [true, false] {
        for (from, to, verdict) in [("a", "b", "allowed"), ("b", "a", "denied")] {
            let (code, text) = ask(&node, &[], from, to, &[]);
            assert_eq!(code, 0, "{text}");
            assert!(
                text.starts_with(&format!("default/{from} to default/{to}, 80/TCP: {verdict}\n")),
                "{text}"
            );
            assert!(
                text.contains(
                    "\nkernel of node-1: holds exactly this (38 chains and 8 sets compared)"
                ),
                "{text}"
            );
            assert!(!text.contains("note:"), "{text}");
        }
        assert_eq!(node.rules(), before);
        if policyd_runs {
            node.kill();
        }
    }
    // With policyd away, nobody repairs what is broken before it is looked at.
    let chain_of_b = name(&node, "PODWIRE-TO-", "default/b");
    let other_chain = name(&node, "PODWIRE-TO-", "default/c");
    let peers = name(&node, "podwire-4-", "default/b-from-a ingress");
    for (damage, expected) in [
        (
            format!("iptables -t mangle -F {chain_of_b}"),
            vec![(
                format!("iptables-save: chain {chain_of_b} of default/b"),
                "8 of its 8 rules are missing, the first: ",
            )],
        ),
        (
            format!("iptables -t mangle -A {chain_of_b} -j ACCEPT"),
            vec![(
                format!("iptables-save: chain {chain_of_b} of default/b"),
                "1 rules of others are in it",
            )],
        ),
        (
            format!("ipset del {peers} {}", a[0]),
            vec![(
                format!("ipset: set {peers} that PODWIRE-INGRESS-"),
                "it lacks 10.1.0.2 (default/a)",
            )],
        ),
        (
            format!("ipset add {peers} 192.0.2.7"),
            vec![(
                format!("ipset: set {peers} that PODWIRE-INGRESS-"),
                "it should not hold 192.0.2.7",
            )],
        ),
        (
            format!("ipset del podwire-6-programmed {}", b[1]),
            vec![(
                "ipset: set podwire-6-programmed that PODWIRE-".to_owned(),
                "it lacks fd00:1::3 (default/b)",
            )],
        ),
        (
            "iptables -t mangle -I FORWARD -s 192.0.2.1 -j ACCEPT".to_owned(),
            vec![(
                "iptables-save: mangle FORWARD".to_owned(),
                "policyd's rule is not the first; 1 of others ahead of it, the first: -A FORWARD -s 192.0.2.1/32 -j ACCEPT",
            )],
        ),
        (
            "ip6tables -t mangle -D INPUT 1".to_owned(),
            vec![(
                "ip6tables-save: mangle INPUT".to_owned(),
                "policyd's rule is missing (-j PODWIRE-INPUT)",
            )],
        ),
        (
            "ip6tables -t mangle -D PODWIRE-LINK 1".to_owned(),
            vec![("ip6tables-save: chain PODWIRE-LINK of default/".to_owned(), "1 of its ")],
        ),
        // Nothing of what these two send comes there.
        (
            format!(
                "iptables -t mangle -F {other_chain}; ipset add podwire-4-programmed 10.1.0.77"
            ),
            vec![],
        ),
        (
            "iptables -t mangle -F; iptables -t mangle -X; ip6tables -t mangle -D INPUT 1"
                .to_owned(),
            vec![
                ("iptables-save".to_owned(), "no chain of policyd's is there"),
                ("ip6tables-save: mangle INPUT".to_owned(), "policyd's rule is missing"),
            ],
        ),
    ] {
        node.node.sh(&damage);
        let told = differences(&node);
        assert_eq!(told.len(), expected.len(), "{damage}: {told:#?}");
        for ((place, problem), (expected_place, expected)) in told.iter().zip(&expected) {
            assert!(place.starts_with(expected_place), "{damage}: {told:#?}");
            assert!(problem.starts_with(expected), "{damage}: {told:#?}");
        }
        node.node.sh("iptables -t mangle -D FORWARD -s 192.0.2.1 -j ACCEPT || true");
        node.start();
        assert_eq!(differences(&node), []);
        node.kill();
    }
    // One that shall run otherwise would write other rules.
    let (code, text) = ask(&node, &["--deny", "reject"], "a", "b", &[]);
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("iptables-save: filter FORWARD: policyd's rule is missing"), "{text}");
    assert!(text.contains("note: this takes policyd to run with the options given here"), "{text}");
    node.wipe();
    assert_eq!(differences(&node).len(), 2);
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
        let told = differences(&node);
        assert_eq!(told.len(), 1, "{told:#?}");
        assert_eq!(told[0].0, format!("iptables-save: chain {chain} of default/a"));
        node.wipe();
    }
}
