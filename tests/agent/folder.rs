//! Manifests come into force, stay in force without policyd, and go.

use std::os::unix::fs::MetadataExt;
use std::thread::sleep;
use std::time::Duration;

use lab::probe::{must_not_reach, must_reach};
use lab::{Daemon, by_nftables, has_iptables, policyd, program};
use serde_json::{Value, json};

use crate::node::{BY_IPTABLES, PATIENCE, PolicedNode, command_at};

fn deny_all(name: &str) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": name}, "spec": {"podSelector": {}}})
}

fn allow(from: &str, to: &str) -> Value {
    let selector = |app: &str| json!({"matchLabels": {"app": app}});
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": format!("{from}-to-{to}")},
        "spec": {"podSelector": selector(to), "ingress": [{"from": [{"podSelector": selector(from)}]}]}})
}

fn reaches(node: &PolicedNode, from: &str, to: &str, allowed: bool) {
    for address in node.addresses(to) {
        let (from, to, address) = (node.space(from), node.space(to), address.to_string());
        if allowed {
            must_reach(from, to, &address);
        } else {
            must_not_reach(from, to, &address);
        }
    }
}

/// How many rules there are of ours in the kernel.
fn has_chain(node: &PolicedNode, chain: &str) -> bool {
    node.rules().contains(chain)
}

#[test]
fn a_policy_is_in_force_when_its_manifest_is_there_and_goes_with_it() {
    let node = PolicedNode::new(&["a", "b"]);
    reaches(&node, "a", "b", true);
    node.write("deny", &deny_all("deny"));
    node.wait("isolation", |it| has_chain(it, "PODWIRE-TO-"));
    reaches(&node, "a", "b", false);
    node.write("allow", &allow("a", "b"));
    node.wait("the rule", |it| has_chain(it, "PODWIRE-INGRESS-"));
    reaches(&node, "a", "b", true);
    reaches(&node, "b", "a", false);
    // The node itself reaches its pods whatever the policies say.
    must_reach(&node.node, node.space("a"), &node.addresses("a")[0].to_string());
    node.remove("deny");
    node.remove("allow");
    node.wait("openness", |it| !has_chain(it, "PODWIRE-TO-"));
    reaches(&node, "b", "a", true);
    node.clean_up();
}

/// Nobody else has a rule in a table of our own: there it goes.
#[test]
fn rules_of_others_that_lead_to_what_goes_hold_up_nothing() {
    let mut node = PolicedNode::told(&["a", "b"], BY_IPTABLES);
    node.write("allow", &allow("a", "b"));
    node.wait("the rule", |it| has_chain(it, "-A PODWIRE-INGRESS-"));
    let rules = node.rules();
    let mut words = rules.lines().flat_map(|line| line.split(' '));
    let chain = words.find(|word| word.starts_with("PODWIRE-INGRESS-")).unwrap().to_owned();
    let sets = node.node.sh("ipset list -n");
    let set = sets.lines().find(|it| it.starts_with("podwire-4-a")).unwrap();
    let lead = format!(
        "iptables -t mangle -N FOREIGN; iptables -t mangle -A FOREIGN -j {chain}; iptables -t mangle -A FOREIGN -m set --match-set {set} src -j RETURN"
    );
    node.node.sh(&lead);
    node.remove("allow");
    node.write("deny", &deny_all("deny"));
    node.wait("isolation of both", |it| it.isolated() == 2);
    node.wait("the chain is empty", |it| !has_chain(it, &format!("-A {chain}")));
    reaches(&node, "a", "b", false);
    reaches(&node, "b", "a", false);
    assert!(node.is_ready());
    // It compares all when others change something, and finds what it has left.
    let repairs = node.metric("policyd_drift_repairs_total");
    node.node.sh("iptables -t mangle -A FOREIGN -j RETURN");
    sleep(Duration::from_secs(3));
    assert_eq!(node.metric("policyd_drift_repairs_total"), repairs);
    node.node.sh(&format!("iptables -t mangle -A {chain} -j RETURN"));
    node.wait("a repair", |it| it.metric("policyd_drift_repairs_total") > repairs);
    node.node.sh("iptables -t mangle -F FOREIGN; iptables -t mangle -X FOREIGN");
    node.kill();
    node.start();
    node.wait("the chain's end", |it| !has_chain(it, &chain));
    node.wait("the set's end", |it| !it.node.sh("ipset list -n").contains(set));
    node.clean_up();
}

#[test]
fn what_is_enforced_outlives_policyd_and_is_taken_up_again_untouched() {
    let mut node = PolicedNode::new(&["a", "b"]);
    node.write("deny", &deny_all("deny"));
    node.wait("isolation", |it| has_chain(it, "PODWIRE-TO-"));
    let before = node.rules();
    node.kill();
    assert_eq!(node.rules(), before);
    reaches(&node, "a", "b", false);
    node.start();
    assert_eq!(node.rules(), before);
    reaches(&node, "a", "b", false);
    // What changed while it was away is seen at the start.
    node.kill();
    node.remove("deny");
    node.start();
    reaches(&node, "a", "b", true);
    node.clean_up();
}

#[test]
fn what_others_break_is_repaired_and_what_is_theirs_stays() {
    let node = PolicedNode::new(&["a", "b"]);
    node.write("deny", &deny_all("deny"));
    node.wait("isolation", |it| has_chain(it, "PODWIRE-TO-"));
    let before = node.rules();
    let (add, list, foreign) = if has_iptables() {
        let add = "iptables -t mangle -A FORWARD -s 192.0.2.1 -j ACCEPT";
        (add, "iptables-save", "-A FORWARD -s 192.0.2.1/32 -j ACCEPT")
    } else {
        let add = "nft add table inet foreign; nft add chain inet foreign forward; nft add rule inet foreign forward ip saddr 192.0.2.1 accept";
        (add, "nft list table inet foreign", "ip saddr 192.0.2.1 accept")
    };
    node.node.sh(add);
    for damage in if by_nftables() {
        [
            "nft flush chain inet podwire forward-to; nft delete chain inet podwire input",
            "nft flush map inet podwire to-4; nft flush set inet podwire ingress-6",
        ]
    } else {
        [
            "iptables -t mangle -F PODWIRE-FORWARD; iptables -t mangle -D INPUT 1",
            "ipset flush podwire-4-programmed; ip6tables -t mangle -F",
        ]
    } {
        node.node.sh(damage);
        node.wait(damage, |it| it.rules() == before);
    }
    assert!(node.metric("policyd_drift_repairs_total") >= 2);
    assert!(node.node.sh(list).contains(foreign));
    reaches(&node, "a", "b", false);
    node.clean_up();
}

#[test]
fn a_bad_manifest_leaves_everything_as_it_was() {
    let node = PolicedNode::new(&["a", "b"]);
    node.write("deny", &deny_all("deny"));
    node.wait("isolation", |it| has_chain(it, "PODWIRE-TO-"));
    let before = node.rules();
    node.write(
        "deny",
        &json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "deny"}, "spec": {"podSelector": 7}}),
    );
    let log = node.node.home().join("policyd.log");
    node.wait("the complaint", |_| {
        let text = std::fs::read_to_string(&log).unwrap();
        text.contains("deny.json") && text.contains("podSelector")
    });
    assert_eq!(node.rules(), before);
    node.wait("the gauge", |it| it.metric("policyd_defective_manifests") == 1);
    node.write("deny", &deny_all("deny"));
    node.wait("the gauge", |it| it.metric("policyd_defective_manifests") == 0);
    assert_eq!(node.rules(), before);
    node.clean_up();
}

#[test]
fn one_bit_for_what_is_allowed_and_what_is_rejected_is_refused() {
    let mut command = program(policyd());
    command.env_remove("KUBECONFIG");
    command.args(["--mark-allowed", "0x1", "--mark-rejected", "1", "--manifests", "/nowhere"]);
    let ended = command.output().unwrap();
    let told = "--mark-allowed and --mark-rejected are both 0x1";
    let text = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.code() == Some(2) && text.contains(told), "{text}");
}

/// The gate would drop what the node's neighbours send.
#[test]
fn a_range_that_holds_an_address_of_the_node_is_refused() {
    let mut node = PolicedNode::new(&[]);
    node.kill();
    node.node
        .sh("ip link add up0 type bridge; ip link set up0 up; ip addr add 192.0.2.1/24 dev up0
         ip route add default via 192.0.2.254");
    let mut command = command_at(&node.node, "127.0.0.1:9098");
    command.args(["--pod-cidr", "192.0.2.0/24"]);
    let log = node.node.home().join("other.log");
    let mut daemon = Daemon::start("policyd", command, &node.node, log);
    let why = "the ranges of pods hold the node's address 192.0.2.1";
    daemon.wait_until(PATIENCE, || {
        node.node.try_sh("curl -s http://127.0.0.1:9098/readyz").stdout.contains(why)
    });
    assert!(!node.rules().contains("192.0.2.0/24"));
    drop(daemon);
    node.clean_up();
}

#[test]
fn a_second_policyd_waits_until_the_first_has_ended() {
    let mut node = PolicedNode::new(&["a", "b"]);
    node.write("deny", &deny_all("deny"));
    node.wait("isolation", |it| has_chain(it, "PODWIRE-TO-"));
    let (before, log) = (node.rules(), node.node.home().join("second.log"));
    let socket =
        |it: &PolicedNode| it.node.run_dir().join("podwire/policyd.sock").metadata().unwrap().ino();
    let listening = socket(&node);
    let command = command_at(&node.node, "127.0.0.1:9098");
    let mut second = Daemon::start("a second policyd", command, &node.node, log);
    // Nor is anything removed under the one that runs.
    let mut cleanup = command_at(&node.node, "off");
    cleanup.arg("cleanup");
    let refused = node.node.run(cleanup);
    assert!(!refused.status.success() && refused.stderr.contains("policyd is running"));
    assert_eq!(node.rules(), before);
    let ask = |it: &PolicedNode, what: &str| {
        it.node.try_sh(&format!("curl -s --max-time 2 http://127.0.0.1:9098/{what}")).stdout
    };
    second.wait_until(PATIENCE, || ask(&node, "readyz").contains("another policyd runs on"));
    assert_eq!(ask(&node, "healthz"), "ok\n");
    assert_eq!(node.rules(), before);
    // The plugin still finds the one that writes.
    assert_eq!(socket(&node), listening);
    node.kill();
    second.wait_until(PATIENCE, || ask(&node, "readyz") == "ok\n");
    assert_eq!(node.rules(), before);
    reaches(&node, "a", "b", false);
    drop(second);
    node.start();
    // The next one of a supervisor that does not wait has the same address for its health checks.
    let log = node.node.home().join("third.log");
    let command = command_at(&node.node, "127.0.0.1:9099");
    let mut third = Daemon::start("a third policyd", command, &node.node, log.clone());
    third.wait_until(PATIENCE, || {
        std::fs::read_to_string(&log).unwrap().contains("another policyd runs on this node")
    });
    node.kill();
    third.wait_until(PATIENCE, || node.is_ready());
    assert_eq!(node.rules(), before);
    drop(third);
    node.start();
    node.clean_up();
}

#[test]
fn what_is_wrong_with_a_policy_is_counted_and_told_once_and_isolates() {
    let node = PolicedNode::new(&["a", "b"]);
    assert_eq!(node.metric("policyd_rejected_policies"), 0);
    let mut wrong = deny_all("wrong");
    wrong["spec"]["ingress"] = json!([{"from": [{"ipBlock": {"cidr": "nowhere"}}]}]);
    node.write("wrong", &wrong);
    node.wait("the gauge", |it| it.metric("policyd_rejected_policies") == 1);
    node.wait("isolation", |it| has_chain(it, "PODWIRE-TO-"));
    reaches(&node, "a", "b", false);
    // Another change of the same object says nothing new.
    wrong["metadata"]["labels"] = json!({"a": "b"});
    wrong["spec"]["podSelector"] = json!({"matchLabels": {"app": "b"}});
    node.write("wrong", &wrong);
    node.wait("less isolation", |it| it.isolated() == 1);
    let log = std::fs::read_to_string(node.node.home().join("policyd.log")).unwrap();
    let told = "NetworkPolicy default/wrong: spec.ingress[0].from[0].ipBlock.cidr: \"nowhere\" is not a CIDR";
    assert_eq!(log.matches(told).count(), 1, "{log}");
    node.remove("wrong");
    node.wait("the gauge", |it| it.metric("policyd_rejected_policies") == 0);
    node.clean_up();
}

#[test]
fn cleanup_tells_who_leads_to_a_chain_and_removes_the_rest() {
    let mut node = PolicedNode::told(&["a"], BY_IPTABLES);
    let run = |node: &PolicedNode| {
        let mut command = program(policyd());
        command.env_remove("KUBECONFIG").arg("cleanup");
        node.node.run(command)
    };
    node.node.sh("iptables -t mangle -N MY; iptables -t mangle -A MY -j PODWIRE-FORWARD");
    node.kill();
    for _ in 0..2 {
        let ended = run(&node);
        let told = "rules of others lead to PODWIRE-FORWARD (from MY)";
        assert!(!ended.status.success() && ended.stderr.contains(told), "{}", ended.stderr);
        let left =
            node.node.sh("{ iptables-save; ip6tables-save; ipset list -n; } | grep -i podwire");
        assert_eq!(left, ":PODWIRE-FORWARD - [0:0]\n-A MY -j PODWIRE-FORWARD\n");
    }
    node.node.sh("iptables -t mangle -F MY; iptables -t mangle -X MY");
    assert!(run(&node).status.success());
    node.start();
    node.clean_up();
}

#[test]
fn cleanup_tells_of_a_set_that_others_use_and_removes_the_rest() {
    let mut node = PolicedNode::told(&["a"], BY_IPTABLES);
    let rule = "FORWARD -m set --match-set podwire-4-programmed src -j ACCEPT";
    node.node.sh(&format!("iptables -A {rule}"));
    node.kill();
    let mut command = program(policyd());
    command.env_remove("KUBECONFIG").arg("cleanup");
    let ended = node.node.run(command);
    let told = "cannot remove the sets podwire-4-programmed: do rules of others look into them?";
    assert!(!ended.status.success() && ended.stderr.contains(told), "{}", ended.stderr);
    assert_eq!(node.node.sh("ipset list -n").trim(), "podwire-4-programmed");
    node.node.sh(&format!("iptables -D {rule}"));
    node.start();
    node.clean_up();
}
